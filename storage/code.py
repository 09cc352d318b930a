"""Objects out of files of Python code: ``FILE.py:name``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any


def load_object(text: str, argument: str, example: str) -> Any:
    """Import the callable ``FILE.py:name``; the file is executed.

    Parameters
    ----------
    text : str
        the path of the file, a colon, and the name of a function or class in it.
    argument : str
        what it is given as, for messages.
    example : str
        for messages.

    Raises
    ------
    ValueError
        if there is no such file or callable, or the file fails.
    """
    file, _, name = text.rpartition(":")
    if not file or not name:
        raise ValueError(f"{argument}: got {text!r}, expected {example}")
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"{argument} {text}: {path}: no such file")
    spec = importlib.util.spec_from_file_location(f"icgn_{argument}_file", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{argument} {text}: got suffix {path.suffix!r}, expected .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the file raises
        raise ValueError(f"{argument} {text}: cannot be imported: {first_line(error)}") from error
    found = getattr(module, name, None)
    if not callable(found):
        own = {n: v for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__}
        known = [n for n, v in own.items() if callable(v) and not n.startswith("_")]
        raise ValueError(f"{argument} {text}: no function {name!r}, expected one of {', '.join(known) or 'some'}")
    return found


def first_line(error: BaseException) -> str:
    """The type of an error and the first line of its message."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
