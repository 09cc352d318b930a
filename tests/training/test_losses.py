"""Batches and losses: every loss against what its formula says, and its gradient against finite differences."""

import copy
import dataclasses

import deepinv
import pytest
import torch
from training_cases import data, pictures, recipe, train

import icgn
from icgn import training
from icgn.regularizers import ICNN, ConditionalICGN, RidgeICGN
from icgn.solvers import Problem, implicit, solve
from icgn.training import Adversarial, Batch, Bilevel, GradientSteps, ScoreMatching, draw, fit, make_physics, validate
from icgn.training.losses.loss import weighted_error
from icgn.training.weight import _simplex

DENOISING = deepinv.physics.Denoising()
EXACT = {"tol": 1e-11, "max_iter": 3000, "cg_tol": 1e-11, "cg_iter": 1000}
LOSSES = [
    Bilevel(**EXACT),
    Bilevel(derivative="unrolled", max_iter=7),
    Adversarial(),
    GradientSteps(steps=3),
    ScoreMatching(),
]


def batch_of(step=0, physics=DENOISING, places=None, images=None, **changes):
    return draw(pictures() if images is None else images, recipe(**changes), step, physics, places=places)


def double(batch):
    names = ("clean", "y", "sigma", "position")
    return dataclasses.replace(batch, **{n: getattr(batch, n).double() for n in names})


def smooth_model(seed=0):
    torch.manual_seed(seed)
    model = RidgeICGN(filters=3, size=3, knots=3, activation="tanh").double()
    with torch.no_grad():
        model.log_tau += 1.0
    return model


def test_batches_depend_on_seed_step_and_place_alone():
    torch.manual_seed(1)
    first = batch_of(7)
    torch.manual_seed(2)
    again, other_step, other_seed = batch_of(7), batch_of(8), batch_of(7, seed=1)
    for name in ("clean", "y", "sigma", "position"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other_step, name))
        assert not torch.equal(getattr(first, name), getattr(other_seed, name))
        assert not torch.equal(getattr(first, name)[0], getattr(first, name)[1])
    assert first.clean.shape == (2, 1, 16, 16)


def test_processes_together_draw_the_batch_of_one():
    whole = batch_of(3, batch=5)
    parts = [batch_of(3, places=range(5)[rank::2], batch=5) for rank in range(2)]
    for rank, part in enumerate(parts):
        assert torch.equal(whole.y[rank::2], part.y) and torch.equal(whole.sigma[rank::2], part.sigma)


def test_batches_have_the_noise_they_say():
    batch = batch_of(batch=64, sigma=(10 / 255, 40 / 255))
    assert 10 / 255 <= batch.sigma.min() < batch.sigma.max() <= 40 / 255
    assert torch.allclose((batch.y - batch.clean).std((1, 2, 3)), batch.sigma, rtol=0.25)
    assert float(batch_of(sigma=(25 / 255, 25 / 255)).sigma[0]) == pytest.approx(25 / 255)


def test_bytes_are_drawn_as_the_same_intensities():
    levels = [(image * 255).round().to(torch.uint8) for image in pictures()]
    floats = [image.float() / 255 for image in levels]
    assert torch.equal(batch_of(images=levels).y, batch_of(images=floats).y)


def test_measurements_of_another_physics():
    blur = make_physics({"type": "Blur", "filter": {"function": "gaussian_blur", "sigma": [1.0, 1.0]}})
    batch = batch_of(physics=blur, sigma=(1e-9, 2e-9))
    assert batch.y.shape != batch.clean.shape or not torch.allclose(batch.y, batch.clean, atol=1e-3)
    assert torch.allclose(batch.y, blur.A(batch.clean), atol=1e-6)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"type": "Blurr"}, "physics: unknown type 'Blurr'; did you mean 'Blur'"),
        ({"type": "Blur", "filtr": 3}, "physics: the arguments do not fit Blur"),
        ({"type": "Blur", "filter": {"function": "gausian_blur"}}, "unknown function 'gausian_blur'; did you mean"),
        ({"type": "PhaseRetrieval"}, "physics: unknown type 'PhaseRetrieval'"),
    ],
)
def test_physics_that_do_not_exist(table, message):
    with pytest.raises(ValueError, match=message):
        make_physics(table)


def test_making_a_random_physics_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    masks = [make_physics({"type": "Inpainting", "img_size": [1, 8, 8], "mask": 0.5}).mask for _ in range(2)]
    assert torch.equal(masks[0], masks[1]) and torch.equal(torch.rand(2), expected)


# --- values ---


