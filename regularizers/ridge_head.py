"""The head of ridge networks: a pointwise activation of every response, with knees that a mask may move."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from icgn.functionals.functional import per_image
from icgn.regularizers import passes
from icgn.regularizers.activations import Activation, HardTanh
from icgn.regularizers.filters import folded
from icgn.regularizers.head import Head, SquaredNorm


@dataclass(frozen=True, eq=False)
class RidgeHead(Head):
    r"""Activations of the responses u, summed over hidden units j with knees :math:`\kappa_j`, slopes :math:`\rho_j`.

    .. math::

        h(u) = \sum_j \rho_j \kappa_j^2\, \Phi(u / \kappa_j), \qquad
        \nabla h(u) = \sum_j \rho_j \kappa_j\, \psi(u / \kappa_j),

    which for the hard tanh is a bare clip; :math:`\rho_1 = 1`. A `mask` m > 0 multiplies every knee at its place:
    :math:`\kappa_j m`. Slopes, and with them the Lipschitz constant, do not depend on it. It stays in its precision.

    `knee` and `ratio` are (B, J, P, K s^2), with one entry for the batch or the positions where they are the same for
    all; the mask is planes (B, P, K s^2), or pictures (B, K, H, W), which are folded to planes where they are needed.
    """

    activation: Activation
    knee: Tensor
    ratio: Tensor
    mask: Tensor | None = None

    planes: ClassVar[bool] = True

    @property
    def proximal(self) -> bool:
        return True

    @property
    def clips(self) -> bool:
        """Whether the gradient is a bare clip at the knees."""
        return isinstance(self.activation, HardTanh) and self.knee.shape[1] == 1

    def compiled(self, u: Tensor) -> bool:
        return self.clips and passes.usable(u, self.knee)

    def value(self, u: Tensor) -> Tensor:
        if self.compiled(u):
            return passes.value(u, self._bounds)

        def energy(v: Tensor, knee: Tensor) -> Tensor:
            return knee.square() * self.activation.potential(v / knee)

        return self._units(u, energy).sum((1, 2))

    def grad(self, u: Tensor) -> Tensor:
        if self.compiled(u):
            return passes.clip(u, self._bounds)
        return self._units(u, self.activation.clip)

    def hvp(self, u: Tensor, q: Tensor) -> Tensor:
        if self.compiled(u):
            return passes.product(u, q, self._bounds)
        return self.diagonal(u) * q

    def slope(self, u: Tensor, q: Tensor, t: Tensor) -> Tensor:
        if self.compiled(u):
            return passes.slopes(u, q, self._bounds, t.reshape(1, -1))[0]
        return self.grad(torch.addcmul(u, q, per_image(t, u))).mul_(q).sum((1, 2))

    def slopes(self, u: Tensor, q: Tensor, t: Tensor) -> Tensor:
        return passes.slopes(u, q, self._bounds, t) if self.compiled(u) else super().slopes(u, q, t)

    def step(self, u: Tensor, q: Tensor, t: Tensor) -> Tensor:
        return passes.step(u, q, self._bounds, t) if self.compiled(u) else super().step(u, q, t)

    def curvature(self, u: Tensor, q: Tensor) -> Tensor:
        if self.compiled(u):
            return passes.curvature(u, q, self._bounds)
        return self.diagonal(u).mul_(q).mul_(q).sum((1, 2))

    def diagonal_sum(self, u: Tensor) -> Tensor:
        return passes.inside(u, self._bounds) if self.compiled(u) else super().diagonal_sum(u)

    def mixed_diagonal(self, u: Tensor, weights: Tensor, mix: Callable[[Tensor], Tensor]) -> Tensor:
        return passes.mixed(u, self._bounds, weights) if self.compiled(u) else super().mixed_diagonal(u, weights, mix)

    def diagonal(self, u: Tensor) -> Tensor:
        return self._units(u, lambda v, knee: self.activation.psi_prime(v / knee))

    def prox(self, v: Tensor, t: Tensor) -> Tensor:
        r"""Solve :math:`p + t \nabla h(p) = v` pointwise; a bare clip for one unit of the hard tanh."""
        t = per_image(t, v)
        if self.clips:
            return torch.addcmul(v, t, self.grad(v / (1 + t)), value=-1.0)
        return self._solve_monotone(v, t)

    def steepest(self) -> Tensor:
        return self.ratio.detach().double().sum(1).amax((1, 2)) * self.activation.steepest

    def lipschitz(self, weight: Tensor, squared_norm: SquaredNorm) -> Tensor:
        # |W^T D W| <= |D^(1/2) W|^2, and D <= steepest * sum of the slopes, one for all phases of a filter.
        slopes = self.ratio.detach().double().sum((0, 1, 2)).unflatten(0, (len(weight), -1))[:, 0]
        return squared_norm(weight * (slopes * self.activation.steepest).sqrt()[:, None, None, None])

    def prepared(self) -> RidgeHead:
        if self.mask is None:
            return self
        mask = self.mask.to(self.knee)
        planes = mask if mask.ndim == 3 else folded(mask, self._stride(mask), outside=1.0)
        return replace(self, knee=self.knee * planes[:, None], mask=None)

    def rows(self, part: slice, seen: slice) -> RidgeHead:
        if self.mask is not None and self.mask.ndim == 4:
            s = self._stride(self.mask)
            across = -(-self.mask.shape[-1] // s)
            return replace(self, mask=self.mask[..., part.start // across * s : part.stop // across * s, :])
        if self.mask is not None:
            return replace(self, mask=self.mask[:, part])
        return self if self.knee.shape[2] == 1 else replace(self, knee=self.knee[:, :, part])

    def to(self, dtype: torch.dtype) -> RidgeHead:
        # The mask of a large picture is never held in another precision.
        return replace(super(RidgeHead, replace(self, mask=None)).to(dtype), mask=self.mask)

    def _stride(self, pictures: Tensor) -> int:
        """The s of planes (B, P, K s^2) of a mask as pictures (B, K, H, W)."""
        return math.isqrt(self.knee.shape[-1] // pictures.shape[1])

    @property
    def _bounds(self) -> Tensor:
        """Where the only unit clips, (B or 1, P or 1, K s^2)."""
        return self.prepared().knee[:, 0]

    def _units(self, v: Tensor, f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Sum over the hidden units of slope * f(v, knee)."""
        knees = self.prepared().knee
        total = f(v, knees[:, 0])
        for j in range(1, knees.shape[1]):
            total = total + self.ratio[:, j] * f(v, knees[:, j])
        return total

    def _solve_monotone(self, v: Tensor, t: Tensor) -> Tensor:
        """The p with p + t h'(p) = v, between 0 and v, by Newton steps that a bracket keeps in check."""
        low, high = v.clamp_max(0), v.clamp_min(0)
        p = v / (1 + t)
        for _ in range(60):
            excess = p + t * self.grad(p) - v
            if bool((excess.abs() <= 4 * torch.finfo(v.dtype).eps * v.abs()).all()):
                break
            low, high = torch.where(excess < 0, p, low), torch.where(excess > 0, p, high)
            newton = p - excess / (1 + t * self.diagonal(p))
            p = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
        return p
