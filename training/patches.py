"""Random patches and their measurements, a pure function of seed, step and place: that makes a resumed run exact."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.training.losses.loss import Batch
from icgn.training.recipe import Recipe


@keyword_only
def draw(
    images: Sequence[Tensor], recipe: Recipe, step: int, physics: Any, *, places: Iterable[int] | None = None
) -> Batch:
    """Draw the batch of a step: flipped and transposed crops, one noise level per patch.

    Every patch has a generator of its own, so that processes that draw some places of the batch each draw together what
    one process draws alone. Noise is drawn on the CPU; only the operator runs on the device of the physics.

    Parameters
    ----------
    images : sequence of Tensor
        pictures (C, H, W), at least one patch large: bytes, or floats in [0, 1].
    recipe : Recipe
        whose seed, batch, patch, kind of noise and range of levels count.
    step : int
        number of the optimization step.
    physics : deepinv.physics.LinearPhysics
        the operator.
    places : iterable of int, optional
        places of the batch to draw; default all.
    """
    rows = [_draw(images, recipe, step, place) for place in (range(recipe.batch) if places is None else places)]
    clean, sigma, position = (torch.stack(column) for column in zip(*(r[:3] for r in rows), strict=True))
    device = next((b.device for b in physics.buffers()), clean.device)
    measured = physics.A(clean.to(device)).to(clean.device)
    drawn = [
        recipe.noise.disturb(x, m, float(s), row[3]) for x, m, s, row in zip(clean, measured, sigma, rows, strict=True)
    ]
    return Batch(
        clean=torch.stack([d.clean for d in drawn]),
        y=torch.stack([d.y for d in drawn]),
        sigma=torch.tensor([d.sigma for d in drawn]),
        position=position,
        physics=physics,
    )


def _draw(
    images: Sequence[Tensor], recipe: Recipe, step: int, place: int
) -> tuple[Tensor, Tensor, Tensor, torch.Generator]:
    seed = ((recipe.seed * 1_000_003 + step) * 65_537 + place) % 2**63
    generator = torch.Generator().manual_seed(seed)
    clean = _crop(images, recipe.patch, generator)
    low, high = (s**0.5 for s in recipe.sigma)
    sigma = (low + (high - low) * torch.rand((), generator=generator)) ** 2
    return clean, sigma, torch.rand((), generator=generator), generator


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
