"""The noise of a picture as it was made: found, and said in words."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from icgn.datasets import Picture, estimate_sigma
from icgn.datasets.estimation import (
    COARSE,
    Measured,
    clipped_level,
    count_step,
    dark_frame,
    measure_flat,
    padding,
)
from icgn.functionals.noise import (
    MOST_COHERENT,
    Correlated,
    Noise,
    Poisson,
    PoissonGaussian,
    White,
    correlation_of,
)
from icgn.pictures.noise_network import BLOCK, noise_network

Sure: TypeAlias = Literal["high", "fair", "low"]
_HIGH: Sure = "high"
_FAIR: Sure = "fair"
_LOW: Sure = "low"

_SURE = {_HIGH: "", _FAIR: " (about)", _LOW: " (a guess: hardly any part of the picture is flat)"}

ALIKE = 0.15
"""Correlation of neighbouring pixels from which noise is not called white."""

COHERENT = 1.15
"""Level of the scaled luma over that of the channels from which colours are not called independent."""

# Growth of the variance over the picture from which the noise is said to depend on the brightness.
_GROWS = 2.0
# From this growth on the network, which has seen little of it, does not count.
_UNEVEN = 1.4
# Patches that an estimate should compare, those by which growth is seen, and those by which gray noise is told from
# gray detail of the same grain.
_MANY, _SEEN, _TOLD = 200, 150, 1000
# Flat parts have no more power at all frequencies than at the finest by this factor of levels, or there is detail.
_EVEN = 1.15
# Levels of counts are what their values say within these factors: without detail and with it; and surely so below them.
_EXACT, _DETAILED, _SURELY = 1.12, 1.5, 1.06
# Flat parts with so many times the level of the noise show content.
_CONTENT = 1.2
# Levels that are found in two ways are near if they differ by less than this factor.
_NEAR = 1.3
# Where flat parts have a part of the noise in this range, a camera has smoothed them: so much more is to be removed,
# measured on photographs (docs/noise.md). Where they have hardly any, what is found may be detail.
_SMOOTHED, _MORE = (0.1, 0.85), 1.5
# In a frame the flat parts count unless they have so many times the level that the network finds.
_FRAMED = 1.7
# The part of all that a picture varies from which noise is strong.
_STRONG = 0.2
# Letters have at least so many times the level that the network finds.
_LETTERS = 6.0
# Squares of known pixels that tell a level, and the median size of a normal variable.
_SQUARES, _NORMAL_MEDIAN = 100, 0.6745
# Blocks and side of a picture that the network needs.
_BLOCKS, _SIDE = 100, 24


@dataclass(frozen=True, eq=False)
class NoiseEstimate:
    """The noise that was found in a picture.

    Attributes
    ----------
    noise : Noise
        its description, in intensities.
    level : float
        its root mean square over the picture, in intensities.
    sigma : float
        the level that a regularizer made for white noise should be asked to remove, in intensities: `level` for white
        noise, more for correlated noise (:attr:`icgn.functionals.noise.Correlated.removal`).
    channels : tuple of float
        root mean square of each channel.
    sure : {"high", "fair", "low"}
        ``"high"`` where many flat patches agree, ``"low"`` where there were too few, and the level is a guess.
    """

    noise: Noise
    level: float
    sigma: float
    channels: tuple[float, ...]
    sure: Sure

    def text(self, scale: float = 1.0, unit: str = "of intensity") -> str:
        """What was found, in words; levels times `scale`, e.g. 255 for the unit ``"gray levels"``."""
        words = self.noise.text(scale, unit)
        if isinstance(self.noise, Poisson | PoissonGaussian):
            words += f", {scale * self.level:.3g} {unit} in the mean"
        return words + _SURE[self.sure]


def estimate_noise(picture: Picture | Tensor) -> NoiseEstimate:
    r"""Estimate the noise of a picture: white, correlated, or growing with the brightness, and how large it is.

    What counts is in the pixels, not in the name or kind of a file. Dark frames around the picture, what a scanner
    padded it with, clipped pixels, and pixels that are not finite are left out (:mod:`icgn.datasets.estimation`).

    Parameters
    ----------
    picture : Picture or Tensor
        a picture, or the pixels (C, H, W) of one, floating point, intensities in [0, 1].

    Raises
    ------
    TypeError
        for anything else.
    ValueError
        for another number of dimensions, or a picture without finite pixels.

    Examples
    --------
    >>> from icgn.datasets import add_noise, bundled
    >>> clean = bundled(gray=True).find("camera").image
    >>> found = estimate_noise(add_noise(clean, 0.1, seed=0))
    >>> type(found.noise).__name__, bool(0.09 < found.level < 0.11)
    ('White', True)
    """
    pixels = picture.pixels if isinstance(picture, Picture) else picture
    if not isinstance(pixels, Tensor):
        raise TypeError(f"picture: got {type(pixels).__name__}, expected a Picture or a torch.Tensor (C, H, W)")
    if pixels.ndim != 3 or not pixels.is_floating_point():
        raise ValueError(f"picture: got {pixels.dtype} of shape {tuple(pixels.shape)}, expected floats (C, H, W)")
    values = pixels.detach().double().cpu().numpy()
    finite = np.isfinite(values).all(0)
    if isinstance(picture, Picture) and picture.nodata is not None:
        finite &= ~picture.nodata[0].numpy()
    if not finite.any():
        raise ValueError("picture: got no pixel that is finite, expected intensities in [0, 1]")
    values = np.where(finite, values, values[:, finite].mean(1)[:, None, None])
    if len(values) == 3 and (values == values[:1]).all():
        # Gray stored as colour has one noise.
        found = estimate_noise(torch.from_numpy(values[:1]))
        return replace(found, channels=found.channels * 3)
    frame, padded = dark_frame(values), padding(values)
    ignored = ~finite if frame is None else ~finite | frame
    ignored = ignored if padded is None else ignored | padded
    counted = _counts(values, ignored)
    if counted is not None:
        return counted
    learned = _learned(values, ignored)
    measured = measure_flat(values, ignored=ignored)
    if measured is None:
        return _without_flat_parts(values, ignored, learned)
    if _is_correlated(measured, learned):
        return _correlated(measured, learned)
    finest, spread, mean = _finest(values, ignored), float(np.ptp(values)), float(values[:, ~ignored].mean())
    found = _white(measured, finest, learned, spread, mean)
    if frame is None or learned is None:
        return found
    # The network has not seen frames; but some that are found are dark parts of a photograph.
    alone = _white(measured, finest, None, spread, mean)
    return alone if alone.level < _FRAMED * learned.level else found


def _is_correlated(measured: Measured, learned: _Learned | None) -> bool:
    if learned is None:
        return measured.coarseness >= COARSE and measured.patches >= _MANY
    return learned.correlation >= ALIKE or learned.coherence > COHERENT or _spectrum_is_of_noise(measured, learned)


def _spectrum_is_of_noise(measured: Measured, learned: _Learned) -> bool:
    """Whether flat parts show a coarse spectrum, and no more power than the noise has: then it is not the content's."""
    return measured.coarseness >= COARSE and _rms(measured.levels) < _CONTENT * learned.level


