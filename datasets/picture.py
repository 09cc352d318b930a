"""Picture files: read upright and at full depth, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from icgn.datasets.formats import FORMATS, Levels, Raster, decode
from icgn.storage.files import write_files

PIXEL_LIMIT = 89_478_485
"""Most pixels, height times width, that a file may declare: Pillow's own limit, 256 MiB as 24-bit colour."""

SUFFIXES = tuple(FORMATS)
"""File name suffixes that can be written, in lower case."""

LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)
"""Red, green and blue in the luma of JPEG and of Pillow's ``convert("L")`` (ITU-R BT.601): 0.299, 0.587, 0.114."""

_Turn = Callable[[Levels], Levels]
# What makes a picture of Exif orientation 2 to 8 upright; axes are row, column, sample.
_UPRIGHT: dict[int, _Turn] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


class PictureError(ValueError):
    """A picture file that cannot be read or written; the message names the file and the reason."""


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
    as_rgb : bool
        whether gray is written as three equal channels, as it was read.
    jpeg : bool
        whether it was read from a JPEG file: its noise is not white, and hardly any is left in the colour differences.

    Raises
    ------
    ValueError
        for a wrong shape, dtype or depth.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    bits: int = 8
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    as_rgb: bool = False
    jpeg: bool = False

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


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Read a PNG, JPEG or TIFF file, upright and at full depth.

    The Exif orientation is applied; palettes become RGB, transparent colours an alpha channel, premultiplied colours
    plain ones, and 1 to 4-bit gray the 8-bit gray of the same intensity. Three equal channels are gray, whose noise is
    not that of colour: one channel, written as three again (:attr:`Picture.as_rgb`). From TIFF, of the Exif block only
    the description, maker, model, date, artist and copyright are kept.

    Raises
    ------
    PictureError
        for a file that is missing, empty, truncated or of another format, that declares more than
        :data:`PIXEL_LIMIT` pixels (refused before anything is decoded), that has several pages, or whose samples are
        neither gray nor RGB (CMYK, Lab) or no unsigned integers (floating-point TIFF).
    """
    path = Path(path)
    try:
        raster = decode(path, PIXEL_LIMIT)
    # On broken data the codecs raise errors of every type.
    except Exception as error:
        raise PictureError(f"{path}: cannot be read: {_reason(error)}") from error
    return replace(_picture(raster), jpeg=is_jpeg(path))


def write_picture(path: str | os.PathLike[str], picture: Picture) -> None:
    """Write a PNG, JPEG or TIFF file, told by the suffix: after a crash the old file or the new one is there, whole.

    Intensities are clamped to [0, 1] and rounded to the nearest level, of 16 bits for a 16-bit picture in PNG and
    TIFF. JPEG is written at quality 95 without chroma subsampling. A profile for another channel count is left out.

    Raises
    ------
    PictureError
        for another suffix, NaN or infinite pixels, transparency in JPEG, or a folder or disk that cannot be written;
        whatever stood at `path` before is untouched.
    """
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise PictureError(f"{path}: got suffix {path.suffix!r}, expected one of {', '.join(FORMATS)}")
    for name, plane in (("pixels", picture.pixels), ("alpha", picture.alpha)):
        if plane is not None and not bool(torch.isfinite(plane).all()):
            bad = int((~torch.isfinite(plane)).sum())
            raise PictureError(f"{path}: not written: {bad} NaN or infinite {name}, expected values in [0, 1]")
    try:
        write_files({path: kind.encode(_as_raster(picture, min(kind.bits, picture.bits)))})
    except (OSError, ValueError) as error:
        raise PictureError(f"{path}: cannot be written: {_reason(error)}") from error


def is_jpeg(path: str | os.PathLike[str]) -> bool:
    """Whether a file is JPEG by its name."""
    return Path(path).suffix.lower() in (".jpg", ".jpeg")


def depth(path: str | os.PathLike[str]) -> int:
    """The most bits per sample that the format of a file name holds, 8 or 16; ``KeyError`` for another suffix."""
    return FORMATS[Path(path).suffix.lower()].bits


def _picture(raster: Raster) -> Picture:
    turn = _UPRIGHT.get(raster.orientation)
    levels = raster.levels if turn is None else turn(raster.levels)
    planes = torch.from_numpy(np.ascontiguousarray(np.moveaxis(levels, -1, 0), dtype=np.float32)) / raster.top
    colours = 1 if len(planes) <= 2 else 3
    alpha = planes[colours:].clone() if len(planes) > colours else None
    bits = 8 if raster.top <= 255 else 16
    as_rgb = colours == 3 and bool((planes[1:3] == planes[:1]).all())
    pixels = planes[: 1 if as_rgb else colours].clone()
    # Orientations from 5 on turn the picture by a quarter.
    dpi = raster.dpi if raster.dpi is None or raster.orientation < 5 else (raster.dpi[1], raster.dpi[0])
    return Picture(pixels, alpha, bits, raster.icc, raster.exif, dpi, as_rgb)


def _as_raster(picture: Picture, bits: int) -> Raster:
    top = 2**bits - 1
    pixels = picture.pixels.expand(3, -1, -1) if picture.as_rgb else picture.pixels
    planes = pixels if picture.alpha is None else torch.cat([pixels, picture.alpha.to(pixels)])
    # In float64: a float32 product is off by more than half a 16-bit level only where it is too close to call.
    rounded = (planes.detach().cpu().double().clamp(0, 1) * top).round().numpy()
    levels: Levels = np.ascontiguousarray(np.moveaxis(rounded, 0, -1)).astype(np.uint8 if bits == 8 else np.uint16)
    space = b"GRAY" if len(pixels) == 1 else b"RGB "
    icc = picture.icc if picture.icc is not None and picture.icc[16:20] == space else None
    return Raster(levels, top, icc=icc, exif=picture.exif, dpi=picture.dpi)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
