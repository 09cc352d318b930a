"""Draws from posteriors, against exact Gaussians and quadrature, and how they stop, go on and refuse."""

import math

import deepinv
import numpy as np
import pytest
import scipy.integrate
import torch
from quadratic import Quadratic, QuadraticFunctional

import icgn
from icgn.regularizers import ConvexRegularizer
from icgn.uncertainty import Chains, sample_posterior
from icgn.uncertainty.chains import Target
from icgn.uncertainty.mass import Mass

FLOAT = torch.float64
SIGMA = 0.2


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=FLOAT)


def posed(y, regularizer, physics=None, **options):
    problem = icgn.Problem(y, physics or deepinv.physics.Denoising(), regularizer, sigma=SIGMA, **options)
    return problem, icgn.solve(problem, tol=1e-5)


@pytest.fixture(scope="module")
def gaussian():
    """A posterior N(y / 3, sigma^2 / 3), and draws of it."""
    problem, solution = posed(0.5 + noise(1, 1, 8, 10), Quadratic(2.0))
    return problem, sample_posterior(problem, solution, blocks=4, ess=2500, rhat=1.05, warmup=150, max_gradients=8000)


def test_a_gaussian_has_its_mean_deviation_and_quantiles(gaussian):
    problem, found = gaussian
    assert found.converged and found.rhat.shape == (1, 1, 2, 3)
    exact, deviation = problem.y / 3, SIGMA / math.sqrt(3)
    error = deviation / math.sqrt(found.ess.min())
    assert (found.mean - exact).abs().max() < 5 * error
    assert (found.deviation / deviation - 1).abs().max() < 5 * error / deviation
    assert (found.quantile(0.95) - exact - 1.6449 * deviation).abs().max() < 12 * error
    low, high = found.block_intervals(alpha=0.1)
    whole = deviation / 4  # 16 pixels
    assert abs(float((high - low)[0, 0, 0, 0]) / (2 * 1.6449 * whole) - 1) < 0.06
    assert found.acceptance > 0.6 and found.per_draw < 30


def test_the_covariance_behind_a_blur_is_that_of_the_closed_form():
    """A circular blur and a |x|^2 / 2: the covariance is a convolution."""
    kernel = torch.tensor([[0.1, 0.2, 0.1], [0.1, 0.3, 0.2]], dtype=FLOAT)[None, None]
    physics = deepinv.physics.BlurFFT((1, 8, 8), filter=kernel).double()
    y = noise(1, 1, 8, 8, seed=1)
    problem, solution = posed(y, Quadratic(0.3), physics)
    found = sample_posterior(problem, solution, ess=2000, rhat=1.1, warmup=100, max_gradients=8000)
    gram = torch.fft.fft2(physics.A_adjoint(physics.A(_unit()))).real
    exact = SIGMA**2 / (gram + 0.3)
    draws = (found.draws - solution.x).flatten(0, 1).double()
    power = torch.fft.fft2(draws).abs().square().mean(0) / 64
    assert (power / exact[0] - 1).abs().max() < 0.2 and abs(float((power / exact[0]).mean()) - 1) < 0.03


def _unit():
    unit = torch.zeros(1, 1, 8, 8, dtype=FLOAT)
    unit[..., 0, 0] = 1
    return unit


class Pointwise(ConvexRegularizer):
    """R(x) = b sum of sqrt(x^2 + e^2): pixels are independent, and nearly Laplacian."""

    b, e = 0.3, 0.01

    def at(self, sigma=None, condition=None):
        return PointwiseFunctional(self.b)


class PointwiseFunctional(QuadraticFunctional):
    def fn(self, x):
        return self.a * (x.square() + Pointwise.e**2).sqrt().flatten(1).sum(1)

    def grad(self, x):
        return self.a * x / (x.square() + Pointwise.e**2).sqrt()

    def hvp(self, x, v):
        return self.a * Pointwise.e**2 / (x.square() + Pointwise.e**2) ** 1.5 * v

    def lipschitz(self):
        return torch.tensor(self.a / Pointwise.e, dtype=FLOAT)

    def strong_convexity(self):
        return torch.tensor(0.0, dtype=FLOAT)


