"""Every method on every problem: the minimizer, its certificate, and what happens to the images of a batch."""

from __future__ import annotations

import math
from functools import cache, partial

import deepinv
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratic import Quadratic, QuadraticFunctional

import icgn
from icgn.regularizers import ConvexRegularizer, RidgeICGN
from icgn.solvers import (
    ADMM,
    FISTA,
    HQS,
    LBFGS,
    AcceleratedGradient,
    BlackBoxFunctional,
    Box,
    ConjugateGradient,
    GradientDescent,
    NewtonCG,
    NmAPG,
    PrimalDual,
    Problem,
    ProximalGradient,
    Status,
    solve,
)
from icgn.solvers.certificate import optimality
from icgn.solvers.methods.line import enclosed_step, exact_step
from icgn.solvers.methods.primal_dual import duality_gap
from icgn.solvers.methods.splitting import parts

BOXED_METHODS = [GradientDescent(), AcceleratedGradient(), NmAPG(), ConjugateGradient(), NewtonCG()]
METHODS = [
    *BOXED_METHODS,
    ProximalGradient(prox="data"),
    ProximalGradient(prox="regularizer"),
    FISTA(prox="data"),
    FISTA(prox="regularizer"),
    ADMM(),
    LBFGS(),
]


def name_of(method):
    return f"{method.name}-{method.prox}" if isinstance(method, ProximalGradient | FISTA) else method.name


UNCONSTRAINED = pytest.mark.parametrize("method", METHODS, ids=name_of)
# It knows ridge networks only.
RIDGE = pytest.mark.parametrize("method", [*METHODS, PrimalDual()], ids=name_of)
BOXED = pytest.mark.parametrize("method", BOXED_METHODS, ids=name_of)
BOXED_RIDGE = pytest.mark.parametrize("method", [*BOXED_METHODS, PrimalDual()], ids=name_of)


def picture(batch=2, side=24, dtype=torch.float64, seed=0, device="cpu"):
    """Smooth blobs with an edge, plus noise."""
    g = torch.Generator().manual_seed(seed)
    t = torch.linspace(0, 1, side, dtype=dtype)
    base = (t[:, None] > 0.4).to(dtype) * 0.5 + 0.3 * torch.sin(5 * t)[None, :] ** 2
    noise = torch.randn(batch, 1, side, side, generator=g, dtype=dtype)
    return (base + 0.1 * noise).to(device)


def ridge(dtype=torch.float64, device="cpu", **options):
    return RidgeICGN(filters=6, size=5, **options).to(device=device, dtype=dtype).requires_grad_(False)


def sharp(dtype=torch.float64):
    """A ridge with knees so small that it is nearly a sum of absolute values."""
    reg = ridge(dtype)
    reg.log_tau.sub_(3.0)
    reg.log_lambda.add_(1.0)
    return reg


def blur(side, dtype=torch.float64):
    kernel = torch.ones(1, 1, 3, 3, dtype=dtype) / 9
    kernel[..., 1, 1] += 1
    physics = deepinv.physics.BlurFFT((1, side, side), filter=(kernel / 2).float())
    return physics.double() if dtype is torch.float64 else physics


@UNCONSTRAINED
def test_quadratic_denoising_in_closed_form(method, device):
    y = picture(device=device)
    solution = solve(Problem(y, deepinv.physics.Denoising(), Quadratic(0.7), 0.1), method=method, tol=1e-8)
    torch.testing.assert_close(solution.x, y / 1.7, atol=1e-7, rtol=0)
    assert solution.converged


@UNCONSTRAINED
def test_quadratic_deblurring_in_closed_form(method):
    y = picture()
    physics = blur(24)
    solution = solve(Problem(y, physics, Quadratic(0.5), 0.1), method=method, tol=1e-8)
    torch.testing.assert_close(solution.x.view(2, 576), deblurred_densely(), atol=1e-6, rtol=0)


@cache
def deblurred_densely():
    """The solution of (A^T A + a) x = A^T y, by the matrix."""
    physics = blur(24)
    basis = torch.eye(576, dtype=torch.float64).view(576, 1, 24, 24)
    gram = physics.A_adjoint(physics.A(basis)).view(576, 576)
    rhs = physics.A_adjoint(picture()).view(2, 576)
    return torch.linalg.solve(gram + 0.5 * torch.eye(576, dtype=torch.float64), rhs.T).T


