"""The keys of recipes, of every loss and noise stand in the documents with their defaults."""

from dataclasses import fields
from pathlib import Path

import pytest

from icgn.training.losses.adversarial import Adversarial
from icgn.training.losses.bilevel import Bilevel
from icgn.training.losses.denoising import GradientSteps, ScoreMatching
from icgn.training.losses.likelihood import MaskLikelihood
from icgn.training.noise import NOISES
from icgn.training.recipe import Recipe

TEXT = (Path(__file__).parents[2] / "docs" / "train.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("loss", [Adversarial, Bilevel, GradientSteps, ScoreMatching, MaskLikelihood])
def test_keys_are_documented(loss):
    part = TEXT[TEXT.index("The other keys of `[loss]`") :]
    part = part[part.index(f"| `{loss.name}` |") :].split("\n| `", 1)[0]
    for field in fields(loss):
        shown = f'"{field.default}"' if isinstance(field.default, str) else f"{field.default}"
        assert f"`{field.name} = {shown}`" in part


def test_keys_of_a_recipe_are_documented():
    part = TEXT[TEXT.index("Above the tables stand") : TEXT.index("`[loss]` is one of these")]
    defaults = Recipe(name="x", init="y").to_dict() | {"init": ""}
    for name, value in defaults.items():
        if isinstance(value, dict):  # a table of its own
            assert f"`[{name}]`" in TEXT
        else:
            assert f"`{name}`" in part or f"`{name} = {shown(value)}`" in part, name


def test_kinds_of_noise_are_documented():
    part = TEXT[TEXT.index("`[noise]` has") :].split("\n\n", 1)[0]
    for name, kind in NOISES.items():
        assert f"`{name}`" in part
        assert all(f"`{field.name} = {field.default}`" in part for field in fields(kind))


def shown(value):
    """A value as TOML writes it, levels in gray levels."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(f"{v:g}" for v in value) + "]"
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else f"{value}"
