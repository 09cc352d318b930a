"""Intervals of errors: units, levels between those of the calibration, blocks, and what is refused."""

import math

import pytest
import torch

from icgn.uncertainty import ErrorModel
from icgn.uncertainty.errors import FEATURES, features

FLOAT = torch.float64


def model(**changes):
    g = torch.Generator().manual_seed(0)
    numbers = {
        "coefficients": tuple((0.3 * torch.randn(FEATURES, generator=g)).tolist()),
        "levels": (5 / 255, 25 / 255, 50 / 255),
        "factors": {1: (1.5, 2.0, 3.0), 8: (1.0, 1.2, 1.4)},
        "coverage": 0.9,
        "pictures": 32,
    }
    return ErrorModel(**(numbers | changes))


def pictures(side=24):
    g = torch.Generator().manual_seed(1)
    x = torch.zeros(1, 2, side, side + 3, dtype=FLOAT)
    x[..., 4:12, 6:20] = 0.6
    return x, x + 0.1 * torch.randn(x.shape, generator=g, dtype=FLOAT)


def test_half_widths_follow_the_unit():
    x, y = pictures()
    own = model().half_widths(x, y, 0.1)
    other = model().half_widths(500 * x - 40, 500 * y - 40, 50.0, range=(-40.0, 460.0))
    assert own.shape == x.shape and torch.allclose(500 * own, other, rtol=1e-9)
    turned = model().half_widths(x.mT, y.mT, 0.1)
    assert torch.allclose(own.mT, turned, rtol=1e-12), "turned with the picture"


def test_a_constant_alone_makes_multiples_of_sigma():
    x, y = pictures()
    constant = model(coefficients=(math.log(0.5), *[0.0] * (FEATURES - 1)))
    for level, factor in ((5, 1.5), (25, 2.0), (math.sqrt(125), 1.75), (52, 3.0), (4.9, 1.5)):
        assert torch.allclose(
            constant.half_widths(x, y, level / 255), torch.tensor(factor * 0.5 * level / 255, dtype=FLOAT)
        )
    blocks = constant.half_widths(x, y, 25 / 255, blocks=8)
    assert blocks.shape == (1, 2, 3, 4) and torch.allclose(blocks, torch.tensor(1.2 * 0.5 * 25 / 255, dtype=FLOAT))


def test_features_are_those_of_their_formula():
    x, y = pictures()
    found = features(x, y, 0.2, level=0.05)
    window = x[0, 1, 7:14, 9:16] / 0.2
    assert float(found[0, 1, 10, 12, 2]) == pytest.approx(math.log(float(window.var(correction=0)) + 1e-2) / 2)
    residual = (y - x)[0, 0, 8:13, 10:15] / 0.2
    assert float(found[0, 0, 10, 12, 4]) == pytest.approx(math.log(float(residual.square().mean()) + 1e-2) / 2)
    assert (found[..., 0] == 1).all() and torch.allclose(
        found[..., -1], torch.tensor(math.log(0.05 * 255 / 25), dtype=FLOAT)
    )
    assert found.shape[-1] == FEATURES


def test_the_guarantee_is_that_of_risk_control():
    assert model().guaranteed == pytest.approx(1 - (32 * 0.1 + 1) / 33)
    assert "87.3%" in model().text() and "90%" in model().text()


def test_a_card_holds_one():
    numbers = model()
    errors = {
        "coefficients": list(numbers.coefficients),
        "levels": [5, 25, 50],
        "factors": {"1": [1.5, 2.0, 3.0], "8": [1.0, 1.2, 1.4]},
        "coverage": 0.9,
        "pictures": 32,
    }
    assert ErrorModel.of_card({"errors": errors}) == numbers
    with pytest.raises(ValueError, match=r"^model: got 'x', expected one whose errors are calibrated"):
        ErrorModel.of_card({"name": "x"})


def test_what_does_not_fit_is_refused():
    x, y = pictures()
    for bad in (y[..., 1:], y[0]):
        with pytest.raises(ValueError, match=r"^x, y: got shapes"):
            model().half_widths(x, bad, 0.1)
    with pytest.raises(ValueError, match=r"^x, y: got shapes"):
        model().half_widths(x[..., :7, :], y[..., :7, :], 0.1)
    for sigma in (1 / 255, 80 / 255, 25.0):
        with pytest.raises(ValueError, match=r"^sigma: got"):
            model().half_widths(x, y, sigma)
    with pytest.raises(ValueError, match=r"^blocks: got 4, expected one of \[1, 8\]"):
        model().half_widths(x, y, 0.1, blocks=4)
    with pytest.raises(ValueError, match=r"^coefficients: got 1"):
        model(coefficients=(1.0,))
    with pytest.raises(ValueError, match=r"^factors: got"):
        model(levels=(0.1,))
