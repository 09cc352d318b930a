"""Recipes: everything that defines a training run, as a dataclass and as a TOML file."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from icgn.compat import keyword_only
from icgn.storage.files import write_files
from icgn.training.losses.bilevel import Bilevel
from icgn.training.losses.loss import LOSSES, Loss
from icgn.training.noise import NOISES, TrainingNoise, WhiteNoise
from icgn.training.optimizer import OPTIMIZERS
from icgn.training.ranges import (
    COUNT,
    PART,
    Range,
    RecipeError,
    check,
    is_number,
    is_whole,
    one_of,
    refuse_unknown,
    suggestion,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@keyword_only
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
        name or path of a model to start from; empty starts from the constructor's initial values. Where `model` asks
        for a wider RidgeICGN or ConditionalICGN, the one of `init` is widened; a ConditionalICGN or LatentICGN is
        built upon a RidgeICGN.
    loss : Loss
        one of :data:`LOSSES`; in a file the table ``[loss]`` with its ``type`` and parameters.
    physics : dict
        the operator that patches are measured by, see :func:`~icgn.training.physics.make_physics`; empty: denoising.
    noise : TrainingNoise
        one of :data:`~icgn.training.noise.NOISES`; in a file the table ``[noise]`` with its ``type`` and parameters.
    steps, batch, patch : int
        number of optimization steps, patches per step, side of a patch in pixels.
    sigma : tuple of float
        range of noise levels, root mean squares in intensities; drawn per patch, uniform in the square root.
    learning_rate : dict
        peak rate by prefix of the parameter name, with linear warm-up and cosine decay to `final` of it.
    optimizer : str
        ``adam``, or ``soap``: Adam in the eigenbases of the filters' gradients (Vyas et al. 2024, arXiv:2409.11321),
        with rates ten times as large; the weights of short runs are better by it (docs/decisions.md).
    warmup : float
        part of the steps spent on the warm-up.
    final : float
        last learning rate as a part of the peak.
    average : float
        the model is the mean of the weights over the last steps, each counting this part of the one after it; 0 takes
        the last weights (Polyak and Juditsky 1992).
    fit_weight : bool
        whether, at the end, weight and scale of the regularizer are fitted on the validation pictures; losses that
        leave them open always do. The mean PSNR of pictures is not quite what a mean of squared errors favours.
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
    _: KW_ONLY
    model: dict[str, Any] = field(default_factory=dict)
    init: str = ""
    loss: Loss = field(default_factory=Bilevel)
    physics: dict[str, Any] = field(default_factory=dict)
    noise: TrainingNoise = field(default_factory=WhiteNoise)
    steps: int = 10000
    batch: int = 8
    patch: int = 48
    sigma: tuple[float, float] = (1 / 255, 50 / 255)
    learning_rate: dict[str, float] = field(default_factory=lambda: {"bank": 6e-3, "log_": 5e-2})
    optimizer: str = "adam"
    warmup: float = 0.05
    final: float = 0.01
    average: float = 0.0
    fit_weight: bool = False
    seed: int = 0
    validate_every: int = 500
    validation_sigma: tuple[float, ...] = (5 / 255, 15 / 255, 25 / 255, 50 / 255)

    def __post_init__(self) -> None:
        check(self, _RANGES)
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
        if not Path(path).exists():
            raise FileNotFoundError(f"{path}: no such recipe, expected a TOML file, as those in recipes/ of the source")
        try:
            table = tomllib.loads(Path(path).read_bytes().decode())
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"{path}: not a TOML file: {error}") from error
        return cls.from_dict(table, source=str(path))

    @classmethod
    @keyword_only
    def from_dict(cls, table: dict[str, Any], *, source: str = "recipe") -> Recipe:
        """Recipe from the contents of a TOML file; `source` is named in errors."""
        try:
            refuse_unknown(table, cls, "key")
            if "name" not in table:
                raise RecipeError("name: got none, expected the name of the model to make")
            return cls(**_in_intensities(_with_kinds(table)))
        except RecipeError as error:
            raise RecipeError(f"{source}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Give the contents of the TOML file, noise levels to a millionth of a gray level: see :meth:`from_dict`."""
        table = dataclasses.asdict(self)
        table |= {"loss": self.loss.to_dict(), "noise": self.noise.to_dict()}
        for name in ("sigma", "validation_sigma"):
            table[name] = [round(s * 255, 6) for s in table[name]]
        return table

    def save(self, path: str | Path) -> None:
        """Write the TOML file that :meth:`load` reads; an existing one is replaced at once or not at all.

        Raises
        ------
        ModuleNotFoundError
            without tomli-w (``pip install 'icgn[train]'``).
        OSError
            if it cannot be written.
        """
        try:
            import tomli_w
        except ImportError:
            raise ModuleNotFoundError("Recipe.save needs tomli-w, expected: pip install 'icgn[train]'") from None
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_files({path: tomli_w.dumps(self.to_dict()).encode()})


