"""Descriptions of noise: moments of what is drawn, data terms with their constants, conversions, bad input."""

import math

import deepinv
import pytest
import torch
from quadratic import Quadratic

from icgn.functionals.data import WeightedGaussianData, data_functional
from icgn.functionals.noise import Correlated, Poisson, PoissonGaussian, White, described
from icgn.functionals.physics import in_precision
from icgn.regularizers import TotalVariation, load_pretrained
from icgn.solvers import Problem, Reconstructor, solve
from icgn.solvers.methods.splitting import data_prox

DENOISING = deepinv.physics.Denoising()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def uniform(*shape, seed=0, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(*shape, generator=generator(seed), dtype=torch.float64)


SPECTRUM = torch.outer(torch.linspace(1, 0.01, 16), torch.linspace(1, 0.01, 16))
MAP = uniform(1, 1, 128, 128, seed=9, low=0.01, high=0.2)
NOISES = [
    White(0.1),
    White(torch.tensor([0.1])),
    White(MAP),
    White(torch.tensor([[[[0.05]], [[0.2]]]])),
    Poisson(0.02),
    Poisson(0.02, counted=True),
    PoissonGaussian(0.02, 0.05, 0.1),
    Correlated(0.1, SPECTRUM),
]


@pytest.mark.parametrize("noise", NOISES, ids=lambda n: n.text())
def test_what_is_drawn_has_the_variance_and_follows_the_generator(noise):
    x = torch.full((1, 2, 128, 128), 0.5, dtype=torch.float64)
    y = noise.draw(x, generator())
    assert torch.equal(y, noise.draw(x, generator())) and not torch.equal(y, noise.draw(x, generator(1)))
    mean = {Poisson: x / noise.gain if getattr(noise, "counted", False) else x}.get(type(noise), x)
    mean = mean + getattr(noise, "offset", 0.0)
    normalized = (y - mean) / noise.variance(x).sqrt()
    assert normalized.mean().abs() < 0.04
    assert normalized.square().mean().sqrt() == pytest.approx(1, abs=0.03)
    expected = noise.variance(x).expand_as(x).mean().sqrt()
    assert noise.root_mean_square(mean).item() == pytest.approx(expected.item())
    assert torch.allclose(noise.mean(mean), x)


def test_correlated_noise_has_its_spectrum_at_any_size():
    noise = Correlated(0.1, SPECTRUM)
    for size in (48, 65):
        y = noise.draw(torch.zeros(200, 1, size, size + 3, dtype=torch.float64), generator())
        power = torch.fft.fft2(y).abs().square().mean((0, 1))
        assert power[0, 0] / power[size // 2, (size + 3) // 2] > 100
        assert y.square().mean().sqrt() == pytest.approx(0.1, rel=0.03)
        assert power[3, 5] == pytest.approx(power[-3, -5].item())


@pytest.mark.parametrize(
    "model",
    [
        deepinv.physics.GaussianNoise(0.1),
        deepinv.physics.PoissonNoise(0.02),
        deepinv.physics.PoissonNoise(0.02, normalize=False),
        deepinv.physics.PoissonGaussianNoise(0.02, 0.05),
    ],
    ids=lambda m: type(m).__name__,
)
def test_deepinv_models_become_descriptions_and_back(model):
    x = torch.full((1, 1, 128, 128), 0.5)
    noise = described(model)
    there = noise.to_deepinv()
    assert type(there) is type(model)
    for drawn in (model(x), there(x)):
        mean = x / model.gain if noise.counts and getattr(noise, "counted", False) else x
        assert ((drawn - mean) / noise.variance(x).sqrt()).std() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("noise", [Correlated(0.1, SPECTRUM), White(MAP)], ids=["correlated", "map"])
def test_a_model_of_deepinv_draws_what_deepinv_has_not(noise):
    x = torch.zeros(1, 1, 128, 128)
    assert torch.equal(noise.to_deepinv(generator())(x), noise.draw(x, generator()))


# Data terms


def blurred():
    kernel = torch.rand(1, 1, 3, 3, generator=generator()).double()
    return deepinv.physics.BlurFFT((1, 12, 12), filter=kernel / kernel.sum()).double()


def masked():
    mask = (uniform(1, 1, 12, 12, seed=3) > 0.3).double()
    return deepinv.physics.Inpainting((1, 12, 12), mask=mask)


PHYSICS = [DENOISING, blurred(), masked()]


@pytest.mark.parametrize("physics", PHYSICS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("batch", [1, 2])
def test_weighted_squares_have_right_derivatives_and_bounds(physics, batch):
    y, x, v = (uniform(2, 1, 12, 12, seed=s) for s in (1, 2, 3))
    weights = uniform(batch, 1, 12, 12, seed=4, low=0.1, high=3)
    data = WeightedGaussianData.of(data_functional(y, physics, None), weights)
    r = physics.A(x) - y
    assert torch.allclose(data.fn(x), (weights * r.square()).flatten(1).sum(1) / 2)
    h = 1e-5
    central = (data.fn(x + h * v) - data.fn(x - h * v)) / (2 * h)
    assert torch.allclose((data.grad(x) * v).flatten(1).sum(1), central, rtol=1e-7)
    assert torch.allclose((data.grad(x + h * v) - data.grad(x - h * v)) / (2 * h), data.hvp(x, v), rtol=1e-6, atol=1e-9)
    u, q, t = data.linear(x), data.linear(v), uniform(2, seed=5)
    moved = data.linear(x + t.reshape(-1, 1, 1, 1) * v)
    assert torch.allclose(data.slope(u, q, t), (data.potential_grad(moved) * q).flatten(1).sum(1))
    assert torch.allclose(data.curvature(u, q), (v * data.hvp(x, v)).flatten(1).sum(1))
    quotient = data.curvature(u, q) / v.square().flatten(1).sum(1)
    assert (data.strong_convexity() <= quotient).all() and (quotient <= data.lipschitz()).all()
    # The floor is below the Hessian in every direction, single pixels included.
    floor = data.hessian_floor(x).expand_as(x)
    assert ((floor * v.square()).flatten(1).sum(1) <= data.curvature(u, q)).all()
    pixel = torch.zeros_like(x)
    pixel[..., 5, 7] = 1
    assert (floor[..., 5, 7].flatten() <= data.curvature(u, data.linear(pixel)) * (1 + 1e-12)).all()
    second = data.select(torch.tensor([1]))
    assert torch.allclose(second.fn(x[1:]), data.fn(x)[1:])
    single = data.to(torch.float32)
    assert single.fn(x.float()).dtype == torch.float32
    assert torch.allclose(single.fn(x.float()).double(), data.fn(x), rtol=1e-5)


@pytest.mark.parametrize("physics", PHYSICS, ids=lambda p: type(p).__name__)
def test_the_proximal_map_of_a_weighted_square_is_stationary(physics):
    y, z = uniform(2, 1, 12, 12, seed=1), uniform(2, 1, 12, 12, seed=2)
    weights = uniform(2, 1, 12, 12, seed=4, low=0.1, high=3)
    data = WeightedGaussianData.of(data_functional(y, physics, None), weights)
    gamma = torch.tensor([0.5, 2.0], dtype=torch.float64)
    x = data_prox(data, z, gamma)
    left = gamma.reshape(-1, 1, 1, 1) * data.grad(x) + x - z
    # Conjugate gradients end at a relative residual of 1e-6.
    assert left.norm() <= 1e-5 * (gamma.max() * (weights * y).norm() + z.norm())


@pytest.mark.parametrize("method", ["auto", "fista", "admm", "newton"])
def test_a_map_of_levels_gives_the_closed_form(method):
    y = uniform(2, 1, 12, 12)
    levels = uniform(1, 1, 12, 12, seed=1, low=0.05, high=0.2)
    a, sigma = 0.7, 0.1
    problem = Problem(y, DENOISING, Quadratic(a), sigma, noise=levels)
    solution = solve(problem, method=method, tol=1e-7)
    weights = (sigma / levels).square()
    error = (solution.x - weights * y / (weights + a)).square().flatten(1).mean(1).sqrt()
    assert (error <= solution.certificate.rms_distance * (1 + 1e-6) + 1e-15).all() and solution.converged


@pytest.mark.parametrize("physics", PHYSICS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize(
    "noise",
    [0.1, White(uniform(1, 1, 12, 12, seed=1, low=0.03, high=0.3)), White(torch.full((1, 1, 1, 1), 0.2))],
    ids=["number", "map", "channels"],
)
def test_certificates_are_at_least_the_true_error(physics, noise):
    y = physics.A(uniform(2, 1, 12, 12)) + 0.1 * torch.randn(2, 1, 12, 12, generator=generator(), dtype=torch.float64)
    model = load_pretrained("ridge-gray-small")
    problem = Problem(y.float(), in_precision(physics, torch.float32), model, 0.1, noise=noise, box=(0, 1))
    rough = solve(problem, tol=1e-3, gap_tol=1e-2)
    exact = solve(problem.to(torch.float64), tol=1e-8, gap_tol=1e-9)
    error = (rough.x.double() - exact.x).square().flatten(1).mean(1).sqrt()
    assert (error <= rough.certificate.rms_distance + 1e-7).all()
    fine = exact.certificate.objective
    assert (rough.certificate.objective - fine <= rough.certificate.objective_gap * (1 + 1e-6) + 1e-9).all()


def test_a_constant_map_is_its_number():
    y = uniform(2, 1, 16, 16)
    a, b = (
        solve(Problem(y, DENOISING, Quadratic(2.0), 0.1, noise=noise), tol=1e-7).x
        for noise in (0.15, torch.full((1, 1, 16, 16), 0.15))
    )
    assert torch.allclose(a, b, atol=1e-6)


def test_units_of_a_map_cancel():
    y, levels = uniform(1, 1, 16, 16), uniform(1, 1, 16, 16, seed=1, low=0.05, high=0.2)
    physics = deepinv.physics.Inpainting((1, 16, 16), mask=torch.full((1, 1, 16, 16), 1.0).double())
    a = solve(Problem(y, DENOISING, Quadratic(2.0), 0.1, noise=levels), tol=1e-7).x
    physics.mask = physics.mask * 1000
    b = solve(Problem(1000 * y, physics, Quadratic(2.0), 0.1, noise=1000 * levels), tol=1e-7).x
    assert torch.allclose(a, b, atol=1e-6)


def test_counts_with_read_out_are_fitted_by_shifted_counts():
    noise = PoissonGaussian(0.05, 0.02, 0.1)
    y = noise.draw(uniform(1, 1, 16, 16), generator())
    data, factor = noise.data(y, DENOISING)
    # The likelihood of each pixel alone is greatest at its measured value.
    best = (y - 0.1).clamp_min(-(0.02**2) / 0.05)
    assert data.grad(best).abs().max() < 1e-9 or (best < 0).any()
    positive = torch.where(best > 0, data.grad(best.clamp_min(1e-9)), 0.0)
    assert positive.abs().max() < 1e-9 and factor == 1
    # Its curvature is one over the variance there.
    q = torch.ones_like(y)
    curvature = data.hvp(best.clamp_min(1e-9), q)
    assert torch.allclose(torch.where(best > 0, curvature * noise.variance(best), 1.0), q, rtol=1e-9)


@pytest.mark.parametrize("noise", [Poisson(0.05), PoissonGaussian(0.05, 0.02)], ids=lambda n: type(n).__name__)
def test_problems_of_counts_are_solved_and_certified(noise):
    y = noise.draw(uniform(2, 1, 16, 16), generator())
    problem = Problem(y, DENOISING, TotalVariation(), 0.1, noise=noise, box=(0, 1))
    rough, exact = (solve(problem, gap_tol=g, max_iter=2000) for g in (1e-1, 1e-2))
    assert rough.converged and exact.converged
    gap = rough.certificate.objective - exact.certificate.objective
    assert (gap <= rough.certificate.objective_gap).all()
    if isinstance(noise, Poisson):
        same = Problem(
            y, DENOISING, TotalVariation(), 0.1, data_fidelity=deepinv.optim.PoissonLikelihood(0.05), box=(0, 1)
        )
        assert torch.allclose(same.objective.fn(exact.x), exact.certificate.objective)


def test_the_reconstructor_takes_the_noise_of_the_physics():
    y = uniform(1, 1, 16, 16).float()
    counts = deepinv.physics.Denoising(deepinv.physics.PoissonGaussianNoise(0.05, 0.02))
    assert isinstance(Reconstructor(TotalVariation(), 0.1, box=(0, 1)).problem(y, counts).noise, PoissonGaussian)
    levels = uniform(1, 1, 16, 16, seed=1, low=0.05, high=0.2).float()
    gaussian = deepinv.physics.Denoising(deepinv.physics.GaussianNoise(levels))
    assert torch.equal(Reconstructor(TotalVariation(), 0.1).problem(y, gaussian).noise.level, levels)


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: White(-1.0), "level"),
        (lambda: White(math.nan), "level"),
        (lambda: White(torch.zeros(1, 1, 4, 4)), "level"),
        (lambda: White(torch.full((1, 1, 4, 4), math.nan)), "level"),
        (lambda: Poisson(0.0), "gain"),
        (lambda: Poisson(math.inf), "gain"),
        (lambda: PoissonGaussian(0.1, -1.0), "read"),
        (lambda: PoissonGaussian(0.1, 1.0, math.nan), "offset"),
        (lambda: Correlated(0.1, torch.zeros(4, 4)), "spectrum"),
        (lambda: Correlated(0.1, -torch.ones(4, 4)), "spectrum"),
        (lambda: Correlated(0.1, torch.ones(4)), "spectrum"),
        (lambda: PoissonGaussian(0.1, 1.0, 0.5).to_deepinv(), "offset"),
        (lambda: Poisson(0.1).draw(-torch.ones(1, 1, 4, 4)), "x"),
        (lambda: described(deepinv.physics.PoissonNoise(torch.tensor([0.1, 0.2]))), "gain"),
    ],
)
def test_impossible_descriptions_are_refused(make, message):
    with pytest.raises(ValueError, match=rf"^{message}: got"):
        make()


@pytest.mark.parametrize(
    "noise", [torch.ones(1, 1, 4, 5), torch.ones(3, 1, 1, 1), torch.ones(2, 2, 4, 4), torch.ones(5), 0.0, White(0.0)]
)
def test_levels_that_do_not_fit_are_refused(noise):
    with pytest.raises(ValueError, match=r"^noise: got"):
        Problem(uniform(2, 1, 4, 4), DENOISING, TotalVariation(), 0.1, noise=noise)


def test_other_things_are_no_noise():
    with pytest.raises(TypeError, match=r"^noise: got str"):
        Problem(uniform(2, 1, 4, 4), DENOISING, TotalVariation(), 0.1, noise="poisson")
    with pytest.raises(TypeError, match=r"^noise: got GammaNoise"):
        described(deepinv.physics.GammaNoise(1.0))


def test_negative_counts_and_rules_without_a_level_are_refused():
    y = uniform(1, 1, 8, 8) - 0.5
    with pytest.raises(ValueError, match=r"^y: got negative values"):
        Problem(y, DENOISING, TotalVariation(), 0.1, noise=Poisson(0.1))
    with pytest.raises(ValueError, match=r"^weight: 'sure' needs one noise level"):
        Problem(y, DENOISING, TotalVariation(), 0.1, noise=torch.full((1, 1, 8, 8), 0.1), weight="sure")
    with pytest.raises(ValueError, match=r"^noise: got"):
        Problem(y, DENOISING, TotalVariation(), 0.1, noise=Poisson(0.1), data_fidelity=deepinv.optim.L2())


def test_the_level_to_remove_is_a_multiple_where_flat_parts_were_smoothed():
    noise = Correlated(0.1, SPECTRUM)
    assert Correlated(0.1, SPECTRUM, excess=1.5).removal == pytest.approx(1.5 * noise.removal)
    with pytest.raises(ValueError, match=r"excess: got 0\.5, expected a finite number from 1 on"):
        Correlated(0.1, SPECTRUM, excess=0.5)
