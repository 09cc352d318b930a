"""Many pictures, one after the other: the common part of the commands that restore pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import typer
from torch import Tensor

from icgn.cli.options import as_option, check_channels, check_level, check_tolerance, find_device, parse_weight
from icgn.cli.outcome import figure, row
from icgn.cli.screen import Steps, console, naming, reason, refuse, say
from icgn.cli.tables import print_table
from icgn.datasets import Job, Picture, depth, plan, prepare_folders, read_picture, write_picture
from icgn.pictures import Denoise, Note, Restored, Task, measured_level, restore_picture
from icgn.pictures.models import ModelFor, regularizers_by_channels
from icgn.pictures.progress import Progress
from icgn.solvers import Event

Read = Callable[[Job], "tuple[Picture | Tensor, Task]"]
"""Reads a picture or a measurement (C, ...), and what happened to it."""


@dataclass(frozen=True)
class Request:
    """The arguments of a command; levels are in gray levels, None where not given."""

    inputs: Sequence[Path]
    output: Path
    reference: Path | None
    compare: Path | None
    model: str | None
    device: str | None
    weight: str
    tol: float
    gap: float = 1e-2
    sigma: float | None = None
    noise: float | None = None

    def jobs(self) -> list[Job]:
        """Match inputs with outputs and references: :func:`icgn.datasets.plan`."""
        return plan(self.inputs, self.output, reference=self.reference, figure=self.compare)

    def settings(self, zero: bool) -> dict[str, Any]:
        """The numbers as :func:`icgn.pictures.restore_picture` takes them; `zero` says whether sigma may be 0.

        Raises
        ------
        ValueError
            naming the option that is out of range.
        """
        return {
            "tol": check_tolerance("--tol", self.tol, "1e-4: intensities, white being 1"),
            "gap_tol": check_tolerance("--gap", self.gap, "1e-3: of the objective"),
            "sigma": check_level("--sigma", self.sigma, zero),
            "noise": check_level("--noise", self.noise, zero=False),
            "weight": parse_weight(self.weight),
        }


def restore_all(
    request: Request,
    prepare: Callable[[], Read],
    verb: str,
    label: str,
    read: Callable[[], Sequence[Path]] = tuple,
    jobs: Callable[[], list[Job]] | None = None,
) -> None:
    """Restore pictures one after the other, write them and print their table.

    Parameters
    ----------
    request : Request
        what to do.
    prepare : callable
        gives the function that reads a picture; a ``ValueError`` or ``OSError`` of it ends the command.
    verb : str
        of the progress bar.
    label : str
        what the pictures are before.
    read : callable, optional
        gives the files that are read beside the pictures, and may not be written.
    jobs : callable, optional
        decides which file goes where; default :meth:`Request.jobs`.

    Raises
    ------
    typer.Exit
        2 if the command cannot be carried out as given, 1 if a picture failed, 130 if it was interrupted.
    """
    try:
        settings = request.settings(zero=verb == "denoising")
        todo = (jobs or request.jobs)()
        for path in read():
            check_not_overwritten(todo, request.compare, path)
        models = regularizers_by_channels(name=request.model, device=find_device(request.device))
        reader = prepare()
        prepare_folders([job.target for job in todo] + ([request.compare] if request.compare else []))
    except (ValueError, OSError) as error:
        refuse(as_option(str(error)))
    rows = []  # of text: the pictures of a folder need not fit in memory
    bar = Steps(transient=True)
    bar.start(verb, len(todo))
    try:
        for i, job in enumerate(todo):
            bar.step(i, job.source.name)
            callback = Progress(partial(_step, bar, i, job.source.name)) if bar.shown else None
            try:
                rows.append(_restore(job, reader, models, {**settings, "callback": callback}, request.compare, label))
            # A torch device out of memory is a RuntimeError; the other pictures may be smaller.
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                say("error", naming(job.source, as_option(reason(error))))
    except KeyboardInterrupt:
        say("error", f"interrupted: {len(rows)} of {len(todo)} pictures are written")
        raise typer.Exit(130) from None
    finally:
        bar.end()
    if rows:
        print_table(rows, request.reference is not None, label)
        written = todo[0].target if len(todo) == 1 else request.output
        console().print(f"Restored: {written}", soft_wrap=True, markup=False)
    if len(rows) < len(todo):
        say("error", f"{len(todo) - len(rows)} of {len(todo)} pictures failed")
        raise typer.Exit(1)


def check_not_overwritten(jobs: Sequence[Job], compare: Path | None, read: Path) -> None:
    """Raise ``ValueError`` if a file that is read would be written to."""
    for written in [job.target for job in jobs] + ([compare] if compare else []):
        same = os.path.realpath(written) == os.path.realpath(read)
        if same or (written.exists() and read.exists() and written.samefile(read)):
            raise ValueError(f"{written}: would overwrite a file that is read, expected another file or folder")


def say_note(source: Path | str, note: Note) -> None:
    """Say a note about a picture, in gray levels."""
    hint = ""
    if note.topic == "range":  # a level that would be right in intensities
        level, least, most = note.levels
        hint = f"; did you mean {255 * 255 * level:g}?" if level < least <= 255 * level <= most else ""
    say("warning" if note.warning else "note", f"{source}: {note.text(scale=255, unit='gray levels')}{hint}")


def _step(bar: Steps, before: int, name: str, part: float, event: Event) -> None:
    bar.step(before + part, name)


def _restore(
    job: Job, reader: Read, models: ModelFor, settings: dict[str, Any], compare: Path | None, label: str
) -> list[str]:
    """Restore one picture and write it; returns its row of the table."""
    measured, task = reader(job)
    pixels = measured.pixels if isinstance(measured, Picture) else measured
    regularizer = models(3 if len(pixels) == 3 else 1)
    clean = None if job.reference is None else read_picture(job.reference)
    if task.shows_intensities:  # refused before the work, as far as can be
        check_channels(regularizer, len(pixels))
        clean = None if clean is None else _matching(clean, job, pixels)
    if clean is not None and isinstance(task, Denoise) and isinstance(measured, Picture) and settings["sigma"] is None:
        settings = {**settings, "noise": measured_level(measured, clean)}
    restored = restore_picture(measured, task=task, regularizer=regularizer, **settings)
    if clean is not None:
        clean = _matching(clean, job, restored.picture.pixels)
    _write(job, restored, clean, compare, label)
    return row(job.source.name, restored, clean)


def _matching(clean: Picture, job: Job, like: Tensor) -> Picture:
    """The clean picture of a job; ``ValueError`` unless it has the shape of `like` (C, H, W).

    Gray that the file stores as colour serves as colour too.
    """
    if clean.as_rgb and len(like) == 3:
        clean = replace(clean, pixels=clean.pixels.expand(3, -1, -1))
    if clean.pixels.shape != like.shape:
        sizes = [" x ".join(map(str, p.shape)) for p in (clean.pixels, like)]
        raise ValueError(f"{job.reference}: got {sizes[0]} (channels, height, width), expected {sizes[1]}")
    return clean


def _write(job: Job, restored: Restored, clean: Picture | None, compare: Path | None, label: str) -> None:
    for note in restored.notes:
        say_note(job.source, note)
    if not restored.converged:
        say("warning", naming(job.source, str(restored.status)))
    if restored.picture.bits > depth(job.target):
        say("note", f"{job.target}: written with {depth(job.target)} bits, all that this format holds")
    write_picture(job.target, restored.picture)
    if compare is not None:
        write_picture(compare, figure(restored, clean, label))