def moments(y):
    """Mean and deviation of one pixel by quadrature."""

    def density(x):
        return math.exp(-((x - y) ** 2 / 2 + Pointwise.b * math.sqrt(x**2 + Pointwise.e**2)) / SIGMA**2 + 8 * abs(y))

    ends = {"limit": 200, "points": [0.0, y]}
    z, a, b = (scipy.integrate.quad(lambda x, k=k: density(x) * x**k, -2.0, 2.0, **ends)[0] for k in range(3))
    return a / z, math.sqrt(b / z - (a / z) ** 2)


def test_a_density_with_a_kink_is_that_of_quadrature():
    y = torch.linspace(-0.8, 0.8, 16, dtype=FLOAT).reshape(1, 1, 4, 4)
    problem, solution = posed(y, Pointwise())
    found = sample_posterior(problem, solution, blocks=4, ess=2500, rhat=1.1, warmup=100, max_gradients=20_000)
    assert found.converged
    exact = np.array([moments(float(v)) for v in y.flatten()])
    mean, deviation = (t.flatten().double().numpy() for t in (found.mean, found.deviation))
    assert np.abs((mean - exact[:, 0]) / exact[:, 1]).max() < 0.1
    assert np.abs(deviation / exact[:, 1] - 1).max() < 0.08


def test_a_short_trajectory_is_the_adjusted_langevin_algorithm(gaussian):
    problem, _ = gaussian
    solution = icgn.solve(problem)
    found = sample_posterior(problem, solution, blocks=4, trajectory=1e-3, ess=300, rhat=1.1, max_gradients=3000)
    assert found.gradients == found.state.transitions + 1
    assert (found.mean - problem.y / 3).abs().max() < SIGMA and found.converged


def test_chains_go_on_as_if_they_had_not_been_stopped(tmp_path):
    problem, solution = posed(noise(1, 1, 9, 9).float(), icgn.load_pretrained("ridge-gray-small"))
    asked = {"ess": 1e6, "warmup": 50, "seed": 3}
    whole = sample_posterior(problem, solution, max_gradients=500, **asked)
    path, seen = tmp_path / "chains.pt", []
    part = sample_posterior(
        problem, solution, max_gradients=400, callback=lambda c: seen.append(c.transitions), **asked
    )
    assert part.gradients < whole.gradients and seen and not part.converged and "fewer than was asked" in part.text()
    part.state.save(path)
    rest = sample_posterior(problem, solution, max_gradients=500, state=Chains.load(path), **asked)
    assert rest.gradients == whole.gradients and torch.equal(rest.draws, whole.draws)
    stopped = sample_posterior(problem, solution, max_gradients=40, **asked)
    assert not stopped.draws.numel() and math.isnan(float(stopped.rhat.max())) and "too few" in stopped.text()
    stopped.state.save(path)
    warm = sample_posterior(problem, solution, max_gradients=500, state=Chains.load(path), **asked)
    assert torch.equal(warm.draws, whole.draws), "in the warm-up too"


