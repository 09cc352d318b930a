"""TIFF as tifffile writes it: page by page, with the tags of the file that was read, or as OME-TIFF."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from icgn.datasets.formats.container import Container, Samples, density, sample_bits
from icgn.datasets.formats.contract import Format, Pages
from icgn.datasets.formats.tiff import SHARED_TAGS, Layout, Tags, TiffReader, complaints

_DESCRIPTION, _SOFTWARE, _DATE = 270, 305, 306
_LOSSLESS = {
    "NONE": None, "LZW": "lzw", "ADOBE_DEFLATE": "adobe_deflate", "DEFLATE": "adobe_deflate", "PACKBITS": "packbits",
    "LZMA": "lzma", "ZSTD": "zstd",
}  # fmt: skip
_CLASSIC = 2**32 - 2**25
_OME_UNIT = {"um": "µm", "micron": "µm"}


def write_tiff(path: Path, pages: Pages, container: Container) -> tuple[str, ...]:
    """Write all pages; a file read from a TIFF gets its tags, byte order, tiles and lossless compression back."""
    layout = container.native if isinstance(container.native, Layout) else None
    size = len(pages) * container.height * container.width * container.samples * np.dtype(container.dtype).itemsize
    big = size > _CLASSIC or (layout is not None and layout.big)
    notes = ["written as BigTIFF, as it is larger than 4 GB"] if big and layout and not layout.big else []
    if layout is not None and (layout.compression or "NONE") not in _LOSSLESS:
        notes.append(f"written with lossless compression (deflate), not with {layout.compression} as the TIFF was")
    with complaints():
        if layout is not None:
            with tifffile.TiffWriter(path, bigtiff=big, byteorder=layout.byteorder) as tiff:
                _write_again(tiff, pages, container, layout)
        elif len(pages) > 1 or container.spacing:
            _write_new(path, pages, container, big)
        else:
            with tifffile.TiffWriter(path, bigtiff=big) as tiff:
                tiff.write(_laid_out(pages[0], False), metadata=None, **_single(container))
    return tuple(notes)


def _write_again(tiff: Any, pages: Pages, container: Container, layout: Layout) -> None:
    common = _samples(container, layout.planar)
    common |= _packed(container) or _compressed(layout)
    common |= {"iccprofile": container.icc, "metadata": None, "tile": layout.tile}
    if layout.together or layout.truncated:
        samples = [container.samples] if container.samples > 1 else []
        size = [container.height, container.width]
        shape = (len(pages), *(samples + size if layout.planar else size + samples))
        items = (_laid_out(p, layout.planar) for p in pages)
        common |= {
            "truncate": layout.truncated,
            "shape": shape,
            "dtype": container.dtype,
            "tile": None,
            "compression": None,
        }
        common["predictor"] = None
        tiff.write(items, **common, **_tags(container, layout.page))
        return
    for index, page in enumerate(pages):
        kept = pages.native(index)
        tags = kept.page if isinstance(kept, Layout) else layout.page
        tiff.write(_laid_out(page, layout.planar), **common, **_tags(container, tags))


def _write_new(path: Path, pages: Pages, container: Container, big: bool) -> None:
    """OME-TIFF where its axes suffice, else TIFF with the axes in tifffile's description."""
    axes = container.page_axes
    known = set(axes) <= set("TZC") and len(set(axes)) == len(axes)
    many = container.samples > 1
    shape = (*container.page_shape, container.height, container.width, *([container.samples] if many else []))
    metadata: dict[str, Any] = {"axes": axes + "YX" + "S" * many}
    if known:
        for axis, value in container.spacing.items():
            metadata[f"PhysicalSize{axis}"] = value
            metadata[f"PhysicalSize{axis}Unit"] = _OME_UNIT.get(container.unit, container.unit or "pixel")
    options = _samples(container, False) | {"compression": "adobe_deflate", "predictor": True}
    with tifffile.TiffWriter(path, bigtiff=big, ome=known) as tiff:
        tiff.write((_laid_out(p, False) for p in pages), shape=shape, dtype=container.dtype, metadata=metadata,
                   iccprofile=container.icc, software=False, **options)  # fmt: skip


def _single(container: Container) -> dict[str, Any]:
    """Options of a single picture without TIFF tags of its own."""
    dpi = container.dpi
    return _samples(container, False) | (_packed(container) or {"compression": "adobe_deflate", "predictor": True}) | {
        "iccprofile": container.icc,
        "resolution": dpi,
        "resolutionunit": "INCH" if dpi else None,
        "extratags": _extra_tags(container.exif),
        "software": False,
    }  # fmt: skip


