"""Which pixels are to be filled in: drawn, in a rectangle, or at random."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

INK = (0xD8, 0x1B, 0x60)
"""The colour of strokes, red, green and blue."""


def drawn(layers: list[Any], height: int, width: int) -> Tensor:
    """The pixels that strokes cover, bool (1, H, W), of the layers (h, w, 4) of an editor, opaque where drawn."""
    covered = np.zeros((height, width), dtype=bool)
    for layer in layers:
        alpha = Image.fromarray(np.asarray(layer)[..., 3])
        if alpha.size != (width, height):
            alpha = alpha.resize((width, height), Image.Resampling.NEAREST)
        covered |= np.asarray(alpha) >= 128
    return torch.from_numpy(covered)[None]


def painted(pixels: Tensor, missing: Tensor) -> Tensor:
    """A picture (C, H, W) in colour with the missing pixels (1, H, W) in the colour of strokes, (3, H, W)."""
    ink = torch.tensor(INK, dtype=pixels.dtype)[:, None, None] / 255
    return torch.where(missing, ink, pixels.expand(3, -1, -1))


def rectangle(text: str, height: int, width: int) -> Tensor:
    """The pixels in a rectangle, bool (1, H, W); `text` is left, top, width and height in percent, or empty.

    Raises
    ------
    ValueError
        for anything else.
    """
    inside = torch.zeros(1, height, width, dtype=torch.bool)
    if not text.strip():
        return inside
    try:
        left, top, wide, high = (float(part) / 100 for part in text.replace(";", ",").split(","))
    except ValueError as error:
        raise ValueError(f"rectangle: got {text!r}, expected four numbers in percent, e.g. 40, 40, 20, 10") from error
    if not (0 <= left <= 1 and 0 <= top <= 1 and 0 < wide <= 1 and 0 < high <= 1):
        raise ValueError(f"rectangle: got {text!r}, expected numbers from 0 to 100, with a positive width and height")
    rows = slice(round(top * height), round(min(top + high, 1) * height))
    columns = slice(round(left * width), round(min(left + wide, 1) * width))
    inside[:, rows, columns] = True
    return inside


def scattered(percent: float, height: int, width: int) -> Tensor:
    """Pixels at random, each with that probability, the same ones every time; bool (1, H, W)."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, height, width, generator=generator) < percent / 100
