"""Random patches and noise, a pure function of seed and step: that is what makes a resumed run exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from icgn.training.recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """Clean and noisy patches (B, C, P, P) and their noise levels (B,), in intensities."""

    clean: Tensor
    noisy: Tensor
    sigma: Tensor

    def to(self, device: torch.device) -> Batch:
        """Move the batch to a device."""
        return Batch(self.clean.to(device), self.noisy.to(device), self.sigma.to(device))


def draw(images: Sequence[Tensor], recipe: Recipe, step: int) -> Batch:
    """Draw the batch of a step: flipped and transposed crops of images (C, H, W), noise, one level per patch."""
    generator = torch.Generator().manual_seed((recipe.seed * 1_000_003 + step) % 2**63)
    clean = torch.stack([_crop(images, recipe.patch, generator) for _ in range(recipe.batch)])
    low, high = (s**0.5 for s in recipe.sigma)
    sigma = (low + (high - low) * torch.rand(recipe.batch, generator=generator)) ** 2
    noise = torch.randn(clean.shape, generator=generator)
    return Batch(clean, clean + sigma[:, None, None, None] * noise, sigma)


def _crop(images: Sequence[Tensor], side: int, generator: torch.Generator) -> Tensor:
    image = images[_integer(len(images), generator)]
    i = _integer(image.shape[1] - side + 1, generator)
    j = _integer(image.shape[2] - side + 1, generator)
    patch = image[:, i : i + side, j : j + side]
    flips = torch.rand(3, generator=generator) < 0.5
    patch = patch.flip(1) if flips[0] else patch
    patch = patch.flip(2) if flips[1] else patch
    patch = patch.transpose(1, 2) if flips[2] else patch
    return patch.float() / 255 if patch.dtype == torch.uint8 else patch


def _integer(below: int, generator: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=generator))