@cache
def denoised_exactly(make):
    """The solution to almost all digits, the reference of all methods."""
    problem = Problem(picture(), deepinv.physics.Denoising(), make(), 0.1)
    reference = solve(problem, method="conjugate", tol=1e-11, max_iter=20000)
    assert reference.certificate.rms_distance.max() < 1e-10
    return reference


@pytest.mark.parametrize("make", [ridge, sharp], ids=["smooth", "sharp"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@RIDGE
def test_certificate_bounds_the_true_error(method, dtype, make):
    y, reference = picture(), denoised_exactly(make)
    # Loose runs too: the bound must hold wherever the method stops.
    for max_iter in (0, 3, 20, 3000):
        problem = Problem(y.to(dtype), deepinv.physics.Denoising(), make(dtype), 0.1)
        solution = solve(problem, method=method, tol=1e-4, max_iter=max_iter)
        error = (solution.x.double() - reference.x).square().mean((1, 2, 3)).sqrt()
        # float32 rounds y and the weights: another problem, whose minimizer is this far away at most.
        slack = 1e-10 if dtype is torch.float64 else 2e-6
        assert (error <= solution.certificate.rms_distance + slack).all()
        gap = solution.certificate.objective - reference.certificate.objective
        if dtype is torch.float64:
            assert (gap <= solution.certificate.objective_gap + 1e-9).all()
        assert solution.certificate.dtype is torch.float64
    assert solution.status == (Status.CONVERGED,) * 2
    assert (solution.certificate.rms_distance <= 1e-4).all()


def test_half_quadratic_splitting_approaches_the_minimizer():
    y = picture()
    problem = Problem(y, deepinv.physics.Denoising(), ridge(), 0.1)
    exact = solve(problem, tol=1e-9)
    errors = []
    for max_iter in (4, 16, 64):
        rough = solve(problem, method="hqs", tol=1e-9, max_iter=max_iter)
        errors.append((rough.x - exact.x).square().mean((1, 2, 3)).sqrt())
        assert (errors[-1] <= rough.certificate.rms_distance).all()
    assert (errors[2] < errors[1]).all() and (errors[1] < errors[0]).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), spread=st.floats(0, 1))
def test_duality_gap_bounds_the_objective_for_every_dual_point(seed, spread):
    g = torch.Generator().manual_seed(seed)
    y = torch.rand(2, 1, 12, 11, generator=g, dtype=torch.float64)
    problem = Problem(y, deepinv.physics.Denoising(), sharp(), 0.1, weight=torch.tensor([0.5, 2.0]))
    exact = solve(problem, tol=1e-10, max_iter=5000)
    x = exact.x + spread * torch.randn(y.shape, generator=g, dtype=torch.float64)
    split = parts(problem.objective)
    u = split.regularizer.linear(exact.x)
    # Factors, so that responses outside the picture stay 0.
    point = u * (1 + 3 * spread * torch.randn(u.shape, generator=g, dtype=torch.float64))
    gap = duality_gap(split, x, point)
    assert (problem.objective.fn(x) - exact.certificate.objective <= gap * (1 + 1e-9) + 1e-9).all()
    assert (duality_gap(split, exact.x, u) < 1e-9).all(), "no gap at the saddle point"


@pytest.mark.parametrize("units", [1, 2])
@pytest.mark.parametrize("activation", ["hardtanh", "tanh", "softplus"])
def test_prox_of_the_potential_solves_its_equation(units, activation):
    functional = ridge(units=units, activation=activation).at(0.1)
    v = functional.linear(picture()) * 3
    s = torch.tensor([0.3, 20.0], dtype=torch.float64)
    p = functional.prox_potential(v, s)
    torch.testing.assert_close(p + s[:, None, None] * functional.potential_grad(p), v, atol=1e-12, rtol=0)


