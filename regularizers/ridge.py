"""The one-hidden-layer input convex gradient network in closed form: a convex ridge regularizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from icgn.regularizers.activations import Activation, make_activation
from icgn.regularizers.base import ConvexRegularizer, check_sigma
from icgn.regularizers.filters import Border, FilterBank, FilterOperator, squared_norm_bound
from icgn.solvers.functional import ConvexFunctional, Responses, per_image

# Elements handled at once by the pointwise passes on a CPU: a few such blocks fit the second-level cache.
_BLOCK = 1 << 17

_Pointwise = Callable[[Tensor, Tensor, Tensor], Tensor]


class RidgeICGN(ConvexRegularizer):
    r"""Convolutional ridge regularizer: the ICGN of one hidden layer, integrated in closed form.

    .. math::

        R(x; \sigma) = \sum_{k, j, p} \lambda_{kj} \tau_{kj} \, \Phi\big((w_k \star x)_p / \tau_{kj}\big), \qquad
        \nabla R(x; \sigma) = W^T \sum_j \lambda_j \, \psi(W x / \tau_j),

    with filters :math:`w_k` of zero mean and unit norm, positions p, and J hidden units per filter with saturation
    :math:`\lambda_{kj}(\sigma)` and knee :math:`\tau_{kj}(\sigma)`, positive and piecewise log-linear in sigma. It is
    :math:`\int_0^1 J_M(sx)^T J_M(sx)\, x\, ds` for the hidden layer :math:`M(x) = a \odot s(W x / \tau)` with
    :math:`a^2 = \lambda \tau` and :math:`(s')^2 = \psi'` (arXiv:2111.12187); see :meth:`hidden_layer`.

    Parameters
    ----------
    filters, size, channels, border :
        of the :class:`~icgn.regularizers.filters.FilterBank`.
    units : int
        hidden units J per filter: the number of kinks of the learned activation on each side.
    activation : {"hardtanh", "tanh", "sigmoid", "softplus"}
        the hidden activation s.
    sigma_range : tuple of float
        noise levels, in intensities, between which :math:`\lambda` and :math:`\tau` have knots; outside they follow
        the last slope, so that sigma 0 is the zero regularizer.
    knots : int
        knots in log sigma.

    Raises
    ------
    ValueError
        if a parameter is out of range.
    """

    def __init__(
        self,
        filters: int = 32,
        size: int = 9,
        channels: int = 1,
        units: int = 1,
        activation: str = "hardtanh",
        border: Border = "reflect",
        sigma_range: tuple[float, float] = (1 / 255, 50 / 255),
        knots: int = 9,
    ) -> None:
        super().__init__()
        if units < 1 or knots < 2:
            raise ValueError(f"units, knots: got {units}, {knots}, expected at least 1 and 2")
        if not 0 < sigma_range[0] < sigma_range[1]:
            raise ValueError(f"sigma_range: got {sigma_range}, expected two increasing positive numbers")
        self.architecture = {
            "filters": filters, "size": size, "channels": channels, "units": units, "activation": activation,
            "border": border, "sigma_range": list(sigma_range), "knots": knots,
        }  # fmt: skip
        self.bank = FilterBank(filters, size, channels, border)
        self.sigma_range = (float(sigma_range[0]), float(sigma_range[1]))
        log_sigma = torch.linspace(math.log(sigma_range[0]), math.log(sigma_range[1]), knots)
        spread = torch.linspace(-0.7, 0.7, units) if units > 1 else torch.zeros(1)
        shape = (units, filters, knots)
        # Scale of a Laplacian prior, lambda ~ sigma^1.5, shared by the overlapping windows of a filter.
        scale = math.log(0.6 / (size * size * units))
        self.log_lambda = nn.Parameter((1.5 * log_sigma + scale).expand(shape).clone())
        self.log_tau = nn.Parameter((log_sigma - 3.0 + spread[:, None, None]).expand(shape).clone())
        self._activation = make_activation(activation)

    @property
    def channels(self) -> int:
        """Image channels."""
        return int(self.bank.raw.shape[1])

    @property
    def min_size(self) -> int:
        """Smallest height and width of an image: the filter size."""
        return int(self.bank.raw.shape[-1])

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> RidgeFunctional:
        """The frozen functional :math:`R(.; \\sigma)`; see :meth:`ConvexRegularizer.at`."""
        self._refuse_condition(condition)
        s = check_sigma(sigma, self.bank.raw)
        lam, tau = self._curve(self.log_lambda, s), self._curve(self.log_tau, s)
        # sigma = 0 gives lambda = exp(-inf) = 0; the knee must stay positive.
        tau = tau.clamp_min(torch.finfo(tau.dtype).tiny ** 0.5)
        return RidgeFunctional(self.bank.operator(), self._activation, lam, tau)

    def hidden_layer(self, sigma: float) -> nn.Module:
        """The network M whose input convex gradient network is the gradient of this regularizer at sigma."""
        return _HiddenLayer(self, sigma)

    def _curve(self, values: Tensor, sigma: Tensor) -> Tensor:
        """Interpolate values (J, K, knots) linearly in log sigma and exponentiate: shape (B, J, K)."""
        knots = values.shape[-1]
        low, high = (math.log(s) for s in self.sigma_range)
        position = (torch.log(sigma) - low) / (high - low) * (knots - 1)
        left = position.nan_to_num(neginf=0.0).floor().clamp(0, knots - 2).long()
        slope = values[..., left + 1] - values[..., left]
        offset = position - left
        # 0 * -inf is nan: where the curve is flat, its value is that of the knot.
        curve = values[..., left] + torch.where(slope == 0, torch.zeros_like(slope), slope * offset)
        return torch.exp(curve).movedim(-1, 0)


@dataclass(frozen=True, eq=False)
class RidgeFunctional(ConvexFunctional):
    """The regularizer of :class:`RidgeICGN` at fixed noise levels, one per image or one for all.

    Responses are the planes (B, K, P) of :class:`~icgn.regularizers.filters.FilterOperator`; `lam` and `tau` have
    shape (B, J, K) or (1, J, K).
    """

    operator: FilterOperator
    activation: Activation
    lam: Tensor
    tau: Tensor

    def linear(self, x: Tensor) -> Tensor:
        return self.operator.apply(x)

    def linear_adjoint(self, z: Responses, shape: torch.Size) -> Tensor:
        assert isinstance(z, Tensor)
        return self.operator.adjoint(z, shape)

    def potential(self, u: Responses) -> Tensor:
        return self._sum(u, lambda v, lam, tau: lam * tau * self.activation.potential(v / tau))

    def potential_grad(self, u: Responses) -> Tensor:
        return self._map(u, lambda v, lam, tau: lam * self.activation.psi(v / tau))

    def potential_hvp(self, u: Responses, q: Responses) -> Tensor:
        assert isinstance(q, Tensor)
        return self._map(u, lambda v, lam, tau: (lam / tau) * self.activation.psi_prime(v / tau)) * q

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        total = torch.zeros_like(t)
        for (ub, qb), unit in self._blocks(u, q):
            v = torch.addcmul(ub, qb, per_image(t, ub))
            for lam, tau in unit:
                total = total + ((self.activation.psi(v / tau) * qb).sum(-1) * lam[..., 0]).sum(-1)
        return total

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        assert isinstance(u, Tensor)
        total = u.new_zeros(u.shape[0])
        for (ub, qb), unit in self._blocks(u, q):
            for lam, tau in unit:
                value = (self.activation.psi_prime(ub / tau) * qb.square()).sum(-1)
                total = total + (value * (lam / tau)[..., 0]).sum(-1)
        return total

    @cached_property
    def _lipschitz(self) -> Tensor:
        steepest = (self.lam.detach().double() / self.tau.detach().double()).sum(1).cpu() * self.activation.steepest
        # |W^T D W| <= |D^(1/2) W|^2: the steeper a filter's activation, the more it counts.
        bounds = [
            squared_norm_bound(self.operator.weight.detach().double().cpu() * k.sqrt()[:, None, None, None],
                               self.operator.border)
            for k in steepest
        ]  # fmt: skip
        return torch.stack(bounds).to(self.lam.device)

    def lipschitz(self) -> Tensor:
        return self._lipschitz

    def strong_convexity(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64, device=self.lam.device)

    def select(self, index: Tensor) -> RidgeFunctional:
        if self.lam.shape[0] == 1:
            return self
        return replace(self, lam=self.lam[index], tau=self.tau[index])

    def to(self, dtype: torch.dtype) -> RidgeFunctional:
        return replace(self, operator=self.operator.to(dtype), lam=self.lam.to(dtype), tau=self.tau.to(dtype))

    def _blocks(self, *planes: Responses) -> Iterator[tuple[tuple[Tensor, ...], list[tuple[Tensor, Tensor]]]]:
        """Cut planes into groups of filters, each with its (lam, tau) of shape (B, k, 1) per hidden unit."""
        for k in _filter_blocks(planes[0]):
            units = [(self.lam[:, j, k, None], self.tau[:, j, k, None]) for j in range(self.lam.shape[1])]
            yield tuple(p[:, k] for p in planes if isinstance(p, Tensor)), units

    def _map(self, u: Responses, f: _Pointwise) -> Tensor:
        """Sum over the hidden units of f(u, lam, tau), shaped as u."""
        assert isinstance(u, Tensor)
        if torch.is_grad_enabled():
            units = [(self.lam[:, j, :, None], self.tau[:, j, :, None]) for j in range(self.lam.shape[1])]
            return sum((f(u, *unit) for unit in units), torch.zeros(()).to(u))
        out = torch.empty_like(u)
        for (ub, ob), units in self._blocks(u, out):
            ob.copy_(f(ub, *units[0]))
            for unit in units[1:]:
                ob.add_(f(ub, *unit))
        return out

    def _sum(self, u: Responses, f: _Pointwise) -> Tensor:
        """Sum over units, filters and positions of f(u, lam, tau), shape (B,)."""
        parts = [sum(f(ub, *unit).sum((1, 2)) for unit in units) for (ub,), units in self._blocks(u)]
        return torch.stack(parts).sum(0)


class _HiddenLayer(nn.Module):
    """M(x) = a s(W x / tau), a^2 = lambda tau; its width is the number of responses times the hidden units."""

    def __init__(self, ridge: RidgeICGN, sigma: float) -> None:
        super().__init__()
        self.ridge, self.sigma = ridge, sigma

    def forward(self, x: Tensor) -> Tensor:
        g = self.ridge.at(self.sigma)
        u = g.to(x.dtype).linear(x)[:, None]
        lam, tau = g.lam.to(x.dtype)[..., None], g.tau.to(x.dtype)[..., None]
        return torch.sqrt(lam * tau) * g.activation.hidden(u / tau)


def _filter_blocks(planes: Responses) -> list[slice]:
    assert isinstance(planes, Tensor)
    batch, filters, positions = planes.shape
    if planes.device.type != "cpu":
        return [slice(None)]
    step = max(1, _BLOCK // max(1, batch * positions))
    return [slice(k, k + step) for k in range(0, filters, step)]
