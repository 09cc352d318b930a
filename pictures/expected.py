"""How long a restoration will take: tried on a small part of the picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from icgn.datasets import Picture
from icgn.pictures.models import ModelFor
from icgn.pictures.picture import restore_picture
from icgn.pictures.tasks import Deblur, Denoise, Inpaint, Task
from icgn.regularizers import ConvexRegularizer

# Side of the part, and pixels of the whole from which a trial costs little beside it.
_SIDE, _LARGE = 160, 1_000_000
# Problems that a rule for the weight solves, and the pixels of the tiles on which it does.
_SEARCHED, _TILES = 7, 250_000


def expected_seconds(
    picture: Picture, task: Task, regularizer: ConvexRegularizer | ModelFor, *, pages: int = 1, **options: Any
) -> float | None:
    """Seconds that :func:`icgn.pictures.restore_picture` will take, by those of the middle of the picture.

    Parameters
    ----------
    picture : Picture
        the picture, or one page of a stack.
    task : Task
        what happened to it.
    regularizer : ConvexRegularizer or callable
        R, or a function that gives it, as for :func:`icgn.pictures.restore_picture`.
    pages : int
        how many such pictures there are.
    **options
        of :func:`icgn.pictures.restore_picture`.

    Returns
    -------
    float or None
        None where the picture is so small that a trial would cost as much, or none can be made.
    """
    height, width = picture.pixels.shape[1:]
    if height * width * pages < _LARGE or min(height, width) < _SIDE:
        return None
    part = _middle(task, (height, width))
    if part is None:
        return None
    rows, columns = ((side - _SIDE) // 2 for side in (height, width))
    pixels = picture.pixels[:, rows : rows + _SIDE, columns : columns + _SIDE]
    weight = options.pop("weight", 1.0)
    crop = Picture(pixels)
    try:
        # The first run also pays for what is made once.
        restore_picture(crop, task=part, regularizer=regularizer, **{**options, "max_iter": 1})
        tried = restore_picture(crop, task=part, regularizer=regularizer, **options)
    except (ValueError, RuntimeError):
        return None
    whole = height * width * pages
    searched = min(height * width, _TILES) * pages * _SEARCHED if isinstance(weight, str) else 0
    return tried.seconds * (whole + searched) / _SIDE**2


def _middle(task: Task, size: tuple[int, int]) -> Task | None:
    """The task of the middle of a picture of that size."""
    if isinstance(task, Denoise):
        return task
    if isinstance(task, Deblur):
        return replace(task, border="valid") if max(task.kernel.shape[-2:]) < _SIDE // 2 else None
    if isinstance(task, Inpaint):
        rows, columns = ((side - _SIDE) // 2 for side in size)
        known = task.known.reshape(1, *size)[:, rows : rows + _SIDE, columns : columns + _SIDE]
        return Inpaint(known) if bool(known.any()) else None
    return None
