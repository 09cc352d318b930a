"""One picture: levels found, channels arranged, metadata kept, nothing printed."""

import itertools
from types import SimpleNamespace

import deepinv
import pytest
import torch

import icgn
from icgn.datasets import Picture, add_noise, bundled
from icgn.pictures import (
    Deblur,
    Denoise,
    Enlarge,
    Inpaint,
    Measured,
    NoiseLevel,
    estimated_level,
    measured_level,
    read_kernel,
    regularizers_by_channels,
    restore_picture,
)
from icgn.pictures.levels import model_level
from icgn.pictures.progress import Progress
from icgn.solvers import Status

REACH = (1 / 255, 50 / 255)


@pytest.fixture(scope="module")
def model():
    return icgn.load_pretrained("ridge-gray-small")


def clean(gray=True, side=40):
    return bundled(gray=gray).find("camera" if gray else "coffee").image[:, 100 : 100 + side, 200 : 200 + side].clone()


def noisy(level=10, gray=True, **kept):
    return Picture(add_noise(clean(gray), level / 255, 0), **kept)


# Levels


def test_a_level_is_estimated_measured_or_given():
    picture = noisy(20)
    assert abs(255 * estimated_level(picture).value - 20) < 5
    measured = measured_level(picture, Picture(clean()))
    assert measured.found == "measured" and 255 * measured.value == pytest.approx(20, rel=0.05)
    assert estimated_level(picture).notes[0].topic == "noise" and not NoiseLevel(0.1).notes


def test_levels_that_are_found_are_clamped_to_the_largest_trained_one_and_it_is_said():
    assert [n.topic for n in measured_level(noisy(20), Picture(clean()), reach=REACH).notes] == ["noise"]
    found = measured_level(noisy(90), Picture(clean()), reach=REACH)
    assert 255 * found.value == pytest.approx(50) and found.notes[-1].warning
    said = found.notes[-1].text(scale=255, unit="gray levels")
    assert said.endswith("gray levels, is clamped to 50, the trained range being 1 to 50")
    assert said.startswith("the level of the noise, ") and float(said.split()[5]) == pytest.approx(90, rel=0.1)


def test_a_level_below_the_trained_ones_is_removed_as_it_is(model):
    measured = measured_level(noisy(0.1), Picture(clean()), reach=REACH)
    assert 255 * measured.value == pytest.approx(0.1, rel=0.1)
    assert [n.topic for n in measured.notes] == ["noise", "below"] and not measured.notes[-1].warning
    # A picture with hardly any noise does not get worse than it was.
    y = noisy(0.1)
    restored = restore_picture(y, noise=measured, regularizer=model)
    assert [n.topic for n in restored.notes] == ["noise", "below"] and restored.converged
    before, after = (float((p.pixels - clean()).square().mean()) for p in (y, restored.picture))
    assert after < 1.05 * before


def test_correlated_noise_that_is_measured_has_a_larger_level_to_remove():
    coarse = torch.nn.functional.avg_pool2d(torch.randn(1, 42, 42, generator=torch.Generator().manual_seed(0)), 3, 1)
    measured = measured_level(Picture(clean() + 0.1 * coarse), Picture(clean()))
    assert measured.to_remove > 1.5 * measured.value and measured_level(noisy(20), Picture(clean())).removal is None


@pytest.mark.parametrize(
    ("given", "smoothing", "sigma", "topics"),
    [
        (None, 1, 50, ["clamped"]),
        (None, 7.5, 50, ["clamped"]),
        (0.1, 1, 0.1, ["range"]),
        (30, 6, 30, []),
        (0, 1, 0, []),
    ],
)
def test_the_level_asked_of_the_regularizer(given, smoothing, sigma, topics):
    level, notes = model_level(NoiseLevel(90 / 255), None if given is None else given / 255, REACH, smoothing)
    assert 255 * level == pytest.approx(sigma) and [n.topic for n in notes] == topics
    if smoothing == 7.5:
        said = "sigma, 7.5 times the noise by default, is 50 gray levels, the most of the trained range"
        assert notes[0].text(scale=255, unit="gray levels") == said and not notes[0].warning


