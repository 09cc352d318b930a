"""Conic combinations of functionals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from icgn.functionals.capability import Capability
from icgn.functionals.functional import ConvexFunctional, HessianPart, Joint, Responses, colour_matrix, per_image
from icgn.functionals.latents import Visible

SumT = TypeVar("SumT", bound="SumFunctional")


@dataclass(frozen=True, eq=False)
class SumFunctional(ConvexFunctional):
    r"""The conic combination :math:`g(x) = \sum_j w_j g_j(x)`, weights :math:`w_j \ge 0` of shape () or (B,).

    Lipschitz constants and moduli add up with the weights. A weight of 0 removes its term, whatever its constants.
    """

    terms: Sequence[ConvexFunctional]
    weights: Sequence[Tensor]

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What all terms can do: their potentials are functions of different responses."""
        return frozenset.intersection(*(g.capabilities for g in self.terms)) - {Capability.QUADRATIC}

    def over_latents(self, shape: torch.Size) -> Joint | None:
        """The sum over (x, z) of the one term that has latent pictures, with a positive weight, and the others."""
        joints = [g.over_latents(shape) for g in self.terms]
        found = [i for i, joint in enumerate(joints) if joint is not None]
        if len(found) != 1 or not bool((self.weights[found[0]] > 0).all()):
            return None
        own = joints[found[0]]
        assert own is not None
        terms = [own.functional if i in found else Visible(g, own.channels) for i, g in enumerate(self.terms)]
        return replace(own, functional=SumFunctional(tuple(terms), self.weights))

    def linear(self, x: Tensor) -> Responses:
        return tuple(g.linear(x) for g in self.terms)

    def linear_adjoint(self, z: Responses, shape: torch.Size) -> Tensor:
        parts = [g.linear_adjoint(zj, shape) for g, zj in zip(self.terms, z, strict=True)]
        return torch.stack(parts).sum(0) if len(parts) > 2 else sum(parts[1:], parts[0])

    def potential(self, u: Responses) -> Tensor:
        values = [g.potential(uj) for g, uj in zip(self.terms, u, strict=True)]
        return self._combine(values)

    def potential_grad(self, u: Responses) -> Responses:
        return tuple(_scale(g.potential_grad(uj), w) for g, uj, w in zip(self.terms, u, self.weights, strict=True))

    def potential_hvp(self, u: Responses, q: Responses) -> Responses:
        return tuple(
            _scale(g.potential_hvp(uj, qj), w) for g, uj, qj, w in zip(self.terms, u, q, self.weights, strict=True)
        )

    def advance(self, u: Responses, q: Responses, t: Tensor) -> Responses:
        return tuple(g.advance(uj, qj, t) for g, uj, qj in zip(self.terms, u, q, strict=True))

    def advance_grad(self, u: Responses, q: Responses, t: Tensor, shape: torch.Size) -> tuple[Responses, Tensor]:
        moved = [g.advance_grad(uj, qj, t, shape) for g, uj, qj in zip(self.terms, u, q, strict=True)]
        return tuple(at for at, _ in moved), self._weighted([grad for _, grad in moved])

    # Weights multiply images here, which are much smaller than responses.
    def grad_from(self, u: Responses, shape: torch.Size) -> Tensor:
        parts = [g.grad_from(uj, shape) for g, uj in zip(self.terms, u, strict=True)]
        return self._weighted(parts)

    def hvp_from(self, u: Responses, q: Responses, shape: torch.Size) -> Tensor:
        parts = [g.hvp_from(uj, qj, shape) for g, uj, qj in zip(self.terms, u, q, strict=True)]
        return self._weighted(parts)

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        return self._combine([g.slope(uj, qj, t) for g, uj, qj in zip(self.terms, u, q, strict=True)])

    def slopes_along(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        return self._combine([g.slopes_along(uj, qj, t) for g, uj, qj in zip(self.terms, u, q, strict=True)])

    def sampled_slopes(self, u: Responses, q: Responses, t: Tensor) -> Tensor | None:
        found = [g.sampled_slopes(uj, qj, t) for g, uj, qj in zip(self.terms, u, q, strict=True)]
        known = [values for values in found if values is not None]
        return self._combine(known) if len(known) == len(found) else None

    def trials(self, u: Responses) -> int:
        """Those of the term that gains most: responses of the others are fewer, as a rule."""
        return max(g.trials(uj) for g, uj in zip(self.terms, u, strict=True))

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        return self._combine([g.curvature(uj, qj) for g, uj, qj in zip(self.terms, u, q, strict=True)])

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        parts = self.hessian_parts(u, shape)
        return None if parts is None else sum_of_spectra([part.spectrum for part in parts], shape[1])

    def hessian_parts(self, u: Responses, shape: torch.Size) -> tuple[HessianPart, ...] | None:
        """The parts of all terms, with their weights."""
        found: list[HessianPart] = []
        for g, uj, w in zip(self.terms, u, self.weights, strict=True):
            parts = g.hessian_parts(uj, shape)
            if parts is None:
                return None
            found += [replace(part, spectrum=per_image(w, part.spectrum) * part.spectrum) for part in parts]
        return tuple(found)

    def lipschitz(self) -> Tensor:
        return self._constant([g.lipschitz() for g in self.terms])

    def strong_convexity(self) -> Tensor:
        return self._constant([g.strong_convexity() for g in self.terms])

    def precision(self, dtype: torch.dtype) -> torch.dtype:
        return min((g.precision(dtype) for g in self.terms), key=lambda d: torch.finfo(d).bits)

    def hessian_floor(self, x: Tensor) -> Tensor:
        floors = [g.hessian_floor(x) for g in self.terms]
        parts = [per_image(w, x) * f for w, f in zip(self.weights, floors, strict=True)]
        return sum(parts[1:], parts[0])

    def select(self: SumT, index: Tensor) -> SumT:
        weights = tuple(w[index] if w.ndim else w for w in self.weights)
        return replace(self, terms=tuple(g.select(index) for g in self.terms), weights=weights)

    def blockwise(self: SumT, shape: torch.Size, limit: int | None = None) -> SumT:
        return replace(self, terms=tuple(g.blockwise(shape, limit) for g in self.terms))

    def to(self: SumT, dtype: torch.dtype) -> SumT:
        return replace(self, terms=tuple(g.to(dtype) for g in self.terms))

    def prox_potential(self, v: Responses, s: Tensor) -> Responses:
        parts = zip(self.terms, v, self.weights, strict=True)
        return tuple(g.prox_potential(vj, w.to(s) * s) for g, vj, w in parts)

    def linear_norm(self) -> Tensor:
        """The linear parts of the terms are stacked, so their squared norms add up."""
        return torch.stack(torch.broadcast_tensors(*(g.linear_norm() for g in self.terms))).square().sum(0).sqrt()

    def potential_lipschitz(self) -> Tensor:
        """The potential is a sum of functions of different responses: the largest constant counts."""
        constants = [self._times(w, g.potential_lipschitz()) for g, w in zip(self.terms, self.weights, strict=True)]
        return torch.stack(torch.broadcast_tensors(*constants)).amax(0)

    def _weighted(self, images: Sequence[Tensor]) -> Tensor:
        total = per_image(self.weights[0], images[0]) * images[0]
        for w, x in zip(self.weights[1:], images[1:], strict=True):
            total = torch.addcmul(total, per_image(w, x), x)
        return total

    def _combine(self, values: Sequence[Tensor]) -> Tensor:
        parts = [w.to(v) * v for w, v in zip(self.weights, values, strict=True)]
        return sum(parts[1:], parts[0])

    def _constant(self, values: Sequence[Tensor]) -> Tensor:
        parts = [self._times(w, v) for w, v in zip(self.weights, values, strict=True)]
        return sum(parts[1:], parts[0])

    @staticmethod
    def _times(weight: Tensor, constant: Tensor) -> Tensor:
        # 0 * inf is nan: a term of weight 0 must not spoil the constants of the others.
        w = weight.double()
        return torch.where(w > 0, w * constant.to(w.device), 0.0)


def _scale(z: Responses, w: Tensor) -> Responses:
    if isinstance(z, tuple):
        return tuple(_scale(part, w) for part in z)
    return z * per_image(w, z)


def sum_of_spectra(spectra: Sequence[Tensor], channels: int) -> Tensor:
    """The sum of spectra of pictures of so many channels: matrices of channels if one of them is."""
    if any(s.ndim == 5 for s in spectra):
        spectra = [s if s.ndim == 5 else colour_matrix(s, channels) for s in spectra]
    return sum(spectra[1:], spectra[0])
