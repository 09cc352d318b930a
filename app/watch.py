"""Progress of a solver for those who wait for it: how far it is, and the order to stop."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from icgn.functionals.box import Box
from icgn.functionals.functional import ConvexFunctional
from icgn.solvers.certificate import distance_bound, optimality
from icgn.solvers.methods.choice import choose
from icgn.solvers.methods.method import Method, State
from icgn.solvers.objective import Objective
from icgn.solvers.problem import Problem
from icgn.solvers.run import _STRONG as STRONG

# Of the bar, the part of a first solution from which the condition of a conditional network is computed.
_FIRST_PART = 0.3


class StoppedError(Exception):
    """The work was told to stop."""


class TooLongError(Exception):
    """The time was over before anything could be proved."""


@dataclass(frozen=True)
class Point:
    r"""What is known after some iterations.

    Attributes
    ----------
    iteration : int
        counted from the start, over both solutions of a conditional network.
    bound : float
        of the RMS distance to the minimizer in intensities, or of the relative objective gap, the largest over the
        channels still running; in working precision.
    final : bool
        whether it is of the last problem, the one that is certified.
    """

    iteration: int
    bound: float
    final: bool


@dataclass
class Watch:
    """One computation that somebody waits for.

    Parameters
    ----------
    stop : threading.Event
        set by whoever wants it to stop.
    tell : callable
        ``tell(fraction, words)`` is called with the part done, 0 to 1, at every iteration.
    seconds : float
        after which it is to end with what it has.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    tell: Callable[[float, str], None] = lambda fraction, words: None
    seconds: float = math.inf
    history: list[Point] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._final = False
        self._began = time.perf_counter()

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return time.perf_counter() - self._began > self.seconds

    def callback(self, iteration: int, x: Tensor, index: Tensor) -> bool:
        """For :func:`icgn.solvers.solve`, which calls it in the last solution only; True when the time is over."""
        self._final = True
        return self.over

    def watched(self, problem: Problem, tol: float, gap_tol: float) -> Watched:
        """The automatic method of a problem, watched; the tolerances are those of :func:`icgn.solvers.solve`."""
        return Watched(choose("auto", problem.objective, problem.start()), self, tol, gap_tol)

    def before_step(self) -> None:
        """Raise :class:`StoppedError` if told to stop, :class:`TooLongError` if the time is over too early to prove."""
        if self.stop.is_set():
            raise StoppedError
        if self.over and not self._final:
            raise TooLongError

    def add(self, bound: float, tolerance: float) -> None:
        """Note a bound and tell the part done: bounds fall about geometrically."""
        point = Point(len(self.history), bound, self._final)
        self.history.append(point)
        first = next((p.bound for p in self.history if p.final == self._final and 0 < p.bound < math.inf), tolerance)
        done = 0.0
        if 0 < bound < first and tolerance < first:
            done = min(1.0, math.log(first / bound) / math.log(first / tolerance))
        conditional = not self.history[0].final
        if conditional:
            done = _FIRST_PART + (1 - _FIRST_PART) * done if self._final else _FIRST_PART * done
        self.tell(done, f"step {point.iteration + 1}")


class Watched(Method[State]):
    """A method that notes where it stands before every iteration, and stops when it is told to."""

    def __init__(self, method: Method[Any], watch: Watch, tol: float, gap_tol: float) -> None:
        self.method, self.watch, self.tol, self.gap_tol = method, watch, tol, gap_tol

    @property
    def name(self) -> str:
        return self.method.name

    def check(self, objective: Objective) -> None:
        self.method.check(objective)

    def init(self, objective: ConvexFunctional, x: Tensor, box: Box | None) -> State:
        state: State = self.method.init(objective, x, box)
        return state

    def step(self, objective: ConvexFunctional, state: State, box: Box | None) -> State:
        self.watch.before_step()
        self.watch.add(*self._bound(objective, state, box))
        following: State = self.method.step(objective, state, box)
        return following

    def _bound(self, objective: ConvexFunctional, state: State, box: Box | None) -> tuple[float, float]:
        """The bound of the slowest image, and its tolerance."""
        mu = objective.strong_convexity().to(state.x.device).expand(len(state.x))
        gap, _ = optimality(state.x, state.grad, objective.hessian_floor(state.x), box)
        if bool((mu >= STRONG).all()):
            return float(distance_bound(gap.double(), mu, state.x[0].numel()).max()), self.tol
        objective_value = objective.potential(state.u).abs().clamp_min(torch.finfo(gap.dtype).tiny)
        return float((gap / objective_value).max()), self.gap_tol
