"""Recipes: everything that defines a training run, as a dataclass and as a TOML file."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


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
    """

    tol: float = 5e-4
    max_iter: int = 40
    cg_tol: float = 1e-2
    cg_iter: int = 12


@dataclass(frozen=True)
class Recipe:
    """A training run.

    Attributes
    ----------
    name : str
        name of the model it makes.
    model : dict
        ``type`` (a class of :mod:`icgn.regularizers`) and its constructor arguments.
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
    """

    name: str
    model: dict[str, Any]
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
        for name in ("steps", "batch", "patch", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
        if not 0 <= self.sigma[0] < self.sigma[1]:
            raise ValueError(f"sigma: got {self.sigma}, expected an increasing pair of noise levels in intensities")

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a TOML file; noise levels there are in 8-bit gray levels, as the literature writes them.

        Raises
        ------
        ValueError
            if the file is not TOML, or has an unknown key (named, with the nearest known one) or a value out of range.
        """
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path}: not a TOML file: {error}") from error
        return cls.from_dict(table, str(path))

    @classmethod
    def from_dict(cls, table: dict[str, Any], source: str = "recipe") -> Recipe:
        """Recipe from the contents of a TOML file; `source` is named in errors."""
        table = dict(table)
        _refuse_unknown(table, cls, source)
        missing = {"name", "model"} - set(table)
        if missing:
            raise ValueError(f"{source}: missing {', '.join(sorted(missing))}")
        if "loss" in table:
            loss = dict(table["loss"])
            _refuse_unknown(loss, Bilevel, f"{source}, [loss]")
            table["loss"] = Bilevel(**loss)
        for name in ("sigma", "validation_sigma"):
            if name in table:
                table[name] = tuple(float(s) / 255 for s in table[name])
        return cls(**table)

    def to_dict(self) -> dict[str, Any]:
        """The contents of the TOML file: the inverse of :meth:`from_dict`."""
        table = dataclasses.asdict(self)
        for name in ("sigma", "validation_sigma"):
            table[name] = [round(s * 255, 6) for s in table[name]]
        return table


def _refuse_unknown(table: dict[str, Any], kind: type, source: str) -> None:
    known = [f.name for f in dataclasses.fields(kind)]
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
            raise ValueError(f"{source}: unknown key {key!r}{hint}")
