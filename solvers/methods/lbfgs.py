"""Limited-memory quasi-Newton steps with exact line search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.functionals.capability import Capability
from icgn.functionals.functional import ConvexFunctional, dot, per_image
from icgn.solvers.methods.method import Method, State, evaluate
from icgn.solvers.methods.preconditioner import Preconditioner, apply_preconditioner, preconditioner_at
from icgn.solvers.methods.projection import descend

if TYPE_CHECKING:
    from icgn.functionals.box import Box


@dataclass(frozen=True)
class QuasiNewtonState(State):
    """State with the last steps s, the changes of the gradient y they made, and the first metric."""

    steps: tuple[Tensor, ...]
    changes: tuple[Tensor, ...]
    preconditioner: Preconditioner | None


class LBFGS(Method[QuasiNewtonState]):
    r"""Limited-memory BFGS :math:`x_{k+1} = x_k - t_k H_k g_k` with exact line search.

    :math:`H_k` is the two-loop recursion (Nocedal 1980) over the last `memory` steps. Its first metric is the inverse
    of the convolutions that resemble the Hessian at the start, where something is known of it, else the scaled
    identity. Where nothing is known of the objective but gradients, an iteration costs one or little more.

    Theorem (Liu and Nocedal 1989, Mathematical Programming 45, Theorem 6.1): for twice differentiable F with Hessian
    between :math:`\mu > 0` and L on the level set, :math:`F(x_k) - F^*` decreases linearly. Assumes no box, and
    an objective that is finite everywhere.

    Parameters
    ----------
    memory : int
        steps remembered; each costs two images.

    Raises
    ------
    ValueError
        if `memory` is less than 1.
    """

    boxes = False
    of_data = frozenset({Capability.FINITE})

    @keyword_only
    def __init__(self, *, memory: int = 8) -> None:
        if memory < 1:
            raise ValueError(f"memory: got {memory}, expected at least 1")
        self.memory = memory

    def init(self, objective: ConvexFunctional, x: Tensor, box: Box | None) -> QuasiNewtonState:
        u, grad, work = evaluate(objective, x)
        # A step of zeros has no curvature and changes nothing: the tuples have one length throughout.
        empty = (torch.zeros_like(x),) * self.memory
        return QuasiNewtonState(x, u, grad, work, empty, empty, preconditioner_at(objective, u, x))

    def step(self, objective: ConvexFunctional, state: QuasiNewtonState, box: Box | None) -> QuasiNewtonState:
        d = -_two_loops(state)
        # Rounding can spoil the descent direction: preconditioned steepest descent then.
        plain = apply_preconditioner(state.preconditioner, state.grad)
        d = torch.where(per_image(dot(state.grad, d) < 0, d).bool(), d, -plain)
        move = descend(objective, state, d, box)
        return QuasiNewtonState(
            move.x, move.u, move.grad, state.work + 1 + move.work,
            (*state.steps[1:], move.x - state.x), (*state.changes[1:], move.grad - state.grad), state.preconditioner,
        )  # fmt: skip


def _two_loops(state: QuasiNewtonState) -> Tensor:
    q = state.grad
    pairs = list(zip(state.steps, state.changes, strict=True))
    alphas = []
    for s, y in reversed(pairs):
        rho = _inverse(dot(s, y))
        alphas.append(rho * dot(s, q))
        q = q - per_image(alphas[-1], y) * y
    s, y = pairs[-1]
    r = apply_preconditioner(state.preconditioner, q)
    if state.preconditioner is None:
        scale = dot(s, y) * _inverse(dot(y, y))
        r = r * per_image(torch.where(scale > 0, scale, 1.0), r)
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r = r + s * per_image(alpha - _inverse(dot(s, y)) * dot(y, r), r)
    return r


def _inverse(curvature: Tensor) -> Tensor:
    """1 / curvature, 0 where it is not positive: such a pair is skipped."""
    return torch.where(curvature > 0, 1 / curvature, 0.0).nan_to_num(0.0, 0.0, 0.0)
