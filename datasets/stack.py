"""Files of any kind read page by page, as numbers in the unit of the file."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icgn.datasets.formats import PIXEL_LIMIT, Container, Reader, open_file
from icgn.datasets.formats.container import Limits, stored_limits

_EXACT = 2**53
# Numbers this far outside [0, 1] may be noise on pictures in [0, 1].
_NOISY = 0.5
# A gray level of 255.
_LEVEL = 1 / 255
# Deviation, in pixels, of the means by which pictures are continued.
_SMOOTH = 2.0
# What libraries say of files that end too early.
_TRUNCATED = (
    "mmap length is greater than file size",
    "failed to read ",
    "Failed to read all data",
    "buffer is too small",
)


class PictureError(ValueError):
    """A picture file that cannot be read or written; the message names the file and the reason."""


@dataclass(frozen=True, eq=False)
class Page:
    """One page of a file.

    Attributes
    ----------
    values : Tensor
        (C, H, W), in the unit of the file: float32, or float64 for integers and floats that float32 cannot hold.
    alpha : Tensor or None
        opacity in [0, 1], float32 (1, H, W).
    nodata : Tensor or None
        bool (1, H, W), True for pixels that have no data (:attr:`Container.nodata`), whatever their values are; None
        if all have.
    """

    values: Tensor
    alpha: Tensor | None = None
    nodata: Tensor | None = None


@dataclass(frozen=True)
class Extent:
    """What the numbers of a file are.

    Attributes
    ----------
    low, high : float
        the least and the largest finite number, in the unit of the file.
    bits : int
        for unsigned integers the bits that the largest one needs: 12 for 12-bit data in a 16-bit file; else those of
        the type.
    """

    low: float
    high: float
    bits: int

    @property
    def range(self) -> Limits:
        """The numbers that become 0 and 1: 0 and 1 themselves if the data lie in [-1/2, 3/2], else their extremes.

        Data around 0 that are smaller than one of 255 levels are in another unit: their extremes too.
        """
        tiny = 0 < max(abs(self.low), abs(self.high)) < _LEVEL
        if self.low >= -_NOISY and self.high <= 1 + _NOISY and not (tiny and self.high > self.low):
            return 0.0, 1.0
        return self.low, self.high if self.high > self.low else self.low + max(1.0, abs(self.low))


class Stack:
    """An open file of one page or of many, each read when it is asked for; made by :func:`open_stack`.

    ``stack[i]`` is the tensor of page i, (C, H, W) in the unit of the file; ``stack.page(i)`` has its opacity too.
    Nothing but that page is in memory.

    Attributes
    ----------
    path : Path
        the file.
    container : Container
        what was found in it.
    """

    def __init__(self, path: Path, reader: Reader) -> None:
        self.path = path
        self.container: Container = reader.container
        self._reader = reader

    def __len__(self) -> int:
        return self.container.pages

    def __getitem__(self, index: int) -> Tensor:
        return self.page(index).values

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def page(self, index: int) -> Page:
        """Read one page.

        Raises
        ------
        IndexError
            for a page that is not there.
        PictureError
            naming the file, for a page that is damaged.
        """
        index = range(len(self))[index]
        try:
            samples = self._reader.read(index)
        except Exception as error:  # on broken data the codecs raise errors of every type
            raise PictureError(f"{self.path}: page {index} cannot be read: {reason(error)}") from error
        return self._page(samples, index)

    def native(self, index: int) -> Any:
        """What the writer of the same kind keeps with a page; for :func:`create_stack`."""
        return self._reader.native(index)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _page(self, samples: Any, index: int) -> Page:
        found = self.container
        expected = (found.height, found.width, found.samples)
        if samples.shape != expected:
            raise PictureError(f"{self.path}: page {index} has shape {samples.shape}, expected {expected}")
        planes = np.moveaxis(samples, -1, 0)
        kind = np.dtype(found.dtype)
        if kind.itemsize == 8 and kind.kind in "ui" and max(int(planes.max()), -int(planes.min())) > _EXACT:
            raise PictureError(f"{self.path}: page {index} has integers beyond 2^53, expected smaller ones")
        scaled = (found.slope, found.intercept) != (1, 0)
        double = scaled or kind.itemsize == 8 or (kind.itemsize == 4 and kind.kind in "ui")
        # A copy: what is read may be a view of the file.
        number: Any = np.array(planes[: found.channels], np.float64 if double else np.float32, order="C")
        if scaled:
            number = found.slope * number + found.intercept
        values, empty = torch.from_numpy(number), found.without_data(samples)
        nodata = None if empty is None else torch.from_numpy(empty)[None]
        if not found.alpha:
            return Page(values, nodata=nodata)
        top = 1.0 if kind.kind == "f" else stored_limits(found.dtype, found.bits)[1]
        alpha = torch.from_numpy(np.ascontiguousarray(planes[found.channels :], dtype=np.float32)) / top
        return Page(values, alpha, nodata)


def open_stack(path: str | os.PathLike[str], *, axes: str | None = None, pixel_limit: int = PIXEL_LIMIT) -> Stack:
    """Open a file of any kind, recognized by its content.

    Parameters
    ----------
    path : path
        PNG, JPEG, TIFF, WebP, BMP, PBM, PGM, PPM, ``.npy``, ``.npz``; with the packages of ``pip install
        'icgn[science]'`` FITS, NIfTI, DICOM, HDF5, Zarr. A place inside the file stands behind a colon:
        ``scan.h5:/group/data``, ``arrays.npz:name``, ``image.fits:SCI``.
    axes : str, optional
        a letter for each axis of an array, e.g. "CYX" or "TZYX", for files that do not say them; the default for those
        is told by :func:`icgn.datasets.formats.arrays.letters`.
    pixel_limit : int
        most pixels of a page, tested before anything is decoded.

    Raises
    ------
    PictureError
        for a file that is missing, empty, truncated or of another kind, with what to do.
    """
    place = Path(path)
    try:
        return Stack(place, open_file(place, axes=axes, pixel_limit=pixel_limit))
    except Exception as error:  # on broken data the codecs raise errors of every type
        raise PictureError(f"{place}: cannot be read: {reason(error)}") from error


def measure(stack: Stack, *, missing: Callable[[int], Tensor | None] | None = None) -> Extent:
    """Find the least and the largest number of all pages, one page in memory at a time; pixels without data not.

    Parameters
    ----------
    stack : Stack
        the open file.
    missing : callable, optional
        gives for the number of a page the pixels that say nothing and do not count, bool (1, H, W), or None.

    Raises
    ------
    PictureError
        for a damaged page, or if no pixel has data.
    """
    low, high = math.inf, -math.inf
    for index in range(len(stack)):
        page = stack.page(index)
        hidden = [h for h in (None if missing is None else missing(index), page.nodata) if h is not None]
        values = page.values
        if hidden:
            values = values[~torch.stack([h.expand(1, *values.shape[1:]) for h in hidden]).any(0).expand_as(values)]
        if values.numel():
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if low > high:
        raise PictureError(f"{stack.path}: no pixel has data")
    found = stack.container
    plain = np.dtype(found.dtype).kind == "u" and (found.slope, found.intercept) == (1, 0)
    return Extent(low, high, max(1, int(high).bit_length()) if plain else found.bits)


def filled(values: Tensor, nodata: Tensor | None) -> Tensor | None:
    """Values (C, H, W) continued smoothly over pixels without data; None if no pixel has data.

    Those pixels get the local mean, weighted by a Gaussian of two pixels, at the nearest pixel that has data: noise
    that is continued looks like streaks.

    Parameters
    ----------
    values : Tensor
        of a page.
    nodata : Tensor or None
        bool (1, H, W), True for pixels without data.
    """
    if nodata is None:
        return values
    if bool(nodata.all()):
        return None
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    empty = nodata[0].numpy()
    rows, columns = distance_transform_edt(empty, return_distances=False, return_indices=True)
    weight = gaussian_filter((~empty).astype(np.float64), _SMOOTH)
    planes = []
    for plane in values.double().numpy():
        mean = gaussian_filter(np.where(empty, 0.0, plane), _SMOOTH)[rows, columns] / weight[rows, columns]
        planes.append(np.where(empty, mean, plane))
    return torch.from_numpy(np.stack(planes)).to(values)


def without(nodata: Tensor | None, missing: Tensor | None) -> Tensor | None:
    """Pixels without data that are not among those to be found, both bool (1, H, W); None if there are none."""
    left = nodata if nodata is None or missing is None else nodata & ~missing
    return left if left is not None and bool(left.any()) else None


def reason(error: Exception) -> str:
    """What went wrong, in words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, MemoryError):
        return "not enough memory for what its header says"
    text = " ".join(str(error).split())[:400]
    if any(words in text for words in _TRUNCATED) and "truncated" not in text:
        return f"the file is truncated: it holds less than its header says ({text})"
    return text or type(error).__name__
