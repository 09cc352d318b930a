"""The frozen linear map of a filter bank, with what preconditioners and bounds need of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from icgn.functionals.functional import colour_basis
from icgn.regularizers.filters import FilterBank, FilterOperator, PictureOperator
from icgn.regularizers.frozen import PerImage


@dataclass(frozen=True, eq=False)
class FilterMap(PerImage):
    r"""The linear map :math:`(W x)_k = s_k\, (w_k \star x)` of filters :math:`w_k` and scales :math:`s_k`.

    The scales (B, K) differ from image to image; `scale` is None where the filters of `operator` contain it.
    """

    operator: FilterOperator
    scale: Tensor | None

    @classmethod
    def build(cls, bank: FilterBank, scale: Tensor, *, kind: type[FilterOperator] = PictureOperator) -> FilterMap:
        """Make the map of the filters of a bank.

        Parameters
        ----------
        bank : FilterBank
            K filters.
        scale : Tensor
            scales (B, K), or (1, K) for all images.
        kind : type
            the layout of the responses: pictures, or planes for heads that take these.
        """
        if len(scale) == 1:
            return cls(bank.operator(scale=scale[0], kind=kind), None)
        return cls(bank.operator(kind=kind), scale)

    def apply(self, x: Tensor) -> Tensor:
        """Responses W x of images x (B, C, H, W)."""
        return self._scaled(self.operator.apply(x))

    def adjoint(self, z: Tensor, shape: torch.Size) -> Tensor:
        """Images W^T z of shape (B, C, H, W)."""
        return self.operator.adjoint(self._scaled(z), shape)

    def adjoint_of(self, f: Callable[..., Tensor], planes: tuple[Tensor, ...], shape: torch.Size) -> Tensor:
        """Images W^T z of z = f(positions, strips of the planes), which is never held as a whole.

        Parameters
        ----------
        f : callable
            what is pointwise: of a slice of the positions and the planes there, (B, n, K s^2).
        planes : tuple of Tensor
            planes (B, P, K s^2).
        shape : torch.Size
            of the images.
        """
        return self.operator.adjoint_of(lambda at, *parts: self._scaled(f(at, *parts)), planes, shape)

    def weights(self) -> Tensor:
        """The scaled filters in float64, (B, K, C, d, d) or (1, K, C, d, d), detached."""
        weight = self.operator.weight.detach().double()
        return weight[None] if self.scale is None else weight * self.scale.detach().double()[..., None, None, None]

    def spectrum(self, slopes: Tensor, shape: torch.Size) -> Tensor:
        r"""The spectrum of :math:`\sum_k \bar D_k |\hat w_k|^2` in the colours of :func:`colour_basis`, nonnegative.

        Parameters
        ----------
        slopes : Tensor
            sums of the diagonal D over the positions of each filter, (B, K).
        shape : torch.Size
            of the images.

        Returns
        -------
        Tensor
            shape (B, C, H, W // 2 + 1).
        """
        return self._transform(slopes, self._autocorrelation, shape).real.clamp_min(0)

    def matrix_spectrum(self, slopes: Tensor, shape: torch.Size) -> Tensor:
        r"""The matrices :math:`\sum_k \bar D_k \hat w_k \hat w_k^*` of the channels, (B, C, C, H, W // 2 + 1).

        Parameters are those of :meth:`spectrum`.
        """
        return self._transform(slopes, self._correlations, shape)

    def _transform(self, slopes: Tensor, correlations: Tensor, shape: torch.Size) -> Tensor:
        """The transform (B, ...) of correlations (K, ..., side, side) of the filters, weighted by their mean slopes."""
        rows, cols = self.operator.grid(shape)
        slope = slopes / (rows * cols)
        if self.scale is not None:
            slope = slope * self.scale.square()
        kernel = torch.einsum("bk,k...->b...", slope, correlations)
        for axis in (-2, -1):
            kernel = _around(kernel, axis, shape[axis])
        return torch.fft.rfft2(kernel)

    @cached_property
    def _autocorrelation(self) -> Tensor:
        """Autocorrelation of each filter in each colour, (K, C, 2d - 1, 2d - 1)."""
        w = self.operator.weight.detach()
        w = torch.einsum("dc,kcij->kdij", colour_basis(w), w)
        return _correlated(w, w)

    @cached_property
    def _correlations(self) -> Tensor:
        """Correlations of all pairs of channels of each filter, (K, C, C, 2d - 1, 2d - 1)."""
        w = self.operator.weight.detach()
        channels = w.shape[1]
        pairs = _correlated(w.repeat_interleave(channels, 1), w.repeat(1, channels, 1, 1))
        return pairs.unflatten(1, (channels, channels))

    def _scaled(self, responses: Tensor) -> Tensor:
        return responses if self.scale is None else responses * self.operator.spread(self.scale)


def _around(kernel: Tensor, axis: int, size: int) -> Tensor:
    """A kernel with its middle at 0 of an axis that has a size and repeats; a longer one goes around it."""
    side = kernel.shape[axis]
    longer = F.pad(kernel, (0, -side % size) if axis == -1 else (0, 0, 0, -side % size))
    return longer.unflatten(axis, (-1, size)).sum(axis - 1).roll(-(side // 2), axis)


def _correlated(a: Tensor, b: Tensor) -> Tensor:
    """Correlations of filters (K, C, d, d) with others, channel by channel, (K, C, 2d - 1, 2d - 1)."""
    filters, channels, d, _ = a.shape
    # Channels of all filters as channels of one picture, and as kernels of a group each.
    pictures, kernels = a.reshape(1, -1, d, d), b.reshape(-1, 1, d, d)
    full = F.conv2d(pictures, kernels, padding=d - 1, groups=filters * channels)
    return full.reshape(filters, channels, 2 * d - 1, 2 * d - 1)
