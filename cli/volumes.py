"""One stack restored as a volume: one joint problem, one noise level, one certificate."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from icgn.cli.outcome import Outcome, Record, mean_quality, quality_in
from icgn.cli.request import Batch
from icgn.cli.screen import naming
from icgn.cli.stacks import Reference, file_range, key_of, paged_task, say_bases, say_doubtful_axes, say_expected_of
from icgn.cli.units import told_unit, unit_of, words_of
from icgn.cli.watching import Watch
from icgn.cli.writing import marked
from icgn.datasets import Job, Stack, StackWriter, create_stack
from icgn.pictures.stacks import Basis, PagedTask, PageTask, joined_values
from icgn.pictures.volumes import check_volume, read_volume, solve_volume, spacing_of, task_of
from icgn.regularizers.volume import direction_weights
from icgn.solvers import Solution


def restore_volume(batch: Batch, job: Job, stack: Stack, task: PageTask) -> None:
    """Restore the pages of a stack as the slices of one volume, and write them.

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

    Raises
    ------
    ValueError, OSError, RuntimeError, MemoryError
        if it is no volume, or cannot be read, restored or written.
    KeyboardInterrupt
        if Ctrl-C was pressed: what was reached is written, under another name.
    """
    for option, path in (("--compare", batch.request.compare), ("--uncertainty", batch.request.uncertainty)):
        if path is not None:
            raise ValueError(f"{option}: got a volume, expected one picture; take a page of it")
    check_volume(stack)
    file, words = file_range(stack, task)
    unit = unit_of(stack.container, file)
    read = stack.container.describe() + words
    batch.say("read", f"{job.source}: {read}{told_unit(unit)}")
    say_doubtful_axes(batch, job, stack)
    paged = paged_task(batch, job, stack, task, file, unit)
    volume = read_volume(paged)
    with Reference(job, stack, file) as reference:
        bases = paged.bases(reference.page if reference.stack is not None else None)
        say_bases(batch, job, stack, unit, bases)
        _say_spacing(batch, job, stack)
        basis, key = next(iter(bases.values())), key_of(batch, bases, paged)
        clean = _clean(reference, len(stack))
        with create_stack(job.target, stack, range=file, key=key) as writer:
            say_expected_of(batch, job, paged, basis, times=3)
            solution, sigma = _solved(batch, job, paged, volume, basis, clean)
            stopped = batch.interrupt.asked and not solution.converged
            restored = solution.x[0].detach().float().cpu()
            notes = () if stopped else _write(writer, paged, restored)
    target = job.target
    if stopped:
        target = marked(job.target)
        with create_stack(target, stack, range=file, key=f"{key} {time.time_ns()}") as writer:
            notes = _write(writer, paged, restored)
        batch.unfinished += 1
        batch.say("warning", f"{target}: what was reached when Ctrl-C was pressed, not converged")
    for text in dict.fromkeys(notes):
        batch.say("note", f"{target}: {text}")
    found, outcome = stack.container, _outcome(solution, volume, basis, sigma, clean)
    batch.done(job, Record(job.source, target, read, len(stack), (found.height, found.width), unit, outcome))
    if stopped:
        raise KeyboardInterrupt


def _clean(reference: Reference, pages: int) -> Tensor | None:
    """The clean volume (D, H, W); None without a file."""
    found = [reference.pictures(i) for i in range(pages)]
    return None if found[0] is None else torch.cat([p[0].pixels for p in found if p is not None])


def _say_spacing(batch: Batch, job: Job, stack: Stack) -> None:
    spacing = spacing_of(stack.container)
    if spacing is None or max(spacing) == min(spacing):
        return
    sizes = " x ".join(f"{s:.4g}" for s in spacing)
    parts = ", ".join(f"{w:.2g}" for w in direction_weights(spacing))
    batch.say("note", f"{job.source}: voxels of {sizes} (Z, Y, X): slices across Z, Y, X count {parts}")


def _solved(
    batch: Batch, job: Job, paged: PagedTask, volume: Tensor, basis: Basis, clean: Tensor | None
) -> tuple[Solution, float]:
    """Solve the joint problem, and say what is to be said about it."""
    watch = Watch(batch.interrupt, lambda part: batch.step(part, job.source.name), rare=not batch.bar.shown)
    solution, sigma, notes = solve_volume(
        volume,
        basis,
        task=task_of([paged.task(i) for i in range(len(volume))]),
        models=batch.models,
        sigma=paged.sigma,
        spacing=spacing_of(paged.stack.container),
        clean=clean,
        callback=watch,
        **batch.settings,
    )
    unit = unit_of(paged.stack.container, paged.file)
    for note in notes:
        batch.say("warning" if note.warning else "note", f"{job.source}: {words_of(note, unit, basis.range)}")
    if isinstance(batch.settings["weight"], str):
        batch.say("note", f"{job.source}: weight {float(solution.weight):.3g}, found by {batch.settings['weight']}")
    if not solution.converged and not batch.interrupt.asked:
        batch.say("warning", naming(job.source, str(solution.status[0])))
    return solution, sigma


def _write(writer: StackWriter, paged: PagedTask, restored: Tensor) -> tuple[str, ...]:
    """Write the slices (D, H, W) as the pages of the stack; returns what is to be said about it."""
    for i in range(writer.done, len(paged.stack)):
        page = paged.stack.page(i)
        (before,) = paged.pictures(i, page)
        picture = replace(before, pixels=restored[i : i + 1])
        writer.write(joined_values([picture], page, paged.file), page.alpha)
    return writer.finish() if not writer.finished else writer.notes


def _outcome(solution: Solution, volume: Tensor, basis: Basis, sigma: float, clean: Tensor | None) -> Outcome:
    """What became of the volume; qualities are means over its pages."""
    certificate, restored = solution.certificate, solution.x[0].detach().float().cpu()
    beside = [None] * len(volume) if clean is None else list(clean[:, None])

    def quality_of(values: Tensor) -> Any:
        return mean_quality([quality_in(v[None], c, basis.range) for v, c in zip(values, beside, strict=True)])

    return Outcome(
        sigma=sigma,
        noise=sigma if basis.noise is None else basis.noise.value,
        found="given" if basis.noise is None else basis.noise.found,
        rms_distance=float(certificate.rms_distance),
        relative_gap=float(certificate.relative_gap),
        iterations=int(solution.stats.iterations.max()),
        seconds=solution.stats.seconds,
        weight=tuple(solution.weight.tolist()),
        range=basis.range,
        statuses=solution.status,
        before=quality_of(volume),
        after=quality_of(restored),
    )
