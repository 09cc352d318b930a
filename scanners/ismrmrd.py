"""HDF5 as ISMRMRD lays it out: single readouts with their places, sorted into Cartesian k-space.

Inati et al. 2017, ISMRM Raw data format, Magn. Reson. Med. 77(1), doi:10.1002/mrm.26089.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from icgn.scanners.kspace import KSpace

# Flags of a readout, bits counted from 1 as in the definition of the format.
_NOISE, _CALIBRATION, _REVERSE = 19, 20, 22
_NEITHER = (23, 24, 26, 27, 28)  # navigators, phase correction, dummies, feedback
# What distinguishes pictures of the same slice: the first of each is read.
_REPEATED = ("contrast", "phase", "repetition", "set")


def is_ismrmrd(path: Path) -> bool:
    """Whether an HDF5 file has the data set of readouts."""
    import h5py

    with h5py.File(path, "r") as file:
        return "dataset/data" in file


def recon_matrix(header: bytes | str) -> tuple[int, int] | None:
    """Height (readout) and width of the picture that the header of a file promises; None if it does not."""
    sizes = _matrix(_text(header), "reconSpace")
    return None if sizes is None else (sizes[0], sizes[1])


def read_ismrmrd(path: Path, slice: int | None) -> KSpace:
    """Read the readouts of one slice, each at its place; what was measured several times is averaged.

    Raises
    ------
    ValueError
        for trajectories that are not Cartesian, several partitions, readouts of different lengths or coils, or a slice
        that is not there.
    """
    import h5py

    with h5py.File(path, "r") as file:
        header = _text(file["dataset/xml"][0]) if "dataset/xml" in file else ""
        readouts = file["dataset/data"][()]
    heads = readouts["head"]
    flags = heads["flags"]
    noisy = _has(flags, _NOISE)
    ours = ~noisy & ~np.any([_has(flags, bit) for bit in _NEITHER], axis=0)
    if not re.search(r"<(?:\w+:)?calibrationMode>\s*(embedded|interleaved)", header):
        ours &= ~_has(flags, _CALIBRATION)
    index, words = _slice_of(heads["idx"]["slice"][ours], slice)
    ours &= heads["idx"]["slice"] == index
    for name in _REPEATED:
        first = heads["idx"][name][ours].min()
        ours &= heads["idx"][name] == first
    sizes = _matrix(header, "encodedSpace")
    samples = _sorted(readouts[ours], None if sizes is None else sizes[1], _middle_line(header))
    noise = [_complex(r) for r in readouts[noisy]]
    noise = [n for n in noise if len(n) == len(samples)]
    return KSpace.of(
        torch.from_numpy(samples),
        noise=torch.from_numpy(np.concatenate(noise, 1)) if noise else None,
        picture=recon_matrix(header),
        words=words,
    )


def _slice_of(slices: NDArray[Any], asked: int | None) -> tuple[int, str]:
    found = np.unique(slices)
    if not len(found):
        raise ValueError("has no readouts of a picture, expected some")
    index = int(found[len(found) // 2]) if asked is None else asked
    if index not in found:
        raise ValueError(f"slice: got {asked}, expected one of {', '.join(map(str, found[:20]))}")
    return index, f"slice {index} of {len(found)}" if len(found) > 1 else ""


def _sorted(readouts: NDArray[Any], lines: int | None, middle: int | None) -> NDArray[Any]:
    """K-space (C, readout, phase) of readouts, zero where none was; means of what was measured several times."""
    heads = readouts["head"]
    if (heads["trajectory_dimensions"] > 0).any() and any(len(t) for t in readouts["traj"]):
        raise ValueError("has readouts along a trajectory, expected Cartesian ones")
    if np.ptp(heads["idx"]["kspace_encode_step_2"]):
        raise ValueError("has several partitions, a volume, expected one slice: transform along the partitions first")
    shapes = {(int(h["active_channels"]), int(h["number_of_samples"])) for h in heads}
    if len(shapes) > 1:
        named = ", ".join(f"{c} x {n}" for c, n in sorted(shapes))
        raise ValueError(f"has readouts of different sizes ({named}: coils x samples), expected all alike")
    coils, length = shapes.pop()
    steps = heads["idx"]["kspace_encode_step_1"].astype(int)
    width = lines or int(steps.max()) + 1
    shift = 0 if middle is None else width // 2 - middle
    total = np.zeros((coils, length, width), np.complex128)
    count = np.zeros(width)
    for readout, step in zip(readouts, steps + shift, strict=True):
        if not 0 <= step < width:
            raise ValueError(
                f"has a readout at line {step - shift}, expected lines from {-shift} to {width - shift - 1}"
            )
        line = _complex(readout)
        if _has(readout["head"]["flags"], _REVERSE):
            line = line[:, ::-1]
        total[:, :, step] += np.roll(line, length // 2 - int(readout["head"]["center_sample"]), axis=1)
        count[step] += 1
    return total / np.maximum(count, 1)


def _complex(readout: Any) -> NDArray[Any]:
    """The samples of a readout, (coils, samples)."""
    pairs = np.asarray(readout["data"], np.float32)
    return pairs.view(np.complex64).reshape(int(readout["head"]["active_channels"]), -1)


def _has(flags: Any, bit: int) -> Any:
    return (flags.astype(np.uint64) >> np.uint64(bit - 1)) & np.uint64(1) == 1


def _text(header: Any) -> str:
    return header.decode("utf-8", "replace") if isinstance(header, bytes) else str(header)


def _matrix(header: str, space: str) -> tuple[int, int] | None:
    """The first two sizes of the matrix of ``encodedSpace`` or ``reconSpace`` in a header."""
    size = r"\s*<(?:\w+:)?{0}>\s*(\d+)\s*</(?:\w+:)?{0}>"
    pattern = rf"<(?:\w+:)?{space}>\s*<(?:\w+:)?matrixSize>{size.format('x')}{size.format('y')}"
    found = re.search(pattern, header)
    return None if found is None else (int(found[1]), int(found[2]))


def _middle_line(header: str) -> int | None:
    """The line of the zero frequency that a header names."""
    limits = re.search(
        r"<(?:\w+:)?kspace_encoding_step_1>(.*?)</(?:\w+:)?kspace_encoding_step_1>", header, flags=re.DOTALL
    )
    found = None if limits is None else re.search(r"<(?:\w+:)?center>\s*(\d+)", limits[1])
    return None if found is None else int(found[1])
