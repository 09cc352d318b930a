"""Gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from icgn.solvers.box import Box
from icgn.solvers.functional import ConvexFunctional, Responses, dot, per_image
from icgn.solvers.method import Method, State, evaluate, newton_guess, project


@dataclass(frozen=True)
class DescentState(State):
    """State with the step size of each image."""

    step: Tensor


class GradientDescent(Method[DescentState]):
    r"""Projected gradient descent :math:`x_{k+1} = P(x_k - t_k g_k)` with per-image backtracking.

    Theorem (Beck 2017, First-Order Methods in Optimization, Theorems 10.21 and 10.29): for convex F with Lipschitz
    gradient :math:`F(x_k) - F^* = O(1/k)`, linear with factor :math:`1 - \mu / L` for :math:`\mu`-strongly convex F, L
    being the largest local constant met by the backtracking. Boxes are allowed.
    """

    def init(self, objective: ConvexFunctional, x: Tensor, box: Box | None) -> DescentState:
        u, grad, work = evaluate(objective, x)
        return DescentState(x, u, grad, work + 0.5, initial_step(objective, u, grad))

    def step(self, objective: ConvexFunctional, state: DescentState, box: Box | None) -> DescentState:
        trial = backtrack(objective, state.x, state.u, state.grad, state.step * 1.5, box)
        grad = objective.grad_from(trial.u, trial.x.shape)
        return DescentState(trial.x, trial.u, grad, state.work + 0.5 + trial.work, trial.step)


@dataclass(frozen=True)
class Trial:
    """An accepted gradient step: the new images, their responses, the steps, and the work spent per image."""

    x: Tensor
    u: Responses
    step: Tensor
    work: Tensor


def initial_step(objective: ConvexFunctional, u: Responses, grad: Tensor) -> Tensor:
    """The inverse curvature along the gradient, shape (B,)."""
    return newton_guess(objective, u, objective.linear(-grad), -dot(grad, grad))


def backtrack(
    objective: ConvexFunctional, y: Tensor, u: Responses, grad: Tensor, step: Tensor, box: Box | None, most: int = 30
) -> Trial:
    r"""A projected gradient step from y, halved per image until the descent lemma holds for it.

    With :math:`d = P(y - t g) - y`, convexity bounds
    :math:`F(y + d) - F(y) - \langle g, d\rangle \le \langle\nabla F(y + d) - g, d\rangle`, so that
    :math:`\langle\nabla F(y + d), d\rangle \le \langle g, d\rangle + |d|^2 / 2t` suffices for the descent lemma with
    constant 1/t. It needs slopes only, no differences of energies, and so survives rounding.
    """
    rejected = torch.ones_like(step, dtype=torch.bool)
    work = torch.zeros_like(step, dtype=torch.float64)
    one = torch.ones_like(step)
    for _ in range(most):
        d = project(y - per_image(step, y) * grad, box) - y
        q = objective.linear(d)
        work = work + 0.5 * rejected
        square = dot(d, d)
        # A step at the level of rounding is taken as it is.
        small = square <= (4 * torch.finfo(y.dtype).eps) ** 2 * dot(y, y)
        rejected = (objective.slope(u, q, one) > dot(grad, d) + square / (2 * step)) & ~small
        if not bool(rejected.any()):
            break
        step = torch.where(rejected, step / 2, step)
    return Trial(project(y + d, box), objective.move(u, q, one), step, work)
