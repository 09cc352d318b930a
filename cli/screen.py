"""Output of the commands: messages on stderr, progress, and the end with an exit code."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

# Messages of torch (CPU and devices), numpy and the C++ library when memory is not enough.
_OUT_OF_MEMORY = ("allocate memory", "out of memory", "not enough memory", "unable to allocate", "bad_alloc")


def console(stderr: bool = False) -> Console:
    """A console on stdout or stderr, at least 120 columns wide where it is no terminal."""
    # A name that the terminal cannot show must not end a run; Python is strict on standard output alone.
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="backslashreplace")
    # Made anew each time, because the streams may have been replaced.
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
    """The message, with the path before it unless the message contains it."""
    return message if str(path) in message else f"{path}: {message}"


class Steps:
    """A bar with the steps done, a note and the time left; messages are printed above it.

    Parameters
    ----------
    screen : rich.console.Console, optional
        default standard error.
    transient : bool
        whether the bar vanishes at the end, and is not shown at all where there is no terminal.
    """

    def __init__(self, screen: Console | None = None, *, transient: bool = False) -> None:
        self._screen = console(stderr=True) if screen is None else screen
        self.shown = not transient or self._screen.is_terminal
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False), TimeRemainingColumn(elapsed_when_finished=True),
        )  # fmt: skip
        self._bars = Progress(*columns, console=self._screen, transient=transient, disable=not self.shown)

    def start(self, name: str, total: int, done: int = 0) -> None:
        """Show the bar of a work of `total` steps."""
        self._task = self._bars.add_task(name, total=total, completed=done, note="")
        self._bars.start()

    def step(self, done: float, note: str = "") -> None:
        """Show that so many steps are done, the part of the one in work included."""
        self._bars.update(self._task, completed=done, note=note)

    def message(self, text: str) -> None:
        """Print a line above the bar."""
        self._bars.console.print(text)

    def end(self) -> None:
        """Take the bar away."""
        self._bars.stop()