def test_linear_norm_bounds_the_responses():
    functional = ridge().at(0.1)
    x = picture()
    for _ in range(50):
        x = functional.linear_adjoint(functional.linear(x), x.shape)
        x = x / torch.linalg.vector_norm(x)
    largest = torch.linalg.vector_norm(functional.linear(x))
    assert largest <= functional.linear_norm() <= 2.2 * largest


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sigma=st.floats(0.005, 0.3),
    weight=st.floats(0, 5),
    height=st.integers(5, 17),
    width=st.integers(5, 17),
)
def test_certificate_bounds_the_true_error_of_random_problems(seed, sigma, weight, height, width):
    g = torch.Generator().manual_seed(seed)
    y = torch.rand(1, 1, height, width, generator=g, dtype=torch.float64)
    problem = Problem(y, deepinv.physics.Denoising(), sharp(), sigma, weight=weight)
    rough = solve(problem, tol=1e-3)
    exact = solve(problem, tol=1e-8, max_iter=5000)
    error = float((rough.x - exact.x).square().mean().sqrt())
    assert error <= float(rough.certificate.rms_distance) + 1e-8


@BOXED
def test_box_projects_the_quadratic(method):
    y = picture() * 2 - 0.5
    solution = solve(
        Problem(y, deepinv.physics.Denoising(), Quadratic(0.5), 0.1, box=(0.1, 0.6)), method=method, tol=1e-8
    )
    # The objective is separable: the constrained minimizer is the clipped free one.
    torch.testing.assert_close(solution.x, (y / 1.5).clamp(0.1, 0.6), atol=1e-7, rtol=0)
    assert solution.certificate.residual.max() < 1e-6


@pytest.fixture(scope="module")
def inpainting():
    """A problem in a box that is not strongly convex, and its solution."""
    mask = torch.ones(1, 24, 24, dtype=torch.float64)
    mask[:, ::2, ::3] = 0
    physics = deepinv.physics.Inpainting((1, 24, 24), mask=mask).double()
    problem = Problem(physics.A(picture()), physics, ridge(), 0.1, box=(0, 1))
    return problem, solve(problem, gap_tol=1e-7, max_iter=5000)


@BOXED_RIDGE
def test_box_without_strong_convexity_is_certified_by_the_gap(method, inpainting):
    problem, exact = inpainting
    loose = solve(problem, method=method, gap_tol=1e-2, max_iter=5000)
    assert loose.converged and exact.converged
    assert torch.isinf(loose.certificate.rms_distance).all()
    gap = loose.certificate.objective - exact.certificate.objective
    assert (gap <= loose.certificate.objective_gap).all()
    assert (loose.certificate.relative_gap <= 1e-2).all()
    assert loose.x.min() >= 0 and loose.x.max() <= 1


def test_without_any_bound_the_result_says_so():
    physics = deepinv.physics.Inpainting((1, 24, 24), mask=0.5).double()
    solution = solve(Problem(physics.A(picture()), physics, ridge(), 0.1), tol=1e-5)
    assert set(solution.status) == {Status.STATIONARY}
    assert (
        torch.isinf(solution.certificate.rms_distance).all() and torch.isinf(solution.certificate.objective_gap).all()
    )
    assert (solution.certificate.residual <= 1e-5).all()


@given(g=st.floats(-2, 2), x=st.floats(0, 1), mu=st.one_of(st.just(0.0), st.floats(0.01, 5)), low=st.floats(-1, 0))
def test_gap_is_the_maximum_over_the_box(g, x, mu, low):
    as_image = torch.tensor(x, dtype=torch.float64).view(1, 1, 1, 1)
    floor = torch.full_like(as_image, mu)
    gap, _ = optimality(as_image, torch.full_like(as_image, g), floor, Box(low=low, high=1.0))
    z = torch.linspace(low, 1, 20001, dtype=torch.float64)
    expected = float((g * (x - z) - mu / 2 * (x - z) ** 2).max())
    assert expected - 1e-12 <= float(gap) <= expected + 1e-6


@UNCONSTRAINED
def test_images_of_a_batch_do_not_influence_each_other(method):
    y = picture(batch=4, dtype=torch.float32)
    sigma = torch.tensor([0.01, 0.1, 0.2, 0.05])
    together = solve(Problem(y, deepinv.physics.Denoising(), ridge(torch.float32), sigma), method=method, tol=1e-5)
    # Two iterations of ADMM do for every image: its first subproblem is the problem.
    counts = set(together.stats.iterations.tolist())
    assert len(counts) > 1 or method.name == "ADMM", "the images should need different numbers of iterations"
    for i in range(4):
        alone = solve(
            Problem(y[i : i + 1], deepinv.physics.Denoising(), ridge(torch.float32), sigma[i]), method=method, tol=1e-5
        )
        assert alone.status[0] is together.status[i]
        torch.testing.assert_close(alone.x[0], together.x[i], atol=1e-6, rtol=0)


