"""A small network that finds the level of the noise of a picture, whatever correlates it, and its shipped weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load
from torch import Tensor, nn

from icgn.compat import keyword_only

BLOCK = 8
"""Side of the squares of pixels that have a level each."""

_SCALES, _WIDTH = 3, 64
# Luma, red - green, blue - yellow, each of the deviation of white noise in one channel; and gray.
_PLANES = {3: ((0.4472, 0.8765, 0.1789), (0.7071, -0.7071, 0.0), (-0.4082, -0.4082, 0.8165)), 1: ((1.0,),)}
# Pixels of a strip, and rows beyond it that its responses see: a multiple of a block.
_STRIP, _HALO = 1 << 19, 2 * BLOCK
# Responses are compared with this part of the mean before their logarithm is taken.
_FLOOR = 1e-2
_QUANTILES = (0.05, 0.25, 0.5)
_WEIGHTS = {3: "noise-network.safetensors", 1: "noise-network-gray.safetensors"}


@keyword_only
@dataclass(frozen=True, eq=False)
class NoiseMap:
    """Levels found by a :class:`NoiseNetwork`, in the unit of the pixels.

    Attributes
    ----------
    levels : Tensor
        standard deviation of the noise of each channel of each block, (B, C, h, w).
    luma : Tensor
        the same of the scaled luma (:func:`icgn.datasets.scaled_luma`), (B, 1, h, w); of gray pictures the levels.
    removal : Tensor
        the root mean square of the levels times a factor for correlated noise, (B, 1, h, w)
        (:func:`icgn.functionals.noise.removal`).
    """

    levels: Tensor
    luma: Tensor
    removal: Tensor


class NoiseNetwork(nn.Module):
    r"""Levels of noise of each 8 x 8 block of pictures, colour or gray, of white and of correlated noise.

    Luma and two colour differences, or gray alone, each at full resolution and averaged over 2 x 2 and 4 x 4 pixels,
    are filtered by the 24 cosine functions of 5 x 5 pixels that have mean 0. The mean absolute responses of a block are
    its features. Their logarithms, less the mean logarithm of the picture, go through a small network that compares
    them with one another and with their mean and quantiles over the picture; what it adds to that mean logarithm is the
    logarithm of a level. So the levels of :math:`s\,y + b` are s times those of y for every s > 0 and b: it works in
    any unit.

    It was trained on simulated cameras and other noise; ``benchmarks/noise_network.py`` makes its weights.

    Parameters
    ----------
    channels : int
        3 for colour, 1 for gray.
    """

    cosines: Tensor
    planes: Tensor

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("cosines", _cosines(), persistent=False)
        self.register_buffer("planes", torch.tensor(_PLANES[channels]), persistent=False)
        features = len(self.cosines) * channels * _SCALES
        self.first = nn.Conv2d(features, _WIDTH, 1)
        self.local = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)
        self.overall = nn.Linear((1 + len(_QUANTILES)) * _WIDTH, _WIDTH)
        self.mixed = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)
        self.last = nn.Conv2d(_WIDTH, 5 if channels == 3 else 2, 1)

    def forward(self, x: Tensor, used: Tensor | None = None) -> NoiseMap:
        """Find the levels of pictures.

        Parameters
        ----------
        x : Tensor
            pictures (B, C, H, W) of its number of channels, finite. Height and width at least 24.
        used : Tensor, optional
            the blocks that the picture is made of, bool (h, w); the others do not count in means and quantiles.

        Raises
        ------
        ValueError
            for another shape.
        """
        if x.ndim != 4 or x.shape[1] != self.channels or min(x.shape[2:]) < 24:
            raise ValueError(f"x: got shape {tuple(x.shape)}, expected (B, {self.channels}, H, W), H and W at least 24")
        return self.judged(self.amplitudes(x), used)

    def judged(self, amplitudes: Tensor, used: Tensor | None = None) -> NoiseMap:
        """The levels of pictures with these :meth:`amplitudes`: the part that is learned."""
        logs, mean = _logarithms(amplitudes, used)
        z = F.gelu(self.first(logs))
        z = z + F.gelu(self.local(z))
        z = F.gelu(z + self.overall(_statistics(z, used))[:, :, None, None])
        z = z + F.gelu(self.mixed(z))
        found = (self.last(z) + mean).exp()
        levels, removal = found[:, : self.channels], found[:, -1:]
        # Gray is its own luma.
        return NoiseMap(levels=levels, luma=found[:, -2:-1], removal=removal)

    def amplitudes(self, x: Tensor) -> Tensor:
        """Mean absolute responses of the blocks of pictures, (B, F, h, w); large pictures strip by strip."""
        # No filter sees a constant; without it nothing is lost to rounding where it is large.
        x = x - x.mean((1, 2, 3), keepdim=True)
        height, width = (side // BLOCK * BLOCK for side in x.shape[2:])
        x = x[..., :height, :width]
        step = max(1, _STRIP // (BLOCK * width)) * BLOCK
        strips = []
        for top in range(0, height, step):
            first, last = max(0, top - _HALO), min(height, top + step + _HALO)
            found = self._strip(x[..., first:last, :])
            begin = (top - first) // BLOCK
            strips.append(found[..., begin : begin + min(step, height - top) // BLOCK, :])
        return torch.cat(strips, 2)

    def _strip(self, x: Tensor) -> Tensor:
        planes = torch.einsum("pc,bchw->bphw", self.planes.to(x), x)
        filters = self.cosines.to(x).repeat(self.channels, 1, 1, 1)
        found = []
        for scale in range(_SCALES):
            reduced = F.pad(F.avg_pool2d(planes, 2**scale), (2, 2, 2, 2), mode="replicate")
            responses = F.conv2d(reduced, filters, groups=self.channels)
            found.append(F.avg_pool2d(responses.abs(), BLOCK // 2**scale))
        return torch.cat(found, 1)


def _cosines() -> Tensor:
    """The products of cosines over 5 x 5 pixels but the constant one, (24, 1, 5, 5), of norm 1."""
    places = torch.arange(5) + 0.5
    waves = torch.stack([torch.cos(torch.pi * k * places / 5) for k in range(5)])
    waves = waves / waves.norm(dim=1, keepdim=True)
    return torch.einsum("ki,lj->klij", waves, waves).reshape(25, 1, 5, 5)[1:]


def _logarithms(amplitudes: Tensor, used: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logarithms of features relative to their mean over the picture, and that mean, (B, 1, 1, 1)."""
    parts = amplitudes.flatten(2) if used is None else amplitudes.flatten(2)[..., used.flatten()]
    floor = _FLOOR * parts.mean((1, 2)).clamp_min(torch.finfo(amplitudes.dtype).tiny)[:, None, None, None]
    logs = (amplitudes + floor).log()
    mean = (parts + floor[:, :, 0]).log().mean((1, 2))[:, None, None, None]
    return logs - mean, mean


def _statistics(z: Tensor, used: Tensor | None) -> Tensor:
    """Mean and quantiles of features over the blocks, (B, 4 C)."""
    flat = z.flatten(2) if used is None else z.flatten(2)[..., used.flatten()]
    parts = torch.tensor(_QUANTILES, dtype=z.dtype, device=z.device)
    return torch.cat([flat.mean(2), *torch.quantile(flat, parts, dim=2)], 1)


@cache
def noise_network(channels: int = 3) -> NoiseNetwork:
    """The shipped network for colour or gray, on the CPU; each is loaded once.

    Parameters
    ----------
    channels : int
        3 for colour, 1 for gray.
    """
    network = NoiseNetwork(channels)
    network.load_state_dict(load((files("icgn.pictures") / "weights" / _WEIGHTS[channels]).read_bytes()))
    return network.eval().requires_grad_(False)
