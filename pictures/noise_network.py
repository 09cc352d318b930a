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

_SCALES, _FIRST, _WIDTH = 3, 24, 48
_QUANTILES = (0.05, 0.25, 0.5)
_WEIGHTS = "noise-network.safetensors"


@keyword_only
@dataclass(frozen=True, eq=False)
class NoiseMap:
    """Levels found by a :class:`NoiseNetwork`, in the unit of the pixels.

    Attributes
    ----------
    levels : Tensor
        standard deviation of the noise of each channel of each block, (B, 3, h, w).
    removal : Tensor
        the level that a regularizer should be asked to remove there, (B, 1, h, w); more than the level where the noise
        is correlated (:func:`icgn.functionals.noise.removal`).
    """

    levels: Tensor
    removal: Tensor


class NoiseNetwork(nn.Module):
    r"""Levels of noise of each 8 x 8 block of colour pictures, of white and of correlated noise.

    Filters of 5 x 5 pixels with mean 0, on the picture and on the same averaged over 2 x 2 and 4 x 4 pixels; their
    absolute values are averaged, and three layers with ReLU compare them with one another and with their mean and
    quantiles over the picture. No layer has a bias. So the levels of :math:`s\,y + b` are s times those of y for every
    s > 0 and b: it works in any unit (homogeneous networks: Mohan et al. 2020, arXiv:1906.05478).

    It was trained on simulated cameras and other noise; ``benchmarks/noise_network.py`` makes its weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.ModuleList(nn.Conv2d(3, _FIRST, 5, bias=False) for _ in range(_SCALES))
        self.inner = nn.Conv2d(_FIRST * _SCALES, _WIDTH, 3, padding=1, bias=False)
        self.local = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, bias=False)
        self.overall = nn.Linear((1 + len(_QUANTILES)) * _WIDTH, _WIDTH, bias=False)
        self.mixed = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, bias=False)
        self.last = nn.Conv2d(_WIDTH, 4, 1, bias=False)

    def forward(self, x: Tensor, used: Tensor | None = None) -> NoiseMap:
        """Find the levels of pictures.

        Parameters
        ----------
        x : Tensor
            pictures (B, 3, H, W), finite; gray ones as three equal channels. Height and width at least 24.
        used : Tensor, optional
            the blocks that the picture is made of, bool (h, w); the others do not count in means and quantiles.

        Raises
        ------
        ValueError
            for another shape.
        """
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < 24:
            raise ValueError(f"x: got shape {tuple(x.shape)}, expected (B, 3, H, W), H and W at least 24")
        amplitudes = self._amplitudes(x)
        z = F.relu(self.inner(amplitudes))
        z = F.relu(self.local(F.avg_pool2d(z, 2)))
        z = F.relu(z + self.overall(_statistics(z, used))[:, :, None, None])
        z = z + F.relu(self.mixed(z))
        floor = 1e-3 * amplitudes.mean((1, 2, 3))[:, None, None, None]
        levels, removal = (self.last(z).abs() + floor).split([3, 1], 1)
        return NoiseMap(levels=levels, removal=removal)

    def _amplitudes(self, x: Tensor) -> Tensor:
        """Mean absolute responses at a quarter of the resolution, of all scales."""
        size = [side // BLOCK * 2 for side in x.shape[2:]]
        found = []
        for scale, layer in enumerate(self.filters):
            assert isinstance(layer, nn.Conv2d)
            # Of mean 0 in each channel: a constant has no response.
            weight = layer.weight - layer.weight.mean((2, 3), keepdim=True)
            reduced = F.avg_pool2d(x, 2**scale) if scale else x
            responses = F.conv2d(F.pad(reduced, (2, 2, 2, 2), mode="replicate"), weight)
            found.append(F.adaptive_avg_pool2d(responses.abs(), size))
        return torch.cat(found, 1)


def _statistics(z: Tensor, used: Tensor | None) -> Tensor:
    """Mean and quantiles of features over the blocks, (B, 4 C)."""
    flat = z.flatten(2) if used is None else z.flatten(2)[..., used.flatten()]
    parts = torch.tensor(_QUANTILES, dtype=z.dtype, device=z.device)
    quantiles = torch.quantile(flat, parts, dim=2)
    return torch.cat([flat.mean(2), *quantiles], 1)


@cache
def noise_network() -> NoiseNetwork:
    """The shipped network, on the CPU; loaded once."""
    network = NoiseNetwork()
    network.load_state_dict(load((files("icgn.pictures") / "weights" / _WEIGHTS).read_bytes()))
    return network.eval().requires_grad_(False)
