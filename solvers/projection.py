"""Steps that stay in a box: two-metric projection with exact line search."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from icgn.solvers.box import Box
from icgn.solvers.functional import ConvexFunctional, Responses, dot, per_image
from icgn.solvers.method import State, exact_step, newton_guess, step_along


@dataclass(frozen=True)
class Move:
    """Where a step ended: images, their responses, and the work beyond that of the direction, (B,)."""

    x: Tensor
    u: Responses
    work: Tensor


def free_pixels(x: Tensor, grad: Tensor, box: Box | None) -> Tensor:
    """1 at pixels that may move, 0 where the gradient presses against a bound."""
    if box is None:
        return torch.ones((), dtype=x.dtype, device=x.device)
    low, high = box.bounds(x)
    return (~((x <= low) & (grad > 0) | (x >= high) & (grad < 0))).to(x)


def project(x: Tensor, box: Box | None) -> Tensor:
    """The nearest point of the box."""
    return x if box is None else box.project(x)


def descend(objective: ConvexFunctional, state: State, d: Tensor, box: Box | None) -> Move:
    """An exact line search along descent directions d, kept to the box as by :func:`projected_step`."""
    slope, q = dot(state.grad, d), objective.linear(d)
    # Quasi-Newton and Newton directions have a natural step of 1.
    t = torch.where(slope < 0, exact_step(objective, state.u, q, slope, torch.ones_like(slope)), 0.0)
    return projected_step(objective, state, d, q, t, box)


def projected_step(
    objective: ConvexFunctional, state: State, d: Tensor, q: Responses, t: Tensor, box: Box | None
) -> Move:
    """The step t along d, with responses q; where it leaves the box, the best point towards its projection.

    Bertsekas' two-metric projection: d must vanish where :func:`free_pixels` does. For long steps the projection can
    point uphill; then a projected Cauchy step takes its place, which never does. F does not increase.
    """
    x = step_along(state.x, d, t)
    inside = project(x, box)
    left = (inside != x).flatten(1).any(1)
    if box is None or not bool(left.any()):
        return Move(x, objective.advance(state.u, q, t), torch.zeros_like(t, dtype=torch.float64))
    work = 0.5 * left.double()
    e = inside - state.x
    uphill = left & ~(dot(state.grad, e) < 0)
    if bool(uphill.any()):
        cauchy = _cauchy_step(objective, state, box)
        e = torch.where(per_image(uphill, e).bool(), cauchy, e)
        work = work + 0.5 * uphill.double()
    along, slope = objective.linear(e), dot(state.grad, e)
    best = exact_step(objective, state.u, along, slope, torch.ones_like(t)).clamp(max=1.0)
    best = torch.where(slope < 0, best, 0.0)
    return Move(step_along(state.x, e, best), objective.advance(state.u, along, best), work)


def _cauchy_step(objective: ConvexFunctional, state: State, box: Box) -> Tensor:
    """Projected gradient step with the inverse curvature along the free part of the gradient."""
    g = free_pixels(state.x, state.grad, box) * state.grad
    t = newton_guess(objective, state.u, objective.linear(-g), -dot(g, g))
    return box.project(step_along(state.x, -g, t)) - state.x
