"""The keys of every loss stand in the documents with their defaults."""

from dataclasses import fields
from pathlib import Path

import pytest

from icgn.training.losses.adversarial import Adversarial
from icgn.training.losses.bilevel import Bilevel
from icgn.training.losses.denoising import GradientSteps, ScoreMatching
from icgn.training.losses.likelihood import MaskLikelihood

TEXT = (Path(__file__).parents[2] / "docs" / "train.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("loss", [Adversarial, Bilevel, GradientSteps, ScoreMatching, MaskLikelihood])
def test_keys_are_documented(loss):
    part = TEXT[TEXT.index("The other keys of `[loss]`") :]
    part = part[part.index(f"| `{loss.name}` |") :].split("\n| `", 1)[0]
    for field in fields(loss):
        shown = f'"{field.default}"' if isinstance(field.default, str) else f"{field.default}"
        assert f"`{field.name} = {shown}`" in part
