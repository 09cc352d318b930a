"""Pictures of the page: uploads read within bounds, bundled photographs, and pictures as text of the page."""

from __future__ import annotations

import base64
import tempfile
from functools import cache
from pathlib import Path

from icgn.datasets import Picture, PictureError, bundled, read_picture, write_picture
from icgn.datasets.formats import decode

PIXELS = 2_000_000
"""Most pixels of a picture, uploaded or restored: on two cores one of this size takes up to a minute."""
BYTES = 20_000_000
"""Largest file that may be uploaded."""


def read_upload(path: str | Path) -> Picture:
    """Read an uploaded file as :func:`icgn.datasets.read_picture`, within :data:`PIXELS` and :data:`BYTES`.

    Raises
    ------
    PictureError
        naming the file without its folder, also for a picture that is too large, before any pixel is decoded.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise PictureError(f"{path.name}: the upload was lost, please upload it again") from error
    if size > BYTES:
        raise PictureError(f"{path.name}: got {size / 1e6:.1f} MB, expected at most {BYTES / 1e6:g}")
    try:
        # Decoded twice: reading has a limit of its own, much larger.
        decode(path, PIXELS)
        return read_picture(path)
    # On broken data the codecs raise errors of every type.
    except Exception as error:
        reason = str(error).removeprefix(f"{path}: ").split(" (it may be")[0]
        raise PictureError(f"{path.name}: {reason or type(error).__name__}") from error


def check_pixels(name: str, height: int, width: int) -> None:
    """Raise ``ValueError`` for a restored picture of more than :data:`PIXELS` pixels."""
    if height * width > PIXELS:
        raise ValueError(f"{name}: the result would have {width} x {height} pixels, expected at most {PIXELS} in all")


def photographs() -> tuple[str, ...]:
    """Names of the bundled photographs, in gray and in colour, the first being the one to begin with."""
    names = {*bundled(gray=True).names, *bundled().names} - {"camera"}
    return ("camera", *sorted(names))


@cache
def photograph(name: str) -> Picture:
    """The bundled photograph of that name, in colour if it has any."""
    gray = name not in bundled().names
    return Picture(bundled(gray=gray).find(name).image)


def png(picture: Picture) -> bytes:
    """The PNG file of a picture, at its depth and with its profile."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        write_picture(path, picture)
        return path.read_bytes()


def data_url(content: bytes) -> str:
    """A PNG file as the address of an image: it travels with the page, and no file is left to be fetched."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
