"""The one loop: every stage is seen, stopped and limited; old callbacks still work."""

import deepinv
import pytest
import torch
from conditional_cases import conditional
from latent_cases import latent

from icgn.functionals import Capability
from icgn.regularizers import PullBack, RidgeICGN, TotalVariation
from icgn.solvers import ADMM, Method, Problem, Status, certify, solve
from icgn.solvers.iterate import watching
from icgn.solvers.run import minimize
from icgn.solvers.tolerance import Tolerance

DENOISING = deepinv.physics.Denoising()
SIGMA = 0.2


def noisy(count=1, channels=1, side=12):
    g = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, side, side, generator=g, dtype=torch.float64)


@pytest.fixture(scope="module")
def reg():
    return conditional(looseness=(0.05, 0.01)).double().requires_grad_(False)


@pytest.fixture(scope="module")
def ridge():
    return RidgeICGN(filters=3, size=3).double().requires_grad_(False)


def collected(problem, **options):
    events = []
    solution = solve(problem, callback=events.append, **options)
    return solution, events


def test_a_callback_sees_the_first_solutions_too(reg):
    solution, events = collected(Problem(noisy(), DENOISING, reg, SIGMA))
    assert len(events) == int(solution.stats.iterations) > 0
    assert [e.iteration for e in events] == list(range(len(events)))
    stages = [e.stage for e in events]
    assert set(stages) == {"first", "final"} and stages == sorted(stages, key=["first", "final"].index)


@pytest.mark.parametrize("after", [0, 1])
def test_stopping_at_once_stops_all_stages(reg, after):
    problem = Problem(noisy(), DENOISING, reg, SIGMA)
    solution = solve(problem, callback=lambda event: event.iteration == after)
    assert solution.status == (Status.STOPPED,) and solution.stats.iterations.tolist() == [after]
    posed = Problem(problem.y, DENOISING, reg, SIGMA, condition=solution.condition)
    audit = certify(posed.objective, solution.x)
    torch.testing.assert_close(audit.rms_distance, solution.certificate.rms_distance)
    exact = solve(posed, tol=1e-9).x
    assert float((solution.x - exact).square().mean().sqrt()) <= float(solution.certificate.rms_distance)


def test_the_limit_of_iterations_is_that_of_all_stages(reg):
    for limit in (0, 2, 5):
        solution = solve(Problem(noisy(2), DENOISING, reg, SIGMA), tol=1e-12, max_iter=limit)
        assert solution.stats.iterations.tolist() == [limit] * 2
        assert set(solution.status) == {Status.ITERATION_LIMIT}


def test_an_event_has_pictures_and_bounds_that_fall_to_the_tolerance(ridge):
    problem = Problem(noisy(), DENOISING, ridge, SIGMA)
    exact = solve(problem, tol=1e-10).x
    seen = []

    def look(event):
        error = (event.x - exact).square().mean((1, 2, 3)).sqrt()
        assert bool((error <= event.distance + 1e-9).all())
        torch.testing.assert_close(event.measure, event.distance / 1e-5)
        seen.append(float(event.measure))

    solve(problem, tol=1e-5, callback=look)
    assert seen[0] > 100 and min(seen) < 5


def test_inner_loops_are_seen_and_stopped(ridge):
    _, events = collected(Problem(noisy(), DENOISING, ridge, SIGMA), method=ADMM(), tol=1e-4)
    inner = [e for e in events if e.stage == "final/prox"]
    outer = [e.iteration for e in events if e.stage == "final"]
    assert inner and outer == list(range(len(outer)))
    assert {e.iteration for e in inner} <= set(outer)
    stopped = solve(
        Problem(noisy(), DENOISING, ridge, SIGMA), method=ADMM(), callback=lambda e: e.stage == "final/prox"
    )
    assert stopped.status == (Status.STOPPED,)


