"""Problems in the unit of their pictures, brought to [0, 1] and back: the same steps are taken in any unit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from icgn.functionals.intensities import UNIT, Range, intensity_range, least_squares
from icgn.functionals.noise import White
from icgn.functionals.physics import converted, is_identity
from icgn.solvers.solution import Solution

# Binary places below the noise to which measurements are rounded, and digits of its level.
_PLACES, _DIGITS = 28, 40


def brought(
    y: Tensor, physics: Any, limits: Range, sigma: float | Tensor, noise: Any, start: Tensor | None = None
) -> tuple[Tensor, Tensor | None, float | Tensor, Any]:
    r"""What is measured of :math:`z = (x - b) / s`, where to start, and the levels of its noise.

    No method has a constant of its own in the unit of the pictures then. Everything is computed in float64 and rounded:
    the measurement to a part :math:`2^{-28}` of its noise. Measurements that differ by their unit and by rounding alone
    become the same numbers, so that every step that follows is the same, also where the problem is ill-conditioned.

    Parameters
    ----------
    y, physics, sigma, noise
        of a problem of x.
    limits : (float, float)
        b, and b + s.
    start : Tensor, optional
        starting images x.
    """
    low, scale = limits[0], limits[1] - limits[0]
    measured = y.double()
    if low:
        measured = measured - _constant(y, physics, low, start)
    level = sigma if noise is None else noise.level if isinstance(noise, White) else noise
    step = _step(level, scale)
    begin = None if start is None else rounded((start.double() - low) / scale, step).to(start)
    noise = White(_short(noise.level / scale)) if isinstance(noise, White) else noise
    noise = noise if noise is None or isinstance(noise, White) else _short(noise / scale)
    return rounded(measured / scale, step).to(y), begin, _short(sigma / scale), noise


def rounded(values: Tensor, step: float) -> Tensor:
    """Numbers rounded to multiples of a step, a power of two; as they are where it is 0. The derivative is 1."""
    return values + ((values / step).round() * step - values).detach() if step > 0 else values


def _constant(y: Tensor, physics: Any, low: float, start: Tensor | None) -> Tensor:
    """What is measured of images of one intensity, in float64 where the physics can."""
    if is_identity(physics):
        return torch.full_like(y, low, dtype=torch.float64)
    exact = converted(physics, y.double())
    like = (physics.A_adjoint(y) if start is None else start).to(y)
    measured: Tensor = (
        physics.A(torch.full_like(like, low)) if exact is None else exact.A(torch.full_like(like.double(), low))
    )
    return measured.double()


def _step(level: float | Tensor, scale: float) -> float:
    """The power of two to multiples of which a measurement is rounded; 0 where there is no noise."""
    levels = torch.as_tensor(level, dtype=torch.float64) / scale
    positive = levels[levels > 0]
    return 2.0 ** (math.floor(math.log2(float(positive.min()))) - _PLACES) if positive.numel() else 0.0


def _short(value: Any) -> Any:
    """Levels with 40 binary digits: those that differ by rounding become the same."""
    exact = torch.as_tensor(value, dtype=torch.float64)
    mantissa, exponent = torch.frexp(exact.detach())
    short = exact + (torch.ldexp((mantissa * 2**_DIGITS).round() / 2**_DIGITS, exponent) - exact).detach()
    return short.to(value) if isinstance(value, Tensor) else float(short)


def in_unit(solution: Solution, limits: Range) -> Solution:
    """A solution of z in the unit of the pictures x; what rounding them moves is added to the distance."""
    if limits == UNIT:
        return solution
    low, scale = limits[0], limits[1] - limits[0]
    exact, proof = low + scale * solution.x.double(), solution.certificate
    x = exact.to(solution.x.dtype)
    rounding = (x - exact).detach().square().flatten(1).mean(1).sqrt()
    moved = replace(
        proof,
        rms_distance=scale * proof.rms_distance + rounding,
        residual=scale * proof.residual,
        objective=scale**2 * proof.objective,
        objective_gap=scale**2 * proof.objective_gap,
    )
    return replace(solution, x=x, certificate=moved)


def found_range(y: Tensor, physics: Any, noise: float | Tensor | White) -> Range:
    """The range of the images of measurements: of y itself for denoising, else of a rough least-squares image.

    Parameters
    ----------
    y : Tensor
        measurements, batch first.
    physics : deepinv.physics.LinearPhysics
        A.
    noise : float, Tensor or White
        standard deviation of the noise of y, which images of y itself have too.
    """
    level = torch.as_tensor(noise.level if isinstance(noise, White) else noise, dtype=torch.float64)
    if is_identity(physics):
        return intensity_range(y, noise=float(level.square().mean().sqrt()))
    # In a unit that is not known yet: without the best constant, and in multiples of the noise. What is measured of a
    # constant is found in float64: an offset may be a thousand times as large as the picture.
    flat = _constant(y, physics, 1.0, None)
    size = float(flat.square().sum())
    constant = float((flat * y.double().nan_to_num(0.0, 0.0, 0.0)).sum()) / size if size > 0 else 0.0
    unit = float(level.max())
    if not unit > 0:
        return intensity_range(least_squares(y, physics))
    around = rounded((y.double() - constant * flat) / unit, 2.0**-_PLACES).to(y)
    low, high = intensity_range(least_squares(around, physics))
    return constant + unit * low, constant + unit * high
