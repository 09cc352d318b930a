"""Stacks written page by page: whole or not at all, and continued where a killed run stopped."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from icgn.datasets.formats import FORMATS, Container, Fit, Format, Samples, fit, named
from icgn.datasets.formats.container import Limits
from icgn.datasets.formats.kinds import check_installed, split_inner
from icgn.datasets.stack import PictureError, Stack, reason
from icgn.storage.files import draft_stem, drafted

_TRAILER = struct.Struct("<QI")


class StackWriter:
    """Pages on their way into a file; made by :func:`create_stack`.

    Every page is kept at once in a file of pages beside the target, each with its checksum. :meth:`finish` makes the
    file itself of them and puts it in place in one step. After a kill the next writer with the same source, target and
    key finds the whole pages: :attr:`done` says how many, and writing goes on with that one.

    Parameters
    ----------
    target : Path
        the file to be written.
    stack : Stack
        the open file whose pages are written.
    plan : Fit
        its type, scale and metadata as this kind of file holds them.
    key : str
        what the pages depend on beside the source.

    Attributes
    ----------
    container : Container
        of the file that is written.
    notes : tuple of str
        what is lost by writing this kind of file, each to be said once; complete after :meth:`finish`.
    done : int
        pages that are kept.
    """

    def __init__(self, target: Path, stack: Stack, plan: Fit, key: str) -> None:
        self._target, self._stack, self._fit = target, stack, plan
        self.container: Container = plan.container
        self.notes: tuple[str, ...] = (*stack.container.notes, *plan.notes)
        self._format = _format(self.container.kind)
        self._pages = _open_parts(target, stack, plan, key)
        self.finished = False

    @property
    def done(self) -> int:
        """How many pages are kept."""
        return len(self._pages)

    def write(self, values: Tensor, alpha: Tensor | None = None) -> None:
        """Add the next page.

        Parameters
        ----------
        values : Tensor
            (C, H, W) in the unit of the file that was opened; rounded and limited to what its type holds.
        alpha : Tensor, optional
            opacity (1, H, W); needed if and only if the file has one.

        Raises
        ------
        PictureError
            for a page too many, another shape, a missing opacity, NaN in integers, or a disk that is full.
        """
        source = self._stack.container
        expected = (source.channels, source.height, source.width)
        if self.done >= source.pages:
            raise PictureError(f"{self._target}: got page {self.done}, expected {source.pages} pages")
        if tuple(values.shape) != expected or (alpha is None) == source.alpha:
            got = f"{tuple(values.shape)} {'without' if alpha is None else 'with'} opacity"
            wanted = f"{expected} {'with' if source.alpha else 'without'} opacity"
            raise PictureError(f"{self._target}: page {self.done} has shape {got}, expected {wanted}")
        try:
            self._pages.append(self._fit.stored(_last(values), None if alpha is None else _last(alpha)))
        except (OSError, ValueError) as error:
            raise PictureError(f"{self._target}: page {self.done} cannot be written: {reason(error)}") from error

    def finish(self) -> tuple[str, ...]:
        """Make the file of the pages, remove them, and return the notes.

        Raises
        ------
        PictureError
            if pages are missing, or the file cannot be written; the pages are kept then.
        """
        if self.done != self._stack.container.pages:
            raise PictureError(f"{self._target}: got {self.done} pages, expected {self._stack.container.pages}")
        place = split_inner(self._target)[0]
        try:
            with drafted(place) as draft:
                self.notes += save(self._format, draft, self._pages, self.container)
        except Exception as error:  # the libraries raise errors of every type
            raise PictureError(f"{self._target}: cannot be written: {reason(error)}") from error
        self._pages.remove()
        self.finished = True
        return self.notes

    def close(self) -> None:
        """Close the file of pages, which stays for the next run unless the file was finished."""
        self._pages.close()

    def __enter__(self) -> StackWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self.finished and self.done == self._stack.container.pages:
                self.finish()
        finally:
            self.close()


def create_stack(
    path: str | os.PathLike[str], stack: Stack, *, range: Limits | None = None, key: str = ""
) -> StackWriter:
    """Begin a file with the pages of an open one, restored; the suffix says its kind, as it is or another one.

    Parameters
    ----------
    path : path
        the file to be written; without a known suffix it is of the kind that was read.
    stack : Stack
        the open file whose pages, type, scale and metadata it gets; it stays open until the writer is closed.
    range : (float, float), optional
        the numbers that become black and white where the target holds neither the type nor the numbers of the source,
        e.g. :attr:`Extent.range`.
    key : str
        what the pages depend on beside the source, e.g. the options of the run: kept pages of another key are removed.

    Raises
    ------
    PictureError
        where pages or channels would be lost, the kind cannot be written, a package is missing, or another run writes
        to the same file.

    Examples
    --------
    Twice the numbers of every page, which a run that was killed continues::

        with open_stack("in.tif") as stack, create_stack("out.tif", stack) as writer:
            for i in range(writer.done, len(stack)):
                writer.write(2 * stack[i])
    """
    target = Path(path)
    wanted = named(target) or _format(stack.container.kind)
    if os.path.realpath(split_inner(target)[0]) == os.path.realpath(stack.container.path):
        raise PictureError(f"{target}: would overwrite the file that is read, expected another name")
    try:
        check_installed(wanted)
        plan = placed(fit(stack.container, wanted, target, range), target, stack.path)
        return StackWriter(target, stack, plan, key)
    except (OSError, ValueError) as error:
        raise PictureError(f"{target}: cannot be written: {reason(error)}") from error


def placed(plan: Fit, target: Path, source: Path) -> Fit:
    """Put the place inside the file that the name of the target says, if any, into the container.

    Raises
    ------
    ValueError
        where a copy of the file that was read would have the result at another place.
    """
    inner = split_inner(target)[1]
    if not inner:
        return plan
    if plan.container.native is None:
        return replace(plan, container=replace(plan.container, inner=inner.strip("/")))
    if inner.strip("/") not in (split_inner(source)[1].strip("/"), plan.container.inner):
        raise ValueError(f"got the place {inner!r}, expected that of the source, {plan.container.inner!r}, or none")
    return plan


def save(wanted: Format, draft: Path, pages: Any, container: Container) -> tuple[str, ...]:
    """Write pages to a draft; returns notes."""
    assert wanted.write is not None  # fit has tested it
    return wanted.write(draft, pages, container)


def _format(kind: str) -> Format:
    return next(f for f in FORMATS if f.kind == kind)


def _last(values: Tensor) -> Samples:
    """(C, H, W) as (H, W, C)."""
    return np.moveaxis(values.detach().cpu().numpy(), 0, -1)


class _Parts:
    """A file of pages: a line that says of what, then for each page its samples, its number and their checksum."""

    def __init__(self, path: Path, header: str, target: Path, stack: Stack, container: Container) -> None:
        from filelock import FileLock, Timeout

        self.target, self._path, self._stack = target, path, stack
        self._shape = (container.height, container.width, container.samples)
        self._dtype = np.dtype(container.dtype)
        self._size = int(np.prod(self._shape)) * self._dtype.itemsize
        self._same = container.native is not None
        self._lock = FileLock(path.with_suffix(".lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError("another run writes to it, expected to wait for it or another name") from None
        try:
            self._begin = len(header.encode())
            self._file: BinaryIO = self._opened(header.encode())
            self._count = self._whole()
            self._file.seek(self._at(self._count))
            self._file.truncate()
        except BaseException:
            self._unlock()
            raise

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Samples:
        if not 0 <= index < self._count:
            raise IndexError(f"page {index}: got {self._count}")
        self._file.seek(self._at(index))
        return np.frombuffer(self._file.read(self._size), self._dtype).reshape(self._shape)

    def __iter__(self) -> Iterator[Samples]:
        return (self[i] for i in range(self._count))

    def native(self, index: int) -> Any:
        return self._stack.native(index) if self._same else None

    def append(self, samples: Samples) -> None:
        content = np.ascontiguousarray(samples, self._dtype).tobytes()
        self._file.seek(self._at(self._count))
        self._file.write(content + _TRAILER.pack(self._count, zlib.crc32(content)))
        # The system has the data: a kill of the process loses nothing, and the checksum finds the damage of a crash.
        self._file.flush()
        self._count += 1

    def remove(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        empty = self._count == 0
        self._file.close()
        if empty:
            self._path.unlink(missing_ok=True)
        self._unlock()

    def _unlock(self) -> None:
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)

    def _at(self, index: int) -> int:
        return self._begin + index * (self._size + _TRAILER.size)

    def _opened(self, header: bytes) -> BinaryIO:
        if self._path.exists():
            file = self._path.open("r+b")
            if file.read(len(header)) == header:
                return file
            file.close()
        file = self._path.open("w+b")
        file.write(header)
        return file

    def _whole(self) -> int:
        """How many pages from the first one on are whole."""
        count = 0
        while True:
            self._file.seek(self._at(count))
            content, trailer = self._file.read(self._size), self._file.read(_TRAILER.size)
            if len(trailer) < _TRAILER.size or _TRAILER.unpack(trailer) != (count, zlib.crc32(content)):
                return min(count, self._stack.container.pages)
            count += 1


def _open_parts(target: Path, stack: Stack, plan: Fit, key: str) -> _Parts:
    container = plan.container
    place = Path(os.path.realpath(split_inner(target)[0]))
    state = stack.container.path.stat()
    said = {
        "source": [os.path.realpath(stack.container.path), state.st_size, state.st_mtime_ns, stack.container.inner],
        "written": [container.kind, container.dtype, container.bits, container.shape, container.axes],
        "scale": [plan.scale, plan.offset],
        "key": key,
    }
    code = hashlib.sha256(place.name.encode()).hexdigest()[:12]
    header = json.dumps(said, sort_keys=True) + "\n"
    return _Parts(place.with_name(f".{draft_stem(place)}.{code}.pages"), header, target, stack, container)
