"""The one objective behind every restoration of pictures."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from icgn.pictures.tasks import Pose, Task
from icgn.regularizers.base import ConvexRegularizer, check_image
from icgn.solvers import Problem, Solution, solve


def solve_task(
    task: Task,
    y: Tensor,
    regularizer: ConvexRegularizer,
    sigma: float | Tensor,
    noise: float | Tensor | None,
    weight: float | Tensor | str,
    **options: Any,
) -> tuple[Solution, Pose]:
    r"""Minimize :math:`\sigma^2 |A x - y|^2 / (2\,\text{noise}^2) + w R(x; \sigma)` and certify the pictures.

    Parameters
    ----------
    task : Task
        poses A.
    y : Tensor
        pictures as they were measured, (B, C, H, W).
    regularizer : ConvexRegularizer
        R.
    sigma, noise, weight
        as for :class:`icgn.Problem`.
    **options
        of :func:`icgn.solve`.

    Returns
    -------
    (Solution, Pose)
        the solution for the pictures that y shows, without the margin around them, in the precision of y; and the
        problem that was posed.
    """
    if task.shows_intensities:
        check_image(y, "y")
    pose = task.pose(y)
    problem = Problem(pose.y, pose.physics, regularizer, sigma, noise=noise, weight=weight, box=pose.box)
    if task.shows_intensities:
        _check_range(problem)
    # Posed in double so that nothing of the physics is rounded twice.
    posed = problem if pose.y.dtype == y.dtype else problem.to(y.dtype)
    solution = solve(posed, x0=pose.start, **options)
    return solution if pose.frame is None else _framed(solution, pose.frame), pose


def _check_range(problem: Problem) -> None:
    """Refuse intensities that no noise of this level explains: the picture is in another unit."""
    y = problem.y[problem.valid]
    noise = problem.sigma if problem.noise is None else problem.noise
    limit = 2 + 10 * float(torch.as_tensor(noise).max())
    largest = float(y.detach().abs().max())
    if largest > limit:
        raise ValueError(
            f"y: got values up to {largest:.4g}, expected intensities in [0, 1] plus noise;"
            " divide images in 0..255 by 255 (and sigma too)"
        )


def _framed(solution: Solution, frame: tuple[int, int]) -> Solution:
    r"""The solution for the middle of its pictures: :math:`|x - x^*|` there is at most that over the whole."""
    height, width = solution.x.shape[-2:]
    top, left = (height - frame[0]) // 2, (width - frame[1]) // 2
    x = solution.x[..., top : top + frame[0], left : left + frame[1]]
    larger = math.sqrt(height * width / (frame[0] * frame[1]))
    certificate = replace(solution.certificate, rms_distance=larger * solution.certificate.rms_distance)
    return replace(solution, x=x, certificate=certificate)
