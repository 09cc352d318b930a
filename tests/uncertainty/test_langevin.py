"""Langevin methods of deepinv with steps from proved constants, against exact Gaussians."""

import math

import deepinv
import pytest
import torch
from quadratic import Quadratic

import icgn
from icgn.uncertainty import LangevinConstants, langevin

FLOAT = torch.float64
SIGMA = 0.2


@pytest.fixture(scope="module")
def posed():
    y = torch.randn(1, 1, 6, 7, generator=torch.Generator().manual_seed(0), dtype=FLOAT)
    problem = icgn.Problem(y, deepinv.physics.Denoising(), Quadratic(2.0), sigma=SIGMA)
    return problem, icgn.solve(problem, tol=1e-6)


def drawn(posed, chains=60, **options):
    """The deviation over the exact one, of the last draws of many chains."""
    problem, solution = posed
    sampler = langevin(problem, solution, chains=chains, burnin_ratio=0.5, thinning=2, **options)
    _, _ = sampler.sample(problem.y, problem.physics, x_init=solution.x.expand(chains, -1, -1, -1), seed=0)
    draws = torch.cat([one["x"] for one in sampler.get_chain()])
    return float((draws - problem.y / 3).std() / (SIGMA / math.sqrt(3)))


def test_constants_are_those_of_the_objective(posed):
    found = LangevinConstants.of(*posed)
    exact = 3 / SIGMA**2
    assert found.modulus == pytest.approx(exact) and found.lipschitz == pytest.approx(exact)
    assert found.step("ula") == pytest.approx(1 / exact)
    assert found.step("skrock", 10) == pytest.approx((9.5**2 * (2 - 0.2 / 3) - 1.5) / exact)


@pytest.mark.parametrize("part", [1.0, 0.3])
def test_the_unadjusted_algorithm_has_the_bias_of_its_step_within_the_bound(posed, part):
    """For a Gaussian the variance is 1 / (m (1 - m h / 2))."""
    constants = LangevinConstants.of(*posed)
    step = part / constants.lipschitz
    ratio = drawn(posed, method="ula", step=step, max_iter=60, history_size=12)
    exact = 1 / math.sqrt(1 - part / 2)
    assert ratio == pytest.approx(exact, rel=0.05)
    assert (exact - 1) * SIGMA / math.sqrt(3) <= constants.bias(step)
    assert constants.iterations(step) == math.ceil(math.log(0.01) / math.log(max(1 - part, 1e-12)))


def test_the_stabilized_algorithm_stays_stable_at_its_longest_step(posed):
    assert 0.2 < drawn(posed, stages=6, max_iter=30, history_size=12) < 1.2, "its variance is too small there"
    step = 0.05 * LangevinConstants.of(*posed).step("skrock", 6)
    assert drawn(posed, stages=6, step=step, max_iter=60, history_size=12) == pytest.approx(1, abs=0.1)


def test_a_learned_regularizer_is_sampled():
    y = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    problem = icgn.Problem(y, deepinv.physics.Denoising(), icgn.load_pretrained("ridge-gray-small"), sigma=SIGMA)
    solution = icgn.solve(problem)
    constants = LangevinConstants.of(problem, solution)
    assert constants.modulus >= 0.99 / SIGMA**2 and constants.lipschitz > 10 * constants.modulus
    sampler = langevin(problem, solution, max_iter=10, thinning=1)
    mean, variance = sampler.sample(problem.y, problem.physics, x_init=solution.x, seed=0)
    assert bool(torch.isfinite(mean).all()) and bool((variance >= 0).all())


def test_what_has_no_step_is_refused(posed):
    problem, solution = posed
    for options, name in (({"method": "hmc"}, "method"), ({"stages": 2}, "stages"), ({"step": 0.0}, "step")):
        with pytest.raises(ValueError, match=rf"^{name}: got"):
            langevin(problem, solution, **options)
    with pytest.raises(ValueError, match=r"^chains: got 0"):
        langevin(problem, solution, chains=0)
    unknown = LangevinConstants(modulus=0.0, lipschitz=math.inf)
    with pytest.raises(ValueError, match=r"^step: got none"):
        unknown.step()
    assert unknown.bias(0.1) == math.inf and unknown.iterations(0.1) == math.inf
    with pytest.raises(ValueError, match=r"^step: got"):
        unknown.bias(0.0)
