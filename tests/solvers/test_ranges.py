"""Problems in any unit: with a range the result of s y + b is s times that of y plus b, and so is what is proved."""

import math

import deepinv
import pytest
import torch
from deepinv.physics.functional.blur import gaussian_blur
from hypothesis import given, settings
from hypothesis import strategies as st

import icgn
from icgn.functionals.noise import Poisson, White
from icgn.regularizers import RidgeICGN, ScaledRegularizer
from icgn.solvers.weight import best_weight, discrepancy

NOISE = 0.05
SIZE = (1, 10, 9)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return RidgeICGN(filters=3, size=3).double().requires_grad_(False)


class Mixed(deepinv.physics.LinearPhysics):
    """Pixels and their neighbours, with weights that vary: pictures of one intensity are measured as others."""

    def A(self, x, **kwargs):  # noqa: N802
        return x + torch.nn.functional.pad(self._weights(x) * x[..., :-1], (1, 0))

    def A_adjoint(self, y, **kwargs):  # noqa: N802
        return y + torch.nn.functional.pad(self._weights(y) * y[..., 1:], (0, 1))

    def _weights(self, x):
        return torch.linspace(0.125, 1.0, x.shape[-1] - 1, dtype=x.dtype)  # exact in any precision


def physics(name, dtype):
    mask = (torch.rand(SIZE, generator=torch.Generator().manual_seed(2)) > 0.3).to(dtype)
    kernel = torch.tensor([[0.0, 1, 0], [1, 12, 1], [0, 1, 0]], dtype=dtype)[None, None] / 16
    wide = (1024 * gaussian_blur(sigma=(1.5, 1.5)).double()).round() / 1024
    wide[..., wide.shape[-2] // 2, wide.shape[-1] // 2] += 1 - wide.sum()  # constants are measured exactly
    return {
        "denoising": lambda: deepinv.physics.Denoising(),
        "inpainting": lambda: deepinv.physics.Inpainting(SIZE, mask=mask),
        "blur": lambda: deepinv.physics.BlurFFT(SIZE, filter=kernel),
        "valid blur": lambda: deepinv.physics.Blur(kernel, padding="valid"),
        "ill-conditioned": lambda: deepinv.physics.BlurFFT(SIZE, filter=wide.to(dtype)),
        "mixed": Mixed,
    }[name]()


def scene(dtype):
    x = torch.zeros(2, *SIZE, dtype=torch.float64)
    x[0, :, 3:8, 2:7], x[1, :, :5] = 0.9, 0.4
    return x.to(dtype)


def measured(name, scale, low):
    """What is measured of s x + b, in float64: s times multiples of 1/1024, and b times what is measured of 1."""
    exact, noise = physics(name, torch.float64), torch.Generator().manual_seed(3)
    y = exact.A(scene(torch.float64))
    one = (1024 * exact.A(torch.ones(2, *SIZE, dtype=torch.float64))).round() / 1024
    y = y + NOISE * torch.randn(y.shape, generator=noise, dtype=torch.float64) * (one > 0)
    return scale * (1024 * y).round() / 1024 + low * one


def solved(model, name, scale, low, dtype, given, **asked):
    """The solution of the measurement of s x + b, to a part of the range that noise does not hide."""
    operator, y = physics(name, dtype), measured(name, scale, low).to(dtype)
    limits = given if given == "auto" else (low, low + scale)
    problem = icgn.Problem(
        y, operator, model.to(dtype), sigma=scale * 2 * NOISE, noise=scale * NOISE, range=limits,
        box=(low - scale / 4, low + 5 * scale / 4),
    )  # fmt: skip
    return problem, icgn.solve(problem, **{"tol": 1e-6, "gap_tol": 1e-9, "max_iter": 300, **asked})


NAMES = ["denoising", "inpainting", "blur", "valid blur", "ill-conditioned", "mixed"]


def check_equivariance(model, name, scale, low, dtype, given):
    loose = {"tol": 1e-4, "gap_tol": 1e-2}
    key = name, dtype, given
    if key not in PLAIN:
        PLAIN[key] = solved(model, name, 1.0, 0.0, dtype, given, **loose)
    plain_problem, plain = PLAIN[key]
    problem, moved = solved(model, name, scale, low, dtype, given, **loose)
    difference = (moved.x.double() - low) / scale - plain.x.double()
    assert float(difference.abs().max()) <= 1e-5
    assert moved.status == plain.status and torch.equal(moved.stats.iterations, plain.stats.iterations)
    expected = [scale * v + low for v in plain_problem.range]
    assert list(problem.range) == pytest.approx(expected, abs=1e-6 * scale)
    proved, wanted = moved.certificate, plain.certificate
    # What rounding the pictures moves is added to the distance.
    digits = torch.finfo(dtype).eps * (1 + abs(low / scale)) / 2
    torch.testing.assert_close(proved.objective / scale**2, wanted.objective, rtol=1e-5, atol=1e-12)
    torch.testing.assert_close(proved.rms_distance / scale, wanted.rms_distance, rtol=0.02, atol=1e-6 + digits)
    torch.testing.assert_close(proved.relative_gap, wanted.relative_gap, rtol=0.05, atol=1e-6)


PLAIN = {}


@pytest.mark.slow
@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(NAMES),
    power=st.integers(-17, 17),
    part=st.integers(1, 32),
    offset=st.integers(-3200, 3200),
    single=st.booleans(),
    given=st.sampled_from(["auto", None]),
)
def test_the_result_scales_and_shifts_with_the_picture(model, name, power, part, offset, single, given):
    # Float32 holds these measurements exactly, with offsets up to a hundred times the range; float64 all nearly so.
    scale, low = part * 2.0**power, offset / 32
    scale, low = (scale, low) if single else (scale * math.pi, low * math.e)
    y = measured(name, scale, scale * low)
    assert not single or torch.equal(y.float().double(), y)
    check_equivariance(model, name, scale, scale * low, torch.float32 if single else torch.float64, given)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(NAMES),
    log_scale=st.floats(-12, 12),
    offset=st.floats(-5, 5),
    given=st.sampled_from(["auto", None]),
)
def test_measurements_that_float32_rounds_are_another_problem(model, name, log_scale, offset, given):
    scale, single = math.exp(log_scale), torch.float32
    low = scale * offset
    if name in ("denoising", "blur"):  # a modulus: minimizers follow the measurement
        check_equivariance(model, name, scale, low, single, given)
        return
    # Without a modulus they may lie apart, and the steps differ. What is proved of the objective holds.
    _, moved = solved(model, name, scale, low, single, None, tol=1e-4, gap_tol=1e-2)
    if (name, "exact") not in PLAIN:
        problem, best = solved(model, name, 1.0, 0.0, torch.float64, None, gap_tol=1e-5, max_iter=2000)
        PLAIN[name, "exact"] = problem.objective, best.certificate.objective - best.certificate.objective_gap
    objective, least = PLAIN[name, "exact"]
    value = objective.fn(((moved.x.double() - low) / scale).clamp(-0.25, 1.25))
    assert bool((value - least <= moved.certificate.objective_gap / scale**2 + 1e-4 * value).all())
    assert bool((moved.certificate.relative_gap <= 1e-2).all())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("scale", "low", "dtype"),
    [(65535.0, -1000.0, torch.float64), (0.02, 0.003, torch.float64), (2.0**-17, 0.0, torch.float32)],
)
def test_every_physics_has_results_in_any_unit(model, name, scale, low, dtype):
    check_equivariance(model, name, scale, low, dtype, "auto")


