"""Maps fitted by maximum correlation, the dual of optimal transport, with cycle consistency."""

from __future__ import annotations

import copy
import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn

from icgn.compat import keyword_only
from icgn.transport.conjugate import approach_points
from icgn.transport.losses import Objective, TransportLoss
from icgn.transport.vectors import GradientNetwork

# Steps of conjugate gradients in each Newton step.
_INNER = 4


@keyword_only
@dataclass(frozen=True, eq=False)
class Correlation(TransportLoss):
    r"""Maximum-correlation dual of the quadratic cost, with cycle consistency.

    .. math::

        \min_f \max_g\; \mathbb E_\mu f(x) + \mathbb E_\nu [\langle y, \nabla g(y)\rangle - f(\nabla g(y))]
        - \tfrac{\lambda}{2}\, \mathbb E_\nu |\nabla f(\nabla g(y)) - y|^2

    over convex f and g (Makkuva et al. 2020, arXiv:1908.10347). The inner maximum is :math:`\mathbb E_\nu f^*(y)`,
    reached where the cycle :math:`\nabla f(\nabla g(y)) = y` closes, which the last term enforces directly (Korotin et
    al. 2021, arXiv:1909.13082). Both networks step together, g on the inner problem with f held. What g lacks for f,
    a few Newton steps from :math:`\nabla g(y)` supply, as in Amos (2023, arXiv:2210.12153): without them the two
    networks chase each other. Then the gradient in f is that of the convex :math:`\mathbb E_\mu f + \mathbb E_\nu
    f^*`, and has mean zero at the optimal map for any batch.

    Parameters
    ----------
    cycle : float
        :math:`\lambda \ge 0`.
    newton : int
        Newton steps on the inner problem in each step of the training.
    conjugate : GradientNetwork, optional
        the network :math:`\nabla g`, target to source, trained in place; by default one made like that of f.

    Raises
    ------
    ValueError
        if a number is out of range, or the dimension of `conjugate` is another.
    """

    _: KW_ONLY
    cycle: float = 1.0
    newton: int = 2
    conjugate: GradientNetwork | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.cycle < math.inf:
            raise ValueError(f"cycle: got {self.cycle}, expected a finite number >= 0")
        if self.newton < 0:
            raise ValueError(f"newton: got {self.newton}, expected at least 0")

    def bind(self, network: GradientNetwork) -> Objective:
        return _Dual(self.cycle, network, self.conjugate or copy.deepcopy(network), self.newton)


class _Dual(Objective):
    conjugate: GradientNetwork

    def __init__(self, cycle: float, network: GradientNetwork, conjugate: GradientNetwork, newton: int) -> None:
        if conjugate.dim != network.dim:
            raise ValueError(f"conjugate: got dimension {conjugate.dim}, expected that of the network, {network.dim}")
        self.cycle, self.newton, self.network, self.conjugate = cycle, newton, network, conjugate

    def values(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        network = self.network
        back = self.conjugate(y)
        best = approach_points(network, y, back.detach(), self.newton, _INNER)
        dual = network.fn(x).mean() - network.fn(best).mean()
        # The same f, held while g is moved.
        held = {f"network.{name}": p.detach() for name, p in network.named_parameters()}
        potential, cycled = torch.func.functional_call(_Potential(network), held, (back,))
        inner = (potential - torch.linalg.vecdot(y, back)).mean()
        gap = (cycled - y).square().sum(1).mean()
        value = dual + torch.linalg.vecdot(y, best).mean()
        return dual + inner + self.cycle / 2 * gap, value.detach()


class _Potential(nn.Module):
    """f and its gradient together, for a functional call."""

    def __init__(self, network: GradientNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.fn(x), self.network.grad(x)
