"""Steps that stay in a box: two-metric projection with exact line search."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from icgn.functionals.box import Box
from icgn.functionals.functional import ConvexFunctional, Responses, dot, per_image
from icgn.solvers.methods.line import Line, step_along
from icgn.solvers.methods.method import State

# Where each trial costs a gradient, more trials of the same line gain little.
_ROUGH = 0.5
# The part of the decrease along the line that its projection has to promise.
_DOWNHILL = 1e-3


@dataclass(frozen=True)
class Move:
    """Where a step ended: images, responses, gradient, and the work beyond one linear map and one adjoint, (B,)."""

    x: Tensor
    u: Responses
    grad: Tensor
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
    """A line search along descent directions d, kept to the box as by :func:`projected_step`."""
    line, slope = Line(objective, state.u, d), dot(state.grad, d)
    # Quasi-Newton and Newton directions have a natural step of 1.
    return projected_step(state, line, line.search(slope, torch.ones_like(slope), _ROUGH), box)


def projected_step(state: State, line: Line, t: Tensor, box: Box | None) -> Move:
    """The step t along a line; where it leaves the box, the best point towards its projection.

    Bertsekas' two-metric projection: the direction must vanish where :func:`free_pixels` does. For long steps the
    projection can point uphill; then a projected Cauchy step takes its place, which never does. F does not increase.
    """
    x = step_along(state.x, line.d, t)
    inside = project(x, box)
    left = (inside != x).flatten(1).any(1)
    if box is None or not bool(left.any()):
        return _moved(x, line, t, torch.zeros_like(t, dtype=torch.float64))
    work = line.work + 0.5 * left.double()
    e = inside - state.x
    # A slope at the level of rounding counts as uphill: such a step changes nothing, and the next would be the same.
    uphill = left & ~(dot(state.grad, e) < _DOWNHILL * t * dot(state.grad, line.d))
    if bool(uphill.any()):
        cauchy = _cauchy_step(line.objective, state, box)
        e = torch.where(per_image(uphill, e).bool(), cauchy, e)
        work = work + 0.5 * uphill.double()
    towards = Line(line.objective, state.u, e)
    best = towards.search(dot(state.grad, e), torch.ones_like(t), _ROUGH).clamp(max=1.0)
    return _moved(step_along(state.x, e, best), towards, best, work)


def _moved(x: Tensor, line: Line, t: Tensor, work: Tensor) -> Move:
    u, grad = line.end(t)
    return Move(x, u, grad, work + line.work)


def _cauchy_step(objective: ConvexFunctional, state: State, box: Box) -> Tensor:
    """Projected gradient step with the inverse curvature along the free part of the gradient."""
    g = free_pixels(state.x, state.grad, box) * state.grad
    t = Line(objective, state.u, -g).newton_step(-dot(g, g))
    return box.project(step_along(state.x, -g, t)) - state.x
