"""The operator of a recipe, from its table."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import deepinv
import torch
from deepinv.physics.functional import blur

from icgn.compat import keyword_only
from icgn.training.ranges import RecipeError, suggestion


@keyword_only
def make_physics(table: Mapping[str, Any], *, device: str | torch.device = "cpu") -> Any:
    """Make a linear deepinv physics from ``{"type": class of deepinv.physics, ...its arguments}``.

    An argument that is itself a table, ``{function = "gaussian_blur", sigma = [1.6, 1.6]}``, is the value of that
    function of ``deepinv.physics.functional.blur``. An empty table is denoising. The random state of torch is left as
    it is.

    Raises
    ------
    RecipeError
        for an unknown class or function, one that is not linear, or arguments that do not fit.
    """
    arguments = dict(table)
    name = arguments.pop("type", "Denoising")
    kind = _linear_classes().get(name)
    if kind is None:
        raise RecipeError(f"physics: unknown type {name!r}; {suggestion(str(name), sorted(_linear_classes()))}")
    try:
        values = {key: _value(value) for key, value in arguments.items()}
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())), warnings.catch_warnings():
            # deepinv warns of an argument that it does not know, and goes on without.
            warnings.filterwarnings("error", "Arguments .* are passed to .* but are ignored")
            torch.manual_seed(0)
            return kind(**values).to(device)
    except (TypeError, ValueError, RuntimeError, AssertionError, UserWarning) as error:
        raise RecipeError(f"physics: the arguments do not fit {name}: {error}") from error


def _linear_classes() -> dict[str, type]:
    everything = vars(deepinv.physics)
    return {
        name: thing
        for name, thing in everything.items()
        if isinstance(thing, type) and issubclass(thing, deepinv.physics.LinearPhysics)
    }


def _value(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return tuple(value) if isinstance(value, list) else value
    arguments = dict(value)
    name = str(arguments.pop("function", ""))
    functions = [n for n in vars(blur) if n.endswith(("_blur", "_filter"))]
    if name not in functions:
        raise RecipeError(f"physics: unknown function {name!r}; {suggestion(name, functions)}")
    return getattr(blur, name)(**{k: _value(v) for k, v in arguments.items()})
