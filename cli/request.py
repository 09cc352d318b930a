"""What a command is asked to do: its arguments, how its pictures are read, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from icgn.cli.options import check_tolerance, parse_weight
from icgn.cli.outcome import Record, cells
from icgn.cli.screen import Steps, say
from icgn.cli.units import INTENSITIES, Unit, check_typed, has_own_unit, level_of, parse_range
from icgn.datasets import FILE_SUFFIXES, Job, Picture, Stack, left_out, plan
from icgn.datasets.formats import split_inner
from icgn.pictures import Denoise, NoiseWords, Task
from icgn.pictures.models import ModelFor
from icgn.pictures.ranges import RangeOption
from icgn.pictures.stacks import PageTask
from icgn.storage.interrupts import Interrupts


@dataclass(frozen=True)
class Source:
    """How pictures are read, and what happened to them.

    Parameters
    ----------
    read : callable
        reads the picture or the measurement (C, ...) of a job, and its task.
    pages : callable, optional
        ``pages(job, stack)`` gives the tasks of the pages of a stack; None if stacks cannot be restored.
    usual_noise : float
        the noise of pictures where none is given, as a part of their range; 0 to estimate it.
    key : str
        what the results depend on beside the pictures and the options, for runs that are continued.
    """

    read: Callable[[Job], tuple[Picture | Tensor, Task]]
    pages: Callable[[Job, Stack], PageTask] | None = None
    usual_noise: float = 0.0
    key: str = ""


@dataclass(frozen=True)
class Request:
    """The arguments of a command, levels as they are typed; None where not given."""

    inputs: Sequence[Path]
    output: Path
    reference: Path | None
    compare: Path | None
    model: str | None
    device: str | None
    weight: str
    tol: float | None
    gap: float = 1e-2
    sigma: float | None = None
    noise: NoiseWords | None = None
    range: str | None = None
    recursive: bool = False
    volume: bool = False
    quiet: bool = False
    json: Path | None = None
    processes: int | None = None
    uncertainty: Path | None = None

    def jobs(self) -> list[Job]:
        """Match inputs with outputs and references: :func:`icgn.datasets.plan`; folders say what they leave out."""
        found = plan(
            self.inputs,
            self.output,
            reference=self.reference,
            figure=self.compare,
            suffixes=FILE_SUFFIXES,
            recursive=self.recursive,
        )
        if self.uncertainty is not None and len(found) != 1:
            raise ValueError(f"--uncertainty: got {len(found)} pictures, expected one")
        for folder, words in left_out(self.inputs, recursive=self.recursive).items():
            say("note", f"{folder}: {words}")
        return found

    @property
    def beside(self) -> list[Path]:
        """Files that are written beside the results."""
        return [path for path in (self.compare, self.uncertainty) if path is not None]

    def settings(self, zero: bool) -> dict[str, Any]:
        """The numbers as :func:`icgn.pictures.restore_picture` takes them but for levels; `zero`: sigma may be 0.

        Raises
        ------
        ValueError
            naming the option that is out of range.
        """
        check_typed("--sigma", self.sigma, zero)
        parse_range(self.range)
        return {
            "tol": None if self.tol is None else check_tolerance("--tol", self.tol, "1e-4: intensities, white being 1"),
            "gap_tol": check_tolerance("--gap", self.gap, "1e-3: of the objective"),
            "weight": parse_weight(self.weight),
        }

    def check_gray(self, jobs: Sequence[Job]) -> None:
        """Raise ``ValueError`` naming the option for a level above 255 where it would be in gray levels throughout."""
        if self.sigma is not None and self.sigma > 255 and not any(has_own_unit(job.source) for job in jobs):
            INTENSITIES.intensity("--sigma", self.sigma)

    def limits(self, unit: Unit) -> RangeOption:
        """The range in intensities of a file of that unit."""
        given = parse_range(self.range)
        return unit.limits(given) if isinstance(given, tuple) else "auto" if given else None


@dataclass(eq=False)
class Batch:
    """A command at work: what it does to every picture, and what became of those that are done."""

    request: Request
    source: Source
    models: ModelFor
    settings: dict[str, Any]
    label: str
    bar: Steps
    interrupt: Interrupts
    rows: list[list[str]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    before: int = 0
    unfinished: int = 0

    def begin(self, before: int, job: Job) -> None:
        """Begin with the next picture, `before` being done; ``KeyboardInterrupt`` if Ctrl-C was pressed."""
        if self.interrupt.asked:
            raise KeyboardInterrupt
        self.before, self.said = before, []
        self.step(0.0, job.source.name)

    def step(self, part: float, note: str) -> None:
        """Show how much of the picture in work is done."""
        self.bar.step(self.before + part, note)

    def level_for(self, job: Job, task: Task, unit: Unit, pixels: Tensor) -> Callable[[str, float], float]:
        """A function that gives the intensity of a level as it is typed, by the name of its option, and says doubts.

        Parameters
        ----------
        job : Job
            whose source is named.
        task : Task
            what happened to the pictures.
        unit : Unit
            of the file.
        pixels : Tensor
            the pictures, by which levels that cannot be meant are known.
        """

        def level(name: str, value: float) -> float:
            tight = name == "noise" or isinstance(task, Denoise)
            intensity, doubt = level_of(f"--{name}", value, unit, pixels, tight=tight)
            if doubt:
                self.say("warning", f"{job.source}: {doubt}")
            return intensity

        return level

    def say(self, kind: str, message: str) -> None:
        """Say something about the picture in work, and keep it for machines."""
        if kind != "read":  # which has a place of its own
            self.said.append(message)
        say(kind, message)

    def done(self, job: Job, record: Record) -> None:
        """Note what became of a picture: text, because the pictures of a folder need not fit in memory."""
        file, inner = split_inner(job.source)
        name = f"{file.name}:{inner}" if inner else file.name
        self.rows.append(cells(name, record.outcome, record.unit, self.request.reference is not None))
        self.records.append(replace(record, notes=tuple(self.said)).json())

    def failed(self, job: Job, message: str) -> None:
        """Note that a picture could not be restored."""
        say("error", message)
        self.records.append(
            {"file": str(job.source), "output": None, "status": "failed", "error": message, "notes": self.said}
        )
