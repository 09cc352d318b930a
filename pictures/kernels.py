"""Blur kernels: read from files, or made from a few words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icgn.datasets import read_picture, to_gray

# A kernel wider than this is a mistake of the unit, and would fill the memory.
_LARGEST = 2001
_FORMS = "a picture, a .npy file, gaussian:STD or motion:LENGTH,ANGLE"


def read_kernel(text: str) -> Tensor:
    """Read a blur kernel, the picture of a point of light: blurred = kernel * picture.

    Parameters
    ----------
    text : str
        a picture (colour becomes gray) or a ``.npy`` file (height, width); ``gaussian:STD``, the standard deviation in
        pixels; or ``motion:LENGTH,ANGLE``, a straight path of LENGTH pixels at ANGLE degrees, counterclockwise from
        the horizontal.

    Returns
    -------
    Tensor
        (1, 1, h, w) in float64, of sum 1, with odd h and w: the centre, of a file the pixel (height // 2, width // 2),
        is in the middle, and margins of zeros around it are cut off.

    Raises
    ------
    ValueError
        for a file that cannot be read, and as :func:`make_kernel`; for wrong numbers.
    """
    kind, colon, numbers = text.partition(":")
    try:
        if colon and kind in ("gaussian", "motion"):
            kernel = _gaussian(*_floats(numbers, 1)) if kind == "gaussian" else _motion(*_floats(numbers, 2))
        else:
            kernel = _load(Path(text))
        return _made(kernel)
    except (ValueError, OSError) as error:
        raise ValueError(f"kernel {text}: {error}") from error


def make_kernel(values: Tensor) -> Tensor:
    """Make a blur kernel of the values of a point-spread function (h, w) or (1, 1, h, w).

    Returns
    -------
    Tensor
        (1, 1, h, w) in float64, as :func:`read_kernel` returns it: scaled to sum 1, with odd sides around the pixel
        (h // 2, w // 2).

    Raises
    ------
    TypeError
        if it is not a tensor.
    ValueError
        for another shape, values that are not finite, a sum that is not positive, or sides above 2001.
    """
    if not isinstance(values, Tensor):
        raise TypeError(f"kernel: got {type(values).__name__}, expected a torch.Tensor (height, width)")
    if values.ndim == 4 and values.shape[:2] == (1, 1):
        values = values[0, 0]
    if values.ndim != 2 or values.numel() == 0 or values.is_complex():
        raise ValueError(f"kernel: got {values.dtype} of shape {tuple(values.shape)}, expected real (height, width)")
    try:
        return _made(values.detach().cpu().double().numpy())
    except ValueError as error:
        raise ValueError(f"kernel: {error}") from error


def _made(kernel: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(_centred(_checked(kernel)))[None, None]


def _gaussian(std: float) -> np.ndarray[Any, Any]:
    # deepinv.physics.blur has it too, but that name is deprecated.
    from deepinv.physics.functional import gaussian_blur

    # Below a tenth of a pixel nothing but the centre is left, and far below it the kernel underflows.
    if not 0.1 <= std <= _LARGEST / 8:
        raise ValueError(f"got {std:g}, expected a standard deviation in pixels from 0.1 to {_LARGEST // 8}")
    kernel: np.ndarray[Any, Any] = gaussian_blur(sigma=(std, std), dtype=torch.float64)[0, 0].numpy()
    return kernel


def _motion(length: float, angle: float) -> np.ndarray[Any, Any]:
    if not 0 < length <= _LARGEST / 2 or not math.isfinite(angle):
        raise ValueError(f"got {length:g},{angle:g}, expected a length in pixels up to {_LARGEST // 2}, and degrees")
    radius = math.ceil(length / 2) + 1
    offsets = np.arange(-radius, radius + 1)
    count = 64 * math.ceil(length)
    along = length * ((np.arange(count) + 0.5) / count - 0.5)
    # Every point of the path is shared bilinearly among its four pixels; rows count downwards.
    rows = np.clip(1 - abs(offsets + math.sin(math.radians(angle)) * along[:, None]), 0, None)
    columns = np.clip(1 - abs(offsets - math.cos(math.radians(angle)) * along[:, None]), 0, None)
    kernel: np.ndarray[Any, Any] = rows.T @ columns
    # Rounding of sine and cosine must not make the kernel larger.
    return np.where(kernel > 1e-9 * kernel.max(), kernel, 0)


def _floats(text: str, number: int) -> list[float]:
    try:
        values = [float(v) for v in text.split(",")]
    except ValueError:
        values = []
    if len(values) != number:
        raise ValueError(f"got {text!r}, expected {number} number{'s' * (number > 1)}; the kernel is {_FORMS}")
    return values


def _load(path: Path) -> np.ndarray[Any, Any]:
    if path.suffix.lower() == ".npy":
        loaded = np.load(path, allow_pickle=False)
        if loaded.ndim != 2 or loaded.size == 0 or loaded.dtype.kind not in "buif":
            raise ValueError(f"got {loaded.dtype} of shape {loaded.shape}, expected real numbers (height, width)")
        return np.asarray(loaded, dtype=np.float64)
    if not path.exists():
        raise ValueError(f"no such file, expected {_FORMS}")
    return to_gray(read_picture(path))[0].double().numpy()


def _checked(kernel: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    bad = int((~np.isfinite(kernel)).sum())
    if bad:
        raise ValueError(f"got {bad} NaN or infinite values, expected finite ones")
    total = kernel.sum()
    # A sum that is nothing but rounding is zero.
    if not total > 1e-9 * abs(kernel).sum():
        raise ValueError(f"got values of sum {total:g}, expected a positive sum")
    if max(kernel.shape) > _LARGEST:
        size = " x ".join(map(str, kernel.shape))
        raise ValueError(f"got {size} values, expected at most {_LARGEST} x {_LARGEST}")
    return kernel / total


def _centred(kernel: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The smallest kernel of odd sides around the pixel (height // 2, width // 2) that holds all that is not 0."""
    centre = [side // 2 for side in kernel.shape]
    reach = [int(abs(places - c).max()) for places, c in zip(np.nonzero(kernel), centre, strict=True)]
    padded = np.pad(kernel, [(r, r) for r in reach])
    rows, columns = (slice(c, c + 2 * r + 1) for c, r in zip(centre, reach, strict=True))
    return np.ascontiguousarray(padded[rows, columns])
