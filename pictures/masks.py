"""Masks: which pixels of a picture are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from icgn.datasets import Picture, luma, open_stack

MOST, NEARLY_ALL = 0.5, 0.9
"""Parts of a picture: masks that hide more than the first, or the second at least, may be inverted by mistake."""


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask as it was read.

    Attributes
    ----------
    known : Tensor
        bool (1, H, W), True where the picture is known.
    rule : str
        in words, which of its values are those of missing pixels.
    """

    known: Tensor
    rule: str

    @property
    def hidden(self) -> float:
        """The part of the pixels that is missing."""
        return 1 - float(self.known.double().mean())

    @property
    def words(self) -> str:
        """How many pixels are filled in, and which."""
        count, total = self.known.numel() - int(self.known.sum()), self.known.numel()
        return f"{count} of {total} pixels ({percent(count / total)}) are filled in: {self.rule}"

    @property
    def doubt(self) -> str:
        """What makes one ask whether the mask is meant so, in words; empty if nothing does."""
        if self.hidden == 0:
            return "hides no pixel: there is nothing to fill in"
        return f"hides {percent(self.hidden)} of the picture" if self.hidden > MOST else ""


def percent(share: float) -> str:
    """A part as a percentage that is 0 or 100 only if the part is 0 or 1."""
    shown = f"{100 * share:.1f}"
    if shown in ("0.0", "100.0") and 0 < share < 1:
        return "less than 0.1 %" if share < 0.5 else "more than 99.9 %"
    return f"{shown.removesuffix('.0')} %"


def load_mask(path: str | Path, *, invert: bool = False) -> Mask:
    """Read a mask from a file of one page of any kind that :func:`icgn.datasets.open_stack` reads.

    The picture is known where the mask is light, and missing where it is dark: False and True, 0 and 1, 0 and 255. The
    threshold is half of the largest value; if there are negative ones, the middle between the least and the largest.
    Colour becomes gray first. Pixels that are mostly transparent are missing; where the others are all equal, it is the
    opacity alone that counts.

    Parameters
    ----------
    path : str or Path
        the file.
    invert : bool
        whether light pixels are the missing ones, as in OpenCV, scikit-image and painting programs.

    Raises
    ------
    ValueError
        if the file cannot be read, has several pages or values that are not finite, or says that no pixel is known.
    """
    try:
        with open_stack(path) as stack:
            if len(stack) != 1:
                raise ValueError(f"has {len(stack)} pages, expected one: write each as a file of its own")
            page = stack.page(0)
        return _mask(page.values, page.alpha, invert)
    except ValueError as error:
        reason = str(error).removeprefix("mask: ").removeprefix(f"{path}: ")
        raise ValueError(f"mask {path}: {reason}") from error


def read_mask(path: str | Path, *, invert: bool = False) -> Tensor:
    """Read a mask from a picture file: bool (1, H, W), True where the picture is known.

    Parameters
    ----------
    path : str or Path
        the file; :func:`load_mask` says what its values mean.
    invert : bool
        whether light pixels are the missing ones.

    Raises
    ------
    ValueError
        if the file cannot be read, or says that no pixel is known.
    """
    return load_mask(path, invert=invert).known


def known_pixels(mask: Picture) -> Tensor:
    """The known pixels that the picture of a mask shows: bool (1, H, W); :func:`load_mask` says which they are.

    Raises
    ------
    ValueError
        if no pixel is known.
    """
    return _mask(mask.pixels, mask.alpha, invert=False).known


def _mask(values: Tensor, alpha: Tensor | None, invert: bool) -> Mask:
    gray = _gray(values)
    opaque = torch.ones_like(gray, dtype=torch.bool) if alpha is None else alpha >= 0.5
    shown = gray[opaque]
    bad = int((~torch.isfinite(shown)).sum())
    if bad:
        raise ValueError(f"mask: got {bad} NaN or infinite values, expected finite ones")
    found = _by_opacity(opaque, shown, invert) or _by_lightness(gray, opaque, shown, invert)
    if not bool(found.known.any()):
        hint = "do not invert it" if invert else "inverted, it fills where it is light (--invert of the command line)"
        raise ValueError(f"mask: hides every pixel: {found.rule}; expected pixels that are known; {hint}")
    return found


def _by_opacity(opaque: Tensor, shown: Tensor, invert: bool) -> Mask | None:
    """The mask that the opacity is, where it varies and nothing else does."""
    if bool(opaque.all()) or (shown.numel() > 0 and bool((shown != shown[0]).any())):
        return None
    return Mask(~opaque, "the opaque ones") if invert else Mask(opaque, "the transparent ones")


def _by_lightness(gray: Tensor, opaque: Tensor, shown: Tensor, invert: bool) -> Mask:
    low, high = float(shown.min()), float(shown.max())
    bound = min(low, 0.0)
    # Noise of compression around white is no second value, and neither is a single one.
    middle = (bound + high) / 2 if high > bound else 0.0
    light = (gray > middle) & opaque
    if low == high:
        return Mask(~light if invert else light, f"all are {low:g}")
    two = low <= middle and bool(((shown == low) | (shown == high)).all())
    clear = "" if bool(opaque.all()) else ", and the transparent ones"
    if invert:
        rule = f"those of {high:g}, not of {low:g}" if two else f"those above {middle:g}"
        return Mask(~light, rule + (" that are opaque" if clear else ""))
    rule = (
        f"those of {low:g}, not of {high:g}" if two else f"those up to {middle:g}, half way from {bound:g} to {high:g}"
    )
    return Mask(light, rule + clear)


def _gray(values: Tensor) -> Tensor:
    """The luma of colour, the mean of other channels; (1, H, W) in float64."""
    values = values.double()
    if len(values) == 3 and bool((values != values[:1]).any()):
        return luma(values)
    return values[:1] if len(values) == 3 else values.mean(0, keepdim=True)


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
