"""Pictures from measurements: the one objective behind ``icgn deblur``, ``icgn inpaint`` and ``icgn restore``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from icgn.cli.batch import Request, restored
from icgn.cli.levels import check_level, check_tolerance, parse_strength, say_strength
from icgn.cli.outcome import Restored
from icgn.datasets import Picture
from icgn.pictures.denoise import PictureSolution
from icgn.regularizers import ConvexRegularizer
from icgn.solvers import Problem, solve


@dataclass(frozen=True)
class InverseRequest(Request):
    """A request with the options that all inverse problems have; levels in gray levels, None where not given."""

    noise: float | None
    sigma: float | None
    strength: str
    gap: float


@dataclass(frozen=True)
class Tuning:
    """How a measurement is inverted: the numbers of a request, checked.

    Attributes
    ----------
    noise : float or None
        noise level of the measurement in gray levels; None where it is to be found.
    sigma : float or None
        of the regularizer in gray levels; None for the noise level, or the multiple of it that suits the task.
    weight : float or str
        factor of the regularizer, or the rule that finds it.
    tol : float
        RMS distance to the minimizer to be proved where the objective is strongly convex, in intensities.
    gap : float
        relative objective gap to be proved elsewhere.
    """

    noise: float | None
    sigma: float | None
    weight: float | str
    tol: float
    gap: float

    @classmethod
    def parse(cls, request: InverseRequest) -> Tuning:
        """Check the numbers of the command line; ``ValueError`` names the option that is out of range."""
        check_level("--noise", request.noise, zero=False)
        check_level("--sigma", request.sigma, zero=False)
        check_tolerance("--gap", request.gap, "1e-3: of the objective")
        return cls(request.noise, request.sigma, parse_strength(request.strength), request.tol, request.gap)


@dataclass(frozen=True, eq=False)
class Measurement:
    r"""What is known of a picture x: y = A x + noise.

    Attributes
    ----------
    y : Tensor
        measurements, batch first: one picture, or its channels.
    physics : deepinv.physics.LinearPhysics
        A.
    start : Tensor or None
        starting pictures (B, C, H, W); None for the adjoint of y.
    """

    y: Tensor
    physics: Any
    start: Tensor | None = None


def invert(
    measurement: Measurement, regularizer: ConvexRegularizer, noise: float, sigma: float, tuning: Tuning
) -> tuple[PictureSolution, int, float]:
    r"""Minimize :math:`\sigma^2 |A x - y|^2 / (2\,\text{noise}^2) + \text{weight}\, R(x; \sigma)` over [0, 1].

    The box bounds the objective gap also where A is not injective and no distance can be proved.

    Parameters
    ----------
    measurement : Measurement
        y and A.
    regularizer : ConvexRegularizer
        R.
    noise, sigma : float
        levels in intensities, positive.
    tuning : Tuning
        weight and tolerances.

    Returns
    -------
    (PictureSolution, int, float)
        the picture, the iterations of its slowest channel, and seconds.

    Raises
    ------
    ValueError
        if A does not give pictures that the regularizer takes.
    """
    begin = time.perf_counter()

    problem = Problem(
        measurement.y, measurement.physics, regularizer, sigma, noise, weight=tuning.weight, box=(0.0, 1.0)
    )
    solution = solve(problem.to(torch.float32), tol=tuning.tol, gap_tol=tuning.gap, x0=measurement.start)
    iterations = int(solution.stats.iterations.max())
    say_strength(tuning.weight, solution.weight)
    return PictureSolution.of(solution), iterations, time.perf_counter() - begin


def restored_by(
    like: Picture,
    measurement: Measurement,
    regularizer: ConvexRegularizer,
    noise: float,
    sigma: float,
    tuning: Tuning,
) -> Restored:
    """As :func:`invert`, as a picture that keeps depth, alpha, profile and Exif block of `like`."""
    result, iterations, seconds = invert(measurement, regularizer, noise, sigma, tuning)
    return restored(like, result, sigma, iterations, seconds)
