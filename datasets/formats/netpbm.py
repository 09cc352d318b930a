"""PBM, PGM and PPM by netpbmfile, which keeps 16-bit colour."""

from __future__ import annotations

import math
from pathlib import Path

import netpbmfile
import numpy as np

from icgn.datasets.formats.container import Container, check_size
from icgn.datasets.formats.contract import Format, Pages, Request, SinglePage

_MAGIC = (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")


def open_netpbm(request: Request) -> SinglePage:
    """Read one picture; in PBM, where 1 is black, as intensities 0 and 1.

    Raises
    ------
    ValueError
        for several pictures in one file, and for samples above the maximum that the header names.
    """
    with netpbmfile.NetpbmFile(str(request.path)) as file:
        check_size(file.width, file.height, request.pixel_limit)
        bilevel = file.magicnumber in ("P1", "P4")
        plain = file.magicnumber in ("P1", "P2", "P3")
        top = 1 if bilevel else file.maxval
        if not 0 < top < 65536:
            raise ValueError(f"the header says the maximum {top}, expected 1 to 65535")
        row = math.ceil(file.width / 8) if bilevel else file.width * file.depth * (1 if top < 256 else 2)
        surplus = request.path.stat().st_size - file.dataoffset - row * file.height
        if not plain and surplus > 1:
            raise ValueError(f"{surplus} bytes stand behind the picture; save several pictures as pages of a TIFF")
        levels = np.asarray(file.asarray())
        kind = file.magicnumber
    if levels.ndim > 3 or (levels.ndim == 3 and levels.shape[-1] != 3):
        raise ValueError("the file holds several pictures, expected one; save them as pages of a TIFF")
    levels = ~levels if bilevel else levels.astype(np.uint8 if top < 256 else np.uint16)
    if not bilevel and levels.max() > top:
        raise ValueError(f"a sample is {levels.max()}, expected at most {top}, the maximum of the header")
    levels = levels if levels.ndim == 3 else levels[..., None]
    many = levels.shape[-1] > 1
    container = Container(
        kind="PNM",
        dtype=levels.dtype.name,
        shape=levels.shape if many else levels.shape[:2],
        axes="YXS" if many else "YX",
        bits=1 if bilevel else math.ceil(math.log2(top + 1)),
        top=0 if bilevel or math.log2(top + 1).is_integer() else top,
        flavour="PBM" if bilevel else "PPM" if many else "PGM",
        native=kind,
    )
    return SinglePage(container, levels)


def write_netpbm(path: Path, pages: Pages, container: Container) -> tuple[str, ...]:
    """Write the binary kind that fits: PBM for truth values, PGM for gray, PPM for colour."""
    samples = pages[0]
    levels = samples[..., 0] if samples.shape[-1] == 1 else samples
    if container.dtype == "bool":
        netpbmfile.imwrite(path, ~levels, magicnumber="P4", maxval=1)
        return ()
    top = container.top or 2**container.bits - 1
    netpbmfile.imwrite(path, levels, magicnumber="P5" if levels.ndim == 2 else "P6", maxval=top)
    return ()


NETPBM = Format(
    "PNM", (".pnm", ".pgm", ".ppm", ".pbm"), lambda head, path: head[:2] in _MAGIC and head[2:3].isspace(),
    open_netpbm, write_netpbm, ("uint16", "uint8", "bool"), retypes=True,
)  # fmt: skip
