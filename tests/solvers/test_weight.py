"""The weight of the regularizer, found from the noise or on pairs, against closed forms."""

from __future__ import annotations

import deepinv
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratic import Quadratic

from icgn.pictures import denoise
from icgn.regularizers import RidgeICGN
from icgn.solvers import Problem, best_weight, solve, weight
from icgn.solvers.weight import _smallest, discrepancy, sure, tiled

NOISE = 0.1


def noisy(seed=0, batch=2, side=24):
    g = torch.Generator().manual_seed(seed)
    scale = torch.tensor([0.3, 0.6]).view(2, 1, 1, 1)[:batch]
    clean = scale * torch.randn(batch, 1, side, side, generator=g, dtype=torch.float64)
    return clean, clean + NOISE * torch.randn(clean.shape, generator=g, dtype=torch.float64)


def denoising(y, **changes):
    return Problem(y, deepinv.physics.Denoising(), Quadratic(0.5), NOISE, **changes)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_discrepancy_in_closed_form(seed):
    _, y = noisy(seed)
    # |y - y / (1 + a w)| is the noise.
    part = NOISE * y[0].numel() ** 0.5 / torch.linalg.vector_norm(y.flatten(1), dim=1)
    expected = part / (1 - part) / 0.5
    torch.testing.assert_close(discrepancy(denoising(y, weight="discrepancy")), expected, rtol=0.05, atol=0)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_sure_in_closed_form(seed):
    _, y = noisy(seed)
    # (1 - c)^2 |y|^2 + 2 n noise^2 c is least at c = 1 - n noise^2 / |y|^2 = 1 / (1 + a w).
    c = 1 - NOISE**2 * y[0].numel() / y.square().flatten(1).sum(1)
    torch.testing.assert_close(sure(denoising(y, weight="sure")), (1 / c - 1) / 0.5, rtol=0.08, atol=1e-3)


@settings(max_examples=100, deadline=None)
@given(height=st.integers(1, 700), width=st.integers(1, 3000), channels=st.sampled_from([1, 3]))
def test_tiles_are_disjoint_parts_of_a_large_picture_and_enough(height, width, channels):
    y = torch.arange(float(height * width), dtype=torch.float64).reshape(1, 1, height, width)
    y = torch.cat([y, y + y.numel()]).expand(2, channels, height, width)
    sigma = torch.tensor([0.1, 0.2])
    part = tiled(Problem(y, deepinv.physics.Denoising(), Quadratic(0.5), sigma))
    if height * width <= weight._PIXELS:
        assert torch.equal(part.y, y)
        return
    first, second = part.y.chunk(2)
    assert torch.equal(first + height * width, second)
    assert first[:, 0].unique().numel() == first[:, 0].numel()
    assert weight._PIXELS / 3 <= first[:, 0].numel() <= weight._PIXELS
    assert torch.equal(first[..., 1:, 1:] - first[..., :-1, :-1], torch.full_like(first[..., 1:, 1:], width + 1.0))
    assert torch.equal(part.sigma, sigma.double().repeat_interleave(len(first)))


@pytest.mark.parametrize("rule", [discrepancy, sure])
def test_a_weight_from_tiles_is_that_of_the_picture(rule, monkeypatch):
    _, y = noisy(side=160)
    sigma = torch.tensor([NOISE, 1.2 * NOISE], dtype=torch.float64)
    problem = Problem(y, deepinv.physics.Denoising(), Quadratic(0.5), sigma)
    whole = rule(problem)
    monkeypatch.setattr(weight, "_PIXELS", 8000)
    monkeypatch.setattr(weight, "_TILE", 32)
    assert len(tiled(problem).y) == 2 * 6
    torch.testing.assert_close(rule(problem), whole, rtol=0.1, atol=0)


def test_only_denoising_is_searched_on_tiles(monkeypatch):
    monkeypatch.setattr(weight, "_PIXELS", 64)
    _, y = noisy()
    blur = deepinv.physics.Blur(torch.ones(1, 1, 3, 3, dtype=torch.float64) / 9, padding="circular")
    problem = Problem(blur.A(y), blur, Quadratic(0.5), NOISE)
    assert tiled(problem) is problem


def test_best_weight_in_closed_form():
    clean, y = noisy(batch=1)
    # The best multiple of y is <y, clean> / |y|^2.
    c = float((y * clean).sum() / y.square().sum())
    assert best_weight(denoising(y), clean) == pytest.approx((1 / c - 1) / 0.5, rel=0.05)


@pytest.mark.parametrize("least", [-5.0, -0.3, 0.0, 0.2, 1.6, 6.5])
def test_the_smallest_value_of_a_smooth_function_is_found(least):
    calls = []

    def f(s):
        calls.append(s)
        d = s - least
        return d.square() + 0.1 * d**4

    found = _smallest(f, torch.zeros(1, dtype=torch.float64))
    assert float(found) == pytest.approx(least, abs=0.03) and len(calls) < 8 + 2 * abs(least)


