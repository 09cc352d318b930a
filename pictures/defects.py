"""Pictures without what is no noise of every pixel: stripes are taken away, pixels that say nothing are marked."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.ndimage
import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.datasets import Picture
from icgn.datasets.defects import find_impulses, find_stripes
from icgn.pictures.levels import Note


@keyword_only
@dataclass(frozen=True, eq=False)
class Cleared:
    """A picture without stripes, and its pixels that say something.

    Attributes
    ----------
    picture : Picture
        without stripes; pixels that say nothing are the median of those around them.
    known : Tensor or None
        bool (1, H, W), False for dead pixels, salt and pepper; None if there are none.
    notes : tuple of Note
        what was found.
    """

    picture: Picture
    known: Tensor | None
    notes: tuple[Note, ...]


def clear(picture: Picture) -> Cleared:
    """Take away stripes, and find pixels that say nothing: :mod:`icgn.datasets.defects`.

    Parameters
    ----------
    picture : Picture
        as it was read.
    """
    values = picture.pixels.detach().double().cpu().numpy().copy()
    finite = np.isfinite(values).all()
    notes: list[Note] = []
    stripes = find_stripes(values) if finite else None
    if stripes is not None:
        values = stripes.removed(values)
        picture = replace(picture, pixels=torch.from_numpy(values).to(picture.pixels))
        lines = ("rows", "columns")[stripes.axis]
        said = f"stripes of {lines} of {{:.3g}} {{unit}} found, and taken away"
        notes.append(Note("stripes", said, (stripes.level,), warning=True))
    dead = find_impulses(values) if finite else np.zeros(values.shape[1:], bool)
    if not dead.any():
        return Cleared(picture=picture, known=None, notes=tuple(notes))
    for plane in values:
        plane[dead] = scipy.ndimage.median_filter(plane, size=5, mode="reflect")[dead]
    picture = replace(picture, pixels=torch.from_numpy(values).to(picture.pixels))
    said = f"{int(dead.sum())} pixels ({dead.mean():.2%}) are dead, salt or pepper; they are filled in"
    notes.append(Note("dead", said, warning=True))
    return Cleared(picture=picture, known=torch.from_numpy(~dead)[None], notes=tuple(notes))
