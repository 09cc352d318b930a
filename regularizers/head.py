"""Heads: the convex functions of responses that make a network of a linear map, and the functional of the two."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from icgn.functionals.capability import Capability
from icgn.functionals.functional import ConvexFunctional, Responses, dot, per_image, tensor
from icgn.regularizers.frozen import PerImage
from icgn.regularizers.passes import TRIALS

SquaredNorm = Callable[[Tensor], Tensor]
"""Rigorous bound of the squared norm of the linear map of some rows (K, ...): a float64 scalar."""

HeadT = TypeVar("HeadT", bound="Head")


@dataclass(frozen=True, eq=False)
class Head(PerImage, ABC):
    r"""A convex function h of responses u = W x, with h(0) = 0 and a zero gradient at 0; one value per image.

    So h is never negative, and a picture without response (a constant one, with filters of zero mean) costs nothing.
    Subclasses are frozen data classes; their tensors have the batch first, of one entry where they are the same for all
    images. Every method takes the responses of all positions or of some: only a head with a `halo` couples positions.

    Responses of a filter bank are pictures (B, K, rows, cols), or, where `planes` is set, the planes (B, P, K s^2) of
    :class:`~icgn.regularizers.filters.FilterOperator`, which the convolution gives without a copy; those of a matrix
    are (B, K).
    """

    planes: ClassVar[bool] = False
    """Whether responses are planes instead of pictures."""

    @property
    def halo(self) -> int:
        """How many rows of responses away a term of h reaches."""
        return 0

    @property
    def proximal(self) -> bool:
        """Whether :meth:`prox` is known."""
        return False

    def compiled(self, u: Tensor) -> bool:
        """Whether passes over responses like u read them once: they need no strips, and steps of a line are cheap."""
        return False

    @abstractmethod
    def value(self, u: Tensor) -> Tensor:
        """Values h(u), shape (B,)."""

    @abstractmethod
    def grad(self, u: Tensor) -> Tensor:
        r"""The gradient :math:`\nabla h(u)`, shape of u."""

    @abstractmethod
    def hvp(self, u: Tensor, q: Tensor) -> Tensor:
        r"""The Hessian product :math:`\nabla^2 h(u) q`, shape of u."""

    def linearized(self, u: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The gradient at u, and the Hessian there as a map: several products share what they need in common."""
        return self.grad(u), lambda q: self.hvp(u, q)

    def slope(self, u: Tensor, q: Tensor, t: Tensor) -> Tensor:
        r"""The derivative :math:`\langle q, \nabla h(u + t q)\rangle`, shape (B,).

        Parameters
        ----------
        u, q : Tensor
            responses of a point and of a direction.
        t : Tensor
            one number per image, (B,).
        """
        return dot(q, self.grad(torch.addcmul(u, q, per_image(t, u))))

    def slopes(self, u: Tensor, q: Tensor, t: Tensor) -> Tensor:
        """The derivatives of :meth:`slope` for several steps, shape of t.

        Parameters
        ----------
        u, q : Tensor
            responses of a point and of a direction.
        t : Tensor
            steps, T for each image, (T, B).
        """
        return torch.stack([self.slope(u, q, step) for step in t])

    def step(self, u: Tensor, q: Tensor, t: Tensor) -> Tensor:
        """The gradient at u + t q, which takes the place of u.

        Parameters
        ----------
        u, q : Tensor
            responses of a point and of a direction.
        t : Tensor
            one number per image, (B,).
        """
        return self.grad(u.addcmul_(q, per_image(t, u)))

    def curvature(self, u: Tensor, q: Tensor) -> Tensor:
        r"""The second derivative :math:`\langle q, \nabla^2 h(u) q\rangle`, shape (B,)."""
        return dot(q, self.hvp(u, q))

    def diagonal_sum(self, u: Tensor) -> Tensor:
        """The sum of :meth:`diagonal` over the axis of positions of planes, (B, K s^2)."""
        return self.diagonal(u).sum(1)

    def diagonal(self, u: Tensor) -> Tensor:
        """Roughly the diagonal of the Hessian, not negative, shape of u; for preconditioners.

        This default is exact where the responses are not coupled.
        """
        return self.hvp(u, torch.ones_like(u)).clamp_min(0)

    def mixed_diagonal(self, u: Tensor, weights: Tensor, mix: Callable[[Tensor], Tensor]) -> Tensor:
        """The diagonal, summed over the filters with weights.

        Parameters
        ----------
        u : Tensor
            responses.
        weights : Tensor
            of the filters for C sums, (B or 1, K, C).
        mix : callable
            the sum of numbers for all responses, with these weights.
        """
        return mix(self.diagonal(u))

    def prox(self, v: Tensor, t: Tensor) -> Tensor:
        r"""The responses :math:`\arg\min_p \tfrac12 |p - v|^2 + t\, h(p)`, t (B,) or (), if the head is `proximal`."""
        raise NotImplementedError(f"{type(self).__name__}: has no known proximal map")

    def steepest(self) -> Tensor:
        """A rigorous upper bound of the Hessian of h, float64, () or (B,), or inf."""
        return torch.tensor(torch.inf, dtype=torch.float64)

    def lipschitz(self, weight: Tensor, squared_norm: SquaredNorm) -> Tensor:
        r"""Rigorous bound of :math:`|W^T \nabla^2 h\, W|` for one image: float64 rows of W, and how to bound a norm."""
        return self.steepest().to(weight.device).reshape(()) * squared_norm(weight)

    def prepared(self: HeadT) -> HeadT:
        """The same function, with what all its evaluations share computed once, at the price of memory."""
        return self

    def rows(self: HeadT, part: slice, seen: slice) -> HeadT:
        """The terms of h at some positions, as a function of the responses there and as far around as the halo.

        Parameters
        ----------
        part, seen : slice
            the positions of planes, or rows of pictures, of the terms and of the responses.
        """
        return self


