r"""The noise of one picture, found in its flat parts: its level, its spectrum, and how it grows with the intensity.

The picture is cut into overlapping patches of 16 x 16 pixels. Those with the least energy in their low frequencies are
called flat, for each range of intensities apart; the noise is measured in their other frequencies, by medians, so that
the choice of the patches does not bias it (Ponomarenko et al. 2007, "An automatic approach to lossy compression of
AVIRIS images"; Colebrook, Lebrun, Morel 2015, arXiv:1505.06866 use the same idea). No patch counts that touches the
least or the largest value of the picture more than rarely (clipped highlights, pages of paper), is constant, has a
pixel that is not finite, or lies in a dark frame around the picture.
"""

from __future__ import annotations

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
    gain, read : float
        the variance grows as ``gain * intensity + read**2``.
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
    growth: float
    patches: int
    coarseness: float


def measure_flat(picture: Array, step: int = 4, ignored: Array | None = None) -> Measured | None:
    """Measure the noise of a picture (C, H, W) in its flat parts; None where fewer than 16 patches can be used.

    Parameters
    ----------
    picture : ndarray
        (C, H, W); NaN marks pixels that are not to be used.
    step : int
        distance of the patches in pixels.
    ignored : ndarray, optional
        pixels that are not to be used, bool (H, W).
    """
    if min(picture.shape[1:]) < SIDE:
        return None
    energy, means = _energies(picture, step, ignored)
    if len(means) < _FEWEST:
        return None
    low = energy[..., _LOW].sum((1, 2))
    bins = np.array_split(np.argsort(means), int(np.clip(len(means) // 400, 1, 6)))
    found = [_flattest(energy[b], low[b]) for b in bins]
    spectra = np.stack([s for s, _ in found])
    centres = np.array([means[b][chosen].mean() for b, (_, chosen) in zip(bins, found, strict=True)])
    counts = np.array([len(b) for b in bins], float)
    whole = spectra.mean((1, 2, 3))
    gain, read2 = _line(centres, whole, counts)
    fitted = gain * means + read2
    # Bins without flat patches are too high: the line through the others counts, scaled to the whole picture.
    weights = counts * np.minimum(1.0, (gain * centres + read2) / whole) ** 2
    shape = (spectra / whole[:, None, None, None] * weights[:, None, None, None]).sum(0) / weights.sum()
    variance = float(fitted.mean())
    levels = np.sqrt(variance * shape.mean((1, 2)))
    fine_bins = spectra[..., _FINE].mean((1, 2))
    g, r = _line(centres, fine_bins, counts)
    fine = np.sqrt(max(float((g * means + r).mean()), 0.0) * shape[:, _FINE].mean(1) / shape[:, _FINE].mean())
    middle = shape[:, _MIDDLE].mean() / max(shape[:, _FINE].mean(), 1e-4 * shape.mean())
    ends = gain * np.quantile(means, [0.02, 0.98]) + read2
    growth = float(ends[1] / max(ends[0], 1e-6 * ends[1]))
    spectrum = shape.mean(0) / shape.mean()
    return Measured(
        levels, fine, spectrum, float(gain), float(np.sqrt(max(read2, 0.0))), growth, len(means), float(np.sqrt(middle))
    )


def _energies(picture: Array, step: int, ignored: Array | None) -> tuple[Array, Array]:
    """Squared cosine coefficients of the patches that can be used, (n, C, 16, 16), and their mean intensities (n,)."""
    finite = np.isfinite(picture)
    ends = np.min(picture[finite], initial=np.inf), np.max(picture[finite], initial=-np.inf)
    unusable = (~finite).any(0)
    if ignored is not None:
        unusable |= ignored
    at_end = ((picture <= ends[0]) | (picture >= ends[1])).any(0)
    windows = [np.lib.stride_tricks.sliding_window_view(p, (SIDE, SIDE))[::step, ::step] for p in (unusable, at_end)]
    usable = ~windows[0].any((2, 3)) & (windows[1].mean((2, 3)) < 0.01)
    cut = np.lib.stride_tricks.sliding_window_view(picture, (SIDE, SIDE), axis=(1, 2))[:, ::step, ::step]
    patches = np.moveaxis(cut[:, usable], 0, 1).astype(np.float64)
    energy = scipy.fft.dctn(patches, axes=(2, 3), norm="ortho") ** 2
    alive = energy[..., _MEASURED].sum((1, 2)) > 0
    return energy[alive], patches[alive].mean((1, 2, 3))


def _flattest(energy: Array, low: Array) -> tuple[Array, Array]:
    """The spectrum (C, 16, 16) of the flat patches, and which they are: of several parts the one with the least."""
    order = np.argsort(low)
    best, chosen = None, order
    for part in _PARTS:
        tried = order[: max(round(part * len(order)), min(_FEWEST, len(order)))]
        spectrum = np.median(energy[tried], 0) / _CHI
        if best is None or spectrum[:, _MEASURED].mean() < best[:, _MEASURED].mean():
            best, chosen = spectrum, tried
    assert best is not None
    best[:, ~_MEASURED] = best[:, _RING].mean(1, keepdims=True)
    return best, chosen


def _line(x: Array, variance: Array, counts: Array) -> tuple[float, float]:
    """Nonnegative slope and offset of a line through the lower variances, relative errors counting."""
    if len(x) < 3 or np.ptp(x) <= 1e-6 * max(np.abs(x).max(), 1e-30):
        return 0.0, float(variance.min())
    weights = counts / counts.sum()
    fits = []
    for columns in (np.stack([x, np.ones_like(x)], 1), np.ones((len(x), 1)), x[:, None]):
        asymmetric = np.ones_like(x)
        for _ in range(30):
            w = np.sqrt(weights * asymmetric)[:, None] / variance[:, None]
            solved = np.linalg.lstsq(columns * w, variance * w[:, 0], rcond=None)[0]
            asymmetric = np.where(variance > columns @ solved, 0.1, 1.0)
        relative = (columns @ solved - variance) / variance
        slope, offset = (solved[0], solved[1]) if len(solved) == 2 else ((0, solved[0]) if columns[0, 0] == 1 else (solved[0], 0))
        fits.append((float((weights * asymmetric * relative**2).sum()), float(slope), float(offset)))
    allowed = [f for f in fits if f[1] >= 0 and f[2] >= 0]
    return min(allowed)[1:]
