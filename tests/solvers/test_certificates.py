"""Certificates where they are hard: at rounding, beside other images, in narrow boxes, for numbers near the limits."""

from itertools import pairwise

import deepinv
import pytest
import torch
from latent_cases import latent
from quadratic import Quadratic

from icgn.regularizers import TotalVariation
from icgn.solvers import Box, Problem, Status, solve
from icgn.solvers.methods.line import enclosed_step, exact_step
from icgn.solvers.weight import discrepancy, sure

DENOISING = deepinv.physics.Denoising()


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rms(x):
    return x.double().square().flatten(1).mean(1).sqrt()


@pytest.mark.parametrize(("a", "tol", "scale"), [(10.0, 1e-10, 1), (1e3, 1e-11, 1), (1e4, 1e-12, 1), (1e3, 1e-9, 255)])
def test_a_distance_at_rounding_is_not_called_zero(a, tol, scale):
    y = scale * noise(6, 1, 32, 32, dtype=torch.float32)
    solution = solve(Problem(y, DENOISING, Quadratic(a), 0.1), tol=tol)
    error = rms(solution.x.double() - y.double() / (1 + a))
    # The bound of a quadratic is the distance itself, to the rounding of this line.
    assert (solution.certificate.rms_distance >= error * (1 - 1e-6)).all()
    assert all(
        (s is Status.CONVERGED) <= bool(e <= tol * (1 + 1e-6)) for s, e in zip(solution.status, error, strict=True)
    )


def test_small_objectives_do_not_underflow_to_a_proof():
    a = 1e-165
    y = noise(1, 1, 8, 8)

    solution = solve(Problem(y, DENOISING, Quadratic(a), sigma=a**0.5, noise=1.0), tol=1e-6, max_iter=3)
    error = rms(solution.x - y / 2)
    assert (solution.certificate.rms_distance >= error * (1 - 1e-12)).all()


def test_noise_that_no_weight_can_hold_is_refused():
    with pytest.raises(ValueError, match=r"noise: got 1e-200, expected one for which \(sigma / noise\)\^2 is finite"):
        Problem(noise(1, 1, 8, 8), DENOISING, TotalVariation(), sigma=0.1, noise=1e-200)


@pytest.mark.parametrize("box", [(0.0, 0.1), (0.7, 0.9), (0.3, 0.3), (0.1, 0.1 + 1e-9), (-0.1, 0.1)])
def test_results_in_float32_are_in_the_box(box):
    y = 0.5 * torch.ones(1, 1, 8, 8)
    solution = solve(Problem(y, DENOISING, Quadratic(0.5), 0.1, box=box))
    true = min(max(0.5 / 1.5, box[0]), box[1])
    if torch.tensor(box[0]) != torch.tensor(box[1]):
        assert float(solution.x.double().max()) <= box[1] and float(solution.x.double().min()) >= box[0]
        assert (solution.certificate.rms_distance >= rms(solution.x.double() - true) * (1 - 1e-9)).all()
    assert float((solution.x.double() - true).abs().max()) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("low", "high"), [(0.1, 0.7), (-0.7, -0.1), (0.0, 1.0), (0.1, float("inf"))])
def test_the_bounds_of_a_box_are_the_numbers_just_inside(low, high, dtype):
    first, last = (float(b) for b in Box(low=low, high=high).bounds(torch.zeros(1, dtype=dtype)))
    assert low <= first and last <= high
    assert abs(first - low) <= torch.finfo(dtype).eps * abs(low)
    assert last == high or abs(last - high) <= torch.finfo(dtype).eps * abs(high)


@pytest.mark.parametrize("search", [exact_step, enclosed_step])
@pytest.mark.parametrize("guess", [1.0, 10.0, 0.011, 0.3])
def test_a_step_over_a_kink_does_not_ascend(guess, search):
    def slope(t):
        return torch.where(t < 0.01, -1 + 105 * t, torch.full_like(t, 0.05))

    def value(t):
        return -t + 52.5 * t**2 if t < 0.01 else -0.00475 + 0.05 * (t - 0.01)

    t = float(search(slope, torch.tensor([-1.0]).double(), torch.tensor([guess]).double()))
    assert t > 0 and value(t) <= 0


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("method", ["newton", "conjugate"])
def test_methods_leave_a_corner_of_the_box(method, seed):
    """A projected direction that is hardly downhill must not be tried for ever."""
    physics = deepinv.physics.BlurFFT((1, 24, 24), filter=torch.ones(1, 1, 5, 5) / 25).double()
    x = torch.zeros(1, 1, 24, 24, dtype=torch.float64)
    x[..., 5:15, 8:20] = 0.8
    y = physics.A(x)
    y = y + 0.1 * torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    problem = Problem(y, physics, TotalVariation(), 0.1, weight=1e-3, box=(0, 1))
    values = []
    solution = solve(
        problem,
        method=method,
        tol=1e-9,
        gap_tol=1e-6,
        callback=lambda e: values.append(float(problem.objective.fn(e.x))),
    )
    assert solution.status[0] is Status.CONVERGED
    assert solution.stats.iterations[0] < 500
    assert all(later <= value * (1 + 1e-6) for value, later in pairwise(values))


