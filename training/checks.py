"""What must fit together before a run begins: pictures, recipe, regularizer, operator and processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from icgn.functionals.physics import PHYSICS_ERRORS
from icgn.regularizers.base import ConvexRegularizer
from icgn.training.losses.loss import LOSSES
from icgn.training.pictures import Pictures
from icgn.training.processes import Processes
from icgn.training.ranges import RecipeError
from icgn.training.recipe import Recipe


def check_run(
    regularizer: ConvexRegularizer, data: Pictures, recipe: Recipe, processes: Processes, physics: Any
) -> None:
    """Raise ``ValueError`` unless a run can begin and end; the message names what does not fit."""
    _check_images(regularizer, data, recipe)
    _check_loss(regularizer, recipe)
    if recipe.patch < regularizer.min_size:
        raise ValueError(f"patch: got {recipe.patch}, expected at least the filter size, {regularizer.min_size}")
    if recipe.physics and not recipe.noise.measures:
        raise RecipeError(f"noise: got {recipe.noise.name!r} with [physics], expected none: it disturbs pictures alone")
    trial = torch.zeros(1, *data.training[0].shape[:1], recipe.patch, recipe.patch)
    try:
        physics.A(trial.to(next(regularizer.parameters())))
    except PHYSICS_ERRORS as error:
        raise ValueError(f"physics: does not take patches of {tuple(trial.shape[1:])}: {error}") from error
    if recipe.batch < processes.count:
        raise ValueError(f"batch: got {recipe.batch} patches for {processes.count} processes, expected one for each")


def _check_images(regularizer: ConvexRegularizer, data: Pictures, recipe: Recipe) -> None:
    if len(data.training) == 0:
        raise ValueError("data: got no images, expected at least one to train on")
    small = [i for i, image in enumerate(data.training) if min(image.shape[-2:]) < recipe.patch]
    if small:
        height, width = data.training[small[0]].shape[-2:]
        side = recipe.patch
        raise ValueError(f"data: image {small[0]} is {height} x {width}, expected at least a patch, {side} x {side}")
    channels = regularizer.channels or len(data.training[0])
    _check_channels("image", data.training, channels)
    _check_channels("validation image", data.validation, channels)


def _check_channels(what: str, images: Sequence[Tensor], channels: int) -> None:
    for i, image in enumerate(images):
        if len(image) != channels:
            raise ValueError(f"data: {what} {i} has {len(image)} channels, expected {channels} as the regularizer")


def _check_loss(regularizer: ConvexRegularizer, recipe: Recipe) -> None:
    kind = type(regularizer).__name__
    if regularizer.looseness and not recipe.loss.trains_conditional:
        able = ", ".join(name for name, loss in LOSSES.items() if loss.trains_conditional)
        raise RecipeError(f"loss: got {recipe.loss.name!r} for a {kind}, which is conditional, expected one of {able}")
    if (recipe.loss.fits_weight or recipe.fit_weight) and not hasattr(regularizer, "rescaled"):
        what = f"loss: {recipe.loss.name!r}" if recipe.loss.fits_weight else "fit_weight"
        raise RecipeError(f"{what} has a weight fitted afterwards, which a {kind} cannot take: no method rescaled")
