"""The nonmonotone accelerated proximal gradient method, the baseline of the literature."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.functionals.box import Box
from icgn.functionals.capability import Capability
from icgn.functionals.functional import ConvexFunctional, Responses, dot, per_image
from icgn.solvers.methods.method import Method, State, evaluate
from icgn.solvers.methods.projection import project

# Halvings of a step at most: rounding can make the test fail for every step.
_TRIALS = 40


@dataclass(frozen=True)
class NonmonotoneState(State):
    """State in the notation of the paper.

    Attributes
    ----------
    x_old, z : Tensor
        :math:`x_{k-1}` and :math:`z_k`.
    y_old, grad_y_old : Tensor
        :math:`y_{k-1}` and the gradient there.
    t, t_old, q, c : Tensor
        :math:`t_k, t_{k-1}, q_k, c_k`, shape (B,).
    """

    x_old: Tensor
    z: Tensor
    y_old: Tensor
    grad_y_old: Tensor
    t: Tensor
    t_old: Tensor
    q: Tensor
    c: Tensor


class NmAPG(Method[NonmonotoneState]):
    r"""Nonmonotone accelerated proximal gradient, "nmAPG" with Barzilai-Borwein steps and backtracking.

    Li and Lin 2015 (NeurIPS, "Accelerated Proximal Gradient Methods for Nonconvex Programming"), Algorithm 4 of the
    supplement, as it stands: it extrapolates to y, takes a backtracked step to z, keeps z where it is below the moving
    average c of the energies, and else compares it with a step from x.

    Theorem (the same, Theorem 4): for F with Lipschitz gradient every accumulation point is critical: for convex F, a
    minimizer; :math:`F(x_k) - F^* = O(1/k^2)` where every z is kept. Boxes are allowed; the
    objective must be finite everywhere. It serves comparisons;
    ``auto`` never chooses it.

    Parameters
    ----------
    eta, delta, shrink : float
        :math:`\eta` of the moving average, :math:`\delta` of the decrease asked for, and the factor :math:`\rho` of
        the backtracking.

    Raises
    ------
    ValueError
        for a parameter out of range.
    """

    of_data = frozenset({Capability.FINITE})

    @keyword_only
    def __init__(self, *, eta: float = 0.8, delta: float = 1e-4, shrink: float = 0.5) -> None:
        for name, value in (("eta", eta), ("shrink", shrink)):
            if not 0 <= value < 1:
                raise ValueError(f"{name}: got {value}, expected a number from 0 to below 1")
        if not delta > 0:
            raise ValueError(f"delta: got {delta}, expected a positive number")
        self.eta, self.delta, self.shrink = eta, delta, shrink

    def init(self, objective: ConvexFunctional, x: Tensor, box: Box | None) -> NonmonotoneState:
        u, grad, work = evaluate(objective, x)
        value = objective.potential(u).double()
        one = torch.ones_like(value)
        # y_0, which the first Barzilai-Borwein step needs, is a short gradient step away.
        bend = objective.curvature(u, objective.linear(grad)).double()
        y = x - per_image(torch.where(bend > 0, 1e-2 * dot(grad, grad).double() / bend, 1e-2), x) * grad
        return NonmonotoneState(
            x, u, grad, work + 1.5, x_old=x, z=x, y_old=y, grad_y_old=objective.grad(y), t=one, t_old=0 * one, q=one,
            c=value,
        )  # fmt: skip

    def step(self, objective: ConvexFunctional, state: NonmonotoneState, box: Box | None) -> NonmonotoneState:
        s = state
        y = s.x + per_image(s.t_old / s.t, s.x) * (s.z - s.x) + per_image((s.t_old - 1) / s.t, s.x) * (s.x - s.x_old)
        u_y, grad_y, work = evaluate(objective, y)
        enough = torch.maximum(objective.potential(u_y).double(), s.c)
        first = self._search(objective, y, grad_y, barzilai_borwein(y - s.y_old, grad_y - s.grad_y_old), enough, box)
        kept = first.value <= s.c - self.delta * first.square
        x, u, value, work = first.x, first.u, first.value, work + first.work
        if not bool(kept.all()):
            step = barzilai_borwein(s.x - s.y_old, s.grad - s.grad_y_old)
            second = self._search(objective, s.x, s.grad, step, s.c, box)
            better = ~kept & (second.value < value)
            x = torch.where(per_image(better, x).bool(), second.x, x)
            u = objective.between(u, second.u, better.to(x))
            value = torch.where(better, second.value, value)
            work = work + torch.where(kept, 0.0, second.work)
        q = self.eta * s.q + 1
        return NonmonotoneState(
            x, u, objective.grad_from(u, x.shape), s.work + work + 0.5, x_old=s.x, z=first.x, y_old=y,
            grad_y_old=grad_y, t=((4 * s.t.square() + 1).sqrt() + 1) / 2, t_old=s.t, q=q,
            c=(self.eta * s.q * s.c + value) / q,
        )  # fmt: skip

    def _search(
        self, objective: ConvexFunctional, y: Tensor, grad: Tensor, step: Tensor, bound: Tensor, box: Box | None
    ) -> _Trial:
        """A gradient step from y, shortened per image until F(x) <= bound - delta |x - y|^2."""
        rejected, work = torch.ones_like(step, dtype=torch.bool), torch.zeros_like(step)
        for _ in range(_TRIALS):
            x = project(y - per_image(step, y) * grad, box)
            u = objective.linear(x)
            work = work + 0.5 * rejected
            value, square = objective.potential(u).double(), dot(x - y, x - y).double()
            rejected = ~(value <= bound - self.delta * square)
            if not bool(rejected.any()):
                break
            step = torch.where(rejected, self.shrink * step, step)
        return _Trial(x, u, value, square, work)


@dataclass(frozen=True)
class _Trial:
    """A trial point with its responses, value, squared distance to where it started, and work."""

    x: Tensor
    u: Responses
    value: Tensor
    square: Tensor
    work: Tensor


def barzilai_borwein(s: Tensor, r: Tensor) -> Tensor:
    """The step <s, s> / <s, r> of images that moved by s as their gradients changed by r; 1 without curvature."""
    bend = dot(s, r).double()
    return torch.where(bend > 0, dot(s, s).double() / bend, 1.0)
