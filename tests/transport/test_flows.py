"""Log-determinants, convex potential flows and Wasserstein flows: closed forms, exactness, unbiasedness, bad input."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from icgn.transport.composition import Composition, DiagonalAffine, fit_affine
from icgn.transport.convex_flow import ConvexPotentialFlow, FlowRecipe, fit_flow, mean_log_prob
from icgn.transport.dense import DenseDeepICGN, DenseGroupICGN, DenseRidgeICGN, DenseSoftmaxICGN
from icgn.transport.logdet import ExactLogDet, StochasticLogDet
from icgn.transport.samples import covariance
from icgn.transport.vectors import GradientNetwork
from icgn.transport.wasserstein import (
    JKORecipe,
    OrnsteinUhlenbeck,
    WassersteinFlow,
    jko_energy,
    jko_step,
    symmetric_kl,
)

KINDS = {
    "ridge": lambda n: DenseRidgeICGN(n, width=12, strong_convexity=0.2, quadratic=n),
    "deep": lambda n: DenseDeepICGN(n, widths=(6, 5), strong_convexity=0.2, quadratic=n),
    "softmax": lambda n: DenseSoftmaxICGN(n, groups=3, members=4, strong_convexity=0.2, quadratic=2),
    "group": lambda n: DenseGroupICGN(n, groups=3, members=3, strong_convexity=0.2),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def network(kind="ridge", n=5, seed=0):
    torch.manual_seed(seed)
    return KINDS[kind](n).double()


def linear(matrix, offset=None):
    """The network of one affine map of points, x -> A x + b."""
    net = DenseRidgeICGN(len(matrix), width=1, strong_convexity=0.01, quadratic=len(matrix)).double()
    with torch.no_grad():
        net.W.zero_()
        net.Q.copy_(torch.linalg.cholesky(matrix - 0.01 * torch.eye(len(matrix)).double()).T)
        if offset is not None:
            net.shift.copy_(offset)
    return net


def spd(n, seed=0):
    a = normal(n, n, seed=seed)
    return a @ a.T / n + 0.5 * torch.eye(n).double()


def gradients(net, value, x=None):
    wanted = [p for p in net.parameters() if p.numel()] + ([] if x is None else [x])
    found = torch.autograd.grad(value.sum(), wanted, retain_graph=True, allow_unused=True)
    return torch.cat(
        [torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(wanted, found, strict=True)]
    )


# --- log-determinants ---


@pytest.mark.parametrize("kind", KINDS)
def test_exact_logdet_is_that_of_the_matrix(kind):
    net, x = network(kind), normal(6, 5)
    torch.testing.assert_close(ExactLogDet()(net, x), torch.linalg.slogdet(net.jacobian(x)).logabsdet)


@pytest.mark.parametrize("kind", KINDS)
def test_jacobian_is_the_derivative(kind):
    net, x = network(kind), normal(4, 5)
    torch.testing.assert_close(net.jacobian(x), GradientNetwork.jacobian(net, x))
    direct = torch.func.vmap(torch.func.jacrev(lambda p: net(p[None])[0]))(x)
    torch.testing.assert_close(net.jacobian(x), direct)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("iterations", [5, 40])
def test_stochastic_logdet_is_exact_with_a_full_set_of_orthogonal_probes(kind, iterations):
    net, x = network(kind), normal(6, 5).requires_grad_()
    estimate = StochasticLogDet(
        probes=5, iterations=iterations, tolerance=0.0, distribution="orthogonal", generator=generator()
    )(net, x)
    exact = ExactLogDet()(net, x)
    torch.testing.assert_close(estimate, exact)
    torch.testing.assert_close(gradients(net, estimate, x), gradients(net, exact, x))


@pytest.mark.parametrize("distribution", ["rademacher", "gaussian", "orthogonal"])
def test_stochastic_logdet_is_unbiased(distribution):
    net, x, rounds = network("deep", 4), normal(2, 4), 4000
    with torch.no_grad():
        exact = ExactLogDet()(net, x)
        probes = 2 if distribution == "orthogonal" else 1
        many = StochasticLogDet(
            probes=probes, iterations=4, tolerance=0.0, distribution=distribution, generator=generator(1)
        )(net, x.repeat(rounds, 1)).view(rounds, 2)
    error = (many.mean(0) - exact).abs() / (many.std(0) / math.sqrt(rounds))
    assert float(error.max()) < 4
    # Derivatives: the average of many probes is near the exact one, and nearer than that of few.
    estimate = (
        StochasticLogDet(probes=probes, iterations=4, tolerance=0.0, distribution=distribution, generator=generator(2))(
            net, x.repeat(rounds, 1)
        )
        / rounds
    )
    truth = gradients(net, ExactLogDet()(net, x))
    assert float((gradients(net, estimate) - truth).norm()) < 0.05 * float(truth.norm())


def test_few_lanczos_steps_are_accurate_and_the_tolerance_ends_them():
    net, x = network("ridge", 30), normal(3, 30)
    exact = ExactLogDet()(net, x)
    errors, slopes = [], []
    for m in (3, 8, 30):
        estimate = StochasticLogDet(
            probes=30, iterations=m, tolerance=0.0, distribution="orthogonal", generator=generator()
        )(net, x)
        errors.append(float((estimate - exact).detach().abs().max()))
        slopes.append(float((gradients(net, estimate) - gradients(net, exact)).norm()))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-9 and slopes[0] > slopes[1] > slopes[2]
    loose = StochasticLogDet(
        probes=30, iterations=30, tolerance=1e-3, distribution="orthogonal", generator=generator()
    )(net, x)
    assert errors[2] < float((loose - exact).detach().abs().max()) < 1e-2


def test_an_invariant_subspace_ends_the_lanczos_steps():
    # The first basis vector is an eigenvector of a multiple of the identity.
    net, x = linear(2 * torch.eye(4).double()), normal(3, 4)
    value = StochasticLogDet(probes=1, iterations=4, tolerance=0.0)(net, x)
    torch.testing.assert_close(value, torch.full_like(value, 4 * math.log(2)))
    assert bool(torch.isfinite(gradients(net, value)).all())


# --- vectors ---


@pytest.mark.parametrize("kind", ["ridge", "deep"])
def test_inverse_relies_on_the_quadratic_part(kind):
    net, x = network(kind), normal(6, 5)
    net.mu = 0.0
    assert float(net.strong_convexity()) > 0
    found = net.inverse(net(x).detach(), tol=1e-9)
    assert float((found - x).square().mean(1).sqrt().max()) <= 1e-9


def test_fit_affine_has_the_mean_and_the_mean_jacobian():
    for kind in ("ridge", "deep"):
        net, x, target = network(kind), normal(200, 5), spd(5)
        fit_affine(net, x, target, torch.arange(5).double())
        torch.testing.assert_close(net(x).mean(0).detach(), torch.arange(5).double())
        torch.testing.assert_close(net.jacobian(x).mean(0).detach(), target)


# --- compositions ---


def composition(n=3):
    layers = []
    for seed, kind in enumerate(("ridge", "deep", "softmax")):
        affine = DiagonalAffine(n).double()
        with torch.no_grad():
            affine.log_scale.copy_(0.5 * normal(n, seed=seed))
            affine.centre.copy_(normal(n, seed=seed + 9))
        layers += [affine, network(kind, n, seed)]
    return Composition(layers)


def test_pushed_logdet_is_that_of_the_whole_jacobian():
    flow, x = composition(), normal(5, 3)
    pushed = flow.push(x)
    whole = torch.func.vmap(torch.func.jacrev(lambda p: flow(p[None])[0]))(x)
    torch.testing.assert_close(pushed.points, flow(x))
    torch.testing.assert_close(pushed.logdet, torch.linalg.slogdet(whole).logabsdet)


@pytest.mark.parametrize("tol", [1e-3, 1e-8])
def test_inverse_of_a_composition_keeps_its_tolerance(tol):
    flow, x = composition(), normal(20, 3)
    found = flow.inverse(flow(x).detach(), tol)
    assert float((found - x).square().mean(1).sqrt().max()) <= tol


# --- convex potential flows ---


def test_density_of_an_affine_flow_is_a_gaussian():
    # T = A x + b pulls N(0, I) back to N(-A^{-1} b, A^{-2}).
    A, b, x = spd(3), normal(3, seed=4), normal(7, 3, seed=5)
    flow = ConvexPotentialFlow([linear(A, b)]).double()
    root = torch.linalg.inv(A)
    truth = MultivariateNormal(-root @ b, root @ root)
    torch.testing.assert_close(flow.log_prob(x), truth.log_prob(x))


def test_density_of_a_flow_integrates_to_one():
    flow = ConvexPotentialFlow([network("ridge", 2, 1), network("deep", 2, 2)]).double()
    line = torch.linspace(-30, 30, 501).double()
    with torch.no_grad():
        total = flow.log_prob(torch.cartesian_prod(line, line)).exp().sum() * float(line[1] - line[0]) ** 2
    assert float(total) == pytest.approx(1, abs=1e-4)


def test_samples_are_preimages_of_normal_points():
    flow = ConvexPotentialFlow([network("ridge", 2, 1), network("softmax", 2, 2)]).double()
    x = flow.sample(50, generator(3), tol=1e-8)
    z = torch.randn(50, 2, generator=generator(3)).double()
    torch.testing.assert_close(flow(x).detach(), z, atol=1e-5, rtol=0)


def test_initialized_flow_is_near_the_gaussian_of_the_points():
    x = normal(2000, 3) @ torch.linalg.cholesky(spd(3, 7)).T * torch.tensor([1.0, 100.0, 1e-3]) + 5
    torch.manual_seed(0)
    flow = ConvexPotentialFlow([DenseRidgeICGN(3, width=16, strong_convexity=0.02, quadratic=3)]).double()
    flow.initialize(x)
    truth = MultivariateNormal(x.mean(0), covariance(x))
    assert mean_log_prob(flow, x) == pytest.approx(float(truth.log_prob(x).mean()), abs=0.1)


def bimodal(count, seed):
    sign = torch.randint(2, (count, 1), generator=generator(seed)) * 2 - 1
    return (2 * sign * torch.tensor([1.0, 0.5]) + 0.5 * torch.randn(count, 2, generator=generator(seed + 50))).float()


@pytest.mark.parametrize(
    "logdet", [ExactLogDet(), StochasticLogDet(probes=1, iterations=2)], ids=["exact", "stochastic"]
)
def test_fit_flow_comes_near_the_entropy_of_two_gaussians(logdet):
    x, validation, test = (bimodal(1000, seed) for seed in (0, 1, 2))
    torch.manual_seed(0)
    flow = ConvexPotentialFlow([DenseRidgeICGN(2, width=16, strong_convexity=0.02, quadratic=2)])
    flow.initialize(x)
    rows = fit_flow(flow, x, validation, FlowRecipe(steps=250, learning_rate=3e-2), generator(), logdet=logdet)
    mean = torch.tensor([2.0, 1.0])
    parts = [MultivariateNormal(s * mean, torch.eye(2) / 4).log_prob(test) - math.log(2) for s in (-1, 1)]
    truth = float(torch.logaddexp(*parts).mean())
    assert rows[0].step == 0 and rows[0].validation < truth - 0.5
    assert truth - 0.15 < mean_log_prob(flow, test) < truth + 0.02
    assert mean_log_prob(flow, validation) == max(row.validation for row in rows)


# --- Wasserstein flows ---


def process(n=2):
    return OrnsteinUhlenbeck(spd(n, 3), normal(n, seed=4), temperature=0.7)


def gaussian(n=2):
    return MultivariateNormal(normal(n, seed=6), 0.3 * torch.eye(n).double())


def test_marginals_solve_their_equations():
    # dm/dt = -A (m - b), dC/dt = -A C - C A + 2 tau I, by central differences.
    ou, start, t, e = process(3), MultivariateNormal(normal(3), spd(3, 9)), 0.4, 1e-4
    before, at, after = (ou.marginal(start, s) for s in (t - e, t, t + e))
    A, C = ou.stiffness, at.covariance_matrix
    torch.testing.assert_close((after.mean - before.mean) / (2 * e), -A @ (at.mean - ou.centre), rtol=1e-6, atol=1e-6)
    change = (after.covariance_matrix - before.covariance_matrix) / (2 * e)
    torch.testing.assert_close(change, -A @ C - C @ A + 1.4 * torch.eye(3).double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ou.marginal(start, 0.0).covariance_matrix, start.covariance_matrix)


def test_implicit_step_is_a_minimum_of_the_energy():
    ou, before, h = process(), gaussian(), 0.2
    after = ou.implicit_step(before, h)
    x = before.mean + math.sqrt(0.3) * normal(4000, 2)
    x = before.mean + (x - x.mean(0)) @ torch.linalg.inv(
        torch.linalg.cholesky(torch.cov(x.T, correction=0))
    ).mT * math.sqrt(0.3)
    S = after.covariance_matrix @ torch.linalg.inv(before.covariance_matrix)
    values, vectors = torch.linalg.eigh(S)
    S = vectors * values.sqrt() @ vectors.T  # the optimal map between Gaussians whose covariances commute
    recipe = JKORecipe(step=h, temperature=0.7)

    def energy(matrix, offset):
        return float(jko_energy(linear(matrix, offset), x, ou.potential, recipe).detach())

    offset = after.mean - S @ before.mean
    least = energy(S, offset)
    for seed in range(4):
        turn, push = spd(2, seed) - torch.eye(2).double(), normal(2, seed=seed)
        up, down = (energy(S + s * turn, offset + s * push) for s in (1e-3, -1e-3))
        assert min(up, down) > least and abs(up - down) < 1e-3 * (up + down - 2 * least) + 1e-7


def test_implicit_steps_approach_the_process():
    ou, start = process(), gaussian()
    errors = []
    for count in (5, 10, 20):
        density = start
        for _ in range(count):
            density = ou.implicit_step(density, 1 / count)
        errors.append(float(kl_divergence(density, ou.marginal(start, 1.0))))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def affine_flow(n=2):
    start, maps = gaussian(n), [linear(spd(n, 1), normal(n, seed=1)), linear(spd(n, 2), normal(n, seed=2))]
    A, B = spd(n, 1), spd(n, 2)
    mean = B @ (A @ start.mean + normal(n, seed=1)) + normal(n, seed=2)
    density = MultivariateNormal(mean, B @ A @ start.covariance_matrix @ A @ B)
    return WassersteinFlow(start, maps), density


def test_density_of_pushed_gaussians():
    flow, truth = affine_flow()
    y = truth.mean + normal(9, 2)
    torch.testing.assert_close(flow.log_prob(y, 1e-9), truth.log_prob(y), atol=1e-6, rtol=1e-6)


def test_symmetric_kl_is_that_of_gaussians():
    flow, truth = affine_flow()
    target, count = MultivariateNormal(truth.mean + 0.3, 1.3 * truth.covariance_matrix), 20000
    start = flow.initial.mean + normal(count, 2) @ flow.initial.scale_tril.T
    reference = target.mean + normal(300, 2, seed=1) @ target.scale_tril.T
    found = symmetric_kl(flow, target, start, reference)
    exact = float(kl_divergence(truth, target) + kl_divergence(target, truth))
    assert abs(found.symmetric - exact) < 4 * found.error and found.error < 0.2
    same = symmetric_kl(flow, truth, start, truth.mean + normal(50, 2) @ truth.scale_tril.T)
    assert abs(same.symmetric) < 1e-4


def test_jko_steps_follow_the_process():
    torch.manual_seed(0)
    ou = OrnsteinUhlenbeck(torch.tensor([[1.5, 0.5], [0.5, 1.0]]), torch.tensor([1.0, -0.5]))
    start, h, maps = MultivariateNormal(torch.tensor([-1.0, -1.0]), torch.eye(2) / 4), 0.1, []
    x = start.mean + torch.randn(4000, 2, generator=generator()) / 2
    points = x
    for _ in range(4):
        net = DenseRidgeICGN(2, width=8, strong_convexity=0.02, quadratic=2)
        fit_affine(net, points, torch.eye(2), points.mean(0), curved=0.1)
        jko_step(net, points, ou.potential, JKORecipe(step=h, steps=60, learning_rate=2e-2), generator())
        maps.append(net.requires_grad_(False))
        points = net(points)
    truth = ou.marginal(start, 4 * h)
    reference = truth.mean + torch.randn(300, 2, generator=generator(1)) @ truth.scale_tril.T
    found = symmetric_kl(WassersteinFlow(start, maps), truth, x, reference, tol=1e-4)
    still = float(kl_divergence(start, truth) + kl_divergence(truth, start))
    assert found.symmetric < 0.1 < 1 < still


# --- bad input ---

FLOW = ConvexPotentialFlow([DenseRidgeICGN(2, width=4, strong_convexity=0.1, quadratic=2)])
NAN = torch.tensor([[0.0, 1.0], [math.nan, 0.0], [1.0, 1.0]])
LINE = torch.arange(20.0)[:, None] * torch.tensor([1.0, 2.0])
EYE = torch.eye(2)
BAD = {
    "dimension": (lambda: FLOW.log_prob(torch.zeros(4, 3)), r"x: got shape \(4, 3\), expected \(B, 2\)"),
    "nan": (lambda: FLOW.log_prob(NAN), r"x: got nan or infinite numbers in rows \[1\]"),
    "nan to invert": (lambda: FLOW.inverse(NAN), r"y: got nan or infinite numbers in rows \[1\]"),
    "nan in training": (lambda: fit_flow(FLOW, NAN, NAN, FlowRecipe(), generator()), r"x: got nan"),
    "nan in validation": (
        lambda: fit_flow(FLOW, NAN[:1], NAN, FlowRecipe(), generator()),
        r"validation: got nan or infinite numbers in rows \[1\]",
    ),
    "nan to start": (lambda: FLOW.initialize(NAN), r"x: got nan"),
    "singular covariance": (lambda: FLOW.initialize(LINE), r"x: got a singular covariance \(least eigenvalue"),
    "constant coordinate": (lambda: FLOW.initialize(LINE * EYE[0]), r"covariance \(coordinates \[1\] are constant\)"),
    "few points": (lambda: FLOW.initialize(LINE[:2]), "x: got 2 points, expected more than their dimension 2"),
    "tolerance": (lambda: FLOW.inverse(LINE, tol=0.0), "tol: got 0.0, expected a positive number"),
    "samples": (lambda: FLOW.sample(0, generator()), "count: got 0"),
    "no layers": (lambda: ConvexPotentialFlow([]), r"layers: got dimensions \[\]"),
    "layers": (lambda: Composition([DenseRidgeICGN(2), DenseRidgeICGN(3)]), r"layers: got dimensions \[2, 3\]"),
    "rows of Q": (
        lambda: fit_affine(DenseRidgeICGN(2), LINE, EYE, EYE[0]),
        r"network: got quadratic=0, expected at least 2 rows of Q",
    ),
    "no density": (
        lambda: ExactLogDet()(linear_singular(), LINE[:2]),
        r"network: the Jacobian is not positive definite at points \[0, 1\]",
    ),
    "no inverse": (lambda: Composition([DenseRidgeICGN(2)]).inverse(LINE), "strong_convexity: got 0"),
    "probes": (lambda: StochasticLogDet(probes=0), "probes, iterations: got 0, 20"),
    "orthogonal": (
        lambda: StochasticLogDet(probes=3, distribution="orthogonal")(FLOW.layers[1], LINE),
        "probes: got 3",
    ),
    "distribution": (lambda: StochasticLogDet(distribution="cauchy"), "distribution: got 'cauchy'"),
    "cg tolerance": (lambda: StochasticLogDet(tolerance=-1.0), "tolerance: got -1.0"),
    "recipe": (lambda: FlowRecipe(batch=0), "batch: got 0"),
    "noise": (lambda: FlowRecipe(noise=-1.0), "learning_rate, noise: got 0.01, -1.0"),
    "time step": (lambda: JKORecipe(step=0.0), "step: got 0.0"),
    "initial": (
        lambda: WassersteinFlow(MultivariateNormal(torch.zeros(3), torch.eye(3)), [DenseRidgeICGN(2)]),
        r"initial: got vectors \(3,\), expected \(2,\)",
    ),
    "potential": (
        lambda: jko_step(FLOW.layers[1], LINE, lambda x: x.sum(), JKORecipe(), generator()),
        r"potential: got values of shape \(\) for 2 points",
    ),
    "jko dimension": (
        lambda: jko_step(FLOW.layers[1], LINE[:, :1], lambda x: x.sum(1), JKORecipe(), generator()),
        r"x: got shape \(20, 1\), expected \(B, 2\)",
    ),
    "stiffness": (lambda: OrnsteinUhlenbeck(torch.tensor([[1.0, 0.5], [0.0, 1.0]]), EYE[0]), "stiffness: got a tensor"),
    "indefinite": (lambda: OrnsteinUhlenbeck(torch.diag(EYE[0]), EYE[0]), "stiffness: got a matrix that is not posit"),
    "temperature": (lambda: OrnsteinUhlenbeck(EYE, EYE[0], temperature=0.0), "temperature: got 0.0"),
    "commuting": (
        lambda: process().implicit_step(MultivariateNormal(torch.zeros(2).double(), spd(2, 9)), 0.1),
        "before: got a covariance that does not commute",
    ),
}


def linear_singular():
    net = DenseRidgeICGN(2, width=1, quadratic=1)
    with torch.no_grad():
        net.W.zero_()
        net.Q.fill_(1.0)  # a singular matrix without rounding
    return net


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_integers_are_refused():
    with pytest.raises(TypeError, match=r"x: got torch.int64, expected a floating-point tensor \(B, 2\)"):
        FLOW.log_prob(torch.zeros(3, 2, dtype=torch.int64))


def test_the_page_of_the_flows_has_the_means_of_their_tables(script, tmp_path):
    likelihoods = ["moons,1,flow,-3.0", "moons,0,flow,-1.0", "moons,0,Gaussian,-2.5"]
    header = 'data,seed,model,"held-out log-likelihood, nats"'
    (tmp_path / "convex_potential_flow.csv").write_text("\n".join([header, *likelihoods]))
    header = "d,seed,t,KL(flow|truth),KL(truth|flow),symmetric,standard error,exact implicit steps,initial density"
    (tmp_path / "wasserstein_flow.csv").write_text(f"{header}\n2,0,0.15,0.01,0.02,0.03,0.004,0.005,6")
    lines = script("flows_table").page(tmp_path).splitlines()
    assert "| moons | -2.50 (-2.50) | - | -2.00 (-1.00, -3.00) | - |" in lines
    assert "| 2 | 0.15 | 0.030 ± 0.004 | 0.0050 | 6.00 |" in lines
    assert "over seeds 0, 1 of" in lines[0]
