"""Accelerated gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from icgn.functionals.box import Box
from icgn.functionals.functional import ConvexFunctional, Responses, difference, dot, per_image
from icgn.solvers.methods.gradient import backtrack, begin, initial_step
from icgn.solvers.methods.method import Method, State
from icgn.solvers.methods.splitting import BoxSplitting, Splitting


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

    def splitting(self, objective: ConvexFunctional, box: Box | None) -> Splitting:
        """The smooth part and the part whose proximal map is taken."""
        return BoxSplitting(objective, box)

    def init(self, objective: ConvexFunctional, x: Tensor, box: Box | None) -> AcceleratedState:
        split = self.splitting(objective, box)
        start = begin(split, objective, x)
        step = initial_step(split, start)
        work = torch.full_like(step, 1.5).double()
        return AcceleratedState(x, start.u, start.grad, work, x, start.u, step, torch.ones_like(step))

    def step(self, objective: ConvexFunctional, state: AcceleratedState, box: Box | None) -> AcceleratedState:
        split = self.splitting(objective, box)
        t = state.step * 1.2
        mu = objective.strong_convexity().to(t).expand_as(t)
        q = (t * mu / (1 + t * split.strong_convexity().to(t))).clamp(max=0.999)
        before = state.counter.to(t)
        half = 1 - q * before.square()
        after = (half + (half.square() + 4 * before.square()).sqrt()) / 2
        beta = ((before - 1) / after * (1 - after * q) / (1 - q)).clamp_min(0)
        back = state.x - state.x_old
        # Momentum against the gradient at x points uphill: drop it and start the counters again.
        uphill = dot(state.grad, back) > 0
        beta, after = torch.where(uphill, 0.0, beta), torch.where(uphill, 1.0, after)
        here = split.responses(state.u)
        change = difference(here, split.responses(state.u_old))
        for _ in range(2):
            y = torch.addcmul(state.x, back, per_image(beta, back))
            u = split.smooth.move(here, change, beta)
            grad_y = split.smooth.grad_from(u, y.shape)
            inside = torch.isfinite(dot(grad_y, grad_y))
            if bool(inside.all()):
                break
            # The momentum left the domain of f: none for this image, this time.
            beta = torch.where(inside, beta, 0.0)
        trial = backtrack(split, y, u, grad_y, t)
        now = split.evaluate(trial.u, trial.x)
        work = state.work + 0.5 + now.work + trial.work
        return AcceleratedState(trial.x, now.u, now.grad, work, state.x, state.u, trial.step, after)
