"""Nonlinear conjugate gradients with exact line search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.functionals.capability import Capability
from icgn.functionals.functional import ConvexFunctional, Responses, dot, per_image
from icgn.solvers.methods.line import Line
from icgn.solvers.methods.method import Method, State, evaluate
from icgn.solvers.methods.preconditioner import Preconditioner, apply_preconditioner, preconditioner_at
from icgn.solvers.methods.projection import free_pixels, projected_step

if TYPE_CHECKING:
    from icgn.functionals.box import Box

# Iterations for which a preconditioner is kept: a new one costs a pass over the responses and a transform.
_REFRESH = 8
# Where each trial of a line search costs a gradient: rougher searches spoil the conjugacy of directions.
_ROUGH = 0.3


@dataclass(frozen=True)
class ConjugateState(State):
    """State with the search direction and what the next iteration needs of this one.

    Attributes
    ----------
    direction : Tensor
        search direction d.
    energy : Tensor
        <g, P g> at x, shape (B,).
    step : Tensor or None
        first trial of the next line search, shape (B,); None at the start.
    preconditioner : Preconditioner or None
        see :func:`icgn.solvers.methods.preconditioner.preconditioner_at`.
    age : int
        iterations since the preconditioner was computed.
    """

    direction: Tensor
    energy: Tensor
    step: Tensor | None
    preconditioner: Preconditioner | None
    age: int


class ConjugateGradient(Method[ConjugateState]):
    r"""Preconditioned nonlinear conjugate gradients, Polak-Ribiere with restarts (PR+), with exact line search.

    .. math::

        x_{k+1} = x_k + t_k d_k, \quad t_k = \arg\min_t F(x_k + t d_k), \quad
        d_{k+1} = -P g_{k+1} + \max(0, \beta_k) d_k, \quad
        \beta_k = \langle g_{k+1} - g_k, P g_{k+1}\rangle / \langle g_k, P g_k\rangle.

    Along a line the responses of the objective's linear part are affine, so that one iteration costs one W and one
    W^T, whatever the line search does. An objective without responses costs one to two gradients, and the line
    search is less exact. P resembles the inverse Hessian, at every frequency and place, where something is known of it
    (:class:`~icgn.solvers.methods.preconditioner.Preconditioner`); it is renewed every few iterations.

    With a box, d moves only the pixels that the gradient does not press against a bound; a step that leaves the box is
    projected, and the line search repeated along the segment to the projection (two-metric projection).

    Theorem (Gilbert and Nocedal 1992, SIAM J. Optim. 2(1), Theorem 4.3), for a fixed P: for F with bounded level sets
    and Lipschitz gradient, :math:`\liminf |g_k| = 0`; for convex F the iterates approach the minimum. With a box
    (Bertsekas 1982, SIAM J. Control Optim. 20(2), Proposition 2, for directions without the conjugate part): limit
    points are minimizers; F does not increase, as far as the line search goes. Assumes an objective that is finite
    everywhere.

    Parameters
    ----------
    precondition : bool
        whether to use P where one is known.
    """

    of_data = frozenset({Capability.FINITE})

    @keyword_only
    def __init__(self, *, precondition: bool = True) -> None:
        self.precondition = precondition

    def init(self, objective: ConvexFunctional, x: Tensor, box: Box | None) -> ConjugateState:
        u, grad, work = evaluate(objective, x)
        preconditioner = self._preconditioner(objective, u, x)
        free = free_pixels(x, grad, box)
        pg = free * apply_preconditioner(preconditioner, free * grad)
        energy = dot(grad, pg)
        return ConjugateState(x, u, grad, work, -pg, energy, None, preconditioner, 0)

    def step(self, objective: ConvexFunctional, state: ConjugateState, box: Box | None) -> ConjugateState:
        g, d = state.grad, state.direction
        slope = dot(g, d)
        line = Line(objective, state.u, d)
        t = line.search(slope, line.newton_step(slope) if state.step is None else state.step, _ROUGH)
        move = projected_step(state, line, t, box)
        x, u, grad = move.x, move.u, move.grad
        free = free_pixels(x, grad, box)
        renew = state.age + 1 >= _REFRESH
        preconditioner = self._preconditioner(objective, u, x) if renew else state.preconditioner
        pg = free * apply_preconditioner(preconditioner, free * grad)
        energy = dot(grad, pg)
        beta = ((energy - dot(g, pg)) / state.energy).nan_to_num(0.0, 0.0, 0.0).clamp_min(0)
        new = torch.addcmul(-pg, free * d, per_image(beta, d))
        # Rounding can spoil the descent direction: start again from steepest descent.
        descends = per_image(dot(grad, new) < -1e-3 * energy, new).bool()
        new = torch.where(descends, new, -pg)
        # The step for which slope and |d|^2 change alike is the natural first trial of the next line search.
        ratio = (dot(grad, new) / slope * dot(d, d) / dot(new, new)).nan_to_num(1.0, 1.0, 1.0)
        following = torch.where(t > 0, t * ratio, torch.ones_like(t))
        age = 0 if renew else state.age + 1
        return ConjugateState(x, u, grad, state.work + 1 + move.work, new, energy, following, preconditioner, age)

    def _preconditioner(self, objective: ConvexFunctional, u: Responses, x: Tensor) -> Preconditioner | None:
        return preconditioner_at(objective, u, x) if self.precondition else None
