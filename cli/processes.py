"""Pictures shared among several processes, with one report: that of one process, in the order of the pictures."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icgn.cli.lazy import defer
from icgn.cli.screen import collected, say, warnings_said
from icgn.storage.interrupts import Interrupts

if TYPE_CHECKING:
    from icgn.cli.request import Batch, Request, Source
    from icgn.datasets import Job

Attempt = Callable[["Batch", int, "Job"], None]
"""``attempt(batch, before, job)`` restores a picture, `before` being done; ``KeyboardInterrupt`` for Ctrl-C."""

# Bytes of files from which processes are started without being asked for: each needs seconds to start.
_WORTH = 1 << 21
# Memory that a process may need.
_EACH = 2 << 30
# Seconds between two looks at Ctrl-C, and between two messages of progress.
_LOOK = 0.2


def default_jobs(files: Sequence[Path], threads: int) -> int:
    """Processes for files, of as many as there are threads: one for few or small files, and where memory is short.

    Parameters
    ----------
    files : sequence of Path
        the pictures.
    threads : int
        threads that one process would use.
    """
    if len(files) < threads or sum(f.stat().st_size for f in files if f.is_file()) < _WORTH:
        return 1
    return max(1, min(threads, _available() // _EACH))


def _available() -> int:
    """Memory in bytes that programs can still have; very much where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 1 << 62
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable")), 1 << 62)


@dataclass(frozen=True)
class Work:
    """What every process is told at its start; all of it can be pickled."""

    attempt: Attempt
    request: Request
    prepare: Callable[[], Source]
    settings: dict[str, Any]
    label: str
    threads: int
    shown: bool


