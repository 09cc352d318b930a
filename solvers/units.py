"""Problems in the unit of their pictures, brought to [0, 1] and back: the same steps are taken in any unit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from icgn.functionals.intensities import UNIT, Range, intensity_range, least_squares
from icgn.functionals.noise import White
from icgn.functionals.physics import is_identity
from icgn.solvers.solution import Solution


def brought(
    y: Tensor, physics: Any, limits: Range, sigma: float | Tensor, noise: Any, start: Tensor | None = None
) -> tuple[Tensor, Tensor | None, float | Tensor, Any]:
    r"""What is measured of :math:`z = (x - b) / s`, where to start, and the levels of its noise.

    No method has a constant of its own in the unit of the pictures then.

    Parameters
    ----------
    y, physics, sigma, noise
        of a problem of x.
    limits : (float, float)
        b, and b + s.
    start : Tensor, optional
        starting images x.
    """
    if limits == UNIT:
        return y, start, sigma, noise
    low, scale = limits[0], limits[1] - limits[0]
    like = physics.A_adjoint(y) if start is None else start
    constant = torch.full_like(like, low) if low else None
    measured = y if constant is None else y - physics.A(constant)
    begin = None if start is None else (start - low) / scale
    noise = White(noise.level / scale) if isinstance(noise, White) else None if noise is None else noise / scale
    return measured / scale, begin, sigma / scale, noise


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
    if not is_identity(physics):
        return intensity_range(least_squares(y, physics))
    level = torch.as_tensor(noise.level if isinstance(noise, White) else noise, dtype=torch.float64)
    return intensity_range(y, noise=float(level.square().mean().sqrt()))
