"""Many pictures, one after the other: what the commands that restore pictures have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import typer
from torch import Tensor

from icgn.cli.levels import check_tolerance
from icgn.cli.models import ModelFor, find_device, find_models
from icgn.cli.outcome import Outcome, Restored, figure, row
from icgn.cli.screen import console, naming, progress, reason, refuse, say
from icgn.cli.tables import print_table
from icgn.datasets import Job, Picture, depth, plan, prepare_folders, read_picture, write_picture
from icgn.pictures.denoise import PictureSolution
from icgn.solvers import Status

Work = Callable[[Job], Outcome]
"""Reads and restores one picture; writes nothing."""


@dataclass(frozen=True)
class Request:
    """What the commands are asked: files, model, accuracy and device, as they stand on the command line."""

    inputs: Sequence[Path]
    output: Path
    reference: Path | None
    compare: Path | None
    model: str | None
    tol: float
    device: str | None

    def jobs(self) -> list[Job]:
        """Match inputs with outputs and references: :func:`icgn.datasets.plan`."""
        return plan(self.inputs, self.output, self.reference, self.compare)


def restore_all(
    request: Request,
    prepare: Callable[[ModelFor, torch.device], Work],
    verb: str,
    label: str,
    jobs: Callable[[], list[Job]] | None = None,
) -> None:
    """Restore pictures one after the other, write them and print their table.

    Parameters
    ----------
    request : Request
        what to do.
    prepare : callable
        gives the work, from models and the device; a ``ValueError`` or ``OSError`` of it ends the command.
    verb : str
        of the progress bar.
    label : str
        what the pictures are before.
    jobs : callable, optional
        decides which file goes where; default :meth:`Request.jobs`.

    Raises
    ------
    typer.Exit
        2 if the command cannot be carried out as given, 1 if a picture failed.
    """
    try:
        check_tolerance("--tol", request.tol, "1e-4: intensities, white being 1")
        todo = (jobs or request.jobs)()
        device = find_device(request.device)
        work = prepare(find_models(request.model, device), device)
        prepare_folders([job.target for job in todo] + ([request.compare] if request.compare else []))
    except (ValueError, OSError) as error:
        refuse(str(error))
    rows = []  # of text: the pictures of a folder need not fit in memory
    for job in progress(todo, verb, lambda job: job.source.name):
        try:
            rows.append(row(_finish(work(job), job, request.compare)))
        # A torch device out of memory is a RuntimeError; the other pictures may be smaller.
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            say("error", naming(job.source, reason(error)))
    if rows:
        print_table(rows, request.reference is not None, label)
        written = todo[0].target if len(todo) == 1 else request.output
        console().print(f"Restored: {written}", soft_wrap=True, markup=False)
    if len(rows) < len(todo):
        say("error", f"{len(todo) - len(rows)} of {len(todo)} pictures failed")
        raise typer.Exit(1)


def read_pair(job: Job) -> tuple[Picture, Picture | None]:
    """Read the picture to restore and the clean one, if there is one.

    Raises
    ------
    ValueError
        if one cannot be read, or their sizes differ.
    """
    measured = read_picture(job.source)
    return measured, read_reference(job, measured.pixels)


def read_reference(job: Job, like: Tensor) -> Picture | None:
    """Read the clean picture of a job, if there is one; ``ValueError`` unless it has the shape of `like` (C, H, W).

    Gray that the file stores as colour serves as colour too.
    """
    if job.reference is None:
        return None
    clean = read_picture(job.reference)
    if clean.as_rgb and len(like) == 3:
        clean = replace(clean, pixels=clean.pixels.expand(3, -1, -1))
    if clean.pixels.shape != like.shape:
        sizes = [" x ".join(map(str, p.shape)) for p in (clean.pixels, like)]
        raise ValueError(f"{job.reference}: got {sizes[0]} (channels, height, width), expected {sizes[1]}")
    return clean


def check_not_overwritten(jobs: Sequence[Job], compare: Path | None, read: Path) -> None:
    """Raise ``ValueError`` if a file that is read would be written to."""
    for written in [job.target for job in jobs] + ([compare] if compare else []):
        same = os.path.realpath(written) == os.path.realpath(read)
        if same or (written.exists() and read.exists() and written.samefile(read)):
            raise ValueError(f"{written}: would overwrite a file that is read, expected another file or folder")


def restored(like: Picture, result: PictureSolution, sigma: float, iterations: int, seconds: float) -> Restored:
    """Put a solution into a picture that keeps depth, alpha, profile and Exif block of `like`."""
    return Restored(
        picture=replace(like, pixels=result.image.detach().float().cpu()),
        sigma=sigma,
        iterations=iterations,
        seconds=seconds,
        rms_distance=result.rms_distance,
        relative_gap=result.relative_gap,
        status=str(result.status),
        converged=result.status is Status.CONVERGED,
    )


def _finish(outcome: Outcome, job: Job, compare: Path | None) -> Outcome:
    if not outcome.restored.converged:
        say("warning", naming(job.source, outcome.restored.status))
    if outcome.restored.picture.bits > depth(job.target):
        say("note", f"{job.target}: written with {depth(job.target)} bits, all that this format holds")
    write_picture(job.target, outcome.restored.picture)
    if compare is not None:
        write_picture(compare, figure(outcome))
    return outcome
