"""The benchmarks of methods and of gradients run, and report what they say they do."""

import json
from pathlib import Path

import pytest
import torch

import icgn
from icgn.solvers.methods.choice import METHODS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["denoising", "blur"])
def content(script, tmp_path, request, capsys):
    script("methods").main(
        model="ridge-gray-small", physics=request.param, pictures="camera,coins", side=20, most=25.0, out=tmp_path
    )
    page = capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() in page
    assert (tmp_path / "methods.png").read_bytes().startswith(b"\x89PNG")
    return json.loads((tmp_path / "results.json").read_text()), page


def test_methods_report_every_method_with_honest_gaps(script, content):
    results, page = content
    competitors = script("competitors").COMPETITORS
    names = {*METHODS, *competitors}
    rows = [line.split("|")[1].strip(" *") for line in page.splitlines() if line.startswith("| ")]
    assert set(rows[1:]) == names and len(rows) == 1 + len(names)
    for curves in results["curves"].values():
        assert set(curves) == names
        for curve in curves.values():
            assert all(gap >= 0 for gap in curve["gap"])
            assert curve["gap"] == sorted(curve["gap"], reverse=True)
            assert curve["work"] == sorted(curve["work"]) and curve["seconds"] == sorted(curve["seconds"])
            # All start at the same image; the first step of ours already helps.
        assert curves["conjugate"]["gap"][0] > 0.1 > curves["conjugate"]["gap"][-1]
    assert {(r["method"], r["level"]) for r in results["table"]} == {(n, v) for n in names for v in (1e-4, 1e-6, 1e-8)}
    ours = {r["level"]: r for r in results["table"] if r["method"] == "conjugate"}
    assert ours[1e-4]["work"] <= ours[1e-6]["work"] <= ours[1e-8]["work"]


def test_a_level_that_is_not_reached_is_a_lower_bound(script):
    reached = script("methods").reached
    curve = {"work": [1.0, 2.0, 3.0], "seconds": [0.1, 0.2, 0.3], "gap": [1.0, 1e-5, 1e-5]}
    assert reached(curve, 1e-4) == {"work": 2.0, "seconds": 0.2, "reached": True}
    assert reached(curve, 1e-6) == {"work": 3.0, "seconds": 0.3, "reached": False}


def test_competitors_solve_the_same_problem(script):
    methods, competitors = script("methods"), script("competitors")
    picture = script("harness").central(icgn.datasets.bundled(gray=True).find("camera").image, 16)
    regularizer = icgn.load_pretrained("ridge-gray-small").double()
    problem = methods.pose(picture, 0, "blur", regularizer)
    solution = icgn.solve(problem, tol=1e-10, max_iter=5000).x
    image = solution + 0.01 * torch.randn(solution.shape, generator=torch.Generator().manual_seed(0)).double()
    _, functional = problem.objective.terms
    prior = competitors.BoundPrior(functional, problem.objective.weights[1], True)
    fidelity = methods.deepinv.optim.L2(sigma=float(problem.objective.weights[0][0]) ** -0.5)
    y, physics = problem.y, problem.physics
    value = fidelity(image, y, physics) + prior(image)
    torch.testing.assert_close(value, problem.objective.fn(image))
    grad = fidelity.grad(image, y, physics) + prior.grad(image)
    torch.testing.assert_close(grad, problem.objective.grad(image))
    # The responses of the value served the gradient: one pair in all.
    assert prior.work == 1.0
