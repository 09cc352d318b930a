"""Many pictures, one by one or shared among processes: the common part of the commands that restore pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
import typer

from icgn.cli.options import as_option, find_device
from icgn.cli.processes import default_jobs, share
from icgn.cli.request import Batch, Request, Source
from icgn.cli.screen import Steps, console, naming, quiet, reason, refuse, say
from icgn.cli.single import restore_one
from icgn.cli.stacks import copy_stack, is_narrow, is_stack, restore_stack
from icgn.cli.tables import print_table
from icgn.cli.volumes import restore_volume
from icgn.datasets import Job, open_stack, prepare_folders
from icgn.pictures.models import regularizers_by_channels
from icgn.storage import write_files
from icgn.storage.interrupts import interrupts_deferred


def restore_all(
    request: Request,
    prepare: Callable[[], Source],
    verb: str,
    label: str,
    read: Callable[[], Sequence[Path]] = tuple,
    jobs: Callable[[], list[Job]] | None = None,
) -> None:
    """Restore pictures, write them and print their table.

    Parameters
    ----------
    request : Request
        what to do.
    prepare : callable
        says how pictures are read, in each process anew, so that it can be pickled; a ``ValueError`` or ``OSError`` of
        it ends the command.
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
    with quiet(request.quiet):
        try:
            settings = request.settings(zero=verb == "denoising")
            todo = (jobs or request.jobs)()
            request.check_gray(todo)
            for path in read():
                check_not_overwritten(todo, request.beside, path)
            request, todo = _share_of_process(request, todo)
            _check_json(request, todo, read())
            models = regularizers_by_channels(name=request.model, device=find_device(request.device))
            source = prepare()
            for job in todo:
                check_not_overwritten([], request.beside, job.source)
            prepare_folders([job.target for job in todo] + request.beside)
        except (ValueError, OSError) as error:
            refuse(as_option(str(error)))
        with interrupts_deferred() as interrupt:
            bar = Steps(transient=True)
            batch = Batch(request, source, models, settings, label, bar, interrupt)
            try:
                _work(batch, todo, verb, _processes(request, todo), prepare)
            finally:
                _wait_for_others()


def _launched() -> tuple[int, int]:
    """The number of this process among those of a launcher, and how many these are."""
    return int(os.environ.get("RANK") or "0"), int(os.environ.get("WORLD_SIZE") or "1")


def _share_of_process(request: Request, todo: list[Job]) -> tuple[Request, list[Job]]:
    """What falls to this process of those that ``torchrun`` or another launcher started, told by the environment.

    Of N processes number k takes the pictures k, k + N, ... Each has a file for ``--json`` of its own, ``NAME.k.json``.
    """
    rank, count = _launched()
    if count <= 1:
        return request, todo
    own, place = todo[rank::count], request.json
    say("note", f"process {rank + 1} of {count}: {len(own)} of {len(todo)} pictures")
    if place is not None and str(place) != "-":
        request = replace(request, json=place.with_suffix(f".{rank}{place.suffix}"))
    return request, own


def _wait_for_others() -> None:
    """Wait until all processes of a launcher are done: it ends them all when one ends with an error."""
    if _launched()[1] <= 1 or "MASTER_ADDR" not in os.environ:
        return
    torch.distributed.init_process_group("gloo", timeout=timedelta(days=30))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def check_not_overwritten(jobs: Sequence[Job], beside: Sequence[Path], read: Path) -> None:
    """Raise ``ValueError`` if a file that is read would be written to."""
    for written in (*(job.target for job in jobs), *beside):
        same = os.path.realpath(written) == os.path.realpath(read)
        if same or (written.exists() and read.exists() and written.samefile(read)):
            raise ValueError(f"{written}: would overwrite a file that is read, expected another file or folder")


def _check_json(request: Request, jobs: Sequence[Job], read: Sequence[Path]) -> None:
    place = request.json
    if place is None or str(place) == "-":
        return
    if place.suffix.lower() != ".json":
        raise ValueError(f"--json {place}: got suffix {place.suffix!r}, expected a file called .json, or - for stdout")
    prepare_folders([place])
    for path in (*read, *(job.source for job in jobs)):
        check_not_overwritten([], [place], path)


def _processes(request: Request, todo: Sequence[Job]) -> int:
    """Processes to share the pictures, as asked for, or as many as there are threads where that is worth while."""
    if request.processes is not None:
        return min(request.processes, len(todo))
    if request.volume or find_device(request.device).type != "cpu":
        return 1
    return default_jobs([job.source for job in todo], torch.get_num_threads())


def attempt(batch: Batch, before: int, job: Job, alone: bool = False) -> None:
    """Restore one file, and note what became of it.

    Parameters
    ----------
    batch : Batch
        what is done to all files.
    before : int
        files that are done.
    job : Job
        the file.
    alone : bool
        whether it is the only one.

    Raises
    ------
    KeyboardInterrupt
        if Ctrl-C was pressed; what was reached is written.
    """
    batch.begin(before, job)
    try:
        _restore(batch, job, alone=alone)
    # A torch device out of memory is a RuntimeError; the other pictures may be smaller.
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        batch.failed(job, naming(job.source, as_option(reason(error))))


def _work(batch: Batch, todo: list[Job], verb: str, processes: int, prepare: Callable[[], Source]) -> None:
    """Restore all pictures, and end with their table and the exit code."""
    batch.bar.start(verb, len(todo))
    ended = False
    try:
        if processes > 1:
            ended = share(batch, todo, attempt, prepare, processes, torch.get_num_threads())
        else:
            for i, job in enumerate(todo):
                attempt(batch, i, job, alone=len(todo) == 1)
    except KeyboardInterrupt:
        ended = True
    finally:
        batch.bar.end()
    request, done = batch.request, len(batch.rows)
    _tell_machines(batch)
    if done and not request.quiet and str(request.json) != "-":
        print_table(batch.rows, request.reference is not None, batch.label)
        written = batch.records[-1]["output"] if len(todo) == 1 else request.output
        console().print(f"Restored: {written}", soft_wrap=True, markup=False)
    if ended:
        say("error", f"interrupted: {done - batch.unfinished} of {len(todo)} pictures are written")
        raise typer.Exit(130)
    if done < len(todo):
        say("error", f"{len(todo) - done} of {len(todo)} pictures failed")
        raise typer.Exit(1)


def _tell_machines(batch: Batch) -> None:
    place = batch.request.json
    if place is None:
        return
    text = json.dumps(batch.records, indent=1, allow_nan=False) + "\n"
    if str(place) == "-":
        typer.echo(text, nl=False)
        return
    try:
        write_files({place: text.encode()})
    except OSError as error:
        say("error", f"{place}: cannot be written: {(error.strerror or str(error)).lower()}")
        raise typer.Exit(1) from error


def _restore(batch: Batch, job: Job, alone: bool) -> None:
    """Restore one file, a picture or a stack."""
    if batch.source.pages is not None:
        with open_stack(job.source) as stack:
            if batch.request.sigma == 0 and (is_stack(stack) or is_narrow(stack)):
                copy_stack(batch, job, stack, alone=alone)
                return
            if batch.request.volume:
                restore_volume(batch, job, stack, batch.source.pages(job, stack))
                return
            if is_stack(stack):
                restore_stack(batch, job, stack, batch.source.pages(job, stack), alone=alone)
                return
    restore_one(batch, job)