def test_the_search_for_a_weight_is_a_stage(ridge):
    problem = Problem(noisy(side=16), DENOISING, ridge, SIGMA, weight="discrepancy")
    _, events = collected(problem)
    assert {e.stage for e in events} == {"weight", "final"}
    assert [e.iteration for e in events] == list(range(len(events)))
    assert solve(problem, callback=lambda event: True).status == (Status.STOPPED,)


def test_latent_pictures_are_no_part_of_an_event():
    network = latent(latents=2).double().requires_grad_(False)
    _, events = collected(Problem(noisy(), DENOISING, network, SIGMA), tol=1e-3)
    assert all(e.x.shape == (1, 1, 12, 12) for e in events)
    with watching(lambda event: inner.append(event.stage)):
        inner = []
        network.fn(noisy(), SIGMA)
    assert set(inner) == {"latents"}


def test_callbacks_of_three_arguments_work_with_a_warning(ridge):
    calls = []

    def old(iteration, x, index):
        calls.append((iteration, x.shape, index.tolist()))

    problem = Problem(noisy(), DENOISING, ridge, SIGMA)
    with pytest.warns(FutureWarning, match=r"callback\(event\)"):
        solution = solve(problem, callback=old)
    assert calls[0] == (0, (1, 1, 12, 12), [0]) and len(calls) == int(solution.stats.iterations)


def test_images_leave_one_by_one(ridge):
    y = noisy(2)
    y[1] = 0.5 + 0.001 * y[1]
    solution, events = collected(Problem(y, DENOISING, ridge, SIGMA), tol=1e-6)
    first, second = solution.stats.iterations.tolist()
    assert second < first
    assert events[0].index.tolist() == [0, 1] and events[-1].index.tolist() == [0]


def test_a_method_of_the_user_names_what_it_needs(ridge):
    class Picky(Method):
        of_regularizer = frozenset({Capability.QUADRATIC})
        init = step = None

    Picky.__abstractmethods__ = frozenset()
    with pytest.raises(ValueError, match="Picky assumes a regularizer that is quadratic, got BankFunctional"):
        solve(Problem(noisy(), DENOISING, ridge, SIGMA), method=Picky())


def test_noise_beside_a_data_fidelity_is_refused(ridge):
    with pytest.raises(ValueError, match=r"noise: got 0\.1 beside the data fidelity L2"):
        Problem(noisy(), DENOISING, ridge, SIGMA, noise=0.1, data_fidelity=deepinv.optim.L2())


def test_a_problem_with_another_weight_is_not_checked_again(ridge, monkeypatch):
    problem = Problem(noisy(), DENOISING, ridge, SIGMA)
    monkeypatch.setattr("icgn.solvers.problem.check_physics", None)
    heavier = problem.given(weight=3.0)
    torch.testing.assert_close(heavier.objective.weight, torch.tensor([3.0], dtype=torch.float64))
    torch.testing.assert_close(problem.objective.weight, torch.tensor([1.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="weight: got"):
        problem.given(weight=-1.0)


def test_a_sum_with_a_pulled_back_conditional_regularizer_solves(reg):
    turn = deepinv.physics.Denoising()
    both = PullBack(reg, turn) + TotalVariation()
    solution = solve(Problem(noisy(), DENOISING, both, SIGMA), tol=1e-5)
    assert solution.converged
    again = Problem(noisy(), DENOISING, both, SIGMA, condition=solution.condition)
    assert float(certify(again.objective, solution.x).rms_distance) <= 1e-5
    with pytest.raises(ValueError, match="condition: got shape"):
        Problem(noisy(), DENOISING, both, SIGMA, condition=solution.condition[..., 1:])


def test_invalid_images_are_not_run(ridge):
    y = noisy(2)
    y[0, 0, 0, 0] = torch.nan
    problem = Problem(y, DENOISING, ridge, SIGMA)
    found = minimize("final", problem.objective, "auto", problem.start(), Tolerance(1e-4, 1e-3), 100, problem.index)
    assert found.status == (Status.INVALID_INPUT, Status.CONVERGED) and bool(found.x[0].isnan().all())
