"""Where a blur kernel has its centre, what of it matters, and what is background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]

TAIL = 1e-3
"""Part of the sum of absolute values that may be cut off from a kernel without harm."""

# A background matters from this part of the sum on; it is flat if half of the border is so near to its median.
_MATTERS, _FLAT = 5e-3, 0.2
# Noise of the border can be told from the tail of a kernel from so many pixels of a side on.
_TOLD = 9
# A border this far above 0, as a part of the peak, is worth a word.
_SEEN = 0.02
# A centre of mass is far away at so many pixels, or so much of the standard deviation of the kernel.
_FAR, _PART = 1.5, 0.5


@dataclass(frozen=True, eq=False)
class Found:
    """A kernel around its centre.

    Attributes
    ----------
    values : ndarray
        of odd sides, (h, w), the centre in the middle.
    centre : (int, int)
        where that was, row and column.
    lost : float
        the part of the sum of absolute values that was cut off.
    """

    values: Values
    centre: tuple[int, int]
    lost: float = 0.0

    @property
    def size(self) -> str:
        """Height and width in words."""
        return "{} x {}".format(*self.values.shape)


def placed(kernel: Values, largest: int) -> Found:
    """The smallest kernel of odd sides around the pixel (height // 2, width // 2) that holds all that is not 0.

    A larger one than `largest` is cut to what matters.

    Raises
    ------
    ValueError
        if what matters is larger too.
    """
    centre = kernel.shape[0] // 2, kernel.shape[1] // 2
    reach = [int(abs(places - c).max()) for places, c in zip(np.nonzero(kernel), centre, strict=True)]
    padded = np.pad(kernel, [(r, r) for r in reach])
    rows, columns = (slice(c, c + 2 * r + 1) for c, r in zip(centre, reach, strict=True))
    values, lost = cut(padded[rows, columns], (largest, largest))
    if max(values.shape) > largest:
        raise ValueError(f"got {values.shape[0]} x {values.shape[1]} values, expected at most {largest} x {largest}")
    return Found(values, centre, lost)


def cut(kernel: Values, limits: tuple[int, int], tail: float = TAIL) -> tuple[Values, float]:
    """A kernel of odd sides cut to what matters where it is larger than the limits, and the part that is lost.

    No more than `tail` of the sum of absolute values is cut off; the rest is scaled to the sum before.
    """
    if kernel.shape[0] <= limits[0] and kernel.shape[1] <= limits[1]:
        return kernel, 0.0
    size, total = abs(kernel), float(abs(kernel).sum())
    window = tuple(_window(size.sum(1 - axis) / total, limits[axis], tail / 2) for axis in (0, 1))
    part = kernel[window]
    lost = 1 - float(size[window].sum()) / total
    # Large negative values may leave no positive sum.
    scale = float(kernel.sum()) / float(part.sum()) if part.sum() > 0 else 1.0
    return np.ascontiguousarray(scale * part), lost


def background(kernel: Values) -> tuple[float, float]:
    """The level of a background, 0 if there is none that matters, and how far its noise goes above it.

    It is the median of the outermost pixels, if they are flat, or vary like noise and not like the tail of a kernel.
    """
    if min(kernel.shape) < 5:
        return 0.0, 0.0
    border = _border(kernel)
    level, peak = float(np.median(border)), float(kernel.max())
    spread, steps = (float(np.median(abs(v))) for v in (border - level, np.diff(border)))
    # The border of a small kernel is too short to tell noise from a tail.
    flat = spread <= _FLAT * abs(level) or (min(kernel.shape) >= _TOLD and steps >= spread)
    matters = abs(level) * kernel.size > _MATTERS * float(abs(kernel).sum())
    # Where the border is as bright as the rest it is the kernel that is flat.
    if not (flat and matters and level < peak / 2):
        return 0.0, 0.0
    # There is no tail below the median: the noise above it goes as far.
    return level, level - float(border.min())


def words_of_edge(kernel: Values) -> tuple[str, ...]:
    """That a kernel (h, w) ends before it has fallen to 0, in words."""
    if min(kernel.shape) < _TOLD:
        return ()
    least = float(_border(kernel).min()) / float(kernel.max())
    if not _SEEN < least < 0.5:
        return ()
    return (
        f"it does not fall below {100 * least:.2g} % of its peak at its border: it is cut off there, or has a"
        " background that is to be subtracted first",
    )


def words_of_place(kernel: Values, found: Found) -> tuple[str, ...]:
    """What may be wrong with where a kernel (h, w) is, in words."""
    size = abs(kernel) / abs(kernel).sum()
    mass = [float((size.sum(1 - axis) * np.arange(kernel.shape[axis])).sum()) for axis in (0, 1)]
    corner = _corner_share(size)
    if corner > 0.8:
        return (
            f"{100 * corner:.0f} % of it lies in its corners: if its centre is at the corner (0, 0), bring it to the"
            " middle first (numpy.fft.fftshift)",
        )
    away = [m - c for m, c in zip(mass, found.centre, strict=True)]
    even = [n % 2 == 0 and abs(m - (n - 1) / 2) < 0.25 for n, m in zip(kernel.shape, mass, strict=True)]
    spread = max(
        float((size.sum(1 - axis) * (np.arange(kernel.shape[axis]) - mass[axis]) ** 2).sum()) ** 0.5 for axis in (0, 1)
    )
    if max(map(abs, away)) > max(_FAR, _PART * spread):
        down, right = (f"{abs(v):.3g} pixels {names[v > 0]}" for v, names in zip(away, _SIDES, strict=True))
        return (
            f"its centre of mass lies {down} and {right} of its centre, and the restored picture moves by as much the"
            " other way: cut the kernel so that it is in the middle, unless the blur moved the picture",
        )
    if any(even):
        row, column = found.centre
        return (
            f"its sides of {kernel.shape[0]} x {kernel.shape[1]} are even, so that no pixel is in the middle: the"
            f" centre is taken at row {row} and column {column}, counted from 0, as by scipy.ndimage; where the blur"
            " had it one pixel before, as scipy.signal does, put a row of zeros above and a column to the left",
        )
    return ()


_SIDES = (("above", "below"), ("to the left", "to the right"))


def _border(kernel: Values) -> Values:
    """The outermost pixels, in their order around the kernel."""
    return np.concatenate([kernel[0], kernel[1:, -1], kernel[-1, -2::-1], kernel[-2:0:-1, 0]])


def _window(profile: Values, limit: int, tail: float) -> slice:
    """The part of a profile of odd length around its middle that leaves out `tail`, where it is longer than `limit`."""
    middle = len(profile) // 2
    if len(profile) <= limit:
        return slice(0, len(profile))
    both = profile[middle:].copy()
    both[1:] += profile[:middle][::-1]
    outside = both.sum() - both.cumsum()
    reach = int((outside > tail).sum())
    return slice(middle - reach, middle + reach + 1)


def _corner_share(size: Values) -> float:
    """The part of a kernel that lies in the outer quarters of both sides."""
    height, width = size.shape
    if min(height, width) < 8:
        return 0.0
    rows, columns = (np.minimum(np.arange(n), n - 1 - np.arange(n)) < n / 4 for n in (height, width))
    return float(size[rows][:, columns].sum())
