"""The benchmark of stability and the pictures of masks, with a small untrained network."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path

import pytest
import torch
import typer
from conditional_cases import conditional

import icgn
from icgn.regularizers.pretrained import save_model

BENCHMARKS = Path(icgn.__file__).parent / "benchmarks"
SIGMA, SIZE, SIDE = 25 / 255, 5 / 255, 16
NAMES = ("camera", "coins")
BM3D = importlib.util.find_spec("bm3d") is not None


@pytest.fixture
def stability(script):
    return script("stability")


def maps_of(stability, looseness=0.3):
    """Unconditional, condition fixed, exact start, and as it is, with the measurements."""
    y = stability.noisy(NAMES, SIDE, SIGMA, 0)
    regularizer = conditional(looseness=(looseness,)).double().requires_grad_(False)
    plain = stability.Network("plain", regularizer.first, SIGMA, bounded=True)
    return y, [plain, *stability.networks("net", regularizer, SIGMA, y)]


def measured(stability, own, y, size=SIZE, **options):
    effort = stability.Effort(**{"directions": 2, "steps": 6, "tries": 3, **options})
    return stability.measure(own, y, size, stability.directions(NAMES, SIDE, effort), effort)


@pytest.mark.parametrize("size", [0.1 / 255, 20 / 255])
@pytest.mark.parametrize("which", [0, 1], ids=["unconditional", "condition fixed"])
def test_where_the_theorem_holds_the_ratio_is_at_most_one(stability, which, size):
    y, maps = maps_of(stability)
    m = measured(stability, maps[which], y, size)
    assert maps[which].bounded and (m.error <= 2 * stability.ACCURACY).all()
    assert all((r <= 1 + m.error).all() for r in (*m.random, m.adversarial))
    # Firmly: the change makes an acute angle with what has caused it.
    inner = (m.e * m.change).flatten(1).mean(1)
    assert (inner >= m.adversarial.square() - 2 * m.error).all()


def test_the_theorem_is_sharp_for_a_constant(stability):
    y, maps = maps_of(stability)
    ones = torch.ones_like(y)
    for own in maps[:2]:
        change, error = stability.Probe.of(own, y, SIZE).change(ones)
        assert (stability.rms(change - ones) <= error + 1e-9).all()


@pytest.mark.parametrize("which", range(4))
def test_the_ascent_improves_on_the_best_random_direction(stability, which):
    y, maps = maps_of(stability)
    m = measured(stability, maps[which], y)
    assert (m.adversarial >= torch.stack(m.random).amax(0)).all()
    assert all((b >= a).all() for a, b in itertools.pairwise(m.trace))
    assert (m.trace[-1] > 1.1 * m.trace[0]).all() and len(m.trace) == 7
    # What is reported is what the worst direction does, of the size it should have.
    torch.testing.assert_close(stability.rms(m.e), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(stability.rms(m.change), m.adversarial)
    x = [maps[which](v, 1e-9).x for v in (y, y + SIZE * m.e)]
    torch.testing.assert_close(stability.rms(x[1] - x[0]) / SIZE, m.adversarial, rtol=1e-5, atol=0)


def test_the_gradient_is_that_of_half_the_squared_ratio(stability):
    y, maps = maps_of(stability)
    probe = stability.Probe.of(maps[2], y, SIZE)
    e, direction = stability.directions(NAMES, SIDE, stability.Effort(2))
    _, gradient = probe.slope(e)
    half = [stability.rms(probe.change(e + t * direction)[0]).square() * SIDE**2 / 2 for t in (1e-3, -1e-3)]
    expected = (half[0] - half[1]) / 2e-3
    torch.testing.assert_close((gradient * direction).flatten(1).sum(1), expected, rtol=0.05, atol=1e-3)


def test_pictures_are_searched_on_their_own(stability):
    y, maps = maps_of(stability)
    effort = stability.Effort(2, 3)
    random = stability.directions(NAMES, SIDE, effort)
    together = stability.measure(maps[2], y, SIZE, random, effort)
    alone = stability.measure(
        stability.networks("net", maps[2].regularizer, SIGMA, y[1:])[1], y[1:], SIZE, [e[1:] for e in random],
        effort,
    )  # fmt: skip
    torch.testing.assert_close(together.adversarial[1:], alone.adversarial, rtol=1e-4, atol=0)
    again = stability.directions(NAMES[1:], SIDE, effort)
    assert torch.equal(again[0], random[0][1:])


def test_a_random_search_never_goes_down(stability):
    y, maps = maps_of(stability)
    probe = stability.Probe.of(maps[0], y, SIZE)
    (e,) = stability.directions(NAMES, SIDE, stability.Effort(1))
    worst = stability.Worst(e, *probe.change(e))
    trace = stability.search(probe, worst, 4, 0)
    assert len(trace) == 5 and all((b >= a).all() for a, b in itertools.pairwise(trace))
    torch.testing.assert_close(stability.rms(probe.change(worst.e)[0]), trace[-1])


def test_what_was_found_for_others_is_a_candidate(stability):
    y, maps = maps_of(stability)
    effort = stability.Effort(1, 1)
    random, ones = stability.directions(NAMES, SIDE, effort), torch.ones_like(y)
    m = stability.measure(maps[0], y, SIZE, random, effort, [ones])
    assert (m.adversarial >= 1 - m.error).all()


@pytest.mark.skipif(not BM3D, reason="bm3d is not installed")
def test_bm3d_is_searched_without_a_derivative(stability):
    y = stability.noisy(NAMES[:1], SIDE, SIGMA, 0)
    effort = stability.Effort(1, 1, 1)
    random = stability.directions(NAMES[:1], SIDE, effort)
    m = stability.measure(stability.BlockMatching(SIGMA), y, SIZE, random, effort)
    assert m.adversarial >= m.random[0] and m.error == 0 and len(m.trace) == 2


def test_the_scripts_write_their_files(stability, script, tmp_path, capsys):
    save_model(conditional(looseness=(0.3,)), tmp_path / "net.safetensors", {"name": "net"})
    model = str(tmp_path / "net.safetensors")
    stability.main(
        model=model, plain="ridge-gray-small", pictures="camera", side=SIDE, sigmas="25", sizes="1,5", steps=2,
        count=1, tries=1, bm3d=False, seed=0, threads=1, out=tmp_path,
    )  # fmt: skip
    content = json.loads((tmp_path / "results.json").read_text())
    methods = ["ridge-gray-small", "net, condition fixed", "net, exact start", "net"]
    assert [r["method"] for r in content["rows"]] == 2 * methods
    assert {(r["sigma"], r["size"]) for r in content["rows"]} == {(25, 1), (25, 5)}
    page = (tmp_path / "table.md").read_text()
    assert page in capsys.readouterr().out and "holds in all 8 measurements" in page
    assert "| 25 | net |" in page and "BM3D" not in page and str(tmp_path) not in page + json.dumps(content)
    script("masks").main(
        model=model, picture="camera", side=SIDE, sigma=25.0, filters=2, seed=0, threads=1, out=tmp_path
    )
    for name in ("stability.png", "masks.png"):
        data = (tmp_path / name).read_bytes()
        assert data.startswith(b"\x89PNG") and len(data) < 400_000
        assert min(icgn.datasets.read_picture(tmp_path / name).pixels.shape[1:]) > 300


def row(**changes):
    common = {"method": "a", "bounded": True, "sigma": 5.0, "size": 1.0, "picture": "camera", "error": 1e-6}
    return {**common, "random": [0.5, 0.7], "adversarial": 0.9, "trace": [], **changes}


def test_a_ratio_above_one_contradicts_the_theory_where_it_holds(stability):
    good = [row(adversarial=1 + 5e-7), row(method="b", bounded=False, adversarial=3.0)]
    assert stability.violations(good) == [] and "holds in all 3 measurements" in stability.verdict(good)
    for bad in (row(adversarial=1.001), row(random=[1.1]), row(adversarial=float("nan"))):
        assert len(stability.violations([bad])) == 1 and "contradicted 1 times" in stability.verdict([bad])
    assert "nothing measured" in stability.verdict(good[1:])


def test_the_table_has_means_and_largest_ratios(stability):
    rows = [row(), row(picture="coins", random=[0.6, 0.2], adversarial=0.8)]
    settings = {"pictures": ["camera", "coins"], "side": 16, "directions": 2, "steps": 3, "tries": 1}
    page = stability.markdown({"settings": settings, "rows": rows})
    assert "| 5 | a | 0.500 (0.700) | 0.850 (0.900) | at most 1 |" in page


def test_telling_filters_vary_and_differ(script):
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 8, 8, generator=g)
    logs = torch.stack([0.1 * b, 3 * a, 2.9 * a, 2 * b, torch.zeros(8, 8)])
    kept = logs.clone()
    assert script("masks").distinct(logs, 3)[:2] == [1, 3] and torch.equal(logs, kept)
    assert sorted(script("masks").distinct(logs, 9)) == [0, 1, 2, 3, 4]


def test_the_masks_are_those_of_the_answer(script):
    reg = conditional(looseness=(0.3,)).requires_grad_(False)
    clean = icgn.datasets.bundled(gray=True).find("camera").image[:, 200:216, 200:216]
    m = script("masks").masked(clean, SIGMA, reg, 0)
    solution = icgn.denoise(m.noisy[None], SIGMA, regularizer=reg, tol=1e-4)
    torch.testing.assert_close(m.logs.exp(), solution.condition[0])
    torch.testing.assert_close(m.final, solution.x[0], atol=3e-4, rtol=0)


@pytest.mark.parametrize("text", ["", "5,x", "5,-1", "nan"])
def test_bad_numbers_are_named(stability, tmp_path, text):
    with pytest.raises(typer.BadParameter, match="sigmas"):
        stability.main(sigmas=text, pictures="camera", sizes="1", plain="", out=tmp_path, threads=1)


def test_a_model_without_masks_is_named(script, tmp_path):
    with pytest.raises(typer.BadParameter, match="RidgeICGN, expected a conditional"):
        script("masks").main(model="ridge-gray-small", picture="camera", threads=1, out=tmp_path)


def test_a_model_without_a_condition_is_one_bounded_map(stability):
    y, maps = maps_of(stability)
    (own,) = stability.networks("plain", maps[0].regularizer, SIGMA, y)
    assert own.bounded and own.regularizer is maps[0].regularizer and own.condition is None
