"""FITS by astropy: one image of a file; its header and the other parts of the file are kept."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from icgn.datasets.formats.arrays import ArrayReader, array_container, store
from icgn.datasets.formats.container import Container
from icgn.datasets.formats.contract import Format, Pages, Request
from icgn.datasets.formats.packed import head_of, is_packed, pack, unpack

_BLOCK = 2880
_TYPES = {8: "uint8", 16: "int16", 32: "int32", 64: "int64", -32: "float32", -64: "float64"}


class _Stored:
    """The stored samples of an image, slice by slice; unsigned integers, which FITS stores with an offset, as such."""

    def __init__(self, section: Any, shape: tuple[int, ...], dtype: str, offset: int) -> None:
        self._section, self.shape, self.dtype, self._offset = section, shape, np.dtype(dtype), offset

    def __getitem__(self, place: Any) -> Any:
        raw = np.asarray(self._section[place])
        raw = raw.astype(np.int64) + self._offset if self._offset else raw
        return raw.astype(self.dtype, copy=False)


def open_fits(request: Request) -> ArrayReader:
    """Open the first image of a file, or the one named or numbered inside (``file.fits:SCI``, ``file.fits:2``).

    Rows are in the order of the file, whose first one is at the bottom by convention.
    """
    with warnings.catch_warnings():
        # Not standard is not broken; what is cut off is found below.
        warnings.simplefilter("ignore")
        opened = _opened(request.path)
        try:
            hdu, number = _image(opened, request)
            _check_whole(hdu, request.path)
            array, slope, intercept = _described(hdu)
            container = array_container("FITS", array, request, flavour="compressed" if _is_compressed(hdu) else "")
        except BaseException:
            opened.close()
            raise
    container = replace(
        container,
        inner=request.inner or str(number),
        slope=slope,
        intercept=intercept,
        kept=("the FITS header",) + (("the other parts of the FITS",) if len(opened) > 1 else ()),
        nodata=_blank(hdu, container, array._offset),
        native=(number, array._offset),
    )
    return ArrayReader(array, container, opened.close)


def _blank(hdu: Any, container: Container, offset: int) -> tuple[float, float] | None:
    """The stored number of blank pixels, which images of integers may have."""
    blank = hdu.header.get("BLANK")
    if not isinstance(blank, int) or container.dtype[0] not in "ui":
        return None
    return float(blank + offset), float(blank + offset)


def _opened(path: Path) -> Any:
    """The open file; ``ValueError`` with what to do where astropy finds no whole header."""
    from astropy.io import fits

    try:
        return fits.open(path, memmap=False, lazy_load_hdus=False, do_not_scale_image_data=True)
    except OSError as error:
        if error.errno is not None:  # of the system, not of the file
            raise
        head = head_of(path, _BLOCK)
        cards = {head[at : at + 8].strip() for at in range(0, len(head), 80)}
        missing = ", no ".join(name for name in ("BITPIX", "NAXIS", "END") if name.encode() not in cards)
        found = f"no {missing} in its first {len(head)} bytes" if missing else "its cards cannot be read"
        found = f"it ends after {len(head)} of {_BLOCK} bytes" if len(head) < _BLOCK else found
        raise ValueError(
            f"a FITS file with a damaged header ({found}), so that nothing says where the picture is:"
            " copy or download it again, or write it again with the program that made it"
        ) from error


def _check_whole(hdu: Any, path: Path) -> None:
    if not is_packed(path) and not _is_compressed(hdu):
        end = hdu.fileinfo()["datLoc"] + hdu.size
        if end > path.stat().st_size:
            raise ValueError("the file is truncated: its header says more data than there are")


def _described(hdu: Any) -> tuple[_Stored, float, float]:
    """The stored samples, slope and intercept."""
    bitpix = int(hdu.header["BITPIX"])
    slope, intercept = float(hdu.header.get("BSCALE", 1)), float(hdu.header.get("BZERO", 0))
    dtype = _TYPES[bitpix]
    offset = {8: -128, 16: 2**15, 32: 2**31, 64: 2**63}.get(bitpix, 0)
    if offset and slope == 1 and intercept == offset:
        unsigned = "int8" if bitpix == 8 else f"u{dtype}"
        return _Stored(hdu.section, hdu.shape, unsigned, offset), 1.0, 0.0
    return _Stored(hdu.section, hdu.shape, dtype, 0), slope, intercept


def _image(opened: Any, request: Request) -> tuple[Any, int]:
    """The image that is asked for, and its number."""
    images = [(i, h) for i, h in enumerate(opened) if h.is_image and len(h.shape) >= 2 and 0 not in h.shape]
    if not request.inner:
        if not images:
            raise ValueError(
                "the FITS holds no image of two axes or more, expected one; tables and spectra are not pictures"
            )
        return images[0][1], images[0][0]
    name = request.inner.strip("/[]")
    for number, hdu in images:
        if name in (str(number), hdu.name):
            return hdu, number
    known = ", ".join(f"{i} {h.name}".strip() for i, h in images)
    raise ValueError(f"the FITS has no image {name!r}, expected one of {known}")


def _is_compressed(hdu: Any) -> bool:
    return type(hdu).__name__ == "CompImageHDU"


def write_fits(path: Path, pages: Pages, container: Container) -> tuple[str, ...]:
    """Write the file that was read with new samples, or a file with one image and a minimal header."""
    from astropy.io import fits

    native = container.native
    plain = path.with_name(f"{path.name}-plain")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if native is not None and container.path.is_file():
                notes = _write_again(plain, pages, container)
            else:
                notes = ()
                _write_new(fits, plain, pages, container)
        if pages.target.suffix.lower() == ".gz":
            pack(plain, path)
        else:
            plain.replace(path)
    finally:
        plain.unlink(missing_ok=True)
    return notes


def _write_again(plain: Path, pages: Pages, container: Container) -> tuple[str, ...]:
    from astropy.io import fits

    number, offset = container.native
    unpack(container.path, plain)
    # A card that is not standard is no reason to lose the result: what astropy can mend of it, it does.
    update = fits.open(plain, mode="update", memmap=True, do_not_scale_image_data=True, output_verify="ignore")
    with update as opened:
        hdu = opened[number]
        sums = "CHECKSUM" in hdu.header or "DATASUM" in hdu.header
        if _is_compressed(hdu):
            data = np.empty(container.shape, container.dtype)
            store(data, pages, container)
            opened[number] = fits.ImageHDU(data, hdu.header, name=hdu.name)
            return ("the compressed image of the FITS is written without compression",)
        store(_Signed(hdu.data, offset) if offset else hdu.data, pages, container)
        if sums:
            hdu.add_checksum()
    return ()


class _Signed:
    """An array of signed integers that stands for unsigned ones, by an offset."""

    def __init__(self, array: Any, offset: int) -> None:
        self._array, self._offset = array, offset

    def __setitem__(self, place: Any, page: Any) -> None:
        self._array[place] = page.astype(np.int64) - self._offset


def _write_new(fits: Any, plain: Path, pages: Pages, container: Container) -> None:
    dtype = np.dtype(container.dtype)
    data: Any = np.lib.format.open_memmap(plain.with_name(f"{plain.name}.npy"), "w+", dtype, container.shape)
    try:
        store(data, pages, container)
        fits.PrimaryHDU(data).writeto(plain, overwrite=True)
    finally:
        del data
        plain.with_name(f"{plain.name}.npy").unlink(missing_ok=True)


FITS = Format(
    "FITS", (".fits", ".fit", ".fts", ".fits.gz"), lambda head, path: head.startswith(b"SIMPLE  ="),
    open_fits, write_fits,
    ("float32", "uint16", "uint8", "int16", "float64", "int32", "uint32", "int8", "int64", "uint64"),
    many=True, channels=(), scaled=True, sized=True, package="astropy",
)  # fmt: skip
