"""Levels as they are typed: in gray levels or in the unit of the file, whichever can be meant."""

import numpy as np
import pytest
import torch

from icgn.cli.units import GRAY_LEVELS, Unit, level_of, unit_of, words_of_values
from icgn.datasets import open_stack


def unit(path, values):
    np.save(path, values)
    with open_stack(path) as stack:
        return unit_of(stack.container, stack.container.range or (0.0, 1.0))


@pytest.mark.parametrize(
    ("kind", "typed", "intensity", "doubt"),
    [
        (np.float32, 15, 15 / 255, ""),
        (np.float32, 0.06, 0.06, "--sigma 0.06 is taken in the unit of the file"),
        (np.float32, 0, 0, ""),
        (np.float32, 0.5, 0.5 / 255, ""),  # no noise of a picture is half of its range
        (np.uint8, 0.06, 0.06 / 255, ""),
        (np.uint16, 0.06, 0.06 / 255, ""),
        (np.uint16, 15, 15 / 255, ""),
        (np.uint16, 200, 200 / 65535, "--sigma 200 is taken in the unit of the file (1 gray level is 257)"),
    ],
)
def test_a_level_is_understood(tmp_path, kind, typed, intensity, doubt):
    pixels = torch.linspace(0, 1, 1000)[None]
    found, said = level_of("--sigma", typed, unit(tmp_path / "a.npy", np.ones((4, 4), kind)), pixels, tight=True)
    assert found == pytest.approx(intensity) and said.startswith(doubt) and bool(said) == bool(doubt)


def test_a_small_level_of_a_dark_picture_stays_in_gray_levels():
    pixels = torch.linspace(0, 0.01, 1000)[None]  # noise of 0.08 gray levels is a thirtieth of all that it varies
    assert level_of("--sigma", 0.08, Unit(GRAY_LEVELS, 255.0, other=1.0), pixels, tight=True) == (0.08 / 255, "")


def test_numbers_are_told_apart():
    assert words_of_values(0.0, 255.0) == "values 0 to 255"
    assert words_of_values(-0.15151, 1.13591) == "values -0.15151 to 1.1359"
    assert words_of_values(999998.6, 1000011.25) == "values 999998.6 to 1000011.25"
    assert words_of_values(7.0, 7.0) == "values 7 to 7"