def test_a_bad_image_leaves_the_others_alone():
    y = picture(batch=3)
    y[1, 0, 3, 3] = math.nan
    solution = solve(Problem(y, deepinv.physics.Denoising(), ridge(), 0.1), tol=1e-6)
    assert solution.status == (Status.CONVERGED, Status.INVALID_INPUT, Status.CONVERGED)
    assert torch.isnan(solution.x[1]).all()
    assert torch.isinf(solution.certificate.rms_distance[1]) and torch.isinf(solution.certificate.residual[1])
    alone = solve(Problem(y[2:], deepinv.physics.Denoising(), ridge(), 0.1), tol=1e-6)
    torch.testing.assert_close(solution.x[2:], alone.x, atol=1e-6, rtol=0)


@UNCONSTRAINED
@pytest.mark.parametrize("value", [0.0, 0.5])
def test_constant_images_are_their_own_minimizer(method, value):
    y = torch.full((1, 1, 16, 16), value)
    solution = solve(Problem(y, deepinv.physics.Denoising(), ridge(torch.float32), 0.1), method=method)
    torch.testing.assert_close(solution.x, y, atol=1e-5, rtol=0)
    assert solution.converged


def test_sigma_zero_and_weight_zero_return_the_measurement():
    y = picture()
    for arguments in ({"sigma": 0.0}, {"sigma": 0.1, "weight": 0.0}):
        solution = solve(Problem(y, deepinv.physics.Denoising(), ridge(), **arguments))
        torch.testing.assert_close(solution.x, y, atol=1e-12, rtol=0)
        assert solution.converged and solution.certificate.rms_distance.max() < 1e-12


def test_rescaling_operator_measurement_and_noise_changes_nothing():
    class Scaled(deepinv.physics.LinearPhysics):
        def A(self, x, **kwargs):  # noqa: N802
            return 255 * x

        def A_adjoint(self, y, **kwargs):  # noqa: N802
            return 255 * y

    y = picture()
    plain = solve(Problem(y, deepinv.physics.Denoising(), ridge(), 0.1), tol=1e-9)
    scaled = solve(Problem(255 * y, Scaled(), ridge(), 0.1, noise=25.5), tol=1e-9, x0=y)
    torch.testing.assert_close(scaled.x, plain.x, atol=1e-7, rtol=0)


def test_a_data_fidelity_of_deepinv_gives_the_same_as_the_default():
    y = picture()
    plain = solve(Problem(y, deepinv.physics.Denoising(), ridge(), 0.1), tol=1e-9)
    fidelity = deepinv.optim.L2(sigma=0.1)
    explicit = solve(Problem(y, deepinv.physics.Denoising(), ridge(), 0.1, data_fidelity=fidelity), tol=1e-9)
    torch.testing.assert_close(explicit.x, plain.x, atol=1e-8, rtol=0)
    # As a generic distance no modulus is known: nothing is proved, the minimizer is the same.
    generic = deepinv.optim.DataFidelity(d=lambda u, v: ((u - v) ** 2).flatten(1).sum(1) / 0.02)
    unknown = solve(Problem(y, deepinv.physics.Denoising(), ridge(), 0.1, data_fidelity=generic), tol=1e-9)
    torch.testing.assert_close(unknown.x, plain.x, atol=1e-7, rtol=0)
    assert torch.isinf(unknown.certificate.rms_distance).all()


def test_iteration_limit_and_precision_limit_are_reported():
    y = picture(dtype=torch.float32)
    problem = Problem(y, deepinv.physics.Denoising(), sharp(torch.float32), 0.1)
    assert set(solve(problem, method="gradient", tol=1e-6, max_iter=3).status) == {Status.ITERATION_LIMIT}
    limited = solve(problem, tol=1e-12, max_iter=5000)
    assert set(limited.status) == {Status.PRECISION_LIMIT}
    assert (limited.certificate.rms_distance < 1e-4).all(), "as far as float32 goes"