def test_a_picture_without_noise_is_deblurred_as_if_it_had_a_little(model):
    rows = torch.arange(40.0) / 9
    y = 0.3 + 0.2 * (rows.sin()[:, None] * rows.cos())[None]
    restored = restore_picture(Picture(y), task=Deblur(read_kernel("gaussian:1")), regularizer=model)
    assert restored.converged and restored.noise.value == pytest.approx(REACH[0] / 7.5)
    said = [n.text(scale=255, unit="gray levels") for n in restored.notes if n.topic == "clamped"]
    assert said == ["the noise is taken for 0.133 gray levels, the least trained level over 7.5"]
    assert restored.sigma == pytest.approx(REACH[0])


# Pictures


def test_a_gray_model_takes_channels_one_by_one(model):
    picture = noisy(gray=False)
    restored = restore_picture(picture, sigma=10 / 255, regularizer=model)
    one_by_one = [icgn.denoise(c[None, None], 10 / 255, regularizer=model).x[0] for c in picture.pixels]
    assert torch.allclose(restored.picture.pixels, torch.cat(one_by_one), atol=1e-3)
    certificate = restored.solution.certificate
    assert len(certificate.rms_distance) == 3 and restored.status is Status.CONVERGED
    assert restored.rms_distance == pytest.approx(float(certificate.rms_distance.square().mean().sqrt()))
    assert restored.relative_gap == pytest.approx(float(certificate.objective_gap.sum() / certificate.objective.sum()))


@pytest.mark.parametrize("task", [Denoise(), Deblur(read_kernel("gaussian:0.8")), Inpaint(torch.rand(40, 40) > 0.2)])
def test_a_picture_keeps_what_is_not_its_pixels(model, task, capsys):
    alpha = torch.rand(1, 40, 40)
    picture = noisy(5, gray=False, alpha=alpha, bits=16, icc=b"profile", dpi=(72.0, 72.0))
    restored = restore_picture(picture, task=task, noise=5 / 255, regularizer=model)
    after = restored.picture
    assert torch.equal(after.alpha, alpha) and (after.bits, after.icc, after.dpi) == (16, b"profile", (72.0, 72.0))
    assert after.pixels.shape == picture.pixels.shape == restored.before.shape and restored.converged
    assert restored.noise == NoiseLevel(5 / 255) and restored.sigma == pytest.approx(task.smoothing * 5 / 255)
    assert capsys.readouterr() == ("", "")


def test_an_enlarged_picture_has_another_size_and_no_transparency(model):
    picture = noisy(2, alpha=torch.ones(1, 40, 40))
    restored = restore_picture(picture, task=Enlarge(2), noise=2 / 255, regularizer=model)
    assert restored.picture.pixels.shape == restored.before.shape == (1, 80, 80)
    assert restored.picture.alpha is None and [n.topic for n in restored.notes] == ["alpha"]
    small = Enlarge(2).physics((1, 80, 80), torch.device("cpu")).A(restored.picture.pixels[None].double())
    assert (small[0] - picture.pixels).square().mean().sqrt() < 3 * 2 / 255


def test_pixels_serve_as_a_picture_and_defaults_follow_the_channels():
    for gray in (True, False):
        pixels = noisy(gray=gray).pixels
        restored = restore_picture(pixels, tol=1e-3)
        assert restored.noise.found == "estimated" and restored.picture.pixels.shape == pixels.shape
        assert restored.solution.x.shape == (1, *pixels.shape) and restored.solution.condition is not None


def test_a_rule_for_the_weight_is_a_note(model):
    restored = restore_picture(noisy(gray=False), sigma=10 / 255, regularizer=model, weight="discrepancy", tol=1e-3)
    (note,) = [n for n in restored.notes if n.topic == "weight"]
    assert note.text().endswith("found by discrepancy (one per channel)") and len(restored.solution.weight) == 3


def test_any_physics_given_or_made(model):
    physics = deepinv.physics.Downsampling((1, 40, 40), filter="bilinear", factor=2)
    y = add_noise(physics.A(clean()[None])[0], 2 / 255, 0)
    asked = {"noise": 2 / 255, "sigma": 14 / 255, "regularizer": model}
    given = restore_picture(y, task=Measured(physics), **asked)
    made = restore_picture(Picture(y), task=Measured(lambda img_size, device: physics), **asked)
    assert torch.equal(given.picture.pixels, made.picture.pixels) and given.picture.pixels.shape == (1, 40, 40)
    assert given.before is None and torch.equal(made.before, y)
    with pytest.raises(ValueError, match="noise: got none"):
        restore_picture(y, task=Measured(physics), regularizer=model)
    with pytest.raises(ValueError, match="physics: returned NoneType"):
        restore_picture(y, task=Measured(lambda img_size, device: None), **asked)


