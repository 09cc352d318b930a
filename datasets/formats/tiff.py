"""TIFF as tifffile reads it: every page, its tags kept word for word."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Literal

import numpy as np
import tifffile
from PIL import Image

from icgn.datasets.formats.container import (
    Container,
    Density,
    Limits,
    Samples,
    check_dtype,
    check_size,
    density,
    sample_bits,
    turned,
    upright,
)
from icgn.datasets.formats.contract import Request

SHARED_TAGS = (270, 271, 272, 306, 315, 33432)
"""Tags with the same number and type in Exif and TIFF: description, maker, model, date, artist, copyright."""

_ORIENTATION, _UNIT, _ICC = 274, 296, 34675
_RESOLUTION = (282, 283)
# Written by the writer itself, or true of the old samples only (their layout, extremes, palette, sub-files).
_STRUCTURE = frozenset((
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284, 288, 289,
    290, 291, 292, 293, 296, 297, 317, 320, 321, 322, 323, 324, 325, 330, 332, 333, 334, 336, 338, 339, 340,
    341, 342, 347, *range(512, 522), *range(529, 533), 34665, 34675, 34853, 40965, 32997, 32998, 50706, 50707,
))  # fmt: skip
_GEO = (33550, 33922, 34264, 34735, 34736, 34737)
_NODATA = 42113
_IMAGEJ = (50838, 50839)


@dataclass(frozen=True, eq=False)
class Tags:
    """What is kept of one page: (code, type, raw bytes) of its tags, its resolution and the unit of that."""

    tags: tuple[tuple[int, int, bytes], ...]
    resolution: tuple[tuple[int, int], tuple[int, int]] | None
    unit: int | None


@dataclass(frozen=True, eq=False)
class Layout:
    """How the file was stored, and the tags of a page.

    `together`: all samples lie one after another, which readers of some descriptions rely on; `truncated`: behind a
    single directory.
    """

    byteorder: Literal["<", ">"]
    big: bool
    compression: str | None
    tile: tuple[int, int] | None
    planar: bool
    together: bool
    truncated: bool
    rgb: bool
    page: Tags


@contextmanager
def complaints() -> Iterator[list[logging.LogRecord]]:
    """Collect what tifffile logs, which it does where others raise; nothing is printed."""
    found: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = found.append  # type: ignore[assignment, method-assign]
    logger = logging.getLogger("tifffile")
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


class TiffReader:
    """The pages of a TIFF file: those of its series, without thumbnails and smaller levels.

    Raises
    ------
    ValueError
        for pages of several sizes or types, for colours other than gray, RGB and palettes, and for damaged files.
    """

    def __init__(self, request: Request) -> None:
        with complaints() as said:
            # Other files that an OME or Micro-Manager file names belong to their own runs.
            self._tiff = tifffile.TiffFile(request.path, _multifile=False)
            try:
                self._open(request)
            except BaseException:
                self._tiff.close()
                raise
        broken = [r.getMessage() for r in said if r.levelno >= logging.ERROR]
        if broken:
            self._tiff.close()
            raise ValueError(f"the TIFF is damaged: {broken[0]}")

    def _open(self, request: Request) -> None:
        notes = []
        pages = [p.aspage() if i == 0 else p for i, p in enumerate(self._tiff.pages)]
        if not pages:
            raise ValueError("the TIFF has no page")
        first = next((p for p in (q.aspage() for q in pages) if not p.is_reduced and not p.is_mask), None)
        if first is None:
            raise ValueError("the TIFF holds nothing but thumbnails")
        check_size(first.imagewidth, first.imagelength, request.pixel_limit)
        series, left = self._series(pages)
        if left:
            notes.append(f"{left} thumbnails, masks or smaller levels beside the pictures are not kept")
        shapes = sorted({(tuple(s.keyframe.shape), str(s.dtype), s.keyframe.photometric) for s in series}, key=str)
        if len(shapes) > 1:
            sizes = ", ".join(f"{' x '.join(map(str, shape))} {dtype}" for shape, dtype, _ in shapes[:4])
            count = sum(len(s.pages) for s in series)
            several = f"the TIFF has {count} pages of several sizes or types ({sizes})"
            raise ValueError(f"{several}; write each to its own file")
        self._series_list, self._page = series, series[0].keyframe.aspage()
        self._memory: dict[int, Any] = {}
        self._depth, self._kind = _depth(self._page)
        axes, shape = self._axes()
        samples = self._interpret(self._planes_of(0)[0])
        self._orientation = int(self._page.tags.valueof(_ORIENTATION, 1) or 1)
        samples = upright(samples, self._orientation)
        size = samples.shape
        many = size[2] > 1
        axes, shape = axes + "YX" + "S" * many, (*shape, *(size if many else size[:2]))
        self._alpha = _alpha(self._page)
        spacing, unit = self._spacing()
        self.container = Container(
            kind="TIFF",
            dtype=samples.dtype.name,
            shape=shape,
            axes=axes,
            bits=self._bits(samples),
            alpha=self._alpha,
            nodata=self._nodata(samples.dtype),
            icc=self._page.tags.valueof(_ICC) or None,
            exif=_exif(self._page),
            dpi=turned(_density(self._page), self._orientation),
            spacing=spacing,
            unit=unit,
            flavour=self._flavour(),
            kept=_kept(self._page),
            notes=tuple(notes + _losses(self._page)),
        )
        self.container = replace(self.container, native=self.native(0))

    def _series(self, pages: list[Any]) -> tuple[list[Any], int]:
        """The series of pictures, and how many pages beside them are thumbnails, masks or levels."""
        kept, left = [], 0
        for series in self._tiff.series:
            key = series.keyframe.aspage()
            if key.is_reduced or key.is_mask:
                left += len(series.pages)
                continue
            left += sum(len(level.pages) for level in series.levels[1:])
            kept.append(series)
        if any(p is None for s in kept for p in s.pages):
            raise ValueError("the TIFF lacks planes that its description names; save them all in one file")
        counted = sum(len(s.pages) for s in kept)
        reduced = sum(1 for p in pages if p.aspage().is_reduced or p.aspage().is_mask) if counted < len(pages) else 0
        lost = len(pages) - counted - reduced
        if lost > 0:
            raise ValueError(
                f"the TIFF has {len(pages)} pages, of which its description names {counted}; save it anew without it"
            )
        return kept, left

    def _axes(self) -> tuple[str, tuple[int, ...]]:
        """Letters and sizes of the page axes of all series."""
        first = self._series_list[0]
        inner = [(a, n) for a, n in zip(first.axes, first.shape, strict=True) if a not in "YXS"]
        if len(self._series_list) > 1:
            if len({s.shape for s in self._series_list}) > 1:
                count = sum(len(s.pages) for s in self._series_list)
                inner = [("I", count)]
            else:
                inner = [("I", len(self._series_list)), *inner]
        return "".join(a for a, _ in inner), tuple(n for _, n in inner)

    def _planes_of(self, index: int) -> tuple[Any, Any]:
        """Stored plane and the page that has its tags, of a page of the container."""
        for series in self._series_list:
            number = int(np.prod([n for a, n in zip(series.axes, series.shape, strict=True) if a not in "YXS"]))
            if index < number:
                return self._plane(series, index, number)
            index -= number
        raise IndexError(f"page {index}: not in the file")

    def _plane(self, series: Any, index: int, number: int) -> tuple[Any, Any]:
        if len(series.pages) == number:
            page = series.pages[index]
            return page.asarray(), page
        first = series.pages[0]
        key = id(series)
        if key not in self._memory:
            rest = [n for a, n in zip(series.axes, series.shape, strict=True) if a in "YXS"]
            if series.dataoffset is not None:
                # All planes lie one after another behind a single directory.
                order = series.dtype.newbyteorder(self._tiff.byteorder)
                path, offset = self._tiff.filehandle.path, series.dataoffset
                self._memory[key] = np.memmap(path, order, "r", offset, (number, *rest))
            elif len(series.pages) == 1:
                self._memory[key] = first.asarray().reshape(number, *rest)
            else:
                raise ValueError(f"the TIFF has {len(series.pages)} directories for {number} planes, expected as many")
        plane = self._memory[key][index]
        return np.asarray(plane, plane.dtype.newbyteorder("=")), first

    def _interpret(self, plane: Any) -> Samples:
        """Samples (H, W, S) of a stored plane: not inverted, no palette, not multiplied by opacity."""
        page, kind = self._page, self._kind
        dtype = check_dtype(plane.dtype)
        if kind == "UINT" and self._depth <= 8:
            dtype = "uint8"
        levels = np.asarray(plane).astype(dtype, copy=False)
        photometric = _name(tifffile.PHOTOMETRIC, page.photometric)
        if photometric == "PALETTE":
            # The 16-bit entries hold 8-bit colours times 256 or 257, depending on the program that wrote them.
            table = (np.asarray(page.colormap) >> 8).astype(np.uint8)
            return np.moveaxis(table[:, levels], 0, -1)
        _check_colours(page, photometric)
        if levels.ndim == 2:
            levels = levels[..., None]
        elif page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            levels = np.moveaxis(levels, 0, -1)
        if levels.ndim != 3 or levels.shape[-1] != page.samplesperpixel:
            raise ValueError(f"a page has shape {levels.shape}, expected {page.samplesperpixel} samples a pixel")
        if photometric == "MINISWHITE" and not _is_truth(page):
            levels = _inverted(levels, self._depth, kind)
        if kind == "UINT" and self._depth in (1, 2, 4):
            levels = (levels * (255 // (2**self._depth - 1))).astype(np.uint8)
        if _alpha(page) and page.extrasamples[-1] == tifffile.EXTRASAMPLE.ASSOCALPHA:
            levels = _unassociated(levels, self._top(levels))
        return levels

    def _top(self, levels: Samples) -> float:
        return 1.0 if levels.dtype.kind == "f" else 2 ** self._bits(levels) - 1

    def _bits(self, samples: Samples) -> int:
        whole = sample_bits(samples.dtype)
        palette = self._page.photometric == tifffile.PHOTOMETRIC.PALETTE
        packed = self._kind == "UINT" and 8 * (whole > 8) < self._depth < whole and self._depth not in (1, 2, 4)
        return self._depth if packed and not palette else whole

    def read(self, index: int) -> Samples:
        with complaints() as said:
            samples = upright(self._interpret(self._planes_of(index)[0]), self._orientation)
        broken = [r.getMessage() for r in said if r.levelno >= logging.ERROR]
        if broken:
            raise ValueError(f"page {index} of the TIFF is damaged: {broken[0]}")
        return samples

    def native(self, index: int) -> Layout:
        tiff, key = self._tiff, self._page
        with complaints():
            page = self._page_with_tags(index)
            name = _name(tifffile.COMPRESSION, key.compression)
            tile = (key.tilelength, key.tilewidth) if key.is_tiled else None
            truncated = any(s.is_truncated for s in self._series_list)
            planar = key.planarconfig == tifffile.PLANARCONFIG.SEPARATE and key.samplesperpixel > 1
            described = ("shaped", "imagej", "ome")
            together = len(self._series_list) == 1 and self._series_list[0].kind in described
            together = together and self._series_list[0].dataoffset is not None and self.container.pages > 1
            rgb = (_colours(_name(tifffile.PHOTOMETRIC, key.photometric)) or 3) == 3
            return Layout(
                tiff.byteorder, tiff.is_bigtiff, name, tile, planar, together, truncated, rgb, self._tags(page)
            )

    def _page_with_tags(self, index: int) -> Any:
        for series in self._series_list:
            number = int(np.prod([n for a, n in zip(series.axes, series.shape, strict=True) if a not in "YXS"]))
            if index < number:
                return (series.pages[index] if len(series.pages) == number else series.pages[0]).aspage()
            index -= number
        raise IndexError(f"page {index}: not in the file")

    def _tags(self, page: Any) -> Tags:
        kept = []
        for tag in page.tags:
            # IFD types point into the old file.
            if tag.code not in _STRUCTURE and int(tag.dtype) not in (13, 18):
                self._tiff.filehandle.seek(tag.valueoffset)
                kept.append((tag.code, int(tag.dtype), self._tiff.filehandle.read(tag.valuebytecount)))
        ratios = tuple(page.tags.valueof(tag) for tag in _RESOLUTION)
        if not all(isinstance(r, tuple) and len(r) == 2 for r in ratios):
            return Tags(tuple(kept), None, None)
        unit = page.tags.valueof(_UNIT)
        return Tags(tuple(kept), turned(ratios, self._orientation), None if unit is None else int(unit))

    def _nodata(self, dtype: np.dtype[Any]) -> Limits | None:
        """The number of pixels without data, which GDAL writes as text, if the samples can have it."""
        if _name(tifffile.PHOTOMETRIC, self._page.photometric) not in ("MINISBLACK", "RGB"):
            return None
        try:
            number = float(str(self._page.tags.valueof(_NODATA)).strip(" \0"))
        except ValueError:
            return None
        held = float(np.array(number).astype(dtype)) if math.isfinite(number) else number
        close = held == number or (dtype.kind == "f" and math.isclose(held, number, rel_tol=1e-6))
        return (held, held) if math.isfinite(number) and close else None

    def _flavour(self) -> str:
        tiff = self._tiff
        names = [("ImageJ", tiff.is_imagej), ("OME", tiff.is_ome), ("GeoTIFF", any(t in self._page.tags for t in _GEO))]
        found = [name for name, there in names if there]
        return ", ".join(found + ["BigTIFF"] * tiff.is_bigtiff)

    def _spacing(self) -> tuple[dict[str, float], str]:
        """The size of a voxel, if ImageJ or OME says it."""
        tiff, page = self._tiff, self._page
        try:
            if tiff.is_imagej:
                known = tiff.imagej_metadata or {}
                unit = str(known.get("unit", "")).replace("\\u00B5", "µ").replace("micron", "µm")
                if not unit or unit == "pixel":
                    return {}, ""
                found = {}
                for axis, tag in zip("XY", _RESOLUTION, strict=True):
                    over, under = page.tags.valueof(tag, (0, 1))
                    if over:
                        found[axis] = under / over
                if "spacing" in known:
                    found["Z"] = float(known["spacing"])
                return found, "µm" if unit == "um" else unit
            if tiff.is_ome:
                image: Any = tifffile.xml2dict(tiff.ome_metadata or "")["OME"]["Image"]
                pixels = (image[0] if isinstance(image, list) else image)["Pixels"]
                sizes = {a: float(pixels[f"PhysicalSize{a}"]) for a in "XYZ" if f"PhysicalSize{a}" in pixels}
                return sizes, str(pixels.get("PhysicalSizeXUnit", "µm")) if sizes else ""
        except (KeyError, TypeError, ValueError):
            pass
        return {}, ""

    def close(self) -> None:
        self._memory = {}
        self._tiff.close()


def _depth(page: Any) -> tuple[int, str]:
    """Bits of a sample and the name of its kind, checked together with what would be read wrongly."""
    kind = _name(tifffile.SAMPLEFORMAT, page.sampleformat)
    bits = page.bitspersample
    if kind not in ("UINT", "INT", "IEEEFP") or not isinstance(bits, int) or page.dtype is None:
        raise ValueError(f"the samples are {bits}-bit {kind}, expected integers or floats; save magnitudes")
    check_dtype(page.dtype)
    return bits, kind


def _check_colours(page: Any, photometric: str) -> None:
    colours = _colours(photometric)
    # Only JPEG-compressed YCbCr comes out of the codec as RGB.
    jpeg = _name(tifffile.COMPRESSION, page.compression) in ("JPEG", "OJPEG")
    if colours is None or (photometric == "YCBCR" and not jpeg):
        raise ValueError(f"the picture is {photometric}, expected gray, RGB or palette; convert it to RGB first")
    if page.samplesperpixel < colours:
        raise ValueError(f"the picture is {photometric} with {page.samplesperpixel} samples, expected {colours}")


def _colours(photometric: str) -> int | None:
    return {"MINISBLACK": 1, "MINISWHITE": 1, "RGB": 3, "YCBCR": 3}.get(photometric)


def _alpha(page: Any) -> bool:
    """Whether the last sample is the opacity: declared as such, and not merely unspecified."""
    extra = [_name(tifffile.EXTRASAMPLE, e) for e in page.extrasamples or ()]
    return bool(extra) and extra[-1] in ("ASSOCALPHA", "UNASSALPHA") and page.samplesperpixel > 1


def _inverted(levels: Samples, depth: int, kind: str) -> Samples:
    if kind != "UINT":
        raise ValueError(f"the picture has 0 for white in {kind} samples, expected unsigned integers; invert it first")
    return np.concatenate([2**depth - 1 - levels[..., :1], levels[..., 1:]], axis=-1).astype(levels.dtype)


def _is_truth(page: Any) -> bool:
    """Whether a page holds truth values that tifffile has written, with 0 for white whatever they mean."""
    return page.bitspersample == 1 and str(page.software).startswith("tifffile")


def _unassociated(levels: Samples, top: float) -> Samples:
    """Undo the multiplication of the colours by alpha."""
    alpha = levels[..., -1:].astype(np.float64)
    whole = levels.dtype.kind != "f"
    colour = levels[..., :-1] * (top / np.maximum(alpha, 1 if whole else 1e-6))
    colour = np.rint(colour).clip(0, top) if whole else colour
    return np.concatenate([colour.astype(levels.dtype), levels[..., -1:]], axis=-1)


def _name(kinds: type[IntEnum], value: int) -> str:
    """Name of a TIFF constant; the number itself where the standard has none."""
    return kinds(value).name if value in set(kinds) else str(value)


def _exif(page: Any) -> bytes | None:
    exif = Image.Exif()
    for tag in SHARED_TAGS:
        value = page.tags.valueof(tag)
        if isinstance(value, str) and value:
            exif[tag] = value
    return exif.tobytes() if len(exif) else None


def _density(page: Any) -> Density | None:
    per_inch = {2: 1.0, 3: 2.54}.get(page.tags.valueof(_UNIT, 2))
    ratios = [page.tags.valueof(tag) for tag in _RESOLUTION]
    if per_inch is None or not all(isinstance(r, tuple) and len(r) == 2 and r[1] for r in ratios):
        return None
    x, y = (r[0] / r[1] for r in ratios)
    return density(x, y, per_inch)


def _kept(page: Any) -> tuple[str, ...]:
    names = []
    if any(t in page.tags for t in _GEO):
        names.append("the GeoTIFF tags")
    if any(t in page.tags for t in _IMAGEJ):
        names.append("the ImageJ metadata")
    others = [t.code for t in page.tags if t.code not in (*_STRUCTURE, *SHARED_TAGS, *_GEO, *_IMAGEJ, 305)]
    return (*names, f"{len(others)} further TIFF tags") if others else tuple(names)


def _losses(page: Any) -> list[str]:
    found = [name for tag, name in ((34665, "Exif data"), (34853, "place (GPS)")) if tag in page.tags]
    found += ["sub-pictures"] * (330 in page.tags and not page.is_ome)
    return [f"not kept from the TIFF: {', '.join(found)}"] if found else []
