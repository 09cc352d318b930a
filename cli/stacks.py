"""One file of many pages: restored page by page in bounded memory, and continued where a killed run stopped."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

import icgn
from icgn.cli.outcome import Outcome, Record, joined, mean_quality, outcome_of, quality_in
from icgn.cli.references import reference_range
from icgn.cli.request import Batch
from icgn.cli.units import Unit, told_unit, unit_of, words_of, words_of_values
from icgn.cli.watching import Watch, say_expected
from icgn.datasets import Extent, Job, Page, Stack, StackWriter, create_stack, measure, open_stack
from icgn.pictures import Note, Restored
from icgn.pictures.ranges import UNIT, Range
from icgn.pictures.stacks import Basis, PagedTask, PageTask, Place, joined_values, page_pictures
from icgn.pictures.tasks import missing_of
from icgn.solvers import Status

# Kinds of file that do not name the axes of their arrays, and how many times longer both other axes than the last are
# where it may count pages.
_NAMELESS, _THIN = ("NumPy array", "NumPy archive", "HDF5", "Zarr"), 3
# The largest filters of shipped models.
_FILTER = 13


def is_stack(stack: Stack) -> bool:
    """Whether a file is restored page by page: it has several, or channels that are no gray or colour picture."""
    return len(stack) > 1 or stack.container.channels not in (1, 3)


def is_narrow(stack: Stack) -> bool:
    """Whether pages may be smaller than the filters of a model, which matters not where nothing is to be removed."""
    return min(stack.container.height, stack.container.width) < _FILTER


def restore_stack(batch: Batch, job: Job, stack: Stack, task: PageTask, *, alone: bool) -> None:
    """Restore a stack and write it.

    Parameters
    ----------
    batch : Batch
        the command.
    job : Job
        which file goes where.
    stack : Stack
        the open file.
    task : callable
        the task of each page.
    alone : bool
        whether it is the only file: the bar counts its pages.

    Raises
    ------
    ValueError, OSError, RuntimeError, MemoryError
        if it cannot be read, restored or written.
    KeyboardInterrupt
        if Ctrl-C was pressed; the pages that are done are kept for the next run.
    """
    _refuse_figure(batch, stack)
    file, words = file_range(stack, task)
    unit = unit_of(stack.container, file)
    read = stack.container.describe() + words
    batch.say("read", f"{job.source}: {read}{told_unit(unit)}")
    say_doubtful_axes(batch, job, stack)
    paged = paged_task(batch, job, stack, task, file, unit)
    with Reference(job, stack, file) as reference:
        bases = paged.bases(reference.page if reference.stack is not None else None)
        say_bases(batch, job, stack, unit, bases)
        with create_stack(job.target, stack, range=file, key=key_of(batch, bases, paged)) as writer:
            first = writer.done
            if first:
                batch.say("note", f"{job.target}: goes on with page {first + 1} of {len(stack)}")
            work = _Work(batch, job, paged, bases, unit, reference, alone)
            if first == 0:
                say_expected_of(batch, job, paged, next(iter(bases.values())))
            _pages(work, writer)
            notes = writer.finish() if not writer.finished else writer.notes
    for text in dict.fromkeys(notes):
        batch.say("note", f"{job.target}: {text}")
    work.say_notes()
    found = stack.container
    record = Record(job.source, job.target, read, len(stack), (found.height, found.width), unit, work.outcome())
    batch.done(job, record)


def copy_stack(batch: Batch, job: Job, stack: Stack, *, alone: bool) -> None:
    """Write a stack of which nothing is to be removed: every number as it is, also those that are none.

    Parameters
    ----------
    batch, job, stack, alone
        as for :func:`restore_stack`.

    Raises
    ------
    ValueError, OSError, MemoryError
        if it cannot be read or written.
    KeyboardInterrupt
        if Ctrl-C was pressed.
    """
    _refuse_figure(batch, stack)
    started, pages = time.monotonic(), len(stack)
    extent = None if stack.container.range is not None else measure(stack)
    file = stack.container.range if extent is None else extent.range
    assert file is not None
    read = stack.container.describe() + ("" if extent is None else _words_of_extent(extent))
    batch.say("read", f"{job.source}: {read}")
    found, before = stack.container, []
    if alone:
        batch.bar.restart(pages, 0)
    with Reference(job, stack, file) as reference, create_stack(job.target, stack, range=file, key="copy") as writer:
        for index in range(pages):
            if batch.interrupt.asked:
                raise KeyboardInterrupt
            batch.step(index if alone else index / pages, f"{job.source.name}, page {index + 1} of {pages}")
            page, clean = stack.page(index), reference.pictures(index)
            if clean is not None:
                shown = zip(page_pictures(page, file), clean, strict=True)
                before.append(mean_quality([quality_in(p.pixels, c.pixels, UNIT) for p, c in shown]))
            if index >= writer.done:
                writer.write(page.values, page.alpha)
        notes = writer.finish()
    for text in dict.fromkeys(notes):
        batch.say("note", f"{job.target}: {text}")
    quality, seconds = mean_quality(before), time.monotonic() - started
    outcome = Outcome(0.0, 0.0, "given", 0.0, 0.0, 0, seconds, (), UNIT, (Status.CONVERGED,) * pages, quality, quality)
    unit = unit_of(found, file)
    batch.done(job, Record(job.source, job.target, read, pages, (found.height, found.width), unit, outcome))


def _refuse_figure(batch: Batch, stack: Stack) -> None:
    for option, path in (("--compare", batch.request.compare), ("--uncertainty", batch.request.uncertainty)):
        if path is not None:
            raise ValueError(f"{option}: got a file of {len(stack)} pages, expected one picture; take a page of it")


def _words_of_extent(extent: Extent) -> str:
    return f", {words_of_values(extent.low, extent.high)}"


def file_range(stack: Stack, task: PageTask) -> tuple[Range, str]:
    """The numbers that are the intensities 0 and 1, one pair for all pages, and words for what was measured.

    Raises
    ------
    PictureError
        for damaged pages, or if no pixel has data.
    """
    if stack.container.range is not None:
        return stack.container.range, ""
    extent = measure(stack, missing=lambda index: missing_of(task(index)))
    return extent.range, _words_of_extent(extent)


def say_doubtful_axes(batch: Batch, job: Job, stack: Stack) -> None:
    """Warn where the axes of an array, which does not say them, would make thin pages: pages may lie along the last."""
    found = stack.container
    shape = found.shape
    if found.kind not in _NAMELESS or found.axes[-1] != "X" or len(shape) < 3 or _THIN * shape[-1] > min(shape[-3:-1]):
        return
    batch.say(
        "warning",
        f"{job.source}: its {len(stack)} pages of {found.height} x {found.width} (height x width) are narrow: if pages"
        " lie along the last axis of the array, bring it to the front first (numpy.moveaxis(array, -1, 0))",
    )


def paged_task(batch: Batch, job: Job, stack: Stack, task: PageTask, file: Range, unit: Unit) -> PagedTask:
    """The task with the levels that are typed, which the first page that is not empty explains."""
    request = batch.request
    plain = PagedTask(stack, file, task, batch.models)
    shown = torch.cat([p.pixels.flatten() for i in plain.sampled(0) for p in plain.pictures(i)])
    level = batch.level_for(job, task(0), unit, shown)
    levels: dict[str, Any] = {"sigma": None if request.sigma is None else level("sigma", request.sigma), "noise": None}
    if request.noise is not None:
        picture = plain.pictures(plain.sampled(0)[0])[0]
        read = replace(picture, container=stack.container)
        levels["noise"] = request.noise.describe(read, lambda value: level("noise", value))
    usual = batch.source.usual_noise if request.noise is None else 0.0
    return PagedTask(stack, file, task, batch.models, range=request.limits(unit), usual_noise=usual, **levels)


def say_bases(batch: Batch, job: Job, stack: Stack, unit: Unit, bases: dict[Place, Basis]) -> None:
    """Say the noise and the range that are taken for all pages, of every channel where there are several."""
    for (channel, part), basis in bases.items():
        name = f"{job.source}" if len(bases) == 1 else f"{job.source}, channel {channel + part + 1}"
        notes = list(basis.notes)
        if basis.range != (0, 1) and batch.request.range in (None, "auto"):
            notes.append(Note("scale", ""))
        for note in notes:
            batch.say("warning" if note.warning else "note", f"{name}: {words_of(note, unit, basis.range)}")


def key_of(batch: Batch, bases: dict[Place, Basis], paged: PagedTask) -> str:
    """All that the pages depend on beside the file."""
    request = batch.request
    told = {
        "version": icgn.__version__,
        "source": batch.source.key,
        "model": request.model,
        "settings": [request.weight, request.tol, request.gap],
        "volume": request.volume,
        "levels": [paged.sigma, str(paged.noise), paged.file],
        "bases": [[*place, b.range, None if b.noise is None else b.noise.value] for place, b in bases.items()],
    }
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


@dataclass(eq=False)
class _Work:
    """The pages of one stack at work."""

    batch: Batch
    job: Job
    paged: PagedTask
    bases: dict[Place, Basis]
    unit: Unit
    reference: Reference
    alone: bool
    outcomes: list[Outcome] = field(default_factory=list)
    notes: dict[str, tuple[str, str, list[int]]] = field(default_factory=dict)

    @property
    def pages(self) -> int:
        return len(self.paged.stack)

    def step(self, index: int, part: float) -> None:
        note = f"{self.job.source.name}, page {index + 1} of {self.pages}"
        self.batch.step(index + part if self.alone else (index + part) / self.pages, note)

    def note(self, restored: Restored, index: int) -> None:
        """Keep what is to be said of a page, each thing once."""
        said = [
            (n.topic, "warning" if n.warning else "note", words_of(n, self.unit, restored.range))
            for n in restored.notes
        ]
        if not restored.converged:
            said.append(("status", "warning", str(restored.status)))
        for topic, kind, words in said:
            self.notes.setdefault(topic, (kind, words, []))[2].append(index + 1)

    def say_notes(self) -> None:
        """Say what is to be said of the pages."""
        for kind, words, pages in self.notes.values():
            numbers = sorted(set(pages))
            name = f"page {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} of {self.pages} pages"
            some = (
                "" if len(numbers) == self.pages else f" {name}, e.g. {numbers[0]}:" * (len(numbers) > 1) or f" {name}:"
            )
            self.batch.say(kind, f"{self.job.source}:{some} {words}")

    def outcome(self) -> Outcome:
        """What became of the pages of this run."""
        if self.outcomes:
            return joined(self.outcomes)
        basis = next(iter(self.bases.values()))
        level = basis.noise.value if basis.noise else self.paged.sigma or 0.0
        # All pages were done before.
        return Outcome(level, level, "given", float("inf"), float("inf"), 0, 0.0, (), basis.range, (Status.CONVERGED,))


def _pages(work: _Work, writer: StackWriter) -> None:
    """Restore the pages that are not done."""
    batch, stack = work.batch, work.paged.stack
    if work.alone:
        batch.bar.restart(len(stack), writer.done)
    for index in range(writer.done, len(stack)):
        if batch.interrupt.asked:
            _leave(work, index)
        work.step(index, 0.0)
        page = stack.page(index)
        values, outcome = _page(work, index, page)
        writer.write(values, page.alpha)
        work.outcomes.append(outcome)


def _page(work: _Work, index: int, page: Page) -> tuple[Tensor, Outcome]:
    """Restore one page; returns its numbers and what became of it."""
    batch = work.batch
    clean = work.reference.pictures(index)
    watch = Watch(batch.interrupt, lambda part: work.step(index, part), rare=not batch.bar.shown)
    done = []
    pictures = work.paged.restore(index, page, work.bases, clean=clean, callback=watch, **batch.settings)
    for part, (_, restored) in enumerate(pictures):
        if batch.interrupt.asked and not restored.converged:
            _leave(work, index)
        work.note(restored, index)
        known = restored.picture.nodata is None
        done.append((restored, outcome_of(restored, clean[part].pixels if clean is not None and known else None)))
    values = joined_values([r.picture for r, _ in done], page, work.paged.file)
    return values, joined([o for _, o in done], pages=False)


def _leave(work: _Work, index: int) -> None:
    work.batch.say(
        "note", f"{work.job.target}: {index} of {work.pages} pages are kept; the same command goes on with them"
    )
    raise KeyboardInterrupt


def say_expected_of(batch: Batch, job: Job, paged: PagedTask, basis: Basis, times: int = 1) -> None:
    """Say how long all pages will take, if it is over a minute, by the one in the middle; `times` as long as alone."""
    middle, count = len(paged.stack) // 2, len(paged.stack)
    picture = paged.pictures(middle)
    options: dict[str, Any] = {"noise": basis.noise, "sigma": paged.sigma, "range": basis.range, **batch.settings}
    pages = times * count * len(picture)
    say_expected(job.source, picture[0], paged.task(middle), paged.models, options, pages)


class Reference:
    """The clean pages to compare with, in the unit of the noisy ones; without a file there are none."""

    def __init__(self, job: Job, noisy: Stack, file: Range) -> None:
        self.stack: Stack | None = None
        self._file = file
        if job.reference is None:
            return
        self.stack = stack = open_stack(job.reference)
        sizes = [(len(s), s.container.channels, s.container.height, s.container.width) for s in (stack, noisy)]
        if sizes[0] != sizes[1]:
            stack.close()
            words = [" x ".join(map(str, s)) for s in sizes]
            raise ValueError(f"{job.reference}: got {words[0]} (pages, channels, height, width), expected {words[1]}")
        found = stack.container
        own = found.range if found.range is not None else measure(stack).range
        self._own = reference_range(noisy.container, file, found, own)

    def page(self, index: int) -> Page:
        """A clean page, in the unit of the noisy file."""
        assert self.stack is not None
        values = self.stack[index]
        if self._own == self._file:
            return Page(values)
        intensities = (values.double() - self._own[0]) / (self._own[1] - self._own[0])
        return Page(self._file[0] + intensities * (self._file[1] - self._file[0]))

    def pictures(self, index: int) -> list[Any] | None:
        """The clean pictures of a page; None without a file."""
        return None if self.stack is None else page_pictures(self.page(index), self._file)

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, *_: object) -> None:
        if self.stack is not None:
            self.stack.close()
