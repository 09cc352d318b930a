"""The interface between regularizers, data terms and methods: a convex function of images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from icgn.functionals.capability import Capability

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


def colour_matrix(spectrum: Tensor, channels: int) -> Tensor:
    """A spectrum (B, C or 1, H, W) in the colours of :func:`colour_basis` as matrices of channels (B, C, C, H, W)."""
    spectrum = spectrum.expand(-1, channels, -1, -1)
    basis = colour_basis(spectrum)
    return torch.einsum("dc,bdhw,de->bcehw", basis, spectrum, basis)


@dataclass(frozen=True, eq=False)
class HessianPart:
    """A part of a Hessian: a circular convolution, stronger at some pixels than at others.

    Attributes
    ----------
    spectrum : Tensor
        that of the convolution, as :meth:`ConvexFunctional.hessian_spectrum` gives it.
    density : Tensor or None
        its size at each pixel over the mean, as :meth:`ConvexFunctional.hessian_density` gives it.
    solid : bool
        whether the pictures are volumes (B, D, H, W): the spectrum is (B, 1, D, H, W // 2 + 1) then, on the frequencies
        of ``torch.fft.rfftn``, and the density (B, D, H, W).
    """

    spectrum: Tensor
    density: Tensor | None = None
    solid: bool = False


class ConvexFunctional(ABC):
    r"""A frozen convex, differentiable function :math:`g(x) = h(U x)` with one value per image.

    :math:`U` is linear and :math:`h` convex. A line :math:`x + t d` has responses :math:`U x + t\, U d`, so that a line
    search needs :math:`U d` once and then :math:`h` alone. A function without such structure has :math:`U = I`
    (:class:`BlackBoxFunctional`). Methods keep the responses of their current point; nothing here keeps state.

    All tensors have the batch first; constants are float64 tensors of shape () or (B,).
    """

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The optional abilities; methods name those that they need."""
        return frozenset({Capability.RESPONSES, Capability.FINITE})

    def over_latents(self, shape: torch.Size) -> Joint | None:
        r"""The function of which this one is the minimum over latent pictures, for images of a shape, or None."""
        return None

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
        r"""The derivative :math:`\frac{d}{dt} h(u + t q)`, shape (B,).

        Parameters
        ----------
        u, q : Responses
            the responses of a point and of a direction.
        t : Tensor
            one number per image, (B,).
        """

    def slopes_along(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        """The derivatives of :meth:`slope` for several steps, shape of t.

        Parameters
        ----------
        u, q : Responses
            the responses of a point and of a direction.
        t : Tensor
            steps, T for each image, (T, B).
        """
        return torch.stack([self.slope(u, q, step) for step in t])

    def trials(self, u: Responses) -> int:
        """How many steps :meth:`slopes_along` evaluates for about the price of one, for responses like u."""
        return 1

    def sampled_slopes(self, u: Responses, q: Responses, t: Tensor) -> Tensor | None:
        """Optional: estimates of :meth:`slopes_along` from a part of the responses, where whole slopes are dear.

        Parameters
        ----------
        u, q, t
            as for :meth:`slopes_along`.
        """
        return self.slopes_along(u, q, t) if Capability.RESPONSES in self.capabilities else None

    @abstractmethod
    def curvature(self, u: Responses, q: Responses) -> Tensor:
        r"""The second derivative :math:`\langle q, \nabla^2 h(u) q\rangle`, shape (B,)."""

    def prox_potential(self, v: Responses, s: Tensor) -> Responses:
        r"""The responses :math:`\arg\min_p \tfrac12 |p - v|^2 + s\, h(p)`, one s >= 0 per image.

        Raises
        ------
        NotImplementedError
            without :attr:`Capability.POTENTIAL_PROX`.
        """
        raise NotImplementedError(f"{type(self).__name__} is no function that {Capability.POTENTIAL_PROX.value}")

    def linear_norm(self) -> Tensor:
        """A rigorous upper bound of the norm of U, () or (B,); inf where none is known."""
        return torch.tensor(torch.inf, dtype=torch.float64)

    def potential_lipschitz(self) -> Tensor:
        r"""A rigorous upper bound of the Lipschitz constant of :math:`\nabla h`, () or (B,), or inf."""
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
        r"""A diagonal D with :math:`\nabla^2 g \succeq D` everywhere, as images like x or something that broadcasts.

        It is at least :meth:`strong_convexity`; a mask, for example, makes some pixels strongly convex and not others.
        """
        return per_image(self.strong_convexity(), x)

    @abstractmethod
    def select(self, index: Tensor) -> ConvexFunctional:
        """The functional of the images `index` (int64, on the functional's device) of the batch."""

    def blockwise(self, shape: torch.Size, limit: int | None = None) -> ConvexFunctional:
        """The same function of images of a shape (B, C, H, W), without responses where they would fill the memory.

        `limit` is the largest size of a set of responses, in bytes; the default fits a small computer.
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

    def hessian_density(self, u: Responses, shape: torch.Size) -> Tensor | None:
        r"""Optional: how large :math:`\nabla^2 g` is at each pixel, over its mean, at responses u.

        Shape (B or 1, C or 1, H, W), nonnegative, of mean 1 in each of the colours of :func:`colour_basis`; None where
        it is not known, or the same everywhere. A preconditioner: nothing proved depends on it.
        """
        return None

    def hessian_parts(self, u: Responses, shape: torch.Size) -> tuple[HessianPart, ...] | None:
        """Optional: terms that resemble the Hessian in sum, each a convolution with its size at each pixel.

        None where no spectrum is known.
        """
        spectrum = self.hessian_spectrum(u, shape)
        return None if spectrum is None else (HessianPart(spectrum, self.hessian_density(u, shape)),)

    def move(self, u: Responses, q: Responses, t: Tensor) -> Responses:
        """Responses u + t q.

        Parameters
        ----------
        u, q : Responses
            the responses of a point and of a direction.
        t : Tensor
            one number per image, (B,).
        """
        if isinstance(u, tuple) and isinstance(q, tuple):
            return tuple(self.move(a, b, t) for a, b in zip(u, q, strict=True))
        assert isinstance(u, Tensor) and isinstance(q, Tensor)
        return torch.addcmul(u, q, per_image(t, u))

    def between(self, u: Responses, v: Responses, t: Tensor) -> Responses:
        """Responses u + t (v - u) of the points between two pictures.

        Parameters
        ----------
        u, v : Responses
            the responses of the pictures.
        t : Tensor
            one number per image, (B,).
        """
        if isinstance(u, tuple) and isinstance(v, tuple):
            return tuple(self.between(a, b, t) for a, b in zip(u, v, strict=True))
        assert isinstance(u, Tensor) and isinstance(v, Tensor)
        return torch.lerp(u, v, per_image(t, u))

    def advance(self, u: Responses, q: Responses, t: Tensor) -> Responses:
        """As :meth:`move`, but the result may use the memory of u.

        Parameters
        ----------
        u, q : Responses
            the responses of a point, which the caller does not need any more, and of a direction.
        t : Tensor
            one number per image, (B,).
        """
        return self.move(u, q, t)

    def advance_grad(self, u: Responses, q: Responses, t: Tensor, shape: torch.Size) -> tuple[Responses, Tensor]:
        """What :meth:`advance` gives, and the gradient of :meth:`grad_from` there.

        Parameters
        ----------
        u, q, t :
            as of :meth:`advance`.
        shape : torch.Size
            shape of the images, (B, C, H, W).
        """
        u = self.advance(u, q, t)
        return u, self.grad_from(u, shape)

    def grad_from(self, u: Responses, shape: torch.Size) -> Tensor:
        r"""The gradient :math:`U^T \nabla h(u)`, of the given shape, from responses."""
        return self.linear_adjoint(self.potential_grad(u), shape)

    def hvp_from(self, u: Responses, q: Responses, shape: torch.Size) -> Tensor:
        r"""The Hessian product :math:`U^T \nabla^2 h(u) q` from responses.

        Parameters
        ----------
        u, q : Responses
            the responses of a point and of a direction.
        shape : torch.Size
            shape of the images, (B, C, H, W).
        """
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


@dataclass(frozen=True, eq=False)
class Joint:
    r"""The function G of :math:`g(x) = \min_z G(x, z)`, convex, and strongly convex in the latent pictures z.

    Attributes
    ----------
    functional : ConvexFunctional
        G of pictures (B, C + K, H, W), x first; its ``hessian_floor`` is positive in the latent channels.
    channels : int
        C of x.
    latents : int
        K of z.
    """

    functional: ConvexFunctional
    channels: int
    latents: int


class BlackBoxFunctional(ConvexFunctional):
    r"""Base of functionals known by `fn`, `grad` and `hvp` alone: the linear part is the identity.

    Subclasses define ``fn``, ``grad``, ``hvp``, the constants, ``select`` and ``to``.
    """

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({Capability.FINITE})

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


def tensor(u: Responses) -> Tensor:
    """The responses of a functional that has one tensor of them."""
    assert isinstance(u, Tensor)
    return u


def map_responses(u: Responses, f: Callable[[Tensor], Tensor]) -> Responses:
    """The responses with every tensor mapped by f."""
    return tuple(map_responses(part, f) for part in u) if isinstance(u, tuple) else f(u)


def difference(u: Responses, old: Responses) -> Responses:
    """The responses u less others of the same functional."""
    if isinstance(u, tuple) and isinstance(old, tuple):
        return tuple(difference(a, b) for a, b in zip(u, old, strict=True))
    return tensor(u) - tensor(old)


def _moving_sum(x: Tensor, side: int, axis: int) -> Tensor:
    """Sums of so many neighbours along an axis; a few shifted pictures are ten times faster than pooling on a CPU."""
    count = x.shape[axis] - side + 1
    total = x.narrow(axis, 0, count) + x.narrow(axis, 1, count)
    for i in range(2, side):
        total += x.narrow(axis, i, count)
    return total


def density(sizes: Tensor, reach: int) -> Tensor:
    """Sizes at pixels (B, C, H, W), smoothed over pixels so far around, over the mean of each colour, if not 0."""
    if reach:
        padded = F.pad(sizes, (reach, reach, reach, reach), mode="replicate")
        side = 2 * reach + 1
        sizes = _moving_sum(_moving_sum(padded, side, -2), side, -1) / side**2
    mean = sizes.mean((2, 3), keepdim=True)
    return torch.where(mean > 0, sizes / mean, 1.0)