@dataclass(frozen=True)
class _Learned:
    """What the network finds: levels of channels and of all, and how alike neighbours and colours are."""

    channels: tuple[float, ...]
    level: float
    correlation: float
    coherence: float


def _learned(values: np.ndarray[Any, Any], ignored: np.ndarray[Any, Any]) -> _Learned | None:
    """What the network finds; None for a picture that is too small, or neither gray nor of three colours."""
    channels = len(values)
    if min(values.shape[1:]) < _SIDE or channels not in (1, 3):
        return None
    y = torch.from_numpy(values).float()[None]
    height, width = (side // BLOCK for side in y.shape[2:])
    shares = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(ignored).float()[None], (height, width))[0]
    used = (shares < 0.1) & _varies(y[0])
    if int(used.sum()) < _BLOCKS:
        return None
    found = noise_network(channels)(y, used)
    parts = (found.levels, found.luma, found.removal)
    levels, luma, removed = (p[0, :, used].double().square().mean(1).sqrt() for p in parts)
    level = _rms(levels.numpy())
    alike = correlation_of(float(removed), level)
    coherence = min(max(float(luma) / level, 1.0), MOST_COHERENT)
    return _Learned(tuple(levels.tolist()), level, alike, coherence)


def _varies(y: Tensor) -> Tensor:
    """Which blocks of a picture (C, H, W) are not of one colour, as clipped ones are, bool (h, w)."""
    spread = torch.nn.functional.max_pool2d(y, BLOCK) + torch.nn.functional.max_pool2d(-y, BLOCK)
    return (spread > 0).any(0)


