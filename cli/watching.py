"""How far a restoration is, while it runs, and how long it will take, before."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from icgn.cli.screen import duration, say
from icgn.datasets import Picture
from icgn.pictures import Task
from icgn.pictures.expected import expected_seconds
from icgn.pictures.models import ModelFor
from icgn.pictures.progress import Progress
from icgn.solvers import Event
from icgn.storage.interrupts import Interrupts

# Seconds between two looks at the bound, which costs a little.
_LOOK = 0.2
# Works that take longer are announced.
_LONG = 60.0


class Watch:
    """A callback of the solver: reports the part done, and stops when Ctrl-C was pressed.

    Parameters
    ----------
    interrupt : Interrupts
        of the command.
    report : callable
        is given the part done, in [0, 1].
    rare : bool
        whether a look now and then is enough, there being no terminal to show it.
    """

    def __init__(self, interrupt: Interrupts, report: Callable[[float], None], *, rare: bool) -> None:
        self._interrupt, self._report = interrupt, report
        self._every = _LOOK if rare else 0.0
        self._progress = Progress(lambda part, event: None)
        self._stage, self._next = "", 0.0

    def __call__(self, event: Event) -> bool:
        """Take one event of the solver."""
        if event.stage != self._stage or time.monotonic() >= self._next:
            self._progress(event)
            self._stage, self._next = event.stage, time.monotonic() + self._every
            self._report(self._progress.done)
        return self._interrupt.asked


def say_expected(
    source: Path,
    measured: Picture | Tensor,
    task: Task,
    models: ModelFor,
    options: dict[str, Any],
    pages: int = 1,
) -> None:
    """Say how long a restoration will take, if it is over a minute; large pictures are tried on a small part."""
    if not isinstance(measured, Picture):
        return
    seconds = expected_seconds(measured, task, models, pages=pages, **options)
    if seconds is not None and seconds > _LONG:
        say("note", f"{source}: {duration(seconds)} expected")
