"""Checked values: which numbers a recipe may have, and the error for a wrong one."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any


class RecipeError(ValueError):
    """A recipe that cannot be carried out: an unknown key, a missing one, or a value out of range."""


Range = tuple[Callable[[Any], bool], str]
"""Whether a value is allowed, and what is expected."""


def check(values: object, ranges: Mapping[str, Range]) -> None:
    """Raise ``RecipeError`` unless every attribute is in its range."""
    for name, (holds, expected) in ranges.items():
        value = getattr(values, name)
        if not holds(value):
            raise RecipeError(f"{name}: got {value!r}, expected {expected}")


def refuse_unknown(table: Mapping[str, Any], kind: type, what: str) -> None:
    """Raise ``RecipeError``, naming the nearest known key, if `table` has one that is no field of a dataclass."""
    known = [f.name for f in dataclasses.fields(kind)]
    for key in table:
        if key not in known:
            raise RecipeError(f"unknown {what} {key!r}; {suggestion(key, known)}")


def suggestion(word: str, known: list[str]) -> str:
    """Say which known word was probably meant."""
    near = difflib.get_close_matches(word, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number."""
    return is_number(value) and isinstance(value, int)


def one_of(*names: str) -> Range:
    """One of some words."""
    return lambda v: v in names, f"one of {', '.join(map(repr, names))}"


COUNT: Range = (lambda v: is_whole(v) and v >= 1, "a whole number of at least 1")
PART: Range = (lambda v: is_number(v) and 0 <= v <= 1, "a number from 0 to 1")
POSITIVE: Range = (lambda v: is_number(v) and v > 0, "a positive number")