def test_a_state_of_another_problem_is_refused(tmp_path, gaussian):
    problem, found = gaussian
    other, solution = posed(0.1 + problem.y, Quadratic(2.0))
    with pytest.raises(ValueError, match=r"^state: got chains whose f is"):
        sample_posterior(other, solution, state=found.state)
    smaller, solution = posed(problem.y[..., :-1], Quadratic(2.0))
    with pytest.raises(ValueError, match=r"^state: got chains of \(1, 8, 10\)"):
        sample_posterior(smaller, solution, state=found.state)
    (tmp_path / "x.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="holds no chains"):
        Chains.load(tmp_path / "x.pt")
    with pytest.raises(FileNotFoundError):
        Chains.load(tmp_path / "y.pt")


def test_kept_draws_are_thinned_when_they_are_many(monkeypatch, gaussian):
    problem, _ = gaussian
    monkeypatch.setattr("icgn.uncertainty.chains._KEPT", 20 * 2 * 80)
    found = sample_posterior(problem, icgn.solve(problem), chains=2, ess=1e6, warmup=50, max_gradients=800)
    assert found.state.every > 1 and found.draws.shape[1] <= 20
    assert found.state.tried // found.state.every == found.draws.shape[1]


@pytest.mark.parametrize("channels", [1, 3])
def test_masses_are_consistent(channels):
    white = noise(40, channels, 7, 10)
    draws = white.cumsum(-1) * torch.linspace(0.5, 2, 10, dtype=FLOAT)
    known = Mass(torch.ones(1, channels, 7, 6, dtype=FLOAT), torch.ones(1, channels, 7, 10, dtype=FLOAT))
    mass = known.of_draws(draws)
    v, w = noise(2, channels, 7, 10, seed=1)[:, None]
    assert torch.allclose(mass.inverse(mass.times(v)), v, atol=1e-9)
    assert torch.allclose((v * mass.times(w)).sum(), (w * mass.times(v)).sum())
    assert torch.allclose(mass.inverse(mass.momentum(v)).sum(), mass.spread(v).sum()) or channels == 3
    # |momentum(v)|^2 in the metric of the inverse is |v|^2, and that of spread in the metric of M too.
    for u, other in ((mass.momentum(v), mass.inverse), (mass.spread(v), mass.times)):
        assert float((u * other(u)).sum()) == pytest.approx(float(v.square().sum()))
    size = (mass.spread(white).square().mean() / (draws - draws.mean(0)).square().mean()).sqrt()
    assert float(size) == pytest.approx(1, abs=0.3)


def test_the_target_is_the_objective_over_the_noise():
    problem, _ = posed(noise(1, 1, 9, 9), icgn.load_pretrained("ridge-gray-small"))
    target = Target(problem.objective, SIGMA)
    x = noise(1, 1, 9, 9, seed=4).requires_grad_()
    value = problem.objective.fn(x) / SIGMA**2
    assert torch.allclose(target.at(x.detach())[0], value.double())
    assert torch.allclose(target.at(x.detach())[1], torch.autograd.grad(value.sum(), x)[0], atol=1e-8)


def test_what_is_no_posterior_is_refused():
    y = noise(2, 1, 8, 8).abs()
    tv = icgn.TotalVariation()
    many = posed(y, tv)
    with pytest.raises(ValueError, match=r"^problem: got 2 measurements, expected one"):
        sample_posterior(*many)
    with pytest.raises(ValueError, match=r"^box: got \(0, 1\), expected None"):
        sample_posterior(*posed(y[:1], tv, box=(0.0, 1.0)))
    problem, solution = posed(y[:1], tv)
    wrong = {
        "chains": 1,
        "rhat": 1.0,
        "ess": 0.0,
        "warmup": 10,
        "max_gradients": 0,
        "trajectory": math.inf,
        "blocks": 9,
    }
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=rf"^{name}: got"):
            sample_posterior(problem, solution, **{name: value})
    with pytest.raises(TypeError, match=r"^solution: got"):
        sample_posterior(problem, None)
    zero = icgn.Problem(y[:1], deepinv.physics.Denoising(), tv, sigma=0.0, noise=0.1)
    with pytest.raises(ValueError, match=r"^sigma: got"):
        sample_posterior(zero, icgn.solve(zero))


def test_a_brightness_that_nothing_sees_is_refused():
    def blind(x, **_):
        return x - x.mean((2, 3), keepdim=True)

    physics = deepinv.physics.LinearPhysics(A=blind, A_adjoint=blind)
    problem = icgn.Problem(blind(noise(1, 1, 9, 9)), physics, icgn.load_pretrained("ridge-gray-small"), sigma=SIGMA)
    with pytest.raises(ValueError, match="do not see how bright the picture is"):
        sample_posterior(problem, icgn.solve(problem))
