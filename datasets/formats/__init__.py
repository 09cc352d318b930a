"""Kinds of file: one small module for each family, all with the contract of :mod:`icgn.datasets.formats.contract`."""

from pathlib import Path

from icgn.datasets.formats.container import PIXEL_LIMIT, Container, Samples
from icgn.datasets.formats.contract import Format, Pages, Reader
from icgn.datasets.formats.fit import Fit, fit
from icgn.datasets.formats.kinds import FORMATS, PICTURES, identify, kind_in_words, named, open_file, split_inner

__all__ = [
    "FORMATS",
    "PICTURES",
    "PIXEL_LIMIT",
    "Container",
    "Fit",
    "Format",
    "Pages",
    "Reader",
    "Samples",
    "decode",
    "fit",
    "identify",
    "kind_in_words",
    "named",
    "open_file",
    "split_inner",
]


def decode(path: Path, pixel_limit: int) -> Samples:
    """Read the samples (H, W, S) of the first page of a file, whose header is tested before a pixel is decoded.

    Raises
    ------
    ValueError, OSError, or whatever a codec raises on broken data
        the messages do not name the file: the caller does.
    """
    reader = open_file(path, axes=None, pixel_limit=pixel_limit)
    try:
        return reader.read(0)
    finally:
        reader.close()
