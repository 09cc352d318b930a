"""Which regularizer restores a picture, and how the picture is handed to it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor

from icgn.functionals.noise import Noise, White
from icgn.regularizers import ConditionalICGN, ConvexRegularizer, PerChannel, RidgeICGN, load_pretrained
from icgn.regularizers.named import load_regularizer
from icgn.regularizers.pretrained import DEFAULT_MODELS

ModelFor = Callable[[int], ConvexRegularizer]
"""Gives the regularizer for pictures of so many channels, 1 or 3."""


def default_regularizer(y: Tensor) -> ConvexRegularizer:
    """The shipped regularizer for pictures like y (B, C, H, W), on its device.

    ``conditional-gray`` for one channel, and for each of three channels that are equal; ``conditional-color`` for other
    pictures of three channels.

    Raises
    ------
    ValueError
        for another number of channels.
    """
    channels = y.shape[1]
    if channels not in DEFAULT_MODELS:
        raise ValueError(f"y: got {channels} channels, expected 1 or 3, or a regularizer for that number")
    # Gray stored as colour has one noise, not the three independent ones that a model for colour expects.
    if channels == 3 and bool(((y == y[:, :1]) | y.isnan()).all()):
        return PerChannel(load_pretrained(DEFAULT_MODELS[1], device=y.device))
    return load_pretrained(DEFAULT_MODELS[channels], device=y.device)


def regularizers_by_channels(*, name: str | Path | None = None, device: str | torch.device = "cpu") -> ModelFor:
    """A function that gives the regularizer for a number of channels, and loads each one once.

    Parameters
    ----------
    name : str or path, optional
        as for :func:`icgn.regularizers.load_regularizer`, for any number of channels; it is loaded at once, so that a
        wrong name is refused here.
        Default the shipped models of :data:`icgn.regularizers.pretrained.DEFAULT_MODELS`.
    device : str or torch.device
        where they compute.

    Raises
    ------
    ModelError
        for a name that is no model.
    """

    @cache
    def load(name: str | Path) -> ConvexRegularizer:
        return load_regularizer(name, device=device)

    if name is not None:
        load(name)
    return lambda channels: load(name or DEFAULT_MODELS[channels])


def as_batch(y: Tensor, regularizer: ConvexRegularizer) -> Tensor:
    """A picture or measurement y (C, ...) as the batch that a regularizer takes, on its device.

    A gray regularizer takes the three channels of a colour picture one by one, (3, 1, H, W); everything else is a batch
    of one, (1, C, ...).
    """
    # Hand-made regularizers have no parameters, and follow the device by a buffer.
    tensors = itertools.chain(regularizer.parameters(), regularizer.buffers())
    batch = y[None].to(next((t.device for t in tensors), y.device))
    one_by_one = regularizer.channels == 1 and y.ndim == 3 and len(y) == 3
    return batch.transpose(0, 1).contiguous() if one_by_one else batch


def has_local_levels(noise: Noise | None, regularizer: ConvexRegularizer) -> TypeGuard[White]:
    """Whether noise has a level for each pixel, which the regularizer can follow."""
    if not (isinstance(noise, White) and noise.is_map and isinstance(regularizer, RidgeICGN | ConditionalICGN)):
        return False
    shape = torch.as_tensor(noise.level).shape
    return len(shape) == 4 and shape[1] == 1 and min(shape[2:]) > 1