def test_bilevel_is_the_weighted_error_of_the_minimizer():
    model, batch = training.build(recipe()), batch_of(batch=3)
    x = icgn.denoise(batch.y, batch.sigma, regularizer=model, tol=1e-6).x
    expected = 100 * (batch.sigma * 255 / 25) ** -1.27 * (x - batch.clean).square().mean((1, 2, 3))
    assert torch.allclose(Bilevel(tol=1e-6, max_iter=500).values(model, batch), expected, rtol=1e-3)


@pytest.mark.parametrize(
    "make", [smooth_model, lambda: ICNN(layers=2, filters=4, size=3, smoothing=0.05, knots=3).double()]
)
def test_adversarial_is_its_formula(make):
    model, batch = make(), double(batch_of(batch=3))
    scaled = model.rescaled(*(torch.tensor([v], dtype=torch.float64) for v in (0.1, 50.0, 1.0)))
    middle = batch.clean + batch.position.view(-1, 1, 1, 1) * (batch.y - batch.clean)
    slopes = scaled.grad(middle, batch.sigma).flatten(1).norm(dim=1)
    fall = scaled.fn(batch.clean, batch.sigma) - scaled.fn(batch.y, batch.sigma)
    expected = fall / (16 * batch.sigma) + 7 * (slopes - 1).clamp_min(0) ** 2
    assert bool((slopes > 1).any())
    assert torch.allclose(Adversarial(penalty=7.0).values(scaled, batch), expected, rtol=1e-6)


def test_a_difference_of_potentials_is_an_integral_of_the_gradient():
    model, batch = smooth_model(), double(batch_of())
    functional, step = model.at(batch.sigma), batch.y - batch.clean
    nodes = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    integral = torch.stack([(functional.grad(batch.clean + t * step) * step).sum((1, 2, 3)) for t in nodes]).mean(0)
    rise = functional.fn(batch.y) - functional.fn(batch.clean)
    assert torch.allclose(rise, integral, rtol=1e-5)


@pytest.mark.parametrize("corruption", ["pseudo-inverse", "adjoint"])
def test_adversarial_corrupts_by_the_physics(corruption):
    physics = make_physics({"type": "Inpainting", "img_size": [1, 16, 16], "mask": 0.5})
    model, batch = smooth_model(), double(batch_of(physics=physics.double()))
    values = Adversarial(corruption=corruption).values(model, batch)
    corrupted = physics.A_dagger(batch.y) if corruption == "pseudo-inverse" else physics.A_adjoint(batch.y)
    same = Adversarial().values(model, dataclasses.replace(batch, y=corrupted, physics=DENOISING))
    assert torch.allclose(values, same)


def test_gradient_steps_are_exact_along_the_first_gradient():
    model, batch = smooth_model(), double(batch_of())
    problem = Problem(batch.y, DENOISING, model, batch.sigma)
    g = problem.objective.grad(batch.y)
    bend = (g * problem.objective.hvp(batch.y, g)).sum((1, 2, 3))
    t = (g.square().sum((1, 2, 3)) / bend).view(-1, 1, 1, 1)
    assert torch.allclose(GradientSteps(steps=1).values(model, batch), weighted_error(batch.y - t * g, batch))


def test_many_gradient_steps_reach_the_minimizer():
    model, batch = smooth_model(), double(batch_of())
    exact = solve(Problem(batch.y, DENOISING, model, batch.sigma), tol=1e-9).x
    assert torch.allclose(GradientSteps(steps=400).values(model, batch), weighted_error(exact, batch), rtol=1e-4)


def test_score_matching_is_one_gradient():
    model, batch = smooth_model(), double(batch_of())
    once = batch.y - model.grad(batch.y, batch.sigma)
    assert torch.allclose(ScoreMatching().values(model, batch), weighted_error(once, batch), rtol=1e-5)


# --- gradients ---


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_the_gradient_of_a_loss_is_a_finite_difference(loss):
    model, batch = smooth_model(), double(batch_of(sigma=(10 / 255, 40 / 255)))
    if isinstance(loss, Adversarial):
        # Where the penalty acts, and not at its kink.
        model = model.rescaled(*(torch.tensor([v], dtype=torch.float64) for v in (0.1, 50.0, 1.0)))
    # Steps of the unrolled methods are constants to the derivative, unlike to differences.
    frozen = isinstance(loss, GradientSteps) or (isinstance(loss, Bilevel) and loss.derivative == "unrolled")
    loss.values(model, batch).mean().backward()
    for parameter in model.parameters():
        direction = torch.randn_like(parameter)
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter += step * direction
                values.append(float(loss.values(model, batch).mean()))
                parameter -= step * direction
        measured = (values[0] - values[1]) / 2e-5
        slope = float((parameter.grad * direction).sum())
        assert slope == pytest.approx(measured, rel=0.3 if frozen else 2e-2, abs=2e-5)


