"""Convex conjugates of gradient networks: the points where the maximum is attained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from icgn.functionals.capability import Capability
from icgn.functionals.functional import BlackBoxFunctional
from icgn.functionals.sums import SumFunctional
from icgn.regularizers.frozen import PerImage
from icgn.solvers.methods.newton import NewtonCG
from icgn.transport.vectors import GradientNetwork


@torch.no_grad()
def conjugate_points(network: GradientNetwork, y: Tensor, x: Tensor, steps: int, max_inner: int = 8) -> Tensor:
    r"""Newton steps from x towards the maximum of :math:`f^*(y) = \max_x \langle x, y\rangle - f(x)`.

    The maximum is at :math:`N(x) = y`. A fixed amount of work; see :meth:`GradientNetwork.inverse` for a certified
    solution.

    Parameters
    ----------
    network : GradientNetwork
        the gradient N of f.
    y, x : Tensor
        where the conjugate is wanted, and where to start, (B, d).
    steps : int
        of :class:`~icgn.solvers.methods.newton.NewtonCG`, with exact line search: <x, y> - f(x) never falls.
    max_inner : int
        conjugate-gradient steps in each.
    """
    objective = SumFunctional([network.functional(), _Tilt(y)], [torch.ones((), dtype=torch.float64)] * 2).to(x.dtype)
    newton = NewtonCG(max_inner=min(max_inner, network.dim))
    state = newton.init(objective, x, None)
    for _ in range(steps):
        state = newton.step(objective, state, None)
    return state.x


@torch.no_grad()
def approach_points(network: GradientNetwork, y: Tensor, x: Tensor, steps: int, max_inner: int) -> Tensor:
    r"""The same with a third of the work, for losses: one secant step takes the place of the exact line search.

    A step that goes beyond the maximum of :math:`\langle x, y\rangle - f(x)` on its line ends where the secant of the
    slopes vanishes; that the value grows is then likely, and not proved.

    Parameters
    ----------
    network, y, x, steps, max_inner :
        see :func:`conjugate_points`.
    """
    for _ in range(steps):
        grad, product = network.linearized(x)
        r = y - grad
        d = _conjugate_gradients(product, r, min(max_inner, network.dim))
        before, after = torch.linalg.vecdot(r, d), torch.linalg.vecdot(y - network.grad(x + d), d)
        t = torch.where(after < 0, before / (before - after), 1.0)
        x = x + t[:, None] * d
    return x


def _conjugate_gradients(product: Callable[[Tensor], Tensor], r: Tensor, steps: int) -> Tensor:
    """Steps for A v = r with positive semi-definite A, each of the rows with its own coefficients."""
    v, p, rr = torch.zeros_like(r), r, torch.linalg.vecdot(r, r)
    for step in range(steps):
        ap = product(p)
        bend = torch.linalg.vecdot(p, ap)
        alpha = torch.where(bend > 0, rr / bend, 0.0)[:, None]
        v = v + alpha * p
        if step + 1 < steps:
            r = r - alpha * ap
            following = torch.linalg.vecdot(r, r)
            p = r + torch.where(rr > 0, following / rr, 0.0)[:, None] * p
            rr = following
    return v


@dataclass(frozen=True, eq=False)
class _Tilt(PerImage, BlackBoxFunctional):
    r""":math:`-\langle x, y\rangle`, with one y (B, d) for each x."""

    y: Tensor

    @property
    def capabilities(self) -> frozenset[Capability]:
        return super().capabilities | {Capability.RESPONSES}

    def fn(self, x: Tensor) -> Tensor:
        return -torch.linalg.vecdot(x, self.y)

    def grad(self, x: Tensor) -> Tensor:
        return -self.y

    def hvp(self, x: Tensor, v: Tensor) -> Tensor:
        return torch.zeros_like(v)

    def lipschitz(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64)

    def strong_convexity(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64)
