"""The input convex network with quadratic skip connections, the one of the Wasserstein-2 benchmark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icgn.compat import keyword_only
from icgn.regularizers.activations import Activation
from icgn.regularizers.head import Head, SquaredNorm
from icgn.regularizers.sweep import ConvexActivation, DeepHead, MatrixMap
from icgn.transport.dense import DenseDeepICGN
from icgn.transport.vectors import MatrixFunctional

# The factor of the squares: squares of responses of deviation one are then a correction at the start.
_SHARE = 0.1


class DenseQuadraticICGN(DenseDeepICGN):
    r"""The input convex network with quadratic skips (Korotin et al. 2021, arXiv:1909.13082), by an explicit sweep.

    .. math::

        p_1 = s_1(x), \quad p_l = U_l\, \varphi(p_{l-1}) + s_l(x), \qquad
        s_l(x) = W_l x + b_l + \tfrac{1}{10} (V_l x + e_l)^2, \qquad h = \langle c, \varphi(p_L)\rangle,

    with :math:`U_l, c > 0` and :math:`\varphi = \operatorname{celu}`, convex and increasing. The maps of the
    Wasserstein-2 benchmark are sums of two such gradients (arXiv:2106.01954), and its solvers use this network: it is
    the baseline of those whose gradient is modelled directly. Its slopes grow without a bound, so that there is no
    Lipschitz constant: :meth:`lipschitz` is infinite.

    Parameters
    ----------
    dim, strong_convexity, quadratic :
        see :class:`GradientNetwork`.
    widths : sequence of int
        units of each layer.

    Raises
    ------
    ValueError
        if a number is out of range.
    """

    @keyword_only
    def __init__(
        self,
        dim: int,
        *,
        widths: Sequence[int] = (64, 64, 32),
        strong_convexity: float = 0.0,
        quadratic: int = 0,
    ) -> None:
        super().__init__(dim, widths=widths, activation=_Celu(), strong_convexity=strong_convexity, quadratic=quadratic)
        self._phi = _Increasing(_Celu(), len(self.widths))
        # The rows of all W_l and b_l, and then those of all V_l and e_l.
        units = sum(self.widths)
        self.W = nn.Parameter(torch.randn(2 * units, dim) / math.sqrt(dim))
        self.bias = nn.Parameter(torch.cat([torch.randn(units), torch.zeros(units)]))

    def curved(self) -> MatrixFunctional:
        maps = tuple(MatrixMap(F.softplus(raw)) for raw in self.raw_U)
        zeros = tuple(self.bias.new_zeros(1, units) for units in self.widths)
        deep = DeepHead(self._phi, maps, zeros, F.softplus(self.raw_c)[None])
        return MatrixFunctional(_SquaresHead(deep, self.bias[None]), self.W)


class _Celu(Activation):
    r""":math:`\psi = \min(e^t, 1) - 1`; the primitive of :math:`\psi + 1` is celu."""

    name, steepest = "celu", 1.0

    def hidden(self, t: Tensor) -> Tensor:
        return 2 * torch.expm1(t.clamp_max(0) / 2)

    def psi(self, t: Tensor) -> Tensor:
        return torch.expm1(t.clamp_max(0))

    def psi_prime(self, t: Tensor) -> Tensor:
        return torch.exp(t.clamp_max(0)) * (t < 0)

    def potential(self, t: Tensor) -> Tensor:
        return F.celu(t) - t


class _Increasing(ConvexActivation):
    """As the base, with slopes that are not negative in the first layer either: its arguments are convex already."""

    def value(self, layer: int, t: Tensor) -> Tensor:
        return super().value(layer + 1, t)

    def slope(self, layer: int, t: Tensor) -> Tensor:
        return super().slope(layer + 1, t)

    def largest_slope(self, layer: int) -> float:
        return super().largest_slope(layer + 1)


@dataclass(frozen=True, eq=False)
class _SquaresHead(Head):
    r"""The function :math:`H(u + b + \tfrac{1}{10} (v + e)^2)` of responses (u, v), less its tangent at 0.

    H is the increasing, convex function of a deep head; `bias` is (b, e), (1, 2 K).
    """

    deep: DeepHead
    bias: Tensor

    def value(self, u: Tensor) -> Tensor:
        rest = torch.zeros_like(u[:1])
        return self._outputs(u) - self._outputs(rest) - u @ self._grad(rest)[0]

    def grad(self, u: Tensor) -> Tensor:
        return self._grad(u) - self._grad(torch.zeros_like(u[:1]))

    def hvp(self, u: Tensor, q: Tensor) -> Tensor:
        return self.linearized(u)[1](q)

    def linearized(self, u: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        _, v = (u + self.bias).chunk(2, 1)
        d, bent = self.deep.raw_linearized(self._skips(u))

        def product(q: Tensor) -> Tensor:
            along, squared = q.chunk(2, 1)
            b = bent(along + 2 * _SHARE * v * squared)
            return torch.cat([b, 2 * _SHARE * (v * b + d * squared)], 1)

        return torch.cat([d, 2 * _SHARE * v * d], 1) - self._grad(torch.zeros_like(u[:1])), product

    def diagonal(self, u: Tensor) -> Tensor:
        _, v = (u + self.bias).chunk(2, 1)
        s = self._skips(u)
        bends = self.deep.diagonal(s)
        return torch.cat([bends, 2 * _SHARE * (2 * _SHARE * v.square() * bends + self.deep.raw_grad(s))], 1)

    def lipschitz(self, weight: Tensor, squared_norm: SquaredNorm) -> Tensor:
        """Infinite: the squares have slopes of any size where the slopes of celu still change."""
        return weight.new_full((), torch.inf)

    def _skips(self, u: Tensor) -> Tensor:
        linear, v = (u + self.bias).chunk(2, 1)
        return linear + _SHARE * v.square()

    def _outputs(self, u: Tensor) -> Tensor:
        return self.deep.outputs(self._skips(u)).sum(1)

    def _grad(self, u: Tensor) -> Tensor:
        _, v = (u + self.bias).chunk(2, 1)
        d = self.deep.raw_grad(self._skips(u))
        return torch.cat([d, 2 * _SHARE * v * d], 1)