@dataclass
class Report:
    """What became of one picture: rows and records of its batch, what was said, and whether Ctrl-C ended it."""

    rows: list[list[str]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    said: list[tuple[str, str]] = field(default_factory=list)
    unfinished: int = 0
    ended: bool = False


def share(
    batch: Batch, todo: Sequence[Job], attempt: Attempt, prepare: Callable[[], Source], jobs: int, threads: int
) -> bool:
    """Restore pictures in several processes, and put what became of them into the batch, in their order.

    A process that is killed costs its picture, which is reported as failed; another process takes its place.

    Parameters
    ----------
    batch : Batch
        of the command; its bar shows all processes together.
    todo : sequence of Job
        the pictures.
    attempt : callable
        ``attempt(batch, before, job)`` restores a picture; a function of a module.
    prepare : callable
        says how pictures are read, in each process anew; it can be pickled.
    jobs, threads : int
        processes, and threads of all of them together.

    Returns
    -------
    bool
        whether Ctrl-C was pressed: pictures in work are written as far as they are, and no other is begun.
    """
    work = Work(attempt, batch.request, prepare, batch.settings, batch.label, max(1, threads // jobs), batch.bar.shown)
    pool = _Pool(work, jobs)
    try:
        return _shared(pool, batch, todo)
    finally:
        pool.close()


def _shared(pool: _Pool, batch: Batch, todo: Sequence[Job]) -> bool:
    reports: dict[int, Report] = {}
    given, told, ended = 0, 0, False
    try:
        while pool.working or (given < len(todo) and not ended):
            ended = ended or batch.interrupt.asked
            if ended:
                pool.interrupt()
            while not ended and given < len(todo) and pool.give(given, todo[given]):
                given += 1
            for index, report in pool.take().items():
                reports[index] = report or _lost(todo[index])
                ended = ended or reports[index].ended
            while told in reports:
                _tell(batch, reports[told])
                told += 1
            batch.bar.step(len(reports) + pool.parts, pool.note)
    finally:
        # A second Ctrl-C ends it at once: what is known of pictures further on is told all the same.
        for index in sorted(i for i in reports if i >= told):
            _tell(batch, reports[index])
    return ended or batch.interrupt.asked


def _tell(batch: Batch, report: Report) -> None:
    """Say what a process had to say of a picture, and note what became of it."""
    for kind, message in report.said:
        say(kind, message)
    batch.rows += report.rows
    batch.records += report.records
    batch.unfinished += report.unfinished


def _lost(job: Job) -> Report:
    message = f"{job.source}: its process ended before the picture was written; was it killed, for want of memory?"
    record: dict[str, Any] = {
        "file": str(job.source),
        "output": None,
        "status": "failed",
        "error": message,
        "notes": [],
    }
    return Report(records=[record], said=[("error", message)])


class _Pool:
    """Processes that wait for pictures."""

    def __init__(self, work: Work, jobs: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._stop = self._context.Event()
        self._work = work
        self._processes: dict[Connection, Any] = {}
        self._idle: list[Connection] = []
        self._at: dict[Connection, int] = {}
        self._parts: dict[Connection, float] = {}
        self.note = ""
        for _ in range(jobs):
            self._start()

    @property
    def working(self) -> bool:
        """Whether a picture is in work."""
        return bool(self._at)

    @property
    def parts(self) -> float:
        """How much of the pictures in work is done, together."""
        return sum(self._parts.values())

    def give(self, index: int, job: Job) -> bool:
        """Give a picture to an idle process, if there is one."""
        while self._idle:
            connection = self._idle.pop()
            try:
                connection.send((index, job))
            except OSError:  # It has been killed while it waited.
                self._end(connection)
                self._start()
                continue
            self._at[connection] = index
            return True
        return False

    def take(self) -> dict[int, Report | None]:
        """Wait a moment for messages; gives what became of pictures, None where the process was lost."""
        found: dict[int, Report | None] = {}
        for ready in wait(list(self._at), timeout=_LOOK):
            assert isinstance(ready, Connection)
            try:
                message = ready.recv()
            except (EOFError, OSError):
                found[self._at[ready]] = None
                self._end(ready)
                self._start()
                continue
            if isinstance(message, Report):
                found[self._at.pop(ready)] = message
                self._parts.pop(ready, None)
                self._idle.append(ready)
            else:
                self._parts[ready], self.note = message
        return found

    def interrupt(self) -> None:
        """Let the processes stop where they are."""
        self._stop.set()

    def close(self) -> None:
        """End all processes; those at work, after a second Ctrl-C, at once."""
        for connection, process in list(self._processes.items()):
            if connection in self._at:
                process.terminate()
            connection.close()
        for process in self._processes.values():
            process.join()

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=serve, args=(theirs, self._stop), daemon=True)
        with _unheard_interrupts():
            process.start()
        # Else this process would hold the other end open, and a killed one would not be noticed.
        theirs.close()
        # Not as an argument: that would be read, with all it imports, before anything can be said about imports.
        ours.send(self._work)
        self._processes[ours] = process
        self._idle.append(ours)

    def _end(self, connection: Connection) -> None:
        self._at.pop(connection, None)
        self._parts.pop(connection, None)
        connection.close()
        self._processes.pop(connection).join()


@contextmanager
def _unheard_interrupts() -> Iterator[None]:
    """Processes that are started within never hear Ctrl-C, also while they load; this one hears it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Asked(Interrupts):
    """Ctrl-C as another process has noticed it."""

    def __init__(self, event: Any) -> None:
        self._event = event

    @property
    def asked(self) -> bool:  # type: ignore[override]
        """Whether Ctrl-C was pressed."""
        return bool(self._event.is_set())


class _Far:
    """The bar of another process: it is told how much of a picture is done."""

    def __init__(self, connection: Connection, shown: bool) -> None:
        self.shown, self._connection, self._said = shown, connection, 0.0

    def step(self, done: float, note: str = "") -> None:
        """Tell that so much of the picture is done."""
        if time.monotonic() - self._said >= _LOOK:
            self._said = time.monotonic()
            self._connection.send((min(done, 1.0), note))


def serve(connection: Connection, event: Any) -> None:
    """Restore pictures as they come, until nobody is there to send them."""
    # A terminal sends Ctrl-C to all processes; what to do about it is said by the first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    defer()
    work: Work = connection.recv()
    import torch

    from icgn.cli.options import find_device
    from icgn.cli.request import Batch
    from icgn.pictures.models import regularizers_by_channels

    torch.set_num_threads(work.threads)
    # What is said of the command as a whole has been said.
    with collected([]):
        models = regularizers_by_channels(name=work.request.model, device=find_device(work.request.device))
        source = work.prepare()
    while True:
        try:
            _, job = connection.recv()
            report = Report()
            bar: Any = _Far(connection, work.shown)
            batch = Batch(work.request, source, models, work.settings, work.label, bar, _Asked(event))
            with collected(report.said), warnings_said():
                try:
                    work.attempt(batch, 0, job)
                except KeyboardInterrupt:
                    report.ended = True
            report.rows, report.records, report.unfinished = batch.rows, batch.records, batch.unfinished
            connection.send(report)
        except (EOFError, OSError):  # The first process has ended, or was killed.
            os._exit(0)
