"""Every public thing with three parameters or more documents each of them."""

import dataclasses
import enum
import importlib
import inspect
from pathlib import Path

import pytest
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import validate

import icgn

ROOT = Path(icgn.__file__).parent
PARTS = sorted(p.parent.name for p in ROOT.glob("*/__init__.py") if p.parent.name != "tests")


def public():
    """Name and object of all public functions, classes and methods; inherited docstrings count where they stand."""
    found = {}
    for part in PARTS:
        module = importlib.import_module(f"icgn.{part}")
        for name in module.__all__:
            thing = getattr(module, name)
            if not (inspect.isfunction(thing) or inspect.isclass(thing)) or not thing.__module__.startswith("icgn."):
                continue
            found.setdefault(thing, f"icgn.{part}.{name}")
            for method, value in vars(thing).items() if inspect.isclass(thing) else ():
                function = getattr(value, "__func__", value)
                if inspect.isfunction(function) and not method.startswith("_") and function.__doc__:
                    found.setdefault(function, f"icgn.{part}.{name}.{method}")
    return {name: thing for thing, name in found.items()}


def faults(name, thing):
    """What numpydoc says of the parameters; the fields of a dataclass may be documented as its attributes."""
    if inspect.isclass(thing) and issubclass(thing, (enum.Enum, BaseException)):
        return []
    parameters = inspect.signature(thing).parameters.values()
    names = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)} - {"self", "cls"}
    names = {name for name in names if not name.startswith("_")}
    if len(names) < 3:
        return []
    if dataclasses.is_dataclass(thing):
        names -= {n for a in get_doc_object(thing)["Attributes"] for n in a.name.split(", ")}
        if not names:
            return []
    return [words for code, words in validate(name)["errors"] if code in ("PR01", "PR02")]


def test_parameters_are_documented():
    found = {name: wrong for name, thing in public().items() if (wrong := faults(name, thing))}
    assert not found


def complete(x, y, z):
    """Add.

    Parameters
    ----------
    x, y : float
        two numbers.
    z : float
        a third one.
    """


def incomplete(x, y, z):
    """Add.

    Parameters
    ----------
    x, y : float
        two numbers.
    """


def wrong(x, y, z):
    """Add.

    Parameters
    ----------
    x, y, zz : float
        three numbers.
    """


def silent(x, y, z):
    """Add."""


def short(x, y):
    """Add."""


@dataclasses.dataclass
class Three:
    """Three numbers.

    Attributes
    ----------
    x, y, z : float
        the numbers.
    """

    x: float
    y: float
    z: float


@dataclasses.dataclass
class Four(Three):
    """Four numbers.

    Attributes
    ----------
    x, y, z : float
        all but the last.
    """

    t: float


@pytest.mark.parametrize(
    ("thing", "missing"),
    [
        (complete, ""),
        (short, ""),
        (Three, ""),
        (incomplete, "'z'"),
        (wrong, "'z'"),
        (silent, "not"),
        (Four, "'t'"),
    ],
)
def test_what_is_missing_is_found(thing, missing, monkeypatch):
    monkeypatch.setattr(icgn, "made_up", thing, raising=False)
    found = faults("icgn.made_up", thing)
    assert bool(found) == bool(missing) and missing in " ".join(found)
