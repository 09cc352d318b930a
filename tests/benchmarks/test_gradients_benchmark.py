"""The comparison of gradient networks: its targets, its networks, its training, and its report."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
import typer

import icgn
from icgn.transport.dense import DenseDeepICGN, DenseRidgeICGN

BENCHMARKS = Path(icgn.__file__).parent / "benchmarks"
FAMILIES = ("quadrature", "ridge", "deep", "softmax", "group", "ICNN")


@pytest.fixture
def targets(script):
    return script("gradients_targets")


@pytest.fixture
def networks(script):
    return script("gradients_networks")


@pytest.fixture
def fitting(script):
    return script("gradients_fit")


def all_targets(targets):
    norms = [targets.PositiveNorms(dim, seed) for dim, seed in ((8, 0), (32, 1))]
    return [targets.Polynomial(), targets.random_maximum(0), targets.random_maximum(1), *norms]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_gradients_of_targets_are_those_of_their_values_and_monotone(targets):
    for target in all_targets(targets):
        x, y = (target.points(64, generator(seed)) for seed in (0, 1))
        d = torch.randn(64, target.dim, generator=generator(2), dtype=torch.float64)
        # The gradient of some has kinks.
        slope = (target.fn(x + 1e-6 * d) - target.fn(x - 1e-6 * d)) / 2e-6
        torch.testing.assert_close(slope, (target.grad(x) * d).sum(1), rtol=1e-5, atol=1e-5)
        assert ((target.grad(x) - target.grad(y)) * (x - y)).sum(1).min() >= -1e-12


def test_the_quadrature_of_the_smoothed_maximum_has_converged(targets):
    maximum = targets.random_maximum(0)
    finer = targets.SmoothedMaximum(maximum.slopes, maximum.offsets, maximum.smoothing, refinement=3)
    x = maximum.points(200, generator())
    torch.testing.assert_close(maximum.grad(x), finer.grad(x), rtol=0, atol=1e-11)
    torch.testing.assert_close(maximum.fn(x), finer.fn(x), rtol=0, atol=1e-11)


@pytest.mark.parametrize("slopes", [[[1.0, 2.0], [-1.0, 0.5]], [[1.0, 2.0], [1.0, -1.0]], [[1.0, 0.0], [0.0, 0.0]]])
def test_the_smoothed_maximum_of_two_has_its_closed_form(targets, slopes):
    a, b, s = torch.tensor(slopes, dtype=torch.float64), torch.tensor([0.2, -0.1], dtype=torch.float64), 0.3
    target = targets.SmoothedMaximum(a, b, s)
    x = target.points(50, generator())
    # The difference of both is a Gaussian of this mean and deviation.
    lead, deviation = x @ (a[0] - a[1]) + b[0] - b[1], s * (a[0] - a[1]).norm()
    p = torch.special.ndtr(lead / deviation)[:, None]
    torch.testing.assert_close(target.grad(x), p * a[0] + (1 - p) * a[1], rtol=0, atol=1e-10)
    density = (-((lead / deviation) ** 2) / 2).exp() / math.sqrt(2 * math.pi)
    value = x @ a[1] + b[1] + lead * p[:, 0] + deviation * density
    torch.testing.assert_close(target.fn(x), value, rtol=0, atol=1e-10)


def test_every_function_of_the_maximum_is_the_largest_somewhere(targets):
    maximum = targets.random_maximum(0)
    cells = (maximum.points(4000, generator()) @ maximum.slopes.T + maximum.offsets).argmax(1)
    assert torch.bincount(cells, minlength=5).min() >= 100


def test_a_polynomial_that_is_not_convex_is_refused(targets):
    with pytest.raises(ValueError, match=r"coefficients: got .* expected those of a convex function"):
        targets.Polynomial((1.0, 0.5, 0.5, 1.0, -1.0))


def test_the_best_affine_map_is_exact_for_an_affine_field(targets):
    x, y = (torch.randn(50, 3, generator=generator(s), dtype=torch.float64) for s in (0, 1))
    train, test = (targets.Samples(p, 2 * p + 1) for p in (x, y))
    assert targets.best_affine(train, test) > 250


def test_decibels(targets):
    gradients = torch.ones(10, 2)
    assert targets.decibels(1.1 * gradients, gradients) == pytest.approx(20, abs=1e-4)
    assert targets.decibels(torch.nan * gradients, gradients) == -math.inf


@pytest.mark.parametrize(("dim", "size"), [(2, 100), (2, 1000), (8, 1000), (32, 1000)])
def test_networks_have_about_the_parameters_asked_for(networks, dim, size):
    assert tuple(networks.FAMILIES) == FAMILIES
    for family, variants in networks.FAMILIES.items():
        assert len(variants) == 2
        for variant in variants:
            network = networks.build(family, dim, size, 0, variant.name)
            assert networks.parameters(network) == pytest.approx(size, rel=0.13)


def test_every_network_is_the_gradient_of_a_convex_function(networks, fitting):
    points = torch.randn(4, 3, generator=generator(), dtype=torch.float64)
    for family, variants in networks.FAMILIES.items():
        for variant in variants:
            network = networks.build(family, 3, 200, 1, variant.name, sharpness=2.0).eval()
            asymmetry, least = fitting.defects(network, points)
            assert asymmetry < 1e-6 and least > -1e-7, (family, variant.name)


def test_quadrature_is_the_closed_form(networks):
    slow = networks.build("quadrature", 2, 100).double().eval()
    module = slow.network.M
    fast = DenseRidgeICGN(2, width=len(module.W), quadratic=2).double()
    with torch.no_grad():
        fast.W.copy_(module.W)
        fast.bias.copy_(module.bias[:, None])
        fast.log_lambda.copy_(2 * module.log_scale)
        fast.Q.copy_(module.Q)
    x = torch.randn(20, 2, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(slow(x), fast(x), rtol=1e-7, atol=1e-7)


def test_the_deep_network_with_softplus_layers_is_the_icnn(networks):
    """Its first activation is the softplus less t / 2 + log 2, the later less log 2: affine, and so of W and b."""
    widths, x = (5, 4, 3), torch.randn(20, 3, generator=generator(), dtype=torch.float64)
    deep = DenseDeepICGN(3, widths=widths, activation=networks.Logistic(), quadratic=2).double()
    icnn = networks.ICNN(3, widths, 2).double()
    with torch.no_grad():
        for name, p in deep.named_parameters():
            dict(icnn.named_parameters())[name].copy_(p)
        first, second = (torch.nn.functional.softplus(raw) for raw in deep.raw_U)
        icnn.W[5:9] -= first @ deep.W[:5] / 2
        icnn.bias[5:9] -= first @ (deep.bias[:5] / 2 + math.log(2))
        icnn.bias[9:] -= second.sum(1) * math.log(2)
    apart = icnn(x) - deep(x)
    torch.testing.assert_close(apart, apart[:1].expand_as(apart), rtol=0, atol=1e-12)
    assert (icnn(x)[1:] - icnn(x)[0]).abs().max() > 0.1


def test_the_logistic_activation_has_its_closed_forms(networks):
    activation = networks.Logistic()
    t = torch.linspace(-8, 8, 41, dtype=torch.float64, requires_grad=True)
    for value, derivative in (
        (activation.potential(t), activation.psi(t)),
        (activation.psi(t), activation.psi_prime(t)),
        (activation.hidden(t), activation.psi_prime(t).sqrt()),
    ):
        torch.testing.assert_close(torch.autograd.grad(value.sum(), t, retain_graph=True)[0], derivative)


def test_the_gradient_of_the_icnn_is_that_of_its_values_and_reaches_its_parameters(networks):
    network = networks.build("ICNN", 4, 300).double()
    x, d = (torch.randn(10, 4, generator=generator(s), dtype=torch.float64) for s in (0, 1))
    slope = (network.fn(x + 1e-5 * d) - network.fn(x - 1e-5 * d)) / 2e-5
    torch.testing.assert_close(slope, (network(x) * d).sum(1), rtol=1e-7, atol=1e-7)
    with torch.no_grad():
        assert not network(x).requires_grad
    network(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_calibration_gives_all_networks_one_scale(networks):
    points = torch.randn(512, 3, generator=generator())
    for family in FAMILIES:
        network = networks.build(family, 3, 1000, sharpness=3.0).eval()
        networks.calibrate(network, points)
        values = network(points)
        assert 0.4 < (values - values.mean(0)).square().mean().sqrt() < 1.5, family


def test_fitting_brings_the_error_down(targets, networks, fitting):
    target = targets.Polynomial()
    train, test = (target.samples(512, generator(s)).to(torch.float32) for s in (0, 1))
    for family in FAMILIES:
        network = networks.build(family, 2, 100)
        training = fitting.fit(network, train, 0.4, 0.03)
        assert training.steps >= 1 and training.seconds >= 0.4
        assert fitting.quality(network, train, test) > 5, family


def test_choices_are_made_among_all_and_reach_the_network(targets, networks, fitting):
    train, held_out = (targets.Polynomial().samples(256, generator(s)).to(torch.float32) for s in (0, 1))
    choice = fitting.choose("ridge", 100, train, held_out, 0.03)
    names = [v.name for v in networks.FAMILIES["ridge"]]
    every = itertools.product(names, fitting.SHARPNESS, fitting.RATES)
    assert (choice.variant, choice.sharpness, choice.rate) in set(every)
    network, training = fitting.fitted("ridge", 100, choice, train, 0.03)
    assert network.dim == 2 and training.steps >= 1


@pytest.mark.parametrize(
    ("points", "gradients", "error", "message"),
    [
        (torch.rand(4, 2), torch.rand(4, 3), ValueError, r"gradients: got shape \(4, 3\), expected that of points"),
        (torch.rand(4), torch.rand(4), ValueError, r"points: got shape \(4,\), expected \(B, n\)"),
        (torch.rand(0, 2), torch.rand(0, 2), ValueError, "with B at least 1"),
        (torch.tensor([[0.0], [math.nan]]), torch.rand(2, 1), ValueError, r"points: got nan .* in rows \[1\]"),
        (torch.rand(2, 1), torch.tensor([[math.inf], [0.0]]), ValueError, r"gradients: got nan .* in rows \[0\]"),
        (torch.ones(2, 1, dtype=torch.int64), torch.rand(2, 1), TypeError, "points: got torch.int64"),
    ],
)
def test_bad_samples_are_named(targets, points, gradients, error, message):
    with pytest.raises(error, match=message):
        targets.Samples(points, gradients)


def test_samples_of_another_dimension_are_refused(targets, networks, fitting):
    samples = targets.Samples(torch.rand(8, 3), torch.rand(8, 3))
    for family in FAMILIES:
        network = networks.build(family, 2, 100)
        with pytest.raises(ValueError, match="samples: got dimension 3, expected that of the network, 2"):
            fitting.fit(network, samples, 1.0, 0.01)
        with pytest.raises(ValueError, match="samples: got dimension 3"):
            fitting.quality(network, samples, samples)


def test_bad_numbers_are_named(targets, networks, fitting):
    samples = targets.Samples(torch.rand(8, 2), torch.rand(8, 2))
    with pytest.raises(ValueError, match=r"seconds, rate: got 0, 0\.01"):
        fitting.fit(networks.build("ridge", 2, 100), samples, 0, 0.01)
    with pytest.raises(ValueError, match="family: got 'wide'"):
        networks.build("wide", 2, 100)
    with pytest.raises(ValueError, match="variant: got 'x', expected one of tanh, softplus"):
        networks.build("ridge", 2, 100, variant="x")
    with pytest.raises(ValueError, match="size: got 100, expected more: the nearest ICNN network in 64 dimensions"):
        networks.build("ICNN", 64, 100)


@pytest.fixture
def short(script, fitting, monkeypatch):
    """The benchmark with few points and few choices."""
    module = script("gradients")
    for name, value in (("TRAIN", 512), ("TEST", 256), ("SIDE", 13)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(fitting, "RATES", (0.03,))
    monkeypatch.setattr(fitting, "SHARPNESS", (1.0,))
    return module


@pytest.mark.parametrize(("target", "sizes"), [("maximum", (100, 200)), ("dimension-8", (100,))])
def test_the_benchmark_runs_and_reports_what_it_measured(short, target, sizes, tmp_path, capsys):
    short.main(targets=target, sizes=",".join(map(str, sizes)), seconds=0.03, seeds=1, threads=1, out=tmp_path)
    page = capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() in page
    content = json.loads((tmp_path / "results.json").read_text())
    runs = list(itertools.product(sizes, FAMILIES))
    assert [(r["size"], r["network"]) for r in content["rows"]] == runs
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1 + len(runs)
    assert all(r["asymmetry"] < 1e-4 and r["steps"] >= 1 and r["step_seconds"] > 0 for r in content["rows"])
    assert (tmp_path / f"{target}.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_goes_on_with_what_is_in_the_folder_and_begins_anew_with_other_settings(short, tmp_path, monkeypatch):
    asked = []
    problem = short.problem
    monkeypatch.setattr(short, "problem", lambda *a: asked.append(a[:2]) or problem(*a))

    def run(sizes, seconds=0.03):
        short.main(targets="maximum", sizes=sizes, seconds=seconds, seeds=1, threads=1, out=tmp_path)
        content = json.loads((tmp_path / "results.json").read_text())
        return [r for r in content["rows"] if r["size"] == 200], [p["size"] for p in content["problems"]]

    first, _ = run("200")
    picture = (tmp_path / "maximum.png").read_bytes()
    kept, sizes = run("400,200")
    assert kept == first and sizes == [200, 400]
    # The picture has the curve over both sizes now.
    assert (tmp_path / "maximum.png").read_bytes() != picture
    kept, sizes = run("100")
    assert kept == first and sizes == [100, 200, 400]
    assert run("100,400")[1] == sizes
    assert asked == [("maximum", s) for s in (200, 400, 100)]
    _, sizes = run("100", seconds=0.02)
    assert sizes == [100]


def test_bad_options_are_named(script):
    module = script("gradients")
    with pytest.raises(typer.BadParameter, match="targets: got nothing"):
        module.main(targets="nothing")
    with pytest.raises(typer.BadParameter, match="sizes: got 'many'"):
        module.main(sizes="many")
    with pytest.raises(typer.BadParameter, match=r"sizes: got \[100\], expected at least 8 per dimension"):
        module.main(targets="dimension-256", sizes="100")


def rows_of(scores):
    """Rows of one problem with these decibels of the seeds of each network."""
    return [
        {"target": "maximum", "size": 100, "network": n, "decibels": v, "evaluation_seconds": s, "step_seconds": s}
        for n, (values, s) in scores.items()
        for v in values
    ]


@pytest.mark.parametrize(
    ("icnn", "words"),
    [
        ([31.0, 32.0], "in 1 of 1 problems"),
        ([31.0, 32.0], "1.5 dB better than softmax\n"),
        ([29.0, 33.0], "1.0 dB better than softmax, within the spread of the seeds\n"),
        ([20.0, 21.0], "9.5 dB worse than softmax\n"),
        ([20.0, 21.0], "in 0 of 1 problems"),
        ([20.0, 21.0], "softmax is 12.0 dB better than ridge (at least 10 dB), and 9.5 dB better than the ICNN"),
        ([20.0, 21.0], "ridge 0.50 and 0.50"),
    ],
)
def test_the_verdict_says_where_the_icnn_wins(script, icnn, words):
    scores = {
        "ridge": ([18.0, 18.0], 1.0), "deep": ([25.0], 2.0), "softmax": ([29.5, 30.5], 2.0), "group": ([28.0], 2.0),
        "ICNN": (icnn, 2.0),
    }  # fmt: skip
    card = {"target": "maximum", "title": "Maximum", "size": 100, "affine": 7.0}
    content = {"problems": [card], "rows": rows_of(scores)}
    assert words in script("gradients_report").verdict(content) + "\n"
