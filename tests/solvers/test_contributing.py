"""The method that CONTRIBUTING shows works as it stands there."""

import re
import sys
import types
from pathlib import Path

import deepinv
import pytest
import torch
from quadratic import Quadratic

import icgn
from icgn import Problem, RidgeICGN, Status, solve
from icgn.solvers.methods import choice

TEXT = (Path(icgn.__file__).parent / "CONTRIBUTING.md").read_text()
(FILE,) = re.findall(r"```python\n(.*?)```", TEXT[TEXT.index("## A method") :], flags=re.DOTALL)
(LINE,) = re.findall(r"^    (METHODS\[.*)$", TEXT, flags=re.MULTILINE)


@pytest.fixture
def constant(monkeypatch):
    """The file of the method as a module, registered by the line."""
    module = types.ModuleType("icgn.solvers.methods.constant")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(FILE, vars(module))
    monkeypatch.setattr(choice, "METHODS", dict(choice.METHODS))
    exec(LINE, {"METHODS": choice.METHODS, "ConstantStep": module.ConstantStep})
    return module.ConstantStep


def picture():
    return torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_one_file_and_one_line():
    assert len(FILE.splitlines()) + len(LINE.splitlines()) < 60 and len(LINE.splitlines()) == 1


def test_quadratic_in_closed_form(constant):
    y = picture()
    solution = solve(Problem(y, deepinv.physics.Denoising(), Quadratic(0.7), 0.1), method="constant", tol=1e-8)
    torch.testing.assert_close(solution.x, y / 1.7, atol=1e-7, rtol=0)
    assert solution.converged and solution.stats.method == "ConstantStep"


@pytest.mark.parametrize("box", [None, (0.3, 0.6)])
def test_as_the_default_method(constant, box):
    regularizer = RidgeICGN(filters=4, size=3).double().requires_grad_(False)
    problem = Problem(picture(), deepinv.physics.Denoising(), regularizer, 0.1, box=box)
    solution, expected = solve(problem, method="constant", tol=1e-6), solve(problem, tol=1e-6)
    assert solution.converged and expected.converged
    distance = (solution.x - expected.x).square().mean((1, 2, 3)).sqrt()
    assert (distance <= solution.certificate.rms_distance + expected.certificate.rms_distance).all()


def test_events_and_stop(constant):
    events = []
    problem = Problem(picture(), deepinv.physics.Denoising(), Quadratic(0.7), 0.1)
    solution = solve(problem, method="constant", callback=lambda event: events.append(event.stage) or True)
    assert events == ["final"] and set(solution.status) == {Status.STOPPED}


def test_what_the_theorem_does_not_cover_is_refused(constant):
    counts = deepinv.optim.PoissonLikelihood(1.0, bkg=0.0)
    problem = Problem(picture(), deepinv.physics.Denoising(), Quadratic(0.7), 0.1, data_fidelity=counts)
    with pytest.raises(ValueError, match="ConstantStep assumes a Lipschitz gradient"):
        solve(problem, method="constant")
