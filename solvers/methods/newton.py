"""Inexact semismooth Newton steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.functionals.capability import Capability
from icgn.functionals.functional import ConvexFunctional, dot, per_image
from icgn.solvers.implicit import solve_hessian
from icgn.solvers.methods.method import Method, State, evaluate
from icgn.solvers.methods.projection import descend, free_pixels

if TYPE_CHECKING:
    from icgn.functionals.box import Box


@dataclass(frozen=True)
class NewtonState(State):
    """State with the norms of the first gradients, shape (B,)."""

    first: Tensor


class NewtonCG(Method[NewtonState]):
    r"""Inexact semismooth Newton steps :math:`x_{k+1} = x_k + t_k d_k` with exact line search.

    .. math::

        |H_k d_k + g_k| \le \eta_k |g_k|, \qquad \eta_k = \min(\eta, \sqrt{|g_k| / |g_0|}),

    :math:`H_k` an element of the generalized Hessian, d found by preconditioned conjugate gradients.

    Theorem (Qi and Sun 1993, Mathematical Programming 58; inexact: Martinez and Qi 1995, J. Comput. Appl. Math. 60):
    near a minimizer at which every element of the generalized Hessian is positive definite, convergence is superlinear
    for semismooth gradients (those of piecewise linear activations are). With descent directions and exact line search
    F decreases from everywhere. With a box it is
    projected Newton (Bertsekas 1982, SIAM J. Control Optim. 20(2)). Assumes an objective that is finite everywhere.

    Parameters
    ----------
    forcing : float
        largest relative residual of a linear system.
    max_inner : int
        conjugate-gradient steps per system at most.

    Raises
    ------
    ValueError
        if `forcing` is outside (0, 1), or `max_inner` less than 1.
    """

    of_data = frozenset({Capability.FINITE})

    @keyword_only
    def __init__(self, *, forcing: float = 0.3, max_inner: int = 50) -> None:
        if not 0 < forcing < 1:
            raise ValueError(f"forcing: got {forcing}, expected a number between 0 and 1")
        if max_inner < 1:
            raise ValueError(f"max_inner: got {max_inner}, expected at least 1")
        self.forcing, self.max_inner = forcing, max_inner

    def init(self, objective: ConvexFunctional, x: Tensor, box: Box | None) -> NewtonState:
        u, grad, work = evaluate(objective, x)
        return NewtonState(x, u, grad, work, dot(grad, grad).sqrt())

    def step(self, objective: ConvexFunctional, state: NewtonState, box: Box | None) -> NewtonState:
        size = dot(state.grad, state.grad).sqrt()
        eta = (size / state.first).nan_to_num(0.0, 0.0, 0.0).sqrt().clamp(1e-3, self.forcing)
        free = free_pixels(state.x, state.grad, box).expand_as(state.x)
        system = solve_hessian(objective, state.x, -state.grad, free, eta, self.max_inner)
        d = torch.where(per_image(dot(state.grad, system.v) < 0, state.x).bool(), system.v, -free * state.grad)
        move = descend(objective, state, d, box)
        return NewtonState(move.x, move.u, move.grad, state.work + 1.5 + system.iterations + move.work, state.first)
