"""From what was read to what a file of another kind can hold: the type, the scale, and what is lost, in words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from icgn.datasets.formats.container import NAMES, Container, Limits, Samples, sample_bits, stored_limits
from icgn.datasets.formats.contract import Format


@dataclass(frozen=True)
class Fit:
    """How pages are written.

    Attributes
    ----------
    container : Container
        of the file to be written.
    scale, offset : float
        stored sample k of a number v in the unit of the source: k = (v - offset) / scale.
    drop_alpha : bool
        whether the opacity is left out, which is allowed only where nothing is transparent.
    notes : tuple of str
        what is lost, each to be said once.
    """

    container: Container
    scale: float
    offset: float
    drop_alpha: bool
    notes: tuple[str, ...]

    def stored(self, values: Samples, alpha: Samples | None) -> Samples:
        """The stored samples (H, W, S) of numbers (H, W, C) in the unit of the source and opacity (H, W, 1) in [0, 1].

        Raises
        ------
        ValueError
            for NaN or infinite numbers in integers, and for transparency that would be lost.
        """
        kind = np.dtype(self.container.dtype)
        low, high = stored_limits(kind.name, self.container.bits, self.container.top)
        same = (self.scale, self.offset) == (1, 0)
        numbers = values if same else (values.astype(np.float64) - self.offset) / self.scale
        if kind.kind == "f":
            samples, top = numbers.astype(kind), 1.0
        elif np.isfinite(numbers).all():
            samples, top = self._with_data(_rounded(numbers, low, high), numbers, low, high).astype(kind), high
        else:
            bad = int((~np.isfinite(numbers)).sum())
            raise ValueError(f"{bad} NaN or infinite pixels, expected numbers that {kind.name} can hold")
        if alpha is None:
            return samples
        if self.drop_alpha:
            if (alpha < 1).any():
                raise ValueError(f"{self.container.kind} cannot keep the alpha channel; write PNG or TIFF")
            return samples
        opacity = alpha.astype(np.float64) * top
        opacity = opacity if kind.kind == "f" else _rounded(opacity, low, high)
        return np.concatenate([samples, opacity.astype(kind)], axis=-1)

    def _with_data(self, samples: Samples, numbers: Samples, low: float, high: float) -> Samples:
        """Whole samples of which none is rounded to the number that means no data."""
        if self.container.nodata is None:
            return samples
        first, last = self.container.nodata
        taken = (samples >= first) & (samples <= last) & ((numbers < first) | (numbers > last))
        below = ((numbers < first) & (first > low)) | (last >= high)
        return np.where(taken, np.where(below, first - 1, last + 1), samples)


def _rounded(numbers: Samples, low: float, high: float) -> Samples:
    if numbers.dtype.kind != "f":
        return numbers
    # The largest integers of 64 bits are no floats: the next smaller one is taken.
    top = high if high < 2**53 else np.nextafter(np.float64(high), 0)
    return np.rint(numbers.astype(np.float64)).clip(low, top)


def fit(source: Container, target: Format, path: Path, range_: Limits | None = None, depth: int | None = None) -> Fit:
    """Decide how what was read from `source` is written as `target`.

    Parameters
    ----------
    source : Container
        of the pages to be written.
    target : Format
        of the file to be written.
    path : Path
        of the file to be written.
    range_ : (float, float), optional
        the numbers, in the unit of the source, that become 0 and the largest integer where the target holds neither the
        type nor the numbers; default :attr:`Container.range`.
    depth : int, optional
        8 or 16: bits of the integers to write in place of those of the source.

    Raises
    ------
    ValueError
        where pages or channels would be lost, the target cannot be written, or the range is needed and unknown.
    """
    same = source.kind == target.kind and source.native is not None
    _check_possible(source, target, same)
    if same and (depth is None or not target.retypes):
        return Fit(source, source.slope, source.intercept, False, ())
    dtype, bits = _natural(source)
    typed = replace(source, dtype=dtype, bits=bits, slope=1.0, intercept=0.0)
    scale, offset = 1.0, 0.0
    notes: tuple[str, ...] = ()
    wider = _wider(typed, target) if depth is None else None
    if wider is not None:
        typed = replace(typed, dtype=wider, bits=bits if wider == dtype else sample_bits(wider))
    else:
        typed, (low, high), notes = _in_levels(typed, target, range_, depth)
        scale, offset = (high - low) / (2**typed.bits - 1), low
    if same:
        return Fit(typed, scale, offset, False, notes)
    container, drop_alpha, lost = _stripped(typed, target, path)
    return Fit(container, scale, offset, drop_alpha, (*notes, *lost))


def _check_possible(source: Container, target: Format, same: bool) -> None:
    if target.write is None or not (target.fresh or same):
        raise ValueError(f"{target.kind} is written only from {target.kind}; write .tif or .npy instead")
    if source.pages > 1 and not target.many:
        raise ValueError(f"{target.kind} holds one picture, got {source.pages} pages; write .tif or .npy instead")
    if target.channels and source.channels not in target.channels:
        known = " or ".join(map(str, target.channels))
        raise ValueError(f"{target.kind} holds {known} channels, got {source.channels}; write .tif or .npy instead")


def _natural(source: Container) -> tuple[str, int]:
    """The type that holds the numbers of the source in its unit, and its bits."""
    if (source.slope, source.intercept) == (1, 0):
        return source.dtype, source.bits
    low, high = source.limits
    if source.slope == round(source.slope) and source.intercept == round(source.intercept):
        for dtype in ("uint8", "uint16", "int16", "int32"):
            info = np.iinfo(dtype)
            if info.min <= low and high <= info.max:
                return dtype, info.bits
    return ("float64", 64) if source.bits > 16 and source.dtype != "float32" else ("float32", 32)


def _wider(source: Container, target: Format) -> str | None:
    """The smallest type of the target that holds every number of the source as it is; None if there is none."""
    if target.full and (source.bits < sample_bits(source.dtype) or source.top):
        return None  # its largest level would mean another intensity
    if source.dtype in target.dtypes:
        return source.dtype
    if source.dtype == "bool":
        return None
    fitting = [t for t in target.dtypes if np.can_cast(source.dtype, t, "safe")]
    return min(fitting, key=lambda t: np.dtype(t).itemsize) if fitting else None


def _in_levels(
    source: Container, target: Format, range_: Limits | None, depth: int | None
) -> tuple[Container, Limits, tuple[str, ...]]:
    """The source with unsigned integers of the target, the numbers of its first and last level, and notes."""
    usual = 8 if source.dtype == "bool" else sample_bits(source.dtype) if source.dtype[0] == "u" else 16
    wanted = depth or min(16, usual)
    dtype = "uint16" if wanted > 8 and "uint16" in target.dtypes else "uint8"
    bits = sample_bits(dtype)
    known = source.range or range_
    if known is None:
        raise ValueError(
            f"{target.kind} holds whole numbers of at most {bits} bits, got {source.bits}-bit {source.dtype}:"
            " expected a range, the numbers that become black and white (icgn.datasets.measure finds them), or .tif"
        )
    low, high = known
    if not high > low:
        raise ValueError(f"range: got {low:g} to {high:g}, expected the smaller number first")
    source = replace(source, dtype=dtype, bits=bits, top=0)
    if known is range_:
        return source, known, (f"{low:g} to {high:g} are written as the levels 0 to {2**bits - 1} of {target.kind}",)
    if wanted > bits:
        return source, known, (f"written with {bits} bits instead of {wanted}, all that {target.kind} holds",)
    return source, known, ()


def _stripped(source: Container, target: Format, path: Path) -> tuple[Container, bool, tuple[str, ...]]:
    """The container of a file of another kind, whether its opacity is dropped, and what is lost."""
    lost = [name for key, name in NAMES.items() if getattr(source, key) and key not in target.keeps]
    lost += source.kept
    notes: tuple[str, ...] = (f"not kept in {target.kind}: {', '.join(lost)}",) if lost else ()
    drop = source.alpha and not target.alpha and bool(target.channels)
    if source.alpha and not target.alpha and not drop:
        notes += (f"the opacity is written as the last channel: {target.kind} cannot say what it is",)
    samples = source.samples - drop
    many = samples > 1
    container = replace(
        source,
        kind=target.kind,
        axes=source.page_axes + "YX" + "S" * many,
        shape=(*source.page_shape, source.height, source.width, *((samples,) if many else ())),
        alpha=source.alpha and target.alpha,
        flavour="",
        kept=(),
        notes=(),
        path=path,
        inner="",
        native=None,
        icc=source.icc if "icc" in target.keeps else None,
        exif=source.exif if "exif" in target.keeps else None,
        dpi=source.dpi if "dpi" in target.keeps else None,
        spacing=source.spacing if "spacing" in target.keeps else {},
    )
    return container, drop, notes
