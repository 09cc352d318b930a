"""Volumes restored by what is known of pictures: a regularizer of all slices along the three axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.functionals.functional import ConvexFunctional, HessianPart, Responses
from icgn.functionals.sums import SumFunctional
from icgn.functionals.wrapped import WrappedFunctional, first_of
from icgn.regularizers.bank import RESPONSES_LIMIT
from icgn.regularizers.base import ConvexRegularizer, check_image
from icgn.regularizers.pullback import PerChannelFunctional

# Pixels of the slices whose condition is computed at once.
_PIXELS = 1 << 18


class VolumeRegularizer(ConvexRegularizer):
    r"""A regularizer of volumes, by one of pictures: :math:`R(v; \sigma) = \sum_a w_a \sum_i R_2(v_{a,i}; \sigma)`.

    :math:`v_{a,i}` is slice i across the axis a of a volume: Z (depth), Y (height) or X (width), and the weights
    :math:`w_a` have the sum 1. Lipschitz constants and moduli are the mean of those of :math:`R_2`, so that it is
    certified by the same solvers. For them a volume is one picture of D channels (B, D, H, W); the volumes
    (B, C, D, H, W) of deepinv's 3-D physics are taken too, each channel on its own.

    A conditional :math:`R_2` has masks for every slice of each direction: the condition (B, C, J, K, D, H, W) holds
    those of J directions and K filters at every voxel.

    Parameters
    ----------
    regularizer : ConvexRegularizer
        :math:`R_2`, of one channel.
    spacing : (float, float, float), optional
        the distances of neighbouring voxels along Z, Y and X, in any unit. Networks know pictures with square pixels,
        so the slices across an axis count by how square theirs are: :math:`w_a \propto s_{min} / s_{max}` of the
        two spacings within the slice. Default equal.
    weights : (float, float, float), optional
        of the slices across Z, Y and X instead, nonnegative, which are divided by their sum; 0 leaves slices out.

    Raises
    ------
    TypeError
        if `regularizer` is none.
    ValueError
        if it takes another number of channels, for weights or spacings that are none, or both; at the call, for a
        volume that is thinner than the filters along an axis that slices contain.

    Examples
    --------
    >>> import icgn, torch
    >>> reg = icgn.VolumeRegularizer(icgn.TotalVariation())
    >>> y = torch.rand(1, 8, 9, 10, generator=torch.Generator().manual_seed(0))
    >>> solution = icgn.denoise(y, 0.1, regularizer=reg, tol=1e-3)
    >>> tuple(solution.x.shape), bool(solution.certificate.rms_distance[0] <= 1e-3)
    ((1, 8, 9, 10), True)
    """

    @keyword_only
    def __init__(
        self,
        regularizer: ConvexRegularizer,
        *,
        spacing: Sequence[float] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(regularizer, ConvexRegularizer):
            raise TypeError(f"regularizer: got {type(regularizer).__name__}, expected a ConvexRegularizer")
        if regularizer.channels not in (None, 1):
            raise ValueError(f"regularizer: got one of {regularizer.channels} channels, expected one of one channel")
        if spacing is not None and weights is not None:
            raise ValueError("weights: got spacing too, expected one of the two")
        self.regularizer = regularizer
        self.min_size, self.sigma_range = regularizer.min_size, regularizer.sigma_range
        self.looseness = regularizer.looseness
        self.weights = direction_weights(spacing) if weights is None else _shares(weights)

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes (0: Z, 1: Y, 2: X) across which slices count."""
        return tuple(a for a, w in enumerate(self.weights) if w > 0)

    def check_image(self, x: Tensor) -> None:
        """Raise ``TypeError`` or ``ValueError`` unless x is a batch of volumes, (B, D, H, W) or (B, C, D, H, W)."""
        check_image(x[:, 0] if isinstance(x, Tensor) and x.ndim == 5 and x.shape[1] else x)
        sides = x.shape[-3:]
        inside = [s for a, s in enumerate(sides) if any(b != a for b in self.axes)]
        if min(inside) < self.min_size:
            raise ValueError(
                f"x: got {' x '.join(map(str, sides))} voxels, expected at least {self.min_size} along each axis"
                f" (the filter size of {type(self.regularizer).__name__}); weights=(1, 0, 0) takes slices across Z"
                " only, and total variation takes any size (TotalVariation, --model tv)"
            )
        for axis in self.axes:
            self.regularizer.check_image(slices(x, axis)[:, :1])

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> VolumeFunctional:
        """The functional at sigma, which all slices of a volume share; see the class for the condition."""
        if condition is None:
            inner = PerChannelFunctional(self.regularizer.at(sigma))
            parts = [inner] * len(self.axes)
        else:
            parts = [self._conditioned(sigma, condition, j) for j in range(len(self.axes))]
        terms = [SlicesFunctional(part, axis) for part, axis in zip(parts, self.axes, strict=True)]
        return VolumeFunctional(terms, [torch.tensor(self.weights[a], dtype=torch.float64) for a in self.axes])

    def condition(self, x: Tensor, sigma: float | Tensor, residual: Tensor) -> Tensor:
        """The condition that :math:`R_2` computes for every slice, from all that the data ask for there.

        Parameters
        ----------
        x : Tensor
            the solution, (B, D, H, W) or (B, C, D, H, W).
        sigma : float or Tensor
            noise level, in intensities, one or one per volume.
        residual : Tensor
            the negative gradient of the data term at x, over the weight of the regularizer, shape of x.
        """
        self.check_image(x)
        whole: Tensor | None = None
        for c in range(_channels(x)):
            own, rest = (t if t.ndim == 4 else t[:, c] for t in (x, residual))
            for j, axis in enumerate(self.axes):
                for start, masks in self._masks(slices(own, axis), sigma, slices(rest, axis)):
                    if whole is None:  # filled part by part: masks are many times as large as the volume
                        sizes = len(x), _channels(x), len(self.axes), masks.shape[2]
                        whole = masks.new_empty(*sizes, *x.shape[-3:])
                    target = whole[:, c, j].movedim(2 + axis, 2).movedim(2, 1)
                    target[:, start : start + masks.shape[1]] = masks
        assert whole is not None
        return whole

    def check_condition(self, condition: Tensor, x: Tensor) -> None:
        """Raise ``ValueError`` unless a condition is for volumes of the size and number of x."""
        if not self.looseness:
            self._refuse_condition(condition)
        self._check_rank(condition)
        size = (condition.shape[1], *condition.shape[-3:])
        if size != (_channels(x), *x.shape[-3:]) or len(condition) not in (1, len(x)):
            found = tuple(condition.shape)
            raise ValueError(f"condition: got shape {found}, expected one for volumes {tuple(x.shape)}")

    def _masks(self, seen: Tensor, sigma: float | Tensor, rest: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The conditions of slices, some at a time: the number of the first of them, and (B, n, K, height, width)."""
        step = max(1, _PIXELS // (len(seen) * seen.shape[-2] * seen.shape[-1]))
        for start in range(0, seen.shape[1], step):
            part, own = (t[:, start : start + step] for t in (seen, rest))
            levels = _repeated(sigma, part.shape[1])
            assert levels is not None
            masks = self.regularizer.condition(_batch(part), levels, _batch(own))
            yield start, masks.unflatten(0, (-1, part.shape[1]))

    def _conditioned(self, sigma: float | Tensor | None, condition: Tensor, place: int) -> PerChannelFunctional:
        self._check_rank(condition)
        axis = self.axes[place]
        masks = condition[:, :, place].movedim(3 + axis, 3).movedim(2, 3).flatten(1, 2)
        if isinstance(sigma, Tensor) and len(masks) == 1:
            masks = masks.expand(sigma.numel(), *masks.shape[1:])
        count = masks.shape[1]
        kind = SharedSlicesFunctional if len(masks) == 1 else PerChannelFunctional
        return kind(self.regularizer.at(_repeated(sigma, count), masks.flatten(0, 1)), count)

    def _check_rank(self, condition: Tensor) -> None:
        if condition.ndim != 7 or condition.shape[2] != len(self.axes):
            raise ValueError(
                f"condition: got shape {tuple(condition.shape)}, expected (B, C, {len(self.axes)}, K, D, H, W)"
            )


@dataclass(frozen=True, eq=False)
class VolumeFunctional(SumFunctional):
    """The sum over the directions of :class:`VolumeRegularizer`; they share what memory there is for responses."""

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> None:
        """None: that of a volume is a part of its own, see :meth:`hessian_parts`."""
        return

    def hessian_parts(self, u: Responses, shape: torch.Size) -> tuple[HessianPart, ...] | None:
        """One convolution in three dimensions, with its size at each voxel, of volumes (B, D, H, W)."""
        if len(shape) != 4:
            return None
        spectra, sizes = [], []
        for term, uj, weight in zip(self.terms, u, self.weights, strict=True):
            assert isinstance(term, SlicesFunctional)
            found = term.hessian_of_slices(uj, shape)
            if found is None:
                return None
            spectra.append(weight.to(found[0]) * found[0])
            sizes.append(None if found[1] is None else weight.to(found[1]) * found[1])
        known = [s for s in sizes if s is not None]
        density = sum(known[1:], known[0]) if len(known) == len(sizes) else None
        if density is not None:
            mean = density.mean((1, 2, 3), keepdim=True)
            density = torch.where(mean > 0, density / mean, 1.0)
        return (HessianPart(sum(spectra[1:], spectra[0]), density, solid=True),)

    def blockwise(self, shape: torch.Size, limit: int | None = None) -> VolumeFunctional:
        share = (RESPONSES_LIMIT if limit is None else limit) // len(self.terms)
        return replace(self, terms=tuple(g.blockwise(shape, share) for g in self.terms))


@dataclass(frozen=True, eq=False)
class SharedSlicesFunctional(PerChannelFunctional):
    """The sum over slices, which differ in their condition; all volumes of a batch have the same."""

    def of(self, like: Tensor) -> ConvexFunctional:
        """The inner functional for the slices of all volumes."""
        if len(like) == 1:
            return self.inner
        return self.inner.select(torch.arange(self.channels, device=like.device).repeat(len(like)))

    def select(self, index: Tensor) -> SharedSlicesFunctional:
        return self


@dataclass(frozen=True, eq=False)
class SlicesFunctional(WrappedFunctional):
    """The function of all slices across an axis of volumes; `inner` takes slices as the channels of a picture.

    The map to slices is a permutation of voxels, its adjoint the inverse, so that all constants stay.
    """

    axis: int

    def map(self, x: Tensor) -> Tensor:
        return slices(x, self.axis)

    def map_adjoint(self, z: Tensor, shape: torch.Size) -> Tensor:
        channels = shape[1] if len(shape) == 5 else 1
        return z.unflatten(1, (channels, -1)).movedim(2, 2 + self.axis).reshape(shape)

    def mapped(self, shape: torch.Size) -> torch.Size:
        return slices(torch.empty(shape, device="meta"), self.axis).shape

    def hessian_of_slices(self, u: Responses, shape: torch.Size) -> tuple[Tensor, Tensor | None] | None:
        """The mean spectrum of the slices of volumes of that shape, (B or 1, 1, D, H, W // 2 + 1) or to be broadcast.

        And their size at each voxel, (B, D, H, W). None where the spectrum of slices is not known.
        """
        seen, inner = self.mapped(shape), self.inner
        assert isinstance(inner, PerChannelFunctional)
        single = torch.Size((seen[0] * seen[1], 1, *seen[2:]))
        of_slices, responses = inner.of(first_of(u)), inner.into(u)
        spectrum = of_slices.hessian_spectrum(responses, single)
        if spectrum is None or spectrum.ndim != 4:
            return None
        spectrum = spectrum.expand(single[0], 1, *spectrum.shape[2:])
        density = of_slices.hessian_density(responses, single)
        if density is not None:
            size = density * spectrum.mean((2, 3), keepdim=True)
            density = self.map_adjoint(size.expand(single).reshape(seen), shape)
        mean = spectrum.unflatten(0, (seen[0], seen[1])).mean(1)
        if self.axis == 2:  # slices (Z, Y), of which half of the frequencies along Y are given
            mean = _all_columns(mean, shape[-2])
        return mean.unsqueeze(2 + self.axis), density

    def linear_norm(self) -> Tensor:
        return self.inner.linear_norm()

    def lipschitz(self) -> Tensor:
        return self.inner.lipschitz()

    def strong_convexity(self) -> Tensor:
        return self.inner.strong_convexity()

    def hessian_floor(self, x: Tensor) -> Tensor:
        seen = self.map(x)
        return self.map_adjoint(self.inner.hessian_floor(seen).expand(seen.shape), x.shape)


def _all_columns(spectrum: Tensor, width: int) -> Tensor:
    """A real spectrum (..., height, width // 2 + 1) on all frequencies of both axes."""
    if spectrum.shape[-2:] == (1, 1):
        return spectrum
    opposite = spectrum.flip(-2).roll(1, -2)[..., 1 : (width + 1) // 2].flip(-1)
    return torch.cat([spectrum, opposite], -1)


def slices(x: Tensor, axis: int) -> Tensor:
    """The slices across an axis of volumes, (B, n, height, width).

    Parameters
    ----------
    x : Tensor
        volumes (B, D, H, W), or (B, C, D, H, W): those of the first channel come first.
    axis : int
        0, 1, 2 for Z, Y, X. The slices are (Y, X), (Z, X) or (Z, Y) pictures.
    """
    whole = x if x.ndim == 5 else x[:, None]
    return whole.movedim(2 + axis, 2).flatten(1, 2)


def direction_weights(spacing: Sequence[float] | None = None) -> tuple[float, float, float]:
    """Weights, of sum 1, of the slices across Z, Y and X of voxels with such distances along Z, Y and X.

    Parameters
    ----------
    spacing : (float, float, float), optional
        the distances, in any unit; default equal.

    Raises
    ------
    ValueError
        unless they are three positive numbers.
    """
    if spacing is None:
        return _shares((1.0, 1.0, 1.0))
    if len(spacing) != 3 or not all(0 < s < math.inf for s in spacing):
        raise ValueError(f"spacing: got {tuple(spacing)}, expected three positive numbers, those along Z, Y and X")
    inside = [[s for b, s in enumerate(spacing) if b != a] for a in range(3)]
    return _shares([min(pair) / max(pair) for pair in inside])


def _shares(weights: Sequence[float]) -> tuple[float, float, float]:
    if len(weights) != 3 or not all(0 <= w < math.inf for w in weights) or not sum(weights) > 0:
        raise ValueError(f"weights: got {tuple(weights)}, expected three numbers >= 0, not all 0, for Z, Y and X")
    z, y, x = (float(w) / sum(weights) for w in weights)
    return z, y, x


def _channels(x: Tensor) -> int:
    """How many volumes an entry of a batch has."""
    return x.shape[1] if x.ndim == 5 else 1


def _batch(pictures: Tensor) -> Tensor:
    """Slices (B, n, height, width) as a batch of pictures."""
    return pictures.flatten(0, 1)[:, None]


def _repeated(sigma: float | Tensor | None, count: int) -> float | Tensor | None:
    """Levels of volumes as those of their slices."""
    if isinstance(sigma, Tensor) and sigma.numel() > 1:
        return sigma.reshape(-1).repeat_interleave(count)
    return sigma
