"""PNG, JPEG and TIFF as arrays of integer levels; each decoder reads the header before it decodes a pixel."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

Levels = NDArray[np.unsignedinteger[Any]]
Density = tuple[float, float]

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION = 0x0112
_RESOLUTION, _UNIT = (282, 283), 296
# Descriptive tags with the same number and type in Exif and TIFF: description, maker, model, date, artist, copyright.
_SHARED_TAGS = (270, 271, 272, 306, 315, 33432)


@dataclass(frozen=True, eq=False)
class Raster:
    """Integer samples of one picture as a file stores them.

    Attributes
    ----------
    levels : ndarray
        uint8 or uint16, shape (H, W, S): gray, gray + alpha, RGB or RGB + alpha for S = 1, 2, 3, 4.
    top : int
        the level that means intensity 1: 255 or 65535, or less for 1, 2, 4, 10, 12 and 14-bit files.
    orientation : int
        Exif orientation 1 to 8 that is still to be applied.
    icc, exif : bytes or None
        colour profile, and Exif block without any orientation.
    dpi : (float, float) or None
        samples per inch along the stored rows and columns.
    """

    levels: Levels
    top: int
    orientation: int = 1
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: Density | None = None


def decode(path: Path, pixel_limit: int) -> Raster:
    """Read a picture; the format is told from the first bytes, not from the name.

    Raises
    ------
    ValueError, OSError, or whatever a codec raises on broken data
        the messages do not name the file: the caller does.
    """
    with path.open("rb") as stream:
        head = stream.read(26)
    if not head:
        raise ValueError("the file is empty (zero bytes)")
    if head.startswith(_PNG):
        return _decode_png(path, head, pixel_limit)
    if head.startswith(_JPEG):
        return _decode_jpeg(path, pixel_limit)
    if head.startswith(_TIFF):
        return _decode_tiff(path, pixel_limit)
    raise ValueError("not a PNG, JPEG or TIFF file, whatever its name says")


def check_size(width: int, height: int, pixel_limit: int) -> None:
    """Raise ``ValueError`` for a picture without pixels or with more than `pixel_limit`."""
    if width < 1 or height < 1:
        raise ValueError(f"the header says {width} x {height} pixels")
    if width * height > pixel_limit:
        raise ValueError(
            f"the header says {width} x {height} pixels, expected at most {pixel_limit} in all"
            " (it may be a decompression bomb; raise icgn.datasets.picture.PIXEL_LIMIT if it is not)"
        )


def _decode_png(path: Path, head: bytes, pixel_limit: int) -> Raster:
    if len(head) < 26 or head[12:16] != b"IHDR":
        raise ValueError("the PNG header is broken or truncated")
    width, height, bits = struct.unpack(">IIB", head[16:25])
    check_size(width, height, pixel_limit)
    with _pillow(path) as image:
        if getattr(image, "is_animated", False):
            raise ValueError("the PNG is animated, expected one picture")
        if bits == 16:
            # Pillow would silently halve the depth of 16-bit colour; it only reads the metadata here.
            levels = imagecodecs.png_decode(path.read_bytes())
            return _raster(levels, 65535, image)
        image.load()
        return _raster(_pillow_levels(image), 255, image)


def _decode_jpeg(path: Path, pixel_limit: int) -> Raster:
    with _pillow(path) as image:
        check_size(*image.size, pixel_limit)
        image.load()
        return _raster(_pillow_levels(image), 255, image)


def _pillow(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        # The pixel limit is ours to test, from the same header.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(path, formats=("PNG", "JPEG", "MPO"))
        except UnidentifiedImageError:
            raise ValueError("the header is broken or truncated") from None


def _pillow_levels(image: Image.Image) -> Levels:
    """Take the samples of a decoded 8-bit Pillow image; palettes become RGB, transparent colours alpha."""
    mode = image.mode
    transparent = "transparency" in image.info
    targets = {"1": "L", "L": "L", "LA": "LA", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA", "PA": "RGBA"}
    if mode not in targets:
        raise ValueError(f"the picture is {mode}, expected gray or RGB; convert it to RGB first")
    target = targets[mode]
    if transparent and target in ("L", "RGB"):
        target = {"L": "LA", "RGB": "RGBA"}[target]
    if mode == "1" and transparent:
        image = image.convert("L")
    return np.asarray(image if mode == target else image.convert(target))


def _raster(levels: Levels, top: int, image: Image.Image) -> Raster:
    icc = image.info.get("icc_profile") or None
    orientation, exif = _read_exif(image)
    density = _density(*image.info.get("dpi", (0, 0)))
    return Raster(levels if levels.ndim == 3 else levels[..., None], top, orientation, icc, exif, density)


def _density(x: Any, y: Any, per_inch: float = 1.0) -> Density | None:
    """Samples per inch, or None where a file says nothing that makes sense, or what not every format can hold."""
    try:
        found = per_inch * float(x), per_inch * float(y)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return found if all(1 <= f < 2**16 for f in found) else None


def _read_exif(image: Image.Image) -> tuple[int, bytes | None]:
    """Orientation, and the Exif block without it; broken Exif is dropped with a warning, the pixels are fine."""
    try:
        exif = image.getexif()
        orientation = exif.pop(_ORIENTATION, 1)
        block = exif.tobytes() if len(exif) else None
    except Exception as error:
        warnings.warn(f"{getattr(image, 'filename', '')}: broken Exif data is dropped ({error})", stacklevel=2)
        return 1, None
    return (orientation if orientation in range(1, 9) else 1), block


def _decode_tiff(path: Path, pixel_limit: int) -> Raster:
    with tifffile.TiffFile(path) as tiff:
        # Thumbnails and pyramids stand beside the picture as reduced pages.
        pages = [p for p in tiff.pages if not p.aspage().is_reduced]
        if len(pages) != 1:
            raise ValueError(f"the TIFF has {len(pages)} pages, expected one picture")
        page = pages[0].aspage()
        check_size(page.imagewidth, page.imagelength, pixel_limit)
        bits = _tiff_depth(page)
        levels = np.asarray(page.asarray())
        levels, top = _tiff_levels(page, levels.astype(np.uint8 if bits <= 8 else np.uint16, copy=False), 2**bits - 1)
        orientation = page.tags.valueof(_ORIENTATION, 1)
        icc = page.tags.valueof(34675)
        exif, density = _tiff_exif(page), _tiff_density(page)
    return Raster(levels, top, int(orientation) if orientation in range(1, 9) else 1, icc or None, exif, density)


def _tiff_depth(page: Any) -> int:
    """Bits per sample, checked together with everything else that would be read wrongly."""
    kind = _name(tifffile.SAMPLEFORMAT, page.sampleformat)
    bits = page.bitspersample
    if kind != "UINT" or not isinstance(bits, int) or not 1 <= bits <= 16:
        raise ValueError(f"the samples are {bits}-bit {kind}, expected unsigned integers of at most 16 bits")
    if getattr(page, "imagedepth", 1) != 1:
        raise ValueError("the TIFF is a volume, expected one picture")
    return bits


def _tiff_levels(page: Any, levels: Levels, top: int) -> tuple[Levels, int]:
    """Gray or RGB samples (H, W, S) and their top level, from whatever photometric interpretation the page has."""
    photometric = _name(tifffile.PHOTOMETRIC, page.photometric)
    if photometric == "PALETTE":
        # The 16-bit entries hold 8-bit colours times 256 or 257, by whoever wrote them.
        table = (np.asarray(page.colormap) >> 8).astype(np.uint8)
        return np.moveaxis(table[:, levels], 0, -1), 255
    colours = {"MINISBLACK": 1, "MINISWHITE": 1, "RGB": 3, "YCBCR": 3}.get(photometric)
    # Only JPEG-compressed YCbCr comes out of the codec as RGB.
    if colours is None or (photometric == "YCBCR" and _name(tifffile.COMPRESSION, page.compression) != "JPEG"):
        raise ValueError(f"the picture is {photometric}, expected gray, RGB or palette; convert it to RGB first")
    samples = page.samplesperpixel
    if levels.ndim == 2:
        levels = levels[..., None]
    elif page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        levels = np.moveaxis(levels, 0, -1)
    if levels.ndim != 3 or samples not in (colours, colours + 1) or levels.shape[-1] != samples:
        raise ValueError(f"the picture has {samples} samples a pixel, expected {colours} or {colours + 1} (with alpha)")
    if photometric == "MINISWHITE":
        levels = np.concatenate([top - levels[..., :1], levels[..., 1:]], axis=-1).astype(levels.dtype)
    extra = [_name(tifffile.EXTRASAMPLE, e) for e in page.extrasamples or ()]
    return (_unassociated(levels, top) if extra == ["ASSOCALPHA"] else levels), top


def _name(kinds: type[IntEnum], value: int) -> str:
    """Name of a TIFF constant; the number itself where the standard has none."""
    return kinds(value).name if value in set(kinds) else str(value)


def _unassociated(levels: Levels, top: int) -> Levels:
    """Undo the multiplication of the colours by alpha."""
    alpha = levels[..., -1:].astype(np.float64)
    colour = np.rint(levels[..., :-1] * (top / np.maximum(alpha, 1))).clip(0, top)
    return np.concatenate([colour.astype(levels.dtype), levels[..., -1:]], axis=-1)


def _tiff_exif(page: Any) -> bytes | None:
    exif = Image.Exif()
    for tag in _SHARED_TAGS:
        value = page.tags.valueof(tag)
        if isinstance(value, str) and value:
            exif[tag] = value
    return exif.tobytes() if len(exif) else None


def _tiff_density(page: Any) -> Density | None:
    per_inch = {2: 1.0, 3: 2.54}.get(page.tags.valueof(_UNIT, 2))
    ratios = [page.tags.valueof(tag) for tag in _RESOLUTION]
    if per_inch is None or not all(isinstance(r, tuple) and len(r) == 2 and r[1] for r in ratios):
        return None
    x, y = (r[0] / r[1] for r in ratios)
    return _density(x, y, per_inch)


def encode_png(raster: Raster) -> bytes:
    """PNG of 8 or 16 bits a sample with profile, density and Exif."""
    plain = bytes(imagecodecs.png_encode(np.ascontiguousarray(raster.levels)))
    chunks = io.BytesIO()
    if raster.icc:
        PngImagePlugin.putchunk(chunks, b"iCCP", b"ICC Profile\0\0" + zlib.compress(raster.icc))
    if raster.dpi:
        PngImagePlugin.putchunk(chunks, b"pHYs", struct.pack(">IIB", *(round(d / 0.0254) for d in raster.dpi), 1))
    if raster.exif:
        PngImagePlugin.putchunk(chunks, b"eXIf", raster.exif.removeprefix(b"Exif\0\0"))
    end_of_header = len(_PNG) + 25
    return plain[:end_of_header] + chunks.getvalue() + plain[end_of_header:]


def encode_jpeg(raster: Raster) -> bytes:
    """JPEG of quality 95 without chroma subsampling, with profile, density and Exif.

    Raises
    ------
    ValueError
        if any pixel is transparent, which JPEG cannot say.
    """
    levels = raster.levels
    if levels.shape[-1] in (2, 4):
        if (levels[..., -1] != raster.top).any():
            raise ValueError("JPEG cannot keep the alpha channel; write PNG or TIFF")
        levels = levels[..., :-1]
    stream = io.BytesIO()
    image = Image.fromarray(levels.squeeze(-1) if levels.shape[-1] == 1 else levels)
    options: dict[str, Any] = {"exif": raster.exif} if raster.exif else {}
    if raster.dpi:
        options["dpi"] = tuple(round(d) for d in raster.dpi)
    image.save(stream, "JPEG", quality=95, subsampling=0, icc_profile=raster.icc, **options)
    return stream.getvalue()


def encode_tiff(raster: Raster) -> bytes:
    """TIFF of 8 or 16 bits a sample, losslessly compressed, with profile, density and the descriptive Exif tags."""
    levels, samples = raster.levels, raster.levels.shape[-1]
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        levels.squeeze(-1) if samples == 1 else levels,
        photometric="rgb" if samples >= 3 else "minisblack",
        planarconfig="contig" if samples > 1 else None,
        extrasamples=["unassalpha"] if samples in (2, 4) else None,
        compression="adobe_deflate",
        predictor=True,
        iccprofile=raster.icc,
        resolution=raster.dpi,
        resolutionunit="INCH" if raster.dpi else None,
        extratags=_extra_tags(raster.exif),
        metadata=None,
        software=False,
    )
    return stream.getvalue()


def _extra_tags(block: bytes | None) -> list[tuple[int, str, int, str, bool]]:
    exif = Image.Exif()
    if block:
        exif.load(block)
    # Type "s" is ASCII; tifffile counts the length itself.
    return [(tag, "s", 0, str(exif[tag]), True) for tag in _SHARED_TAGS if tag in exif and str(exif[tag]).isascii()]


@dataclass(frozen=True)
class Format:
    """How pictures of one kind of file are written, and the deepest levels that it keeps."""

    encode: Callable[[Raster], bytes]
    bits: int


FORMATS = {
    ".png": Format(encode_png, 16),
    ".jpg": Format(encode_jpeg, 8),
    ".jpeg": Format(encode_jpeg, 8),
    ".tif": Format(encode_tiff, 16),
    ".tiff": Format(encode_tiff, 16),
}
