"""Regularizers applied to another picture than the one sought: to each of its channels, or to a linear map of it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import deepinv
import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.functionals.functional import ConvexFunctional, Joint, Responses, colour_basis, map_responses
from icgn.functionals.physics import gram_bounds, in_precision, of_images
from icgn.functionals.wrapped import WrappedFunctional, first_of
from icgn.regularizers.base import ConvexRegularizer


class WrappedRegularizer(ConvexRegularizer):
    """A regularizer made from an inner one, which sees another picture; the inner one answers for conditions."""

    def __init__(self, regularizer: ConvexRegularizer) -> None:
        super().__init__()
        if not isinstance(regularizer, ConvexRegularizer):
            raise TypeError(f"regularizer: got {type(regularizer).__name__}, expected a ConvexRegularizer")
        self.regularizer = regularizer
        self.sigma_range, self.looseness = regularizer.sigma_range, regularizer.looseness

    @abstractmethod
    def pictures(self, x: Tensor) -> Tensor:
        """The pictures that the inner regularizer sees of images x (B, C, H, W)."""

    def differences(self, d: Tensor) -> Tensor:
        """The differences of pictures that the inner regularizer sees of differences of images."""
        return self.pictures(d)

    def levels(self, sigma: float | Tensor | None, channels: int) -> float | Tensor | None:
        """The noise levels of these pictures, for images of so many channels."""
        return sigma

    def inner_condition(self, condition: Tensor) -> Tensor:
        """A condition as the inner regularizer takes it."""
        return condition

    def outer_condition(self, condition: Tensor, channels: int) -> Tensor:
        """A condition of the inner regularizer as this one gives it, for images of so many channels."""
        return condition

    def condition(self, x: Tensor, sigma: float | Tensor, residual: Tensor) -> Tensor:
        """The condition that the inner regularizer computes for its pictures; see :class:`ConvexRegularizer`."""
        self.check_image(x)
        levels = self.levels(sigma, x.shape[1])
        assert levels is not None
        found = self.regularizer.condition(self.pictures(x), levels, self.differences(residual))
        return self.outer_condition(found, x.shape[1])

    def check_condition(self, condition: Tensor, x: Tensor) -> None:
        self.regularizer.check_condition(self.inner_condition(condition), self.pictures(x))


class PerChannel(WrappedRegularizer):
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
        super().__init__(regularizer)
        if regularizer.channels not in (None, 1):
            raise ValueError(f"regularizer: got one of {regularizer.channels} channels, expected one of one channel")
        self.min_size = regularizer.min_size

    def check_image(self, x: Tensor) -> None:
        super().check_image(x)
        self.regularizer.check_image(x[:, :1])

    def pictures(self, x: Tensor) -> Tensor:
        return x.reshape(_single(x.shape))

    def levels(self, sigma: float | Tensor | None, channels: int) -> float | Tensor | None:
        many = isinstance(sigma, Tensor) and sigma.numel() > 1
        return sigma.reshape(-1).repeat_interleave(channels) if many else sigma  # type: ignore[union-attr]

    def inner_condition(self, condition: Tensor) -> Tensor:
        if condition.ndim < 2:
            raise ValueError(f"condition: got shape {tuple(condition.shape)}, expected (B, C, ...)")
        return condition.flatten(0, 1)

    def outer_condition(self, condition: Tensor, channels: int) -> Tensor:
        return condition.unflatten(0, (-1, channels))

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> PerChannelFunctional:
        """The functional at sigma, which all channels of a picture share.

        The condition of a conditional regularizer has one part per channel, (B, C, ...).
        """
        if condition is None:
            return PerChannelFunctional(self.regularizer.at(sigma))
        inner = self.inner_condition(condition)
        channels = condition.shape[1]
        return PerChannelFunctional(self.regularizer.at(self.levels(sigma, channels), inner), channels)


@dataclass(frozen=True, eq=False)
class PerChannelFunctional(WrappedFunctional):
    """The sum over the channels of :class:`PerChannel`: `inner` sees each channel as a picture of its own.

    Responses are those of `inner` with the batch (B C, ...) split into (B, C, ...). With `channels` C > 0 `inner` is
    the functional of B C pictures already, which differ in more than sigma; with 0 it is that of B.
    """

    channels: int = 0

    def map(self, x: Tensor) -> Tensor:
        return x.reshape(_single(x.shape))

    def map_adjoint(self, z: Tensor, shape: torch.Size) -> Tensor:
        return z.reshape(shape)

    def mapped(self, shape: torch.Size) -> torch.Size:
        return _single(shape)

    def of(self, like: Tensor) -> ConvexFunctional:
        """The inner functional for a batch of all channels; their number is known from the picture only."""
        if like.shape[1] == 1 or self.channels:
            return self.inner
        return self.inner.select(torch.arange(len(like), device=like.device).repeat_interleave(like.shape[1]))

    def into(self, u: Responses) -> Responses:
        return self.along(u)

    def along(self, q: Responses) -> Responses:
        """Responses (B, C, ...) as those of B C pictures, without a copy."""
        return map_responses(q, lambda part: part.flatten(0, 1))

    def back(self, u: Responses, like: Tensor) -> Responses:
        return map_responses(u, lambda part: part.unflatten(0, (-1, like.shape[1])))

    def each(self, t: Tensor, like: Tensor) -> Tensor:
        return t.repeat_interleave(like.shape[1])

    def total(self, values: Tensor, like: Tensor) -> Tensor:
        return values.unflatten(0, (-1, like.shape[1])).sum(1)

    def over_latents(self, shape: torch.Size) -> Joint | None:
        """Every channel has latent pictures of its own: those of the first come first."""
        like = torch.empty(shape[:2], device=self.inner.strong_convexity().device)
        inner = self.of(like).over_latents(_single(shape))
        if inner is None:
            return None
        channels = shape[1]
        functional = JointPerChannelFunctional(inner.functional, channels, inner.latents)
        return Joint(functional, channels, channels * inner.latents)

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        """The spectra of the channels, as the diagonal they have in the colours of :func:`colour_basis`."""
        spectrum = self.of(first_of(u)).hessian_spectrum(self.into(u), _single(shape))
        return None if spectrum is None else _in_colours(spectrum, shape[1])

    def hessian_density(self, u: Responses, shape: torch.Size) -> Tensor | None:
        """The densities of the channels, as those of the colours of :func:`colour_basis`."""
        density = self.of(first_of(u)).hessian_density(self.into(u), _single(shape))
        return None if density is None else _in_colours(density, shape[1])

    def linear_norm(self) -> Tensor:
        return self._constant(self.inner.linear_norm()).amax(-1)

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
        return self.of(x).hessian_floor(x.reshape(single)).expand(single).reshape(x.shape)

    def select(self, index: Tensor) -> PerChannelFunctional:
        if self.channels:
            index = (index[:, None] * self.channels + torch.arange(self.channels, device=index.device)).flatten()
        return super().select(index)


@dataclass(frozen=True, eq=False)
class JointPerChannelFunctional(PerChannelFunctional):
    """The sum over the channels of a function of (x_c, z_c), as one of (x, z): pictures (B, C + C K, H, W)."""

    latents: int = 0

    def map(self, x: Tensor) -> Tensor:
        channels = self.channels
        own = x[:, :channels].flatten(0, 1)[:, None]
        return torch.cat([own, x[:, channels:].unflatten(1, (channels, self.latents)).flatten(0, 1)], 1)

    def map_adjoint(self, z: Tensor, shape: torch.Size) -> Tensor:
        parts = z.unflatten(0, (-1, self.channels))
        return torch.cat([parts[:, :, 0], parts[:, :, 1:].flatten(1, 2)], 1)

    def mapped(self, shape: torch.Size) -> torch.Size:
        return torch.Size((shape[0] * self.channels, 1 + self.latents, *shape[2:]))

    def over_latents(self, shape: torch.Size) -> None:
        return None

    def back(self, u: Responses, like: Tensor) -> Responses:
        return map_responses(u, lambda part: part.unflatten(0, (-1, self.channels)))

    def hessian_floor(self, x: Tensor) -> Tensor:
        seen = self.map(x)
        return self.map_adjoint(self.inner.hessian_floor(seen).to(x).expand_as(seen), x.shape)

    def hessian_density(self, u: Responses, shape: torch.Size) -> None:
        return None

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        """The matrices of the channels, each coupled with its latent pictures only."""
        spectrum = self.inner.hessian_spectrum(self.into(u), self.mapped(shape))
        if spectrum is None:
            return None
        channels, latents = self.channels, self.latents
        blocks = spectrum.unflatten(0, (-1, channels))
        whole = blocks.new_zeros(len(blocks), shape[1], shape[1], *blocks.shape[4:])
        for c in range(channels):
            at = torch.tensor([c, *range(channels + c * latents, channels + (c + 1) * latents)], device=blocks.device)
            whole[:, at[:, None], at[None]] = blocks[:, c]
        return whole


class PullBack(WrappedRegularizer):
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

    @keyword_only
    def __init__(
        self,
        regularizer: ConvexRegularizer,
        physics: Any,
        *,
        batch: int = 1,
        gram: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(regularizer)
        if not isinstance(physics, deepinv.physics.LinearPhysics):
            raise TypeError(f"physics: got {type(physics).__name__}, expected a deepinv.physics.LinearPhysics")
        if batch < 1:
            raise ValueError(f"batch: got {batch}, expected at least 1")
        if gram is not None and not 0 <= gram[0] <= gram[1]:
            raise ValueError(f"gram: got {gram}, expected two numbers 0 <= lower <= upper")
        self.physics, self.batch, self.gram = physics, int(batch), gram

    def pictures(self, x: Tensor) -> Tensor:
        """The pictures A x; of residuals too, which is exact for orthogonal A."""
        mapped: Tensor = self.physics.A(x)
        return mapped

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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PullBack:
        # Module.to(dtype) makes complex buffers real: a physics may have some.
        super()._apply(_complex_as_real(fn), recurse)
        return self


@dataclass(frozen=True, eq=False)
class PullBackFunctional(WrappedFunctional):
    """The functional of :class:`PullBack`; responses are those of `inner` to A x."""

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
        selected = super().select(index)
        if self.batch == 1:
            return selected
        physics = of_images(self.physics, _entries(self.physics, self.batch), index)
        return replace(selected, physics=physics, batch=len(index))

    def to(self, dtype: torch.dtype) -> PullBackFunctional:
        physics = self.physics if _precise(self.physics, dtype) else in_precision(self.physics, dtype)
        return replace(super().to(dtype), physics=physics)

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

    def mapped(self, shape: torch.Size) -> torch.Size:
        if shape[1:] not in self.shapes:
            like = next((t for t in (*self.physics.parameters(), *self.physics.buffers())), torch.zeros(()))
            dtype = like.dtype.to_real() if like.is_floating_point() or like.is_complex() else torch.float32
            self.map(torch.zeros(shape, dtype=dtype, device=like.device))
        return torch.Size((shape[0], *self.shapes[shape[1:]]))


def _times(bound: Tensor, factor: float) -> Tensor:
    """The product of bounds; zero times an unknown one is zero."""
    return torch.where(bound > 0, bound * factor, 0.0) if factor > 0 else torch.zeros_like(bound)


def _in_colours(diagonal: Tensor, channels: int) -> Tensor:
    """A diagonal of each channel (B C, 1, H, W) as the one that images have in the colours of :func:`colour_basis`."""
    if len(diagonal) == 1:
        # One for all channels is the same in every basis.
        return diagonal
    diagonal = diagonal.squeeze(1).unflatten(0, (-1, channels))
    return torch.einsum("dc,bchw->bdhw", colour_basis(diagonal).square(), diagonal)


def _single(shape: torch.Size) -> torch.Size:
    """The shape of the channels as a batch of one-channel pictures."""
    return torch.Size((shape[0] * shape[1], 1, *shape[2:]))


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
