"""Splittings that alternate between the proximal maps of the data term and of the regularizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.functionals.capability import Capability
from icgn.functionals.functional import ConvexFunctional, dot, per_image
from icgn.solvers.methods.method import Method, State, evaluate
from icgn.solvers.methods.splitting import Relative, data_prox, inexact_prox, parts

if TYPE_CHECKING:
    from icgn.functionals.box import Box
    from icgn.functionals.data import GaussianData

# Iterations in which the penalty may still adapt: afterwards the theorem for a fixed one applies.
_ADAPT = 50


@dataclass(frozen=True)
class SplittingState(State):
    """State with the scaled multipliers, the penalties rho (B,) and the iterations so far.

    The images x are those that left the proximal map of the regularizer.
    """

    multiplier: Tensor
    rho: Tensor
    counter: int


class _Alternating(Method[SplittingState]):
    """The first penalty, the start and the assumptions, shared by the methods of this file."""

    splits = True
    boxes = False
    of_data = frozenset({Capability.QUADRATIC})

    @keyword_only
    def __init__(self, *, rho: float = 1.0) -> None:
        if not 0 < rho < float("inf"):
            raise ValueError(f"rho: got {rho}, expected a positive number")
        self.rho = rho

    def init(self, objective: ConvexFunctional, x: Tensor, box: Box | None) -> SplittingState:
        data_weight = parts(objective).data_weight
        u, grad, work = evaluate(objective, x)
        # Without a weight of the data term any penalty works.
        first = self.rho * torch.where(data_weight > 0, data_weight, 1.0).to(x)
        return SplittingState(x, u, grad, work, torch.zeros_like(x), first.expand(len(x)), 0)


class ADMM(_Alternating):
    r"""The alternating direction method of multipliers.

    .. math::

        v_{k+1} = \mathrm{prox}_{D / \rho}(x_k - m_k), \quad x_{k+1} = \mathrm{prox}_{R / \rho}(v_{k+1} + m_k), \quad
        m_{k+1} = m_k + v_{k+1} - x_{k+1},

    the first proximal map exact where deepinv knows it, the second by an inner solver.

    Theorem (Eckstein and Bertsekas 1992, Mathematical Programming 55, Theorem 8): with summable errors of the proximal
    maps the iterates converge to a minimizer; here the residual of the second is at most
    :math:`|x_{k+1} - x_k| / 10 (k + 1)^{1.1}`. The penalty balances the residuals in the first 50 iterations only (Boyd
    et al. 2011, section 3.4.1), so that the theorem holds. Assumes no box, and a quadratic data term.

    Parameters
    ----------
    rho : float
        first penalty, as a multiple of the weight of the data term.

    Raises
    ------
    ValueError
        if it is not positive.
    """

    def step(self, objective: ConvexFunctional, state: SplittingState, box: Box | None) -> SplittingState:
        s = state
        v, x, inner = _alternate(objective, s.x - s.multiplier, s.multiplier, s, s.rho)
        rho, multiplier = s.rho, s.multiplier + v - x
        if s.counter < _ADAPT:
            primal, dual = dot(v - x, v - x), dot(x - s.x, x - s.x)
            factor = torch.where(primal > 100 * dual, 2.0, torch.where(dual > 100 * primal, 0.5, 1.0))
            rho, multiplier = rho * factor, multiplier / per_image(factor, x)
        u, grad, work = evaluate(objective, x)
        return SplittingState(x, u, grad, s.work + work + inner, multiplier, rho, s.counter + 1)


class HQS(_Alternating):
    r"""Half-quadratic splitting with a growing penalty.

    .. math::

        v_{k+1} = \mathrm{prox}_{D / \rho_k}(x_k), \quad x_{k+1} = \mathrm{prox}_{R / \rho_k}(v_{k+1}), \qquad
        \rho_k = \rho_0 (1 + k)^{0.75}.

    With a fixed penalty it minimizes another function, in which R is replaced by its Moreau envelope.

    Theorem (Passty 1979, J. Math. Anal. Appl. 72, Theorem 2): with steps :math:`1 / \rho_k` that are square summable
    but not summable, the averages of the iterates converge to a minimizer, and the iterates themselves where F is
    strongly convex. It is slow, and here for comparison. Assumes no box, and a quadratic data term.

    Parameters
    ----------
    rho : float
        first penalty, as a multiple of the weight of the data term.

    Raises
    ------
    ValueError
        if it is not positive.
    """

    def step(self, objective: ConvexFunctional, state: SplittingState, box: Box | None) -> SplittingState:
        s = state
        rho = s.rho * (1 + s.counter) ** 0.75
        _, x, inner = _alternate(objective, s.x, torch.zeros_like(s.x), s, rho)
        u, grad, work = evaluate(objective, x)
        return SplittingState(x, u, grad, s.work + work + inner, s.multiplier, s.rho, s.counter + 1)


def _alternate(
    objective: ConvexFunctional, at: Tensor, multiplier: Tensor, state: SplittingState, rho: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Images after the proximal map of the data term at `at`, after that of the regularizer, and the work."""
    p = parts(objective)
    data: GaussianData = p.data  # type: ignore[assignment]
    v = data_prox(data, at, p.data_weight.to(rho) / rho)

    rule = Relative(state.x, 0.1 / (1 + state.counter) ** 1.1)
    x, work = inexact_prox(p.regularizer, p.weight.to(rho) / rho, v + multiplier, state.x, rule)
    return v, x, work
