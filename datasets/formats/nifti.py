"""NIfTI by nibabel: volumes and series of them; header, orientation in space and scale are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from icgn.datasets.formats.arrays import ArrayReader, array_container, store
from icgn.datasets.formats.container import Container
from icgn.datasets.formats.contract import Format, Pages, Request
from icgn.datasets.formats.packed import is_packed, pack, unpack

_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img")


class _Turned:
    """Stored samples with the axes in the opposite order: rows and columns last, as in the other kinds of file."""

    def __init__(self, proxy: Any, slope: float, intercept: float, dtype: Any) -> None:
        self._proxy, self._slope, self._intercept = proxy, slope, intercept
        self.shape, self.dtype = proxy.shape[::-1], np.dtype(dtype)

    def __getitem__(self, place: Any) -> Any:
        values = np.asanyarray(self._proxy[place[::-1]]).T
        if (self._slope, self._intercept) != (1, 0):
            values = (values.astype(np.float64) - self._intercept) / self._slope
            values = np.rint(values) if self.dtype.kind in "ui" else values
        return values.astype(self.dtype, copy=False)


def open_nifti(request: Request) -> ArrayReader:
    """Open a volume (Z, Y, X) or a series of volumes (T, Z, Y, X), slice by slice."""
    import nibabel as typed

    nibabel: Any = typed
    path = request.path
    if path.name.lower().endswith(_SUFFIXES):
        image: Any = nibabel.load(path)
    else:  # nibabel goes by the name
        image = _by_content(nibabel, path)
    proxy, header = image.dataobj, image.header
    dtype = header.get_data_dtype()
    if dtype.fields:
        raise ValueError(f"the voxels are records ({dtype}), expected numbers; save each colour as its own volume")
    if len(image.shape) > 5 or len(image.shape) < 2:
        raise ValueError(f"the NIfTI has {len(image.shape)} axes, expected 2 to 5")
    slope, intercept = float(proxy.slope), float(proxy.inter)
    if not (np.isfinite(slope) and np.isfinite(intercept)) or slope == 0:
        slope, intercept = 1.0, 0.0
    stored = int(np.prod(image.shape, dtype=np.int64)) * dtype.itemsize
    data_path = Path(image.file_map["image"].filename or path)
    if not is_packed(data_path) and proxy.offset + stored > data_path.stat().st_size:
        raise ValueError("the file is truncated: its header says more data than there are")
    array = _Turned(proxy, slope, intercept, dtype)
    axes = request.axes or {2: "YX", 3: "ZYX", 4: "TZYX", 5: "CTZYX"}[len(array.shape)]
    sizes = header.get_zooms()[:3]
    container = array_container(
        "NIfTI", array, replace(request, axes=axes), slope=slope, intercept=intercept, kept=("the NIfTI header",),
        spacing={a: float(s) for a, s in zip("XYZ", sizes, strict=False) if s > 0},
        unit={"mm": "mm", "micron": "µm", "meter": "m"}.get(header.get_xyzt_units()[0], ""),
        native=(int(proxy.offset), dtype.str, path.suffix.lower() in (".hdr", ".img")),
    )  # fmt: skip
    return ArrayReader(array, container)


def _by_content(nibabel: Any, path: Path) -> Any:
    opened = nibabel.openers.ImageOpener(path) if is_packed(path) else path.open("rb")
    file_map = nibabel.Nifti1Image.make_file_map()
    file_map["image"].filename = str(path)
    if is_packed(path):
        opened.close()
        raise ValueError("the file is a packed NIfTI without the suffix; rename it to .nii.gz")
    opened.close()
    return nibabel.Nifti1Image.from_file_map(file_map)


def write_nifti(path: Path, pages: Pages, container: Container) -> tuple[str, ...]:
    """Write the file that was read with new voxels, or a new one with the size of a voxel; packed for ``.nii.gz``."""
    packed = pages.target.suffix.lower() == ".gz"
    plain = path.with_name(f"{path.name}-plain")
    try:
        again = container.native is not None and container.path.is_file() and not container.native[2]
        if again:
            _write_again(plain, pages, container)
        else:
            _write_new(plain, pages, container)
        if packed:
            pack(plain, path)
        else:
            plain.replace(path)
    finally:
        plain.unlink(missing_ok=True)
    lost = container.native is not None and not again
    return ("the header of the NIfTI pair is not kept: a single file is written",) if lost else ()


def _write_again(plain: Path, pages: Pages, container: Container) -> None:
    offset, dtype, _ = container.native
    unpack(container.path, plain)
    array = np.memmap(plain, np.dtype(dtype), "r+", offset, container.shape[::-1], order="F")
    store(array.T, pages, container)
    array.flush()


def _write_new(plain: Path, pages: Pages, container: Container) -> None:
    import nibabel as typed

    nibabel: Any = typed
    dtype = np.dtype(container.dtype)
    header = nibabel.Nifti1Header(endianness="<")
    shape = container.shape if container.samples == 1 else (*container.shape[:-1],)
    if container.samples > 1 or len(shape) > 5:
        raise ValueError("NIfTI holds numbers with up to five axes, expected gray pages; write .tif or .npy")
    header.set_data_dtype(dtype)
    header.set_data_shape(shape[::-1])
    sizes = [container.spacing.get(a, 1.0) for a in "XYZ"[: len(shape)]]
    header.set_zooms((*sizes, *[1.0] * (len(shape) - len(sizes))))
    header.set_xyzt_units({"µm": "micron", "mm": "mm", "m": "meter"}.get(container.unit, "unknown"))
    header.set_sform(np.diag([*[*sizes, 1.0][:3], 1.0]), code="scanner")
    header.set_data_offset(352)
    header.set_slope_inter(1, 0)
    with plain.open("wb") as stream:
        header.write_to(stream)
        stream.write(b"\0" * (352 - stream.tell()))
        stream.truncate(352 + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
    array = np.memmap(plain, dtype.newbyteorder("<"), "r+", 352, shape[::-1], order="F")
    store(array.T, pages, container)
    array.flush()


NIFTI = Format(
    "NIfTI", _SUFFIXES, lambda head, path: head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2"),
    open_nifti, write_nifti,
    ("float32", "uint16", "uint8", "int16", "float64", "int32", "uint32", "int8", "int64", "uint64"),
    many=True, channels=(1,), keeps=frozenset({"spacing"}), scaled=True, sized=True, package="nibabel",
)  # fmt: skip
