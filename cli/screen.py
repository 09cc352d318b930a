"""What commands say: messages on stderr, progress, and the end with an exit code."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from icgn.pictures.progress import Progress as Measured

# How torch, numpy and the C++ library put it, the first for the CPU and for devices.
_OUT_OF_MEMORY = ("allocate memory", "out of memory", "not enough memory", "unable to allocate", "bad_alloc")


def console(stderr: bool = False) -> Console:
    """A console on stdout or stderr, at least 120 columns wide where it is no terminal."""
    # A name that the terminal cannot show must not end a run; Python is strict on standard output alone.
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="backslashreplace")
    # Made anew each time: the streams may have been replaced meanwhile.
    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal:
        made.width = max(made.width, 120)
    return made


def say(kind: str, message: str) -> None:
    """Print a message on stderr; its kind is ``error``, ``warning`` or ``note``."""
    style = {"error": "bold red", "warning": "yellow"}.get(kind, "dim")
    console(stderr=True).print(Text.assemble((f"{kind}: ", style), message), soft_wrap=True)


@contextmanager
def warnings_said() -> Iterator[None]:
    """Print the warnings of Python within as messages, without file and line of the code."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: say("warning", str(message))
        yield


def refuse(message: str) -> NoReturn:
    """Print an error and end with exit code 2: the command cannot be carried out as given."""
    say("error", message)
    raise typer.Exit(2)


def reason(error: BaseException) -> str:
    """What went wrong, with a way out where memory was not enough."""
    text = str(error) or type(error).__name__
    if not isinstance(error, MemoryError) and not any(sign in text.lower() for sign in _OUT_OF_MEMORY):
        return text
    return (
        f"out of memory ({text.splitlines()[0]}); cut the picture into overlapping tiles and restore them one by one,"
        " with the same --sigma, or take a smaller model: --model ridge-gray-small"
    )


def naming(path: Path, message: str) -> str:
    """The message, with the path before it unless it names it already."""
    return message if str(path) in message else f"{path}: {message}"


class Bar:
    """The progress of several pictures: on a terminal the name of the one in work, a bar, and the seconds spent."""

    def __init__(self, bar: Progress, verb: str, total: int) -> None:
        self._bar, self._verb, self._done = bar, verb, 0
        self._task = bar.add_task(verb, total=total)

    def name(self, name: str) -> None:
        """Name the picture in work."""
        self._bar.update(self._task, description=f"{self._verb} {name}")

    def advance(self) -> None:
        """Count the picture in work as done."""
        self._done += 1
        self._bar.update(self._task, completed=self._done)

    def callback(self) -> Measured | None:
        """A callback of the solver that moves the bar within the picture in work; None where nobody sees it."""
        if self._bar.disable:
            return None
        from icgn.pictures.progress import Progress as Measured

        return Measured(lambda part, event: self._bar.update(self._task, completed=self._done + part))


@contextmanager
def progress(verb: str, total: int) -> Iterator[Bar]:
    """Show a bar for so many pictures while the context lasts."""
    errors = console(stderr=True)
    several = (MofNCompleteColumn(),) if total > 1 else (TaskProgressColumn(),)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), *several)
    with Progress(*columns, TimeElapsedColumn(), console=errors, transient=True, disable=not errors.is_terminal) as bar:
        yield Bar(bar, verb, total)
