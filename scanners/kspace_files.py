"""Files of k-space: NumPy arrays, HDF5 as fastMRI and as ISMRMRD lay it out, and BART's pairs of .cfl and .hdr."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from icgn.scanners.ismrmrd import is_ismrmrd, read_ismrmrd, recon_matrix
from icgn.scanners.kspace import KSpace
from icgn.scanners.shots import ShotKSpace

SUFFIXES = (".npy", ".h5", ".hdf5", ".cfl", ".hdr")
"""Suffixes of files of k-space, maps and noise scans."""

# What NumPy and h5py raise for files that they cannot read.
_ERRORS = (ValueError, TypeError, OSError, KeyError, EOFError)

# The axes of BART, the first of sixteen: readout, two phase encodings, coils, sets of maps; then others.
_BART_COILS, _BART_SLICE = 3, 13
_BART_AXES = 16


def read_kspace(path: Path, *, slice: int | None = None) -> KSpace:
    """Read k-space of one slice.

    ======================  ============================================================================
    file                    layout
    ======================  ============================================================================
    ``.npy``                complex (C, H, W), (H, W) of one coil, or (slices, C, H, W)
    ``.h5``, fastMRI        ``kspace`` (slices, C, H, W) or (slices, H, W); the size of the picture from the header
    ``.h5``, ISMRMRD        ``dataset/data`` and ``dataset/xml``; Cartesian, two-dimensional; noise scans are taken out
    ``.cfl`` and ``.hdr``   axes of BART: readout, phase, partition, coil; slices along axis 13
    ======================  ============================================================================

    Parameters
    ----------
    path : Path
        the file; of a pair of BART either.
    slice : int, optional
        which one of several, from 0; default the middle one.

    Raises
    ------
    ValueError
        naming the file, for one that cannot be read or is not k-space: see :meth:`KSpace.of`.
    """
    try:
        return _reader(path)(path, slice)
    except _ERRORS as error:
        raise ValueError(f"{path}: {error}") from error


def read_coils(path: Path) -> Tensor:
    """Read complex numbers with coils first, (C, H, W) of maps or (C, ...) of a noise scan.

    ``.npy``, ``.cfl`` with ``.hdr``, or ``.h5`` with one complex data set.

    Raises
    ------
    ValueError
        naming the file, for one that cannot be read.
    """
    try:
        kind = _known(path)
        if kind == ".npy":
            found = _array(path)
        elif kind in (".cfl", ".hdr"):
            found = _coils_first(_read_cfl(path), 0)
        else:
            found = _only_complex(path)
        return torch.from_numpy(_complex(found))
    except _ERRORS as error:
        raise ValueError(f"{path}: {error}") from error


def read_shots(path: Path, trajectory: Path, *, size: int | None = None) -> ShotKSpace:
    """Read k-space that was measured along a trajectory: radial, spiral or any other.

    ======================  ============================================================================
    file                    layout
    ======================  ============================================================================
    ``.npy``                samples complex (C, shots, readout), points real (shots, readout, 2), rows and columns
    ``.cfl`` and ``.hdr``   axes of BART: samples (1, readout, shots, C), points (3, readout, shots), the last 0
    ======================  ============================================================================

    Parameters
    ----------
    path : Path
        the samples.
    trajectory : Path
        the points, in cycles per field of view.
    size : int, optional
        pixels of a side of the picture; default twice the reach of the points.

    Raises
    ------
    ValueError
        naming the file, for one that cannot be read or does not fit the other: see :meth:`ShotKSpace.of`.
    """
    samples = read_coils(path)
    if path.suffix.lower() in (".cfl", ".hdr"):
        samples = samples.transpose(1, 2)
    try:
        return ShotKSpace.of(samples, _points(trajectory), size=size)
    except _ERRORS as error:
        raise ValueError(f"{trajectory}: {error}") from error


def _points(path: Path) -> Tensor:
    kind = _known(path)
    if kind == ".npy":
        array = _array(path)
        return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)))
    if kind not in (".cfl", ".hdr"):
        raise ValueError(f"got suffix {path.suffix!r}, expected .npy, or .cfl with .hdr")
    stored = _read_cfl(path).real
    if stored.shape[0] != 3 or stored[2].any() or stored.size != np.prod(stored.shape[:3]):
        raise ValueError(f"got the shape {stored.shape} of BART, expected (3, readout, shots), the third direction 0")
    return torch.from_numpy(np.ascontiguousarray(stored.reshape(stored.shape[:3])[:2].transpose(2, 1, 0)))


def _reader(path: Path) -> Callable[[Path, int | None], KSpace]:
    kind = _known(path)
    if kind == ".npy":
        return _from_npy
    if kind in (".cfl", ".hdr"):
        return _from_cfl
    return read_ismrmrd if is_ismrmrd(path) else _from_fastmri


def _known(path: Path) -> str:
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise ValueError(f"got suffix {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ValueError("there is no such file")
    if path.stat().st_size == 0:
        raise ValueError("the file is empty, of 0 bytes")
    if kind in (".h5", ".hdf5") and importlib.util.find_spec("h5py") is None:
        raise ValueError("an HDF5 file, which needs h5py; install it: pip install 'icgn[scanners]'")
    return kind


def _array(path: Path) -> NDArray[Any]:
    found: NDArray[Any] = np.load(path, allow_pickle=False)
    return found


def _from_npy(path: Path, slice: int | None) -> KSpace:
    array = _complex(_array(path))
    words = ""
    if array.ndim == 4:
        array, words = _one(array, slice)
    elif slice not in (None, 0):
        raise ValueError(f"slice: got {slice}, expected 0: the file has one slice")
    return KSpace.of(torch.from_numpy(array), words=words)


def _from_fastmri(path: Path, slice: int | None) -> KSpace:
    import h5py

    with h5py.File(path, "r") as file:
        if "kspace" not in file:
            inside = ", ".join(list(file)[:9]) or "nothing"
            raise ValueError(f"has {inside} inside, expected 'kspace' of fastMRI, or 'dataset' of ISMRMRD")
        stored = file["kspace"]
        if stored.ndim not in (3, 4):
            raise ValueError(f"kspace: got shape {stored.shape}, expected (slices, coils, height, width)")
        index = _chosen(len(stored), slice)
        array, count = np.asarray(stored[index]), len(stored)
        header = file["ismrmrd_header"][()] if "ismrmrd_header" in file else b""
    picture = recon_matrix(header) if header else None
    return KSpace.of(torch.from_numpy(_complex(array)), picture=picture, words=_which(index, count))


def _from_cfl(path: Path, slice: int | None) -> KSpace:
    array = _read_cfl(path)
    partitions, slices = array.shape[2], array.shape[_BART_SLICE]
    if partitions > 1 and min(array.shape[:2]) > 1:
        raise ValueError(f"got {partitions} partitions (axis 2), expected one slice: transform along this axis first")
    index = _chosen(slices, slice)
    return KSpace.of(torch.from_numpy(_coils_first(array, index)), words=_which(index, slices))


def _coils_first(array: NDArray[Any], index: int) -> NDArray[Any]:
    """The samples (C, H, W) of one slice of the sixteen axes of BART; the two of three axes that are longer than 1."""
    others = [n for i, n in enumerate(array.shape) if n > 1 and i not in (0, 1, 2, _BART_COILS, _BART_SLICE)]
    if others:
        raise ValueError(f"got the shape {array.shape} of BART, expected readout, phase, coil and slice only")
    one = np.moveaxis(np.take(array, index, _BART_SLICE).squeeze(tuple(range(4, _BART_AXES - 1))), _BART_COILS, 0)
    short = next((i for i in (1, 2, 3) if one.shape[i] == 1), 3)
    return np.ascontiguousarray(one.squeeze(short))


def _read_cfl(path: Path) -> NDArray[Any]:
    """The array of sixteen axes of a pair of files: sizes in the header, complex64 in column-major order."""
    header, data = path.with_suffix(".hdr"), path.with_suffix(".cfl")
    for file in (header, data):
        if not file.is_file():
            raise ValueError(f"{file.name} is missing beside it, expected the pair of .hdr and .cfl")
    lines = header.read_text(encoding="utf-8", errors="replace").splitlines()
    place = next((i for i, line in enumerate(lines) if line.strip() == "# Dimensions"), None)
    if place is None or place + 1 == len(lines):
        raise ValueError(f"{header.name} has no line after '# Dimensions', expected the sizes of the axes")
    sizes = [int(n) for n in lines[place + 1].split()]
    sizes += [1] * (_BART_AXES - len(sizes))
    stored = np.fromfile(data, np.complex64)
    if len(sizes) != _BART_AXES or stored.size != math.prod(sizes):
        raise ValueError(f"{data.name} holds {stored.size} numbers, expected {math.prod(sizes)} as {header.name} says")
    return stored.reshape(sizes, order="F")


def _only_complex(path: Path) -> NDArray[Any]:
    import h5py

    with h5py.File(path, "r") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if _is_complex(item) else None)
        if len(names) != 1:
            raise ValueError(f"has {len(names)} complex data sets inside, expected one")
        return np.asarray(file[names[0]])


def _is_complex(item: Any) -> bool:
    return hasattr(item, "dtype") and np.dtype(item.dtype).kind == "c"


def _complex(array: NDArray[Any]) -> NDArray[Any]:
    """Complex numbers in the byte order of the machine; real ones are left, and refused where they are checked."""
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return array.astype(np.complex128) if array.dtype.kind == "c" else array


def _one(array: NDArray[Any], slice: int | None) -> tuple[NDArray[Any], str]:
    index = _chosen(len(array), slice)
    return array[index], _which(index, len(array))


def _chosen(count: int, slice: int | None) -> int:
    index = count // 2 if slice is None else slice
    if not 0 <= index < count:
        raise ValueError(f"slice: got {slice}, expected 0 to {count - 1}: the file has {count}")
    return index


def _which(index: int, count: int) -> str:
    return f"slice {index} of {count}, counted from 0" if count > 1 else ""
