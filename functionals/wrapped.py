"""Functions of a linear map of the picture, made from an inner functional that takes what the map gives."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from icgn.functionals.capability import Capability
from icgn.functionals.functional import ConvexFunctional, Responses

WrappedT = TypeVar("WrappedT", bound="WrappedFunctional")


@dataclass(frozen=True, eq=False)
class WrappedFunctional(ConvexFunctional):
    r"""A function :math:`g(x) = g_0(B x)` of the pictures :math:`B x` that the functional `inner` takes.

    Subclasses define B by :meth:`map`, :meth:`map_adjoint` and :meth:`mapped`, and the constants. Everything else,
    capabilities included, is passed on here. Where one picture is several of `inner` (its channels), a subclass also
    says how numbers and responses of images become those of the inner pictures and back.
    """

    inner: ConvexFunctional

    @abstractmethod
    def map(self, x: Tensor) -> Tensor:
        """The pictures B x."""

    @abstractmethod
    def map_adjoint(self, z: Tensor, shape: torch.Size) -> Tensor:
        """The images :math:`B^T z` of the given shape."""

    @abstractmethod
    def mapped(self, shape: torch.Size) -> torch.Size:
        """The shape of B x for images x of a shape."""

    def of(self, like: Tensor) -> ConvexFunctional:
        """The inner functional for the batch of `like`, images or responses."""
        return self.inner

    def into(self, u: Responses) -> Responses:
        """Responses of points as `inner` has them."""
        return u

    def along(self, q: Responses) -> Responses:
        """Responses of directions as `inner` has them."""
        return q

    def back(self, u: Responses, like: Tensor) -> Responses:
        """Responses of `inner` as this functional has them, for the batch of `like`."""
        return u

    def each(self, t: Tensor, like: Tensor) -> Tensor:
        """One number per image as one per inner picture."""
        return t

    def total(self, values: Tensor, like: Tensor) -> Tensor:
        """Values of the inner pictures, summed for each image."""
        return values

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self.inner.capabilities

    def linear(self, x: Tensor) -> Responses:
        return self.back(self.of(x).linear(self.map(x)), x)

    def linear_adjoint(self, z: Responses, shape: torch.Size) -> Tensor:
        inner = self.of(first_of(z))
        return self.map_adjoint(inner.linear_adjoint(self.along(z), self.mapped(shape)), shape)

    def grad_from(self, u: Responses, shape: torch.Size) -> Tensor:
        inner = self.of(first_of(u))
        return self.map_adjoint(inner.grad_from(self.into(u), self.mapped(shape)), shape)

    def hvp_from(self, u: Responses, q: Responses, shape: torch.Size) -> Tensor:
        inner = self.of(first_of(u))
        return self.map_adjoint(inner.hvp_from(self.into(u), self.along(q), self.mapped(shape)), shape)

    def potential(self, u: Responses) -> Tensor:
        like = first_of(u)
        return self.total(self.of(like).potential(self.into(u)), like)

    def potential_grad(self, u: Responses) -> Responses:
        like = first_of(u)
        return self.back(self.of(like).potential_grad(self.into(u)), like)

    def potential_hvp(self, u: Responses, q: Responses) -> Responses:
        like = first_of(u)
        return self.back(self.of(like).potential_hvp(self.into(u), self.along(q)), like)

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        like = first_of(u)
        return self.total(self.of(like).slope(self.into(u), self.along(q), self.each(t, like)), like)

    def slopes_along(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        like = first_of(u)
        steps = torch.stack([self.each(step, like) for step in t])
        values = self.of(like).slopes_along(self.into(u), self.along(q), steps)
        return torch.stack([self.total(value, like) for value in values])

    def sampled_slopes(self, u: Responses, q: Responses, t: Tensor) -> Tensor | None:
        like = first_of(u)
        steps = torch.stack([self.each(step, like) for step in t])
        values = self.of(like).sampled_slopes(self.into(u), self.along(q), steps)
        return None if values is None else torch.stack([self.total(value, like) for value in values])

    def trials(self, u: Responses) -> int:
        return self.inner.trials(self.along(u))

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        like = first_of(u)
        return self.total(self.of(like).curvature(self.into(u), self.along(q)), like)

    def advance(self, u: Responses, q: Responses, t: Tensor) -> Responses:
        like = first_of(u)
        return self.back(self.of(like).advance(self.along(u), self.along(q), self.each(t, like)), like)

    def prox_potential(self, v: Responses, s: Tensor) -> Responses:
        like = first_of(v)
        return self.back(self.of(like).prox_potential(self.into(v), self.each(s, like)), like)

    def potential_lipschitz(self) -> Tensor:
        return self.inner.potential_lipschitz()

    def precision(self, dtype: torch.dtype) -> torch.dtype:
        return self.inner.precision(dtype)

    def select(self: WrappedT, index: Tensor) -> WrappedT:
        return replace(self, inner=self.inner.select(index))

    def blockwise(self: WrappedT, shape: torch.Size, limit: int | None = None) -> WrappedT:
        return replace(self, inner=self.inner.blockwise(self.mapped(shape), limit))

    def to(self: WrappedT, dtype: torch.dtype) -> WrappedT:
        return replace(self, inner=self.inner.to(dtype))


def first_of(u: Responses) -> Tensor:
    """The first tensor of some responses."""
    while isinstance(u, tuple):
        u = u[0]
    return u
