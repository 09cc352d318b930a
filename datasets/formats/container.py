"""What a file of pictures is: its kind, samples, axes, scale and what must survive beside the pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIXEL_LIMIT = 89_478_485
"""Most pixels, height times width, that a page may declare: Pillow's own limit, 256 MiB as 24-bit colour."""

Samples = NDArray[Any]
"""Samples of one page as they are stored: (height, width, samples)."""

Limits = tuple[float, float]
Density = tuple[float, float]

NAMES = {
    "icc": "the colour profile",
    "exif": "the Exif data",
    "dpi": "the print resolution",
    "spacing": "the voxel size",
}
"""What containers of several kinds can hold beside the pixels, in words."""


@dataclass(frozen=True, eq=False)
class Container:
    r"""What was found in a file, and what a file written from it gets.

    A number v in the unit of the file and a stored sample k are related by v = slope k + intercept.

    Attributes
    ----------
    kind : str
        e.g. "PNG", "TIFF", "FITS": the key of the table of formats.
    dtype : str
        NumPy name of the stored samples, e.g. "uint16", "float32".
    shape, axes : tuple of int, str
        sizes, and a letter for each: T time, Z depth, C channel, Q or I another series, Y rows, X columns, S samples of
        one pixel (red, green, blue, opacity, bands). The pages are those of all axes but Y, X and S, the last fastest.
    bits : int
        bits of a sample in use, as the file declares them: 12 for a 12-bit file in 16-bit integers.
    slope, intercept : float
        the scale above; 1 and 0 unless the file has one (DICOM, FITS, NIfTI).
    top : int
        the largest stored integer that is used, where that is not the last of `bits` bits; else 0.
    alpha : bool
        whether the last sample of a pixel is its opacity, declared as such by the file.
    nodata : (float, float) or None
        the stored numbers, from the first to the last, which mean that a pixel has no data, where the file says so
        (GeoTIFF, FITS, DICOM). NaN and infinite numbers mean it in every file.
    icc, exif : bytes or None
        colour profile, and Exif block without an orientation: pages are upright.
    dpi : (float, float) or None
        pixels per inch along the rows and the columns, at which it is to be printed.
    spacing : mapping of str to float
        size of a voxel along the axes "X", "Y", "Z" where the file says it, in `unit`.
    unit : str
        of `spacing`, e.g. "µm", "mm"; empty if unknown.
    flavour : str
        e.g. "ImageJ", "OME", "BigTIFF"; empty for the plain kind.
    kept : tuple of str
        in words, what only a file of the same kind can keep: "GeoTIFF tags", "text", "FITS header".
    notes : tuple of str
        what was read with a loss, e.g. a thumbnail that is not kept.
    path, inner : Path, str
        the file it was read from, and the place inside (``/group/data``), empty if none.
    native : object
        for the code of the same format only.
    """

    kind: str
    dtype: str
    shape: tuple[int, ...]
    axes: str
    bits: int
    slope: float = 1.0
    intercept: float = 0.0
    top: int = 0
    alpha: bool = False
    nodata: Limits | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: Density | None = None
    spacing: Mapping[str, float] = field(default_factory=dict)
    unit: str = ""
    flavour: str = ""
    kept: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    path: Path = Path()
    inner: str = ""
    native: Any = None

    @property
    def page_axes(self) -> str:
        """The axes along which pages are counted, e.g. "TZC"; empty for a single picture."""
        return "".join(a for a in self.axes if a not in "YXS")

    @property
    def page_shape(self) -> tuple[int, ...]:
        """The number of pages along each of :attr:`page_axes`."""
        return tuple(n for n, a in zip(self.shape, self.axes, strict=True) if a not in "YXS")

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return math.prod(self.page_shape)

    @property
    def height(self) -> int:
        """Rows of a page."""
        return self._size("Y")

    @property
    def width(self) -> int:
        """Columns of a page."""
        return self._size("X")

    @property
    def samples(self) -> int:
        """Samples of a pixel, the opacity included."""
        return self._size("S")

    @property
    def channels(self) -> int:
        """Samples of a pixel without the opacity."""
        return self.samples - self.alpha

    @property
    def limits(self) -> Limits:
        """The least and the largest number that the stored type holds, in the unit of the file; infinite for floats."""
        low, high = stored_limits(self.dtype, self.bits, self.top)
        ends = self.slope * low + self.intercept, self.slope * high + self.intercept
        return min(ends), max(ends)

    @property
    def range(self) -> Limits | None:
        """The numbers that mean intensity 0 and 1 by the type alone; None where only the data can say.

        Unsigned integers of at most 16 bits have their limits, truth values 0 and 1; signed and 32-bit integers and
        floats, of which files use a small part, have none.
        """
        kind = np.dtype(self.dtype).kind
        return self.limits if kind == "b" or (kind == "u" and self.bits <= 16) else None

    @property
    def empty(self) -> float:
        """The number, in the unit of the file, of a pixel without data; NaN where the file does not say one."""
        return math.nan if self.nodata is None else self.slope * self.nodata[0] + self.intercept

    def without_data(self, samples: Samples) -> NDArray[np.bool_] | None:
        """The pixels of stored samples (..., S) without data, (...): a number is none, or all are declared to be none.

        None where every pixel has data.
        """
        colours = samples[..., : self.channels]
        empty = np.zeros(colours.shape[:-1], bool)
        if colours.dtype.kind == "f":
            empty |= ~np.isfinite(colours).all(-1)
        if self.nodata is not None:
            low, high = self.nodata
            empty |= ((colours >= low) & (colours <= high)).all(-1)
        return empty if empty.any() else None

    def place(self, index: int) -> dict[str, int]:
        """Find the position of a page along the page axes, e.g. {"T": 0, "Z": 3}; axes of one letter share an entry."""
        return dict(zip(self.page_axes, map(int, np.unravel_index(index, self.page_shape or (1,))), strict=False))

    def describe(self) -> str:
        """Say in one line what the file is."""
        name = f"{self.kind} ({self.flavour})" if self.flavour else self.kind
        size = f"{self.width} x {self.height}"
        if self.pages > 1:
            along = ", ".join(f"{a} {n}" for a, n in zip(self.page_axes, self.page_shape, strict=True))
            size = f"{self.pages} pages ({along}) of {size}"
        colours = {1: "gray", 3: "three channels"}.get(self.channels, f"{self.channels} channels")
        parts = [name, size, colours + (" and opacity" if self.alpha else ""), self._type()]
        if (self.slope, self.intercept) != (1, 0):
            parts.append(f"scaled by {self.slope:g} plus {self.intercept:g}")
        if self.spacing:
            parts.append(" x ".join(f"{v:.4g}" for v in self.spacing.values()) + f" {self.unit}".rstrip() + " a voxel")
        return ", ".join(parts)

    def _type(self) -> str:
        names = {"u": "unsigned integers", "i": "signed integers", "f": "floats", "b": "truth values"}
        kind = np.dtype(self.dtype).kind
        return names[kind] if kind == "b" else f"{self.bits}-bit {names[kind]}"

    def _size(self, axis: str) -> int:
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    def single(self) -> Container:
        """The same with one page."""
        keep = [(n, a) for n, a in zip(self.shape, self.axes, strict=True) if a in "YXS"]
        return replace(self, shape=tuple(n for n, _ in keep), axes="".join(a for _, a in keep))


