"""The models that the page offers, for gray and colour pictures."""

from __future__ import annotations

from functools import cache

import torch

from icgn.regularizers import ConvexRegularizer, available_models, load_pretrained
from icgn.regularizers.pretrained import DEFAULT_MODELS

OFFERED: dict[str, tuple[str, dict[int, str]]] = {
    "fast": ("Fast: a small convex network", {1: "ridge-gray-small", 3: "ridge-color-small"}),
    "convex": ("Convex: a larger convex network", {1: "ridge-gray", 3: "ridge-color"}),
    "best": ("Best quality: convex given a condition computed from the picture", DEFAULT_MODELS),
    "adversarial": ("Adversarial: learned from unpaired photographs", {1: "adversarial-gray", 3: "adversarial-gray"}),
}
"""Words and names by number of channels of every model; a gray one takes the channels of colour pictures."""


def choices() -> list[tuple[str, str]]:
    """Words and key of each model that is shipped."""
    shipped = available_models()
    return [(words, key) for key, (words, names) in OFFERED.items() if all(n in shipped for n in names.values())]


def model_name(key: str, channels: int) -> str:
    """The name of a model for pictures of so many channels.

    Raises
    ------
    ValueError
        for a key that is none.
    """
    if key not in OFFERED:
        raise ValueError(f"model: got {key!r}, expected one of {', '.join(OFFERED)}")
    return OFFERED[key][1][channels]


@cache
def load(name: str) -> ConvexRegularizer:
    """The model of that name on the fastest device, loaded once."""
    return load_pretrained(name, device="cuda" if torch.cuda.is_available() else "cpu")
