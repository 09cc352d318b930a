"""Noise of recipes: drawn as large as asked for, the same for the same seed, described in the table."""

import pytest
import torch

from icgn.datasets import bundled
from icgn.training import Recipe, RecipeError, draw, make_physics
from icgn.training.noise import CameraNoise, CountNoise, WhiteNoise


def recipe(**changes):
    return Recipe("test", init="ridge-color-small", batch=6, patch=32, sigma=(0.05, 0.05), **changes)


def images():
    return [bundled().find("coffee").image[:, :96, :96]]


@pytest.mark.parametrize("noise", [WhiteNoise(), CountNoise(), CountNoise(share=0.5), CameraNoise(white=1.0)])
def test_noise_is_as_large_as_sigma(noise):
    drawn = [draw(images(), recipe(noise=noise), step, make_physics({})) for step in range(8)]
    errors = torch.cat([b.y - b.clean for b in drawn])
    assert float(errors.square().mean().sqrt()) == pytest.approx(0.05, rel=0.1)
    assert torch.allclose(torch.cat([b.sigma for b in drawn]), torch.tensor(0.05))


def test_cameras_ask_for_more_than_their_level():
    batch = draw(images(), recipe(noise=CameraNoise(white=0.0, spread=0.0)), 0, make_physics({}))
    levels = (batch.y - batch.clean).square().mean((1, 2, 3)).sqrt()
    assert (batch.sigma >= levels * 0.99).all() and (batch.sigma > 1.3 * levels).any()


@pytest.mark.parametrize("channels", [1, 3])
def test_cameras_see_gray_scenes_too(channels):
    scenes = [image[:channels] for image in images()]
    first, again = (draw(scenes, recipe(noise=CameraNoise()), 3, make_physics({})) for _ in range(2))
    assert first.y.shape == (6, channels, 32, 32) and torch.equal(first.y, again.y)
    part = draw(scenes, recipe(noise=CameraNoise()), 3, make_physics({}), places=[4])
    assert torch.equal(part.y[0], first.y[4]) and torch.equal(part.clean[0], first.clean[4])


def test_the_table_of_a_recipe(tmp_path):
    table = {"name": "x", "init": "ridge-gray-small", "noise": {"type": "camera", "white": 0.5}}
    made = Recipe.from_dict(table)
    assert made.noise == CameraNoise(white=0.5) and Recipe.from_dict(made.to_dict()) == made
    assert Recipe.from_dict({"name": "x", "init": "ridge-gray-small"}).noise == WhiteNoise()
    for wrong, message in (
        ({"type": "blue"}, r"unknown type in \[noise\] 'blue'"),
        ({"type": "camera", "whit": 1}, "did you mean 'white'"),
        ({"type": "camera", "white": 2}, "white: got 2"),
        ({"type": "poisson-gaussian", "share": 0}, "share: got 0"),
        (3, "noise: got 3, expected a table"),
    ):
        with pytest.raises(RecipeError, match=message):
            Recipe.from_dict({**table, "noise": wrong})
