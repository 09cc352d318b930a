"""What the code of one kind of file provides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from icgn.datasets.formats.container import Container, Samples


@dataclass(frozen=True)
class Request:
    """How a file is to be opened.

    Attributes
    ----------
    path : Path
        the file, or the folder of a Zarr store.
    inner : str
        place inside the file, empty for the only or first one.
    axes : str or None
        letters of the axes, for arrays, which do not say them.
    pixel_limit : int
        most pixels of a page.
    """

    path: Path
    inner: str
    axes: str | None
    pixel_limit: int


class Reader(Protocol):
    """An open file: the description, and its pages one by one."""

    container: Container

    def read(self, index: int) -> Samples:
        """The stored samples (H, W, S) of a page, upright, in the byte order of the machine."""

    def native(self, index: int) -> Any:
        """What the writer of the same kind keeps with this page."""

    def close(self) -> None:
        """Close the file."""


class Pages(Protocol):
    """The pages to be written: samples (H, W, S) of the type of the container, read again whenever asked for.

    Attributes
    ----------
    target : Path
        the name that the file will have once it is whole.
    """

    target: Path

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Samples: ...
    def __iter__(self) -> Iterator[Samples]: ...
    def native(self, index: int) -> Any:
        """What :meth:`Reader.native` gave for the page, if the file read is of the same kind."""


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes
    ----------
    kind : str
        its name in words.
    suffixes : tuple of str
        of file names, the usual one first.
    recognizes : callable
        whether a file is of this kind, by its first bytes (of what is inside, for gzip) and its path.
    open : callable
        opens a file for reading.
    write : callable or None
        writes a file: path, pages, container; returns notes. None where files of this kind are only read.
    dtypes : tuple of str
        NumPy names of the samples that it holds, the best first.
    many : bool
        whether it holds more than one page.
    channels : tuple of int
        numbers of channels that a pixel may have; empty for any.
    alpha : bool
        whether it can say that a sample is the opacity.
    keeps : frozenset of str
        which of ``icc, exif, dpi, spacing`` it can hold.
    scaled : bool
        whether it keeps a slope and an intercept.
    sized : bool
        whether what it keeps natively is wrong for a picture of another size.
    fresh : bool
        whether it can be written from a file of another kind.
    retypes : bool
        whether a file of this kind keeps all it has when the type of its samples changes.
    full : bool
        whether the largest integer of a type always means white.
    package : str
        import name of the optional package that it needs, empty if none.
    """

    kind: str
    suffixes: tuple[str, ...]
    recognizes: Callable[[bytes, Path], bool]
    open: Callable[[Request], Reader]
    write: Callable[[Path, Pages, Container], tuple[str, ...]] | None
    dtypes: tuple[str, ...]
    many: bool = False
    channels: tuple[int, ...] = (1, 3)
    alpha: bool = False
    keeps: frozenset[str] = frozenset()
    scaled: bool = False
    sized: bool = False
    fresh: bool = True
    retypes: bool = False
    full: bool = False
    package: str = ""


class SinglePage:
    """A reader of files with one page that is decoded at once."""

    def __init__(self, container: Container, samples: Samples) -> None:
        self.container = container
        self._samples = samples

    def read(self, index: int) -> Samples:
        if index:
            raise IndexError(f"page {index}: the file has one page")
        return self._samples

    def native(self, index: int) -> Any:
        return self.container.native

    def close(self) -> None:
        return None