@pytest.mark.parametrize("strongly_convex", [True, False])
@pytest.mark.parametrize("tol", [1e30, 1e300])
def test_a_tolerance_that_anything_meets_ends_at_the_start(strongly_convex, tol):
    y = picture()
    left = (torch.arange(24) < 12).to(y).expand(1, 24, 24)
    physics = deepinv.physics.Denoising() if strongly_convex else deepinv.physics.Inpainting((1, 24, 24), mask=left)
    solution = solve(Problem(y.clamp(0, 1), physics, ridge(), 0.1, box=Box(low=0, high=1)), tol=tol)
    assert set(solution.status) == {Status.CONVERGED}
    assert torch.isfinite(solution.x).all()
    assert solution.stats.iterations.tolist() == [0, 0]


def test_divergence_is_reported():
    class Exploding(QuadraticFunctional):
        def grad(self, x):
            return x * 1e38

    class Broken(Quadratic):
        def at(self, sigma=None, condition=None):
            return Exploding(1.0)

    solution = solve(
        Problem(picture(dtype=torch.float32), deepinv.physics.Denoising(), Broken(1.0), 0.1), method="gradient"
    )
    assert set(solution.status) <= {Status.DIVERGED, Status.ITERATION_LIMIT, Status.PRECISION_LIMIT}


def test_callback_sees_the_running_images_and_can_stop():
    seen = []

    def callback(event):
        seen.append((event.iteration, len(event.x), event.index.tolist()))
        assert event.stage == "final" and bool((event.distance > 0).all())
        return event.iteration == 5

    solution = solve(Problem(picture(), deepinv.physics.Denoising(), sharp(), 0.1), callback=callback, tol=1e-12)
    assert [s[0] for s in seen] == list(range(6))
    assert seen[0][2] == [0, 1]
    assert set(solution.status) == {Status.STOPPED} and solution.stats.iterations.tolist() == [5, 5]
    assert torch.isfinite(solution.certificate.rms_distance).all()


def test_inputs_are_not_modified():
    y = picture()
    copy = y.clone()
    x0 = torch.zeros_like(y)
    solve(Problem(y, deepinv.physics.Denoising(), ridge(), 0.1, box=(0, 1)), x0=x0)
    assert torch.equal(y, copy) and not x0.any()


def steepest_line(seed):
    """A functional, pictures, their steepest descent, the responses of both, and the slopes at 0."""
    g = torch.Generator().manual_seed(seed)
    functional = sharp().at(0.1)
    x = torch.rand(2, 1, 9, 11, generator=g, dtype=torch.float64)
    d = -functional.grad(x)
    u, q = functional.linear(x), functional.linear(d)
    zero = torch.zeros(2, dtype=torch.float64)
    slope = functional.slope(u, q, zero)
    return functional, x, d, u, q, slope


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), guess=st.floats(1e-4, 1e3))
def test_line_search_finds_the_minimum_along_a_line(seed, guess):
    functional, x, d, u, q, slope = steepest_line(seed)
    t = exact_step(partial(functional.slope, u, q), slope, torch.full_like(slope, guess), passes=60)
    assert (functional.slope(u, q, t).abs() <= 0.1 * slope.abs()).all()
    assert (functional.fn(x + t.view(-1, 1, 1, 1) * d) < functional.fn(x)).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), guess=st.floats(1e-4, 1e3))
def test_a_search_of_several_steps_at_once_encloses_the_minimum(seed, guess):
    functional, x, d, u, q, slope = steepest_line(seed)
    t = enclosed_step(partial(functional.slopes_along, u, q), slope, torch.full_like(slope, guess), passes=30)
    assert (functional.slope(u, q, t).abs() <= 0.5 * slope.abs()).all()
    assert (functional.fn(x + t.view(-1, 1, 1, 1) * d) < functional.fn(x)).all()


@pytest.mark.parametrize("guess", [1e-6, 0.3, 1.0, 40.0])
def test_a_search_of_several_steps_is_exact_on_parabolas(guess):
    """Where no step falls on a slope of a thousandth the secant is the minimizer; a domain that ends is respected."""
    curvature = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    first = -torch.ones_like(curvature)
    guesses = torch.full_like(curvature, guess)
    t = enclosed_step(lambda t: curvature * t - 1, first, guesses)
    torch.testing.assert_close(curvature * t, torch.ones_like(t), rtol=1e-3, atol=0)
    ends = enclosed_step(lambda t: torch.where(t < 1.5, curvature * t - 1, torch.nan), first, guesses, passes=30)
    assert (ends <= 1.5).all() and (curvature * ends - 1 <= 0.5).all() and (ends > 0).all()


