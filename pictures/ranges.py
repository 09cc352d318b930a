"""The range of intensities of pictures in any unit, and the levels and bounds that follow from it."""

from __future__ import annotations

import torch
from torch import Tensor

from icgn.functionals.intensities import UNIT as UNIT
from icgn.functionals.intensities import Range as Range
from icgn.functionals.intensities import RangeOption as RangeOption
from icgn.functionals.intensities import checked_range, quantiles
from icgn.functionals.intensities import intensity_range as intensity_range
from icgn.pictures.levels import Reach
from icgn.pictures.tasks import Pose, Task
from icgn.regularizers import ScaledRegularizer
from icgn.regularizers.base import ConvexRegularizer

# Pictures this far outside [0, 1], noise aside, are in another unit; images of measurements ring.
_SLACK, _RINGING = 0.02, 0.25
# Pictures that fill less of [0, 1] are stretched, unless their noise is at least this.
_FILLED, _NOISY = 0.25, 2 / 255
# A level below this part of the least trained one is in another unit than the pictures.
_SENSIBLE = 0.2
# A restored picture may exceed its measurement by this part of the range on either side before the box is widened.
_MARGIN = 0.25


def spread(pixels: Tensor) -> float:
    """How far apart the pixels lie, without a few hot or dead ones; 0 where all are equal or none is finite."""
    if not bool(torch.isfinite(pixels).any()):
        return 0.0
    low, high, _ = quantiles(pixels)
    return high - low


def find_range(task: Task, y: Tensor, pose: Pose, noise: float | Tensor, given: RangeOption) -> Range:
    """The range of the pictures of a task; one for all pictures of a batch.

    Parameters
    ----------
    task : Task
        what happened to them.
    y : Tensor
        pictures as they were measured, batch first.
    pose : Pose
        the problem that the task poses for them.
    noise : float or Tensor
        standard deviation of the noise of y.
    given : (float, float), "auto" or None
        as the caller gives it.

    Raises
    ------
    ValueError
        for a range that is none.
    """
    if given is not None and given != "auto":
        return checked_range(given)
    if not bool(torch.isfinite(y).any()):
        return UNIT  # refused where the problem is posed
    shown, known = task.shown(y, pose), typical_noise(noise) if task.shows_intensities else 0.0
    found = intensity_range(shown, noise=known)
    return UNIT if given is None and _is_unit(shown, found, known, task.shows_intensities) else found


def reach_at(regularizer: ConvexRegularizer, limits: Range) -> Reach:
    """The noise levels that a regularizer was trained for, for intensities of that range."""
    scale, reach = limits[1] - limits[0], regularizer.sigma_range
    return None if reach is None else (scale * reach[0], scale * reach[1])


def fixed_range(regularizer: ConvexRegularizer, given: RangeOption) -> RangeOption:
    """The range to look for: [0, 1] as it is where the regularizer is made for another unit already."""
    made = isinstance(regularizer, ScaledRegularizer)
    reach = regularizer.sigma_range
    return UNIT if given is None and (made or (reach is not None and reach[1] >= 1)) else given


def check_level(sigma: float | Tensor, reach: Reach, limits: Range, given: RangeOption) -> None:
    """Refuse a level that is far too small for a range that was found: it is in another unit than the pictures.

    Raises
    ------
    ValueError
        if sigma is positive and below a fifth of the least trained level.
    """
    if limits == UNIT or not (given is None or given == "auto"):
        return
    least = reach[0] if reach else (limits[1] - limits[0]) / 255
    level = float(torch.as_tensor(sigma).max())
    if 0 < level < _SENSIBLE * least:
        raise ValueError(
            f"y: got intensities from {limits[0]:.4g} to {limits[1]:.4g} and a level of {level:.3g} to remove, expected"
            " both in one unit: divide images in 0..255 by 255, or give the level in their unit; for noise that is"
            " really so small, name the range of the pictures"
        )


def default_box(task: Task, y: Tensor, limits: Range) -> Range:
    """Bounds of the intensities that clip nothing that is in the data: the range, widened on either side."""
    if limits == UNIT:
        return UNIT
    margin = _MARGIN * (limits[1] - limits[0])
    low, high = limits[0] - margin, limits[1] + margin
    if task.shows_intensities:
        seen = y[torch.isfinite(y)]
        low, high = min(low, float(seen.min())), max(high, float(seen.max()))
    return low, high


def wider_box(box: Range) -> Range:
    """Bounds twice as far apart."""
    half = (box[1] - box[0]) / 2
    return box[0] - half, box[1] + half


def share_at(x: Tensor, box: Range, margin: float = 0.0) -> float:
    """The part of the pixels that lie on a bound, or within `margin` of it as a part of the box."""
    near = margin * (box[1] - box[0])
    x = x[~torch.isnan(x)]
    return float(((x <= box[0] + near) | (x >= box[1] - near)).double().mean())


def typical_noise(noise: float | Tensor) -> float:
    """The root mean square of noise levels."""
    return float(torch.as_tensor(noise, dtype=torch.float64).square().mean().sqrt())


def _is_unit(pixels: Tensor, found: Range, noise: float, pictures: bool) -> bool:
    """Whether pictures are in [0, 1] apart from their noise, and wide or noisy enough to be taken as they are."""
    low, high, _ = quantiles(pixels)
    if noise > max(1.0, high - low):  # it would be seen, were it in their unit: refused where the problem is posed
        return True
    slack = (_SLACK + 4 * noise * (noise <= 1)) if pictures else _RINGING
    wide = found[1] - found[0] >= _FILLED or noise >= _NOISY or low == high
    return low >= -slack and high <= 1 + slack and wide
