"""Errors of pictures that are no noise of every pixel: dead pixels, salt and pepper, stripes of rows or columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy.ndimage

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_MAD = 1.4826
# A pixel is an outlier from so many deviations of its neighbours' differences on.
_FAR = 8.0
# The part of the extreme pixels that are so far away where there is salt or pepper.
_MAINLY = 0.3
# Once there is salt or pepper, an extreme pixel this near to its neighbours is one of them.
_NEAR = 2.0
# Salt and pepper are called so where at least this part of the pixels is; more cannot be told from a picture.
_LEAST, _MOST = 5e-4, 0.4
# Isolated outliers: at most this part, else they are texture.
_DEAD = 0.01
# Side of the squares in which differences are compared.
_AROUND = 15
# Rows that a stripe is compared with, on either side together.
_WINDOW = 9
# Stripes of more than this part of the range are no error of an instrument.
_LARGE = 0.08
# Parts of the width in which stripes must agree, and how well.
_PARTS, _AGREE = 4, 0.45


@dataclass(frozen=True, eq=False)
class Stripes:
    """Rows or columns that are darker or brighter than their neighbours.

    Attributes
    ----------
    axis : int
        0 for rows, 1 for columns.
    offsets : ndarray
        what is to be taken from each line of each channel, (C, lines).
    """

    axis: int
    offsets: Array

    @property
    def level(self) -> float:
        """Root mean square of the offsets."""
        return float(np.sqrt(np.square(self.offsets).mean()))

    def removed(self, picture: Array) -> Array:
        """The picture (C, H, W) without them."""
        return picture - (self.offsets[:, :, None] if self.axis == 0 else self.offsets[:, None, :])


def find_impulses(picture: Array) -> Array:
    """Pixels whose value says nothing: salt and pepper, and single dead or hot pixels.

    Salt and pepper are single pixels at the least or the largest value of the picture that are far from the median of
    the 5 x 5 pixels around them. Dead pixels are far from the median of their neighbours, which are near to it
    themselves; where more than one in a hundred pixels is like that, it is texture, and none is dead.

    Parameters
    ----------
    picture : ndarray
        (C, H, W), finite.

    Returns
    -------
    ndarray
        bool (H, W), True where any channel has such a pixel.
    """
    if min(picture.shape[1:]) < 5:
        return np.zeros(picture.shape[1:], bool)
    return np.any([_salt_and_pepper(p) | _dead(p) for p in picture], 0)


def find_stripes(picture: Array) -> Stripes | None:
    """Stripes of rows or of columns, those that are the stronger; None where there are none.

    The offset of a row is the median of its differences to the mean of the eight rows around it. It is a stripe where
    the quarters of the picture agree about the offsets, as no content of a photograph does, and they are larger than
    what noise makes of such a median.

    Parameters
    ----------
    picture : ndarray
        (C, H, W), finite.
    """
    lines = [_rows(picture), _rows(picture.swapaxes(1, 2))]
    found = [Stripes(axis, offsets) for axis, offsets in enumerate(lines) if offsets is not None]
    return max(found, key=lambda stripes: stripes.level, default=None)


def _salt_and_pepper(plane: Array) -> Array:
    least, largest = plane.min(), plane.max()
    extreme = (plane == least) | (plane == largest)
    # Areas of one colour are clipped highlights or letters, not single pixels.
    if not _LEAST <= extreme.mean() <= _MOST or not _is_scattered(extreme):
        return np.zeros(plane.shape, bool)
    difference = np.abs(plane - scipy.ndimage.median_filter(plane, size=5, mode="reflect"))
    spread = _MAD * np.median(difference[~extreme])
    far = extreme & (difference > max(_FAR * spread, 0.1 * (largest - least)))
    # Most are far from their neighbours: white paper is not.
    if far.mean() < max(_LEAST, _MAINLY * extreme.mean()):
        return np.zeros(plane.shape, bool)
    return extreme & (difference > _NEAR * spread)


def _is_scattered(found: Array) -> bool:
    """Whether pixels lie as by chance: about as many pairs of neighbours as independent ones would make."""
    share = found.mean()
    pairs = (found[1:] & found[:-1]).mean() + (found[:, 1:] & found[:, :-1]).mean()
    return bool(pairs / 2 < 1.5 * share**2 + 0.1 * share)


def _dead(plane: Array) -> Array:
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    around = scipy.ndimage.median_filter(plane, footprint=ring, mode="reflect")
    difference = np.abs(plane - around)
    spread = _MAD * np.median(difference)
    if spread == 0:
        return np.zeros(plane.shape, bool)
    near = scipy.ndimage.maximum_filter(difference, footprint=ring, mode="reflect")
    # The noise may differ from place to place: 1.25 mean absolute values are one deviation of normal noise.
    spread = np.maximum(spread, 1.25 * scipy.ndimage.uniform_filter(difference, _AROUND, mode="reflect"))
    # Detail of a picture is never one pixel alone: the differences around it are large too.
    found = (difference > _FAR * spread) & (near < 0.6 * difference) & _beyond(plane, ring, difference)
    return found if found.mean() <= _DEAD and _is_scattered(found) else np.zeros(plane.shape, bool)


def _beyond(plane: Array, ring: Array, difference: Array) -> Array:
    """Whether a pixel is farther from all its neighbours than these are from one another, three times."""
    largest = scipy.ndimage.maximum_filter(plane, footprint=ring, mode="reflect")
    least = scipy.ndimage.minimum_filter(plane, footprint=ring, mode="reflect")
    outside = np.maximum(plane - largest, least - plane)
    return outside > 1.5 * (largest - least)


def _rows(picture: Array) -> Array | None:
    """Offsets of rows (C, H) where they are stripes."""
    height, width = picture.shape[1:]
    if height < 2 * _WINDOW or width < 8 * _PARTS:
        return None
    # To the mean of the others: n / (n - 1) times that to the mean of all.
    around = scipy.ndimage.uniform_filter1d(picture, _WINDOW, axis=1, mode="reflect")
    difference = (picture - around) * _WINDOW / (_WINDOW - 1)
    offsets = np.median(difference, 2)
    parts = np.stack([np.median(p, 2) for p in np.array_split(difference, _PARTS, axis=2)])
    # Few rows that are much brighter are content: stripes are in most rows.
    typical = _MAD * np.median(np.abs(offsets), 1, keepdims=True)
    varied = np.clip(parts, -3 * typical, 3 * typical)
    power = np.square(varied).mean(2).mean(0)
    pairs = [(varied[i] * varied[j]).mean(1) for i in range(_PARTS) for j in range(i)]
    agree = np.mean(pairs, 0) / np.maximum(power, 1e-24)
    size, whole = (v / max(np.ptp(picture), 1e-24) for v in (typical[:, 0], offsets.std(1)))
    # Large ones, or such that go on in the next rows, are what the picture shows: blinds, shelves, boards.
    strong = (agree > _AGREE) & (size > 1e-3) & (whole < _LARGE) & (np.abs(_with_next(offsets)) < 0.5)
    strong &= _shifted(difference, offsets)
    return np.where(strong[:, None], offsets, 0.0) if strong.any() else None


def _with_next(offsets: Array) -> Array:
    """Correlation of each offset with that of the next line, or the one after it, whichever is larger, (C,)."""
    power = np.maximum(np.square(offsets).mean(1), 1e-24)
    pairs = [(offsets[:, k:] * offsets[:, :-k]).mean(1) / power for k in (1, 2)]
    return np.max(np.abs(pairs), 0)


def _shifted(difference: Array, offsets: Array) -> Array:
    """Whether dark and bright pixels of the lines are shifted alike, (C,): letters leave the paper as it is."""
    power = np.maximum(np.square(offsets).mean(1), 1e-24)
    quartiles = np.quantile(difference, (0.25, 0.75), axis=2)
    quartiles = quartiles - np.median(quartiles, 2, keepdims=True)
    slopes = (quartiles * offsets).mean(2) / power
    return ((slopes > 0.5) & (slopes < 2)).all(0)
