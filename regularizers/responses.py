"""Networks of the form h(W x): what they share, whatever W is, and whatever couples the responses."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from icgn.functionals.capability import Capability
from icgn.functionals.functional import ConvexFunctional, Responses, dot, tensor
from icgn.regularizers.activations import HardTanh
from icgn.regularizers.base import ConvexRegularizer
from icgn.regularizers.curves import curve, rescale
from icgn.regularizers.filters import FilterBank, FilterOperator, squared_norm_bound
from icgn.regularizers.ridge_functional import RidgeFunctional

SquaredNorm = Callable[[Tensor], Tensor]
"""Rigorous bound of the squared norm of the linear map of some rows (K, ...): a float64 scalar."""

BLOCK = 1 << 17
"""Elements of responses handled at once: a few such blocks fit the second-level cache of a CPU."""


class Head(ABC):
    """A convex function h of responses u = W x, with h(0) = 0 and a zero gradient at 0; one value per image.

    So h is never negative, and a picture without response (a constant one, with filters of zero mean) costs nothing.
    Subclasses are frozen. Their tensors have the batch first, of one entry where they are the same for all images.
    """

    @abstractmethod
    def value(self, u: Tensor) -> Tensor:
        """Values h(u), shape (B,)."""

    @abstractmethod
    def grad(self, u: Tensor) -> Tensor:
        r"""The gradient :math:`\nabla h(u)`, shape of u."""

    @abstractmethod
    def hvp(self, u: Tensor, q: Tensor) -> Tensor:
        r"""The Hessian product :math:`\nabla^2 h(u) q`, shape of u."""

    def curvature(self, u: Tensor, q: Tensor) -> Tensor:
        r"""The second derivative :math:`\langle q, \nabla^2 h(u) q\rangle`, shape (B,)."""
        return dot(q, self.hvp(u, q))

    @abstractmethod
    def diagonal(self, u: Tensor) -> Tensor:
        """Roughly the diagonal of the Hessian, shape of u, for preconditioners."""

    @property
    def proximal(self) -> bool:
        """Whether :meth:`prox` is known."""
        return False

    def prox(self, v: Tensor, t: Tensor) -> Tensor | None:
        r"""The responses :math:`\arg\min_p \tfrac12 |p - v|^2 + t\, h(p)`, t (B,) or (), or None if not known."""
        return None

    def steepest(self) -> float:
        """A rigorous upper bound of the Hessian of h, or inf."""
        return math.inf

    @abstractmethod
    def lipschitz(self, weight: Tensor, squared_norm: SquaredNorm) -> Tensor:
        r"""Rigorous bound of :math:`|W^T \nabla^2 h\, W|` for one image: float64 rows of W, and how to bound a norm."""

    @abstractmethod
    def select(self, index: Tensor) -> Head:
        """The function of the images `index` of the batch."""

    @abstractmethod
    def to(self, dtype: torch.dtype) -> Head:
        """The same function in another precision."""


@dataclass(frozen=True, eq=False)
class HeadFunctional(ConvexFunctional):
    """The functional h(W x) of a :class:`Head`; subclasses say what W is."""

    head: Head

    @abstractmethod
    def rows(self) -> Tensor:
        """The rows of W as float64 tensors (B, K, ...) or (1, K, ...), detached."""

    @abstractmethod
    def squared_norm(self, weight: Tensor) -> Tensor:
        """Rigorous bound of the squared norm of the map with some rows (K, ...), a float64 scalar."""

    def potential(self, u: Responses) -> Tensor:
        return self.head.value(tensor(u))

    def potential_grad(self, u: Responses) -> Tensor:
        return self.head.grad(tensor(u))

    def potential_hvp(self, u: Responses, q: Responses) -> Tensor:
        return self.head.hvp(tensor(u), tensor(q))

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        return dot(tensor(q), self.potential_grad(self.move(u, q, t)))

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        return self.head.curvature(tensor(u), tensor(q))

    @property
    def capabilities(self) -> frozenset[Capability]:
        return super().capabilities | ({Capability.POTENTIAL_PROX} if self.head.proximal else set())

    def prox_potential(self, v: Responses, s: Tensor) -> Responses:
        p = self.head.prox(tensor(v), s)
        return super().prox_potential(v, s) if p is None else p

    def potential_lipschitz(self) -> Tensor:
        return torch.tensor(self.head.steepest(), dtype=torch.float64)

    def linear_norm(self) -> Tensor:
        rows = self.rows()
        return torch.stack([self.squared_norm(w) for w in rows]).sqrt().to(rows.device)

    @cached_property
    def _lipschitz(self) -> Tensor:
        rows = self.rows()
        heads = [self.head.select(torch.tensor([i], device=rows.device)) for i in range(len(rows))]
        bounds = [head.lipschitz(w, self.squared_norm) for head, w in zip(heads, rows, strict=True)]
        return torch.stack(bounds).to(rows.device)

    def lipschitz(self) -> Tensor:
        return self._lipschitz

    def strong_convexity(self) -> Tensor:
        return self.rows().new_zeros(())


@dataclass(frozen=True, eq=False)
class BankFunctional(HeadFunctional):
    """h(W x) of a filter bank; `bank` is a ridge functional, of which the linear part and its spectra are used.

    Responses are planes of :class:`~icgn.regularizers.filters.FilterOperator`; the head must be 0 at positions outside
    the picture, where they are 0.
    """

    bank: RidgeFunctional

    @classmethod
    def build(cls, head: Head, bank: FilterBank, scale: Tensor) -> BankFunctional:
        """Make the functional of filters multiplied by `scale`, (B, K) or (1, K)."""
        ones = torch.ones_like(scale[:, None])
        if len(scale) == 1:
            return cls(head, RidgeFunctional(bank.operator(scale=scale[0]), HardTanh(), ones, ones, None))
        return cls(head, RidgeFunctional(bank.operator(), HardTanh(), ones, ones, scale))

    @property
    def operator(self) -> FilterOperator:
        """The filters."""
        return self.bank.operator

    def linear(self, x: Tensor) -> Responses:
        return self.bank.linear(x)

    def linear_adjoint(self, z: Responses, shape: torch.Size) -> Tensor:
        return self.bank.linear_adjoint(z, shape)

    def rows(self) -> Tensor:
        weight, scale = self.operator.weight.detach().double(), self.bank.scale
        return weight[None] if scale is None else weight * scale.detach().double()[..., None, None, None]

    def squared_norm(self, weight: Tensor) -> Tensor:
        return squared_norm_bound(weight, self.operator.border)

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        total = torch.zeros_like(t)
        for ub, qb in self._blocks(tensor(u), tensor(q)):
            total = total + super().slope(ub, qb, t)
        return total

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        parts = [self.head.curvature(ub, qb) for ub, qb in self._blocks(tensor(u), tensor(q))]
        return torch.stack(parts).sum(0)

    def grad_from(self, u: Responses, shape: torch.Size) -> Tensor:
        if torch.is_grad_enabled() or self.bank.scale is not None:
            return super().grad_from(u, shape)
        return self.operator.adjoint_of(lambda rows, v: self.head.grad(v), (tensor(u),), shape)

    def hvp_from(self, u: Responses, q: Responses, shape: torch.Size) -> Tensor:
        if torch.is_grad_enabled() or self.bank.scale is not None:
            return super().hvp_from(u, q, shape)
        return self.operator.adjoint_of(lambda rows, v, w: self.head.hvp(v, w), (tensor(u), tensor(q)), shape)

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        """The spectrum of the filters weighted by the mean of the head's diagonal, as that of a ridge network is."""
        v, phases = tensor(u), self.operator.stride**2
        rows, cols = self.operator.grid(shape)
        outside = v.shape[1] * phases - rows * cols
        at_zero = self.head.diagonal(torch.zeros_like(v[:, :1]))[:, 0, ::phases]
        inside = self.head.diagonal(v).sum(1).unflatten(-1, (-1, phases)).sum(-1)
        return self.bank.spectrum_of(inside - outside * at_zero, shape)

    def select(self, index: Tensor) -> BankFunctional:
        return replace(self, head=self.head.select(index), bank=self.bank.select(index))

    def to(self, dtype: torch.dtype) -> BankFunctional:
        return replace(self, head=self.head.to(dtype), bank=self.bank.to(dtype))

    def _blocks(self, u: Tensor, q: Tensor) -> list[tuple[Tensor, Tensor]]:
        step = max(1, BLOCK // (u.shape[0] * u.shape[-1])) if u.device.type == "cpu" else u.shape[1]
        return list(zip(u.split(step, 1), q.split(step, 1), strict=True))


class FiniteState(nn.Module):
    """Base of modules that load no tensors with nan or infinite entries, and name the one that has them."""

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for name, value in state_dict.items():
            if name.startswith(prefix) and isinstance(value, Tensor) and not bool(torch.isfinite(value).all()):
                count = int((~torch.isfinite(value)).sum())
                raise ValueError(
                    f"state_dict: {name} of {type(self).__name__} has {count} values that are not finite, expected none"
                )
        super()._load_from_state_dict(state_dict, prefix, *args)


Self = TypeVar("Self", bound="BankRegularizer")


class BankRegularizer(FiniteState, ConvexRegularizer):
    r"""Base of the networks of one filter bank: the bank and the curves in the noise level.

    Strengths :math:`\lambda(\sigma)` and scales :math:`\tau(\sigma)`, of whatever shape, are positive and piecewise
    log-linear, as those of :class:`~icgn.regularizers.RidgeICGN`. A subclass sets `log_lambda` and `log_tau` (...,
    knots) and `architecture`, its constructor arguments.

    Raises
    ------
    ValueError
        if a parameter is out of range, or on loading a state dict with numbers that are not finite.
    """

    architecture: dict[str, Any]
    log_lambda: nn.Parameter
    log_tau: nn.Parameter
    tau_power = 1.0
    """Exponent of the scale below the first knot."""

    def __init__(self, bank: FilterBank, sigma_range: tuple[float, float], min_knee: float) -> None:
        super().__init__()
        if not min_knee >= 0:
            raise ValueError(f"min_knee: got {min_knee}, expected a number >= 0")
        self.bank, self.min_knee = bank, float(min_knee)
        self.channels, self.min_size = bank.raw.shape[1], bank.raw.shape[-1]
        self.sigma_range = (float(sigma_range[0]), float(sigma_range[1]))

    def curves(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        r"""Strengths :math:`\lambda` and scales :math:`\tau` at noise levels (B,), both with the batch first."""
        assert self.sigma_range is not None
        lam = curve(self.log_lambda, sigma, self.sigma_range, 1.5)
        tau = curve(self.log_tau, sigma, self.sigma_range, self.tau_power)
        tau = tau + self.min_knee * sigma.reshape(-1, *[1] * (tau.ndim - 1))
        return lam, tau.clamp_min(torch.finfo(tau.dtype).tiny ** 0.5)

    def rescaled(self: Self, sigma: Tensor, weight: Tensor, scale: Tensor) -> Self:
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
        new = copy.deepcopy(self)
        rescale(new, sigma, weight, scale)
        return new