BAD = {
    "integers": (lambda y: {"y": (y * 255).to(torch.uint8)}, TypeError, "floating-point"),
    "numpy": (lambda y: {"y": y.numpy()}, TypeError, "torch.Tensor"),
    "all nan": (lambda y: {"y": y * math.nan}, ValueError, "NaN"),
    "empty": (lambda y: {"y": y[:0]}, ValueError, "nonempty"),
    "negative sigma": (lambda y: {"sigma": -0.1}, ValueError, "sigma"),
    "nan sigma": (lambda y: {"sigma": math.nan}, ValueError, "sigma"),
    "sigma in gray levels": (lambda y: {"sigma": 25.0}, ValueError, "divide gray levels by 255"),
    "no sigma": (lambda y: {"sigma": None}, ValueError, "sigma"),
    "wrong number of sigmas": (lambda y: {"sigma": torch.ones(3)}, ValueError, "3 values for 2 images"),
    "zero noise": (lambda y: {"noise": 0.0}, ValueError, "noise"),
    "negative weight": (lambda y: {"weight": -1.0}, ValueError, "weight"),
    "empty box": (lambda y: {"box": (1, 0)}, ValueError, "empty"),
    "l1": (lambda y: {"data_fidelity": deepinv.optim.L1()}, ValueError, "differentiable"),
    "physics": (lambda y: {"physics": torch.nn.Identity()}, TypeError, "LinearPhysics"),
    "condition": (lambda y: {"condition": torch.ones(1)}, ValueError, "condition"),
    "small": (lambda y: {"y": y[..., :3, :]}, ValueError, "at least 5 x 5"),
    "channels": (lambda y: {"y": y.expand(-1, 3, -1, -1)}, ValueError, "channels"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_problems_name_the_argument(case):
    change, kind, message = BAD[case]
    y = picture()
    arguments = {"y": y, "physics": deepinv.physics.Denoising(), "regularizer": ridge(), "sigma": 0.1} | change(y)
    with pytest.raises(kind, match=message):
        solve(Problem(**arguments))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tol": 0.0}, "tol"),
        ({"gap_tol": math.nan}, "gap_tol"),
        ({"max_iter": -1}, "max_iter"),
        ({"method": "simplex"}, "'auto' or one of"),
        ({"x0": torch.zeros(1, 1, 8, 8)}, "x0"),
        ({"x0": torch.full((2, 1, 24, 24), math.inf)}, "x0"),
    ],
)
def test_bad_options_name_the_argument(options, message):
    with pytest.raises(ValueError, match=message):
        solve(Problem(picture(), deepinv.physics.Denoising(), ridge(), 0.1), **options)


BOX_FREE = [ProximalGradient(), FISTA(prox="regularizer"), ADMM(), HQS(), LBFGS()]


@pytest.mark.parametrize("method", BOX_FREE, ids=lambda m: m.name)
def test_a_method_refuses_a_box_that_its_theorem_does_not_cover(method):
    problem = Problem(picture(), deepinv.physics.Denoising(), ridge(), 0.1, box=(0, 1))
    with pytest.raises(ValueError, match=f"{method.name} assumes an unconstrained problem, got a box"):
        solve(problem, method=method)


@pytest.mark.parametrize("method", [ProximalGradient(), FISTA(), ADMM(), HQS(), PrimalDual()], ids=lambda m: m.name)
def test_a_method_refuses_a_data_term_without_a_proximal_map(method):
    fidelity = deepinv.optim.PoissonLikelihood(bkg=0.1)
    problem = Problem(picture().abs(), deepinv.physics.Denoising(), ridge(), 0.1, data_fidelity=fidelity)
    with pytest.raises(ValueError, match=rf"{method.name} assumes a data term that is quadratic.*PoissonData"):
        solve(problem, method=method)


def test_primal_dual_refuses_what_is_no_ridge():
    problem = Problem(picture(), deepinv.physics.Denoising(), Quadratic(1.0), 0.1)
    with pytest.raises(ValueError, match=r"PrimalDual assumes a regularizer that has a proximal map .*, got Quadratic"):
        solve(problem, method="primal-dual")
    tomography = deepinv.physics.Tomography(angles=8, img_width=24, normalize=True)
    problem = Problem(tomography.A(picture().float()), tomography, ridge(torch.float32), 0.1, box=(0, 1))
    with pytest.raises(ValueError, match="known Lipschitz constant, got Tomography"):
        solve(problem, method="primal-dual")