@dataclass(frozen=True, eq=False)
class HeadFunctional(PerImage, ConvexFunctional):
    """The functional h(W x) of a :class:`Head`; subclasses say what W is."""

    head: Head

    @abstractmethod
    def weights(self) -> Tensor:
        """The rows of W as float64 tensors (B, K, ...) or (1, K, ...), detached."""

    @abstractmethod
    def squared_norm(self, weight: Tensor) -> Tensor:
        """Rigorous bound of the squared norm of the map with some rows (K, ...), a float64 scalar."""

    def strips(self, *responses: Responses) -> Iterator[tuple[Any, ...]]:
        """The head of some positions with their part of the responses, again and again until all have had their turn.

        The sum of a head's values, slopes or curvatures over the strips is that of the whole.
        """
        yield self.ready, *responses

    @cached_property
    def ready(self) -> Head:
        """The head for evaluations of all positions."""
        return self.head.prepared()

    def potential(self, u: Responses) -> Tensor:
        return _total([h.value(v) for h, v in self.strips(u)])

    def potential_grad(self, u: Responses) -> Tensor:
        return self.ready.grad(tensor(u))

    def potential_hvp(self, u: Responses, q: Responses) -> Tensor:
        return self.ready.hvp(tensor(u), tensor(q))

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        return _total([h.slope(v, w, t) for h, v, w in self.strips(u, q)])

    def slopes_along(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        return _total([h.slopes(v, w, t) for h, v, w in self.strips(u, q)])

    def trials(self, u: Responses) -> int:
        return TRIALS if self.ready.compiled(tensor(u)) else 1

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        return _total([h.curvature(v, w) for h, v, w in self.strips(u, q)])

    @property
    def capabilities(self) -> frozenset[Capability]:
        return super().capabilities | ({Capability.POTENTIAL_PROX} if self.head.proximal else set())

    def prox_potential(self, v: Responses, s: Tensor) -> Responses:
        return self.ready.prox(tensor(v), s) if self.head.proximal else super().prox_potential(v, s)

    def potential_lipschitz(self) -> Tensor:
        return self.head.steepest()

    def linear_norm(self) -> Tensor:
        rows = self.weights()
        return torch.stack([self.squared_norm(w) for w in rows]).sqrt().to(rows.device)

    @cached_property
    def _lipschitz(self) -> Tensor:
        rows = self.weights()
        heads = [self.head.select(torch.tensor([i], device=rows.device)) for i in range(len(rows))]
        bounds = [head.lipschitz(w, self.squared_norm) for head, w in zip(heads, rows, strict=True)]
        return torch.stack(bounds).to(rows.device)

    def lipschitz(self) -> Tensor:
        return self._lipschitz

    def strong_convexity(self) -> Tensor:
        return self.weights().new_zeros(())


def _total(parts: list[Tensor]) -> Tensor:
    return sum(parts[1:], parts[0])