def gradients(loss, model, batch):
    copied = copy.deepcopy(model)
    loss.values(copied, batch).mean().backward()
    return torch.cat([p.grad.flatten() for p in copied.parameters()])


def test_implicit_is_unrolled():
    model, batch = smooth_model(), double(batch_of())
    exact = gradients(Bilevel(**EXACT), model, batch)
    unrolled = gradients(Bilevel(derivative="unrolled", max_iter=600), model, batch)
    assert (exact - unrolled).norm() < 1e-3 * exact.norm()


def test_jacobian_free_points_the_same_way_but_is_not_the_gradient():
    model, batch = smooth_model(), double(batch_of())
    exact, free = (gradients(Bilevel(derivative=kind, **EXACT), model, batch) for kind in ("implicit", "jacobian-free"))
    cosine = float((exact * free).sum() / (exact.norm() * free.norm()))
    assert cosine > 0.5 and (exact - free).norm() > 0.01 * exact.norm()


@pytest.mark.parametrize(("kind", "systems"), [("implicit", [3, 3]), ("jacobian-free", [])])
def test_derivatives_of_first_solutions_take_the_steps_of_the_loss(monkeypatch, kind, systems):
    asked, solve = [], implicit.solve_hessian
    monkeypatch.setattr(implicit, "solve_hessian", lambda *a: asked.append(a[-1]) or solve(*a))
    torch.manual_seed(0)
    model = ConditionalICGN(filters=4, size=5, width=4, blocks=1, looseness=(0.1, 0.1)).double()
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    Bilevel(derivative=kind, cg_iter=3, max_iter=5).values(model, double(batch_of())).mean().backward()
    assert asked == systems


