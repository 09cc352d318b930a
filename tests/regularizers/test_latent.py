"""Ridge networks with latent pictures: partial minima, the lifted problem, certificates, derivatives."""

import deepinv
import pytest
import torch
from deepinv.physics.functional.blur import gaussian_blur
from latent_cases import latent

from icgn.functionals.functional import BlackBoxFunctional
from icgn.functionals.sums import SumFunctional
from icgn.regularizers import LatentICGN, PerChannel, RidgeICGN, TotalVariation, load_pretrained, save_model
from icgn.regularizers.latent import JointFunctional, LatentQuadratic
from icgn.regularizers.scaled import ScaledRegularizer
from icgn.solvers import Problem, Status, solve
from icgn.solvers.objective import LiftedObjective, VisibleBox
from icgn.solvers.partial import PartialMinimum
from icgn.training import Recipe
from icgn.training.command import build
from icgn.training.losses.bilevel import Bilevel
from icgn.training.patches import Batch

SIGMA = 0.1


def network(*args, **options):
    return latent(*args, **options).double().requires_grad_(False)


def images(batch=2, channels=1, side=12, seed=0):
    return torch.rand(batch, channels, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def denoising(reg, y=None, **options):
    return Problem(images() if y is None else y, deepinv.physics.Denoising(), reg, SIGMA, **options)


# --- the function ---


def test_partial_minimum_of_a_quadratic_in_closed_form():
    # min_z a/2 |x - z|^2 + e/2 |z|^2 = a e / (2 (a + e)) |x|^2
    a, e = 3.0, 0.5
    one = torch.ones((), dtype=torch.float64)
    joint = SumFunctional([Difference(a), LatentQuadratic(torch.tensor([e], dtype=torch.float64), 1)], [one, one])
    g, x, v = PartialMinimum(joint, 1, 1), images(), images(seed=1)
    factor = a * e / (a + e)
    torch.testing.assert_close(g.fn(x), factor / 2 * x.square().sum((1, 2, 3)))
    torch.testing.assert_close(g.grad(x), factor * x)
    torch.testing.assert_close(g.hvp(x, v), factor * v)
    torch.testing.assert_close(g.minimizer(x), a / (a + e) * x)


class Difference(BlackBoxFunctional):
    """a / 2 |x - z|^2 of pictures of the two channels x, z."""

    def __init__(self, a):
        self.a = a

    def fn(self, x):
        return self.a / 2 * (x[:, :1] - x[:, 1:]).square().sum((1, 2, 3))

    def grad(self, x):
        return self.hvp(x, x)

    def hvp(self, x, v):
        d = self.a * (v[:, :1] - v[:, 1:])
        return torch.cat([d, -d], 1)

    def lipschitz(self):
        return torch.tensor(2 * self.a, dtype=torch.float64)

    def strong_convexity(self):
        return torch.zeros((), dtype=torch.float64)

    def select(self, index):
        return self

    def to(self, dtype):
        return self


def test_it_is_below_the_ridge_at_any_latent_picture():
    reg, x = network(), images()
    value = reg.fn(x, SIGMA)
    epsilon = reg.epsilon(torch.tensor([SIGMA], dtype=torch.float64))
    for seed in range(4):
        z = 0.1 * images(channels=2, seed=seed) * seed
        upper = reg.ridge.fn(torch.cat([x, z], 1), SIGMA) + epsilon / 2 * z.square().sum((1, 2, 3))
        assert bool((value <= upper).all())
    # The latent pictures are of use.
    plain = reg.ridge.fn(torch.cat([x, torch.zeros_like(x), torch.zeros_like(x)], 1), SIGMA)
    assert bool((value < 0.99 * plain).all())


def test_derivatives_in_the_parameters_are_those_of_differences():
    reg, x = network(), images(1, side=8)
    target = images(1, side=8, seed=3)
    for p in (reg.ridge.bank.raw, reg.ridge.log_tau, reg.ridge.log_lambda, reg.log_epsilon):
        p.requires_grad_(True)
        (exact,) = torch.autograd.grad((reg.grad(x, SIGMA) * target).sum(), p)
        p.requires_grad_(False)
        d = torch.randn(p.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        values = []
        for t in (1e-5, -1e-5):
            p.add_(t * d)
            values.append(float((reg.grad(x, SIGMA) * target).sum()))
            p.sub_(t * d)
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(float((exact * d).sum()), rel=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_spectrum_at_a_flat_picture_is_that_of_the_hessian(channels):
    reg = network(channels, border="zero")
    joint = reg.at(SIGMA).joint
    x = torch.full((1, channels + 2, 12, 12), 0.5, dtype=torch.float64)
    spectrum = joint.hessian_spectrum(tuple(0 * u for u in joint.linear(x)), x.shape)
    for c in range(channels + 2):
        v = torch.zeros_like(x)
        v[0, c, 6, 6] = 1
        expected = torch.fft.rfft2(joint.hvp(0 * x, v).roll((-6, -6), (-2, -1)))
        torch.testing.assert_close(spectrum[:, :, c], expected)


def test_blocks_of_a_large_picture_have_the_same_spectrum_and_gradient():
    reg, x = network(), images(side=32)
    whole = reg.at(SIGMA)
    blocks = whole.blockwise(x.shape, 1)
    assert type(blocks.joint) is JointFunctional
    v = torch.cat([x, x, x], 1)
    torch.testing.assert_close(blocks.joint.grad(v), whole.joint.grad(v))
    spectra = [j.hessian_spectrum(j.linear(v), v.shape) for j in (whole.joint, blocks.joint)]
    torch.testing.assert_close(spectra[1], spectra[0])


# --- the lifted problem ---


def test_walking_over_both_finds_the_minimizer_of_the_function_of_one():
    reg = network()
    problem = denoising(reg)
    assert isinstance(problem.objective.lifted(problem.start().shape), LiftedObjective)
    both = solve(denoising(reg), tol=1e-8)
    assert both.stats.method == "LBFGS"
    # Splitting methods see R alone: each gradient finds the latent pictures anew.
    one = solve(denoising(reg), method="proximal", tol=1e-5)
    assert float((both.x - one.x).square().mean((1, 2, 3)).sqrt().max()) <= 1.1e-5
    assert both.x.shape == one.x.shape == (2, 1, 12, 12)
    assert set(both.status) == {Status.CONVERGED}


@pytest.mark.parametrize("name", ["sum", "per channel", "scaled"])
def test_wrappers_are_solved_over_latent_pictures_too(name):
    y = images(1, 2 if name == "per channel" else 1, side=6)
    reg = {
        "sum": lambda: 0.5 * network() + TotalVariation(eps=0.05),
        "per channel": lambda: PerChannel(network()),
        "scaled": lambda: ScaledRegularizer(network(), -0.5, 3.0),
    }[name]()
    problem = denoising(reg, y)
    lifted = problem.objective.lifted(y.shape)
    assert isinstance(lifted, LiftedObjective)
    whole, split = solve(problem, tol=1e-7), solve(problem, method="proximal", tol=1e-5)
    assert whole.converged and whole.stats.method == "LBFGS"
    assert float((whole.x - split.x).square().mean().sqrt()) <= 1.1e-5
    v = lifted.start(y)
    spectrum = lifted.hessian_spectrum(lifted.linear(v), v.shape)
    assert spectrum is not None and spectrum.shape[1] == spectrum.shape[2] == v.shape[1]


@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("weight", [0.3, 1.0, 4.0])
def test_certificate_is_at_least_the_true_error(tol, weight):
    reg = network()
    exact = solve(denoising(reg, weight=weight), tol=1e-9)
    rough = solve(denoising(reg, weight=weight), tol=tol)
    error = (rough.x - exact.x).square().mean((1, 2, 3)).sqrt()
    assert bool((error <= rough.certificate.rms_distance + 1e-9).all())
    assert bool((rough.certificate.rms_distance <= tol).all())
    assert rough.certificate.strong_convexity.tolist() == [1.0, 1.0]
    # F(x) itself, without the latent pictures found on the way.
    value = denoising(reg, weight=weight).objective.fn(rough.x)
    least = denoising(reg, weight=weight).objective.fn(exact.x)
    assert bool((value - least <= rough.certificate.objective_gap + 1e-9).all())


@pytest.mark.parametrize("method", ["gradient", "accelerated", "conjugate", "lbfgs", "newton", "nmapg"])
def test_every_method_that_sees_the_whole_finds_the_same(method):
    reg = network()
    exact = solve(denoising(reg), tol=1e-9).x
    found = solve(denoising(reg), method=method, tol=1e-4, max_iter=20000)
    assert set(found.status) == {Status.CONVERGED}
    assert float((found.x - exact).square().mean().sqrt()) <= 1e-4


@pytest.mark.parametrize("method", ["proximal", "admm"])
def test_methods_that_split_see_the_function_of_one(method):
    reg, y = network(), images(1, side=6)
    exact = solve(denoising(reg, y), tol=1e-9).x
    found = solve(denoising(reg, y), method=method, tol=1e-3)
    assert float((found.x - exact).square().mean().sqrt()) <= 1e-3


def test_box_binds_the_picture_alone():
    reg, y = network(), 1.6 * images() - 0.3
    problem = denoising(reg, y, box=(0, 1))
    box = problem.objective.lifted(y.shape).box
    v = torch.cat([y, 3 * y], 1)
    assert isinstance(box, VisibleBox)
    torch.testing.assert_close(box.project(v), torch.cat([y.clamp(0, 1), 3 * y], 1))
    found, exact = solve(problem, tol=1e-4), solve(problem, tol=1e-9)
    assert bool(((found.x >= 0) & (found.x <= 1)).all())
    assert bool((found.x == 0).any())
    error = (found.x - exact.x).square().mean((1, 2, 3)).sqrt()
    assert bool((error <= found.certificate.rms_distance).all())


def test_gap_is_certified_where_the_physics_is_not_injective():
    reg = network()
    physics = deepinv.physics.BlurFFT((1, 12, 12), filter=gaussian_blur(sigma=(1.0, 1.0)).double())
    y = physics.A(images()) + 0.02 * images(seed=1)
    problem = Problem(y, physics, reg, SIGMA, noise=0.02, box=(0, 1))
    found, exact = solve(problem, gap_tol=1e-3), solve(problem, gap_tol=1e-9, tol=1e-9)
    assert set(found.status) == {Status.CONVERGED}
    assert bool((found.certificate.relative_gap <= 1e-3).all())
    values = [problem.objective.fn(s.x) for s in (found, exact)]
    assert bool((values[0] - values[1] <= found.certificate.objective_gap + 1e-9).all())


def test_images_of_a_batch_have_their_own_sigma_and_tolerance():
    reg, y = network(), images()
    sigma, weight = torch.tensor([0.05, 0.15]), torch.tensor([1.0, 0.5])
    together = solve(Problem(y, deepinv.physics.Denoising(), reg, sigma, weight=weight), tol=1e-7)
    for i in range(2):
        alone = solve(
            Problem(y[i : i + 1], deepinv.physics.Denoising(), reg, float(sigma[i]), weight=float(weight[i])), tol=1e-7
        )
        torch.testing.assert_close(together.x[i : i + 1], alone.x, atol=3e-7, rtol=0)


def test_float32_is_continued_in_float64_and_the_callback_sees_pictures():
    reg = network().float()
    shapes = []
    found = solve(
        denoising(reg, images().float()), tol=1e-6, callback=lambda event: shapes.append(tuple(event.x.shape[1:]))
    )
    assert found.x.dtype is torch.float32
    assert set(shapes) == {(1, 12, 12)}
    exact = solve(denoising(network(), images().float().double()), tol=1e-9).x
    error = (found.x.double() - exact).square().mean((1, 2, 3)).sqrt()
    assert bool((error <= found.certificate.rms_distance + 1e-7).all())


def test_no_weight_leaves_the_measurement():
    y = images()
    torch.testing.assert_close(solve(denoising(network(), y, weight=0.0), tol=1e-6).x, y, atol=1e-6, rtol=0)


def test_implicit_derivatives_are_those_of_differences():
    reg, y = network(), images(1)
    target = images(1, seed=5)
    reg.log_epsilon.requires_grad_(True)
    y.requires_grad_(True)
    x = solve(denoising(reg, y), tol=1e-9, differentiable=True).x
    exact = torch.autograd.grad((x * target).sum(), (reg.log_epsilon, y))
    reg.log_epsilon.requires_grad_(False)
    y = y.detach()
    g = torch.Generator().manual_seed(2)
    d = [torch.randn(e.shape, generator=g, dtype=torch.float64) for e in exact]
    values = []
    for t in (1e-4, -1e-4):
        reg.log_epsilon.add_(t * d[0])
        values.append(float((solve(denoising(reg, y + t * d[1]), tol=1e-9).x * target).sum()))
        reg.log_epsilon.sub_(t * d[0])
    expected = sum(float((e * v).sum()) for e, v in zip(exact, d, strict=True))
    assert (values[0] - values[1]) / 2e-4 == pytest.approx(expected, rel=1e-3)


# --- models ---


def test_upon_a_ridge_it_starts_near_it(tmp_path):
    ridge = load_pretrained("ridge-gray-small")
    reg = LatentICGN.upon(ridge, latents=2)
    x = images(1, side=24).float()
    ratio = reg.fn(x, SIGMA) / ridge.fn(x, SIGMA)
    assert 0.5 < ratio.item() < 1
    save_model(reg, tmp_path / "model.safetensors", {"name": "model"})
    again = load_pretrained(tmp_path / "model.safetensors")
    assert again.architecture == reg.architecture
    torch.testing.assert_close(again.fn(x, SIGMA), reg.fn(x, SIGMA))


def test_recipe_builds_it_upon_the_model_of_its_init():
    model = {"type": "LatentICGN", "filters": 50, "latents": 2, "min_knee": 0.02}
    reg = build(Recipe(name="latent", model=model, init="ridge-gray-small"))
    assert isinstance(reg, LatentICGN)
    assert reg.architecture["filters"] == 50
    assert reg.ridge.architecture["channels"] == 3
    assert all(p.requires_grad for p in reg.parameters())


@pytest.mark.parametrize("option", [{"latents": 0}, {"channels": 0}, {"filters": 0}, {"units": 0}, {"size": 4}])
def test_numbers_out_of_range_are_named(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        LatentICGN(**option)


def test_pictures_of_other_channels_are_refused():
    with pytest.raises(ValueError, match="channels"):
        network().fn(images(channels=3), SIGMA)


def test_it_trains_and_memory_is_that_of_one_step():
    reg = LatentICGN.upon(RidgeICGN(filters=4, size=3), latents=1)
    clean = images(2).float()
    y = clean + SIGMA * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    batch = Batch(clean, y, torch.full((2,), SIGMA), torch.zeros(2), deepinv.physics.Denoising())
    optimizer = torch.optim.Adam(reg.parameters(), 0.02)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = Bilevel().values(reg, batch).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in reg.parameters())
