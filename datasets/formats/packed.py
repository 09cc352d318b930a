"""Files inside gzip: their first bytes, and writing them."""

from __future__ import annotations

import gzip
import shutil
import zlib
from pathlib import Path

MAGIC = b"\x1f\x8b"
HEAD = 352
"""Bytes that distinguish the kinds: NIfTI has its mark at 344, DICOM at 128."""


def head_of(path: Path, size: int = HEAD) -> bytes:
    """The first `size` bytes of a file, of what is inside it for gzip; empty for an empty file."""
    with path.open("rb") as stream:
        head = stream.read(size)
    if head.startswith(MAGIC):
        try:
            with gzip.open(path) as inner:
                return inner.read(size)
        except (OSError, EOFError, zlib.error):
            return head
    return head


def is_packed(path: Path) -> bool:
    """Whether a file is compressed by gzip."""
    with path.open("rb") as stream:
        return stream.read(2) == MAGIC


def pack(source: Path, target: Path) -> None:
    """Compress a file."""
    with source.open("rb") as plain, gzip.open(target, "wb", compresslevel=6) as packed:
        shutil.copyfileobj(plain, packed, 2**20)


def unpack(source: Path, target: Path) -> None:
    """Copy a file, decompressed if it is compressed."""
    with gzip.open(source) if is_packed(source) else source.open("rb") as packed, target.open("wb") as plain:
        shutil.copyfileobj(packed, plain, 2**20)