def stored_limits(dtype: str, bits: int, top: int = 0) -> Limits:
    """The least and the largest sample of a type, of which `bits` bits or 0 to `top` are used; infinite for floats."""
    kind = np.dtype(dtype).kind
    if kind == "f":
        return -math.inf, math.inf
    if kind == "b":
        return 0, 1
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kind == "i" else (0, top or 2**bits - 1)


def sample_bits(dtype: Any) -> int:
    """The bits of a NumPy type: 1 for truth values."""
    dtype = np.dtype(dtype)
    return 1 if dtype.kind == "b" else 8 * dtype.itemsize


def check_dtype(dtype: Any) -> str:
    """Return the name of a type that samples may have.

    Raises
    ------
    ValueError
        for complex numbers, records, text and objects, in words.
    """
    dtype = np.dtype(dtype)
    if dtype.kind == "c":
        raise ValueError(f"the samples are {dtype.name}, expected real numbers; save their magnitude, or two files")
    if dtype.kind not in "uifb" or dtype.itemsize > 8:
        raise ValueError(f"the samples are {dtype}, expected integers, floats of at most 64 bits or truth values")
    return dtype.name


def check_size(width: int, height: int, pixel_limit: int) -> None:
    """Raise ``ValueError`` for a picture without pixels or with more than `pixel_limit`."""
    if width < 1 or height < 1:
        raise ValueError(f"the header says {width} x {height} pixels")
    if width * height > pixel_limit:
        raise ValueError(
            f"the header says {width} x {height} pixels, expected at most {pixel_limit} in all"
            " (it may be a decompression bomb; raise icgn.datasets.picture.PIXEL_LIMIT if it is not)"
        )


# What makes a picture of Exif orientation 2 to 8 upright; axes are row, column, sample.
_UPRIGHT: dict[int, Any] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def upright(samples: Samples, orientation: int) -> Samples:
    """Turn samples (H, W, S) of an Exif orientation upright; numbers outside 2 to 8 leave them."""
    turn = _UPRIGHT.get(orientation)
    return samples if turn is None else np.ascontiguousarray(turn(samples))


def turned(pair: tuple[Any, Any] | None, orientation: int) -> tuple[Any, Any] | None:
    """Swap what belongs to rows and columns where the orientation turns the picture by a quarter."""
    return pair if pair is None or orientation not in (5, 6, 7, 8) else (pair[1], pair[0])


def density(x: Any, y: Any, per_inch: float = 1.0) -> Density | None:
    """Samples per inch, or None where a file says nothing that makes sense, or what not every format can hold."""
    try:
        found = per_inch * float(x), per_inch * float(y)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return found if all(1 <= f < 2**16 for f in found) else None
