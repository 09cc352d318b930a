"""Picture files: read upright and at full depth, written whole or not at all."""

from __future__ import annotations

import math
import os
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.datasets.formats import FORMATS, PICTURES, Container, Format, Samples, fit, named
from icgn.datasets.formats import PIXEL_LIMIT as PIXEL_LIMIT
from icgn.datasets.formats.kinds import check_installed, split_inner
from icgn.datasets.stack import Extent, PictureError, Stack, filled, open_stack, reason, without
from icgn.datasets.stack_writer import placed
from icgn.storage.files import drafted

SUFFIXES = tuple(s for f in PICTURES for s in f.suffixes)
"""File name suffixes of photographs that can be written, in lower case."""

FILE_SUFFIXES = tuple(s for f in FORMATS for s in f.suffixes)
"""File name suffixes of every kind of file that can be written, in lower case."""

LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)
"""Red, green and blue in the luma of JPEG and of Pillow's ``convert("L")`` (ITU-R BT.601): 0.299, 0.587, 0.114."""


@keyword_only
@dataclass(frozen=True, eq=False)
class Picture:
    """The upright pixels of a picture file with what must survive a restoration.

    Attributes
    ----------
    pixels : Tensor
        float32 (C, H, W), C = 1 for gray and 3 for RGB; intensities in [0, 1] as stored, gamma encoded.
    alpha : Tensor or None
        opacity in [0, 1], float32 (1, H, W).
    bits : int
        depth at which it is written where the format can: 8 or 16.
    icc : bytes or None
        ICC colour profile.
    exif : bytes or None
        Exif block; it never holds an orientation, the pixels being upright.
    dpi : (float, float) or None
        pixels per inch along the rows and the columns, at which it is to be printed.
    nodata : Tensor or None
        bool (1, H, W), True for pixels that have no data in the file (:attr:`Container.nodata`): their intensities
        continue those of the others smoothly, and they are written without data again. None if all have.
    as_rgb : bool
        whether gray is written as three equal channels, as it was read.
    container : Container or None
        what the file was that it was read from, with all that a file of the same kind can keep.
    range : (float, float)
        the numbers in the unit of that file which are the intensities 0 and 1.

    Raises
    ------
    ValueError
        for a wrong shape, dtype or depth.
    """

    pixels: Tensor
    _: KW_ONLY
    alpha: Tensor | None = None
    bits: int = 8
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    nodata: Tensor | None = None
    as_rgb: bool = False
    container: Container | None = None
    range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        shape = tuple(self.pixels.shape)
        if len(shape) != 3 or shape[0] not in (1, 3) or 0 in shape:
            raise ValueError(f"pixels: got shape {shape}, expected (1, H, W) or (3, H, W)")
        if not self.pixels.is_floating_point():
            raise ValueError(f"pixels: got {self.pixels.dtype}, expected a floating-point tensor in [0, 1]")
        if self.alpha is not None and tuple(self.alpha.shape) != (1, *shape[1:]):
            raise ValueError(f"alpha: got shape {tuple(self.alpha.shape)}, expected {(1, *shape[1:])}")
        if self.bits not in (8, 16):
            raise ValueError(f"bits: got {self.bits}, expected 8 or 16")


def read_picture(path: str | os.PathLike[str], *, missing: Tensor | None = None) -> Picture:
    """Read a file of one picture, gray or RGB, of any kind that :func:`icgn.datasets.open_stack` reads.

    Pixels that are NaN, infinite, or declared to have no data are :attr:`Picture.nodata`.

    The Exif orientation is applied; palettes become RGB, transparent colours an alpha channel, premultiplied colours
    plain ones, and 1 to 4-bit gray the 8-bit gray of the same intensity. Three equal channels are gray, whose noise is
    not that of colour: one channel, written as three again (:attr:`Picture.as_rgb`).

    Unsigned integers of at most 16 bits are divided by the largest of their type. Of floats, signed and 32-bit
    integers, the least and the largest number of the picture become 0 and 1 (:attr:`Picture.range`), unless all lie in
    [-1/2, 3/2], as noisy ones in [0, 1] do.

    Parameters
    ----------
    path : str or path
        the file.
    missing : Tensor, optional
        bool (1, H, W), True for pixels that say nothing and are to be found: they do not count for the range, and are
        not :attr:`Picture.nodata`.

    Raises
    ------
    PictureError
        for a file that is missing, empty, truncated or of another format, that declares more than
        :data:`PIXEL_LIMIT` pixels (refused before anything is decoded), that has several pages or channels other than
        gray and RGB (read those by :func:`icgn.datasets.open_stack`), or no pixel with data.
    """
    with open_stack(path, pixel_limit=PIXEL_LIMIT) as stack:
        found = stack.container
        if len(stack) != 1:
            raise PictureError(
                f"{path}: cannot be read as one picture: the {found.kind} has {len(stack)} pages; read them by"
                " icgn.datasets.open_stack, write them by create_stack"
            )
        if found.channels not in (1, 3):
            raise PictureError(
                f"{path}: cannot be read as one picture: it has {found.channels} channels, none of which is declared to"
                " be opacity, expected gray or RGB; read them by icgn.datasets.open_stack"
            )
        return _picture(stack, missing)