def saved_bytes(loss, model, batch):
    """Bytes that automatic differentiation keeps for the backward pass."""
    kept = {}

    def pack(t):
        kept[t.data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss.values(model, batch)
    return sum(kept.values())


def test_memory_does_not_grow_with_the_iterations_unless_unrolled():
    model, batch = training.build(recipe()), batch_of(patch=24)
    few, many = (saved_bytes(Bilevel(tol=1e-9, max_iter=n), model, batch) for n in (3, 60))
    assert many <= 1.1 * few
    few, many = (saved_bytes(Bilevel(derivative="unrolled", max_iter=n), model, batch) for n in (3, 30))
    assert many > 5 * few


@pytest.mark.parametrize(
    "make", [lambda: RidgeICGN(filters=4, size=3, knots=3), lambda: ICNN(layers=2, filters=4, size=3, knots=3)]
)
@pytest.mark.parametrize("loss", [Bilevel(), Adversarial(), GradientSteps(steps=3), ScoreMatching()], ids=repr)
def test_bfloat16_is_the_same_loss(loss, make, device):
    model, batch = make().to(device), batch_of().to(torch.device(device))
    exact = loss.values(model, batch)
    with torch.autocast(device, torch.bfloat16):
        rough = loss.values(model, batch)
    rough.mean().backward()
    assert rough.dtype == torch.float32 and all(bool(p.grad.isfinite().all()) for p in model.parameters())
    assert torch.allclose(rough, exact, rtol=0.03, atol=0.02)


def test_bfloat16_leaves_the_operator_alone():
    blur = make_physics(
        {"type": "Blur", "filter": {"function": "gaussian_blur", "sigma": [1.0, 1.0]}, "padding": "circular"}
    )
    model, batch = ICNN(layers=2, filters=4, size=3, knots=3), batch_of(physics=blur)
    for loss in (Adversarial(corruption="adjoint"), ScoreMatching(), GradientSteps(steps=2)):
        exact = loss.values(model, batch)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.allclose(loss.values(model, batch), exact, rtol=0.03, atol=0.02)


# --- validation ---


def test_every_loss_trains(tmp_path):
    model = {"type": "ICNN", "filters": 4, "size": 3, "knots": 3}
    rates = {"V": 1e-2, "bias": 1e-3, "raw_": 5e-2, "log_": 5e-2}
    small = data(validation=[pictures()[0][:, :16, :16]])
    for loss in (Bilevel(max_iter=10), Adversarial(), GradientSteps(steps=2), ScoreMatching()):
        r = recipe(loss=loss, model=model, learning_rate=rates, steps=4, validate_every=4)
        trained = training.build(r)
        history = fit(trained, r, small, tmp_path / type(loss).__name__)
        assert history[-1]["psnr_25"] > 10
        assert ("weight_25" in history[-1]) == loss.fits_weight
        assert not torch.equal(trained.V, training.build(r).V)


def test_a_short_run_lowers_the_loss_and_raises_the_psnr(tmp_path):
    r = recipe(steps=60, batch=4, validate_every=60, learning_rate={"bank": 1e-2, "log_": 1e-1})
    model = training.build(r)
    before = validate(model, r, pictures(1), DENOISING).row
    batch = batch_of(10_000, batch=16)
    losses = [float(r.loss.values(model, batch).mean().detach())]
    _, history = train(tmp_path, r, model=model)
    losses.append(float(r.loss.values(model, batch).mean().detach()))
    assert losses[1] < 0.7 * losses[0]
    assert history[-1]["psnr_25"] > before["psnr_25"] + 1


def test_validation_is_repeatable_and_takes_mixed_sizes():
    model, r = training.build(recipe()), recipe(validation_sigma=(10 / 255, 25 / 255))
    images = [pictures()[0], pictures()[1][:, :20, :9]]
    result = validate(model, r, images, DENOISING, step=3)
    assert result.row.keys() == {"step", "loss", "psnr_10", "psnr_25"}
    assert result.row["psnr_10"] > result.row["psnr_25"] > 15
    assert validate(model, r, images, DENOISING, step=3).row["psnr_25"] == result.row["psnr_25"]
    clean, noisy, restored = result.examples["25"]
    assert clean.shape == noisy.shape == restored.shape == (1, 32, 32)


def test_fitted_weights_are_the_best_nearby():
    model, images = RidgeICGN(filters=6, size=3, knots=3), [pictures()[0][:, :20, :20]]
    weights = training.fit_weights(model, images, (25 / 255,), DENOISING)
    r = recipe()

    def quality(factor, stretch):
        weight, scale = (factor * weights.weight[0],), (stretch * weights.scale[0],)
        changed = dataclasses.replace(weights, weight=weight, scale=scale)
        return validate(changed.applied(model), r, images, DENOISING).row["psnr_25"]

    best = quality(1, 1)
    assert best >= max(quality(0.8, 1), quality(1.25, 1), quality(1, 0.7), quality(1, 1.4)) - 0.01
    assert best > quality(0.5, 1) + 0.05 and best > quality(2, 1) + 0.05


def test_a_scale_that_hardly_matters_does_not_run_away():
    # For a norm the product of weight and scale is all that counts; sharper may be better by a trifle for ever.
    weight, scale = _simplex(lambda logs: (logs[0] + logs[1] - 2) ** 2 - 1e-3 * logs[1], (0.3, 0.1))
    assert abs(scale) < 0.5 and weight + scale == pytest.approx(2, abs=0.1)
    # One that gains is found.
    weight, scale = _simplex(lambda logs: (logs[0] - 1) ** 2 + (logs[1] + 1.5) ** 2, (0.3, 0.1))
    assert (weight, scale) == (pytest.approx(1, abs=0.03), pytest.approx(-1.5, abs=0.03))


def test_a_recipe_can_ask_for_the_weight_of_a_bilevel_model(tmp_path):
    small = data(validation=[pictures()[0][:, :16, :16]])
    histories = []
    for fit_weight in (False, True):
        r = recipe(steps=4, validate_every=2, fit_weight=fit_weight, loss=Bilevel(max_iter=10))
        histories.append(fit(training.build(r), r, small, tmp_path / str(fit_weight)))
    plain, fitted = histories
    assert fitted[0] == plain[0] and "weight_25" not in plain[1]
    assert fitted[1]["weight_25"] > 0 and fitted[1]["psnr_25"] > plain[1]["psnr_25"]


def test_weights_go_through_a_row_of_the_history():
    weights = training.Weights((5 / 255, 25 / 255), (2.0, 3.0), (1.0, 0.5))
    again = training.Weights.of_row({"step": 3, "loss": 0.1, **weights.row()})
    assert again.weight == weights.weight and again.scale == weights.scale
    assert again.sigma == pytest.approx(weights.sigma)
    assert training.Weights.of_row({"step": 3, "psnr_25": 20.0}) is None


def test_a_regularizer_that_cannot_take_a_weight():
    weights = training.Weights((5 / 255,), (2.0,), (1.0,))
    with pytest.raises(TypeError, match="SumRegularizer: has no method rescaled"):
        weights.applied(2.0 * RidgeICGN(filters=2, size=3))


def test_batch_moves_to_a_device(device):
    batch = batch_of().to(torch.device(device))
    assert isinstance(batch, Batch) and batch.y.device.type == device
