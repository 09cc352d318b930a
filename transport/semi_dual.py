"""Maps fitted by the semi-dual of optimal transport, with a network that learns where conjugates are attained."""

from __future__ import annotations

import copy
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.transport.conjugate import approach_points
from icgn.transport.losses import Objective, TransportLoss
from icgn.transport.vectors import GradientNetwork


@keyword_only
@dataclass(frozen=True, eq=False)
class SemiDual(TransportLoss):
    r"""Semi-dual of the quadratic cost, with an amortized conjugate (Amos 2023, arXiv:2210.12153).

    .. math::

        \min_f\; \mathbb E_\mu f(x) + \mathbb E_\nu f^*(y), \qquad
        f^*(y) = \langle y, x_y\rangle - f(x_y), \quad \nabla f(x_y) = y,

    over convex f. A second network guesses :math:`x_y`, inexact Newton steps go on from there, and the network learns
    from where they end: :math:`\min_g \mathbb E_\nu |\nabla g(y) - x_y|^2`. So it becomes the map
    from target to source. Nothing flows back through the Newton steps: the gradient in the parameters of f is
    :math:`\mathbb E_\mu \partial f(x) - \mathbb E_\nu \partial f(x_y)`, and has mean zero at the optimal map. A step
    costs two thirds of one of :class:`~icgn.transport.correlation.Correlation`, in which the two networks play against
    each other.

    Parameters
    ----------
    newton : int
        Newton steps in each step of the training.
    inner : int
        conjugate-gradient steps in each of them.
    conjugate : GradientNetwork, optional
        the network :math:`\nabla g`, target to source, trained in place; by default one made like that of f.

    Raises
    ------
    ValueError
        if a number is below 1, or the dimension of `conjugate` is another.
    """

    _: KW_ONLY
    newton: int = 1
    inner: int = 4
    conjugate: GradientNetwork | None = None

    def __post_init__(self) -> None:
        if self.newton < 1 or self.inner < 1:
            raise ValueError(f"newton, inner: got {self.newton}, {self.inner}, expected at least 1")

    def bind(self, network: GradientNetwork) -> Objective:
        conjugate = self.conjugate or copy.deepcopy(network)
        if conjugate.dim != network.dim:
            raise ValueError(f"conjugate: got dimension {conjugate.dim}, expected that of the network, {network.dim}")
        return _Amortized(network, conjugate, self.newton, self.inner)


class _Amortized(Objective):
    conjugate: GradientNetwork

    def __init__(self, network: GradientNetwork, conjugate: GradientNetwork, newton: int, inner: int) -> None:
        self.network, self.conjugate, self.newton, self.inner = network, conjugate, newton, inner

    def values(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        guess = self.conjugate(y)
        best = approach_points(self.network, y, guess.detach(), self.newton, self.inner)
        own, moved = self.network.fn(torch.cat([x, best])).split([len(x), len(best)])
        dual = own.mean() - moved.mean()
        distance = (guess - best).square().sum(1).mean()
        value = dual + torch.linalg.vecdot(y, best).mean()
        return dual + distance, value.detach()