@pytest.mark.parametrize("offset", [1.0, 100.0, 3000.0])
def test_float32_with_an_offset_is_as_near_as_its_digits_allow(model, offset):
    scale, single = 300.0, torch.float32
    plain_problem, plain = solved(model, "denoising", 1.0, 0.0, single, None)
    problem, moved = solved(model, "denoising", scale, scale * offset, single, None)
    # Denoising is nonexpansive: results differ by no more than what is denoised, and what is proved.
    held = (problem.y.double() / scale - offset) - plain_problem.y.double()
    difference = (moved.x.double() / scale - offset) - plain.x.double()
    proved = plain.certificate.rms_distance + moved.certificate.rms_distance / scale
    assert bool((rms_of(difference) <= rms_of(held) + proved).all())
    assert bool((rms_of(held) < 6e-8 * (1 + offset)).all())


def rms_of(x):
    return x.square().flatten(1).mean(1).sqrt()


def test_the_objective_is_that_of_the_scaled_regularizer(model):
    problem, solution = solved(model, "blur", 300.0, 40.0, torch.float64, None)
    own = icgn.Problem(
        problem.y, problem.physics, ScaledRegularizer(model, 40.0, 340.0), sigma=problem.sigma, noise=problem.noise,
        box=(-35.0, 415.0),
    )  # fmt: skip
    value = problem.objective.fn(solution.x)
    torch.testing.assert_close(value, own.objective.fn(solution.x))
    torch.testing.assert_close(value, solution.certificate.objective, rtol=1e-9, atol=0)
    other = icgn.solve(own, tol=1e-4, gap_tol=1e-9)
    assert float((other.x - solution.x).abs().max()) < 0.05


