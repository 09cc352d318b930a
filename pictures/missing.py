"""Masks as tensors: checked against pictures, and first values of what is missing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def check_mask(mask: Tensor, like: Tensor) -> Tensor:
    """A mask for pictures `like` (B, C, H, W): bool, (1 or B, 1 or C, H, W), on their device.

    Parameters
    ----------
    mask : Tensor
        bool, or numbers that are 0 or 1; (H, W), (1, H, W) or (1, 1, H, W) for all pictures, (B, 1, H, W) for each;
        (C, H, W) or (1 or B, C, H, W) with a mask for each channel, or for each slice of a volume.
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
    channels, height, width = like.shape[1:]
    fits = known.shape[2:] == (height, width) and known.shape[1] in (1, channels) and len(known) in (1, len(like))
    if known.ndim != 4 or not fits:
        numbers = dict.fromkeys((n, c) for n in (1, len(like)) for c in (1, channels))
        sizes = " or ".join(f"({n}, {c}, {height}, {width})" for n, c in numbers)
        raise ValueError(f"mask: got shape {tuple(mask.shape)}, expected {sizes}")
    if not bool(known.flatten(1).any(1).all()):
        raise ValueError("mask: got a picture without any known pixel, expected True where it is known")
    return known.to(like.device)


def nearest_known(y: Tensor, known: Tensor) -> Tensor:
    """Pictures y (B, C, H, W), each missing value replaced by the nearest of those `known`, (1 or B, 1 or C, H, W).

    It is the nearest in its channel; in all of them, as slices of a volume, where one has no known value.
    """
    masks = known.expand(len(y), -1, -1, -1)
    whole = masks.shape[1] > 1 and not bool(masks.flatten(2).any(2).all())
    filled = []
    for picture, mask in zip(y, masks, strict=True):
        if whole:
            filled.append(picture[_nearest(mask)])
        elif len(mask) == 1:
            filled.append(picture[(slice(None), *_nearest(mask[0]))])
        else:
            filled.append(torch.stack([c[_nearest(m)] for c, m in zip(picture, mask, strict=True)]))
    return torch.stack(filled)


def _nearest(mask: Tensor) -> tuple[Tensor, ...]:
    """For each place of a mask the place of the nearest one that is True, an index for each axis."""
    from scipy.ndimage import distance_transform_edt

    places = distance_transform_edt(~mask.cpu().numpy(), return_distances=False, return_indices=True)
    return tuple(torch.from_numpy(np.asarray(places)).long().to(mask.device))
