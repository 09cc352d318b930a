"""A functional of pictures of another range of intensities."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from icgn.functionals.functional import ConvexFunctional, HessianPart, Joint, Responses, map_responses
from icgn.functionals.sums import SumFunctional
from icgn.functionals.wrapped import WrappedFunctional, first_of


def scaled(inner: ConvexFunctional, low: float, scale: float) -> SumFunctional:
    r""":math:`s^2\, g((x - b) / s)`: the functional g of pictures whose intensities begin at b and are s wide.

    Parameters
    ----------
    inner : ConvexFunctional
        g.
    low, scale : float
        b and s.
    """
    factor = torch.tensor(scale**2, dtype=torch.float64)
    return SumFunctional([ScaledFunctional(inner, scale, low)], [factor])


@dataclass(frozen=True, eq=False)
class ScaledFunctional(WrappedFunctional):
    r""":math:`g((x - b) / s)`; responses are those of `inner` to x / s, and points are shifted by those of -b / s."""

    scale: float
    low: float
    channels: int | None = None
    """Channels that are shifted, the first ones; default all: latent pictures are not."""
    shifts: list[Responses] = field(default_factory=list, repr=False)
    """Responses of `inner` to constant pictures -b / s, once it has seen a picture."""

    def over_latents(self, shape: torch.Size) -> Joint | None:
        """Latent pictures are scaled as the picture is."""
        joint = self.inner.over_latents(shape)
        if joint is None:
            return None
        return replace(joint, functional=ScaledFunctional(joint.functional, self.scale, self.low, joint.channels))

    def map(self, x: Tensor) -> Tensor:
        return x / self.scale

    def map_adjoint(self, z: Tensor, shape: torch.Size) -> Tensor:
        return z / self.scale

    def mapped(self, shape: torch.Size) -> torch.Size:
        return shape

    def linear(self, x: Tensor) -> Responses:
        if self.low and not self.shifts:
            constant = torch.zeros_like(x)
            constant[:, : self.channels] = -self.low / self.scale
            self.shifts.append(self.inner.linear(constant))
        return super().linear(x)

    def into(self, u: Responses) -> Responses:
        return self._moved(u, 1.0) if self.low else u

    def prox_potential(self, v: Responses, s: Tensor) -> Responses:
        """The proximal map of h(. + c) at v, by that of h at v + c."""
        p = super().prox_potential(v, s)
        return self._moved(p, -1.0) if self.low else p

    def linear_norm(self) -> Tensor:
        return self.inner.linear_norm() / self.scale

    def lipschitz(self) -> Tensor:
        return self.inner.lipschitz() / self.scale**2

    def strong_convexity(self) -> Tensor:
        return self.inner.strong_convexity() / self.scale**2

    def hessian_floor(self, x: Tensor) -> Tensor:
        return self.inner.hessian_floor(x) / self.scale**2

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        spectrum = self.inner.hessian_spectrum(self.into(u), shape)
        return None if spectrum is None else spectrum / self.scale**2

    def hessian_parts(self, u: Responses, shape: torch.Size) -> tuple[HessianPart, ...] | None:
        parts = self.inner.hessian_parts(self.into(u), shape)
        return parts and tuple(replace(part, spectrum=part.spectrum / self.scale**2) for part in parts)

    def select(self, index: Tensor) -> ScaledFunctional:
        return replace(super().select(index), shifts=[map_responses(u, lambda part: part[index]) for u in self.shifts])

    def to(self, dtype: torch.dtype) -> ScaledFunctional:
        return replace(super().to(dtype), shifts=[])

    def blockwise(self, shape: torch.Size, limit: int | None = None) -> ScaledFunctional:
        return replace(super().blockwise(shape, limit), shifts=[])

    def _moved(self, u: Responses, sign: float) -> Responses:
        like = first_of(u)
        return self.inner.move(u, self.shifts[0], torch.full((len(like),), sign).to(like))
