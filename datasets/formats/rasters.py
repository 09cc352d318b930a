"""PNG, JPEG, WebP and BMP: Pillow reads them and knows their metadata, imagecodecs reads and writes deep PNG."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from icgn.datasets.formats.container import (
    Container,
    Density,
    Samples,
    check_size,
    density,
    sample_bits,
    turned,
    upright,
)
from icgn.datasets.formats.contract import Format, Pages, Request, SinglePage

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112
# Chunks that say how the samples are to be shown or what they show; those of profile, density and Exif are apart.
_COLOUR = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"mDCv", b"cLLi")
_WORDS = (b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pCAL", b"sCAL", b"oFFs")
_APART = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"iCCP", b"pHYs", b"eXIf", b"tRNS", b"bKGD", b"hIST", b"sBIT", b"sPLT")


def open_png(request: Request) -> SinglePage:
    """Read a PNG file; 16-bit samples by imagecodecs, as Pillow would halve the depth of 16-bit colour."""
    path = request.path
    with path.open("rb") as stream:
        head = stream.read(26)
    if len(head) < 26 or head[12:16] != b"IHDR":
        raise ValueError("the PNG header is broken or truncated")
    width, height, bits = struct.unpack(">IIB", head[16:25])
    check_size(width, height, request.pixel_limit)
    chunks, left = _chunks(path)
    with _pillow(path, "PNG") as image:
        if getattr(image, "is_animated", False):
            raise ValueError("the PNG is animated, expected one picture; save its frames as pages of a TIFF")
        if bits == 16:
            levels: Samples = imagecodecs.png_decode(path.read_bytes())
        else:
            image.load()
            levels = _levels(image)
        kept = ["the gamma and colour space"] * any(k in _COLOUR for k, _ in chunks)
        kept += ["the text"] * any(k in _WORDS for k, _ in chunks)
        notes = [f"not kept from the PNG: the chunk {name}" for name in left]
        return _page("PNG", levels, image, tuple(chunks), tuple(kept), tuple(notes))


def _chunks(path: Path) -> tuple[list[tuple[bytes, bytes]], list[str]]:
    """The chunks to be copied, and the names of those that cannot be."""
    chunks: list[tuple[bytes, bytes]] = []
    left: list[str] = []
    with path.open("rb") as stream:
        stream.seek(len(_SIGNATURE))
        reader = PngImagePlugin.ChunkStream(stream)
        while True:
            try:
                kind, place, size = reader.read()
            except (SyntaxError, struct.error):
                raise ValueError("the file is truncated: the PNG has no end") from None
            if kind == b"IEND":
                return chunks, left
            # The fourth letter says whether a chunk stays right when the samples change.
            if kind in (*_COLOUR, *_WORDS) or (kind not in _APART and kind[3:4].islower()):
                content = stream.read(size)
                reader.crc(kind, content)
                chunks.append((kind, content))
                continue
            if kind not in _APART:
                left.append(kind.decode("ascii", "replace"))
            stream.seek(place + size + 4)


def open_jpeg(request: Request) -> SinglePage:
    """Read a JPEG file."""
    with _pillow(request.path, "JPEG") as image:
        check_size(*image.size, request.pixel_limit)
        image.load()
        native = {k: image.info[k] for k in ("comment", "xmp") if image.info.get(k)}
        several = getattr(image, "n_frames", 1) > 1
        notes = ("not kept from the JPEG: the further pictures behind the first",) if several else ()
        return _page("JPEG", _levels(image), image, native, _named(native), notes)


def open_webp(request: Request) -> SinglePage:
    """Read a WebP file."""
    with _pillow(request.path, "WEBP") as image:
        check_size(*image.size, request.pixel_limit)
        if getattr(image, "is_animated", False):
            raise ValueError("the WebP is animated, expected one picture; save its frames as pages of a TIFF")
        image.load()
        native = {k: image.info[k] for k in ("xmp",) if image.info.get(k)}
        return _page("WebP", _levels(image), image, native, _named(native), ())


def open_bmp(request: Request) -> SinglePage:
    """Read a BMP file."""
    with _pillow(request.path, "BMP") as image:
        check_size(*image.size, request.pixel_limit)
        image.load()
        return _page("BMP", _levels(image), image, None, (), ())


def _named(native: dict[str, Any]) -> tuple[str, ...]:
    return tuple({"comment": "the comment", "xmp": "the XMP data"}[k] for k in native)


def _pillow(path: Path, kind: str) -> Image.Image:
    with warnings.catch_warnings():
        # The pixel limit is ours to test, from the same header.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(path, formats=(kind,))
        except UnidentifiedImageError:
            raise ValueError("the header is broken or truncated") from None
        except Image.DecompressionBombError as error:
            raise ValueError(f"{error} (a decompression bomb: more pixels than expected)") from None


def _levels(image: Image.Image) -> Samples:
    """Take the samples of a decoded 8-bit Pillow image; palettes become RGB, transparent colours alpha."""
    mode = image.mode
    transparent = "transparency" in image.info
    targets = {"1": "L", "L": "L", "LA": "LA", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA", "PA": "RGBA", "RGBX": "RGB"}
    if mode not in targets:
        raise ValueError(f"the picture is {mode}, expected gray or RGB; convert it to RGB first")
    target = targets[mode]
    if transparent and target in ("L", "RGB"):
        target = {"L": "LA", "RGB": "RGBA"}[target]
    if mode == "1" and transparent:
        image = image.convert("L")
    return np.asarray(image if mode == target else image.convert(target))


def _page(
    kind: str, levels: Samples, image: Image.Image, native: Any, kept: tuple[str, ...], notes: tuple[str, ...]
) -> SinglePage:
    orientation, exif = _read_exif(image)
    levels = upright(levels if levels.ndim == 3 else levels[..., None], orientation)
    many = levels.shape[-1] > 1
    container = Container(
        kind=kind,
        dtype=levels.dtype.name,
        shape=levels.shape if many else levels.shape[:2],
        axes="YXS" if many else "YX",
        bits=sample_bits(levels.dtype),
        alpha=levels.shape[-1] in (2, 4),
        icc=image.info.get("icc_profile") or None,
        exif=exif,
        dpi=turned(density(*image.info.get("dpi", (0, 0))), orientation),
        kept=kept,
        notes=notes,
        native=native,
    )
    return SinglePage(container, levels)


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


def write_png(path: Path, pages: Pages, container: Container) -> tuple[str, ...]:
    """PNG of 8 or 16 bits a sample with profile, density, Exif, colour space and text."""
    plain = bytes(imagecodecs.png_encode(np.ascontiguousarray(pages[0])))
    chunks = io.BytesIO()
    native = container.native if isinstance(container.native, tuple) else ()
    for kind, content in native:
        # A profile and an sRGB chunk exclude each other; what the file had is kept.
        PngImagePlugin.putchunk(chunks, kind, content)
    if container.icc:
        PngImagePlugin.putchunk(chunks, b"iCCP", b"ICC Profile\0\0" + zlib.compress(container.icc))
    if container.dpi:
        pixels = (round(d / 0.0254) for d in container.dpi)
        PngImagePlugin.putchunk(chunks, b"pHYs", struct.pack(">IIB", *pixels, 1))
    if container.exif:
        PngImagePlugin.putchunk(chunks, b"eXIf", container.exif.removeprefix(b"Exif\0\0"))
    end_of_header = len(_SIGNATURE) + 25
    path.write_bytes(plain[:end_of_header] + chunks.getvalue() + plain[end_of_header:])
    return ()


def write_jpeg(path: Path, pages: Pages, container: Container) -> tuple[str, ...]:
    """JPEG of quality 95 without chroma subsampling, with profile, density, Exif and comment."""
    options = _options(container)
    if container.dpi:
        options["dpi"] = _whole(container.dpi)
    _image(pages[0]).save(path, "JPEG", quality=95, subsampling=0, icc_profile=container.icc, **options)
    return ()


def write_webp(path: Path, pages: Pages, container: Container) -> tuple[str, ...]:
    """Lossless WebP with profile and Exif."""
    options = _options(container)
    _image(pages[0]).save(path, "WEBP", lossless=True, exact=True, icc_profile=container.icc, **options)
    return ()


def write_bmp(path: Path, pages: Pages, container: Container) -> tuple[str, ...]:
    """BMP of 8 bits a sample."""
    _image(pages[0]).save(path, "BMP", **({"dpi": container.dpi} if container.dpi else {}))
    return ()


def _options(container: Container) -> dict[str, Any]:
    native = container.native if isinstance(container.native, dict) else {}
    return dict(native) | ({"exif": container.exif} if container.exif else {})


def _whole(dpi: Density) -> tuple[int, int]:
    return round(dpi[0]), round(dpi[1])


def _image(samples: Samples) -> Image.Image:
    return Image.fromarray(samples[..., 0] if samples.shape[-1] == 1 else np.ascontiguousarray(samples))


_PROFILED = frozenset({"icc", "exif", "dpi"})

RASTERS = (
    Format(
        "PNG", (".png",), lambda head, path: head.startswith(_SIGNATURE), open_png, write_png,
        ("uint16", "uint8"), alpha=True, keeps=_PROFILED, retypes=True, full=True,
    ),
    Format(
        "JPEG", (".jpg", ".jpeg", ".jfif", ".jpe"), lambda head, path: head.startswith(b"\xff\xd8\xff"),
        open_jpeg, write_jpeg, ("uint8",), keeps=_PROFILED, full=True,
    ),
    Format(
        "WebP", (".webp",), lambda head, path: head[:4] == b"RIFF" and head[8:12] == b"WEBP", open_webp, write_webp,
        ("uint8",), alpha=True, keeps=frozenset({"icc", "exif"}), full=True,
    ),
    Format(
        "BMP", (".bmp", ".dib"), lambda head, path: head[:2] == b"BM" and len(head) > 25, open_bmp, write_bmp,
        ("uint8",), keeps=frozenset({"dpi"}), full=True,
    ),
)  # fmt: skip
