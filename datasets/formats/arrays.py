"""Arrays without a picture format around them: which of their axes is which, and NumPy's ``.npy`` and ``.npz``."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from icgn.datasets.formats.container import Container, Samples, check_dtype, check_size, sample_bits
from icgn.datasets.formats.contract import Format, Pages, Request

_FLOATS = ("float32", "float64", "float16")
ANY_TYPE = ("uint16", "uint8", *_FLOATS, "uint32", "int16", "int32", "int8", "bool", "int64", "uint64")
"""The types of samples that arrays may have."""


def letters(shape: tuple[int, ...], axes: str | None) -> str:
    """The letters of the axes of an array.

    Without `axes`, the rule is: two axes are rows and columns; of more, a last one of 1, 3 or 4 entries are the samples
    of a pixel, unless the one before it is as short, and the first ones count pages: Z, or T and Z; or Q for more.

    Raises
    ------
    ValueError
        for fewer than two axes, none or several of Y and X, or letters that do not fit the array.
    """
    if len(shape) < 2 or 0 in shape:
        raise ValueError(f"the array has shape {shape}, expected at least rows and columns, none of them empty")
    if axes is not None:
        good = len(axes) == len(shape) and axes.isalpha() and axes.isupper()
        if not good or any(axes.count(a) != 1 for a in "YX") or axes.count("S") > 1:
            raise ValueError(f"axes: got {axes!r} for shape {shape}, expected a letter for each axis, Y and X once")
        return axes
    samples = len(shape) > 2 and shape[-1] in (1, 3, 4) and min(shape[-3:-1]) > 4
    pages = len(shape) - 2 - samples
    return {0: "", 1: "Z", 2: "TZ"}.get(pages, "Q" * pages) + "YX" + "S" * samples


class ArrayReader:
    """The pages of anything that has a shape, a dtype and slices, read one by one.

    Parameters
    ----------
    array : array-like
        indexed by one tuple of integers and slices, one for each axis.
    container : Container
        with the letters of the axes.
    close : callable, optional
        called at the end.
    """

    def __init__(self, array: Any, container: Container, close: Callable[[], None] | None = None) -> None:
        self.container = container
        self._array, self._close = array, close
        self._where = [i for i, a in enumerate(container.axes) if a not in "YXS"]
        inner = [a for a in container.axes if a in "YXS"]
        self._order = [inner.index(a) for a in "YXS" if a in inner]

    def read(self, index: int) -> Samples:
        if not 0 <= index < self.container.pages:
            raise IndexError(f"page {index}: the file has {self.container.pages}")
        place: list[Any] = [slice(None)] * len(self.container.axes)
        for axis, at in zip(self._where, np.unravel_index(index, self.container.page_shape or (1,)), strict=False):
            place[axis] = int(at)
        page = np.asarray(self._array[tuple(place)])
        page = page.astype(page.dtype.newbyteorder("="), copy=False).transpose(self._order)
        return page if page.ndim == 3 else page[..., None]

    def native(self, index: int) -> Any:
        return self.container.native

    def close(self) -> None:
        self._array = None
        if self._close is not None:
            self._close()


def array_container(kind: str, array: Any, request: Request, **more: Any) -> Container:
    """Describe an array; `more` are further parts of the container."""
    axes = more.pop("axes", None) or letters(tuple(array.shape), request.axes)
    found = Container(
        kind=kind,
        dtype=check_dtype(array.dtype),
        shape=tuple(map(int, array.shape)),
        axes=axes,
        bits=sample_bits(array.dtype),
        inner=request.inner,
        **more,
    )
    check_size(found.width, found.height, request.pixel_limit)
    return found


def store(array: Any, pages: Pages, container: Container) -> None:
    """Put pages (H, W, S) into an array that has the axes of the container."""
    inner = [a for a in container.axes if a in "YXS"]
    order = ["YXS".index(a) for a in inner]
    where = [i for i, a in enumerate(container.axes) if a not in "YXS"]
    for index, page in enumerate(pages):
        place: list[Any] = [slice(None)] * len(container.axes)
        for axis, at in zip(where, np.unravel_index(index, container.page_shape or (1,)), strict=False):
            place[axis] = int(at)
        array[tuple(place)] = (page if "S" in inner else page[..., 0]).transpose(order)


def open_npy(request: Request) -> ArrayReader:
    """Open an array file, mapped into memory."""
    array = _mapped(request.path)
    native = (array.dtype.str, bool(array.flags.f_contiguous and not array.flags.c_contiguous))
    return ArrayReader(array, array_container("NumPy array", array, request, native=native))


def open_npz(request: Request) -> ArrayReader:
    """Open one array of an archive, unpacked into a temporary file so that it need not fit in memory."""
    with zipfile.ZipFile(request.path) as archive:
        names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
        name = request.inner or (names[0] if len(names) == 1 else "")
        if name not in names:
            wanted = f"no array {name!r}" if name else f"{len(names)} arrays"
            shown = ", ".join(f"{request.path.name}:{n}" for n in names[:9])
            raise ValueError(f"the archive has {wanted}, expected one of {shown}")
        folder = tempfile.TemporaryDirectory(prefix="icgn-")
        try:
            unpacked = Path(folder.name) / "array.npy"
            with archive.open(f"{name}.npy") as source, unpacked.open("wb") as target:
                shutil.copyfileobj(source, target)
            array = _mapped(unpacked)
            native = (array.dtype.str, False)
            container = array_container("NumPy archive", array, request, native=native)
        except BaseException:
            folder.cleanup()
            raise
    kept = ("the other arrays",) if len(names) > 1 else ()
    return ArrayReader(array, replace(container, inner=name, kept=kept), folder.cleanup)


def _mapped(path: Path) -> Any:
    """The array of a file, mapped into memory."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "Python objects" not in str(error):
            raise
        raise ValueError("the array holds Python objects, expected numbers: save one array of numbers alone") from error