def test_weights_are_found_in_any_unit(model):
    plain, _ = solved(model, "denoising", 1.0, 0.0, torch.float64, None)
    moved, _ = solved(model, "denoising", 1000.0, 50.0, torch.float64, None)
    torch.testing.assert_close(discrepancy(moved), discrepancy(plain), rtol=1e-3, atol=0)
    clean = scene(torch.float64)
    assert best_weight(moved, 1000 * clean + 50) == pytest.approx(best_weight(plain, clean), rel=1e-3)


def test_a_reconstructor_has_a_range_and_gradients_go_through_it(model):
    y = 500 * scene(torch.float64) + 100
    own = icgn.Reconstructor(model, sigma=50.0, noise=50.0, range=(100.0, 600.0), tol=1e-8)
    unit = icgn.Reconstructor(model, sigma=0.1, noise=0.1, tol=1e-8)
    operator = deepinv.physics.Denoising()
    y.requires_grad_(True)
    x = own(y, operator)
    z = y.detach().sub(100).div(500).requires_grad_(True)
    expected = unit(z, operator)
    torch.testing.assert_close(x, 500 * expected + 100, rtol=0, atol=1e-4)
    weights = torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (x * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(y.grad, z.grad, rtol=1e-5, atol=1e-8)


def test_levels_of_images_may_be_shaped_as_those_of_deepinv(model):
    y = scene(torch.float64)
    for sigma in (torch.tensor([0.05, 0.1]), torch.tensor([0.05, 0.1]).reshape(2, 1, 1, 1), torch.tensor(0.1)):
        for operator in (deepinv.physics.Denoising(), deepinv.physics.Denoising(deepinv.physics.GaussianNoise(0.1))):
            assert icgn.Reconstructor(model, sigma=sigma)(y, operator).shape == y.shape


def test_maps_of_noise_have_the_unit_of_the_picture(model):
    levels = torch.rand(SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[None] / 10 + 0.05
    y, operator = scene(torch.float64), deepinv.physics.Denoising()
    plain = icgn.solve(icgn.Problem(y, operator, model, sigma=0.1, noise=White(levels), range=(0, 1)), tol=1e-8)
    problem = icgn.Problem(300 * y - 7, operator, model, sigma=30.0, noise=White(300 * levels), range=(-7, 293))
    moved = icgn.solve(problem, tol=1e-8)
    torch.testing.assert_close((moved.x + 7) / 300, plain.x, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"range": (1, 1)}, "range: got .1, 1., expected two finite numbers"),
        ({"range": "all"}, "range: got 'all'"),
        ({"range": (0, 9), "noise": Poisson(1.0)}, "range: got .0, 9. beside a data term that is counts .Poisson"),
        ({"range": (0, 9), "data_fidelity": deepinv.optim.L2(1.0)}, "beside a data term that is L2"),
    ],
)
def test_ranges_that_cannot_be_say_why(model, options, message):
    with pytest.raises(ValueError, match=message):
        icgn.Problem(scene(torch.float64), deepinv.physics.Denoising(), model, sigma=0.1, **options)


def test_what_was_proved_is_printed(model):
    _, distance = solved(model, "denoising", 1.0, 0.0, torch.float64, None)
    assert "; rms_distance <= " in repr(distance)
    for name in ("inpainting", "valid blur"):
        _, gap = solved(model, name, 1.0, 0.0, torch.float64, None, gap_tol=1e-2)
        assert "; relative_gap <= " in repr(gap) and "inf" not in repr(gap)