@pytest.mark.parametrize("rule", [sure, discrepancy])
def test_equal_images_get_equal_weights_whatever_is_beside_them(rule):
    clean = noise(1, 1, 6, 6).repeat_interleave(8, 2).repeat_interleave(8, 3)
    y = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    other = noise(1, 1, 48, 48, seed=5)
    found = rule(Problem(torch.cat([y, other, y]), DENOISING, TotalVariation(), 0.1))
    alone = rule(Problem(y, DENOISING, TotalVariation(), 0.1))
    torch.testing.assert_close(found[0], found[2], rtol=1e-6, atol=0)
    # To what the search tells apart.
    torch.testing.assert_close(found[:1], alone, rtol=5e-2, atol=0)


@pytest.mark.parametrize("level", [1e-2, 1e-4, 1e-5])
def test_discrepancy_meets_small_noise(level):
    y = noise(1, 1, 24, 24)
    weight = discrepancy(Problem(y, DENOISING, Quadratic(1.0), level, weight="discrepancy"))
    x = y / (1 + weight)
    assert float(rms(x - y)) == pytest.approx(level, rel=0.05) or float(weight) < 1.1e-3


def test_an_image_that_is_not_finite_leaves_latent_pictures_of_the_others_alone():
    reg = latent().double().requires_grad_(False)
    x = noise(1, 1, 12, 12)
    bad = x.clone()
    bad[..., 0, 0] = torch.nan
    torch.testing.assert_close(reg.grad(torch.cat([x, bad]), 0.1)[:1], reg.grad(x, 0.1), rtol=0, atol=1e-9)


def test_masks_of_images_give_each_its_modulus():
    masks = torch.ones(2, 1, 16, 16, dtype=torch.float64)
    masks[1, :, :8] = 0
    physics = deepinv.physics.Inpainting((1, 16, 16), mask=masks)
    y = masks * noise(2, 1, 16, 16)
    solution = solve(Problem(y, physics, TotalVariation(), 0.1, box=(0, 1)), tol=1e-4)
    assert solution.certificate.rms_distance[0] <= 1e-4 and solution.certificate.rms_distance[1] == torch.inf
    alone = solve(
        Problem(y[:1], deepinv.physics.Inpainting((1, 16, 16), mask=masks[:1]), TotalVariation(), 0.1, box=(0, 1))
    )
    torch.testing.assert_close(solution.x[:1], alone.x, rtol=0, atol=2e-4)


class Strict(deepinv.physics.LinearPhysics):
    """Half the picture, in float32 only, said with an error of its own."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def A(self, x, **kwargs):  # noqa: N802
        if x.dtype is not torch.float32:
            raise self.error("float32 only")
        return 0.5 * x

    A_adjoint = A


@pytest.mark.parametrize("error", [TypeError, AssertionError, NotImplementedError, RuntimeError])
def test_operators_that_know_one_precision_are_certified_in_it(error):
    y = 0.5 * noise(1, 1, 12, 12, dtype=torch.float32)
    solution = solve(Problem(y, Strict(error), Quadratic(1.0), 0.1, box=(0, 1)), tol=1e-3)
    assert solution.certificate.dtype is torch.float32
    torch.testing.assert_close(solution.x, 0.5 * y / 1.25, rtol=0, atol=1e-3)


def test_a_kernel_that_is_being_learned_is_no_obstacle():
    kernel = torch.nn.Parameter(torch.ones(1, 1, 3, 3) / 9)
    physics = deepinv.physics.BlurFFT((1, 12, 12), filter=1.0 * kernel)
    y = noise(1, 1, 12, 12, dtype=torch.float32)
    solution = solve(Problem(y, physics, TotalVariation(), 0.1, box=(0, 1)))
    assert torch.isfinite(solution.x).all() and torch.isfinite(solution.certificate.objective_gap).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype):
    with pytest.raises(TypeError, match=f"y: got {dtype}, expected torch.float32 or torch.float64"):
        Problem(noise(1, 1, 8, 8).to(dtype), DENOISING, TotalVariation(), 0.1)


def test_numbers_of_the_caller_may_change_afterwards():
    weight = torch.tensor([1.0], dtype=torch.float64)
    solution = solve(Problem(noise(1, 1, 8, 8), DENOISING, TotalVariation(), 0.1, weight=weight))
    weight.fill_(7.0)
    assert float(solution.weight) == 1.0


def test_newton_takes_as_long_for_an_image_as_it_does_alone():
    y = noise(3, 1, 24, 24)
    sigma = torch.tensor([0.02, 0.3, 0.1])
    smooth = TotalVariation(eps=0.05)
    together = solve(Problem(y, DENOISING, smooth, sigma), method="newton", tol=1e-4)
    for i in range(3):
        alone = solve(Problem(y[i : i + 1], DENOISING, smooth, sigma[i]), method="newton", tol=1e-4)
        assert alone.stats.iterations[0] == together.stats.iterations[i]
        torch.testing.assert_close(alone.x[0], together.x[i], rtol=0, atol=1e-9)
