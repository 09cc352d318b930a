"""Models and devices by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch

from icgn.regularizers import ConvexRegularizer

ModelFor = Callable[[int], ConvexRegularizer]
"""Gives the regularizer for pictures of so many channels, 1 or 3."""


def find_models(name: str | None, device: torch.device) -> ModelFor:
    """Give regularizers by number of channels, each loaded once; a named one at once, so that a wrong name is told.

    Parameters
    ----------
    name : str, optional
        shipped model or path, for any number of channels; default that of ``regularizers.pretrained.DEFAULT_MODELS``.
    device : torch.device
        where they compute.

    Raises
    ------
    ValueError
        for a name that is no model.
    """
    from icgn import regularizers

    @cache
    def load(name: str) -> ConvexRegularizer:
        return regularizers.load_pretrained(name, device)

    if name is not None:
        load(name)
    return lambda channels: load(name or regularizers.pretrained.DEFAULT_MODELS[channels])


def find_device(name: str | None) -> torch.device:
    """The device of that name; without a name CUDA where there is one, else the CPU.

    Raises
    ------
    ValueError
        naming ``--device``, for one that torch does not have here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        # Certificates and counters are float64, which Apple's mps does not have.
        torch.zeros(1, dtype=torch.float64, device=device)
    # Torch reports a device that it lacks by RuntimeError, AssertionError or NotImplementedError.
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device: got {name!r}, expected one that torch has here, e.g. cpu ({reason})") from error
    return device


def check_channels(regularizer: ConvexRegularizer, channels: int) -> None:
    """Raise ``ValueError`` if a picture of so many channels cannot be restored: gray, by a model for colour."""
    if regularizer.channels not in (None, 1, channels):
        raise ValueError(
            f"gray picture, but the model takes {regularizer.channels} channels; use --model conditional-gray"
        )
