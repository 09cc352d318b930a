"""Gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from icgn.functionals.box import Box
from icgn.functionals.functional import ConvexFunctional, Responses, dot, per_image
from icgn.solvers.methods.line import Line
from icgn.solvers.methods.method import Method, State
from icgn.solvers.methods.splitting import BoxSplitting, Evaluation, Splitting


@dataclass(frozen=True)
class DescentState(State):
    """State with the gradient of the smooth part and the step size of each image."""

    smooth_grad: Tensor
    step: Tensor


class GradientDescent(Method[DescentState]):
    r"""Projected gradient descent :math:`x_{k+1} = P(x_k - t_k g_k)` with per-image backtracking.

    Theorem (Beck 2017, First-Order Methods in Optimization, Theorems 10.21 and 10.29): for convex F with Lipschitz
    gradient :math:`F(x_k) - F^* = O(1/k)`, linear with factor :math:`1 - \mu / L` for :math:`\mu`-strongly convex F, L
    being the largest local constant met by the backtracking. Boxes are allowed.
    """

    def splitting(self, objective: ConvexFunctional, box: Box | None) -> Splitting:
        """The smooth part and the part whose proximal map is taken."""
        return BoxSplitting(objective, box)

    def init(self, objective: ConvexFunctional, x: Tensor, box: Box | None) -> DescentState:
        split = self.splitting(objective, box)
        start = begin(split, objective, x)
        step = initial_step(split, start)
        return DescentState(x, start.u, start.grad, torch.full_like(step, 1.5).double(), start.smooth_grad, step)

    def step(self, objective: ConvexFunctional, state: DescentState, box: Box | None) -> DescentState:
        split = self.splitting(objective, box)
        trial = backtrack(split, state.x, split.responses(state.u), state.smooth_grad, state.step * 1.5)
        now = split.evaluate(trial.u, trial.x)
        return DescentState(trial.x, now.u, now.grad, state.work + now.work + trial.work, now.smooth_grad, trial.step)


@dataclass(frozen=True)
class Trial:
    """An accepted step: the new images, their responses under f, the step sizes, and the work spent per image."""

    x: Tensor
    u: Responses
    step: Tensor
    work: Tensor


def begin(split: Splitting, objective: ConvexFunctional, x: Tensor) -> Evaluation:
    """F at the starting images."""
    return split.evaluate(split.responses(objective.linear(x)), x)


def initial_step(split: Splitting, start: Evaluation) -> Tensor:
    """The inverse curvature of the smooth part along its gradient, shape (B,)."""
    g = start.smooth_grad
    return Line(split.smooth, split.responses(start.u), -g).newton_step(-dot(g, g))


def backtrack(split: Splitting, y: Tensor, u: Responses, grad: Tensor, step: Tensor, most: int = 30) -> Trial:
    r"""A forward-backward step from y, halved per image until the descent lemma holds for the smooth part f.

    With :math:`d = \mathrm{prox}_{t g}(y - t \nabla f(y)) - y`, convexity bounds
    :math:`f(y + d) - f(y) - \langle\nabla f(y), d\rangle \le \langle\nabla f(y + d) - \nabla f(y), d\rangle`, so
    that :math:`\langle\nabla f(y + d), d\rangle \le \langle\nabla f(y), d\rangle + |d|^2 / 2t` suffices for the
    descent lemma with constant 1/t. It needs slopes only, no differences of energies, and so survives rounding. Where
    f has no finite slope, outside its domain, the step is too long.
    """
    rejected = torch.ones_like(step, dtype=torch.bool)
    work = torch.zeros_like(step, dtype=torch.float64)
    one = torch.ones_like(step)
    for _ in range(most):
        x, inner = split.backward(y - per_image(step, y) * grad, step, y)
        d = x - y
        q = split.smooth.linear(d)
        work = work + (0.5 + inner) * rejected
        square = dot(d, d)
        # A step at the level of rounding is taken as it is.
        small = square <= (4 * torch.finfo(y.dtype).eps) ** 2 * dot(y, y)
        rejected = ~(split.smooth.slope(u, q, one) <= dot(grad, d) + square / (2 * step)) & ~small
        if not bool(rejected.any()):
            break
        step = torch.where(rejected, step / 2, step)
    return Trial(x, split.smooth.move(u, q, one), step, work)
