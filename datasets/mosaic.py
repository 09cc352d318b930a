"""What cameras do to colours: a Bayer mosaic, its bilinear interpolation, and compression by JPEG."""

from __future__ import annotations

import io

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor


def bayer_places(height: int, width: int, phase: tuple[int, int] = (0, 0)) -> Tensor:
    """1 where a Bayer mosaic has red, green and blue, else 0, float32 (3, H, W).

    Parameters
    ----------
    height, width : int
        of the mosaic.
    phase : (int, int)
        row and column of the first red pixel, each 0 or 1; blue is in the other rows and columns.
    """
    rows = torch.arange(height)[:, None] % 2 == phase[0]
    columns = torch.arange(width)[None] % 2 == phase[1]
    return torch.stack([rows & columns, rows ^ columns, ~rows & ~columns]).float()


def interpolated(mosaic: Tensor, places: Tensor) -> Tensor:
    """Bilinear interpolation of a mosaic (1, H, W) at the places of its colours (3, H, W): three colours (3, H, W)."""
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).to(mosaic).expand(3, 1, 3, 3)
    places = places.to(mosaic)
    known = F.pad(torch.stack([mosaic * places, places]), (1, 1, 1, 1), mode="reflect")
    sums, weights = F.conv2d(known, kernel, groups=3)
    return sums / weights


def compressed(picture: Tensor, quality: int, subsampling: int = -1) -> Tensor:
    """A picture (3, H, W) as a JPEG file gives it back, clipped to [0, 1] and rounded to 8 bits before, float32.

    Parameters
    ----------
    picture : Tensor
        intensities.
    quality : int
        1 to 95.
    subsampling : int
        of the colours: 0 for none, 1 for 4:2:2, 2 for 4:2:0; -1 leaves it to Pillow.
    """
    levels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "jpeg", quality=quality, subsampling=subsampling)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255