def test_each_image_has_its_own_smallest_value():
    least = torch.tensor([-5.0, -0.2, 0.0, 0.34, 6.5], dtype=torch.float64)
    found = _smallest(lambda s: (s - least).cosh(), torch.zeros_like(least))
    torch.testing.assert_close(found, least, atol=0.03, rtol=0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_errors_of_the_values_do_not_lead_astray(seed):
    generator = torch.Generator().manual_seed(seed)
    least = 2 * torch.rand(8, dtype=torch.float64, generator=generator) - 1

    def f(s):
        return (s - least).square() + 1e-3 * torch.rand(8, dtype=torch.float64, generator=generator)

    torch.testing.assert_close(_smallest(f, torch.zeros_like(least)), least, atol=0.15, rtol=0)


def test_beyond_the_range_of_weights_its_end_is_taken():
    assert 6.9 < float(_smallest(lambda s: -s, torch.zeros(1))) < 8


def test_denoise_takes_a_weight():
    _, y = noisy()
    by_rule = denoise(y, NOISE, regularizer=Quadratic(0.5), range=(0, 1), weight="sure")
    torch.testing.assert_close(by_rule.weight, sure(denoising(y, weight="sure")))
    torch.testing.assert_close(
        denoise(y, NOISE, regularizer=Quadratic(0.5), range=(0, 1), weight=2.0).x, y / 2, atol=2e-4, rtol=0
    )
    ridge = RidgeICGN(filters=4, size=3).requires_grad_(False)
    assert torch.equal(
        denoise(y, 0.0, regularizer=ridge, range=(0, 1), weight="sure").x, y
    )  # R(.; 0) = 0, whatever its weight
    with pytest.raises(ValueError, match="weight"):
        denoise(y, NOISE, regularizer=Quadratic(0.5), range=(0, 1), weight="best")


def test_masked_pixels_do_not_count():
    _, y = noisy()
    mask = torch.ones(1, 24, 24)
    mask[:, ::2] = 0
    physics = deepinv.physics.Inpainting((1, 24, 24), mask=mask).double()
    half = Problem(physics.A(y), physics, Quadratic(0.5), NOISE, weight="discrepancy")
    rows = y[:, :, 1::2]
    part = NOISE * rows[0].numel() ** 0.5 / torch.linalg.vector_norm(rows.flatten(1), dim=1)
    torch.testing.assert_close(discrepancy(half), part / (1 - part) / 0.5, rtol=0.05, atol=0)


@pytest.mark.parametrize("rule", ["discrepancy", "sure"])
def test_solve_finds_the_weight_and_says_it(rule):
    t = torch.linspace(0, 1, 32)
    clean = (0.2 + 0.5 * (t[:, None] > 0.4) + 0.2 * torch.sin(5 * t)[None, :] ** 2)[None, None].float()
    torch.manual_seed(0)
    y = clean + NOISE * torch.randn_like(clean)
    reg = RidgeICGN(filters=6, size=5).requires_grad_(False)
    solution = solve(Problem(y, deepinv.physics.Denoising(), reg, NOISE, weight=rule))
    assert solution.converged and solution.weight.shape == (1,)
    again = solve(Problem(y, deepinv.physics.Denoising(), reg, NOISE, weight=solution.weight))
    torch.testing.assert_close(again.x, solution.x, atol=1e-6, rtol=0)

    def error(weight):
        return float((solve(Problem(y, deepinv.physics.Denoising(), reg, NOISE, weight=weight)).x - clean).norm())

    found = error(solution.weight)
    # Far weaker and far stronger are worse, and nothing on a fine grid is much better.
    assert found < min(error(solution.weight / 20), error(solution.weight * 20))
    best = min(error(w) for w in torch.logspace(-1, 2, 13).tolist())
    assert found < best * (1.03 if rule == "sure" else 1.4)


def test_rules_refuse_what_they_do_not_know():
    _, y = noisy()
    with pytest.raises(ValueError, match="weight: got 'gcv', expected a number >= 0, or one of discrepancy, sure"):
        denoising(y, weight="gcv")
    fidelity = deepinv.optim.PoissonLikelihood(bkg=1.0)
    with pytest.raises(ValueError, match="assumes Gaussian data of known noise, got the data fidelity Poisson"):
        solve(denoising(y.abs(), weight="sure", data_fidelity=fidelity))
    with pytest.raises(ValueError, match="is a rule, not a number yet"):
        _ = denoising(y, weight="sure").objective
    with pytest.raises(ValueError, match="clean: got shape"):
        best_weight(denoising(y), y[:1])
