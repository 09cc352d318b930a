"""Nonlinear conjugate gradients with exact line search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from icgn.solvers.functional import ConvexFunctional, dot, per_image
from icgn.solvers.method import Method, State, evaluate, exact_step, newton_guess, step_along

if TYPE_CHECKING:
    from icgn.solvers.problem import Box, Problem


@dataclass(frozen=True)
class ConjugateState(State):
    """State with the search direction, its squared norm scaled for the next guess, and the last step."""

    direction: Tensor
    step: Tensor


class ConjugateGradient(Method[ConjugateState]):
    r"""Nonlinear conjugate gradients, Polak-Ribiere with restarts (PR+), with exact line search.

    .. math::

        x_{k+1} = x_k + t_k d_k, \quad t_k = \arg\min_t F(x_k + t d_k), \quad
        d_{k+1} = -g_{k+1} + \max(0, \langle g_{k+1}, g_{k+1} - g_k\rangle / |g_k|^2)\, d_k.

    Along a line the responses of the objective's linear part are affine, so that one iteration costs one W and one
    W^T, whatever the line search does.

    Theorem (Gilbert and Nocedal 1992, SIAM J. Optim. 2(1), Theorem 4.3): for F with bounded level sets and Lipschitz
    gradient, :math:`\liminf |g_k| = 0`; for convex F the iterates approach the minimum. Assumes no box.
    """

    def check(self, problem: Problem) -> None:
        if problem.box is not None:
            raise ValueError("method: ConjugateGradient assumes an unconstrained problem, got a box")

    def init(self, objective: ConvexFunctional, x: Tensor, box: Box | None) -> ConjugateState:
        u, grad, work = evaluate(objective, x)
        return ConjugateState(x, u, grad, work, -grad, torch.full_like(dot(x, x), torch.nan))

    def step(self, objective: ConvexFunctional, state: ConjugateState, box: Box | None) -> ConjugateState:
        g, d = state.grad, state.direction
        slope = dot(g, d)
        q = objective.linear(d)
        guess = torch.where(torch.isnan(state.step), newton_guess(objective, state.u, q, slope), state.step)
        t = torch.where(slope < 0, exact_step(objective, state.u, q, slope, guess), torch.zeros_like(slope))
        x, u = step_along(state.x, d, t), objective.move(state.u, q, t)
        grad = objective.linear_adjoint(objective.potential_grad(u), x.shape)
        before, after = dot(g, g), dot(grad, grad)
        beta = ((after - dot(grad, g)) / before).nan_to_num(0.0, 0.0, 0.0).clamp_min(0)
        new = torch.addcmul(-grad, d, per_image(beta, d))
        # Rounding can spoil the descent direction: start again from steepest descent.
        descends = per_image(dot(grad, new) < -1e-3 * after, new).bool()
        new = torch.where(descends, new, -grad)
        # The step for which slope and |d|^2 change alike is the natural first trial of the next line search.
        ratio = (dot(grad, new) / slope * dot(d, d) / dot(new, new)).nan_to_num(1.0, 1.0, 1.0)
        following = torch.where(t > 0, t * ratio, torch.full_like(t, torch.nan))
        return ConjugateState(x, u, grad, state.work + 1, new, following)
