"""Convolutional filter banks: responses, adjoint, a rigorous norm bound, and fast exact polyphase evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icgn.compat import keyword_only
from icgn.regularizers import passes
from icgn.regularizers.frozen import Frozen

Border = Literal["valid", "zero", "reflect"]

# Elements of a strip of responses in the adjoint, by kind of device: short strips stay in the cache of a CPU, and long
# ones need few kernels on a GPU.
_STRIP, _GPU_STRIP = 1 << 20, 1 << 26
# Filters from which a stride of 2 is the fastest on a CPU.
_MANY = 24


OperatorT = TypeVar("OperatorT", bound="FilterOperator")


@dataclass(frozen=True, eq=False)
class FilterOperator(Frozen):
    r"""The linear map W of a bank of filters w (K, C, d, d), ready: :math:`(W x)_k = \sum_c w_{kc} \star E x_c`.

    E extends the picture by (d - 1) / 2 pixels (`border`): by mirroring without repeating the edge (``reflect``), by
    zeros (``zero``), or not at all (``valid``: only windows inside the picture count).

    Responses are *planes* of shape (B, P, K s^2): positions by filters, in an order private to this class, with zeros
    at positions outside the picture. With `stride` s > 1 the convolution is evaluated in its exact polyphase form: the
    s x s interleaved subimages become input channels and the s x s shifts of a filter become output channels, which
    turns a convolution with few channels, slow on every CPU, into one with many.
    """

    weight: Tensor
    border: Border
    stride: int
    kernel: Tensor

    axis: ClassVar[int] = 1
    """The axis of the positions of the responses."""

    @classmethod
    def build(cls: type[OperatorT], weight: Tensor, border: Border, stride: int) -> OperatorT:
        """Expand filters (K, C, d, d) for polyphase evaluation with the given stride (1: plain convolution)."""
        kernel = _polyphase_kernel(weight, stride).contiguous(memory_format=torch.channels_last)
        return cls(weight, border, stride, kernel)

    def apply(self, x: Tensor) -> Tensor:
        """Planes W x, shape (B, P, K s^2), of images x (B, C, H, W)."""
        s, taps = self.stride, self.kernel.shape[-1]
        rows, cols = self.grid(x.shape)
        x = extend(x, self.margin, self.border)
        bottom = s * (math.ceil(rows / s) + taps - 1) - x.shape[-2]
        right = s * (math.ceil(cols / s) + taps - 1) - x.shape[-1]
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom))
        # Channels last is twice as fast on a CPU, and makes the planes contiguous.
        x = F.pixel_unshuffle(x, s).contiguous(memory_format=torch.channels_last)
        with full_float32(x):
            r = F.conv2d(x, self.kernel)
        r = r.permute(0, 2, 3, 1).contiguous()
        self._clear_outside(r, rows, cols)
        return r.flatten(1, 2)

    def adjoint(self, z: Tensor, shape: torch.Size) -> Tensor:
        """Images W^T z of shape (B, C, H, W) from planes z."""
        return self._cropped(self._transposed(z.unflatten(1, self._cells(shape))), shape)

    def adjoint_of(self, f: Callable[..., Tensor], planes: tuple[Tensor, ...], shape: torch.Size) -> Tensor:
        """Images W^T z, z = f(rows, strips of the planes) for a pointwise f: z is never held as a whole."""
        rows, cols = self._cells(shape)
        s, side = self.stride, self.kernel.shape[-1] * self.stride
        batch, _, filters = planes[0].shape
        out = planes[0].new_zeros(batch, self.weight.shape[1], (rows - 1) * s + side, (cols - 1) * s + side)
        strip_size = _STRIP if out.device.type == "cpu" else _GPU_STRIP
        # A strip of one image is large enough for compiled loops, if the image is.
        least = max(self.kernel.shape[-1], math.ceil(passes.COMPILED / (cols * filters)))
        step = max(least, strip_size // (batch * cols * filters))
        for top in range(0, rows, step):
            at = slice(top * cols, (top + step) * cols)
            strip = self._transposed(f(at, *(p[:, at] for p in planes)).unflatten(1, (-1, cols)))
            out[:, :, top * s : top * s + strip.shape[2]] += strip
        return self._cropped(out, shape)

    def _transposed(self, z: Tensor) -> Tensor:
        """The images of the extended size that responses (B, rows, cols, K s^2) of cells lead to."""
        if z.is_cuda or self.weight.shape[1] > 1:
            with full_float32(z):
                return F.pixel_shuffle(F.conv_transpose2d(z.permute(0, 3, 1, 2), self.kernel), self.stride)
        # On a CPU one product of matrices gives what each cell adds to the pixels that it sees.
        s, side = self.stride, self.kernel.shape[-1] * self.stride
        spread = F.pixel_shuffle(self.kernel, s).flatten(1)
        patches = z.flatten(1, 2) @ spread
        size = (z.shape[1] - 1) * s + side, (z.shape[2] - 1) * s + side
        if passes.usable(z, z):
            return passes.overlapped(patches, size, z.shape[2], s)
        return F.fold(patches.mT, size, side, stride=s)

    def _cropped(self, x: Tensor, shape: torch.Size) -> Tensor:
        """Images of a shape from those of the extended size, and what is beyond the border brought back."""
        x = x[..., : shape[-2] + 2 * self.margin, : shape[-1] + 2 * self.margin]
        return extend_adjoint(x, self.margin, self.border)

    def unfold(self, planes: Tensor, shape: torch.Size) -> Tensor:
        """Planes as pictures (B, K, rows, cols), one per filter, of images of the given shape."""
        rows, cols = self.grid(shape)
        return F.pixel_shuffle(self._as_channels(planes, shape), self.stride)[..., :rows, :cols]

    def fold(self, pictures: Tensor, outside: float = 0.0) -> Tensor:
        """Pictures (B, K, rows, cols), one per filter, as planes: the inverse of :meth:`unfold`.

        Positions of the planes that are outside the picture get the value `outside`.
        """
        return folded(pictures, self.stride, outside)

    def spread(self, values: Tensor) -> Tensor:
        """Values per filter (..., K) repeated over the phases, to broadcast against planes: (..., 1, K s^2)."""
        return values.repeat_interleave(self.stride**2, -1).unsqueeze(-2)

    def sums(self, values: Tensor) -> Tensor:
        """Values for all responses, summed over the positions of each filter, (B, K)."""
        return values.sum(1).unflatten(-1, (-1, self.stride**2)).sum(-1)

    def mixed(self, values: Tensor, weights: Tensor) -> Tensor:
        """Values for all responses, summed over the filters with weights (B or 1, K, C), as those of C filters."""
        phases = values.unflatten(-1, (-1, self.stride**2))
        return torch.einsum("bpks,bkc->bpcs", phases, weights.to(values).expand(len(values), -1, -1)).flatten(2)

    def as_pictures(self, values: Tensor, shape: torch.Size) -> Tensor:
        """Values for all responses of some filters as pictures (B, C, rows, cols)."""
        return self.unfold(values, shape)

    def outside(self, shape: torch.Size) -> int:
        """How many responses of each filter are outside the picture, for images of the given shape."""
        rows, cols = self.grid(shape)
        return (rows + -rows % self.stride) * (cols + -cols % self.stride) - rows * cols

    def places(self, rows: slice, shape: torch.Size) -> slice:
        """The part of the axis of positions that some rows of the responses take: whole polyphase cells."""
        across = math.ceil(self.grid(shape)[1] / self.stride)
        return slice(rows.start // self.stride * across, math.ceil(rows.stop / self.stride) * across)

    @property
    def margin(self) -> int:
        """Pixels by which the border extension enlarges the picture on each side."""
        return 0 if self.border == "valid" else self.weight.shape[-1] // 2

    def grid(self, shape: torch.Size) -> tuple[int, int]:
        """Rows and columns of the responses of an image of the given shape."""
        lost = self.weight.shape[-1] - 1 - 2 * self.margin
        return shape[-2] - lost, shape[-1] - lost

    def _as_channels(self, planes: Tensor, shape: torch.Size) -> Tensor:
        return planes.unflatten(1, self._cells(shape)).permute(0, 3, 1, 2)

    def _cells(self, shape: torch.Size) -> tuple[int, int]:
        """Rows and columns of cells of s x s responses."""
        rows, cols = self.grid(shape)
        return math.ceil(rows / self.stride), math.ceil(cols / self.stride)

    def _clear_outside(self, r: Tensor, rows: int, cols: int) -> None:
        s = self.stride
        phases = r.unflatten(-1, (-1, s, s))
        if rows % s:
            phases[:, -1, :, :, rows % s :, :] = 0
        if cols % s:
            phases[:, :, -1, :, :, cols % s :] = 0


@dataclass(frozen=True, eq=False)
class PictureOperator(FilterOperator):
    """As the base, with responses as pictures (B, K, rows, cols), one per filter."""

    axis: ClassVar[int] = 2

    def apply(self, x: Tensor) -> Tensor:
        """Pictures W x, shape (B, K, rows, cols), of images x (B, C, H, W)."""
        return self.unfold(super().apply(x), x.shape)

    def adjoint(self, z: Tensor, shape: torch.Size) -> Tensor:
        """Images W^T z of shape (B, C, H, W) from pictures z."""
        return super().adjoint(self.fold(z), shape)

    def spread(self, values: Tensor) -> Tensor:
        """Values per filter (..., K), to broadcast against pictures: (..., K, 1, 1)."""
        return values[..., None, None]

    def mixed(self, values: Tensor, weights: Tensor) -> Tensor:
        return torch.einsum("bkhw,bkc->bchw", values, weights.to(values).expand(len(values), -1, -1))

    def as_pictures(self, values: Tensor, shape: torch.Size) -> Tensor:
        return values

    def sums(self, values: Tensor) -> Tensor:
        return values.sum((2, 3))

    def outside(self, shape: torch.Size) -> int:
        return 0

    def places(self, rows: slice, shape: torch.Size) -> slice:
        return rows


class FilterBank(nn.Module):
    r"""A learnable bank of zero-mean filters of unit norm, the linear layer W of a convolutional regularizer.

    A filter has zero mean in each channel, so that a constant image of any colour has no response, and unit Euclidean
    norm; scales belong to the activation. Both are enforced by :attr:`weight`, whatever the raw parameters are.

    Parameters
    ----------
    filters : int
        number K of filters.
    size : int
        side d of a filter in pixels, odd.
    channels : int
        image channels C.
    border : {"reflect", "zero", "valid"}
        see :class:`FilterOperator`. ``reflect`` is the default by measurement (docs/decisions.md).

    Raises
    ------
    ValueError
        if a number is out of range or the border is unknown.
    """

    @keyword_only
    def __init__(self, filters: int, size: int, *, channels: int = 1, border: Border = "reflect") -> None:
        super().__init__()
        if size < 3 or size % 2 == 0:
            raise ValueError(f"size: got {size}, expected an odd number of at least 3")
        if filters < 1 or channels < 1:
            raise ValueError(f"filters, channels: got {filters}, {channels}, expected positive numbers")
        if border not in get_args(Border):
            raise ValueError(f"border: got {border!r}, expected one of {', '.join(get_args(Border))}")
        self.border: Border = border
        self.raw = nn.Parameter(initial_filters(filters, channels, size))

    @property
    def weight(self) -> Tensor:
        """The filters (K, C, d, d), zero-mean per channel and of unit norm."""
        w = self.raw - self.raw.mean((2, 3), keepdim=True)
        return w / torch.linalg.vector_norm(w, dim=(1, 2, 3), keepdim=True)

    @keyword_only
    def operator(
        self,
        *,
        dtype: torch.dtype | None = None,
        stride: int | None = None,
        scale: Tensor | None = None,
        kind: type[FilterOperator] = FilterOperator,
    ) -> FilterOperator:
        """The bank ready to apply.

        Parameters
        ----------
        dtype : torch.dtype, optional
            precision, default that of the parameters.
        stride : int, optional
            of the polyphase evaluation, default the fastest (:func:`best_stride`).
        scale : Tensor, optional
            factors of the filters, (K,).
        kind : type
            the layout of the responses: planes (:class:`FilterOperator`) or pictures (:class:`PictureOperator`).
        """
        w = self.weight if dtype is None else self.weight.to(dtype)
        w = w if scale is None else w * scale[:, None, None, None]
        return kind.build(w, self.border, best_stride(w) if stride is None else stride)

    def forward(self, x: Tensor) -> Tensor:
        """Responses W x, shape (B, K, rows, cols), of images x (B, C, H, W)."""
        return self.operator(dtype=x.dtype, kind=PictureOperator).apply(x)

    def adjoint(self, z: Tensor, shape: torch.Size) -> Tensor:
        """Images W^T z of the given shape from responses z (B, K, rows, cols)."""
        return self.operator(dtype=z.dtype, kind=PictureOperator).adjoint(z, shape)

    def squared_norm(self) -> Tensor:
        r"""Rigorous upper bound of :math:`|W|^2` for every picture size, float64 scalar: :func:`squared_norm_bound`."""
        return squared_norm_bound(self.weight, self.border)


@torch.no_grad()
def squared_norm_bound(weight: Tensor, border: Border, grid: int = 128) -> Tensor:
    r"""Rigorous upper bound of :math:`\|W\|^2` for every picture size, a float64 scalar.

    On the infinite lattice
    :math:`\|W\|^2 = \sup_\omega \lambda_{\max}(\sum_k \hat w_k(\omega)^* \hat w_k(\omega)^T)`, a
    C x C matrix at each frequency. The entries are trigonometric polynomials of degree d - 1 in each variable, so the
    supremum is at most the maximum over an N x N grid divided by :math:`\cos(\pi (d - 1) / 2N)^4`. Zero and valid
    borders are compressions of that operator. A mirrored picture is part of a periodic one, of period 2H - 2 and
    2W - 2, in which a pixel appears at most twice per axis: hence the factor 4.
    """
    w = weight.detach().double().cpu()
    degree = w.shape[-1] - 1
    grid = max(grid, 4 * degree)
    spectrum = torch.fft.rfft2(w, s=(grid, grid)).permute(2, 3, 0, 1)
    gram = spectrum.mH @ spectrum
    top = torch.linalg.eigvalsh(gram)[..., -1].max() if w.shape[1] > 1 else gram.real.max()
    # The last factor covers the rounding of the transform and of the eigenvalues.
    bound = top / math.cos(math.pi * degree / (2 * grid)) ** 4 * (1 + 1e-12)
    return 4 * bound if border == "reflect" else bound


@contextmanager
def full_float32(like: Tensor) -> Iterator[None]:
    """A context in which a GPU convolves with all the digits of float32.

    PyTorch's default there, TF32, rounds factors to 10 bits. W^T is then no longer the transpose of W to the digits
    that solvers rely on: denoising took three times the iterations (H100, 256 x 256, ridge-gray, 1e-4).
    """
    if not like.is_cuda:
        yield
        return
    cudnn = torch.backends.cudnn
    # The switch of convolutions alone, where this torch has one: the older one cannot be read once the new is in use.
    switch, name, off = (
        (cudnn.conv, "fp32_precision", "ieee") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32", False)
    )
    before = getattr(switch, name)
    setattr(switch, name, off)
    try:
        yield
    finally:
        setattr(switch, name, before)


def best_stride(weight: Tensor) -> int:
    """Polyphase stride for filters (K, C, d, d): 4 for a few of one channel on a CPU, else 2.

    Measured on CPUs and on an H100 (docs/decisions.md); results do not depend on it beyond rounding.
    """
    few = weight.shape[1] == 1 and len(weight) < _MANY
    return 4 if few and weight.device.type == "cpu" else 2


def _polyphase_kernel(weight: Tensor, s: int) -> Tensor:
    filters, channels, d, _ = weight.shape
    taps = (d + 2 * s - 2) // s
    side = taps * s
    shifted = [F.pad(weight, (q, side - d - q, p, side - d - p)) for p in range(s) for q in range(s)]
    kernel = torch.stack(shifted, 1).reshape(filters * s * s, channels, taps, s, taps, s)
    return kernel.permute(0, 1, 3, 5, 2, 4).reshape(filters * s * s, channels * s * s, taps, taps)


def folded(pictures: Tensor, s: int, outside: float = 0.0) -> Tensor:
    """Pictures (B, K, rows, cols), one per filter, as planes (B, P, K s^2), with `outside` beyond the pictures."""
    rows, cols = pictures.shape[-2:]
    if rows % s or cols % s:
        pictures = F.pad(pictures, (0, -cols % s, 0, -rows % s), value=outside)
    # Copied once: masks of a large picture fill a good part of the memory.
    cells = pictures.unflatten(-1, (-1, s)).unflatten(-3, (-1, s)).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(len(cells), -1, cells.shape[3] * s * s)


def extend(x: Tensor, m: int, border: Border) -> Tensor:
    """Images enlarged by m pixels on each side, as the border says (not at all for ``valid``)."""
    if border == "valid":
        return x
    return F.pad(x, (m, m, m, m), mode="reflect" if border == "reflect" else "constant")


def extend_adjoint(x: Tensor, m: int, border: Border) -> Tensor:
    """The adjoint of :func:`extend`."""
    if border == "valid":
        return x
    if border == "zero":
        return x[..., m:-m, m:-m]
    return _unreflect(_unreflect(x, m).transpose(-1, -2), m).transpose(-1, -2)


def _unreflect(x: Tensor, m: int) -> Tensor:
    """Adjoint of mirroring m rows at the top and at the bottom."""
    core = x[..., m:-m, :].clone()
    core[..., 1 : m + 1, :] += x[..., :m, :].flip(-2)
    core[..., -m - 1 : -1, :] += x[..., -m:, :].flip(-2)
    return core


def initial_filters(filters: int, channels: int, size: int) -> Tensor:
    """Cosine filters, lowest frequencies first, in orthonormal colour directions (luminance first)."""
    n = torch.arange(size, dtype=torch.float64)
    cosines = [torch.cos(math.pi * (2 * n + 1) * k / (2 * size)) for k in range(size)]
    colours = torch.linalg.qr(torch.vander(torch.arange(channels, dtype=torch.float64), increasing=True))[0].T
    atoms = sorted(
        (i * i + j * j + 2 * c, i, j, c) for i in range(size) for j in range(size) for c in range(channels) if i + j
    )
    bank = torch.stack([colours[c][:, None, None] * torch.outer(cosines[i], cosines[j]) for _, i, j, c in atoms])
    bank = bank / torch.linalg.vector_norm(bank, dim=(1, 2, 3), keepdim=True)
    generator = torch.Generator().manual_seed(0)
    extra = max(0, filters - len(bank))
    noise = torch.randn(extra, channels, size, size, generator=generator, dtype=torch.float64) / size
    bank = torch.cat([bank[:filters], noise])
    # A little noise breaks the symmetry of the cosines, so that training can leave them.
    bank = bank + 0.1 / size * torch.randn(bank.shape, generator=generator, dtype=torch.float64)
    return bank.to(torch.get_default_dtype())
