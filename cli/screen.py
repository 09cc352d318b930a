"""Output of the commands: messages on stderr, progress, and the end with an exit code."""

from __future__ import annotations

import io
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
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


# Whether notes are left out.
_QUIET: ContextVar[bool] = ContextVar("icgn_quiet", default=False)
# Seconds between two lines of progress where there is no terminal.
_EVERY = 10.0


# Where messages go instead of the screen.
_HEARD: ContextVar[list[tuple[str, str]] | None] = ContextVar("icgn_heard", default=None)


@contextmanager
def collected(messages: list[tuple[str, str]]) -> Iterator[None]:
    """Put kind and text of all messages within into a list instead of the screen; notes too, whatever is left out."""
    token = _HEARD.set(messages)
    try:
        yield
    finally:
        _HEARD.reset(token)


@contextmanager
def quiet(on: bool) -> Iterator[None]:
    """Say nothing but warnings and errors within, and show no progress."""
    token = _QUIET.set(on)
    try:
        yield
    finally:
        _QUIET.reset(token)


def say(kind: str, message: str) -> None:
    """Print a message on stderr; its kind is ``error``, ``warning``, or ``note`` and others that may be left out."""
    heard = _HEARD.get()
    if heard is not None:
        heard.append((kind, message))
        return
    if _QUIET.get() and kind not in ("error", "warning"):
        return
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
        whether the bar vanishes at the end; where there is no terminal a line every ten seconds stands for it.
    """

    def __init__(self, screen: Console | None = None, *, transient: bool = False) -> None:
        self._screen = console(stderr=True) if screen is None else screen
        self.shown = (not transient or self._screen.is_terminal) and not _QUIET.get()
        self._name, self._total, self._first = "", 1.0, 0.0
        self._begun = self._said = time.monotonic()
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False), TimeRemainingColumn(elapsed_when_finished=True),
        )  # fmt: skip
        self._bars = Progress(*columns, console=self._screen, transient=transient, disable=not self.shown)

    def start(self, name: str, total: int, done: int = 0) -> None:
        """Show the bar of a work of `total` steps."""
        self._task = self._bars.add_task(name, total=total, completed=done, note="")
        self._bars.start()
        self._name, self._total, self._first = name, float(total), float(done)
        self._begun = self._said = time.monotonic()

    def restart(self, total: int, done: int = 0) -> None:
        """Count other steps from now on: the pages of the only stack."""
        self._bars.update(self._task, total=total, completed=done)
        self._total, self._first, self._begun = float(total), float(done), time.monotonic()

    def step(self, done: float, note: str = "") -> None:
        """Show that so many steps are done, the part of the one in work included."""
        if self.shown:
            self._bars.update(self._task, completed=done, note=note)
        elif time.monotonic() - self._said >= _EVERY:
            self._said = time.monotonic()
            say("progress", f"{self._name} {note}: {self._percent(done)}")

    def message(self, text: str) -> None:
        """Print a line above the bar."""
        self._bars.console.print(text)

    def end(self) -> None:
        """Take the bar away."""
        self._bars.stop()

    def _percent(self, done: float) -> str:
        text = f"{100 * done / max(self._total, 1):.0f} %"
        if done <= self._first:
            return text
        left = (time.monotonic() - self._begun) * (self._total - done) / (done - self._first)
        return f"{text}, {duration(left)} left"


def duration(seconds: float) -> str:
    """A time in words: seconds below two minutes, minutes below two hours."""
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min")):
        if seconds < limit:
            return f"about {max(1, round(seconds / unit))} {name}"
    return f"about {seconds / 3600:.1f} h"
