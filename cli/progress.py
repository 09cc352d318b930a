"""How far a training or an evaluation is, on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from icgn.cli.screen import console
from icgn.training import Progress, Validation


class Bar(Progress):
    """A bar with the steps done, a note and the time left; messages and validations stand above it.

    Parameters
    ----------
    screen : rich.console.Console, optional
        default standard error.
    transient : bool
        whether the bar vanishes at the end, and is not shown at all where there is no terminal.
    """

    def __init__(self, screen: Console | None = None, *, transient: bool = False) -> None:
        self._screen = console(stderr=True) if screen is None else screen
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )  # fmt: skip
        hidden = transient and not self._screen.is_terminal
        self._bars = Bars(*columns, console=self._screen, transient=transient, disable=hidden)

    def start(self, name: str, total: int, done: int = 0) -> None:
        self._task = self._bars.add_task(name, total=total, completed=done, note="")
        self._bars.start()

    def step(self, done: int, note: str = "") -> None:
        self._bars.update(self._task, completed=done, note=note)

    def validation(self, result: Validation) -> None:
        self.message(str(result))

    def message(self, text: str) -> None:
        self._bars.console.print(text)

    def end(self) -> None:
        self._bars.stop()
