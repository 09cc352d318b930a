"""Credible regions and tests of structures, against closed forms of Gaussian posteriors."""

import math

import deepinv
import pytest
import torch
from quadratic import Quadratic
from scipy.stats import chi2

import icgn
from icgn.uncertainty import credible_region

A, SIGMA = 0.5, torch.tensor([0.1, 0.2], dtype=torch.float64)


def gaussian(**options):
    """A problem whose posterior is normal, of mean y / (1 + a) and variance sigma^2 / (1 + a)."""
    y = torch.rand(2, 1, 12, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return icgn.Problem(y, deepinv.physics.Denoising(), Quadratic(A), sigma=SIGMA, **options)


def bump(height, side=16):
    x = torch.zeros(1, 1, side, side, dtype=torch.float64)
    x[..., 5:10, 5:10] = height
    return x


def test_f_is_the_negative_logarithm_of_the_posterior():
    problem = gaussian()
    solution = icgn.solve(problem, tol=1e-9)
    region = credible_region(problem, solution, alpha=0.1)
    x = torch.rand(2, 1, 12, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = (1 + A) * (x - problem.y / (1 + A)).square().flatten(1).sum(1) / (2 * SIGMA**2)
    assert torch.allclose(region.posterior.energy(x) - region.energy, expected)
    assert torch.allclose(
        region.threshold - region.energy, torch.tensor(120 + math.sqrt(16 * 120 * math.log(30))).double()
    )


@pytest.mark.parametrize("alpha", [0.01, 0.3, 0.9])
def test_the_region_contains_that_of_highest_density(alpha):
    problem = gaussian()
    region = credible_region(problem, icgn.solve(problem, tol=1e-9), alpha=alpha)
    direction = torch.randn(2, 1, 12, 10, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    direction /= direction.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    highest = (SIGMA * math.sqrt(chi2.ppf(1 - alpha, 120) / (1 + A))).reshape(-1, 1, 1, 1)
    own = (SIGMA * math.sqrt(2 * (120 + math.sqrt(16 * 120 * math.log(3 / alpha))) / (1 + A))).reshape(-1, 1, 1, 1)
    centre = problem.y / (1 + A)
    assert region.contains(centre + highest * direction).all()
    assert region.contains(centre + (1 - 1e-6) * own * direction).all()
    assert not region.contains(centre + (1 + 1e-6) * own * direction).any()


def test_a_solution_that_is_not_converged_has_a_larger_region():
    problem = icgn.Problem(bump(0.5), deepinv.physics.Denoising(), icgn.TotalVariation(), sigma=0.1)
    rough, fine = icgn.solve(problem, max_iter=1), icgn.solve(problem, tol=1e-9)
    larger, region = credible_region(problem, rough), credible_region(problem, fine)
    assert larger.gap > 0.01
    assert region.threshold <= larger.threshold <= region.threshold + larger.gap + 1e-9


def test_pictures_outside_the_box_are_outside():
    problem = gaussian(box=(0.0, 1.0))
    region = credible_region(problem, icgn.solve(problem))
    x = region.posterior.x.clone()
    assert region.contains(x).all()
    x[1, 0, 0, 0] = 1.01
    assert region.contains(x).tolist() == [True, False]


def test_all_units_have_the_same_region():
    y = bump(0.5) + 0.05 * torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    regions = []
    for scale, low in ((1.0, 0.0), (500.0, -20.0)):
        problem = icgn.Problem(
            low + scale * y,
            deepinv.physics.Denoising(),
            icgn.TotalVariation(),
            sigma=0.05 * scale,
            range=(low, low + scale),
        )
        regions.append(credible_region(problem, icgn.solve(problem, tol=1e-6), alpha=0.1))
    assert torch.allclose(regions[0].threshold, regions[1].threshold, rtol=1e-6)
    assert torch.allclose(regions[0].posterior.energy(y), regions[1].posterior.energy(500 * y - 20), rtol=1e-6)


def test_a_test_of_a_structure_has_its_closed_form():
    problem = gaussian()
    region = credible_region(problem, icgn.solve(problem, tol=1e-9), alpha=0.05)
    mask = torch.zeros(12, 10, dtype=torch.bool)
    mask[3:6, 3:6] = True
    centre, pixels = problem.y / (1 + A), 9
    room = (region.threshold - region.energy).reshape(-1, 1, 1, 1)
    for factor, rejected in ((0.98, False), (1.05, True)):
        away = factor * (SIGMA.reshape(-1, 1, 1, 1) ** 2 * 2 * room / ((1 + A) * pixels)).sqrt()
        found = region.test(mask, fill=centre + away)
        assert found.rejected.tolist() == [rejected] * 2
        assert torch.allclose(found.energy, region.energy + factor**2 * room.flatten(), rtol=1e-3)
        assert (found.least <= found.energy).all()


@pytest.mark.parametrize(("height", "rejected"), [(0.02, False), (0.9, True)])
def test_the_data_insist_on_a_bright_structure_only(height, rejected):
    noise = 0.02 * torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    problem = icgn.Problem(
        0.05 + bump(height) + noise, deepinv.physics.Denoising(), icgn.TotalVariation(), sigma=0.02, box=(0.0, 1.0)
    )
    region = credible_region(problem, icgn.solve(problem))
    found = region.test(bump(1)[0, 0] > 0)
    assert found.rejected.tolist() == [rejected]
    assert (found.filled - 0.05).abs().max() < 0.05, "the structure is gone"
    assert ("not rejected" in found.text()) is not rejected
    assert "inf" not in found.text()


def test_a_conditional_network_is_said_to_be_given_its_condition():
    y = bump(0.5, side=24).float() + 0.1 * torch.randn(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    problem = icgn.Problem(y, deepinv.physics.Denoising(), icgn.load_pretrained("conditional-gray-small"), sigma=0.1)
    solution = icgn.solve(problem, tol=1e-3)
    region = credible_region(problem, solution)
    assert region.given_condition and "given the condition" in region.text()
    assert torch.allclose(region.energy, solution.certificate.objective / 0.01, rtol=1e-6)
    assert region.contains(solution.x).all()


def test_what_does_not_fit_is_refused():
    problem = gaussian()
    solution = icgn.solve(problem)
    for alpha in (0.0, 1.0, 1.5, 1e-30, "0.1"):
        with pytest.raises(ValueError, match=r"^alpha: got"):
            credible_region(problem, solution, alpha=alpha)
    with pytest.raises(TypeError, match=r"^problem: got Tensor"):
        credible_region(problem.y, solution)
    with pytest.raises(TypeError, match=r"^solution: got Tensor"):
        credible_region(problem, solution.x)
    region = credible_region(problem, solution)
    with pytest.raises(ValueError, match=r"^x: got"):
        region.contains(torch.zeros(2, 1, 5, 5))
    for mask in (torch.zeros(12, 10), torch.ones(12, 10), torch.ones(3, 3)):
        with pytest.raises(ValueError, match=r"^mask: got"):
            region.test(mask)
    with pytest.raises(ValueError, match=r"^fill: got"):
        region.test(torch.eye(12, 10), fill=torch.zeros(1))
    still = icgn.Problem(problem.y, deepinv.physics.Denoising(), Quadratic(A), sigma=0.0)
    with pytest.raises(ValueError, match=r"^sigma: got"):
        credible_region(still, icgn.solve(still))


def test_without_a_modulus_nothing_is_claimed():
    physics = deepinv.physics.Inpainting((1, 16, 16), mask=(torch.arange(16) % 2 == 0).double().expand(1, 16, 16))
    problem = icgn.Problem(physics(bump(0.5)), physics, icgn.TotalVariation(), sigma=0.05)
    region = credible_region(problem, icgn.solve(problem, max_iter=20))
    assert region.gap.isinf().all() and region.threshold.isfinite().all()
    assert not region.test(bump(1)[0, 0] > 0, max_iter=20).rejected.any()


def test_a_measurement_that_is_not_finite_has_no_region():
    y = bump(0.5).repeat(2, 1, 1, 1)
    y[1, 0, 0, 0] = torch.nan
    problem = icgn.Problem(y, deepinv.physics.Denoising(), icgn.TotalVariation(), sigma=0.1)
    region = credible_region(problem, icgn.solve(problem))
    assert region.threshold.isnan().tolist() == [False, True]
    assert region.contains(bump(0.5)).tolist() == [True, False]


@pytest.mark.parametrize("model", ["ridge-gray-small", "total variation"])
def test_the_truth_of_the_model_is_in_the_region_and_a_larger_alpha_makes_it_smaller(model):
    y = bump(0.5) + 0.1 * torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    regularizer = icgn.TotalVariation() if model == "total variation" else icgn.load_pretrained(model)
    problem = icgn.Problem(y, deepinv.physics.Denoising(), regularizer, sigma=0.1)
    solution = icgn.solve(problem, tol=1e-4)
    thresholds = [float(credible_region(problem, solution, alpha).threshold) for alpha in (0.01, 0.1, 0.9)]
    assert thresholds == sorted(thresholds, reverse=True)
    assert credible_region(problem, solution, 0.5).contains(bump(0.5)).all()
