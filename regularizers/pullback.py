"""Regularizers applied to another picture than the one sought: to each of its channels, or to a linear map of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import deepinv
import torch
from torch import Tensor

from icgn.functionals.data import gram_bounds, in_precision, of_images
from icgn.functionals.functional import ComposedFunctional, ConvexFunctional, Responses, colour_basis
from icgn.regularizers.base import ConvexRegularizer


class PerChannel(ConvexRegularizer):
    r"""A one-channel regularizer applied to each channel: :math:`R(x; \sigma) = \sum_c R_1(x_c; \sigma)`.

    Pictures (B, C, H, W) of any number of channels: colour, and the complex pictures of MRI, whose real and imaginary
    part are two channels in deepinv::

        model = Reconstructor(PerChannel(load_pretrained("ridge-gray")), sigma=0.05)
        x = model(y, deepinv.physics.MRI(mask))

    A gray network knows pictures without phase. Where an estimate of the phase is known (from the coils or the centre
    of k-space), take it out first, so that the real part holds the picture: ``PullBack(PerChannel(R), demodulation)``.
    Complex pictures are to be scaled to modulus at most 1.

    Parameters
    ----------
    regularizer : ConvexRegularizer
        :math:`R_1`, of one channel. Constants, sigma range and least size are its own.

    Raises
    ------
    TypeError
        if it is not a regularizer.
    ValueError
        if it takes another number of channels.
    """

    def __init__(self, regularizer: ConvexRegularizer) -> None:
        super().__init__()
        _check_regularizer(regularizer)
        if regularizer.channels not in (None, 1):
            raise ValueError(f"regularizer: got one of {regularizer.channels} channels, expected one of one channel")
        self.regularizer = regularizer
        self.min_size, self.sigma_range = regularizer.min_size, regularizer.sigma_range
        self.looseness = regularizer.looseness

    def check_image(self, x: Tensor) -> None:
        super().check_image(x)
        self.regularizer.check_image(x[:, :1])

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> PerChannelFunctional:
        """The functional at sigma, which all channels of a picture share.

        The condition of a conditional regularizer has one part per channel, (B, C, ...).
        """
        if condition is None:
            return PerChannelFunctional(self.regularizer.at(sigma))
        if condition.ndim < 2:
            raise ValueError(f"condition: got shape {tuple(condition.shape)}, expected (B, C, ...)")
        channels = condition.shape[1]
        if isinstance(sigma, Tensor) and sigma.numel() > 1:
            sigma = sigma.reshape(-1).repeat_interleave(channels)
        return PerChannelFunctional(self.regularizer.at(sigma, condition.flatten(0, 1)), channels)

    def condition(self, x: Tensor, sigma: float | Tensor, residual: Tensor) -> Tensor:
        """The condition of each channel on its own, (B, C, ...)."""
        self.check_image(x)
        if isinstance(sigma, Tensor) and sigma.numel() > 1:
            sigma = sigma.reshape(-1).repeat_interleave(x.shape[1])
        single = _single(x.shape)
        parts = self.regularizer.condition(x.reshape(single), sigma, residual.reshape(single))
        return parts.unflatten(0, (-1, x.shape[1]))


@dataclass(frozen=True, eq=False)
class PerChannelFunctional(ConvexFunctional):
    """The sum over the channels of :class:`PerChannel`: `inner` sees each channel as a picture of its own.

    Responses are those of `inner` with the batch (B C, ...) split into (B, C, ...). With `channels` C > 0 `inner` is
    the functional of B C pictures already, which differ in more than sigma; with 0 it is that of B.
    """

    inner: ConvexFunctional
    channels: int = 0

    @property
    def cheap_slopes(self) -> bool:
        return self.inner.cheap_slopes

    def linear(self, x: Tensor) -> Responses:
        channels = x.shape[1]
        u = self._inner(x.shape, x.device).linear(x.reshape(_single(x.shape)))
        return _map(u, lambda part: part.unflatten(0, (-1, channels)))

    def linear_adjoint(self, z: Responses, shape: torch.Size) -> Tensor:
        return self._of(z).linear_adjoint(_joined(z), _single(shape)).reshape(shape)

    def grad_from(self, u: Responses, shape: torch.Size) -> Tensor:
        return self._of(u).grad_from(_joined(u), _single(shape)).reshape(shape)

    def hvp_from(self, u: Responses, q: Responses, shape: torch.Size) -> Tensor:
        return self._of(u).hvp_from(_joined(u), _joined(q), _single(shape)).reshape(shape)

    def potential(self, u: Responses) -> Tensor:
        return _summed(self._of(u).potential(_joined(u)), u)

    def potential_grad(self, u: Responses) -> Responses:
        return _split(self._of(u).potential_grad(_joined(u)), u)

    def potential_hvp(self, u: Responses, q: Responses) -> Responses:
        return _split(self._of(u).potential_hvp(_joined(u), _joined(q)), u)

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        return _summed(self._of(u).slope(_joined(u), _joined(q), _repeated(t, u)), u)

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        return _summed(self._of(u).curvature(_joined(u), _joined(q)), u)

    def advance(self, u: Responses, q: Responses, t: Tensor) -> Responses:
        return _split(self._of(u).advance(_joined(u), _joined(q), _repeated(t, u)), u)

    def blockwise(self, shape: torch.Size, limit: int | None = None) -> PerChannelFunctional:
        return replace(self, inner=self.inner.blockwise(_single(shape), limit))

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        """The spectra of the channels, as the diagonal they have in the colours of :func:`colour_basis`."""
        spectrum = self._of(u).hessian_spectrum(_joined(u), _single(shape))
        if spectrum is None or len(spectrum) == 1:
            # One for all channels is the same in every basis.
            return spectrum
        spectrum = spectrum.squeeze(1).unflatten(0, (-1, shape[1]))
        return torch.einsum("dc,bchw->bdhw", colour_basis(spectrum).square(), spectrum)

    def prox_potential(self, v: Responses, s: Tensor) -> Responses | None:
        p = self._of(v).prox_potential(_joined(v), _repeated(s, v))
        return None if p is None else _split(p, v)

    def linear_norm(self) -> Tensor:
        return self.inner.linear_norm()

    def potential_lipschitz(self) -> Tensor:
        return self._constant(self.inner.potential_lipschitz()).amax(-1)

    def lipschitz(self) -> Tensor:
        return self._constant(self.inner.lipschitz()).amax(-1)

    def strong_convexity(self) -> Tensor:
        return self._constant(self.inner.strong_convexity()).amin(-1)

    def _constant(self, values: Tensor) -> Tensor:
        """Constants of the inner functional with the channels of an image last."""
        return values.unflatten(0, (-1, self.channels)) if self.channels and values.numel() > 1 else values[..., None]

    def hessian_floor(self, x: Tensor) -> Tensor:
        single = _single(x.shape)
        floor = self._inner(x.shape, x.device).hessian_floor(x.reshape(single))
        return floor.expand(single).reshape(x.shape)

    def select(self, index: Tensor) -> PerChannelFunctional:
        if self.channels:
            index = (index[:, None] * self.channels + torch.arange(self.channels, device=index.device)).flatten()
        return replace(self, inner=self.inner.select(index))

    def to(self, dtype: torch.dtype) -> PerChannelFunctional:
        return replace(self, inner=self.inner.to(dtype))

    def _of(self, u: Responses) -> ConvexFunctional:
        first = _first(u)
        return self._inner(first.shape, first.device)

    def _inner(self, shape: torch.Size, device: torch.device) -> ConvexFunctional:
        """The inner functional for a batch of all channels; its number is known from the picture only."""
        if shape[1] == 1 or self.channels:
            return self.inner
        return self.inner.select(torch.arange(shape[0], device=device).repeat_interleave(shape[1]))


class PullBack(ConvexRegularizer):
    r"""A regularizer of a linear map of the picture: :math:`R(x; \sigma) = R_0(A x; \sigma)`, A a deepinv physics.

    .. math::

        \nabla R(x) = A^T \nabla R_0(A x), \qquad L \le L_0 |A|^2, \qquad \mu \ge \mu_0 \lambda_{\min}(A^T A).

    For a complex picture :math:`x = |x| e^{i \varphi}` of MRI with a known phase :math:`\varphi`, A is the demodulation
    :math:`e^{-i \varphi}`, a rotation of the two channels in every pixel (as 2 x 2 matrices orthogonal, so that
    ``gram=(1, 1)``); the picture that :math:`R_0` sees is then real but for the error of the estimate.

    Parameters
    ----------
    regularizer : ConvexRegularizer
        :math:`R_0`, of pictures A x (B, C', H', W').
    physics : deepinv.physics.LinearPhysics
        A, a submodule, without its noise. Its adjoint must be exact (``check_regularizer`` measures it).
    batch : int
        number of images if the physics has parameters for each, as buffers with that many entries first; such a
        regularizer takes batches of this size only. 1: all images share A.
    gram : (float, float), optional
        bounds of :math:`A^T A` from below and above, where the caller can prove them. Default those known for
        deepinv's identity, circular blur and inpainting, else (0, inf).

    Raises
    ------
    TypeError
        if an argument is of the wrong class.
    ValueError
        if `batch` or `gram` is out of range; at the call, if A x is no picture that :math:`R_0` takes, or if the batch
        is not `batch`.
    """

    def __init__(
        self,
        regularizer: ConvexRegularizer,
        physics: Any,
        batch: int = 1,
        gram: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        _check_regularizer(regularizer)
        if not isinstance(physics, deepinv.physics.LinearPhysics):
            raise TypeError(f"physics: got {type(physics).__name__}, expected a deepinv.physics.LinearPhysics")
        if batch < 1:
            raise ValueError(f"batch: got {batch}, expected at least 1")
        if gram is not None and not 0 <= gram[0] <= gram[1]:
            raise ValueError(f"gram: got {gram}, expected two numbers 0 <= lower <= upper")
        self.regularizer, self.physics = regularizer, physics
        self.batch, self.gram, self.sigma_range = int(batch), gram, regularizer.sigma_range
        self.looseness = regularizer.looseness

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> PullBackFunctional:
        """The functional at sigma; `condition` goes to the inner regularizer."""
        return PullBackFunctional(
            inner=self.regularizer.at(sigma, condition),
            physics=self.physics,
            batch=self.batch,
            gram=self._gram,
            check=self.regularizer.check_image,
        )

    @property
    def _gram(self) -> tuple[float, float]:
        if self.gram is not None:
            return self.gram
        lower, upper = gram_bounds(self.physics).tolist()
        return lower, upper

    def condition(self, x: Tensor, sigma: float | Tensor, residual: Tensor) -> Tensor:
        """The condition of the inner regularizer for A x; the residual is mapped by A too: exact for orthogonal A."""
        return self.regularizer.condition(self.physics.A(x), sigma, self.physics.A(residual))

    def check_condition(self, condition: Tensor, x: Tensor) -> None:
        self.regularizer.check_condition(condition, self.physics.A(x))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PullBack:
        # Module.to(dtype) makes complex buffers real: a physics may have some.
        super()._apply(_complex_as_real(fn), recurse)
        return self


@dataclass(frozen=True, eq=False)
class PullBackFunctional(ComposedFunctional):
    """The functional of :class:`PullBack`; responses are those of `inner` to A x."""

    inner: ConvexFunctional
    physics: Any
    batch: int
    gram: tuple[float, float]
    """Rigorous lower and upper bound of A^T A."""
    check: Callable[[Tensor], None]
    shapes: dict[torch.Size, torch.Size] = field(default_factory=dict, repr=False)
    """Shapes of A x by those of x, without the batch: applying A is the only way to find them."""

    def linear_norm(self) -> Tensor:
        return _times(self.inner.linear_norm(), math.sqrt(self.gram[1]))

    def lipschitz(self) -> Tensor:
        return _times(self.inner.lipschitz(), self.gram[1])

    def strong_convexity(self) -> Tensor:
        return self.inner.strong_convexity() * self.gram[0]

    def select(self, index: Tensor) -> PullBackFunctional:
        inner = self.inner.select(index)
        if self.batch == 1:
            return replace(self, inner=inner)
        physics = of_images(self.physics, _entries(self.physics, self.batch), index)
        return replace(self, inner=inner, physics=physics, batch=len(index))

    def to(self, dtype: torch.dtype) -> PullBackFunctional:
        physics = self.physics if _precise(self.physics, dtype) else in_precision(self.physics, dtype)
        return replace(self, inner=self.inner.to(dtype), physics=physics)

    def map(self, x: Tensor) -> Tensor:
        if self.batch not in (1, len(x)):
            raise ValueError(f"x: got {len(x)} images, expected {self.batch}, for which the physics has parameters")
        # Complex parameters may be more precise than the picture.
        mapped: Tensor = self.physics.A(x).to(x.dtype)
        if len(mapped) != len(x):
            raise ValueError(
                f"physics: maps {len(x)} images to {len(mapped)}; expected as many"
                f" (batch={len(mapped)} if it has parameters for each image)"
            )
        self.check(mapped)
        self.shapes[x.shape[1:]] = mapped.shape[1:]
        return mapped

    def map_adjoint(self, z: Tensor, shape: torch.Size) -> Tensor:
        image: Tensor = self.physics.A_adjoint(z).to(z.dtype)
        if image.shape != shape:
            raise ValueError(f"physics: A_adjoint returns shape {tuple(image.shape)}, expected {tuple(shape)}")
        return image

    def mapped(self, shape: torch.Size, u: Responses) -> torch.Size:
        if shape[1:] not in self.shapes:
            self.map(_first(u).new_zeros(shape))
        return torch.Size((shape[0], *self.shapes[shape[1:]]))


def _check_regularizer(regularizer: ConvexRegularizer) -> None:
    if not isinstance(regularizer, ConvexRegularizer):
        raise TypeError(f"regularizer: got {type(regularizer).__name__}, expected a ConvexRegularizer")


def _times(bound: Tensor, factor: float) -> Tensor:
    """The product of bounds; zero times an unknown one is zero."""
    return torch.where(bound > 0, bound * factor, 0.0) if factor > 0 else torch.zeros_like(bound)


# --- channels as images ---


def _single(shape: torch.Size) -> torch.Size:
    """The shape of the channels as a batch of one-channel pictures."""
    return torch.Size((shape[0] * shape[1], 1, *shape[2:]))


def _map(u: Responses, f: Callable[[Tensor], Tensor]) -> Responses:
    return tuple(_map(part, f) for part in u) if isinstance(u, tuple) else f(u)


def _first(u: Responses) -> Tensor:
    while isinstance(u, tuple):
        u = u[0]
    return u


def _joined(u: Responses) -> Responses:
    """Responses (B, C, ...) as those of B C pictures, without a copy."""
    return _map(u, lambda part: part.flatten(0, 1))


def _split(u: Responses, like: Responses) -> Responses:
    channels = _first(like).shape[1]
    return _map(u, lambda part: part.unflatten(0, (-1, channels)))


def _summed(values: Tensor, u: Responses) -> Tensor:
    """Values of B C pictures, summed over the channels of each image."""
    return values.unflatten(0, (-1, _first(u).shape[1])).sum(1)


def _repeated(t: Tensor, u: Responses) -> Tensor:
    return t.repeat_interleave(_first(u).shape[1])


# --- parameters of a physics ---


def _complex_as_real(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Apply fn to complex tensors as pairs of real numbers."""

    def apply(t: Tensor) -> Tensor:
        if not t.is_complex():
            return fn(t)
        return torch.view_as_complex(fn(torch.view_as_real(t.resolve_conj())))

    return apply


def _precise(physics: Any, dtype: torch.dtype) -> bool:
    """Whether all parameters of a physics have the precision already."""
    tensors = [*physics.parameters(), *physics.buffers()]
    return all(t.real.dtype == dtype for t in tensors if t.is_floating_point() or t.is_complex())


def _entries(physics: Any, batch: int) -> tuple[str, ...]:
    """Names of the buffers of a physics with one entry for each image of a batch."""
    return tuple(name for name, buffer in physics.named_buffers() if buffer.ndim and len(buffer) == batch)
