"""What the commands for scanners share: files that are written, the table, the object for machines, the end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from rich.table import Table
from rich.text import Text
from torch import Tensor

from icgn.cli.batch import check_not_overwritten
from icgn.cli.options import as_option, find_device
from icgn.cli.screen import Steps, console, quiet, reason, refuse, say, warnings_said
from icgn.cli.watching import Watch
from icgn.cli.writing import marked, write_values
from icgn.datasets import FILE_SUFFIXES, prepare_folders
from icgn.datasets.formats import named
from icgn.pictures.models import regularizers_by_channels
from icgn.regularizers import ConvexRegularizer
from icgn.scanners import Trial
from icgn.solvers import Callback, Solution, Status
from icgn.storage import write_files
from icgn.storage.interrupts import interrupts_deferred


@dataclass
class Scan:
    """One measurement at work: what is read and written, and what was said.

    Attributes
    ----------
    source, output : Path
        the measurement, and the picture.
    json : Path or None
        file for the object, ``-`` for the standard output.
    callback : callable
        for the solver: shows progress, and stops when Ctrl-C was pressed.
    stopped : callable
        whether it was pressed.
    silent : bool
        whether no table is printed.
    notes : list of str
        what was said.
    begun : float
        when, on the clock of :func:`time.monotonic`.
    """

    source: Path
    output: Path
    json: Path | None
    callback: Callback
    stopped: Callable[[], bool]
    silent: bool
    notes: list[str] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def say(self, kind: str, message: str) -> None:
        """Say something about the measurement, and keep it for machines."""
        self.notes.append(message)
        say(kind, f"{self.source}: {message}")

    def target(self, path: Path, solution: Solution) -> Path:
        """Where a picture goes: under another name where the solution was stopped."""
        unfinished = self.stopped() and not solution.converged
        return marked(path) if unfinished else path

    def write(self, path: Path, values: Tensor, white: float) -> None:
        """Write numbers (H, W) as they are where the kind of file holds floats, else levels up to `white`."""
        for words in write_values(path, values, (0.0, white)):
            self.say("note", f"{path}: {words}")

    def end(self, solution: Solution, lines: Sequence[tuple[str, str]], record: dict[str, Any], written: Path) -> None:
        """Print the table or the object, and end with the exit code."""
        if not solution.converged and not self.stopped():
            self.say("warning", str(solution.status[0]))
        stats = solution.stats
        gap = float(solution.certificate.relative_gap[0])
        found = {
            "file": str(self.source),
            "output": str(written),
            **record,
            "weight": float(solution.weight[0]),
            "status": str(solution.status[0]).split(":")[0],
            "converged": solution.converged,
            "relative_gap": gap if gap < float("inf") else None,
            "iterations": int(stats.iterations[0]),
            "seconds": round(time.monotonic() - self.begun, 3),
            "seconds_of_last": round(stats.seconds, 3),
            "notes": self.notes,
        }
        if self.json is not None:
            text = json.dumps([found], indent=1, allow_nan=False) + "\n"
            if str(self.json) == "-":
                typer.echo(text, nl=False)
                return
            write_files({self.json: text.encode()})
        if not self.silent:
            print_lines(
                [*lines, ("proved", proved(solution, time.monotonic() - self.begun)), ("written", str(written))]
            )


@contextmanager
def scanning(
    source: Path, output: Sequence[Path], *, json: Path | None, silent: bool, read: Sequence[Path]
) -> Iterator[Scan]:
    """Check files, watch for Ctrl-C, show progress, and turn errors into messages and exit codes.

    Parameters
    ----------
    source : Path
        the measurement.
    output : sequence of Path
        the picture, and other pictures that are written.
    json : Path or None
        file of the object.
    silent : bool
        say warnings and errors only.
    read : sequence of Path
        further files that are read.

    Raises
    ------
    typer.Exit
        2 if the command cannot be carried out as given, 1 if it failed, 130 if it was interrupted.
    """
    with quiet(silent), interrupts_deferred() as interrupt, warnings_said():
        bar = Steps(transient=True)
        watch = Watch(interrupt, lambda part: bar.step(part, source.name), rare=not bar.shown)
        scan = Scan(source, output[0], json, watch, lambda: interrupt.asked, silent)
        try:
            _check_files(scan, output, read)
            bar.start("reconstructing", 1)
            yield scan
        except (ValueError, TypeError, OSError, ImportError) as error:
            bar.end()
            refuse(as_option(reason(error)))
        except (RuntimeError, MemoryError) as error:  # out of memory, for example
            bar.end()
            say("error", f"{source}: {reason(error)}")
            raise typer.Exit(1) from error
        finally:
            bar.end()
        if interrupt.asked:
            say("error", "interrupted: what was reached is written")
            raise typer.Exit(130)


def gray_regularizer(model: str | None, device: str | None) -> ConvexRegularizer:
    """The regularizer of gray pictures by its name.

    Raises
    ------
    ValueError
        for a model that is not there or takes colour.
    """
    found = regularizers_by_channels(name=model, device=find_device(device))(1)
    if found.channels not in (None, 1):
        raise ValueError(f"--model: got one of {found.channels} channels, expected one for gray pictures")
    return found


def typed_sigma(sigma: float | None) -> float | None:
    """A strength as it is typed, as a part of the range.

    Raises
    ------
    ValueError
        for one that is not between 0 and 255.
    """
    if sigma is not None and not 0 < sigma < 255:
        raise ValueError(f"--sigma: got {sigma:g}, expected a number between 0 and 255, white being 255")
    return None if sigma is None else sigma / 255


def strength_in_words(sigma: float, trials: Sequence[Trial], errors: dict[str, float]) -> str:
    """How the strength was found, and the errors on what was held out for it."""
    words = f"sigma {255 * sigma:.3g} of 255"
    if not trials:
        return f"{words}, given"
    beside = ", ".join(f"{name} {error:.3f}" for name, error in errors.items())
    return f"{words}, the best of {len(trials)} on held-out samples: error over noise: {beside} (1: noise alone)"


def strength_for_machines(sigma: float, trials: Sequence[Trial], errors: dict[str, float]) -> dict[str, Any]:
    """The same as an object."""
    return {
        "sigma": 255 * sigma,
        "held_out": [{"sigma": 255 * t.sigma, "error": t.error} for t in trials],
        "held_out_errors": errors,
    }


def proved(solution: Solution, seconds: float) -> str:
    """What is proved of a picture, in words, with the seconds of all that was computed."""
    gap, ended = float(solution.certificate.relative_gap[0]), str(solution.status[0]).split(":")[0]
    last = f"{int(solution.stats.iterations[0])} steps in {solution.stats.seconds:.1f} s"
    took = f"{last}; {seconds:.1f} s with all before"
    if not gap < float("inf"):
        return f"nothing ({ended}; {took})"
    word = "" if solution.status[0] is Status.CONVERGED else f"{ended}; "
    return f"the objective is within {100 * gap:.2g} % of its minimum ({word}{took})"


def print_lines(lines: Sequence[tuple[str, str]]) -> None:
    """Print names and what is said of each."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in lines:
        table.add_row(name, Text(words))
    console().print(table)


def _check_files(scan: Scan, output: Sequence[Path], read: Sequence[Path]) -> None:
    for path in output:
        if named(path) is None:
            raise ValueError(f"{path}: got suffix {path.suffix!r}, expected one of {', '.join(FILE_SUFFIXES)}")
    place = scan.json
    if place is not None and str(place) != "-":
        if place.suffix.lower() != ".json":
            raise ValueError(f"--json {place}: got suffix {place.suffix!r}, expected .json, or - for stdout")
        output = [*output, place]
    if len({p.absolute() for p in output}) < len(output):
        raise ValueError(f"{output[0]}: would be written twice, expected another name for each file")
    for target in output:
        for path in (scan.source, *read):
            check_not_overwritten([], [target], path)
    prepare_folders(list(output))
