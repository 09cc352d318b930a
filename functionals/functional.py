"""What a solver knows of a function: the interface between regularizers, data terms and methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

Responses: TypeAlias = "Tensor | tuple[Responses, ...]"
"""The image of a picture under the linear part of a functional: one tensor, or one entry per term of a sum."""


def dot(a: Tensor, b: Tensor) -> Tensor:
    r"""Inner product :math:`\langle a_i, b_i \rangle` of each image, shape (B,)."""
    return torch.linalg.vecdot(a.flatten(1), b.flatten(1))


def per_image(t: Tensor, like: Tensor) -> Tensor:
    """View a (B,) or scalar tensor so that it broadcasts over the images of `like`, in its dtype and device."""
    return t.to(like).reshape(-1, *([1] * (like.ndim - 1)))


def colour_basis(like: Tensor) -> Tensor:
    """Orthonormal (C, C) directions of the channels of `like` (B or K, C, ...); luminance first where C = 3."""
    if like.shape[1] != 3:
        return torch.eye(like.shape[1]).to(like)
    rows = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]], dtype=torch.float64)
    return (rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)).to(like)


class ConvexFunctional(ABC):
    r"""A frozen convex, differentiable function :math:`g(x) = h(U x)` with one value per image.

    :math:`U` is linear and :math:`h` convex. A line :math:`x + t d` has responses :math:`U x + t\, U d`, so that a line
    search needs :math:`U d` once and then :math:`h` alone. A function without such structure has :math:`U = I`
    (:class:`BlackBoxFunctional`). Methods keep the responses of their current point; nothing here keeps state.

    All tensors have the batch first; constants are float64 tensors of shape () or (B,).
    """

    @property
    def cheap_slopes(self) -> bool:
        """Whether a :meth:`slope` costs far less than a gradient, as it does where responses are kept."""
        return True

    @abstractmethod
    def linear(self, x: Tensor) -> Responses:
        """Responses :math:`u = U x` of images x (B, C, H, W)."""

    @abstractmethod
    def linear_adjoint(self, z: Responses, shape: torch.Size) -> Tensor:
        """The images :math:`U^T z` of the given shape (B, C, H, W)."""

    @abstractmethod
    def potential(self, u: Responses) -> Tensor:
        """Values h(u), shape (B,)."""

    @abstractmethod
    def potential_grad(self, u: Responses) -> Responses:
        r"""The gradient :math:`\nabla h(u)`, shaped as u."""

    @abstractmethod
    def potential_hvp(self, u: Responses, q: Responses) -> Responses:
        r"""The product :math:`\nabla^2 h(u) q` (an element of the generalized Hessian at kinks), shaped as u."""

    @abstractmethod
    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        r"""The derivative :math:`\frac{d}{dt} h(u + t q)` for one t per image, shape (B,)."""

    @abstractmethod
    def curvature(self, u: Responses, q: Responses) -> Tensor:
        r"""The second derivative :math:`\langle q, \nabla^2 h(u) q\rangle`, shape (B,)."""

    def prox_potential(self, v: Responses, s: Tensor) -> Responses | None:
        r"""Optional: the responses :math:`\arg\min_p \tfrac12 |p - v|^2 + s\, h(p)`, one s >= 0 per image.

        None where it is not known. It is what primal-dual methods need, with :meth:`linear_norm`.
        """
        return None

    def linear_norm(self) -> Tensor:
        """Optional: a rigorous upper bound of the norm of U, () or (B,); inf where none is known."""
        return torch.tensor(torch.inf, dtype=torch.float64)

    def potential_lipschitz(self) -> Tensor:
        r"""Optional: a rigorous upper bound of the Lipschitz constant of :math:`\nabla h`, () or (B,), or inf."""
        return torch.tensor(torch.inf, dtype=torch.float64)

    @abstractmethod
    def lipschitz(self) -> Tensor:
        r"""A rigorous upper bound of the Lipschitz constant of :math:`\nabla g`, or inf."""

    @abstractmethod
    def strong_convexity(self) -> Tensor:
        r"""A rigorous lower bound of the modulus :math:`\mu` of strong convexity, or 0."""

    def precision(self, dtype: torch.dtype) -> torch.dtype:
        """The precision in which images of a dtype are evaluated: lower where an operator cannot follow."""
        return dtype

    def hessian_floor(self, x: Tensor) -> Tensor:
        r"""A diagonal matrix that :math:`\nabla^2 g` is nowhere below: images like x, or something that broadcasts.

        It is at least :meth:`strong_convexity`; a mask, for example, makes some pixels strongly convex and not others.
        """
        return per_image(self.strong_convexity(), x)

    @abstractmethod
    def select(self, index: Tensor) -> ConvexFunctional:
        """The functional of the images `index` (int64, on the functional's device) of the batch."""

    def blockwise(self, shape: torch.Size, limit: int | None = None) -> ConvexFunctional:
        """The same function of images of a shape (B, C, H, W), without responses where they would fill the memory.

        `limit` is the most that a set of responses may take, in bytes; default a good part of a small computer.
        """
        return self

    @abstractmethod
    def to(self, dtype: torch.dtype) -> ConvexFunctional:
        """The same functional computed in another floating-point precision."""

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        r"""Optional: the spectrum of a circular convolution that resembles :math:`\nabla^2 g` at responses u.

        Shape (B, C, H, W // 2 + 1) or broadcastable to it, nonnegative, on the frequencies of ``torch.fft.rfft2`` and
        the colours of :func:`colour_basis`; None where none is known. Where channels are coupled, a Hermitian matrix of
        the channels themselves for each frequency, (B, C, C, H, W // 2 + 1). A preconditioner: nothing proved depends
        on it.
        """
        return None

    def move(self, u: Responses, q: Responses, t: Tensor) -> Responses:
        """Responses u + t q with one t per image."""
        if isinstance(u, tuple) and isinstance(q, tuple):
            return tuple(self.move(a, b, t) for a, b in zip(u, q, strict=True))
        assert isinstance(u, Tensor) and isinstance(q, Tensor)
        return torch.addcmul(u, q, per_image(t, u))

    def between(self, u: Responses, v: Responses, t: Tensor) -> Responses:
        """Responses u + t (v - u) of the points between two pictures, with one t per image."""
        if isinstance(u, tuple) and isinstance(v, tuple):
            return tuple(self.between(a, b, t) for a, b in zip(u, v, strict=True))
        assert isinstance(u, Tensor) and isinstance(v, Tensor)
        return torch.lerp(u, v, per_image(t, u))

    def advance(self, u: Responses, q: Responses, t: Tensor) -> Responses:
        """As :meth:`move`, for a caller that gives up u: its memory may be used for the result."""
        return self.move(u, q, t)

    def grad_from(self, u: Responses, shape: torch.Size) -> Tensor:
        r"""The gradient :math:`U^T \nabla h(u)`, of the given shape, from responses."""
        return self.linear_adjoint(self.potential_grad(u), shape)

    def hvp_from(self, u: Responses, q: Responses, shape: torch.Size) -> Tensor:
        r"""The Hessian product :math:`U^T \nabla^2 h(u) q`, of the given shape, from responses."""
        return self.linear_adjoint(self.potential_hvp(u, q), shape)

    def fn(self, x: Tensor) -> Tensor:
        """Values g(x), shape (B,)."""
        return self.potential(self.linear(x))

    def grad(self, x: Tensor) -> Tensor:
        r"""The gradient :math:`\nabla g(x) = U^T \nabla h(U x)`, shape of x."""
        return self.grad_from(self.linear(x), x.shape)

    def hvp(self, x: Tensor, v: Tensor) -> Tensor:
        r"""The Hessian product :math:`\nabla^2 g(x) v = U^T \nabla^2 h(U x) U v`, shape of x."""
        return self.hvp_from(self.linear(x), self.linear(v), x.shape)


class BlackBoxFunctional(ConvexFunctional):
    r"""Base of functionals known by `fn`, `grad` and `hvp` alone: the linear part is the identity.

    Subclasses define ``fn``, ``grad``, ``hvp``, the constants, ``select`` and ``to``.
    """

    @property
    def cheap_slopes(self) -> bool:
        return False

    def linear(self, x: Tensor) -> Responses:
        return x

    def linear_adjoint(self, z: Responses, shape: torch.Size) -> Tensor:
        return tensor(z)

    def potential(self, u: Responses) -> Tensor:
        return self.fn(tensor(u))

    def potential_grad(self, u: Responses) -> Responses:
        return self.grad(tensor(u))

    def potential_hvp(self, u: Responses, q: Responses) -> Responses:
        return self.hvp(tensor(u), tensor(q))

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        return dot(tensor(q), self.grad(tensor(self.move(u, q, t))))

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        return dot(tensor(q), self.hvp(tensor(u), tensor(q)))

    @abstractmethod
    def fn(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def grad(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def hvp(self, x: Tensor, v: Tensor) -> Tensor: ...


class ComposedFunctional(ConvexFunctional):
    r"""Base of the functions :math:`g(A x)` of linear maps A of the picture; responses are those of the inner g to A x.

    Subclasses define the map, its adjoint, the shape of A x, the constants, ``select`` and ``to``.
    """

    inner: ConvexFunctional

    @property
    def cheap_slopes(self) -> bool:
        return self.inner.cheap_slopes

    @abstractmethod
    def map(self, x: Tensor) -> Tensor:
        """The images A x."""

    @abstractmethod
    def map_adjoint(self, z: Tensor, shape: torch.Size) -> Tensor:
        """The images :math:`A^T z` of the given shape."""

    @abstractmethod
    def mapped(self, shape: torch.Size, u: Responses) -> torch.Size:
        """The shape of A x for images x of a shape, with responses u."""

    def linear(self, x: Tensor) -> Responses:
        return self.inner.linear(self.map(x))

    def linear_adjoint(self, z: Responses, shape: torch.Size) -> Tensor:
        return self.map_adjoint(self.inner.linear_adjoint(z, self.mapped(shape, z)), shape)

    def grad_from(self, u: Responses, shape: torch.Size) -> Tensor:
        return self.map_adjoint(self.inner.grad_from(u, self.mapped(shape, u)), shape)

    def hvp_from(self, u: Responses, q: Responses, shape: torch.Size) -> Tensor:
        return self.map_adjoint(self.inner.hvp_from(u, q, self.mapped(shape, u)), shape)

    def potential(self, u: Responses) -> Tensor:
        return self.inner.potential(u)

    def potential_grad(self, u: Responses) -> Responses:
        return self.inner.potential_grad(u)

    def potential_hvp(self, u: Responses, q: Responses) -> Responses:
        return self.inner.potential_hvp(u, q)

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        return self.inner.slope(u, q, t)

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        return self.inner.curvature(u, q)

    def advance(self, u: Responses, q: Responses, t: Tensor) -> Responses:
        return self.inner.advance(u, q, t)

    def prox_potential(self, v: Responses, s: Tensor) -> Responses | None:
        return self.inner.prox_potential(v, s)

    def potential_lipschitz(self) -> Tensor:
        return self.inner.potential_lipschitz()


SumT = TypeVar("SumT", bound="SumFunctional")


class SumFunctional(ConvexFunctional):
    r"""The conic combination :math:`g(x) = \sum_j w_j g_j(x)`, weights :math:`w_j \ge 0` of shape () or (B,).

    Lipschitz constants and moduli add up with the weights. A weight of 0 removes its term, whatever its constants.
    """

    def __init__(self, terms: Sequence[ConvexFunctional], weights: Sequence[Tensor]) -> None:
        self.terms = tuple(terms)
        self.weights = tuple(weights)

    @property
    def cheap_slopes(self) -> bool:
        return all(g.cheap_slopes for g in self.terms)

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

    # Weights multiply images here, which are much smaller than responses.
    def grad_from(self, u: Responses, shape: torch.Size) -> Tensor:
        parts = [g.grad_from(uj, shape) for g, uj in zip(self.terms, u, strict=True)]
        return self._weighted(parts)

    def hvp_from(self, u: Responses, q: Responses, shape: torch.Size) -> Tensor:
        parts = [g.hvp_from(uj, qj, shape) for g, uj, qj in zip(self.terms, u, q, strict=True)]
        return self._weighted(parts)

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        return self._combine([g.slope(uj, qj, t) for g, uj, qj in zip(self.terms, u, q, strict=True)])

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        return self._combine([g.curvature(uj, qj) for g, uj, qj in zip(self.terms, u, q, strict=True)])

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        parts = [g.hessian_spectrum(uj, shape) for g, uj in zip(self.terms, u, strict=True)]
        known = [per_image(w, p) * p for w, p in zip(self.weights, parts, strict=True) if p is not None]
        return sum(known[1:], known[0]) if len(known) == len(parts) else None

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
        return type(self)([g.select(index) for g in self.terms], [w[index] if w.ndim else w for w in self.weights])

    def blockwise(self: SumT, shape: torch.Size, limit: int | None = None) -> SumT:
        return type(self)([g.blockwise(shape, limit) for g in self.terms], self.weights)

    def to(self: SumT, dtype: torch.dtype) -> SumT:
        return type(self)([g.to(dtype) for g in self.terms], self.weights)

    def _weighted(self, images: Sequence[Tensor]) -> Tensor:
        parts = [per_image(w, x) * x for w, x in zip(self.weights, images, strict=True)]
        return sum(parts[1:], parts[0])

    def _combine(self, values: Sequence[Tensor]) -> Tensor:
        parts = [w.to(v) * v for w, v in zip(self.weights, values, strict=True)]
        return sum(parts[1:], parts[0])

    def _constant(self, values: Sequence[Tensor]) -> Tensor:
        # 0 * inf is nan: a term of weight 0 must not spoil the constants of the others.
        zero = torch.zeros((), dtype=torch.float64)
        parts = [
            torch.where(w.double() > 0, w.double() * v.to(w.device), zero.to(w.device))
            for w, v in zip(self.weights, values, strict=True)
        ]
        return sum(parts[1:], parts[0])


def tensor(u: Responses) -> Tensor:
    """The responses of a functional that has one tensor of them."""
    assert isinstance(u, Tensor)
    return u


def difference(u: Responses, old: Responses) -> Responses:
    """The responses u less others of the same functional."""
    if isinstance(u, tuple) and isinstance(old, tuple):
        return tuple(difference(a, b) for a, b in zip(u, old, strict=True))
    return tensor(u) - tensor(old)


def _scale(z: Responses, w: Tensor) -> Responses:
    if isinstance(z, tuple):
        return tuple(_scale(part, w) for part in z)
    return z * per_image(w, z)
