"""Masks: which pixels of a picture are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from icgn.datasets import Picture, read_picture, to_gray

# From this level of 255 on a pixel of a mask says that the picture is known.
_KNOWN_FROM = 127.5 / 255


def read_mask(path: str | Path) -> Tensor:
    """Read a mask from a picture file: bool (1, H, W), True where the picture is known.

    Raises
    ------
    ValueError
        if the file cannot be read, or says that no pixel is known.
    """
    try:
        return known_pixels(read_picture(path))
    except ValueError as error:
        reason = str(error).removeprefix("mask: ").removeprefix(f"{path}: ")
        raise ValueError(f"mask {path}: {reason}") from error


def known_pixels(mask: Picture) -> Tensor:
    """The known pixels that the picture of a mask shows: bool (1, H, W), True from gray level 128 of 255 on.

    Colour becomes gray first.

    Raises
    ------
    ValueError
        if no pixel is known.
    """
    known = to_gray(mask) >= _KNOWN_FROM
    if not bool(known.any()):
        raise ValueError("mask: got no pixel of 128 or more, expected white where the picture is known")
    return known


def check_mask(mask: Tensor, like: Tensor) -> Tensor:
    """A mask for pictures `like` (B, C, H, W): bool, (1, 1, H, W) for all of them or (B, 1, H, W), on their device.

    Parameters
    ----------
    mask : Tensor
        bool, or numbers that are 0 or 1; (H, W), (1, H, W) or (1, 1, H, W) for all pictures, (B, 1, H, W) for each.
    like : Tensor
        the pictures.

    Raises
    ------
    TypeError
        if it is not a tensor.
    ValueError
        for another shape, other values, or a picture of which no pixel is known.
    """
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask: got {type(mask).__name__}, expected a torch.Tensor")
    known = mask.bool() if mask.dtype is torch.bool or bool(((mask == 0) | (mask == 1)).all()) else None
    if known is None:
        raise ValueError("mask: got values other than 0 and 1, expected True or 1 where the picture is known")
    while known.ndim < 4:
        known = known[None]
    height, width = like.shape[-2:]
    if known.shape[1:] != (1, height, width) or len(known) not in (1, len(like)):
        sizes = " or ".join(dict.fromkeys(f"({n}, 1, {height}, {width})" for n in (1, len(like))))
        raise ValueError(f"mask: got shape {tuple(mask.shape)}, expected {sizes}")
    if not bool(known.flatten(1).any(1).all()):
        raise ValueError("mask: got a picture without any known pixel, expected True where it is known")
    return known.to(like.device)


def nearest_known(y: Tensor, known: Tensor) -> Tensor:
    """Pictures y (B, C, H, W), each missing pixel replaced by the nearest of those `known`, (1 or B, 1, H, W)."""
    from scipy.ndimage import distance_transform_edt

    filled = []
    for picture, mask in zip(y, known.expand(len(y), -1, -1, -1), strict=True):
        nearest = distance_transform_edt(~mask[0].cpu().numpy(), return_distances=False, return_indices=True)
        rows, columns = torch.from_numpy(np.asarray(nearest)).long().to(y.device)
        filled.append(picture[..., rows, columns])
    return torch.stack(filled)