def test_a_model_is_loaded_once_and_a_wrong_name_refused_at_once():
    models = regularizers_by_channels(name="ridge-gray-small")
    assert models(1) is models(3)
    assert [regularizers_by_channels()(c).channels for c in (1, 3)] == [1, 3]
    with pytest.raises(icgn.regularizers.ModelError, match="none"):
        regularizers_by_channels(name="none")


# Progress


def test_the_part_done_is_measured_and_never_falls():
    told = []
    progress = Progress(lambda done, event: told.append(done))
    stages = {"weight": [100, 10, 1, 50, 1], "first": [1000, 30, 0.5], "final/prox": [7.0], "final": [1e4, 1e2, 1, 0.9]}
    iteration = itertools.count()
    for stage, measures in stages.items():
        for m in measures:
            progress(SimpleNamespace(stage=stage, iteration=next(iteration), measure=torch.tensor([m, m / 2])))
    assert told == sorted(told) and told[0] == 0 and told[-1] == 1
    # The final stage begins where the others end, and is half done when half of the digits are.
    begin = 1 - (1 - 0.85) * (1 - 0.3)
    assert told[-4] == pytest.approx(begin) and told[-3] == pytest.approx((1 + begin) / 2)


def test_each_solution_on_the_way_to_a_strength_has_a_part_of_what_is_left():
    told = []
    progress = Progress(lambda done, event: told.append(done))
    for _ in range(3):
        for iteration, m in enumerate([100.0, 10.0, 1.0]):
            progress(SimpleNamespace(stage="strength", iteration=iteration, measure=torch.tensor([m])))
    assert told[2::3] == pytest.approx([0.5 * (1 - 0.75**k) for k in (1, 2, 3)])
    for iteration, m in enumerate([100.0, 1.0]):
        progress(SimpleNamespace(stage="final", iteration=iteration, measure=torch.tensor([m])))
    assert told[-2:] == pytest.approx([0.5, 1.0]) and told == sorted(told)


def test_progress_of_a_solution_and_its_stop(model):
    told = []
    restored = restore_picture(
        noisy(), sigma=10 / 255, regularizer=model, callback=Progress(lambda done, event: told.append(done))
    )
    assert restored.converged and told[0] == 0 and told == sorted(told) and told[-1] > 0.8
    stopped = restore_picture(noisy(), sigma=10 / 255, regularizer=model, callback=lambda event: event.iteration == 4)
    assert stopped.status is Status.STOPPED and stopped.iterations == 4


def test_a_rule_that_ends_outside_the_sane_range_says_so_and_falls_back():
    model = icgn.load_pretrained("ridge-gray-small")
    y = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.45
    restored = icgn.pictures.restore_picture(
        y[0], noise=0.3, sigma=0.02, regularizer=model, weight="discrepancy", range=(0, 1), tol=1e-3
    )
    assert float(restored.solution.weight) == 1
    (said,) = (n.text() for n in restored.notes if n.topic == "weight" and n.warning)
    assert "outside 0.01 to 20: the noise is not white" in said and "weight 1 is taken instead" in said
    with pytest.warns(UserWarning, match="the rule discrepancy ended at the weight"):
        icgn.denoise(y, 0.2, regularizer=model, weight="discrepancy", range=(0, 1), tol=1e-3)


def test_pixels_that_are_found_to_be_dead_are_those_of_no_mask():
    x = clean().clone()
    places = torch.rand(x.shape, generator=torch.Generator().manual_seed(3))
    x[places < 0.03], x[places > 0.97] = 0.0, 1.0
    restored = restore_picture(Picture(x), gap_tol=0.1)
    topics = [n.topic for n in restored.notes]
    assert "dead" in topics and "mask" not in topics


@pytest.mark.parametrize(("kernel", "warned"), [("gaussian:1.6", False), ("gaussian:4", True)])
def test_a_result_that_does_not_explain_its_measurement_is_warned_about(model, kernel, warned):
    blur = deepinv.physics.Blur(read_kernel("gaussian:1.6").float(), padding="valid")
    measured = Picture(add_noise(blur.A(clean(side=64)[None])[0], 1 / 255, seed=0))
    restored = restore_picture(
        measured, task=Deblur(read_kernel(kernel)), noise=1 / 255, regularizer=model, gap_tol=0.1
    )
    notes = [n for n in restored.notes if n.topic == "misfit"]
    assert len(notes) == warned and all(n.warning and "the kernel is another one" in n.text() for n in notes)
