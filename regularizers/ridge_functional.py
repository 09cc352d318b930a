"""The frozen functional of a ridge network: filters, a pointwise activation, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from icgn.functionals.capability import Capability
from icgn.functionals.functional import ConvexFunctional, Responses, colour_basis, per_image
from icgn.regularizers.activations import Activation, HardTanh
from icgn.regularizers.blocks import BlockRidgeFunctional
from icgn.regularizers.filters import FilterOperator, squared_norm_bound

# Elements handled at once by the pointwise passes on a CPU: a few such blocks fit the second-level cache.
_BLOCK = 1 << 17
# Responses of all images together, in bytes, above which they are not kept, and those of a block then. A solver keeps
# two sets of responses.
RESPONSES_LIMIT, _BLOCK_BYTES = 1 << 29, 1 << 25


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
    :class:`~icgn.regularizers.filters.FilterOperator`. A `mask` m > 0, planes too, multiplies every knee at its place:
    :math:`\kappa_j m`. Slopes, and with them the Lipschitz constant, do not depend on it. It stays in its precision.
    """

    operator: FilterOperator
    activation: Activation
    knee: Tensor
    ratio: Tensor
    scale: Tensor | None
    mask: Tensor | None = None

    @property
    def capabilities(self) -> frozenset[Capability]:
        return super().capabilities | {Capability.POTENTIAL_PROX}

    def linear(self, x: Tensor) -> Tensor:
        return self._scaled(self.operator.apply(x))

    def linear_adjoint(self, z: Responses, shape: torch.Size) -> Tensor:
        assert isinstance(z, Tensor)
        return self.operator.adjoint(self._scaled(z), shape)

    def potential(self, u: Responses) -> Tensor:
        def energy(v: Tensor, knee: Tensor) -> Tensor:
            return knee.square() * self.activation.potential(v / knee)

        total = torch.zeros((), device=self.knee.device, dtype=self.knee.dtype)
        for rows, ub in _blocks(u):
            total = total + self._units(ub, energy, rows).sum((1, 2))
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
        return self.operator.adjoint_of(
            lambda rows, v: self._scaled(self._units(v, self.activation.clip, rows)), (u,), shape
        )

    def hvp_from(self, u: Responses, q: Responses, shape: torch.Size) -> Tensor:
        assert isinstance(u, Tensor) and isinstance(q, Tensor)
        if torch.is_grad_enabled():
            return super().hvp_from(u, q, shape)
        return self.operator.adjoint_of(
            lambda rows, v, w: self._scaled(self._units(v, self._curvature, rows) * w), (u, q), shape
        )

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        total = torch.zeros_like(t)
        for rows, ub, qb in _blocks(u, q):
            v = torch.addcmul(ub, qb, per_image(t, ub))
            total = total + self._units(v, self.activation.clip, rows).mul_(qb).sum((1, 2))
        return total

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        total = torch.zeros((), device=self.knee.device, dtype=self.knee.dtype)
        for rows, ub, qb in _blocks(u, q):
            total = total + self._units(ub, self._curvature, rows).mul_(qb).mul_(qb).sum((1, 2))
        return total

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        r"""Spectrum of :math:`\sum_k \bar D_k |\hat w_k|^2`, with the mean slope of each filter's activation at u."""
        assert isinstance(u, Tensor)
        return self.spectrum_of(self.slopes(u, shape), shape)

    def slopes(self, u: Tensor, shape: torch.Size) -> Tensor:
        """Sums over all positions of the slopes of each filter's activation, (B, K), for images of a shape."""
        phases = self.operator.stride**2
        total = torch.stack([self._units(ub, self._curvature, at).sum(1) for at, ub in _blocks(u)]).sum(0)
        # Planes hold zeros at positions outside the picture, which do not count.
        rows, cols = self.operator.grid(shape)
        outside = u.shape[1] * phases - rows * cols
        at_zero = self._units(torch.zeros_like(u[:, :1]), self._curvature, slice(0, 1))[:, 0]
        return total.unflatten(-1, (-1, phases)).sum(-1) - outside * at_zero[:, ::phases]

    def spectrum_of(self, slopes: Tensor, shape: torch.Size) -> Tensor | None:
        """The spectrum of :meth:`hessian_spectrum` from the sums of :meth:`slopes`, for images of a shape."""
        spectrum = self.transform_of(slopes, self._autocorrelation, shape)
        return None if spectrum is None else spectrum.real.clamp_min(0)

    def transform_of(self, slopes: Tensor, correlations: Tensor, shape: torch.Size) -> Tensor | None:
        """The transform of correlations (K, ..., side, side) of the filters, weighted by their mean slopes, (B, ...).

        None for images too small for them; `slopes` are the sums of :meth:`slopes`, for images of a shape.
        """
        side = correlations.shape[-1]
        if min(shape[-2:]) < side:
            return None
        rows, cols = self.operator.grid(shape)
        slope = slopes / (rows * cols)
        if self.scale is not None:
            slope = slope * self.scale.square()
        kernel = torch.einsum("bk,k...->b...", slope, correlations)
        kernel = F.pad(kernel, (0, shape[-1] - side, 0, shape[-2] - side)).roll((-(side // 2), -(side // 2)), (-2, -1))
        return torch.fft.rfft2(kernel)

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

    def potential_lipschitz(self) -> Tensor:
        return self.ratio.detach().double().sum(1).amax(-1) * self.activation.steepest

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

    def blockwise(self, shape: torch.Size, limit: int | None = None) -> ConvexFunctional:
        rows, cols = self.operator.grid(shape)
        per_row = shape[0] * cols * self.knee.shape[-1] * self.knee.element_size()
        if rows * per_row <= (RESPONSES_LIMIT if limit is None else limit):
            return self
        # A multiple of the stride: every block then has whole polyphase cells, as the picture has.
        step = self.operator.stride
        return BlockRidgeFunctional(self, max(step, _BLOCK_BYTES // per_row // step * step))

    def select(self, index: Tensor) -> RidgeFunctional:
        # One mask may serve all images.
        mask = self.mask if self.mask is None or len(self.mask) == 1 else self.mask[index]
        if self.scale is None:
            return replace(self, mask=mask)
        return replace(self, knee=self.knee[index], ratio=self.ratio[index], scale=self.scale[index], mask=mask)

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
        spread, units = self.operator.spread, range(self.knee.shape[1])
        knees = [spread(self.knee[:, j]) for j in units]
        knees = knees if self.mask is None else [knee * self.mask.to(knee) for knee in knees]
        return [(knees[j], spread(self.ratio[:, j]) if j else None) for j in units]

    def _units(self, v: Tensor, f: Callable[[Tensor, Tensor], Tensor], rows: slice = slice(None)) -> Tensor:
        """Sum over the hidden units of slope * f(v, knee), for the rows v of the planes."""
        total: Tensor | None = None
        for whole, ratio in self._knees:
            knee = whole if self.mask is None else whole[:, rows]
            value = f(v, knee) if ratio is None else ratio * f(v, knee)
            total = value if total is None else total + value
        assert total is not None
        return total

    def _map(self, u: Responses, f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        assert isinstance(u, Tensor)
        if torch.is_grad_enabled():
            return self._units(u, f)
        out = torch.empty_like(u)
        for rows, ub, ob in _blocks(u, out):
            ob.copy_(self._units(ub, f, rows))
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


def _blocks(*planes: Responses) -> Iterator[tuple[Any, ...]]:
    """Cut planes of equal shape into rows that fit the cache of a CPU, one piece elsewhere: (slice, planes...)."""
    first = planes[0]
    assert isinstance(first, Tensor)
    tensors = [p for p in planes if isinstance(p, Tensor)]
    batch, positions, filters = first.shape
    step = positions if first.device.type != "cpu" else max(1, _BLOCK // (batch * filters))
    for start in range(0, positions, step):
        rows = slice(start, start + step)
        yield rows, *(p[:, rows] for p in tensors)
