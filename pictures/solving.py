"""The one objective behind every restoration of pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from icgn.functionals.box import Box
from icgn.pictures.ranges import UNIT, Range, default_box, share_at, wider_box
from icgn.pictures.tasks import Pose, Task
from icgn.regularizers.base import ConvexRegularizer
from icgn.solvers import Problem, Solution, Stats, Status, solve
from icgn.solvers.units import brought, in_unit

# Bounds that press on the pictures are doubled so many times at most.
_WIDENINGS = 6
# Weights that a rule may find: outside them the noise is not what the rule assumes.
_SANE = 1 / 100, 20.0
# A pixel of the measurement that lies within this part of the range from a bound explains one on the bound.
_NEAR = 0.05


@dataclass(frozen=True, eq=False)
class Solved:
    """What :func:`solve_task` returns.

    Attributes
    ----------
    solution : Solution
        of the pictures that y shows, without the margin around them, in the precision of y.
    clipped : float
        the part of their pixels that lie on a bound of the intensities.
    unexplained : float
        how much more that is than the part of the measurement that is as dark or as bright.
    misfit : float
        root mean square of what is measured of the pictures less the measurement, over its noise.
    doubt : str
        that the rule for the weight ended where no weight is trusted, in words.
    """

    solution: Solution
    clipped: float = 0.0
    unexplained: float = 0.0
    doubt: str = ""
    misfit: float = 0.0


def solve_task(
    task: Task,
    y: Tensor,
    pose: Pose,
    limits: Range,
    regularizer: ConvexRegularizer,
    sigma: float | Tensor,
    noise: float | Tensor | None,
    weight: float | Tensor | str,
    **options: Any,
) -> Solved:
    r"""Minimize :math:`\sigma^2 |A x - y|^2 / (2\,\text{noise}^2) + w R(x; \sigma)` and certify the pictures.

    Parameters
    ----------
    task : Task
        what happened to the pictures.
    y : Tensor
        pictures as they were measured, (B, C, H, W).
    pose : Pose
        A, as the task poses it for y.
    limits : (float, float)
        the intensities that are 0 and 1 to the regularizer.
    regularizer : ConvexRegularizer
        R, of intensities in [0, 1].
    sigma, noise, weight
        as for :class:`icgn.Problem`, in the unit of y.
    **options
        of :func:`icgn.solve`; events are those of the pictures brought to [0, 1].
    """
    box = default_box(task, y, limits) if pose.bounded else None
    box = box and _stretched_box(box, limits)
    z, start, level = pose.y, pose.start, sigma
    if limits != UNIT:
        z, start, level, noise = brought(pose.y, pose.physics, limits, sigma, noise, pose.start)
    problem = Problem(z, pose.physics, regularizer, level, noise=noise, weight=weight, box=box)
    # Posed in double so that nothing of the physics is rounded twice.
    posed = problem if pose.y.dtype == y.dtype else problem.to(y.dtype)
    solution, doubt = _sane(weight, posed, solve(posed, x0=start, **options), **options)
    for _ in range(_WIDENINGS if limits != UNIT else 0):
        # Pictures may be brighter than their measurement shows.
        if box is None or Status.STOPPED in solution.status or not share_at(solution.x, box):
            break
        box, before = wider_box(box), solution.stats
        solution = solve(replace(posed, box=box, weight=solution.weight), x0=solution.x, **options)
        solution = replace(solution, stats=_both(before, solution.stats))
    misfit = _misfit(posed, solution.x)
    if pose.frame is not None:
        solution = _framed(solution, pose.frame)
    clipped = share_at(solution.x, box) if box else 0.0
    seen = share_at((task.shown(y, pose) - limits[0]) / (limits[1] - limits[0]), box, _NEAR) if box and clipped else 0.0
    return Solved(in_unit(solution, limits), clipped, max(clipped - seen, 0.0), doubt, misfit)


@torch.no_grad()
def _misfit(problem: Problem, x: Tensor) -> float:
    """Root mean square of A x - y over the noise, where pictures are measured at all."""
    valid = problem.index
    objective = problem.given(weight=1.0).objective.select(valid)
    seen = objective.data.linear(x[valid])
    squares = 2 * objective.data_weight * objective.data.potential(seen).double()
    level = torch.as_tensor(problem.sigma, dtype=torch.float64, device=x.device).reshape(-1).expand(len(x))[valid]
    measured = problem.physics.A(torch.ones_like(x[valid])) != 0
    expected = level.square() * measured.flatten(1).sum(1)
    return float((squares.sum() / expected.sum()).sqrt()) if bool(expected.sum() > 0) else 0.0


def _sane(rule: float | Tensor | str, posed: Problem, solution: Solution, **options: Any) -> tuple[Solution, str]:
    """The solution, with the weight 1 where its rule ended at one that is not trusted, and what is to be said then."""
    ended = solution.weight
    sane = (ended >= _SANE[0]) & (ended <= _SANE[1])
    if not isinstance(rule, str) or bool(sane.all()) or Status.STOPPED in solution.status:
        return solution, ""
    again = solve(replace(posed, weight=torch.where(sane, ended, 1.0)), x0=solution.x.nan_to_num(), **options)
    where = ", ".join(f"{w:.3g}" for w in ended[~sane].tolist())
    return replace(again, stats=_both(solution.stats, again.stats)), (
        f"the rule {rule} ended at the weight {where}, outside {_SANE[0]:g} to {_SANE[1]:g}: the noise is not white, or"
        " not of the level that is assumed; weight 1 is taken instead: give the noise or a weight"
    )


def _stretched_box(box: Range, limits: Range) -> Range:
    stretched = Box(low=box[0], high=box[1]).brought(limits[0], limits[1] - limits[0])
    return stretched.low, stretched.high


def _both(first: Stats, second: Stats) -> Stats:
    return replace(
        second,
        iterations=first.iterations + second.iterations,
        work=first.work + second.work,
        seconds=first.seconds + second.seconds,
    )


def _framed(solution: Solution, frame: tuple[int, int]) -> Solution:
    r"""The solution for the middle of its pictures, where :math:`|x - x^*|` is at most that of the whole."""
    height, width = solution.x.shape[-2:]
    top, left = (height - frame[0]) // 2, (width - frame[1]) // 2
    x = solution.x[..., top : top + frame[0], left : left + frame[1]]
    larger = math.sqrt(height * width / (frame[0] * frame[1]))
    certificate = replace(solution.certificate, rms_distance=larger * solution.certificate.rms_distance)
    return replace(solution, x=x, certificate=certificate)
