"""Recipes: everything that defines a training run, as a dataclass and as a TOML file."""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class RecipeError(ValueError):
    """A recipe that cannot be carried out: an unknown key, a missing one, or a value out of range."""


@dataclass(frozen=True)
class Bilevel:
    r"""The bilevel loss: error of the exact minimizer, differentiated implicitly.

    Attributes
    ----------
    tol : float
        RMS distance to the minimizer asked of the inner solver, in intensities.
    max_iter : int
        inner iterations at most.
    cg_tol : float
        relative residual of the linear system of the implicit derivative.
    cg_iter : int
        its conjugate-gradient steps at most.

    Raises
    ------
    RecipeError
        if a value is out of range.
    """

    tol: float = 5e-4
    max_iter: int = 40
    cg_tol: float = 1e-2
    cg_iter: int = 12

    def __post_init__(self) -> None:
        _check(self, _LOSS_RANGES)


@dataclass(frozen=True)
class Recipe:
    """A training run.

    Attributes
    ----------
    name : str
        name of the model it makes, which is also that of its files.
    model : dict
        ``type`` (a class of :mod:`icgn.regularizers`) and its constructor arguments; may be empty if `init` is given.
    init : str
        name or path of a model to start from; empty starts from the constructor's initial values.
    loss : Bilevel
        the loss.
    steps, batch, patch : int
        number of optimization steps, patches per step, side of a patch in pixels.
    sigma : tuple of float
        range of noise levels in intensities; drawn per patch, uniform in the square root.
    learning_rate : dict
        peak rate by prefix of the parameter name, for Adam with linear warm-up and cosine decay to `final` of it.
    warmup : float
        part of the steps spent on the warm-up.
    final : float
        last learning rate as a part of the peak.
    seed : int
        of patches, noise and levels.
    validate_every : int
        steps between two validations.
    validation_sigma : tuple of float
        noise levels of the validation, in intensities.

    Raises
    ------
    RecipeError
        if a value is missing or out of range; the message names it.
    """

    name: str
    model: dict[str, Any] = field(default_factory=dict)
    init: str = ""
    loss: Bilevel = field(default_factory=Bilevel)
    steps: int = 10000
    batch: int = 8
    patch: int = 48
    sigma: tuple[float, float] = (1 / 255, 50 / 255)
    learning_rate: dict[str, float] = field(default_factory=lambda: {"bank": 6e-3, "log_": 5e-2})
    warmup: float = 0.05
    final: float = 0.01
    seed: int = 0
    validate_every: int = 500
    validation_sigma: tuple[float, ...] = (5 / 255, 15 / 255, 25 / 255, 50 / 255)

    def __post_init__(self) -> None:
        _check(self, _RANGES)
        if not self.model and not self.init:
            raise RecipeError("model: got none, expected [model] with its type, or init with a model to start from")

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a TOML file; noise levels there are in 8-bit gray levels, as the literature writes them.

        Raises
        ------
        RecipeError
            if the file is not TOML, or has an unknown key (named, with the nearest known one) or a value out of range.
        OSError
            if it cannot be read.
        """
        try:
            table = tomllib.loads(Path(path).read_bytes().decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: not a TOML file: {error}") from error
        return cls.from_dict(table, str(path))

    @classmethod
    def from_dict(cls, table: dict[str, Any], source: str = "recipe") -> Recipe:
        """Recipe from the contents of a TOML file; `source` is named in errors."""
        try:
            _refuse_unknown(table, cls, "key")
            if "name" not in table:
                raise RecipeError("name: got none, expected the name of the model to make")
            return cls(**_in_intensities(_with_loss(table)))
        except RecipeError as error:
            raise RecipeError(f"{source}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Give the contents of the TOML file: the inverse of :meth:`from_dict`."""
        table = dataclasses.asdict(self)
        for name in ("sigma", "validation_sigma"):
            table[name] = [round(s * 255, 6) for s in table[name]]
        return table


def _with_loss(table: dict[str, Any]) -> dict[str, Any]:
    loss = table.get("loss", {})
    if not isinstance(loss, dict):
        raise RecipeError(f"loss: got {loss!r}, expected a table")
    _refuse_unknown(loss, Bilevel, "key in [loss]")
    return {**table, "loss": Bilevel(**loss)}


def _in_intensities(table: dict[str, Any]) -> dict[str, Any]:
    table = dict(table)
    for name in ("sigma", "validation_sigma"):
        levels = table.get(name)
        if isinstance(levels, list | tuple) and all(map(_number, levels)):
            table[name] = tuple(s / 255 for s in levels)
    return table


def _refuse_unknown(table: dict[str, Any], kind: type, what: str) -> None:
    known = [f.name for f in dataclasses.fields(kind)]
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
            raise RecipeError(f"unknown {what} {key!r}; {hint}")


Range = tuple[Callable[[Any], bool], str]


def _check(values: object, ranges: dict[str, Range]) -> None:
    for name, (holds, expected) in ranges.items():
        value = getattr(values, name)
        if not holds(value):
            raise RecipeError(f"{name}: got {value!r}, expected {expected}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: Any) -> bool:
    return _number(value) and isinstance(value, int) and value >= 1


def _rates(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(_number(rate) and rate > 0 for rate in value.values())


def _range(value: Any) -> bool:
    return _levels(value) and len(value) == 2 and bool(value[0] < value[1])


def _levels(value: Any) -> bool:
    return isinstance(value, tuple) and all(_number(s) and s >= 0 for s in value)


_COUNT: Range = (_count, "a whole number of at least 1")
_PART: Range = (lambda v: _number(v) and 0 <= v <= 1, "a number from 0 to 1")
_POSITIVE: Range = (lambda v: _number(v) and v > 0, "a positive number")

_LOSS_RANGES: dict[str, Range] = {"tol": _POSITIVE, "max_iter": _COUNT, "cg_tol": _POSITIVE, "cg_iter": _COUNT}
_RANGES: dict[str, Range] = {
    "name": (
        lambda v: isinstance(v, str) and bool(v) and Path(v).name == v,
        "a name that can be that of a file, such as 'ridge-gray'",
    ),
    "model": (lambda v: isinstance(v, dict), "a table with the type of the regularizer and its arguments"),
    "init": (lambda v: isinstance(v, str), "the name or path of a model, or ''"),
    "loss": (lambda v: isinstance(v, Bilevel), "the parameters of a loss"),
    **dict.fromkeys(("steps", "batch", "patch", "validate_every"), _COUNT),
    **dict.fromkeys(("warmup", "final"), _PART),
    "sigma": (_range, "two increasing noise levels >= 0, here in intensities"),
    "validation_sigma": (lambda v: _levels(v) and all(v), "positive noise levels, here in intensities"),
    "learning_rate": (_rates, "positive rates by prefix of the parameters' names"),
    "seed": (lambda v: _number(v) and isinstance(v, int) and v >= 0, "a whole number >= 0"),
}
