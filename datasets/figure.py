"""Pictures side by side, each under its label."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from icgn.datasets.picture import Picture

_GAP = 8
_BACKGROUND = 255
_INK = 0


def comparison(panels: Sequence[tuple[str, Tensor]]) -> Picture:
    """Draw one 8-bit picture of several, in a row from left to right, each under its label.

    Parameters
    ----------
    panels : sequence of (str, Tensor)
        label and pixels (C, H, W) of each, C = 1 or 3, intensities in [0, 1] (others are clamped).

    Raises
    ------
    ValueError
        without panels.
    """
    if not panels:
        raise ValueError("panels: got none, expected at least one")
    images = [_image(pixels) for _, pixels in panels]
    mode = "RGB" if any(i.mode == "RGB" for i in images) else "L"
    font = ImageFont.load_default(size=max(12, min(24, max(i.height for i in images) // 20)))
    boxes = [font.getbbox(label) for label, _ in panels]
    band = math.ceil(max(b[3] for b in boxes)) + _GAP
    widths = [max(i.width, math.ceil(b[2])) for i, b in zip(images, boxes, strict=True)]
    size = (sum(widths) + _GAP * (len(panels) + 1), band + max(i.height for i in images) + 2 * _GAP)
    sheet = Image.new(mode, size, _colour(_BACKGROUND, mode))
    draw = ImageDraw.Draw(sheet)
    left = _GAP
    for (label, _), image, width in zip(panels, images, widths, strict=True):
        draw.text((left, _GAP // 2), label, fill=_colour(_INK, mode), font=font)
        sheet.paste(image, (left, band + _GAP))
        left += width + _GAP
    levels = np.atleast_3d(np.asarray(sheet, dtype=np.float32))
    return Picture(torch.from_numpy(np.ascontiguousarray(np.moveaxis(levels, -1, 0))) / 255)


def difference(first: Tensor, second: Tensor, gain: float) -> Tensor:
    """Show a difference as the picture :math:`1/2 + gain (first - second)`, which is gray where both agree.

    Parameters
    ----------
    first, second : Tensor
        (C, H, W), intensities.
    gain : float
        factor of the difference.

    Returns
    -------
    Tensor
        (C, H, W), not clamped to [0, 1].
    """
    return 0.5 + gain * (first - second)


def visible_gain(first: Tensor, second: Tensor) -> float:
    """Choose the power of two, 1 to 64, with which three standard deviations of a difference fit the gray scale."""
    spread = float((first - second).double().square().mean().sqrt())
    if not (spread > 0 and math.isfinite(spread)):
        return 1.0
    return 2.0 ** min(6, max(0, math.floor(math.log2(0.5 / (3 * spread)))))


def _image(pixels: Tensor) -> Image.Image:
    levels = (pixels.detach().cpu().double().nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels[0].numpy() if len(levels) == 1 else levels.permute(1, 2, 0).numpy())


def _colour(level: int, mode: str) -> int | tuple[int, int, int]:
    return level if mode == "L" else (level, level, level)