def _samples(container: Container, planar: bool) -> dict[str, Any]:
    """How the samples of a pixel are to be understood."""
    colours = 3 if container.channels >= 3 and _is_rgb(container) else 1
    extra = ["unspecified"] * (container.channels - colours) + ["unassalpha"] * container.alpha
    return {
        "photometric": "rgb" if colours == 3 else "minisblack",
        "planarconfig": ("separate" if planar else "contig") if container.samples > 1 else None,
        "extrasamples": extra or None,
    }


def _is_rgb(container: Container) -> bool:
    layout = container.native
    return container.channels == 3 or (isinstance(layout, Layout) and layout.rgb)


def _packed(container: Container) -> dict[str, Any]:
    """Samples of 9 to 15, or 17 to 31 bits are packed, which goes without compression."""
    whole = sample_bits(container.dtype)
    return {"bitspersample": container.bits} if whole // 2 < container.bits < whole and whole > 8 else {}


def _compressed(layout: Layout) -> dict[str, Any]:
    compression = _LOSSLESS.get(layout.compression or "NONE", "adobe_deflate")
    predictable = compression in ("lzw", "adobe_deflate", "zstd", "lzma")
    return {"compression": compression, "predictor": True if predictable else None}


def _tags(container: Container, kept: Tags) -> dict[str, Any]:
    """The options that write the kept tags again."""
    by_code = {code: content for code, _, content in kept.tags}
    options: dict[str, Any] = {"software": False, "resolution": kept.resolution, "resolutionunit": kept.unit}
    if _DESCRIPTION in by_code:
        options["description"] = _described(by_code[_DESCRIPTION].rstrip(b"\0"), container)
    others = [(c, t, _count(t, v), v, True) for c, t, v in kept.tags if c != _DESCRIPTION]
    options["extratags"] = others
    if kept.resolution is None or _changed_density(container, kept):
        options |= {"resolution": container.dpi, "resolutionunit": "INCH" if container.dpi else None}
    return options


def _described(text: bytes, container: Container) -> bytes:
    """A description; that of tifffile, which says the shape of the array, with the shape that is written.

    Palettes have become colours, and pages that lay on their side stand upright.
    """
    try:
        known = json.loads(text)
        old = [int(n) for n in known["shape"] if n != 1]
    except (KeyError, TypeError, ValueError):
        return text
    layout = container.native
    planar = isinstance(layout, Layout) and layout.planar
    size, samples = [container.height, container.width], [container.samples] if container.samples > 1 else []
    page = samples + size if planar else size + samples
    new = [n for n in page if n != 1]
    if old[len(old) - len(new) :] == new:
        return text
    known |= {"shape": [*container.page_shape, *page]}
    known.pop("axes", None)
    return json.dumps(known).encode()


def _changed_density(container: Container, kept: Tags) -> bool:
    per_inch = {None: 1.0, 2: 1.0, 3: 2.54}.get(kept.unit)
    if per_inch is None or kept.resolution is None or container.dpi is None:
        return False
    (a, b), (c, d) = kept.resolution
    return bool(b and d) and density(a / b, c / d, per_inch) != container.dpi


def _count(kind: int, content: bytes) -> int:
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8, 17: 8}
    return len(content) // sizes.get(kind, 1) if kind not in (5, 10) else len(content) // 8


def _laid_out(page: Samples, planar: bool) -> Samples:
    page = page[..., 0] if page.shape[-1] == 1 else page
    return np.ascontiguousarray(np.moveaxis(page, -1, 0) if planar and page.ndim == 3 else page)


def _extra_tags(block: bytes | None) -> list[tuple[int, str, int, str, bool]]:
    exif = Image.Exif()
    if block:
        exif.load(block)
    # Type "s" is ASCII; tifffile counts the length itself.
    return [(tag, "s", 0, str(exif[tag]), True) for tag in SHARED_TAGS if tag in exif and str(exif[tag]).isascii()]


TIFF = Format(
    kind="TIFF",
    suffixes=(".tif", ".tiff", ".btf"),
    # A DICOM file may begin with the header of a TIFF, so that both kinds of program open it.
    recognizes=lambda head, path: head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") and head[128:132] != b"DICM",
    open=TiffReader,
    write=write_tiff,
    dtypes=("uint16", "uint8", "float32", "uint32", "int16", "int32", "int8", "float64", "float16"),
    many=True,
    channels=(),
    alpha=True,
    keeps=frozenset({"icc", "dpi", "exif", "spacing"}),
    sized=True,
    retypes=True,
)
