"""The network that computes the condition of a conditional regularizer: a positive mask per filter and place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icgn.functionals.functional import per_image
from icgn.regularizers.filters import FilterOperator, extend

# Responses are compared with this part of the noise level before their logarithm is taken.
_FLOOR = 0.1
# Numbers of a mask above which it is computed in strips, and kept in half precision; numbers of a strip.
LIMIT, _STRIP = 1 << 26, 1 << 21
# The residual has about the size of the noise; as a part of sigma it is brought to that of the pictures.
_RESIDUAL = 0.3


class MaskNetwork(nn.Module):
    r"""A residual convolutional network on the s x s polyphase planes of a picture, with a positive mask as output.

    It sees a solution :math:`x_0`, the residual over sigma, log sigma, and the logarithms
    :math:`v_k = \log(|w_k \star x_0| / \sigma + 0.1)` of the responses to the filters that the mask is for:

    .. math::

        m_k = \exp\big(r \tanh(z_k / r)\big), \qquad z = \alpha \odot v + T\, \mathrm{body}(H(x_0, r, \sigma) + V v),

    so that :math:`e^{-r} < m < e^r` whatever the weights are. `T` and `alpha` begin at 0: m = 1.

    Parameters
    ----------
    filters : int
        number K of masks.
    channels : int
        image channels.
    width : int
        channels of the hidden layers.
    blocks : int
        residual blocks of two 3 x 3 layers.
    stride : int
        s; the network works at 1/s of the resolution.
    reach : float
        r, positive.
    sigma_range : tuple of float
        noise levels outside of which log sigma is that of the nearer end.

    Raises
    ------
    ValueError
        if a number is out of range.
    """

    def __init__(
        self,
        filters: int,
        channels: int,
        width: int,
        blocks: int,
        stride: int,
        reach: float,
        sigma_range: tuple[float, float],
    ) -> None:
        super().__init__()
        for name, value in (("width", width), ("stride", stride)):
            if value < 1:
                raise ValueError(f"{name}: got {value}, expected at least 1")
        if blocks < 0:
            raise ValueError(f"blocks: got {blocks}, expected at least 0")
        if not 0 < reach <= 10:
            raise ValueError(f"reach: got {reach}, expected a number above 0, up to 10")
        self.stride, self.reach, self.sigma_range = stride, float(reach), sigma_range
        phases = stride**2
        self.head = nn.Conv2d(2 * channels * phases + 1, width, 3, padding=1)
        self.lift = nn.Conv2d(filters * phases, width, 1)
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(blocks)
        )
        self.tail = nn.Conv2d(width, filters * phases, 1)
        self.direct = nn.Parameter(torch.zeros(filters))
        for p in self.tail.parameters():
            nn.init.zeros_(p)

    @torch.no_grad()
    def take(self, narrow: MaskNetwork) -> None:
        """Become the same function as a network of fewer blocks or hidden channels, with the rest free to be trained.

        What is new reads the old channels and writes to new ones: nothing old depends on it yet.
        """
        old = narrow.head.out_channels
        for wide, own in zip(self._writing(), narrow._writing(), strict=False):
            wide.weight[:old].zero_()
            wide.weight[:old, : own.weight.shape[1]] = own.weight
            _bias(wide)[:old] = _bias(own)
        for _, last in self._blocks()[len(narrow.body) :]:
            last.weight.zero_()
            _bias(last).zero_()
        self.tail.weight.zero_()
        self.tail.weight[:, :old] = narrow.tail.weight
        _bias(self.tail).copy_(_bias(narrow.tail))
        self.direct.copy_(narrow.direct)

    @torch.no_grad()
    def select(self, other: MaskNetwork, chosen: Sequence[int]) -> None:
        """Become another network without the masks of the filters that are not chosen."""
        at = torch.as_tensor(chosen)
        own = other.state_dict()
        rows = (at[:, None] * self.stride**2 + torch.arange(self.stride**2)).flatten()
        own["direct"], own["lift.weight"] = own["direct"][at], own["lift.weight"][:, rows]
        own |= {name: own[name][rows] for name in ("tail.weight", "tail.bias")}
        self.load_state_dict(own)

    def _writing(self) -> list[nn.Conv2d]:
        """The layers whose outputs are hidden channels."""
        return [self.head, self.lift, *(layer for block in self._blocks() for layer in block)]

    def _blocks(self) -> list[tuple[nn.Conv2d, nn.Conv2d]]:
        """The two convolutions of each block."""
        return [cast("tuple[nn.Conv2d, nn.Conv2d]", tuple(block.children())[::2]) for block in self.body]

    def forward(self, x: Tensor, residual: Tensor, sigma: Tensor, operator: FilterOperator) -> Tensor:
        """The mask (B, K, H, W) of images; large ones strip by strip, with the same result in half precision.

        Parameters
        ----------
        x, residual : Tensor
            images (B, C, H, W), and what the data say beyond them.
        sigma : Tensor
            noise levels (1,) or (B,), or a map of them, (1 or B, 1, H, W).
        operator : FilterOperator
            the filters, of the stride of this network, with a border that keeps the size of the picture.
        """
        extended = extend(x, operator.margin, operator.border)
        return self._of(x, residual, sigma, extended, replace(operator, border="valid"), self._is_large(x))

    def band(self, x: Tensor, residual: Tensor, sigma: Tensor, operator: FilterOperator, rows: slice) -> Tensor:
        """Some rows of the mask that :meth:`forward` gives, (B, K, rows, W), from the part of the images that they see.

        Parameters
        ----------
        x, residual, sigma, operator
            as for :meth:`forward`.
        rows : slice
            of the mask; its start is a multiple of the stride.
        """
        # Each 3 x 3 convolution looks one cell further.
        reach = self.stride * (1 + 2 * len(self.body))
        seen = slice(max(0, rows.start - reach), min(x.shape[-2], rows.stop + reach))
        extended = extend(x, operator.margin, operator.border)[..., seen.start : seen.stop + 2 * operator.margin, :]
        levels = sigma[..., seen, :] if sigma.ndim == 4 else sigma
        inner = replace(operator, border="valid")
        mask = self._of(x[..., seen, :], residual[..., seen, :], levels, extended, inner, self._is_large(x))
        return mask[..., rows.start - seen.start : rows.stop - seen.start, :].contiguous()

    def _is_large(self, x: Tensor) -> bool:
        """Whether the mask of images is so large that it is in half precision."""
        return not torch.is_grad_enabled() and x[:, :1].numel() * self.direct.numel() > LIMIT

    def _of(
        self, x: Tensor, residual: Tensor, sigma: Tensor, extended: Tensor, inner: FilterOperator, large: bool
    ) -> Tensor:
        """The mask of images, of which `extended` is x with what is beyond its border."""
        if large:
            return self._in_strips(x, residual, sigma, extended, inner)
        rows, cols = x.shape[-2:]
        planes = self._planes(x, residual, sigma)
        logs = self._logs(extended, sigma, inner)
        z = self.head(planes) + _pointwise(self.lift, logs)
        for block in self.body:
            z = z + block(z)
        return self._positive(F.relu(z), logs)[..., :rows, :cols]

    def _in_strips(self, x: Tensor, residual: Tensor, sigma: Tensor, extended: Tensor, inner: FilterOperator) -> Tensor:
        """The mask in half precision: what has the size of the mask is computed strip by strip, and twice."""
        rows, cols = x.shape[-2:]
        count, s = self.direct.numel(), self.stride
        margin = (extended.shape[-2] - rows) // 2
        step = max(1, _STRIP // (len(x) * cols * count * s)) * s
        strips = [slice(top, min(top + step, rows)) for top in range(0, rows, step)]

        def logs(part: slice) -> Tensor:
            seen = extended[..., part.start : part.stop + 2 * margin, :]
            return self._logs(seen, sigma[..., part, :] if sigma.ndim == 4 else sigma, inner)

        def cells(part: slice) -> slice:
            return slice(part.start // s, -(-part.stop // s))

        z = self.head(self._planes(x, residual, sigma))
        for part in strips:
            z[..., cells(part), :] += _pointwise(self.lift, logs(part))
        for first, last in self._blocks():
            z += last(F.relu_(first(z)))
        z.relu_()
        mask = x.new_empty(len(x), count, rows, cols, dtype=torch.float16)
        for part in strips:
            strip = self._positive(z[..., cells(part), :], logs(part))
            mask[..., part, :] = strip[..., : part.stop - part.start, :cols]
        return mask

    def _logs(self, x: Tensor, sigma: Tensor, operator: FilterOperator) -> Tensor:
        """The logarithms v of the responses of pictures, (B, K s^2, h, w)."""
        rows, cols = operator.grid(x.shape)
        cells = -(-rows // self.stride), -(-cols // self.stride)
        # Channels last, as the planes are.
        responses = operator.apply(x).unflatten(1, cells).permute(0, 3, 1, 2)
        level = self._levels(sigma.clamp_min(self.sigma_range[0]), responses)
        return _log(responses.abs().div_(level).add_(_FLOOR))

    def _positive(self, z: Tensor, logs: Tensor) -> Tensor:
        """The mask of hidden channels, (B, K, s h, s w)."""
        z = _pointwise(self.tail, z).addcmul_(self.direct.repeat_interleave(self.stride**2)[:, None, None], logs)
        # In place: numbers of this size are slower to allocate than to compute.
        return F.pixel_shuffle(torch.exp_(self.reach * z.div_(self.reach).tanh_()), self.stride)

    def _phases(self, levels: Tensor) -> Tensor:
        """The s x s polyphase planes of a map, (1 or B, s^2, h, w)."""
        s = self.stride
        padded = F.pad(levels, (0, -levels.shape[-1] % s, 0, -levels.shape[-2] % s), mode="replicate")
        return F.pixel_unshuffle(padded, s)

    def _levels(self, sigma: Tensor, responses: Tensor) -> Tensor:
        """Levels at the places of responses (B, K s^2, h, w)."""
        if sigma.ndim < 4:
            return per_image(sigma, responses)
        return self._phases(sigma).repeat(1, self.direct.numel(), 1, 1)

    def _planes(self, x: Tensor, residual: Tensor, sigma: Tensor) -> Tensor:
        """Picture, residual and level at the resolution of the network, (B, 2 C s^2 + 1, h, w)."""
        low, high = self.sigma_range
        relative = _RESIDUAL * residual / _like_pictures(sigma.clamp_min(low), x)
        s = self.stride
        z = torch.cat([x - 0.5, relative], 1)
        z = F.pixel_unshuffle(F.pad(z, (0, -z.shape[-1] % s, 0, -z.shape[-2] % s), mode="replicate"), s)
        # 15 gray levels, the middle of the usual range, count as 0.
        logs = torch.log(sigma.clamp(low, high) * 255 / 15)
        level = self._phases(logs).mean(1, keepdim=True) if logs.ndim == 4 else per_image(logs, z)
        level = level.expand(len(z), 1, *z.shape[-2:])
        # Channels last is faster on a CPU.
        return torch.cat([z, level], 1).contiguous(memory_format=torch.channels_last)


def _pointwise(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1 x 1 convolution of channels-last images as one product of matrices, twice as fast on a CPU."""
    return F.linear(x.permute(0, 2, 3, 1), layer.weight.flatten(1), layer.bias).permute(0, 3, 1, 2)


def _log(x: Tensor) -> Tensor:
    """The logarithm, in place of x where no graph is recorded."""
    return x.log() if torch.is_grad_enabled() else x.log_()


def _like_pictures(sigma: Tensor, x: Tensor) -> Tensor:
    """Levels of pictures, or a map of them, as they broadcast to pictures."""
    return sigma if sigma.ndim == 4 else per_image(sigma, x)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