def write_picture(path: str | os.PathLike[str], picture: Picture) -> tuple[str, ...]:
    """Write a picture in the kind of file that the suffix names: after a crash the old or the new file is there, whole.

    A picture that was read from a file gets the type, range and metadata of that file again, as far as this kind of
    file holds them. Numbers are limited to what its type holds, [0, 1] for levels, and rounded to the nearest one.
    JPEG is written at quality 95 without chroma subsampling. A profile for another channel count is left out.

    Returns
    -------
    tuple of str
        what was lost on the way from the file that was read, in words, each to be said once.

    Raises
    ------
    PictureError
        for another suffix, NaN or infinite pixels, transparency in JPEG, or a folder or disk that cannot be written;
        whatever stood at `path` before is untouched.
    """
    path = Path(path)
    kind = named(path)
    if kind is None:
        raise PictureError(f"{path}: got suffix {path.suffix!r}, expected one of {', '.join(FILE_SUFFIXES)}")
    for name, plane in (("pixels", picture.pixels), ("alpha", picture.alpha)):
        if plane is not None and not bool(torch.isfinite(plane).all()):
            bad = int((~torch.isfinite(plane)).sum())
            raise PictureError(f"{path}: not written: {bad} NaN or infinite {name}, expected values in [0, 1]")
    try:
        return _write(path, kind, picture)
    except Exception as error:  # the libraries raise errors of every type
        raise PictureError(f"{path}: cannot be written: {reason(error)}") from error


def depth(path: str | os.PathLike[str]) -> int:
    """The most bits of an integer that the format of a file name holds, 8 or more; ``KeyError`` for another suffix."""
    kind = named(Path(path))
    if kind is None:
        raise KeyError(Path(path).suffix)
    return max(8 * np.dtype(t).itemsize for t in kind.dtypes if t[0] in "ui")


def _picture(stack: Stack, missing: Tensor | None) -> Picture:
    found, page = stack.container, stack.page(0)
    planes = filled(page.values, page.nodata)
    if planes is None:
        raise PictureError(f"{stack.path}: no pixel has data")
    # A mask of another size is refused where the pictures are compared.
    hidden = None if missing is None or missing.shape[1:] != planes.shape[1:] else missing
    nodata = without(page.nodata, hidden)
    low, high = found.range or _range(stack, planes if hidden is None else planes[(~hidden).expand_as(planes)])
    if (low, high) != (0, 1):
        # Exact in float32 for the levels of integers, which are below 2^24 there.
        whole = found.range is not None and low == 0
        planes = planes / high if whole else (planes.double() - low) / (high - low)
    planes = planes.float()
    as_rgb = found.channels == 3 and bool((planes[1:3] == planes[:1]).all())
    return Picture(
        pixels=planes[: 1 if as_rgb else found.channels].clone(),
        alpha=page.alpha,
        nodata=nodata,
        bits=8 if np.dtype(found.dtype).itemsize == 1 else 16,
        icc=found.icc,
        exif=found.exif,
        dpi=found.dpi,
        as_rgb=as_rgb,
        container=found,
        range=(low, high),
    )


def _range(stack: Stack, values: Tensor) -> tuple[float, float]:
    return Extent(float(values.min()), float(values.max()), stack.container.bits).range


