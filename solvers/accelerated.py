"""Accelerated gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from icgn.solvers.box import Box
from icgn.solvers.functional import ConvexFunctional, Responses, dot, per_image
from icgn.solvers.gradient import backtrack, initial_step
from icgn.solvers.method import Method, State, evaluate


@dataclass(frozen=True)
class AcceleratedState(State):
    """State with the previous images, their responses, the step sizes and the momentum counters."""

    x_old: Tensor
    u_old: Responses
    step: Tensor
    counter: Tensor


class AcceleratedGradient(Method[AcceleratedState]):
    r"""Projected accelerated gradient with strongly convex momentum, adaptive restart and per-image backtracking.

    .. math::

        y_k = x_k + \beta_k (x_k - x_{k-1}), \quad x_{k+1} = P(y_k - t_k \nabla F(y_k)), \quad
        \beta_k = \frac{\theta_k - 1}{\theta_{k+1}} (1 - \theta_{k+1} q) / (1 - q), \; q = t_k \mu,

    with :math:`\theta_{k+1} = (1 - q\theta_k^2 + \sqrt{(1 - q\theta_k^2)^2 + 4\theta_k^2}) / 2`.

    Theorem (Chambolle and Pock 2016, Acta Numerica 25, Algorithm 5 and Theorem B.1): :math:`O(1/k^2)` for convex F
    with Lipschitz gradient, linear with factor :math:`1 - \sqrt{\mu / L}` for strongly convex F. The momentum restarts
    where it points uphill (O'Donoghue and Candes 2015). Boxes are allowed.
    """

    def init(self, objective: ConvexFunctional, x: Tensor, box: Box | None) -> AcceleratedState:
        u, grad, work = evaluate(objective, x)
        return AcceleratedState(
            x, u, grad, work + 0.5, x, u, initial_step(objective, u, grad), torch.ones_like(dot(x, x))
        )

    def step(self, objective: ConvexFunctional, state: AcceleratedState, box: Box | None) -> AcceleratedState:
        t = state.step * 1.2
        mu = objective.strong_convexity().to(t).expand_as(t)
        q = (t * mu).clamp(max=0.999)
        before = state.counter.to(t)
        half = 1 - q * before.square()
        after = (half + (half.square() + 4 * before.square()).sqrt()) / 2
        beta = ((before - 1) / after * (1 - after * q) / (1 - q)).clamp_min(0)
        back = state.x - state.x_old
        # Momentum against the gradient at x points uphill: drop it and start the counters again.
        uphill = dot(state.grad, back) > 0
        beta, after = torch.where(uphill, 0.0, beta), torch.where(uphill, 1.0, after)
        y = torch.addcmul(state.x, back, per_image(beta, back))
        u = _extrapolate(state.u, state.u_old, beta, objective)
        grad_y = objective.grad_from(u, y.shape)
        trial = backtrack(objective, y, u, grad_y, t, box)
        grad = objective.grad_from(trial.u, y.shape)
        return AcceleratedState(
            trial.x, trial.u, grad, state.work + 1 + trial.work, state.x, state.u, trial.step, after
        )


def _extrapolate(u: Responses, old: Responses, beta: Tensor, objective: ConvexFunctional) -> Responses:
    """Responses u + beta (u - old)."""
    return objective.move(u, _difference(u, old), beta)


def _difference(u: Responses, old: Responses) -> Responses:
    if isinstance(u, tuple) and isinstance(old, tuple):
        return tuple(_difference(a, b) for a, b in zip(u, old, strict=True))
    assert isinstance(u, Tensor) and isinstance(old, Tensor)
    return u - old
