"""A regularizer for pictures of another range of intensities than [0, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from icgn.functionals.functional import Joint, Responses, map_responses
from icgn.functionals.sums import SumFunctional
from icgn.functionals.wrapped import WrappedFunctional, first_of
from icgn.regularizers.base import ConvexRegularizer
from icgn.regularizers.pullback import WrappedRegularizer


class ScaledRegularizer(WrappedRegularizer):
    r"""A regularizer made for [0, 1], for pictures with intensities in [low, high] of any unit.

    .. math::

        R_s(x; \sigma) = s^2\, R\big((x - b) / s;\ \sigma / s\big), \qquad s = \text{high} - \text{low},\quad b =
        \text{low},

    with x and sigma in the unit of the pictures. It is convex with the constants of R, and exactly equivariant: for
    :math:`y = s z + b`, the minimizer of :math:`\tfrac12 |x - y|^2 + R_s(x; \sigma)` is s times that of
    :math:`\tfrac12 |x - z|^2 + R(x; \sigma / s)`, plus b. Distances to minimizers multiply by s, objectives by
    :math:`s^2`.

    Parameters
    ----------
    regularizer : ConvexRegularizer
        R, of intensities in [0, 1].
    low, high : float
        the intensities of the pictures that are 0 and 1 to R, low < high.

    Raises
    ------
    TypeError
        if `regularizer` is none.
    ValueError
        unless the range is finite and not empty.
    """

    def __init__(self, regularizer: ConvexRegularizer, low: float, high: float) -> None:
        super().__init__(regularizer)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"range: got ({low:g}, {high:g}), expected two finite numbers, the lower first")
        self.low, self.scale = float(low), float(high) - float(low)
        self.channels, self.min_size = regularizer.channels, regularizer.min_size
        reach = regularizer.sigma_range
        self.sigma_range = None if reach is None else (self.scale * reach[0], self.scale * reach[1])

    def check_image(self, x: Tensor) -> None:
        self.regularizer.check_image(x)

    def pictures(self, x: Tensor) -> Tensor:
        return (x - self.low) / self.scale

    def differences(self, d: Tensor) -> Tensor:
        return d / self.scale

    def levels(self, sigma: float | Tensor | None, channels: int) -> float | Tensor | None:
        return None if sigma is None else sigma / self.scale

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> SumFunctional:
        """The functional at sigma, in the unit of the pictures; `condition` goes to the inner regularizer."""
        inner = self.regularizer.at(self.levels(sigma, 0), condition)
        factor = torch.tensor(self.scale**2, dtype=torch.float64)
        return SumFunctional([ScaledFunctional(inner, self.scale, self.low)], [factor])


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

    def select(self, index: Tensor) -> ScaledFunctional:
        return replace(super().select(index), shifts=[map_responses(u, lambda part: part[index]) for u in self.shifts])

    def to(self, dtype: torch.dtype) -> ScaledFunctional:
        return replace(super().to(dtype), shifts=[])

    def blockwise(self, shape: torch.Size, limit: int | None = None) -> ScaledFunctional:
        return replace(super().blockwise(shape, limit), shifts=[])

    def _moved(self, u: Responses, sign: float) -> Responses:
        like = first_of(u)
        return self.inner.move(u, self.shifts[0], torch.full((len(like),), sign).to(like))