def write_npy(path: Path, pages: Pages, container: Container) -> tuple[str, ...]:
    """Write an array file page by page."""
    native = container.native if isinstance(container.native, tuple) else None
    dtype = np.dtype(container.dtype)
    if native and np.dtype(native[0]) == dtype.newbyteorder(np.dtype(native[0]).byteorder):
        dtype = np.dtype(native[0])
    fortran = bool(native and native[1])
    array = np.lib.format.open_memmap(path, "w+", dtype, container.shape, fortran_order=fortran)
    store(array, pages, container)
    array.flush()
    return ()


def write_npz(path: Path, pages: Pages, container: Container) -> tuple[str, ...]:
    """Write an archive: the array, and beside it the other arrays of the archive that was read."""
    with tempfile.TemporaryDirectory(prefix="icgn-", dir=path.parent) as folder:
        unpacked = Path(folder) / "array.npy"
        write_npy(unpacked, pages, container)
        name = f"{container.inner or 'arr_0'}.npy"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            archive.write(unpacked, name)
            if container.native is None or not container.path.is_file():
                return ()
            with zipfile.ZipFile(container.path) as before:
                for other in before.namelist():
                    if other != name:
                        with before.open(other) as source, archive.open(other, "w", force_zip64=True) as target:
                            shutil.copyfileobj(source, target)
    return ()


def _is_npz(head: bytes, path: Path) -> bool:
    if head[:4] != b"PK\3\4":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(n.endswith(".npy") for n in archive.namelist())
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        return os.path.splitext(path)[1].lower() == ".npz"  # noqa: PTH122


ARRAYS = (
    Format(
        "NumPy array", (".npy",), lambda head, path: head.startswith(b"\x93NUMPY"), open_npy, write_npy, ANY_TYPE,
        many=True, channels=(),
    ),
    Format("NumPy archive", (".npz",), _is_npz, open_npz, write_npz, ANY_TYPE, many=True, channels=()),
)  # fmt: skip
