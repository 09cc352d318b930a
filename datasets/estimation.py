r"""The noise of one picture, found in its flat parts: its level, its spectrum, and how it grows with the intensity.

The picture is cut into overlapping patches of 16 x 16 pixels. Those with the least energy in their low frequencies are
called flat, for each range of intensities apart; the noise is measured in their other frequencies, by medians, so that
the choice of the patches does not bias it (after Ponomarenko et al. 2007, Int. Geosci. Remote Sens. Symp., 1900-1903).
No patch counts that touches the least or the largest value of the picture more than rarely (clipped highlights, pages
of paper), is constant, has a pixel that is not finite, or lies in a dark frame around the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy.fft
import scipy.ndimage

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

SIDE = 16
"""Side of a patch in pixels."""

_CHI = 0.4549364
"""Median of a chi-square variable of one degree of freedom."""
_PARTS = (0.02, 0.04, 0.08, 0.15, 0.3)
"""Parts of the patches that are tried as the flat ones."""
_FEWEST = 16
# Patches of a range of intensities, and those that are enough for the first few ranges.
_BIN, _LEAST_BIN, _FIRST = 200, 50, 5
# A line of variances that vanishes at a positive intensity fits better than others by this factor, or is not taken.
_SHIFTED = 2.0
# Patches that are looked at, about.
_PATCHES = 40_000

COARSE = 1.5
"""Coarseness from which noise is called correlated."""

_SUM = np.add.outer(np.arange(SIDE), np.arange(SIDE))
_LEAST = np.minimum.outer(np.arange(SIDE), np.arange(SIDE))
_LOW = (_SUM >= 2) & (_SUM <= 4)
_MEASURED = _SUM >= 5
_RING = (_SUM >= 5) & (_SUM <= 6)
_FINE = _LEAST >= 10
_MIDDLE = (_LEAST >= 5) & (_LEAST < 10)


@dataclass(frozen=True)
class Measured:
    """What was found in the flat parts of a picture, in the unit of its pixels.

    Attributes
    ----------
    levels : ndarray
        root mean square of the noise over the picture, of each channel, (C,).
    fine : ndarray
        the same of white noise with the power of the finest frequencies, (C,).
    spectrum : ndarray
        power over the frequencies 0 to 1/2 per pixel of both axes, (16, 16), 1 in the mean.
    gain, read, offset : float
        the variance grows as ``gain * (intensity - offset) + read**2``; of offset and read one is 0, because the
        variance does not tell them apart.
    span : (float, float)
        mean intensities between which nearly all patches lie.
    growth : float
        variance at the brightest flat patches over that at the darkest, by the fit.
    patches : int
        how many patches were compared.
    coarseness : float
        deviation of the noise at middle frequencies over that at the finest: 1 for white noise.
    """

    levels: Array
    fine: Array
    spectrum: Array
    gain: float
    read: float
    offset: float
    span: tuple[float, float]
    growth: float
    patches: int
    coarseness: float

    def variance(self, intensity: float) -> float:
        """The variance at an intensity, by the line."""
        return max(self.gain * (intensity - self.offset), 0.0) + self.read**2


@dataclass(frozen=True)
class _Line:
    """A line through variances at intensities."""

    slope: float
    offset: float
    better: float
    """Error of the best constant over that of the line."""

    def at(self, x: Array) -> Array:
        values: Array = self.slope * x + self.offset
        return np.maximum(values, 0.0)


def measure_flat(
    picture: Array, *, step: int | None = None, ignored: Array | None = None, ends: bool = True
) -> Measured | None:
    """Measure the noise of a picture (C, H, W) in its flat parts; None where fewer than 16 patches can be used.

    Parameters
    ----------
    picture : ndarray
        (C, H, W); pixels that are not finite are not used.
    step : int, optional
        distance of the patches in pixels; default 4, more in large pictures.
    ignored : ndarray, optional
        pixels that are not to be used, bool (H, W).
    ends : bool
        leave out patches with more than a few pixels at the least or the largest value of the picture.
    """
    if min(picture.shape[1:]) < SIDE:
        return None
    if step is None:
        step = max(4, round(math.sqrt(picture[0].size / _PATCHES)))
    energy, means = _energies(picture, step, ignored, ends)
    if len(means) < _FEWEST:
        return None
    low = energy[..., _LOW].sum((1, 2))
    parts = max(len(means) // _BIN, min(len(means) // _LEAST_BIN, _FIRST))
    bins = np.array_split(np.argsort(means), int(np.clip(parts, 1, 8)))
    found = [_flattest(energy[b], low[b]) for b in bins]
    spectra = np.stack([s for s, _ in found])
    centres = np.array([means[b][chosen].mean() for b, (_, chosen) in zip(bins, found, strict=True)])
    counts = np.array([len(b) for b in bins], float)
    whole, fine = spectra.mean((1, 2, 3)), spectra[..., _FINE].mean((1, 2))
    line = _fit(centres, whole, counts)
    # Bins without flat patches are too high: the line through the others counts, for the shape of the spectrum too.
    weights = counts * np.minimum(1.0, line.at(centres) / whole) ** 2
    shape = np.tensordot(weights / weights.sum(), spectra / whole[:, None, None, None], 1)
    tiny = 1e-4 * shape.mean()
    coarseness = float(np.sqrt(max(shape[:, _MIDDLE].mean(), tiny) / max(shape[:, _FINE].mean(), tiny)))
    # Cameras add a number to their counts; correlated noise has been through programs that know no counts.
    counted = coarseness < COARSE
    fine_line = _fit(centres, fine, counts, shifted=counted)
    line = _fit(centres, whole, counts, shifted=True) if counted else line
    growing = fine_line if counted else line
    span = np.quantile(means, [0.02, 0.98])
    ends_of = growing.at(span)
    growth = float(ends_of[1] / max(ends_of[0], 1e-3 * ends_of[1])) if growing.better > 2 else 1.0
    levels = np.sqrt(line.at(means).mean() * shape.mean((1, 2)))
    fine_shape = shape[:, _FINE].mean(1)
    fine_levels = np.sqrt(fine_line.at(means).mean() * fine_shape / max(fine_shape.mean(), tiny))
    return Measured(
        levels=levels,
        fine=fine_levels,
        spectrum=shape.mean(0) / shape.mean(),
        gain=growing.slope,
        read=math.sqrt(max(growing.offset, 0.0)),
        offset=-growing.offset / growing.slope if growing.offset < 0 else 0.0,
        span=(float(span[0]), float(span[1])),
        growth=growth,
        patches=len(means),
        coarseness=coarseness,
    )


def clipped_level(picture: Array) -> float:
    """Level of noise of which half is clipped, as on a page of white paper; 0 where nothing is known.

    Of noise around the largest value, what is below it has the mean square level^2 / 2: the least of the patches in
    which a third of the pixels or more are at that value.

    Parameters
    ----------
    picture : ndarray
        (C, H, W), finite.
    """
    side = 8
    if min(picture.shape[1:]) < side:
        return 0.0
    squares = []
    for end in (picture.max(), picture.min()):
        cut = np.lib.stride_tricks.sliding_window_view(picture - end, (side, side), axis=(1, 2))[:, ::4, ::4]
        at_end = (cut == 0).mean((3, 4))
        squares.append(2 * np.square(cut).mean((3, 4))[at_end > 0.3])
    found = max(squares, key=len)
    return float(np.sqrt(np.quantile(found, 0.1))) if len(found) else 0.0


def dark_frame(picture: Array) -> Array | None:
    """The dark frame around a picture, as of a microscope or a film scan, bool (H, W); None where there is none.

    It is dark, touches the border, covers a twentieth of the picture, and is quieter than the rest: blocks of 8 x 8
    pixels (4 x 4 in pictures below 64 pixels) as dark and as even as the darkest of the border.

    Parameters
    ----------
    picture : ndarray
        (C, H, W), finite.
    """
    side = _block(picture)
    height, width = (n // side for n in picture.shape[1:])
    if min(height, width) < 4:
        return None
    gray = picture.mean(0)
    blocks = gray[: height * side, : width * side].reshape(height, side, width, side)
    mean, spread = blocks.mean((1, 3)), blocks.std((1, 3))
    border = np.ones_like(mean, bool)
    border[1:-1, 1:-1] = False
    darkest = border & (mean <= np.quantile(mean[border], 0.25))
    level, noise = np.median(mean[darkest]), np.median(spread[darkest])
    low, high = np.quantile(gray, [0.001, 0.999])
    like = (np.abs(mean - level) <= max(3 * noise, 0.01 * (high - low))) & (spread <= 2 * noise + 0.004 * (high - low))
    labels, _ = scipy.ndimage.label(like)
    frame = np.isin(labels, np.unique(labels[border & like]))
    inside = ~frame
    if not inside.any() or frame.mean() < 0.05 or level > low + 0.15 * (high - low):
        return None
    if np.quantile(spread[inside], 0.2) < 3 * noise:
        return None
    frame = scipy.ndimage.binary_dilation(frame)
    if (~frame).sum() * side**2 < SIDE**2:
        return None
    whole = np.pad(frame.repeat(side, 0).repeat(side, 1), ((0, side), (0, side)), mode="edge")
    return np.asarray(whole[: gray.shape[0], : gray.shape[1]])


def padding(picture: Array) -> Array | None:
    """The part of a picture that was never measured, bool (H, W); None where there is none.

    Scanners and mosaics pad with one value: the least one, in blocks of 8 x 8 pixels or more (4 x 4 in pictures below
    64 pixels) that cover a hundredth of the picture and touch its border, and nearly nowhere else.

    Parameters
    ----------
    picture : ndarray
        (C, H, W), finite.
    """
    side = _block(picture)
    if min(picture.shape[1:]) < 2 * side:
        return None
    least = (picture == picture.min()).all(0)
    if least.mean() < 0.01:
        return None
    blocks = scipy.ndimage.binary_opening(least, np.ones((side, side), bool))
    labels, _ = scipy.ndimage.label(least)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    found = np.isin(labels, np.intersect1d(border[border > 0], labels[blocks]))
    solid = blocks[found].mean() if found.any() else 0.0
    # Clipped shadows have no clear edge, and the least value is elsewhere too.
    if found.mean() < 0.01 or found.all() or solid < 0.5 or (least & ~found).mean() > 1e-3:
        return None
    return np.asarray(scipy.ndimage.binary_dilation(found, np.ones((3, 3), bool)))


def count_step(picture: Array) -> float | None:
    """The one distance between the values of a picture that holds few, as counts do; None for others.

    Parameters
    ----------
    picture : ndarray
        finite.
    """
    values = np.unique(picture)
    if not 3 <= len(values) <= 2000:
        return None
    gaps = np.diff(values)
    step = float(np.quantile(gaps, 0.1))
    if step <= 0:
        return None
    whole = (gaps / step).round()
    # Files of 16 bits round the values: the mean of all steps is nearer.
    step = float(gaps.sum() / max(whole.sum(), 1.0))
    places = np.concatenate([[0.0], np.cumsum(whole)])
    distance = np.abs(values - values[0] - step * places).max()
    return step if whole.min() > 0 and distance < min(3e-5, 0.1 * step) else None


def _block(picture: Array) -> int:
    """Side of the blocks of which frames are made."""
    return 8 if min(picture.shape[1:]) >= 64 else 4


def _energies(picture: Array, step: int, ignored: Array | None, ends: bool) -> tuple[Array, Array]:
    """Squared cosine coefficients of the patches that can be used, (n, C, 16, 16), and their mean intensities (n,)."""
    finite = np.isfinite(picture)
    least, largest = np.min(picture[finite], initial=np.inf), np.max(picture[finite], initial=-np.inf)
    unusable = (~finite).any(0)
    if ignored is not None:
        unusable |= ignored
    at_end = ((picture <= least) | (picture >= largest)).any(0)
    windows = [np.lib.stride_tricks.sliding_window_view(p, (SIDE, SIDE))[::step, ::step] for p in (unusable, at_end)]
    usable = ~windows[0].any((2, 3)) & ((windows[1].mean((2, 3)) < 0.01) | (not ends))
    cut = np.lib.stride_tricks.sliding_window_view(picture, (SIDE, SIDE), axis=(1, 2))[:, ::step, ::step]
    patches = np.moveaxis(cut[:, usable], 0, 1).astype(np.float64)
    energy = scipy.fft.dctn(patches, axes=(2, 3), norm="ortho") ** 2
    alive = energy[..., _MEASURED].sum((1, 2)) > 0
    return energy[alive], patches[alive].mean((1, 2, 3))


def _flattest(energy: Array, low: Array) -> tuple[Array, Array]:
    """The spectrum (C, 16, 16) of the flat patches, and which they are: of several parts the one with the least."""
    order = np.argsort(low)
    best: Array | None = None
    chosen = order
    for part in _PARTS:
        tried = order[: max(round(part * len(order)), min(_FEWEST, len(order)))]
        spectrum = np.median(energy[tried], 0) / _CHI
        if best is None or spectrum[:, _MEASURED].mean() < best[:, _MEASURED].mean():
            best, chosen = spectrum, tried
    assert best is not None
    best[:, ~_MEASURED] = best[:, _RING].mean(1, keepdims=True)
    return best, chosen


def _fit(x: Array, variance: Array, counts: Array, *, shifted: bool = False) -> _Line:
    """The best line of nonnegative slope and offset through the lower variances, errors being relative ones.

    With `shifted` its offset may be negative where that is much better.
    """
    # Parts of one colour have none; errors are relative ones.
    variance = np.maximum(variance, 1e-6 * variance.max())
    if variance.max() == 0:
        return _Line(0.0, 0.0, 1.0)
    constant, sloped, steep = (_solved(c, variance, counts) for c in _columns(x))
    if len(x) < 3 or np.ptp(x) <= 1e-6 * np.abs(x).max():
        return _Line(0.0, float(variance.min()), 1.0)
    lines = [_Line(0.0, float(constant[0][0]), 1.0)]
    candidates = [(sloped[0][0], sloped[0][1], sloped[1]), (steep[0][0], 0.0, steep[1])]
    better = [(s, o, constant[1] / max(e, 1e-12)) for s, o, e in candidates]
    lines += [_Line(float(s), float(o), float(b)) for s, o, b in better if s >= 0 and o >= 0]
    best = max(lines, key=lambda line: line.better)
    slope, offset, gain = better[0]
    if shifted and slope > 0 > offset and gain > _SHIFTED * best.better:
        return _Line(float(slope), float(offset), float(gain))
    return best


def _columns(x: Array) -> tuple[Array, Array, Array]:
    one = np.ones_like(x)
    return one[:, None], np.stack([x, one], 1), x[:, None]


def _solved(columns: Array, variance: Array, counts: Array) -> tuple[Array, float]:
    """Coefficients of the least squares of relative errors, those below weighing ten times as much, and their error."""
    weights, low = counts / counts.sum(), np.ones_like(variance)
    for _ in range(20):
        w = np.sqrt(weights * low)
        solved = np.linalg.lstsq(columns * (w / variance)[:, None], w, rcond=None)[0]
        low = np.where(variance > columns @ solved, 0.1, 1.0)
    return solved, float((weights * low * (columns @ solved / variance - 1) ** 2).sum())
