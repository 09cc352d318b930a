"""Questions to whoever is at the terminal."""

from __future__ import annotations

import sys

import typer


def somebody_there() -> bool:
    """Whether a question can be asked: input and messages are those of a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def agreed(question: str) -> bool:
    """Ask a question on standard error; no answer means no."""
    return typer.confirm(question, default=False, err=True)
