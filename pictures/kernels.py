"""Blur kernels: read from files, or made from a few words."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icgn.datasets import open_stack
from icgn.datasets.formats import split_inner
from icgn.pictures.placing import background, placed, words_of_edge, words_of_place

# A kernel wider than this is a mistake of the unit, and would fill the memory.
_LARGEST = 2001
_FORMS = "a picture, a .npy file, gaussian:STD or motion:LENGTH,ANGLE"


@dataclass(frozen=True, eq=False)
class Kernel:
    """A blur kernel as it was read.

    Attributes
    ----------
    values : Tensor
        (1, 1, h, w) in float64, of sum 1, with odd h and w.
    words : str
        what was read and what was done with it; empty for a kernel that is made from words.
    warnings : tuple of str
        what may be wrong with it.
    """

    values: Tensor
    words: str = ""
    warnings: tuple[str, ...] = ()


def load_kernel(text: str) -> Kernel:
    """Read a blur kernel, the picture of a point of light: blurred = kernel * picture.

    The numbers of a file are taken in its own unit; of colour the mean of the channels. A background is subtracted: the
    median of the outermost pixels, where they are flat and make up half a percent of the sum or more. The centre is the
    pixel (height // 2, width // 2), counted from 0: of an even side the one behind the middle, as in SciPy's
    ``ndimage.convolve``. The kernel is scaled to sum 1, and margins of zeros are cut off. Negative values are kept.

    Parameters
    ----------
    text : str
        a file of one page of any kind that :func:`icgn.datasets.open_stack` reads; ``gaussian:STD``, the standard
        deviation in pixels; or ``motion:LENGTH,ANGLE``, a straight path of LENGTH pixels at ANGLE degrees,
        counterclockwise from the horizontal.

    Returns
    -------
    Kernel
        with what is to be said about it: a centre of mass far from the centre, or an even side without a centre, shifts
        the restored picture.

    Raises
    ------
    ValueError
        for a file that cannot be read, and as :func:`make_kernel`; for wrong numbers.
    """
    kind, colon, numbers = text.partition(":")
    try:
        if colon and kind in ("gaussian", "motion"):
            made = _gaussian(*_floats(numbers, 1)) if kind == "gaussian" else _motion(*_floats(numbers, 2))
            return Kernel(_tensor(placed(_checked(made), _LARGEST).values))
        return _load(Path(text))
    except (ValueError, OSError) as error:
        raise ValueError(f"kernel {text}: {str(error).removeprefix(f'{text}: ')}") from error


def read_kernel(text: str) -> Tensor:
    """Read a blur kernel: :func:`load_kernel` without its words.

    Parameters
    ----------
    text : str
        a file, ``gaussian:STD`` or ``motion:LENGTH,ANGLE``.

    Returns
    -------
    Tensor
        (1, 1, h, w) in float64, of sum 1, with odd h and w: the centre, of a file the pixel (height // 2, width // 2),
        is in the middle, and margins of zeros around it are cut off.

    Raises
    ------
    ValueError
        as :func:`load_kernel`.

    Warns
    -----
    UserWarning
        where the kernel would shift the picture.
    """
    kernel = load_kernel(text)
    for said in kernel.warnings:
        warnings.warn(f"kernel {text}: {said}", stacklevel=2)
    return kernel.values


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

    Warns
    -----
    UserWarning
        where it seems to have a background, which is not subtracted here, or would shift the picture.
    """
    if not isinstance(values, Tensor):
        raise TypeError(f"kernel: got {type(values).__name__}, expected a torch.Tensor (height, width)")
    if values.ndim == 4 and values.shape[:2] == (1, 1):
        values = values[0, 0]
    if values.ndim != 2 or values.numel() == 0 or values.is_complex():
        raise ValueError(f"kernel: got {values.dtype} of shape {tuple(values.shape)}, expected real (height, width)")
    try:
        kernel = _checked(values.detach().cpu().double().numpy())
        found = placed(kernel, _LARGEST)
    except ValueError as error:
        raise ValueError(f"kernel: {error}") from error
    level, _ = background(kernel)
    said = [f"its border is flat and not 0 (median {level:.3g} of its sum): subtract this background"] * (level != 0)
    for text in [*(said or words_of_edge(kernel)), *words_of_place(kernel, found)]:
        warnings.warn(f"kernel: {text}", stacklevel=2)
    return _tensor(found.values)


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


def _load(path: Path) -> Kernel:
    if not split_inner(path)[0].exists():
        raise ValueError(f"no such file, expected {_FORMS}")
    with open_stack(path) as stack:
        if len(stack) != 1:
            raise ValueError(
                f"has {len(stack)} pages, expected one: write the page of the kernel as a file of its own; blur in"
                " three dimensions is deblurred in Python, with deepinv.physics.Blur and icgn.VolumeRegularizer"
            )
        page, kind = stack.page(0), stack.container.dtype
    said = [f"{page.values.shape[1]} x {page.values.shape[2]} values of {kind}"]
    planes = page.values.double().numpy()
    if (planes != planes[:1]).any():
        said.append(f"the mean of its {len(planes)} channels")
    kernel: np.ndarray[Any, Any] = planes.mean(0)
    bad = int((~np.isfinite(kernel)).sum())
    if bad:
        raise ValueError(f"got {bad} NaN or infinite values, expected finite ones")
    level, noise = background(kernel)
    if level:
        kernel = np.where(kernel <= level + noise, 0.0, kernel - level)
        said.append(f"a background of {level:.4g} subtracted (the median of its border)")
    total = float(kernel.sum())
    kernel = _checked(kernel)
    below = -float(kernel[kernel < 0].sum())
    if below > 0:
        said.append(f"negative values kept ({100 * below:.2g} % of the sum)")
    if abs(total - 1) > 1e-3:
        said.append(f"scaled from sum {total:.4g} to 1")
    found = placed(kernel, _LARGEST)
    if found.lost:
        said.append(f"cut to {found.size}, leaving out {100 * found.lost:.2g} % of its sum")
    doubts = words_of_edge(kernel) + words_of_place(kernel, found)
    if not doubts:
        said.append("its centre at row {} and column {}, counted from 0".format(*found.centre))
    return Kernel(_tensor(found.values), ", ".join(said), doubts)


def _checked(kernel: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The kernel, of sum 1."""
    bad = int((~np.isfinite(kernel)).sum())
    if bad:
        raise ValueError(f"got {bad} NaN or infinite values, expected finite ones")
    total = kernel.sum()
    # A sum that is nothing but rounding is zero.
    if not total > 1e-9 * abs(kernel).sum():
        raise ValueError(f"got values of sum {total:g}, expected a positive sum")
    return kernel / total


def _tensor(kernel: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(kernel))[None, None]
