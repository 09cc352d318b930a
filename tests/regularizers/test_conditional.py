"""The conditional network: convex for every condition, the condition computed from the data, audited afterwards."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import deepinv
import pytest
import torch
from conditional_cases import conditional, masks
from hypothesis import given, settings
from hypothesis import strategies as st

import icgn
from icgn.regularizers import ConditionalICGN, PerChannel, PullBack, RidgeICGN, TotalVariation
from icgn.regularizers.bank import BlockFunctional
from icgn.regularizers.pretrained import load_pretrained, save_model
from icgn.solvers import Problem, Reconstructor, certify, solve
from icgn.solvers.conditioning import conditioned
from icgn.training import Bilevel, MaskLikelihood
from icgn.training.losses.likelihood import usual_size
from icgn.training.patches import Batch

DENOISING = deepinv.physics.Denoising()
SIGMA = 0.1


def noisy(batch=2, channels=1, size=(13, 10), seed=0):
    g = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(0, 1, size[1], dtype=torch.float64).expand(batch, channels, *size)
    return ramp + SIGMA * torch.randn(ramp.shape, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("noisy_colours", [False, True])
def test_denoise_takes_three_equal_channels_for_gray(noisy_colours):
    y = noisy(batch=1, size=(24, 21)).float().expand(-1, 3, -1, -1).clone()
    if noisy_colours:
        y[:, 1] += 1e-3
    x = icgn.denoise(y, SIGMA, tol=1e-4).x
    model = load_pretrained("conditional-color") if noisy_colours else PerChannel(load_pretrained("conditional-gray"))
    assert torch.equal(x, icgn.denoise(y, SIGMA, regularizer=model, tol=1e-4).x)
    if not noisy_colours:
        one = icgn.denoise(y[:, :1], SIGMA, tol=1e-4)
        # Both within 1e-4 of the same minimizer, whose condition may move by as much.
        assert (x - one.x).square().mean().sqrt() < 3e-4


@pytest.fixture
def reg():
    return conditional().double().requires_grad_(False)


# --- the regularizer ---


def test_a_condition_of_one_is_the_ridge_and_none_the_first(reg):
    x = noisy()
    one = reg.given(torch.ones(1, 3, 13, 10, dtype=torch.float64))
    torch.testing.assert_close(one.grad(x, SIGMA), reg.ridge.grad(x, SIGMA))
    torch.testing.assert_close(reg.grad(x, SIGMA), reg.first.grad(x, SIGMA))


def test_a_gradient_is_the_formula(reg):
    x, c = noisy(1), masks(reg, (13, 10))
    lam, tau = reg.ridge.curves(torch.tensor([SIGMA], dtype=torch.float64))
    lam, tau = lam[0, 0][:, None, None], tau[0, 0][:, None, None]
    clipped = torch.clamp(lam / tau * reg.ridge.bank(x), -lam * c, lam * c)
    torch.testing.assert_close(reg.given(c).grad(x, SIGMA), reg.ridge.bank.adjoint(clipped, x.shape))


def test_the_lipschitz_bound_does_not_depend_on_the_condition(reg):
    bounds = [reg.at(SIGMA, masks(reg, (8, 8), seed, reach=4.0)).lipschitz() for seed in range(3)]
    assert all(torch.equal(b, reg.ridge.lipschitz(SIGMA)) for b in bounds)


def test_small_masks_keep_and_large_ones_remove():
    """The prox is the identity where masks vanish, and smooths more where they are larger."""
    reg, y = conditional().double().requires_grad_(False), noisy(1)
    ones = torch.ones(1, 3, 13, 10, dtype=torch.float64)
    kept, middle, removed = (solve(Problem(y, DENOISING, reg, SIGMA, condition=m * ones)).x for m in (1e-6, 1.0, 50.0))
    torch.testing.assert_close(kept, y, atol=1e-4, rtol=0)
    rough = [float(reg.ridge.bank(x).abs().sum()) for x in (kept, middle, removed)]
    assert rough[0] > 1.1 * rough[1] and rough[1] > 1.1 * rough[2]


@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(3, 14), width=st.integers(3, 14), sigma=st.floats(0, 2), seed=st.integers(0, 9),
    channels=st.sampled_from([1, 3]),
)  # fmt: skip
def test_masks_stay_in_their_range_for_every_size_and_level(height, width, sigma, seed, channels):
    reg = conditional(channels, seed).double().requires_grad_(False)
    g = torch.Generator().manual_seed(seed)
    x, r = (3 * torch.randn(2, channels, height, width, generator=g, dtype=torch.float64) for _ in range(2))
    c = reg.condition(x, sigma, r)
    assert c.shape == (2, 3, height, width)
    assert math.exp(-2.0) * (1 - 1e-6) <= float(c.min()) and float(c.max()) <= math.exp(2.0) * (1 + 1e-6)
    alone = reg.condition(x[1:], sigma, r[1:])
    torch.testing.assert_close(c[1:], alone)


def test_the_network_is_equivariant_to_shifts_by_its_stride(reg):
    x, r = noisy(1, size=(48, 48)), 0.1 * noisy(1, size=(48, 48), seed=1)
    c = reg.condition(x, SIGMA, r)
    moved = reg.condition(x.roll((4, 8), (2, 3)), SIGMA, r.roll((4, 8), (2, 3)))
    inside = (slice(None), slice(None), slice(24, 36), slice(24, 36))
    torch.testing.assert_close(moved[inside], c.roll((4, 8), (2, 3))[inside])


def test_one_huge_value_does_not_change_what_masks_far_from_it_are_computed_from(reg):
    x = torch.rand(1, reg.channels, 24, 24, generator=torch.Generator().manual_seed(0))
    beyond, further = x.clone(), x.clone()
    beyond[..., 12, 12], further[..., 12, 12] = 1e3, 1e9
    residual = torch.zeros_like(x)
    assert torch.equal(reg.condition(beyond, SIGMA, residual), reg.condition(further, SIGMA, residual))


def in_strips(reg, x, residual, rows, monkeypatch, sigma=SIGMA):
    """The mask computed in strips of so many rows, which is kept in half precision."""
    with monkeypatch.context() as patched, torch.no_grad():
        patched.setattr(icgn.regularizers.masks, "LIMIT", 1)
        patched.setattr(icgn.regularizers.masks, "_STRIP", len(x) * x.shape[-1] * 3 * rows)
        mask = reg.condition(x, sigma, residual)
    assert mask.dtype is torch.float16
    return mask.double()


@pytest.mark.parametrize("height", [48, 61])
def test_strips_give_the_same_masks(reg, height, monkeypatch):
    x, r = noisy(2, size=(height, 13)), 0.1 * noisy(2, size=(height, 13), seed=1)
    levels = SIGMA * (1 + torch.rand(2, 1, height, 13, generator=torch.Generator().manual_seed(2)).double())
    for sigma in (SIGMA, levels):
        half = in_strips(reg, x, r, 9, monkeypatch, sigma)
        torch.testing.assert_close(half, reg.condition(x, sigma, r), rtol=2**-11, atol=0)


@pytest.mark.parametrize(("stride", "blocks", "size"), [(2, 0, 9), (4, 0, 15), (2, 1, 17), (4, 1, 3)])
def test_strips_of_large_filters_are_aligned(stride, blocks, size, monkeypatch):
    reg = conditional(stride=stride, blocks=blocks, size=size).double().requires_grad_(False)
    x, r = noisy(1, size=(41, 24)), 0.1 * noisy(1, size=(41, 24), seed=1)
    for rows in (1, 9):
        torch.testing.assert_close(
            in_strips(reg, x, r, rows, monkeypatch), reg.condition(x, SIGMA, r), rtol=2**-11, atol=0
        )


def test_a_mask_in_half_precision_is_a_condition(reg):
    """Blocks, the whole and the certificate have the same problem."""
    c = masks(reg, (21, 10)).half()
    whole, exact = (reg.at(0.1, condition) for condition in (c, c.double()))
    x = noisy(1, size=(21, 10))
    for functional in (whole, BlockFunctional(whole, 4)):
        torch.testing.assert_close(functional.grad(x), exact.grad(x))
        torch.testing.assert_close(functional.to(torch.float64).fn(x), exact.fn(x))


def test_a_network_upon_a_ridge_begins_as_that_ridge():
    first = RidgeICGN(filters=4, size=3, knots=3).double()
    with torch.no_grad():
        first.log_tau += 0.3
    reg = ConditionalICGN.upon(first, width=4, blocks=0).double().requires_grad_(False)
    y = noisy()
    plain, both = (solve(Problem(y, DENOISING, r, SIGMA), tol=1e-9).x for r in (first, reg))
    torch.testing.assert_close(both, plain, atol=1e-7, rtol=0)
    wider = ConditionalICGN.upon(first, filters=6, size=5, width=4, blocks=0)
    assert wider.first.architecture["filters"] == 4 and wider.ridge.architecture["filters"] == 6
    torch.testing.assert_close(wider.double().grad(y, SIGMA), first.grad(y, SIGMA))


def test_a_wider_mask_network_is_the_same_function_and_can_be_trained(reg):
    wide = reg.widened(width=7, blocks=2).requires_grad_(True)
    assert len(wide.network.body) == 2 and wide.architecture["width"] == 7
    x, r = noisy(2), 0.1 * noisy(2, seed=1)
    mask = wide.condition(x, SIGMA, r)
    torch.testing.assert_close(mask, reg.condition(x, SIGMA, r))
    mask.square().sum().backward()
    assert bool((wide.network.tail.weight.grad[:, -3:] != 0).any())


@pytest.mark.parametrize(("change", "message"), [({"width": 3}, "width: got 3"), ({"stride": 2}, "stride: cannot")])
def test_a_mask_network_neither_shrinks_nor_changes_its_grid(reg, change, message):
    with pytest.raises(ValueError, match=message):
        reg.widened(**change)


def test_weights_go_through_a_file(reg, tmp_path):
    reg = reg.float()
    save_model(reg, tmp_path / "mine.safetensors", {})
    again = load_pretrained(tmp_path / "mine.safetensors")
    y = noisy().float()
    assert again.looseness == reg.looseness
    torch.testing.assert_close(icgn.denoise(y, SIGMA, regularizer=again).x, icgn.denoise(y, SIGMA, regularizer=reg).x)


def test_the_unconditional_part_is_never_trained():
    reg = conditional().requires_grad_(True)
    assert not any(p.requires_grad for p in reg.first.parameters())
    assert all(p.requires_grad for p in (*reg.ridge.parameters(), *reg.network.parameters()))


def test_blocks_have_the_same_masks(reg):
    x, v = noisy(2, size=(21, 10)), noisy(2, size=(21, 10), seed=1)
    whole = reg.at(torch.tensor([0.05, 0.2]), torch.cat([masks(reg, (21, 10), seed) for seed in (0, 1)]))
    blocks = BlockFunctional(whole, 8)
    for name, arguments in (("fn", (x,)), ("grad", (x,)), ("hvp", (x, v))):
        torch.testing.assert_close(getattr(blocks, name)(*arguments), getattr(whole, name)(*arguments))
    t = torch.tensor([0.1, 2.0], dtype=torch.float64)
    torch.testing.assert_close(blocks.slope(x, v, t), whole.slope(whole.linear(x), whole.linear(v), t))


# --- solving ---


def test_the_condition_poses_the_last_problem_again(reg):
    y = noisy()
    problem = Problem(y, DENOISING, reg, SIGMA)
    sol = solve(problem, tol=1e-6)
    assert sol.converged and sol.condition is not None
    audit = replace(problem, condition=sol.condition)
    proof = certify(audit.objective, sol.x)
    torch.testing.assert_close(proof.rms_distance, sol.certificate.rms_distance)
    again = solve(audit, tol=1e-6)
    assert torch.equal(again.condition, sol.condition)
    assert float((again.x - sol.x).square().mean().sqrt()) <= 2e-6
    assert (again.stats.iterations < sol.stats.iterations).all()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), sigma=st.floats(0.02, 0.19), tol=st.sampled_from([1e-2, 1e-3, 1e-5]))
def test_the_certificate_bounds_the_true_error(seed, sigma, tol):
    reg = conditional(seed=seed % 7).requires_grad_(False)
    y = noisy(2, seed=seed).float()
    sol = solve(Problem(y, DENOISING, reg, sigma), tol=tol)
    exact = Problem(y, DENOISING, reg, sigma, condition=sol.condition).to(torch.float64)
    reference = solve(exact, tol=1e-10)
    error = (sol.x - reference.x).square().mean((1, 2, 3)).sqrt()
    assert (error <= sol.certificate.rms_distance + 1e-10).all()
    assert (sol.certificate.rms_distance <= tol).all()


def test_images_do_not_influence_each_other(reg):
    y = noisy(3)
    y[1] *= 3
    loose = copy.deepcopy(reg)
    loose.looseness = (0.3,)
    sigma = torch.tensor([0.02, 0.1, 0.19], dtype=torch.float64)
    together = solve(Problem(y, DENOISING, loose, sigma))
    for i in range(3):
        alone = solve(Problem(y[i : i + 1], DENOISING, loose, sigma[i : i + 1]))
        torch.testing.assert_close(together.condition[i : i + 1], alone.condition)
        torch.testing.assert_close(together.x[i : i + 1], alone.x)


def test_an_invalid_image_leaves_the_others_alone(reg):
    y = noisy(2)
    y[0, 0, 0, 0] = torch.nan
    sol = solve(Problem(y, DENOISING, reg, SIGMA))
    assert sol.status[0].name == "INVALID_INPUT" and sol.status[1].name == "CONVERGED"
    torch.testing.assert_close(sol.x[1:], solve(Problem(y[1:], DENOISING, reg, SIGMA)).x)


def test_looseness_is_how_far_the_first_solution_is(reg):
    problem = Problem(noisy(), DENOISING, reg, SIGMA)
    for part in (0.5, 0.05, 1e-4):
        loose = copy.deepcopy(reg)
        loose.looseness = (part,)
        found = conditioned(replace(problem, regularizer=loose))
        rms = problem.objective.grad(found.x).square().mean((1, 2, 3)).sqrt()
        assert (rms <= part * SIGMA).all() and found.problem.condition is not None


def test_a_second_condition_comes_from_the_first_solution(reg):
    twice = copy.deepcopy(reg)
    twice.looseness = (1e-6, 1e-6)
    y = noisy()
    once = solve(Problem(y, DENOISING, reg, SIGMA), tol=1e-8)
    expected = reg.condition(once.x, SIGMA, y - once.x)
    torch.testing.assert_close(solve(Problem(y, DENOISING, twice, SIGMA)).condition, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.0, 1 / 255, 0.5])
def test_every_level_has_a_solution(reg, sigma):
    y = noisy()
    sol = solve(Problem(y, DENOISING, reg, sigma))
    assert sol.converged and torch.isfinite(sol.condition).all()
    if sigma == 0:
        torch.testing.assert_close(sol.x, y, atol=1e-6, rtol=0)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_picture_of_one_gray_is_its_own_minimizer(reg, value):
    y = torch.full((1, 1, 13, 10), value, dtype=torch.float64)
    sol = solve(Problem(y, DENOISING, reg, SIGMA))
    assert sol.converged
    torch.testing.assert_close(sol.x, y, atol=1e-9, rtol=0)


def test_a_saturated_picture_is_certified(reg):
    y = noisy(2).mul(4).sub(1.5).clamp(0, 1)
    sol = solve(Problem(y, DENOISING, reg, SIGMA, box=(0, 1)))
    assert sol.converged and bool(((sol.x >= 0) & (sol.x <= 1)).all())


def test_the_condition_of_another_picture_poses_a_convex_problem_all_the_same(reg):
    y, other = noisy(1), noisy(1, seed=5)
    condition = solve(Problem(other, DENOISING, reg, SIGMA)).condition
    problem = Problem(y, DENOISING, reg, SIGMA, condition=condition)
    sol, exact = solve(problem, tol=1e-3), solve(problem, tol=1e-10)
    assert float((sol.x - exact.x).square().mean().sqrt()) <= float(sol.certificate.rms_distance) <= 1e-3


def test_a_weight_of_zero_returns_the_measurement(reg):
    y = noisy()
    torch.testing.assert_close(solve(Problem(y, DENOISING, reg, SIGMA, weight=0.0)).x, y)


@pytest.mark.parametrize("weight", ["sure", "discrepancy"])
def test_a_rule_finds_the_weight_of_a_conditional_problem(reg, weight):
    y = noisy(1)
    sol = solve(Problem(y, DENOISING, reg, SIGMA, weight=weight))
    plain = solve(Problem(y, DENOISING, reg.first, SIGMA, weight=weight))
    torch.testing.assert_close(sol.weight, plain.weight)
    assert sol.condition is not None


def test_blur_with_a_box_is_certified_by_the_gap(reg):
    kernel = torch.tensor([[0.1, 0.2, 0.0], [0.0, 0.5, 0.1], [0.05, 0.05, 0.0]], dtype=torch.float64)
    physics = deepinv.physics.BlurFFT((1, 13, 10), kernel[None, None])
    sol = solve(Problem(physics.A(noisy()), physics, reg, SIGMA, noise=0.05, box=(0, 1)))
    assert sol.converged and sol.condition.shape == (2, 3, 13, 10)


def test_a_reconstructor_of_deepinv_conditions_too(reg):
    y = noisy()
    with torch.no_grad():
        x = Reconstructor(reg, SIGMA, tol=1e-6)(y, DENOISING)
    torch.testing.assert_close(x, solve(Problem(y, DENOISING, reg, SIGMA), tol=1e-6).x)


def test_given_is_a_prior_of_deepinv(reg):
    y = noisy(1)
    sol = solve(Problem(y, DENOISING, reg, SIGMA), tol=1e-7)
    prior = reg.given(sol.condition)
    model = deepinv.optim.PGD(data_fidelity=deepinv.optim.L2(), prior=prior, g_param=SIGMA, stepsize=1.0, max_iter=5)
    with torch.no_grad():
        x = model(y, DENOISING)
    torch.testing.assert_close(x, sol.x, atol=1e-4, rtol=0)


# --- composition ---


def test_per_channel_conditions_each_channel(reg):
    y = noisy(2, channels=3)
    sigma = torch.tensor([0.05, 0.1], dtype=torch.float64)
    sol = solve(Problem(y, DENOISING, PerChannel(reg), sigma), tol=1e-7)
    assert sol.condition.shape == (2, 3, 3, 13, 10)
    for c in range(3):
        alone = solve(Problem(y[:, c : c + 1], DENOISING, reg, sigma), tol=1e-7)
        torch.testing.assert_close(sol.x[:, c : c + 1], alone.x, atol=1e-6, rtol=0)
    fixed = PerChannel(reg).given(sol.condition)
    icgn.check_regularizer(PerChannel(reg.given(masks(reg, (6, 7)))), (2, 3, 6, 7))
    assert fixed.lipschitz(sigma).shape == (2,)


def test_a_multiple_and_a_sum_condition_their_part(reg):
    y = noisy()
    half = solve(Problem(y, DENOISING, 0.5 * reg, SIGMA), tol=1e-8)
    weighted = solve(Problem(y, DENOISING, reg, SIGMA, weight=0.5), tol=1e-8)
    torch.testing.assert_close(half.condition, weighted.condition, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(half.x, weighted.x, atol=1e-6, rtol=0)
    tv = 0.1 * TotalVariation()
    both = reg + tv
    first = solve(Problem(y, DENOISING, reg.first + tv, SIGMA), tol=1e-8).x
    expected = reg.condition(first, SIGMA, y - first - tv.grad(first, SIGMA))
    torch.testing.assert_close(solve(Problem(y, DENOISING, both, SIGMA)).condition, expected, rtol=1e-3, atol=1e-4)


def test_a_pull_back_by_an_orthogonal_map_is_the_same_problem(reg):
    class Flip(deepinv.physics.LinearPhysics):
        def A(self, x, **kwargs):  # noqa: N802
            return x.flip(-1)

        A_adjoint = A

    y = noisy()
    sol = solve(Problem(y, DENOISING, PullBack(reg, Flip(), gram=(1, 1)), SIGMA), tol=1e-7)
    plain = solve(Problem(y.flip(-1), DENOISING, reg, SIGMA), tol=1e-7)
    torch.testing.assert_close(sol.x, plain.x.flip(-1), atol=1e-6, rtol=0)


# --- derivatives and training ---


def test_the_derivative_with_respect_to_the_measurement_is_a_finite_difference():
    reg = conditional().double().requires_grad_(False)
    for ridge in (reg.first, reg.ridge):
        ridge.log_tau += 1.0
    y, direction = noisy(1), noisy(1, seed=3)
    weight = noisy(1, seed=4)

    def value(t):
        return float((weight * solve(Problem(y + t * direction, DENOISING, reg, SIGMA), tol=1e-10).x).sum())

    leaf = y.clone().requires_grad_(True)
    x = solve(Problem(leaf, DENOISING, reg, SIGMA), tol=1e-10, differentiable=True).x
    (grad,) = torch.autograd.grad((weight * x).sum(), leaf)
    difference = (value(1e-5) - value(-1e-5)) / 2e-5
    assert abs(float((grad * direction).sum()) - difference) <= 1e-3 * abs(difference)


def batch(channels=1):
    clean = noisy(2, channels, (12, 12), 1)
    y = clean + SIGMA * noisy(2, channels, (12, 12), 2)
    return Batch(clean, y, torch.full((2,), SIGMA, dtype=torch.float64), torch.rand(2), DENOISING)


@pytest.mark.parametrize("name", ["network.tail.bias", "network.direct", "network.head.weight", "ridge.log_lambda"])
def test_the_gradient_of_the_bilevel_loss_is_a_finite_difference(name):
    reg = conditional(activation="tanh").double()
    loss, data = Bilevel(tol=1e-10, max_iter=500, cg_tol=1e-10, cg_iter=200), batch()
    parameter = dict(reg.named_parameters())[name]
    loss.values(reg, data).sum().backward()
    direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slope = float((parameter.grad * direction).sum())
    values = []
    for step in (1e-5, -1e-5):
        moved = copy.deepcopy(reg)
        with torch.no_grad():
            dict(moved.named_parameters())[name].add_(step * direction)
            values.append(float(loss.values(moved, data).sum()))
    assert slope == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-3)


def test_mask_likelihood_is_its_formula():
    reg, data = ConditionalICGN(filters=3, size=3, knots=3, width=4, blocks=0).double(), batch()
    size = 0.0074 * usual_size(reg.ridge.bank.weight)
    r = torch.hypot(reg.ridge.bank(data.clean), torch.tensor(0.1 * SIGMA, dtype=torch.float64))
    expected = (r / size[:, None, None]).mean((1, 2, 3))
    torch.testing.assert_close(MaskLikelihood().values(reg, data), expected)
    with pytest.raises(ValueError, match="ConditionalICGN"):
        MaskLikelihood().values(RidgeICGN(filters=3, size=3), data)


def test_usual_sizes_follow_the_spectrum_of_photographs():
    """Responses to the same filter at half the resolution are larger by the falloff of the amplitude, 2 ** 0.2."""
    x = icgn.datasets.bundled(gray=True).find("camera").image[None].double()
    bank = RidgeICGN(filters=8, size=5).bank.double()
    measured = bank(x).square().mean((0, 2, 3)).sqrt()
    ratio = measured / usual_size(bank.weight)
    assert float((ratio / ratio.mean()).log().abs().max()) < 0.8


def test_both_losses_lower_themselves():
    for loss in (MaskLikelihood(max_iter=5), Bilevel(tol=1e-3, max_iter=10)):
        reg, data = conditional(), batch()
        data = replace(data, clean=data.clean.float(), y=data.y.float(), sigma=data.sigma.float())
        parameters = [p for p in reg.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=1e-2)
        values = []
        for _ in range(15):
            optimizer.zero_grad()
            value = loss.values(reg, data).mean()
            value.backward()
            optimizer.step()
            values.append(float(value.detach()))
        assert values[-1] < values[0]


# --- bad input ---


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"border": "valid"}, "border"),
        ({"looseness": ()}, "looseness"),
        ({"looseness": (0.1, -1.0)}, "looseness"),
        ({"reach": 0.0}, "reach"),
        ({"reach": float("nan")}, "reach"),
        ({"width": 0}, "width"),
        ({"blocks": -1}, "blocks"),
        ({"stride": 0}, "stride"),
    ],
)
def test_bad_parameters_are_named(options, name):
    with pytest.raises(ValueError, match=name):
        conditional(**options)


@pytest.mark.parametrize(
    "condition",
    [
        torch.ones(1, 4, 13, 10),
        torch.ones(3, 13, 10),
        torch.zeros(1, 3, 13, 10),
        torch.full((1, 3, 13, 10), torch.nan),
        torch.ones(1, 3, 12, 10),
        torch.ones(3, 3, 13, 10),
    ],
)
def test_a_condition_that_does_not_fit_is_named(reg, condition):
    with pytest.raises(ValueError, match="condition"):
        solve(Problem(noisy(), DENOISING, reg, SIGMA, condition=condition))


def test_regularizers_without_a_condition_say_so():
    ridge = RidgeICGN(filters=3, size=3)
    with pytest.raises(TypeError, match="RidgeICGN"):
        ridge.condition(torch.rand(1, 1, 8, 8), 0.1, torch.zeros(1, 1, 8, 8))
    with pytest.raises(TypeError, match="RidgeICGN"):
        ridge.given(torch.ones(1, 3, 8, 8))
    with pytest.raises(ValueError, match="conditional"):
        conditional() + conditional()


def test_given_takes_pictures_of_its_size_only(reg):
    fixed = reg.given(masks(reg, (13, 10)))
    with pytest.raises(ValueError, match="condition"):
        fixed.grad(noisy(1, size=(13, 11)), SIGMA)
    with pytest.raises(ValueError, match="condition"):
        fixed.at(SIGMA, masks(reg, (13, 10)))
