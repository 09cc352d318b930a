"""The table of formats: which one a file has, by its content, and which one a name asks for."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

from icgn.datasets.formats.arrays import ARRAYS
from icgn.datasets.formats.contract import Format, Reader, Request
from icgn.datasets.formats.dicom import DICOM
from icgn.datasets.formats.fits import FITS
from icgn.datasets.formats.hierarchies import HIERARCHIES
from icgn.datasets.formats.netpbm import NETPBM
from icgn.datasets.formats.nifti import NIFTI
from icgn.datasets.formats.packed import MAGIC, head_of
from icgn.datasets.formats.rasters import RASTERS
from icgn.datasets.formats.tiff_write import TIFF

PICTURES = (RASTERS[0], RASTERS[1], TIFF, *RASTERS[2:], NETPBM)
"""Kinds of file that photographs come in."""

FORMATS = (*PICTURES, *ARRAYS, FITS, NIFTI, DICOM, *HIERARCHIES)
"""All kinds of file that can be read."""

EXTRA = "icgn[science]"
_WITH_PLACES = tuple(s for f in (ARRAYS[1], FITS, *HIERARCHIES) for s in f.suffixes)

# First bytes of what people have but is not read, with its name.
_OTHERS = (
    (b"GIF8", "a GIF"), (b"8BPS", "a Photoshop file"), (b"%PDF", "a PDF"), (b"P7", "a PAM file"),
    (b"Pf", "a PFM file"), (b"PF", "a PFM file"), (b"v/1\x01", "an OpenEXR file"), (b"#?RADIANCE", "a Radiance file"),
    (b"\0\0\0\x0cjP", "a JPEG 2000 file"), (b"\xff\x4f\xff\x51", "a JPEG 2000 file"), (b"\xff\x0a", "a JPEG XL file"),
    (b"\0\0\0\x0cJXL", "a JPEG XL file"), (b"\0\0\x01\0", "an icon"), (b"\xd0\xcf\x11\xe0", "an OLE file (OIB, ZVI)"),
    (b"MATLAB 5.0", "a MATLAB file"), (b"ZISRAWFILE", "a Zeiss CZI file"), (b"\xda\xce\xbe\x0a", "a Nikon ND2 file"),
    (b"PK\3\4", "a ZIP archive"), (MAGIC, "a gzip archive"), (b"II\xbc", "a JPEG XR file"), (b"NRRD", "a NRRD file"),
)  # fmt: skip
_HEIF = {b"heic": "a HEIC file", b"heix": "a HEIC file", b"mif1": "a HEIF file", b"avif": "an AVIF file"}


def split_inner(path: Path) -> tuple[Path, str]:
    """Split ``file.h5:/group/data`` into the file and the place inside; a path that exists has none.

    A file before a colon has to exist, or to have the suffix of a kind that has places inside; the place inside a
    folder that is called ``.zarr`` may also stand behind its name.
    """
    text = str(path)
    if ":" in text and not path.exists():
        for at in range(len(text) - 1, 0, -1):
            file = text[:at]
            if text[at] == ":" and (Path(file).exists() or file.lower().endswith(_WITH_PLACES)):
                return Path(file), text[at + 1 :]
    for parent in path.parents:
        if parent.suffix.lower() == ".zarr" and (parent.is_dir() or not parent.exists()):
            return parent, str(path.relative_to(parent))
    return path, ""


def identify(path: Path) -> Format | None:
    """Find the format of a file by its first bytes; None for one that is not read.

    Raises
    ------
    OSError
        if the file cannot be opened.
    """
    head = b"" if path.is_dir() else head_of(path)
    return next((f for f in FORMATS if f.recognizes(head, path)), None)


def named(path: Path) -> Format | None:
    """Find the format that a file name asks for; None for other suffixes."""
    name = split_inner(path)[0].name.lower()
    return next((f for f in FORMATS for s in f.suffixes if name.endswith(s) and len(name) > len(s)), None)


def kind_in_words(path: Path) -> str:
    """Say what a file is that cannot be read: by its first bytes, else by its suffix."""
    try:
        head = head_of(path)
    except OSError:
        head = b""
    if head[4:8] == b"ftyp":
        return _HEIF.get(head[8:12], "a video or HEIF file")
    for magic, name in _OTHERS:
        if head.startswith(magic):
            return name
    header = path.with_suffix(".hdr")
    if path.suffix.lower() == ".img" and header.is_file():
        return f"the voxels of {header.name}, which is the file to name"
    if head[:2] in (b"\2\0", b"\x08\0") and named(path) is DICOM:
        return "a DICOM file without its preamble (pydicom writes one: save_as with enforce_file_format=True)"
    return f"{path.suffix.lower()} file" if path.suffix else "file without a suffix"


def open_file(path: Path, *, axes: str | None, pixel_limit: int) -> Reader:
    """Open a file of any kind for reading.

    Raises
    ------
    ValueError, OSError, or whatever a codec raises on broken data
        the messages do not name the file: the caller does.
    """
    file, inner = split_inner(path)
    if file.exists() and not (file.is_file() or file.is_dir()):
        raise ValueError("is a pipe or a device, expected a file; save what it gives to a file first")
    if not file.is_dir() and not head_of(file):
        raise ValueError("the file is empty (zero bytes)")
    found = identify(file)
    if found is None and file.is_dir():
        raise IsADirectoryError(21, "is a directory, expected a file")
    if found is None:
        known, words = ", ".join(f.kind for f in FORMATS), kind_in_words(file)
        words = words if words.startswith(("a ", "an ", "the ")) else f"a {words}"
        raise ValueError(
            f"not a PNG, JPEG or TIFF file, whatever its name says, but {words}; convert it to one of {known}"
        )
    check_installed(found)
    if inner and found in PICTURES:
        raise ValueError(f"a {found.kind} file has nothing inside, got {inner!r} behind the colon")
    reader = found.open(Request(file, inner, axes, pixel_limit))
    reader.container = replace(reader.container, path=file)
    return reader


def check_installed(found: Format) -> None:
    """Raise ``ValueError`` where the package that a format needs is missing."""
    if found.package and importlib.util.find_spec(found.package) is None:
        raise ValueError(f"a {found.kind} file, which needs {found.package}; install it: pip install '{EXTRA}'")
