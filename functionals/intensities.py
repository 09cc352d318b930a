"""The range of intensities of pictures in any unit, and rough images of measurements that show it."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

Range = tuple[float, float]
"""The intensities that are 0 and 1 to a model, in the unit of the pictures."""

RangeOption = Range | Literal["auto"] | None
"""A range that a caller gives: two numbers, ``"auto"``, or None for [0, 1] where the pictures lie in it."""

UNIT: Range = (0.0, 1.0)

# Part of the pixels that is left out at either end: hot and dead ones.
_TAIL = 1e-3
_STEPS = 10


def intensity_range(pixels: Tensor, *, noise: float = 0.0) -> Range:
    r"""The range of intensities that pictures fill, without their noise and a few hot or dead pixels.

    With q the distance of the quantiles 0.001 and 0.999, and z that of the normal distribution, the width is
    :math:`\sqrt{q^2 - (z\,\text{noise})^2}`, at least 5.2 times the noise, in the middle between both. It is exactly
    equivariant: the range of s y + b, with the noise s n, is s times that of y, plus b, for s > 0.

    Parameters
    ----------
    pixels : Tensor
        of one picture or several, of any shape; NaN and infinite ones are left out.
    noise : float
        standard deviation of their noise, in their unit.

    Returns
    -------
    (float, float)
        low < high. Where all pixels are equal: from 0 to that intensity, or [0, 1] if it is 0.

    Raises
    ------
    ValueError
        if no pixel is finite, or for a negative or non-finite noise.
    """
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise: got {noise:g}, expected a finite number >= 0")
    low, high, tail = quantiles(pixels)
    if low == high:
        return UNIT if low == 0 else (min(low, 0.0), max(low, 0.0))
    normal = -2 * float(torch.special.ndtri(torch.tensor(tail, dtype=torch.float64)))
    width = max(math.sqrt(max((high - low) ** 2 - (normal * noise) ** 2, 0.0)), 5.2 * noise)
    return (low + high - width) / 2, (low + high + width) / 2


def quantiles(pixels: Tensor) -> tuple[float, float, float]:
    """The least and the largest pixel without the tails, and the part of the pixels that is below the first."""
    finite = pixels.detach()[torch.isfinite(pixels)]
    n = finite.numel()
    if n == 0:
        raise ValueError("pixels: got no finite value, expected some")
    k = int(_TAIL * n)
    low, high = (float(finite.kthvalue(place).values) for place in (k + 1, n - k))
    return low, high, max(_TAIL, 0.5 / n)


def checked_range(given: Any) -> Range:
    """The range that a caller gives; ``ValueError`` unless it is two finite numbers, the lower first."""
    try:
        low, high = (float(v) for v in given)
    except (TypeError, ValueError):
        low = high = math.nan
    if isinstance(given, str) or not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"range: got {given!r}, expected two finite numbers, the lower first, 'auto' or None")
    return low, high


def least_squares(y: Tensor, physics: Any) -> Tensor:
    r"""A rough image x of a measurement: conjugate gradients of :math:`|A x - y|^2`, ten steps from the best constant.

    Scaled and shifted as the measurement of scaled and shifted pictures is.
    """
    y = torch.where(torch.isfinite(y), y, 0.0)
    one = torch.ones_like(physics.A_adjoint(y))
    flat = physics.A(one)
    size = float(flat.square().sum())
    x = one * (float((flat * y).sum()) / size if size > 0 else 0.0)
    residual = y - physics.A(x)
    gradient = physics.A_adjoint(residual)
    direction, before = gradient, float(gradient.square().sum())
    for _ in range(_STEPS):
        measured = physics.A(direction)
        curved = float(measured.square().sum())
        if not (before > 0 and curved > 0):
            break
        x, residual = x + before / curved * direction, residual - before / curved * measured
        gradient = physics.A_adjoint(residual)
        now = float(gradient.square().sum())
        direction, before = gradient + now / before * direction, now
    return x