def _white(
    measured: Measured, finest: float | None, learned: _Learned | None, spread: float, mean: float
) -> NoiseEstimate:
    """White noise, or noise that grows with the brightness: by the finest frequencies; the wavelets if they find less.

    Between white and correlated the level goes from the one to the other. It is averaged with that of the network where
    both are near to one another, else that of the network counts.
    """
    fine, whole = _rms(measured.fine), _rms(measured.levels)
    least = fine if finest is None else min(fine, finest)
    part = min(max((measured.coarseness - 1.1) / 0.9, 0.0), 1.0)
    level = least ** (1 - part) * max(whole, least) ** part if least > 0 else 0.0
    if measured.growth > _GROWS and measured.gain > 0 and fine > 0:
        return _growing(measured, learned, mean)
    # The network has seen neither steep growth nor more noise than picture; letters look like such noise.
    usual = level < _STRONG * spread or (learned is not None and level > _LETTERS * learned.level)
    if learned is not None and measured.growth < _UNEVEN and usual:
        near = max(level, learned.level) < _NEAR * min(level, learned.level)
        level = math.sqrt(level * learned.level) if near else learned.level
    channels = tuple(float(level * f / fine) if fine > 0 else level for f in measured.fine)
    sure = _HIGH if measured.patches >= _MANY and whole < 1.3 * fine else _FAIR
    if learned is None and measured.patches < _MANY and not max(whole, fine, finest or 0.0) < _EVEN * least:
        sure = _LOW
    uneven = len(channels) > 1 and max(channels) > 1.25 * min(channels)
    noise = White(torch.tensor(channels).reshape(1, -1, 1, 1)) if uneven and min(channels) > 0 else White(level)
    return NoiseEstimate(noise, level, level, channels, sure)


def _growing(measured: Measured, learned: _Learned | None, mean: float) -> NoiseEstimate:
    """Noise that grows with the brightness: the line through the variances of flat parts, at the mean intensity.

    Parts with content have more power at low frequencies than at the finest, and more than the network finds.
    """
    fine, whole = _rms(measured.fine), _rms(measured.levels)
    level = math.sqrt(measured.variance(mean))
    even = 1 / _EVEN < whole / fine < _EVEN and measured.coarseness < _EVEN
    even = even and (learned is None or level < _CONTENT * learned.level)
    noise = PoissonGaussian(measured.gain, measured.read, measured.offset)
    channels = tuple(float(level * f / fine) for f in measured.fine)
    return NoiseEstimate(noise, level, level, channels, _FAIR if even else _LOW)


def _correlated(measured: Measured | None, learned: _Learned | None) -> NoiseEstimate:
    """Correlated noise: its level by the network, and its spectrum that of the flat parts."""
    where = "as of a demosaicked, resized or compressed photograph"
    if learned is None:
        assert measured is not None
        level = _rms(measured.levels)
        noise = Correlated(level, torch.from_numpy(measured.spectrum), where)
        return NoiseEstimate(noise, level, noise.removal, tuple(float(v) for v in measured.levels), _LOW)
    alike, coherence = min(learned.correlation, 0.9), learned.coherence
    noise = Correlated.gaussian(learned.level, alike, where, coherence)
    sure, more = _FAIR, 1.0
    if measured is not None:
        part = _rms(measured.levels) / learned.level
        sure = _HIGH if 0.5 < part < 1.5 else _FAIR
        sure = _LOW if len(learned.channels) == 1 and measured.patches < _TOLD else sure
        more = _MORE if _SMOOTHED[0] < part < _SMOOTHED[1] and measured.coarseness >= COARSE else 1.0
        if _spectrum_is_of_noise(measured, learned):
            noise = Correlated(learned.level, torch.from_numpy(measured.spectrum), where, coherence)
    noise = replace(noise, excess=more)
    return NoiseEstimate(noise, learned.level, noise.removal, learned.channels, sure)