def test_auto_says_what_it_chose():
    assert solve(Problem(picture(), deepinv.physics.Denoising(), ridge(), 0.1)).stats.method == "ConjugateGradient"


class Counted(ConvexRegularizer):
    """A regularizer of which solvers see values and derivatives alone, and how many gradients they asked for."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.gradients = inner, 0

    def at(self, sigma=None, condition=None):
        return CountedFunctional(self.inner.at(sigma, condition), self)


class CountedFunctional(BlackBoxFunctional):
    def __init__(self, inner, counter):
        self.inner, self.counter = inner, counter

    def fn(self, x):
        return self.inner.fn(x)

    def grad(self, x):
        self.counter.gradients += 1
        return self.inner.grad(x)

    def hvp(self, x, v):
        return self.inner.hvp(x, v)

    def lipschitz(self):
        return self.inner.lipschitz()

    def strong_convexity(self):
        return self.inner.strong_convexity()

    def select(self, index):
        return CountedFunctional(self.inner.select(index), self.counter)

    def to(self, dtype):
        return CountedFunctional(self.inner.to(dtype), self.counter)


@pytest.mark.parametrize("box", [None, (0, 1)])
def test_auto_suits_what_is_known_of_the_regularizer(box):
    problem = Problem(picture(), deepinv.physics.Denoising(), Counted(sharp()), 0.1, box=box)
    sol = solve(problem, tol=1e-6)
    assert sol.stats.method == ("LBFGS" if box is None else "ConjugateGradient")
    reference = solve(Problem(picture(), deepinv.physics.Denoising(), sharp(), 0.1, box=box), tol=1e-9)
    distance = (sol.x - reference.x).square().flatten(1).mean(1).sqrt()
    assert (distance <= sol.certificate.rms_distance + 1e-9).all() and (distance < 2e-6).all()


@pytest.mark.parametrize("method", [LBFGS(), ConjugateGradient()], ids=name_of)
def test_a_line_search_shares_its_gradients_with_the_iteration(method):
    counted = Counted(sharp())
    objective = Problem(picture(1), deepinv.physics.Denoising(), counted, 0.1).objective
    state = method.init(objective, picture(1), None)
    for _ in range(12):
        before, work = counted.gradients, state.work
        state = method.step(objective, state, None)
        assert float(state.work - work) == counted.gradients - before
        assert float((state.grad - objective.grad(state.x)).abs().max()) < 1e-12
    # The gradient at the end of a search is not computed again: as many as there were trials.
    assert float(state.work) < 2.5 * 12


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: ProximalGradient(prox="both"), "prox"),
        (lambda: FISTA(accuracy=1.0), "accuracy"),
        (lambda: ADMM(rho=0.0), "rho"),
        (lambda: HQS(rho=math.nan), "rho"),
        (lambda: LBFGS(memory=0), "memory"),
        (lambda: NewtonCG(forcing=1.0), "forcing"),
        (lambda: NewtonCG(max_inner=0), "max_inner"),
        (lambda: NmAPG(eta=1.0), "eta"),
        (lambda: NmAPG(delta=0.0), "delta"),
    ],
)
def test_bad_parameters_of_methods_are_named(make, name):
    with pytest.raises(ValueError, match=f"{name}: got"):
        make()


def test_denoise_refuses_other_units():
    with pytest.raises(ValueError, match="divide images in 0"):
        icgn.denoise(picture() * 255, 25.0 / 255, regularizer=ridge())
    with pytest.raises(TypeError, match="floating-point"):
        icgn.denoise(torch.zeros(1, 1, 9, 9, dtype=torch.uint8), 0.1, regularizer=ridge())
    with pytest.raises(ValueError, match="four dimensions"):
        icgn.denoise(torch.zeros(9, 9), 0.1, regularizer=ridge())


def test_a_solution_is_shown_in_a_line():
    y = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    y[1, 0, 0, 0] = torch.nan
    shown = repr(solve(Problem(y, deepinv.physics.Denoising(), icgn.TotalVariation(), 0.1), tol=1e-2))
    assert shown.startswith("Solution(x (2, 1, 12, 12): 1 CONVERGED, 1 INVALID_INPUT; rms_distance <= ")
    assert "iterations" in shown and len(shown) < 200
