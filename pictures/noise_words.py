"""Noise in words, as it is typed: ``auto``, ``25``, ``correlated:6``, ``poisson:2``, ``poisson-gaussian:2,5``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from icgn.compat import keyword_only
from icgn.datasets import Picture
from icgn.datasets.estimation import count_step
from icgn.functionals.noise import Correlated, Noise, Poisson, PoissonGaussian, White

# Least and largest count of numbers after each word.
_KINDS = {"auto": (0, 0), "white": (1, 1), "correlated": (1, 2), "poisson": (0, 1), "poisson-gaussian": (2, 3)}
_EXPECTED = (
    "expected auto, LEVEL or white:LEVEL, correlated:LEVEL or correlated:LEVEL,CORRELATION (levels as of sigma),"
    " poisson or poisson:GAIN, poisson-gaussian:GAIN,READ or poisson-gaussian:GAIN,READ,OFFSET (values of the picture)"
)
_LIKE_CAMERAS = 0.6


def _gray_levels(value: float) -> float:
    return value / 255


@keyword_only
@dataclass(frozen=True)
class NoiseWords:
    """A kind of noise and its numbers, before the picture is known whose unit they are in.

    Attributes
    ----------
    kind : str
        ``auto``, ``white``, ``correlated``, ``poisson`` or ``poisson-gaussian``.
    numbers : tuple of float
        level as it is typed, and correlation; or gain, read-out noise and offset in values of the file.
    """

    kind: str
    numbers: tuple[float, ...] = ()

    def describe(self, picture: Picture, level: Callable[[float], float] = _gray_levels) -> Noise | None:
        """The noise of a picture, in its intensities; None if it is to be estimated.

        The gain of ``poisson`` is by default the distance between the values of the file, which counts have.

        Parameters
        ----------
        picture : Picture
            as it was read.
        level : callable, optional
            gives the intensity of a level as it is typed; default gray levels of 255.

        Raises
        ------
        ValueError
            for counts without a gain, the values of the file having no common distance.
        """
        low, scale = _unit(picture)
        return self._noise(picture.pixels, level, low, scale)

    def of(self, y: Tensor) -> Noise | None:
        """The noise of pictures that are in no file, every number in their unit; None if it is to be estimated.

        Parameters
        ----------
        y : Tensor
            noisy pictures, of any shape; NaN where they are missing.

        Raises
        ------
        ValueError
            as :meth:`describe`.
        """
        return self._noise(y, float, 0.0, 1.0)

    def _noise(self, values: Tensor, level: Callable[[float], float], low: float, scale: float) -> Noise | None:
        """The noise of values that are `low` and `low` + `scale` in the unit of the gain where they are 0 and 1."""
        if self.kind == "auto":
            return None
        if self.kind == "white":
            return White(level(self.numbers[0]))
        if self.kind == "correlated":
            return Correlated.gaussian(level(self.numbers[0]), (*self.numbers, _LIKE_CAMERAS)[1])
        if not self.numbers:
            gain, read, offset = _step(values), 0.0, -low / scale
        else:
            gain, read, offset = (*self.numbers, 0.0, 0.0)[:3]
            gain, read, offset = gain / scale, read / scale, (offset - low) / scale
        return Poisson(gain) if read == offset == 0 else PoissonGaussian(gain, read, offset)


def parse_noise(text: str) -> NoiseWords:
    """Understand noise in words.

    Parameters
    ----------
    text : str
        ``auto``; ``LEVEL`` or ``white:LEVEL``; ``correlated:LEVEL[,CORRELATION]``, levels in the unit of sigma;
        ``poisson[:GAIN]``; ``poisson-gaussian:GAIN,READ[,OFFSET]``, in values of the file, or of the tensor.

    Raises
    ------
    ValueError
        for anything else, and for numbers that are not finite or out of range.

    Examples
    --------
    >>> parse_noise("poisson-gaussian:2,5")
    NoiseWords(kind='poisson-gaussian', numbers=(2.0, 5.0))
    """
    kind, _, rest = text.strip().lower().partition(":")
    if kind not in _KINDS and not rest:
        kind, rest = "white", kind
    try:
        numbers = tuple(float(part) for part in rest.split(",")) if rest else ()
    except ValueError:
        numbers = (math.nan,)
    least, most = _KINDS.get(kind, (1, 0))
    if not least <= len(numbers) <= most or not all(map(math.isfinite, numbers)):
        raise ValueError(f"noise: got {text!r}, {_EXPECTED}")
    _check(kind, numbers, text)
    return NoiseWords(kind=kind, numbers=numbers)


def _check(kind: str, numbers: tuple[float, ...], text: str) -> None:
    if kind in ("white", "correlated") and not numbers[0] > 0:
        raise ValueError(f"noise: got {text!r}, expected a level above 0")
    if kind == "correlated" and len(numbers) > 1 and not 0 <= numbers[1] < 1:
        raise ValueError(f"noise: got {text!r}, expected a correlation of neighbouring pixels from 0 to below 1")
    if kind.startswith("poisson") and numbers and not (numbers[0] > 0 and all(n >= 0 for n in numbers[1:2])):
        raise ValueError(f"noise: got {text!r}, expected a gain above 0 and a read-out noise of at least 0")


def _unit(picture: Picture) -> tuple[float, float]:
    """The value of the file at intensity 0, and what intensity 1 is above it; intensities where there is no file."""
    low, high = (0.0, 1.0) if picture.container is None else picture.range
    return low, high - low


def _step(pixels: Tensor) -> float:
    values = pixels.detach().double().cpu().numpy()
    found = count_step(values[np.isfinite(values)])
    if found is None:
        raise ValueError(
            "noise: got poisson without its gain, and the values of the picture have no common distance as counts have,"
            " expected poisson:GAIN, what one count adds to the values"
        )
    return found