def _without_flat_parts(
    values: np.ndarray[Any, Any], ignored: np.ndarray[Any, Any], learned: _Learned | None
) -> NoiseEstimate:
    """A picture of one colour, a page of paper, or one that is too small."""
    shown = values[:, ~ignored]
    spread, level, sure = float(np.ptp(shown)) if shown.size else 0.0, 0.0, _HIGH
    if spread > 0 and ((shown == shown.max()) | (shown == shown.min())).mean() > 0.3:
        level = clipped_level(values)
        if level == 0 and learned is None:
            level = _finest(values, ignored) or 0.0
        sure = _FAIR if level > 0 and learned is not None else _LOW
        # Pages that are full of letters.
        if learned is not None and level > _STRONG * spread:
            level, sure = learned.level, _LOW
    elif spread > 0 and learned is None:
        level, sure = _finest(values, ignored) or 0.0, _LOW
    elif learned is not None and spread > 0:
        if learned.correlation >= ALIKE or learned.coherence > COHERENT:
            return _correlated(None, learned)
        level, sure = learned.level, _FAIR
    return NoiseEstimate(White(level), level, level, (level,) * len(values), sure)


def _counts(values: np.ndarray[Any, Any], ignored: np.ndarray[Any, Any]) -> NoiseEstimate | None:
    """Counts: values of one distance, the variance of which is that distance times the brightness."""
    step = count_step(values)
    # Every file of 8 bits has values of that distance.
    if step is None or values.min() < 0 or abs(255 * step - 1) < 0.01:
        return None
    measured = measure_flat(values, ignored=ignored, ends=False)
    if measured is None or measured.coarseness >= COARSE:
        return None
    level = math.sqrt(step * float(values.mean()))
    if not _as_counted(measured, step, level):
        return None
    sure = _HIGH if measured.patches >= _MANY else _FAIR
    # Files round all to whole numbers; counts of another gain and with an offset may have such a level by chance.
    if not level / _SURELY < _rms(measured.fine) < level * _EXACT:
        sure = _LOW
    return NoiseEstimate(Poisson(step), level, level, (level,) * len(values), sure)


def _as_counted(measured: Measured, step: float, level: float) -> bool:
    """Whether the noise of flat parts is that of counts of that distance; a small picture does not show its growth."""
    found = _rms(measured.fine) / level
    if measured.patches < _SEEN:
        return 0.8 < found < 1.25
    # Detail adds to the variance, and nothing takes from it.
    most = _DETAILED if _rms(measured.levels) > _EVEN * _rms(measured.fine) else _EXACT
    ratios = [measured.variance(m) / (step * m) for m in measured.span if m > step]
    return 1 / _EXACT < found < most and all(1 / _DETAILED < r < _DETAILED * most**2 for r in ratios)


def _finest(values: np.ndarray[Any, Any], ignored: np.ndarray[Any, Any]) -> float | None:
    """Level by wavelets, of the largest rectangle without ignored pixels in the middle; None if little is left."""
    pixels = torch.from_numpy(values)
    if ignored.any():
        # A dark frame surrounds the picture: shrink until it is gone.
        for cut in range(0, min(ignored.shape) // 2 - 8, 4):
            part = (slice(cut, ignored.shape[0] - cut), slice(cut, ignored.shape[1] - cut))
            if not ignored[part].any():
                return estimate_sigma(pixels[:, part[0], part[1]])
        return _of_squares(values, ignored)
    return estimate_sigma(pixels)


def _of_squares(values: np.ndarray[Any, Any], ignored: np.ndarray[Any, Any]) -> float | None:
    """Level by the diagonal differences of squares of 2 x 2 pixels that are all known; None if these are few.

    It is the median of their sizes over that of a normal variable: the finest wavelet, where pixels are scattered.
    """
    known = ~(ignored[:-1, :-1] | ignored[:-1, 1:] | ignored[1:, :-1] | ignored[1:, 1:])
    if known.sum() < _SQUARES:
        return None
    v = values.astype(float)
    diagonal = (v[:, :-1, :-1] - v[:, :-1, 1:] - v[:, 1:, :-1] + v[:, 1:, 1:])[:, known] / 2
    return float(np.median(abs(diagonal)) / _NORMAL_MEDIAN)


def _rms(levels: Any) -> float:
    return float(np.sqrt(np.mean(np.square(levels))))
