"""Convolutions that resemble an inverse Hessian, place by place: nothing proved depends on them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from icgn.functionals.functional import ConvexFunctional, HessianPart, Responses, colour_basis, per_image
from icgn.functionals.sums import sum_of_spectra

# A spectrum is kept above this part of its largest entry: it only resembles that of the Hessian, and may vanish where
# the Hessian does not.
_FLOOR = 1e-3
# Sizes of the Hessian over their mean for which it is inverted; between them pixels belong to both.
_SIZES = (0.1, 1.0)
# Where the spectrum of a part changes by more than this from one frequency to the next, over its mean, its inverse
# reaches over the whole picture (lines of k-space that are not measured), and one convolution serves all pixels.
_SHARP = 0.5
# A part that makes up less than this of the Hessian counts as even: known and missing pixels, for example, are coupled
# where the data term is weak.
_SHARE = 0.28
# Parts of a Hessian whose size may differ from pixel to pixel: every one multiplies the number of inverses.
_UNEVEN = 2


@dataclass(frozen=True)
class Preconditioner:
    r"""The symmetric, positive definite operator :math:`P = \sum_j D_j C_j D_j`, which resembles an inverse Hessian.

    The Hessian of a sum of data term and regularizer resembles :math:`\sum_i \rho_i S_i`, convolutions :math:`S_i`
    whose size :math:`\rho_i` differs from pixel to pixel: a learned regularizer bends little at edges and much in flat
    parts.
    :math:`C_j` is the inverse of :math:`\sum_i r_{ij} S_i` for a few fixed sizes r, and :math:`D_j^2` the share that a
    pixel has of them, so that :math:`\sum_j D_j^2 = 1`.

    Attributes
    ----------
    inverses : tuple of Tensor
        spectra of the :math:`C_j`: one number per channel, (B, C, H, W // 2 + 1), or a matrix,
        (B, C, C, H, W // 2 + 1), for each frequency; of volumes (B, 1, D, H, W // 2 + 1).
    shares : tuple of Tensor
        the :math:`D_j`, (B, C or 1, H, W), in the same colours, of volumes (B, 1, D, H, W); empty where one convolution
        serves all pixels.
    size : tuple of int
        rows and columns that the spectra belong to, of volumes (B, D, H, W) the depth before them, to which images are
        extended by zeros: the least numbers that are fast to transform (321 x 481, or 3 * 107 by 13 * 37, takes eight
        times as long as 324 x 486).
    """

    inverses: tuple[Tensor, ...]
    shares: tuple[Tensor, ...]
    size: tuple[int, ...]

    def apply(self, g: Tensor) -> Tensor:
        """The preconditioned images P g."""
        if len(self.size) == 3:
            return self._applied(g[:, None])[:, 0]
        coupled = self.inverses[0].ndim == 5
        basis = None if coupled or g.shape[1] == 1 else colour_basis(g)
        v = g if basis is None else torch.einsum("dc,bchw->bdhw", basis, g)
        v = self._applied(v)
        return v if basis is None else torch.einsum("dc,bdhw->bchw", basis, v)

    def _applied(self, v: Tensor) -> Tensor:
        """Images of the channels of the spectra, preconditioned."""
        if not self.shares:
            return self._convolved(v, self.inverses[0])
        parts = zip(self.inverses, self.shares, strict=True)
        return torch.stack([d * self._convolved(d * v, c) for c, d in parts]).sum(0)

    def take(self, index: Tensor) -> Preconditioner:
        """That of the images of an index."""
        return Preconditioner(tuple(c[index] for c in self.inverses), tuple(d[index] for d in self.shares), self.size)

    def put(self, index: Tensor, other: Preconditioner) -> Preconditioner:
        """That with the images of an index from another one, which may be of another size."""
        inverses = (_resampled(c, other.size, self.size) for c in other.inverses)
        return Preconditioner(
            tuple(a.index_copy(0, index, b) for a, b in zip(self.inverses, inverses, strict=True)),
            tuple(a.index_copy(0, index, b) for a, b in zip(self.shares, other.shares, strict=True)),
            self.size,
        )

    def _convolved(self, v: Tensor, spectrum: Tensor) -> Tensor:
        """Images convolved with a spectrum, each channel with its own, or with matrices of channels."""
        axes = tuple(range(-len(self.size), 0))
        transform = torch.fft.rfftn(v, s=self.size, dim=axes)
        if len(self.size) == 2 and spectrum.ndim == 5:
            transform = torch.einsum("bcdhw,bdhw->bchw", spectrum, transform.to(spectrum))
        else:
            transform = transform * spectrum
        back = torch.fft.irfftn(transform, s=self.size, dim=axes)
        return back[(..., *(slice(n) for n in v.shape[-len(self.size) :]))]


def preconditioner_at(objective: ConvexFunctional, u: Responses, x: Tensor) -> Preconditioner | None:
    """A preconditioner at responses u of images x, if something is known of the Hessian."""
    parts = objective.hessian_parts(u, x.shape)
    if parts is None:
        return None
    solid = any(part.solid for part in parts)
    # For what follows slices lie below each other, in one picture.
    given, seen = (x.shape[1:], x.flatten(1, 2)[:, None]) if solid else (x.shape[-2:], x)
    parts = tuple(_flat(part, x) for part in parts) if solid else parts
    local = _local(parts, seen)
    densities = _densities(parts, local, seen)
    choices = list(itertools.product(range(len(_SIZES)), repeat=len(densities)))
    inverses = [_inverse(_sized(parts, dict(zip(densities, choice, strict=True)), seen)) for choice in choices]
    shares = [_share(list(densities.values()), choice, seen) for choice in choices] if densities else []
    if solid:
        inverses, shares = ([t.unflatten(2, (len(x[0]), -1)) for t in found] for found in (inverses, shares))
    size = tuple(next_fast_len(n, real=True) for n in given) if bool(local.all()) else tuple(given)
    return Preconditioner(tuple(_resampled(inverse, given, size) for inverse in inverses), tuple(shares), size)


def _flat(part: HessianPart, x: Tensor) -> HessianPart:
    """A part of a Hessian for volumes x as one for pictures in which their slices lie below each other."""
    spectrum, density = part.spectrum, part.density
    if not part.solid:
        spectrum = spectrum.mean(1, keepdim=True)[:, :, None].expand(-1, -1, x.shape[1], *x.shape[-2:-1], -1)
        density = None if density is None else density.expand(-1, x.shape[1], -1, -1)
    return HessianPart(spectrum.flatten(2, 3), None if density is None else density.flatten(1, 2)[:, None])


def apply_preconditioner(preconditioner: Preconditioner | None, g: Tensor) -> Tensor:
    """The preconditioned images P g, g itself where there is none."""
    return g if preconditioner is None else preconditioner.apply(g)


def _local(parts: Sequence[HessianPart], x: Tensor) -> Tensor:
    """The images like x in which no spectrum jumps between neighbouring frequencies, bool (B,)."""
    return ~torch.stack([_is_sharp(part.spectrum).expand(len(x)) for part in parts]).any(0)


def _densities(parts: Sequence[HessianPart], local: Tensor, x: Tensor) -> dict[int, Tensor]:
    """The densities, by the number of the part, that are followed in images like x; 1 in images where they are not."""
    means = torch.stack([_per_image(part.spectrum, torch.Tensor.mean).expand(len(x)) for part in parts])
    coupled = any(part.spectrum.ndim == 5 for part in parts)
    found: dict[int, Tensor] = {}
    for i, (part, mean) in enumerate(zip(parts, means, strict=True)):
        followed = local & (mean >= _SHARE * means.sum(0))
        if part.density is not None and len(found) < _UNEVEN and bool(followed.any()):
            density = part.density.mean(1, keepdim=True) if coupled else part.density
            found[i] = torch.where(per_image(followed, x).bool(), density.to(x), 1.0)
    return found


def _sized(parts: Sequence[HessianPart], chosen: Mapping[int, int], x: Tensor) -> Tensor:
    """The spectrum of all parts for images like x, some parts being of one of the sizes."""
    sized = [part.spectrum * (_SIZES[chosen[i]] if i in chosen else 1.0) for i, part in enumerate(parts)]
    total = sum_of_spectra(sized, x.shape[1])
    return total.expand(len(x), *[-1] * (total.ndim - 1))


def _share(densities: Sequence[Tensor], choice: Sequence[int], x: Tensor) -> Tensor:
    """The square root of the share (B, C or 1, H, W) that pixels have of a choice of one size for each part."""
    share = torch.ones_like(x[:, :1])
    for density, chosen in zip(densities, choice, strict=True):
        share = share * _near(density, chosen)
    return share.sqrt()


def _near(density: Tensor, chosen: int) -> Tensor:
    """The share that pixels of some sizes have of a fixed one: linear in the logarithm, of sum 1 over all of them."""
    logs = [math.log(size) for size in _SIZES]
    place = density.clamp(_SIZES[0], _SIZES[-1]).log()
    share = torch.ones_like(place)
    if chosen > 0:
        share = share.minimum((place - logs[chosen - 1]) / (logs[chosen] - logs[chosen - 1]))
    if chosen < len(logs) - 1:
        share = share.minimum((logs[chosen + 1] - place) / (logs[chosen + 1] - logs[chosen]))
    return share.clamp(0, 1)


def _is_sharp(spectrum: Tensor) -> Tensor:
    """Whether the spectrum of each image jumps between neighbouring frequencies, (B,) or (1,)."""
    total = _per_image(spectrum, torch.Tensor.sum)
    changes = (_per_image(spectrum.diff(dim=axis).abs(), torch.Tensor.sum) for axis in (-2, -1))
    return torch.maximum(*changes) > _SHARP * total


def _per_image(spectrum: Tensor, reduce: Callable[..., Tensor]) -> Tensor:
    """A number for each image of a spectrum, or of the diagonal of its matrices."""
    numbers = spectrum if spectrum.ndim == 4 else spectrum.diagonal(dim1=1, dim2=2)
    return reduce(numbers.abs(), tuple(range(1, numbers.ndim)))


def _inverse(spectrum: Tensor) -> Tensor:
    """The inverse of a spectrum, or of the matrices of one, kept away from 0."""
    if spectrum.ndim == 4:
        floor = _FLOOR * spectrum.amax((1, 2, 3), keepdim=True)
        return torch.maximum(spectrum, floor).reciprocal()
    matrix = spectrum.movedim((1, 2), (-2, -1))
    largest = matrix.diagonal(dim1=-2, dim2=-1).real.flatten(1).amax(1)
    identity = torch.eye(matrix.shape[-1]).to(matrix)
    inverse = torch.linalg.inv(matrix + _FLOOR * largest.reshape(-1, 1, 1, 1, 1) * identity)
    return inverse.movedim((-2, -1), (1, 2))


def _resampled(spectrum: Tensor, given: Sequence[int], size: Sequence[int]) -> Tensor:
    """A spectrum for images of one size as one for images of another, linear between frequencies: > 0 stays so."""
    exact = {"device": spectrum.device, "dtype": torch.float64}
    for axis, (before, after) in enumerate(zip(given, size, strict=True), -len(size)):
        if before != after and spectrum.shape[axis] > 1:
            frequencies = torch.fft.rfftfreq if axis == -1 else torch.fft.fftfreq
            places = frequencies(after, 1 / before, **exact)
            spectrum = _between(spectrum, axis, places if axis == -1 else places % before)
    return spectrum


def _between(spectrum: Tensor, axis: int, places: Tensor) -> Tensor:
    """The entries of a spectrum along an axis at places between them; all but columns repeat beyond the last one."""
    count = spectrum.shape[axis]
    lower = places.floor().long()
    upper = (lower + 1) % count if axis < -1 else (lower + 1).clamp_max(count - 1)
    low, high = (spectrum.index_select(axis, index.clamp_max(count - 1)) for index in (lower, upper))
    part = (places - lower).to(low.real.dtype).reshape(-1, *[1] * (-axis - 1))
    return low + part * (high - low)
