"""Folders that one run at a time may write to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from icgn.storage.files import remove_drafts

T = TypeVar("T")


class Group(Protocol):
    """The interface of the processes of a run that a lock needs: see :class:`icgn.training.Processes`."""

    def from_main(self, make: Callable[[], T]) -> T:
        """What the main process makes, or its error, in all of them."""


@contextmanager
def locked(folder: Path, processes: Group) -> Iterator[None]:
    """Hold the lock of a folder; it ends with the process at the latest, also after ``kill -9``.

    Files that a killed run left half written there are removed.

    Parameters
    ----------
    folder : Path
        that exists.
    processes : Group
        those of the run, which share one lock.

    Raises
    ------
    BlockingIOError
        if another run holds it, in all processes.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")

    def acquire() -> None:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BlockingIOError(
                f"{folder}: another run writes there, expected to wait for it or another folder"
            ) from None
        remove_drafts([folder])

    processes.from_main(acquire)
    try:
        yield
    finally:
        lock.release()
