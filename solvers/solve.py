"""Problems solved and certified: weight, condition, run."""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.functionals.intensities import checked_range
from icgn.solvers.conditioning import conditioned, is_conditional
from icgn.solvers.implicit import attach_gradient
from icgn.solvers.iterate import Callback, Event, watching
from icgn.solvers.methods.method import Method, State
from icgn.solvers.objective import LiftedObjective
from icgn.solvers.problem import Problem
from icgn.solvers.run import Minimum, minimize
from icgn.solvers.solution import Solution, Stats
from icgn.solvers.tolerance import Tolerance, invisible_distance
from icgn.solvers.units import in_unit
from icgn.solvers.weight import resolved


@keyword_only
def solve(
    problem: Problem,
    *,
    method: str | Method[State] = "auto",
    tol: float | None = 1e-4,
    gap_tol: float = 1e-3,
    max_iter: int = 1000,
    callback: Callback | Callable[[int, Tensor, Tensor], bool | None] | None = None,
    x0: Tensor | None = None,
    differentiable: bool = False,
) -> Solution:
    r"""Minimize the objective of `problem` and certify every image.

    An image has converged when its certificate proves what is asked for. Three cases differ:

    - The objective is strongly convex, with a modulus of at least 0.01 (denoising has 1): the certificate proves
      :math:`|x - x^*| / \sqrt n \le` `tol`.
    - The modulus is smaller and there is a box: the certificate proves a gap of at most `gap_tol` times the objective,
      or of at most :math:`n\, tol^2 / 2`, because the minimum may be 0. The latter is the gap of the distance `tol`
      where the modulus is 1.
    - There is neither: such a gap is proved all the same, or the RMS gradient is at most `tol`. The latter is reported
      as stationary, not as converged.

    Images stop one by one and do not influence each other.

    For a conditional regularizer without a condition in `problem` the condition is computed from first solutions
    (:mod:`icgn.solvers.conditioning`). The certificate is that of the last problem, which is convex and which
    :attr:`Solution.condition` poses again. Iterations and work are those of all solutions.

    If the regularizer is a minimum over latent pictures, the solver minimizes over pictures and latent pictures at once
    (:mod:`icgn.solvers.objective`). The objective of the certificate is then that of both, at most the gap above F(x).

    Parameters
    ----------
    problem : Problem
        what to minimize.
    method : str or Method
        ``"auto"``, the name of a method, or a configured one.
    tol : float or None
        RMS distance to the minimizer, in intensities; of a problem with a range, as a part of it. None stands for a
        250th of sigma, which nobody sees (:func:`icgn.solvers.tolerance.invisible_distance`): for each image its own,
        and at least what its precision reaches.
    gap_tol : float
        relative objective gap.
    max_iter : int
        iterations allowed per image, those of all solutions on the way to a condition included.
    callback : callable, optional
        ``callback(event)`` before each iteration of every stage, with an :class:`icgn.solvers.Event`; returning True
        stops the run: every image is certified where it is. Of a problem with a range events show images brought to
        [0, 1].
    x0 : Tensor, optional
        starting images; default :meth:`Problem.start`.
    differentiable : bool
        attach x to the automatic differentiation graph of the regularizer's parameters and y, by the implicit
        function theorem (:mod:`icgn.solvers.implicit`); memory does not grow with the iterations.

    Returns
    -------
    Solution
        Certificates are evaluated in float64 at the returned images where the physics allows. Images in float32 that
        rounding stops short of the tolerance are continued in float64, and returned in float32.

    Raises
    ------
    ValueError
        for a nonpositive tolerance, an unknown method, or one whose assumptions the problem breaks.

    Examples
    --------
    >>> import deepinv, icgn, torch
    >>> y = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> problem = icgn.Problem(y, deepinv.physics.Denoising(), icgn.TotalVariation(), sigma=0.1)
    >>> solution = icgn.solve(problem, tol=1e-3)
    >>> solution.status[0].name, bool(solution.certificate.rms_distance[0] <= 1e-3)
    ('CONVERGED', True)
    """
    _check_arguments(problem, tol, gap_tol, max_iter, x0)
    if problem.range is not None:
        limits = checked_range(problem.range)
        start = None if x0 is None else (x0 - limits[0]) / (limits[1] - limits[0])
        inside = solve(
            problem.brought(),
            method=method,
            tol=tol,
            gap_tol=gap_tol,
            max_iter=max_iter,
            callback=callback,
            x0=start,
            differentiable=differentiable,
        )
        return in_unit(inside, limits)
    begin = time.perf_counter()
    with watching(_adapted(callback)):
        problem = resolved(problem)
        start = problem.start() if x0 is None else problem.feasible(x0.to(problem.y))
        before = None
        if is_conditional(problem):
            before = conditioned(
                problem, method, x0=start, max_iter=max_iter, in_all=max_iter, differentiable=differentiable
            )
            problem, start = before.problem, before.x
        left: int | Tensor = max_iter if before is None else max_iter - before.iterations
        objective = problem.objective
        tolerance = Tolerance(invisible_distance(problem) if tol is None else tol, gap_tol)
        found = minimize("final", objective, method, start.detach(), tolerance, left, problem.index)
    x = _attached(problem, found) if differentiable else found.x
    iterations, work = found.iterations, found.work
    if before is not None:
        iterations, work = iterations + before.iterations, work + before.work
    stats = Stats(iterations, work, time.perf_counter() - begin, found.method)
    return Solution(x, found.status, found.certificate, stats, objective.weight, condition=problem.condition)


def _attached(problem: Problem, found: Minimum) -> Tensor:
    """The minimizer as a differentiable function of the regularizer's parameters and y."""
    graph = problem.build_objective()
    if isinstance(found.objective, LiftedObjective):
        graph = graph.lifted(problem.start().shape)
    return found.objective.seen(attach_gradient(graph, found.objective, found.v))


def _adapted(callback: Callable[..., bool | None] | None) -> Callback | None:
    """The callback, or a callback of events that calls one of the last release with iteration, images and places."""
    if callback is None or not _takes_three(callback):
        return callback
    message = "callback(iteration, x, index) is callback(event) now, with event.iteration, event.x and event.index"
    warnings.warn(message + "; the old form will go with the next release", FutureWarning, stacklevel=4)

    def call(event: Event) -> bool | None:
        return callback(event.iteration, event.x, event.index)

    return call


def _takes_three(callback: Callable[..., object]) -> bool:
    try:
        parameters = inspect.signature(callback).parameters.values()
    except (TypeError, ValueError):  # a built-in function has no signature
        return False
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len([p for p in positional if p.default is p.empty]) == 3


def _check_arguments(problem: Problem, tol: float | None, gap_tol: float, max_iter: int, x0: Tensor | None) -> None:
    for name, value in (("tol", tol), ("gap_tol", gap_tol)):
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{name}: got {value}, expected a positive number")
    if max_iter < 0:
        raise ValueError(f"max_iter: got {max_iter}, expected at least 0")
    if x0 is not None:
        expected = problem.start().shape
        if x0.shape != expected:
            raise ValueError(f"x0: got shape {tuple(x0.shape)}, expected {tuple(expected)}")
        if not bool(torch.isfinite(x0).all()):
            raise ValueError("x0: got NaN or infinite values, expected finite starting images")
