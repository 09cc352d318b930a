"""The one-hidden-layer input convex gradient network in closed form: a convex ridge regularizer."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icgn.regularizers.activations import Activation, HardTanh, make_activation
from icgn.regularizers.base import ConvexRegularizer, check_sigma
from icgn.regularizers.blocks import BlockRidgeFunctional
from icgn.regularizers.curves import at_knots, curve, log_knots
from icgn.regularizers.filters import Border, FilterBank, FilterOperator, squared_norm_bound
from icgn.solvers.functional import ConvexFunctional, Responses, colour_basis, per_image

# Elements handled at once by the pointwise passes on a CPU: a few such blocks fit the second-level cache.
_BLOCK = 1 << 17
# Responses of all images together, in bytes, above which they are not kept, and those of a block then. A solver keeps
# two sets of responses.
RESPONSES_LIMIT, _BLOCK_BYTES = 1 << 29, 1 << 25


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
        noise levels, in intensities, between which :math:`\lambda` and :math:`\tau` have knots; above they follow
        the last slope, below :math:`\lambda \propto \sigma^{1.5}`, :math:`\tau \propto \sigma`, so that sigma 0 is the
        zero regularizer.
    knots : int
        knots in log sigma.
    min_knee : float
        smallest :math:`\tau / \sigma`: a trade of quality against iterations (``benchmarks/choices.py``).

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
        min_knee: float = 0.02,
    ) -> None:
        super().__init__()
        if units < 1:
            raise ValueError(f"units: got {units}, expected at least 1")
        if not min_knee >= 0:
            raise ValueError(f"min_knee: got {min_knee}, expected a number >= 0")
        log_sigma = log_knots(sigma_range, knots)
        self.min_knee = float(min_knee)
        self.architecture: dict[str, Any] = {
            "filters": filters, "size": size, "channels": channels, "units": units, "activation": activation,
            "border": border, "sigma_range": list(sigma_range), "knots": knots, "min_knee": min_knee,
        }  # fmt: skip
        self.channels, self.min_size = channels, size
        self.bank = FilterBank(filters, size, channels, border)
        self.sigma_range = (float(sigma_range[0]), float(sigma_range[1]))
        spread = torch.linspace(-0.7, 0.7, units) if units > 1 else torch.zeros(1)
        shape = (units, filters, knots)
        # Scale of a Laplacian prior, lambda ~ sigma^1.5, shared by the overlapping windows of a filter.
        scale = math.log(0.6 / (size * size * units))
        self.log_lambda = nn.Parameter((1.5 * log_sigma + scale).expand(shape).clone())
        self.log_tau = nn.Parameter((log_sigma - 3.0 + spread[:, None, None]).expand(shape).clone())
        self._activation = make_activation(activation)

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> RidgeFunctional:
        r"""The frozen functional :math:`R(.; \sigma)`; see :meth:`ConvexRegularizer.at`."""
        self._refuse_condition(condition)
        s = check_sigma(sigma, self.bank.raw)
        lam, tau = self.curves(s)
        slope = lam / tau
        scale = slope[:, 0].sqrt()
        # sigma = 0 gives lambda = 0, no response at all; knees and relative slopes must stay positive and finite.
        knee = (tau * scale[:, None]).clamp_min(torch.finfo(tau.dtype).tiny)
        ratio = slope / slope[:, :1].clamp_min(torch.finfo(tau.dtype).tiny)
        if len(s) == 1:
            return RidgeFunctional(self.bank.operator(scale=scale[0]), self._activation, knee, ratio, None)
        return RidgeFunctional(self.bank.operator(), self._activation, knee, ratio, scale)

    def curves(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        r"""Saturations :math:`\lambda` and knees :math:`\tau` at noise levels (B,), both (B, J, K)."""
        assert self.sigma_range is not None
        tau = curve(self.log_tau, sigma, self.sigma_range, 1.0) + self.min_knee * sigma[:, None, None]
        return curve(self.log_lambda, sigma, self.sigma_range, 1.5), tau.clamp_min(torch.finfo(tau.dtype).tiny ** 0.5)

    def rescaled(self, sigma: Tensor, weight: Tensor, scale: Tensor) -> RidgeICGN:
        r"""The regularizer :math:`w(\sigma) R(s(\sigma) x; \sigma)`, of the same class; this one stays as it is.

        It is how a weight found on validation pictures becomes part of a model.

        Parameters
        ----------
        sigma : Tensor
            increasing noise levels (L,), in intensities, at which w and s are given; between them both are log-linear
            in log sigma, outside constant.
        weight, scale : Tensor
            :math:`w > 0` and :math:`s > 0`, shape (L,). A scale cannot lower a knee below `min_knee`.
        """
        assert self.sigma_range is not None
        knots = log_knots(self.sigma_range, self.log_tau.shape[-1]).double()
        w, s = (at_knots(sigma, v, self.sigma_range, len(knots)).exp() for v in (weight, scale))
        new = copy.deepcopy(self)
        with torch.no_grad():
            new.log_lambda.add_((w * s).log().to(new.log_lambda))
            floor = self.min_knee * knots.exp().to(w)
            knee = (new.log_tau.double().cpu().exp() + floor) / s - floor
            # Far below the floor a knee is the floor; its logarithm stays finite so that training can go on.
            new.log_tau.copy_(torch.maximum(knee, 1e-3 * knots.exp()).log())
        return new

    def widened(self, **changes: Any) -> RidgeICGN:
        """A network of more or larger filters, more units or another `min_knee` that starts near this one.

        Filters are framed by zeros, so that with a new size alone it is the same function but at the border. New
        filters and units start weak (a 50th and a quarter of the usual saturation), for training to find their use.

        Parameters
        ----------
        changes :
            constructor arguments to change: `filters`, `size`, `units` (none may shrink) and `min_knee`.

        Raises
        ------
        ValueError
            for another argument, or a number smaller than now.
        """
        _check_widening(self.architecture, changes)
        new = type(self)(**{**self.architecture, **changes}).to(self.log_tau)
        units, filters, _ = self.log_tau.shape
        margin = (new.min_size - self.min_size) // 2
        with torch.no_grad():
            extra = new.bank.weight[filters:].clone()
            new.bank.raw[:filters] = F.pad(self.bank.weight, (margin,) * 4)
            new.bank.raw[filters:] = extra
            for mine, wide, weaker in (
                (self.log_lambda, new.log_lambda, math.log(50)),
                (self.log_tau, new.log_tau, 0.0),
            ):
                wide[:units, :filters] = mine
                wide[:units, filters:] = mine.median(1, keepdim=True).values - weaker
            # A further unit saturates lower and later than the first.
            new.log_lambda[units:] = new.log_lambda[:1] - math.log(4)
            new.log_tau[units:] = new.log_tau[:1] + math.log(4)
        return new.train(self.training)

    def hidden_activation(self, t: Tensor) -> Tensor:
        """The hidden activation s."""
        return self._activation.hidden(t)

    def hidden_layer(self, sigma: float) -> nn.Module:
        """The network M whose input convex gradient network is the gradient of this regularizer at sigma."""
        return _HiddenLayer(self, sigma)


@dataclass(frozen=True, eq=False)
class RidgeFunctional(ConvexFunctional):
    r"""The regularizer of :class:`RidgeICGN` at fixed noise levels, one per image or one for all.

    Responses are scaled so that the first unit has slope 1 inside its knee: with
    :math:`s_k = \sqrt{\lambda_{k1}/\tau_{k1}}`, :math:`u = s\, W x`, knees :math:`\kappa_j = s\,\tau_j` and slopes
    :math:`\rho_j` relative to the first unit,

    .. math::

        h(u) = \sum_j \rho_j \kappa_j^2\, \Phi(u / \kappa_j), \qquad
        \nabla h(u) = \sum_j \rho_j \kappa_j\, \psi(u / \kappa_j),

    which for the hard tanh is a bare clip. `knee` and `ratio` have shape (B, J, K) or (1, J, K); `scale` is (B, K), or
    None where the operator's filters contain it. Responses are planes of
    :class:`~icgn.regularizers.filters.FilterOperator`.
    """

    operator: FilterOperator
    activation: Activation
    knee: Tensor
    ratio: Tensor
    scale: Tensor | None

    def linear(self, x: Tensor) -> Tensor:
        return self._scaled(self.operator.apply(x))

    def linear_adjoint(self, z: Responses, shape: torch.Size) -> Tensor:
        assert isinstance(z, Tensor)
        return self.operator.adjoint(self._scaled(z), shape)

    def potential(self, u: Responses) -> Tensor:
        def energy(v: Tensor, knee: Tensor) -> Tensor:
            return knee.square() * self.activation.potential(v / knee)

        total = torch.zeros((), device=self.knee.device, dtype=self.knee.dtype)
        for (ub,) in _blocks(u):
            total = total + self._units(ub, energy).sum((1, 2))
        return total

    def potential_grad(self, u: Responses) -> Tensor:
        return self._map(u, self.activation.clip)

    def potential_hvp(self, u: Responses, q: Responses) -> Tensor:
        assert isinstance(q, Tensor)
        return self._map(u, self._curvature) * q

    def advance(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        assert isinstance(u, Tensor) and isinstance(q, Tensor)
        return u.addcmul_(q, per_image(t, u))

    def grad_from(self, u: Responses, shape: torch.Size) -> Tensor:
        assert isinstance(u, Tensor)
        if torch.is_grad_enabled():
            return super().grad_from(u, shape)
        return self.operator.adjoint_of(lambda v: self._scaled(self._units(v, self.activation.clip)), (u,), shape)

    def hvp_from(self, u: Responses, q: Responses, shape: torch.Size) -> Tensor:
        assert isinstance(u, Tensor) and isinstance(q, Tensor)
        if torch.is_grad_enabled():
            return super().hvp_from(u, q, shape)
        return self.operator.adjoint_of(lambda v, w: self._scaled(self._units(v, self._curvature) * w), (u, q), shape)

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        total = torch.zeros_like(t)
        for ub, qb in _blocks(u, q):
            v = torch.addcmul(ub, qb, per_image(t, ub))
            total = total + self._units(v, self.activation.clip).mul_(qb).sum((1, 2))
        return total

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        total = torch.zeros((), device=self.knee.device, dtype=self.knee.dtype)
        for ub, qb in _blocks(u, q):
            total = total + self._units(ub, self._curvature).mul_(qb).mul_(qb).sum((1, 2))
        return total

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        r"""Spectrum of :math:`\sum_k \bar D_k |\hat w_k|^2`, with the mean slope of each filter's activation at u."""
        assert isinstance(u, Tensor)
        return self.spectrum_of(self.slopes(u, shape), shape)

    def slopes(self, u: Tensor, shape: torch.Size) -> Tensor:
        """Sums over all positions of the slopes of each filter's activation, (B, K), for images of a shape."""
        phases = self.operator.stride**2
        total = torch.stack([self._units(ub, self._curvature).sum(1) for (ub,) in _blocks(u)]).sum(0)
        # Planes hold zeros at positions outside the picture, which do not count.
        rows, cols = self.operator.grid(shape)
        outside = u.shape[1] * phases - rows * cols
        at_zero = self._units(torch.zeros_like(u[:, :1]), self._curvature)[:, 0]
        return total.unflatten(-1, (-1, phases)).sum(-1) - outside * at_zero[:, ::phases]

    def spectrum_of(self, slopes: Tensor, shape: torch.Size) -> Tensor | None:
        """The spectrum of :meth:`hessian_spectrum` from the sums of :meth:`slopes`, for images of a shape."""
        side = self._autocorrelation.shape[-1]
        if min(shape[-2:]) < side:
            return None
        rows, cols = self.operator.grid(shape)
        slope = slopes / (rows * cols)
        if self.scale is not None:
            slope = slope * self.scale.square()
        kernel = torch.einsum("bk,kcij->bcij", slope, self._autocorrelation)
        kernel = F.pad(kernel, (0, shape[-1] - side, 0, shape[-2] - side)).roll((-(side // 2), -(side // 2)), (-2, -1))
        return torch.fft.rfft2(kernel).real.clamp_min(0)

    @cached_property
    def _autocorrelation(self) -> Tensor:
        """Autocorrelation of each filter in each colour of :func:`colour_basis`, (K, C, 2d - 1, 2d - 1)."""
        w = self.operator.weight.detach()
        w = torch.einsum("dc,kcij->kdij", colour_basis(w), w)
        filters, channels, d, _ = w.shape
        image, kernel = w.reshape(1, -1, d, d), w.reshape(-1, 1, d, d)
        full = F.conv2d(image, kernel, padding=d - 1, groups=filters * channels)
        return full.reshape(filters, channels, 2 * d - 1, 2 * d - 1)

    def prox_potential(self, v: Responses, s: Tensor) -> Responses:
        r"""Solve :math:`p + s \nabla h(p) = v` pointwise; a bare clip for one unit of the hard tanh."""
        assert isinstance(v, Tensor)
        t = per_image(s, v)
        if isinstance(self.activation, HardTanh) and self.knee.shape[1] == 1:
            knee, _ = self._knees[0]
            return torch.addcmul(v, t, torch.clamp(v / (1 + t), min=-knee, max=knee), value=-1.0)
        return _solve_monotone(v, t, self)

    def linear_norm(self) -> Tensor:
        return self._squared_norms(torch.ones_like(self.ratio[:, 0])).sqrt()

    @cached_property
    def _lipschitz(self) -> Tensor:
        # |W^T D W| <= |D^(1/2) W|^2, and D <= steepest * sum of the slopes.
        return self._squared_norms(self.ratio.sum(1) * self.activation.steepest)

    def _squared_norms(self, slopes: Tensor) -> Tensor:
        """Bounds of |D^(1/2) S W|^2 with slopes D (B, K) and the scale S, float64, (B,)."""
        factors = slopes.detach().double().sqrt()
        factors = factors if self.scale is None else factors * self.scale.detach().double()
        weight = self.operator.weight.detach().double()
        bounds = [squared_norm_bound(weight * f[:, None, None, None], self.operator.border) for f in factors]
        return torch.stack(bounds).to(self.knee.device)

    def lipschitz(self) -> Tensor:
        return self._lipschitz

    def strong_convexity(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64, device=self.knee.device)

    def blockwise(self, shape: torch.Size) -> ConvexFunctional:
        rows, cols = self.operator.grid(shape)
        per_row = shape[0] * cols * self.knee.shape[-1] * self.knee.element_size()
        if rows * per_row <= RESPONSES_LIMIT:
            return self
        # A multiple of the stride: every block then has whole polyphase cells, as the picture has.
        step = self.operator.stride
        return BlockRidgeFunctional(self, max(step, _BLOCK_BYTES // per_row // step * step))

    def select(self, index: Tensor) -> RidgeFunctional:
        if self.scale is None:
            return self
        return replace(self, knee=self.knee[index], ratio=self.ratio[index], scale=self.scale[index])

    def to(self, dtype: torch.dtype) -> RidgeFunctional:
        return replace(
            self,
            operator=self.operator.to(dtype),
            knee=self.knee.to(dtype),
            ratio=self.ratio.to(dtype),
            scale=None if self.scale is None else self.scale.to(dtype),
        )

    def _scaled(self, planes: Tensor) -> Tensor:
        return planes if self.scale is None else planes * self.operator.spread(self.scale)

    def _curvature(self, v: Tensor, knee: Tensor) -> Tensor:
        return self.activation.psi_prime(v / knee)

    @cached_property
    def _knees(self) -> list[tuple[Tensor, Tensor | None]]:
        """Per unit: its knees, spread over the planes, and its slope where it is not 1."""
        spread = self.operator.spread
        return [(spread(self.knee[:, j]), spread(self.ratio[:, j]) if j else None) for j in range(self.knee.shape[1])]

    def _units(self, v: Tensor, f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Sum over the hidden units of slope * f(v, knee)."""
        total: Tensor | None = None
        for knee, ratio in self._knees:
            value = f(v, knee) if ratio is None else ratio * f(v, knee)
            total = value if total is None else total + value
        assert total is not None
        return total

    def _map(self, u: Responses, f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        assert isinstance(u, Tensor)
        if torch.is_grad_enabled():
            return self._units(u, f)
        out = torch.empty_like(u)
        for ub, ob in _blocks(u, out):
            ob.copy_(self._units(ub, f))
        return out


def _solve_monotone(v: Tensor, t: Tensor, functional: RidgeFunctional) -> Tensor:
    """The p with p + t h'(p) = v, between 0 and v, by Newton steps that a bracket keeps in check."""
    low, high = v.clamp_max(0), v.clamp_min(0)
    p = v / (1 + t)
    one = torch.ones_like(v)
    for _ in range(60):
        excess = p + t * _plane(functional.potential_grad(p)) - v
        if bool((excess.abs() <= 4 * torch.finfo(v.dtype).eps * v.abs()).all()):
            break
        low, high = torch.where(excess < 0, p, low), torch.where(excess > 0, p, high)
        newton = p - excess / (1 + t * _plane(functional.potential_hvp(p, one)))
        p = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
    return p


def _plane(u: Responses) -> Tensor:
    assert isinstance(u, Tensor)
    return u


def _check_widening(architecture: dict[str, Any], changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        if name not in ("filters", "size", "units", "min_knee"):
            raise ValueError(f"{name}: cannot be changed, expected one of filters, size, units, min_knee")
        if name != "min_knee" and value < architecture[name]:
            raise ValueError(f"{name}: got {value}, expected at least the {architecture[name]} of the network to widen")


class _HiddenLayer(nn.Module):
    """M(x) = a s(W x / tau), a^2 = lambda tau; its width is the number of responses times the hidden units."""

    def __init__(self, ridge: RidgeICGN, sigma: float) -> None:
        super().__init__()
        self.ridge, self.sigma = ridge, sigma

    def forward(self, x: Tensor) -> Tensor:
        ridge = self.ridge
        u = ridge.bank(x)[:, None]
        lam, tau = (c.to(x)[..., None, None] for c in ridge.curves(torch.tensor([self.sigma]).to(ridge.bank.raw)))
        return torch.sqrt(lam * tau) * ridge.hidden_activation(u / tau)


def _blocks(*planes: Responses) -> Iterator[tuple[Tensor, ...]]:
    """Cut planes of equal shape into groups of positions that fit the cache of a CPU; one piece elsewhere."""
    first = planes[0]
    assert isinstance(first, Tensor)
    tensors = [p for p in planes if isinstance(p, Tensor)]
    batch, positions, filters = first.shape
    step = positions if first.device.type != "cpu" else max(1, _BLOCK // (batch * filters))
    for start in range(0, positions, step):
        yield tuple(p[:, start : start + step] for p in tensors)