def _write(path: Path, kind: Format, picture: Picture) -> tuple[str, ...]:
    check_installed(kind)
    pixels = picture.pixels.expand(3, -1, -1) if picture.as_rgb else picture.pixels
    container, lost = _described(picture, len(pixels), kind)
    read_as = None if picture.container is None else 8 if np.dtype(picture.container.dtype).itemsize == 1 else 16
    plan = fit(container, kind, path, picture.range, None if read_as in (None, picture.bits) else picture.bits)
    # A picture that comes from no file is written in levels.
    plan = placed(plan, path, container.path)
    low, high = picture.range if picture.container is not None else (0.0, 2.0**picture.bits - 1)
    levels = pixels.detach().cpu().double()
    values = levels if (low, high) == (0, 1) else low + levels * (high - low)
    values, empty = _emptied(values, picture, plan.container)
    alpha = None if picture.alpha is None else picture.alpha.detach().cpu().double().clamp(0, 1)
    samples = plan.stored(_last(values), None if alpha is None else _last(alpha))
    with drafted(split_inner(path)[0]) as draft:
        assert kind.write is not None  # fit has tested it
        read = picture.container.notes if picture.container is not None else ()
        return (
            read
            + lost
            + empty
            + plan.notes
            + kind.write(draft, _One(samples, path, plan.container.native), plan.container)
        )


def _emptied(values: Tensor, picture: Picture, written: Container) -> tuple[Tensor, tuple[str, ...]]:
    """The numbers of a picture with none where it has no data, as far as the file that is written can say so."""
    if picture.nodata is None:
        return values, ()
    found, holds_nan = picture.container, np.dtype(written.dtype).kind == "f"
    empty = math.nan if found is None else found.empty
    if not holds_nan and (math.isnan(empty) or not _says_empty(found, written)):
        lost = f"{int(picture.nodata.sum())} pixels without data become black: {written.kind} cannot say that"
        return torch.where(picture.nodata, picture.range[0], values), (lost,)
    return torch.where(picture.nodata, empty, values), ()


def _says_empty(found: Container | None, written: Container) -> bool:
    """Whether a file keeps the number that pixels without data have in the one that was read."""
    return found is not None and written.kind == found.kind and written.dtype == found.dtype


def _described(picture: Picture, channels: int, kind: Format) -> tuple[Container, tuple[str, ...]]:
    """The container of a picture as it is now, and what of its file is no longer true."""
    _, height, width = picture.pixels.shape
    samples = channels + (picture.alpha is not None)
    space = b"GRAY" if channels == 1 else b"RGB "
    icc = picture.icc if picture.icc is not None and picture.icc[16:20] == space else None
    found = picture.container
    shape, axes = ((height, width, samples), "YXS") if samples > 1 else ((height, width), "YX")
    now: dict[str, Any] = {
        "alpha": picture.alpha is not None, "icc": icc, "exif": picture.exif, "dpi": picture.dpi
    }  # fmt: skip
    if found is None:
        dtype = "uint8" if picture.bits == 8 else "uint16"
        return Container("picture", dtype, shape, axes, picture.bits, **now), ()
    if (found.height, found.width, found.samples) == (height, width, samples):
        return replace(found, **now), ()
    resized = (found.height, found.width) != (height, width)
    changed = replace(found, shape=shape, axes=axes, **now)
    if not resized and not kind.sized:
        return changed, ()
    lost = found.kept + (("the voxel size",) if resized and found.spacing else ())
    notes = (f"not kept, as the size or the channels have changed: {', '.join(lost)}",) if lost else ()
    keep = found.native if kind.kind == found.kind and not kind.sized else None
    return replace(changed, native=keep, kept=found.kept if keep else (), spacing={}, unit=""), notes


class _One:
    """The only page of a file."""

    def __init__(self, samples: Samples, target: Path, native: Any) -> None:
        self._samples, self.target, self._native = samples, target, native

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Samples:
        return (self._samples,)[index]

    def __iter__(self) -> Any:
        return iter((self._samples,))

    def native(self, index: int) -> Any:
        return self._native


def _last(values: Tensor) -> Samples:
    """(C, H, W) as (H, W, C)."""
    return np.moveaxis(values.numpy(), 0, -1)
