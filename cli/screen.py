"""What commands say: messages on stderr, progress, and the end with an exit code."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

T = TypeVar("T")

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


def progress(items: Sequence[T], verb: str, name: Callable[[T], str]) -> Iterator[T]:
    """The items, on a terminal with the name of the one in work, the seconds spent and, of several, a bar."""
    errors = console(stderr=True)
    several = (BarColumn(), MofNCompleteColumn()) if len(items) > 1 else ()
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), *several, TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task(verb, total=len(items))
        for item in items:
            bar.update(task, description=f"{verb} {name(item)}")
            yield item
            bar.advance(task)
