"""HDF5 by h5py and Zarr by zarr: one array by its path inside; everything else in the file is kept."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from icgn.datasets.formats.arrays import ANY_TYPE, ArrayReader, array_container, store
from icgn.datasets.formats.container import Container
from icgn.datasets.formats.contract import Format, Pages, Request

_ZARR = (".zarray", ".zgroup", "zarr.json")


def open_hdf5(request: Request) -> ArrayReader:
    """Open a data set of an HDF5 file: the only one of two axes and more, or that of the path inside."""
    import h5py

    file = h5py.File(request.path, "r")
    try:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if _is_picture(item) else None)
        inner = _choose(request, names)
        array: Any = file[inner]
        if not isinstance(array, h5py.Dataset):
            raise ValueError(f"{inner!r} is a group, expected a data set: {', '.join(names[:9])}")
        container = array_container("HDF5", array, replace(request, inner=inner), native="HDF5")
    except BaseException:
        file.close()
        raise
    kept = ("the attributes and other data sets of the HDF5 file",) if len(names) > 1 or array.attrs else ()
    return ArrayReader(array, replace(container, kept=kept, nodata=_fill(array)), file.close)


def open_zarr(request: Request) -> ArrayReader:
    """Open an array of a Zarr folder: the only one of two axes and more, or that of the path inside."""
    import zarr

    opened: Any = zarr.open(str(request.path), mode="r")
    if not hasattr(opened, "members"):
        array, inner, names = opened, "", [""]
    else:
        members = dict(opened.members(max_depth=None))
        names = [n for n, m in members.items() if _is_picture(m)]
        inner = _choose(request, names)
        array = members.get(inner)
        if array is None or not hasattr(array, "dtype"):
            raise ValueError(f"no array {inner!r} inside, expected one of {', '.join(names[:9])}")
    container = array_container("Zarr", array, replace(request, inner=inner), native="Zarr")
    kept = ("the attributes and other arrays of the Zarr folder",) if len(names) > 1 or dict(array.attrs) else ()
    notes = ("the other resolutions of the Zarr folder keep the old pixels",) if _is_pyramid(inner, names) else ()
    return ArrayReader(array, replace(container, kept=kept, notes=notes, nodata=_fill(array)))


def _fill(array: Any) -> tuple[float, float] | None:
    """The number of places without data, by the attribute that netCDF gives it; NaN means it anyway."""
    try:
        number = float(np.ravel(dict(array.attrs)["_FillValue"])[0])
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    return (number, number) if np.isfinite(number) else None


def _is_pyramid(inner: str, names: list[str]) -> bool:
    return inner.isdigit() and sum(n.isdigit() for n in names) > 1


def _is_picture(item: Any) -> bool:
    shape = getattr(item, "shape", None) or ()
    return len(shape) > 1 and np.dtype(item.dtype).kind in "uifb"


def _choose(request: Request, names: list[str]) -> str:
    """The path inside, without slashes at its ends."""
    inner = request.inner.strip("/")
    if inner or len(names) == 1:
        if inner and inner not in names:
            raise ValueError(f"nothing like a picture at {inner!r} inside, expected one of {', '.join(names[:9])}")
        return inner or names[0]
    if not names:
        raise ValueError("no array of real numbers with two axes or more inside; of complex ones save the magnitude")
    shown = ", ".join(f"{request.path.name}:/{n}" for n in names[:9])
    raise ValueError(f"{len(names)} arrays inside, expected one to be named: {shown}")


def write_hdf5(path: Path, pages: Pages, container: Container) -> tuple[str, ...]:
    """Write a copy of the file that was read with new numbers in one data set, or a new file."""
    import h5py

    again = container.native is not None and container.path.is_file()
    if again:
        shutil.copyfile(container.path, path)
    with h5py.File(path, "r+" if again else "w") as file:
        name = container.inner or "data"
        if again:
            store(file[name], pages, container)
        else:
            chunk = tuple(n if a in "YXS" else 1 for n, a in zip(container.shape, container.axes, strict=True))
            array = file.create_dataset(name, container.shape, container.dtype, chunks=chunk, compression="gzip")
            store(array, pages, container)
    return ()


def write_zarr(path: Path, pages: Pages, container: Container) -> tuple[str, ...]:
    """Write a copy of the folder that was read with new numbers in one array, or a new folder with one array."""
    import zarr

    if container.native is not None and container.path.is_dir():
        shutil.copytree(container.path, path)
        opened: Any = zarr.open(str(path), mode="r+")
        array = opened[container.inner] if container.inner else opened
    else:
        chunk = tuple(n if a in "YXS" else 1 for n, a in zip(container.shape, container.axes, strict=True))
        array = zarr.create_array(str(path), shape=container.shape, dtype=container.dtype, chunks=chunk)
    # Chunks that span several pages are read and written again for each: one that is not stored stays correct.
    store(array, pages, container)
    return ()


def _is_zarr(head: bytes, path: Path) -> bool:
    return path.is_dir() and any((path / name).is_file() for name in _ZARR)


_TYPES = tuple(t for t in ANY_TYPE if t != "bool")
HIERARCHIES = (
    Format(
        "HDF5", (".h5", ".hdf5", ".hdf"), lambda head, path: head.startswith(b"\x89HDF\r\n\x1a\n"), open_hdf5,
        write_hdf5, (*_TYPES, "bool"), many=True, channels=(), package="h5py",
    ),
    Format(
        "Zarr", (".zarr",), _is_zarr, open_zarr, write_zarr, (*_TYPES, "bool"), many=True, channels=(), package="zarr",
    ),
)  # fmt: skip
