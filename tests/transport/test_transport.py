"""Optimal transport maps: closed forms, exact changes of coordinates, losses, fits, and what is refused."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from icgn.transport import DenseDeepICGN, DenseGroupICGN, DenseQuadraticICGN, DenseRidgeICGN, DenseSoftmaxICGN
from icgn.transport.assignments import match_assignments
from icgn.transport.conjugate import approach_points, conjugate_points
from icgn.transport.coordinates import centred, parameter_groups, strengthen, translate
from icgn.transport.correlation import Correlation
from icgn.transport.evaluation import cosine, cost_bounds, l2_uvp
from icgn.transport.fitting import fit_map
from icgn.transport.moments import match_moments, match_scale
from icgn.transport.pairs import gaussian_map, gaussian_pair, mixture_pair, random_covariance
from icgn.transport.samples import make_sampler
from icgn.transport.semi_dual import SemiDual
from icgn.transport.sinkhorn import Sinkhorn, divergence
from icgn.transport.wasserstein2 import mix3_to_mix10

NETWORKS = {
    "ridge": lambda d, **o: DenseRidgeICGN(d, width=12, **o),
    "deep": lambda d, **o: DenseDeepICGN(d, widths=(6, 6), **o),
    "softmax": lambda d, **o: DenseSoftmaxICGN(d, groups=2, members=6, **o),
    "group": lambda d, **o: DenseGroupICGN(d, groups=2, members=6, **o),
    "quadratic skips": lambda d, **o: DenseQuadraticICGN(d, widths=(6, 6), **o),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network_of(name="softmax", dim=3, seed=0, **options):
    torch.manual_seed(seed)
    network = NETWORKS[name](dim, **{"strong_convexity": 0.1, "quadratic": dim, **options}).double()
    with torch.no_grad():
        network.shift.normal_()
        for parameter in ("log_beta", "log_tau"):
            if hasattr(network, parameter):
                getattr(network, parameter).normal_(std=0.3)
    return network


@pytest.mark.parametrize("dim", [1, 2, 8])
def test_gaussian_map_pushes_covariance_and_is_symmetric(dim):
    g = seeded(dim)
    m, n = torch.randn(2, dim, generator=g, dtype=torch.float64)
    c, e = (random_covariance(dim, g, condition=30.0) for _ in range(2))
    t = gaussian_map(m, c, n, e)
    torch.testing.assert_close(t.matrix @ c @ t.matrix, e)
    assert torch.equal(t.matrix, t.matrix.T) and torch.linalg.eigvalsh(t.matrix).min() > 0
    torch.testing.assert_close(t(m[None]), n[None])
    torch.testing.assert_close(gaussian_map(n, e, m, c)(t(c)), c)


def test_gaussian_map_of_commuting_covariances():
    a, b = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([4.0, 1.0, 0.0])
    t = gaussian_map(torch.zeros(3), a.diag(), torch.ones(3), b.diag())
    torch.testing.assert_close(t.matrix, (b / a).sqrt().diag().double())


def test_random_covariance_has_the_condition_number():
    values = torch.linalg.eigvalsh(random_covariance(6, seeded(), condition=25.0))
    assert math.isclose(values[-1] / values[0], 25.0, rel_tol=1e-9)


def test_samples_of_pairs_have_the_moments_and_the_map():
    pair = gaussian_pair(3, seeded(), condition=10.0)
    x, y = pair.source(200_000), pair.target(200_000)
    torch.testing.assert_close(torch.cov(pair.map(x).T), torch.cov(y.T), atol=0.05, rtol=0.05)
    torch.testing.assert_close(pair.map(x).mean(0), y.mean(0), atol=0.03, rtol=0)


def test_map_of_a_mixture_is_a_gradient_of_a_convex_function():
    pair = mixture_pair(3, seeded())
    x = pair.source(5).double()
    steps = 1e-5 * torch.eye(3).double()
    jacobians = torch.stack([(pair.map(x + e) - pair.map(x - e)) / 2e-5 for e in steps], 1)
    torch.testing.assert_close(jacobians, jacobians.mT, atol=1e-5, rtol=0)
    assert torch.linalg.eigvalsh(jacobians).min() > 0.3 - 1e-5
    assert pair.target(7).shape == (7, 3)


def test_figures_of_merit_by_hand():
    x = torch.tensor([[0.0, 1.0], [2.0, 1.0], [0.0, -1.0], [2.0, -1.0]])

    def double(x):
        return 2 * x

    assert l2_uvp(double, double, x) == 0 and math.isclose(cosine(double, double, x), 1)
    # Var(nu) = 8 and |(3, 4)|^2 = 25.
    assert math.isclose(l2_uvp(lambda x: 2 * x + torch.tensor([3.0, 4.0]), double, x), 100 * 25 / 8)
    mean = double(x).mean(0)
    assert math.isclose(l2_uvp(lambda x: mean.expand_as(x), double, x), 100)
    assert math.isclose(cosine(lambda x: 0 * x, double, x), -1)
    assert abs(cosine(lambda x: x + x.flip(1) * torch.tensor([1.0, -1.0]), double, x)) < 1e-12


@pytest.mark.parametrize("name", NETWORKS)
def test_translation_is_exact_and_undone(name):
    network = network_of(name)
    x, s, t = torch.randn(6, 3, dtype=torch.float64), 5 * torch.randn(3).double(), torch.randn(3).double()
    before, at = network(x).detach(), network(x - s).detach() + t
    translate(network, s, t)
    torch.testing.assert_close(network(x).detach(), at)
    translate(network, -s, -t)
    torch.testing.assert_close(network(x).detach(), before)
    with pytest.raises(KeyboardInterrupt), centred(network, s, t):
        torch.testing.assert_close(network(x - s).detach(), before - t)
        raise KeyboardInterrupt
    torch.testing.assert_close(network(x).detach(), before)


@pytest.mark.parametrize("name", NETWORKS)
def test_strength_multiplies_the_curved_part(name):
    network, x = network_of(name, quadratic=0, strong_convexity=0.0), torch.randn(4, 3, dtype=torch.float64)
    before = network(x).detach() - network.shift.detach()
    strengthen(network, 0.01)
    torch.testing.assert_close(network(x).detach() - network.shift.detach(), 0.01 * before)


@pytest.mark.parametrize("name", NETWORKS)
def test_start_matches_the_moments(name):
    pair = gaussian_pair(4, seeded(1), condition=15.0)
    x, y = pair.source(4000).double(), pair.target(4000).double()
    network = network_of(name, 4)
    match_moments(network, x, y)
    pushed = network(x).detach()
    torch.testing.assert_close(pushed.mean(0), y.mean(0))
    # But for the bends of the curved part.
    assert (torch.cov(pushed.T) - torch.cov(y.T)).norm() < 0.1 * torch.cov(y.T).norm()
    assert l2_uvp(network, pair.map, x) < 2
    match_scale(network, x, y)
    pushed = network(x).detach()
    torch.testing.assert_close(pushed.mean(0), y.mean(0))
    assert math.isclose(pushed.var(0).sum(), y.var(0).sum(), rel_tol=0.05)


def test_assignments_are_a_better_start_where_the_map_bends():
    pair = mixture_pair(2, seeded(2))
    x, y = pair.source(2000), pair.target(2000)
    network, moments = (network_of("softmax", 2, strong_convexity=0.0).float() for _ in range(2))
    match_moments(moments, x, y)
    match_assignments(network, x, y)
    assert l2_uvp(network, pair.map, x) < 0.3 * l2_uvp(moments, pair.map, x)
    # In other units and elsewhere it is the same map.
    other = network_of("softmax", 2, strong_convexity=0.0).float()
    match_assignments(other, 7 * x + 30, y / 10 - 2)
    difference = 10 * (other(7 * x + 30) + 2) - network(x)
    assert difference.square().sum(1).mean() < 1e-2 * y.var(0).sum()


def test_start_with_few_rows_takes_the_largest_slopes():
    x = torch.randn(20000, 3, dtype=torch.float64, generator=seeded())
    y = torch.randn(20000, 3, dtype=torch.float64, generator=seeded(1)) * torch.tensor([3.0, 0.5, 0.5])
    network = network_of(dim=3, quadratic=1)
    match_moments(network, x, y)
    Q = network.Q.detach()
    assert 2 < float(Q.square().sum()) < 3.2 and abs(Q[0, 0]) > 10 * Q[0, 1:].abs().max()


def test_learning_rates_follow_the_units():
    network = network_of()
    rates = [{id(g["params"][0]): g["lr"] for g in parameter_groups(network, *s, 0.1)} for s in ((1, 1), (2, 8))]
    ratio = {n: rates[1][id(p)] / rates[0][id(p)] for n, p in network.named_parameters()}
    assert math.isclose(ratio["W"], 0.5) and math.isclose(ratio["shift"], 8) and math.isclose(ratio["Q"], 2)
    assert ratio["bias"] == ratio["log_lambda"] == 1


@pytest.mark.parametrize("name", NETWORKS)
def test_conjugate_points_solve_the_equation(name):
    network = network_of(name).requires_grad_(False)
    y = 2 * torch.randn(16, 3, dtype=torch.float64)
    x = conjugate_points(network, y, torch.zeros_like(y), 40)
    torch.testing.assert_close(network(x), y, atol=1e-6, rtol=0)
    few = conjugate_points(network, y, torch.zeros_like(y), 1)
    # The concave objective never falls.
    assert ((few * y).sum(1) - network.fn(few) >= -1e-12).all()
    quick = approach_points(network, y, torch.zeros_like(y), 40, 3)
    torch.testing.assert_close(quick, x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_linearization_is_the_gradient_and_the_hessian(name):
    network, (x, v) = network_of(name), torch.randn(2, 5, 3, dtype=torch.float64, generator=seeded())
    grad, product = network.linearized(x)
    torch.testing.assert_close(grad, network(x))
    torch.testing.assert_close(product(v), network.hvp(x, v))
    torch.testing.assert_close(product(2 * v), 2 * product(v))


def test_divergence_is_zero_in_the_mean_at_the_target_and_grows():
    loss, g = Sinkhorn(blur=0.2), seeded()
    values = {
        shift: torch.stack([
            divergence(torch.randn(64, 8, generator=g) + shift, torch.randn(64, 8, generator=g), loss)
            for _ in range(60)
        ])
        for shift in (0.0, 1.0)
    }  # fmt: skip
    error = values[0.0].std() / 60**0.5
    assert abs(values[0.0].mean()) < 4 * error
    # W_2^2 / 2 of a shift by 1 in each of 8 coordinates is 4, at most blurred.
    assert 2 < values[1.0].mean() < 5


def test_gradient_of_the_divergence_has_mean_zero_at_the_truth():
    # With pushed samples s y the derivative in s at 1; the usual divergence of batches is biased towards s < 1.
    g, loss, slopes = seeded(), Sinkhorn(blur=0.1), []
    for _ in range(100):
        s = torch.ones((), requires_grad=True)
        value = divergence(s * torch.randn(32, 16, generator=g), torch.randn(32, 16, generator=g), loss)
        slopes.append(torch.autograd.grad(value, s)[0])
    slopes = torch.stack(slopes)
    assert abs(slopes.mean()) < 4 * slopes.std() / 100**0.5


def test_divergence_has_the_units_of_its_cost():
    x, y = torch.randn(2, 40, 3, generator=seeded())
    loss = Sinkhorn()
    torch.testing.assert_close(divergence(10 * x, 10 * y, loss), 100 * divergence(x, y, loss), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loss", [Correlation, SemiDual])
def test_gradient_of_the_dual_is_that_of_the_exact_one(loss):
    network, conjugate = network_of(), network_of(seed=1)
    x, y = torch.randn(2, 30, 3, dtype=torch.float64, generator=seeded())
    objective = loss(newton=40, conjugate=conjugate).bind(network)
    own = torch.autograd.grad(objective.values(x, y)[0], list(network.parameters()), allow_unused=True)
    best = conjugate_points(network, y, torch.zeros_like(y), 40)
    exact = torch.autograd.grad(network.fn(x).mean() - network.fn(best).mean(), list(network.parameters()))
    for a, b in zip(own, exact, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
    value = network.fn(x).mean() + ((best * y).sum(1) - network.fn(best)).mean()
    torch.testing.assert_close(objective.values(x, y)[1], value.detach(), atol=1e-8, rtol=1e-8)


LOSSES = {"sinkhorn": Sinkhorn(), "correlation": Correlation(), "semi-dual": SemiDual()}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=list(LOSSES))
@pytest.mark.parametrize("seed", [0])
def test_fit_reaches_the_map_of_gaussians_without_their_moments(loss, seed):
    pair = gaussian_pair(2, seeded(seed), condition=5.0)
    network = network_of(dim=2, seed=seed, strong_convexity=0.01).float()
    x = pair.source(5000)
    match_scale(network, x, pair.target(5000))
    before = l2_uvp(network, pair.map, x)
    history = fit_map(network, pair.source, pair.target, loss, steps=150, batch=128, learning_rate=5e-2, start="scale")
    assert len(history.loss) == 150 and history.seconds > 0
    after = l2_uvp(network, pair.map, x)
    assert after < 3 and after < before / 5
    assert cosine(network, pair.map, x) > 0.98


@pytest.mark.parametrize("loss", LOSSES.values(), ids=list(LOSSES))
def test_fit_keeps_the_map_of_gaussians(loss):
    pair = gaussian_pair(8, seeded(), condition=20.0)
    network = network_of(dim=8, strong_convexity=0.01).float()
    fit_map(network, pair.source, pair.target, loss, steps=30, batch=256, learning_rate=5e-3)
    assert l2_uvp(network, pair.map, pair.source(4000)) < 1


def test_fit_does_not_depend_on_units_and_means():
    x, y = torch.randn(2, 3000, 2, generator=seeded(), dtype=torch.float64)
    y = y @ torch.tensor([[1.0, 0.5], [0.0, 0.7]], dtype=torch.float64)
    s, t, m, n = 7.0, 0.1, torch.tensor([30.0, -50.0]).double(), torch.tensor([2.0, 3.0]).double()
    images = []
    for scale, u, v in ((1.0, x, y), (s, s * x + m, t * y + n)):
        network = network_of(dim=2, strong_convexity=0.0)
        fit_map(network, u, v, Sinkhorn(), steps=20, batch=64, generator=seeded(3))
        images.append(network(u[:50]).detach() if scale == 1 else (network(u[:50]).detach() - n) / t)
    torch.testing.assert_close(images[0], images[1], atol=1e-3, rtol=1e-3)


def test_fit_on_fixed_samples_repeats_with_the_generator():
    x, y = torch.randn(2, 300, 2, generator=seeded())
    fits = []
    for _ in range(2):
        network = network_of(dim=2).float()
        fit_map(network, x, 2 * y + 1, Correlation(), steps=5, batch=32, generator=seeded(5))
        fits.append(network(x).detach())
    assert torch.equal(*fits)


@pytest.mark.parametrize("loss", [Correlation, SemiDual])
def test_given_conjugate_is_trained_to_be_the_inverse(loss):
    pair = gaussian_pair(2, seeded(), condition=5.0)
    network, back = (network_of(dim=2, seed=i, strong_convexity=0.01).float() for i in range(2))
    fit_map(network, pair.source, pair.target, loss(conjugate=back), steps=60, batch=128)
    y = pair.target(1000)
    with torch.no_grad():
        cycled = network(back(y))
    assert (cycled - y).square().sum(1).mean() < 0.02 * y.var(0).sum()


def test_a_fit_ends_after_its_time_or_when_it_is_told():
    told = []
    history = fit_map(
        network_of(dim=2), GOOD, GOOD, SemiDual(), batch=8, callback=lambda *at: told.append(at) or len(told) == 3
    )
    assert [step for step, _ in told] == [0, 1, 2] and history.loss == tuple(loss for _, loss in told)
    history = fit_map(network_of(dim=2), GOOD, GOOD, SemiDual(), steps=10**6, batch=8, seconds=0.1)
    assert 0 < len(history.loss) < 10**5


def test_time_is_that_of_the_given_clock():
    ticks = iter(range(10**6))
    history = fit_map(network_of(dim=2), GOOD, GOOD, batch=8, seconds=10, clock=lambda: next(ticks))
    assert 3 <= len(history.loss) <= 10 and history.seconds >= 10


@pytest.mark.parametrize("loss", [SemiDual(), Sinkhorn()], ids=["semi-dual", "sinkhorn"])
def test_an_interrupted_fit_goes_on_as_if_it_had_not_been(loss, tmp_path):
    x, y = torch.randn(2, 300, 2, generator=seeded())
    options = {"steps": 8, "batch": 16}
    whole, parts = (network_of(dim=2).float() for _ in range(2))
    once = fit_map(whole, x, 2 * y + 1, loss, generator=seeded(5), **options)
    path = tmp_path / "fit.pt"
    fit_map(
        parts, x, 2 * y + 1, loss, generator=seeded(5), checkpoint=path, callback=lambda step, _: step == 3, **options
    )
    other = network_of(dim=2, seed=7).float()
    twice = fit_map(other, x, 2 * y + 1, loss, generator=seeded(9), checkpoint=path, **options)
    torch.testing.assert_close(twice.loss, once.loss)
    torch.testing.assert_close(other(x).detach(), whole(x).detach())
    # What has ended has ended.
    assert fit_map(other, x, 2 * y + 1, loss, checkpoint=path, **options).loss == twice.loss
    torch.testing.assert_close(other(x).detach(), whole(x).detach())


def test_checkpoints_of_other_fits_are_refused(tmp_path):
    path = tmp_path / "fit.pt"
    fit_map(network_of(dim=2), GOOD, GOOD, steps=2, batch=8, checkpoint=path)
    with pytest.raises(ValueError, match=r"fit with batch = 8, expected 16"):
        fit_map(network_of(dim=2), GOOD, GOOD, steps=2, batch=16, checkpoint=path)
    with pytest.raises(ValueError, match=r"is of other networks"):
        fit_map(network_of("deep", dim=2), GOOD, GOOD, steps=2, batch=8, checkpoint=path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"checkpoint: .*fit.pt is no checkpoint of a fit"):
        fit_map(network_of(dim=2), GOOD, GOOD, steps=2, batch=8, checkpoint=path)


def test_a_fit_ends_when_the_bounds_of_the_cost_are_near():
    pair = gaussian_pair(2, seeded(), condition=3.0)
    network = network_of(dim=2, strong_convexity=0.05)
    options = {"steps": 40, "batch": 64, "generator": seeded(1)}
    history = fit_map(network, pair.source, pair.target, held_out=4000, tol=0.5, **options)
    # The start is the map up to the curved part: the first look is the last one.
    assert len(history.loss) == 4 and abs(history.bounds[0].moved - history.bounds[0].lower) < 0.5
    x, y = pair.source(500), pair.target(500)
    history = fit_map(network, x, y, held_out=500, **options)
    assert len(history.loss) == 40 and len(history.bounds) == 1
    bounds = cost_bounds(network, x, y)
    assert history.bounds[0].lower == pytest.approx(bounds.lower, rel=0.2)


def test_the_bar_shows_the_loss(capsys):
    fit_map(network_of(dim=2), GOOD, GOOD, steps=2, batch=8, progress=True)
    assert "loss" in capsys.readouterr().err


def test_bounds_of_the_cost_are_those_of_an_assignment():
    # The cost between empirical measures of equal size is that of the best assignment.
    pair = gaussian_pair(3, seeded(), condition=4.0)
    x, y = pair.source(120).double(), pair.target(120).double()
    squares = torch.cdist(x, y).square() / 2
    best = float(squares[linear_sum_assignment(squares.numpy())].mean())
    network = network_of(dim=3, strong_convexity=0.05)
    before = cost_bounds(network, x, y)
    fit_map(network, x, y, SemiDual(), steps=300, batch=120, learning_rate=5e-2)
    after = cost_bounds(network, x, y)
    assert before.lower < after.lower <= best and after.lower > 0.8 * best
    exact = 0.5 * (network(x) - x).square().sum(1).mean()
    assert after.moved == pytest.approx(float(exact.detach()))
    # From x to where the map takes it, both are the cost.
    own = cost_bounds(network, x, network(x).detach(), x)
    assert own.lower == pytest.approx(own.moved, rel=1e-9)


def test_the_map_of_the_benchmark_is_the_gradient_of_its_potential(tmp_path):
    dim, widths, arrays, g = 2, (5, 4, 3), {}, seeded()
    for name in ("v1", "v2"):
        for i, width in enumerate(widths):
            shapes = {"q": (dim, width), "w": (width, dim), "b": (width,)}
            arrays |= {f"{name}.{key}{i}": torch.randn(shape, generator=g).numpy() for key, shape in shapes.items()}
            if i:
                arrays[f"{name}.u{i}"] = torch.rand(width, widths[i - 1], generator=g).numpy()
        arrays[f"{name}.out"] = torch.rand(1, widths[-1], generator=g).numpy()
    arrays |= {"centers": np.eye(3, dim), "maps": np.stack([np.eye(dim)] * 3), "std": np.float64(0.5)}
    arrays |= {"shift": np.ones(dim), "scale": np.float64(0.3)}
    np.savez(tmp_path / "mix3to10_2.npz", **arrays)
    pair = mix3_to_mix10(tmp_path, dim, seeded())
    x = pair.source(50).double().requires_grad_()

    def potential(name):
        a = {key[3:]: torch.as_tensor(value).double() for key, value in arrays.items() if key.startswith(name)}
        h = (x @ a["q0"]) ** 2 + x @ a["w0"].T + a["b0"]
        for i in (1, 2):
            h = torch.celu(h @ a[f"u{i}"].T + (x @ a[f"q{i}"]) ** 2 + x @ a[f"w{i}"].T + a[f"b{i}"])
        return (h @ a["out"].T)[:, 0] + 0.005 * x.square().sum(1)

    grad = torch.autograd.grad((potential("v1") + potential("v2")).sum(), x)[0]
    torch.testing.assert_close(pair.map(x.detach()), 0.3 * (grad + 1), rtol=1e-6, atol=1e-6)
    assert pair.target(7).shape == (7, dim)
    with pytest.raises(FileNotFoundError, match=r"expected one of \['mix3to10_2.npz'\]"):
        mix3_to_mix10(tmp_path, 4, seeded())


def test_zero_steps_are_the_start_and_the_network_goes_on():
    x, y = torch.randn(2, 300, 2, generator=seeded())
    network = network_of(dim=2).float()
    fit_map(network, x, y, Sinkhorn(), steps=0)
    before = network(x).detach()
    fit_map(network, x, y, Sinkhorn(), steps=0, start="network")
    torch.testing.assert_close(network(x).detach(), before, atol=1e-5, rtol=1e-5)


def test_device(device):
    pair = gaussian_pair(2, seeded())
    network = network_of(dim=2).float().to(device)
    for loss in LOSSES.values():
        fit_map(network, pair.source(300).to(device), pair.target(300).to(device), loss, steps=2, batch=32)
    assert network(pair.source(4).to(device)).device.type == device


GOOD = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
NAN = torch.where(torch.arange(50)[:, None] == 7, math.nan, GOOD)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (torch.randn(50, 3), GOOD, r"source: got shape \(50, 3\), expected \(B, 2\)"),
        (GOOD, torch.randn(50, 3), r"target: got shape"),
        (NAN, GOOD, r"source: got nan or infinite numbers in rows \[7\]"),
        (GOOD, lambda n: torch.full((n, 2), math.inf), "target: got nan"),
        (GOOD[:1], GOOD, "source: got 1 vectors, expected at least 2"),
        (GOOD[:2], GOOD, "source: got 2 vectors, expected at least 3"),
        (GOOD * torch.tensor([1.0, 0.0]), GOOD, "singular covariance"),
        (GOOD, torch.ones(50, 2), "target: got samples of variance 0"),
    ],
)
def test_bad_samples_are_refused(source, target, message):
    with pytest.raises(ValueError, match=message):
        fit_map(network_of(dim=2).float(), source, target, Sinkhorn(), steps=1)


def test_bad_types_are_refused():
    with pytest.raises(TypeError, match=r"source: got torch.int64"):
        fit_map(network_of(dim=2), torch.ones(9, 2, dtype=torch.int64), GOOD, Sinkhorn())
    with pytest.raises(TypeError, match=r"target: got str"):
        make_sampler("target", "samples", None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps, batch: got -1"),
        ({"batch": 3}, "steps, batch: got 1000, 3"),
        ({"learning_rate": 0.0}, "learning_rate: got 0.0"),
        ({"seconds": 0.0}, "seconds: got 0.0"),
        ({"held_out": 1}, "held_out: got 1, expected 0 for none, or at least 2"),
        ({"tol": 0.1}, "tol: got 0.1 with held_out=0"),
        ({"start": "zero"}, "start: got 'zero', expected one of assignments, moments, scale, network"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fit_map(network_of(dim=2), GOOD, GOOD, Sinkhorn(), **options)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Sinkhorn(blur=0.0), "blur: got 0.0"),
        (lambda: Sinkhorn(scaling=1.0), "scaling: got 1.0"),
        (lambda: Correlation(cycle=-1.0), "cycle: got -1.0"),
        (lambda: Correlation(newton=-1), "newton: got -1"),
        (lambda: Correlation(conjugate=network_of(dim=3)).bind(network_of(dim=2)), "conjugate: got dimension 3"),
        (lambda: SemiDual(newton=0), "newton, inner: got 0, 4"),
        (lambda: SemiDual(conjugate=network_of(dim=3)).bind(network_of(dim=2)), "conjugate: got dimension 3"),
        (lambda: divergence(GOOD[:3], GOOD, Sinkhorn()), "batch: got 3 and 50 samples"),
        (lambda: mixture_pair(2, seeded(), components=0), "components: got 0"),
        (lambda: random_covariance(2, seeded(), condition=0.5), "dim, condition: got 2, 0.5"),
        (lambda: l2_uvp(lambda x: x, lambda x: 0 * x, GOOD), "optimal: got a constant map"),
        (lambda: cosine(lambda x: x, lambda x: 2 * x, GOOD), "identity"),
        (lambda: l2_uvp(lambda x: x[:, :1], lambda x: x, GOOD), r"map\(x\): got shape"),
        (lambda: l2_uvp(lambda x: x[:4], lambda x: x, GOOD), r"got \[4, 50\] images, expected 50"),
        (lambda: l2_uvp(lambda x: x, lambda x: x, NAN), "x: got nan"),
    ],
)
def test_bad_parameters_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


EYE, ZERO = torch.eye(2), torch.zeros(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ZERO, torch.ones(2, 2), ZERO, EYE), "cov: got a singular covariance"),
        ((ZERO, EYE, ZERO, torch.tensor([[1.0, 0.5], [0.0, 1.0]])), "target_cov: got a matrix with"),
        ((ZERO, EYE, ZERO, torch.diag(torch.tensor([1.0, -1.0]))), "target_cov: got an eigenvalue -1"),
        ((ZERO, torch.eye(3), ZERO, EYE), r"cov: got shape \(3, 3\), expected \(2, 2\)"),
        ((ZERO, EYE, torch.zeros(3), EYE), r"target_mean: got shape \(3,\)"),
        ((torch.tensor(0.0), EYE, ZERO, EYE), r"mean: got shape \(\)"),
        ((ZERO * math.nan, EYE, ZERO, EYE), "mean: got nan"),
        ((ZERO, EYE * math.nan, ZERO, EYE), "cov: got nan"),
        ((ZERO, 0 * EYE, ZERO, EYE), "singular"),
    ],
)
def test_bad_gaussians_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gaussian_map(*arguments)


def test_a_loss_that_is_not_finite_stops_the_fit():
    class Broken(Sinkhorn):
        def bind(self, network):
            objective = super().bind(network)
            objective.values = lambda x, y: (network(x).sum() * math.nan, torch.tensor(math.nan))
            return objective

    network = network_of(dim=2).float()
    with pytest.raises(FloatingPointError, match="step 0: the loss is nan"):
        fit_map(network, GOOD, GOOD, Broken(), steps=3)
    assert all(torch.isfinite(p).all() for p in network.parameters())


def test_missing_geomloss_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "geomloss", None)
    with pytest.raises(ImportError, match=r"icgn\[transport\]"):
        divergence(GOOD, GOOD, Sinkhorn())


def test_benchmark_writes_its_table(monkeypatch, tmp_path, script):
    module = script("transport")
    arguments = "transport --dims 2 --mixtures 2 --seeds 0 --steps 2 --batch 16 --starts moments --output"
    monkeypatch.setattr(sys, "argv", [*arguments.split(), str(tmp_path)])
    module.main()
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert {(r["pair"], r["loss"]) for r in rows} == {
        (p, loss) for p in ("Gaussian, d = 2", "mixture, d = 2") for loss in ("Sinkhorn", "correlation")
    }
    text = (tmp_path / "table.md").read_text()
    assert all(f"{r['uvp']:.3f}" in text for r in rows)