def differences(made: dict[str, Any], given: dict[str, Any]) -> str:
    """Where the tables of two recipes, or of what they make, differ: given and expected values; empty if nowhere."""
    keys = [key for key in {**made, **given} if made.get(key) != given.get(key)]
    return "; ".join(f"{key}: got {given.get(key)!r}, expected {made.get(key)!r}" for key in keys)


def _with_kinds(table: dict[str, Any]) -> dict[str, Any]:
    """The table with the objects that its tables ``[loss]`` and ``[noise]`` describe."""
    loss = _of_kind(table, "loss", LOSSES, "bilevel")
    return {**table, "loss": loss, "noise": _of_kind(table, "noise", NOISES, "white")}


def _of_kind(table: dict[str, Any], key: str, kinds: Mapping[str, type], default: str) -> Any:
    given = table.get(key, {})
    if not isinstance(given, dict):
        raise RecipeError(f"{key}: got {given!r}, expected a table")
    arguments = dict(given)
    name = arguments.pop("type", default)
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        raise RecipeError(f"unknown type in [{key}] {name!r}; {suggestion(str(name), list(kinds))}")
    refuse_unknown(arguments, kind, f"key in [{key}]")
    return kind(**arguments)


def _in_intensities(table: dict[str, Any]) -> dict[str, Any]:
    table = dict(table)
    for name in ("sigma", "validation_sigma"):
        levels = table.get(name)
        if isinstance(levels, list | tuple) and all(map(is_number, levels)):
            table[name] = tuple(s / 255 for s in levels)
    return table


def _rates(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(is_number(rate) and rate >= 0 for rate in value.values())


def _range(value: Any) -> bool:
    return _levels(value) and len(value) == 2 and bool(value[0] <= value[1]) and value[1] > 0


def _levels(value: Any) -> bool:
    return isinstance(value, tuple) and all(is_number(s) and s >= 0 for s in value)


_RANGES: dict[str, Range] = {
    "name": (
        lambda v: isinstance(v, str) and bool(v) and Path(v).name == v,
        "a name that can be that of a file, such as 'ridge-gray'",
    ),
    "model": (lambda v: isinstance(v, dict), "a table with the type of the regularizer and its arguments"),
    "init": (lambda v: isinstance(v, str), "the name or path of a model, or ''"),
    "loss": (lambda v: isinstance(v, Loss), "a loss"),
    "noise": (lambda v: isinstance(v, TrainingNoise), "a kind of noise"),
    "physics": (lambda v: isinstance(v, dict), "a table with the type of the operator and its arguments"),
    **dict.fromkeys(("steps", "batch", "patch", "validate_every"), COUNT),
    **dict.fromkeys(("warmup", "final"), PART),
    "average": (lambda v: is_number(v) and 0 <= v < 1, "a number from 0 to below 1"),
    "fit_weight": (lambda v: isinstance(v, bool), "true or false"),
    "sigma": (_range, "two noise levels >= 0, the lower first, not both 0, here in intensities"),
    "validation_sigma": (
        lambda v: _levels(v) and len(v) > 0 and all(v),
        "one or more positive noise levels, here in intensities",
    ),
    "learning_rate": (_rates, "rates >= 0 by prefix of the parameters' names"),
    "optimizer": one_of(*OPTIMIZERS),
    "seed": (lambda v: is_whole(v) and v >= 0, "a whole number >= 0"),
}
