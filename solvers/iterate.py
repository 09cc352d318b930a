"""The one loop behind every method: init, step, test and stop, with one event per iteration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from icgn.functionals.box import Box
from icgn.functionals.functional import ConvexFunctional
from icgn.solvers.certificate import distance_bound, optimality
from icgn.solvers.methods.method import Method, State

Pictures = Callable[[Tensor], Tensor]
"""Gives the pictures that a caller asked for from those that a method walks over."""


@dataclass(frozen=True, eq=False)
class Event:
    """One iteration, before it is made.

    Attributes
    ----------
    stage : str
        ``"weight"``: the weight is being found; ``"strength"``: that of data of a scanner, from several solutions, each
        counted from 0; ``"first"``: a first solution, from which a condition is computed; ``"final"``: the problem that
        is certified. Loops inside an iteration have a stage of their own, such as ``"final/prox"``.
    iteration : int
        counted from 0 over all stages of one solve; loops inside an iteration do not count.
    index : Tensor
        places in the batch of the images that are still running, int64 (b,).
    """

    stage: str
    iteration: int
    index: Tensor
    _point: _Point = field(repr=False)

    @cached_property
    def x(self) -> Tensor:
        """The images that are still running, (b, C, H, W)."""
        return self._point.pictures(self._point.state.x)

    @cached_property
    def measure(self) -> Tensor:
        """How far each image is from the end of the stage, as a multiple of its tolerance; nan if diverged, (b,)."""
        with torch.no_grad():
            return self._point.rule.measure(self._point.objective, self._point.state, self.index)

    @cached_property
    def distance(self) -> Tensor:
        """Bound of the RMS distance to the minimizer in intensities, in working precision; inf where unknown, (b,)."""
        with torch.no_grad():
            return self._point.rule.distance(self._point.objective, self._point.state)


Callback = Callable[[Event], "bool | None"]
"""A function that receives each event; returning True stops the run."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """The result of a test: images that have ended, bool (b,), and places of those on which to restart the method."""

    ended: Tensor
    again: Sequence[int] = ()


class StopRule(ABC):
    """When the images of a loop have ended.

    Attributes
    ----------
    every : int
        iterations between two tests: each reads a few numbers back from the device.
    box : Box or None
        bounds of the images.
    """

    every: int = 2
    box: Box | None = None

    @abstractmethod
    def measure(self, objective: ConvexFunctional, state: State, index: Tensor) -> Tensor:
        """How far images are from their end, as a multiple of the tolerance; nan for diverged ones, (b,)."""

    def distance(self, objective: ConvexFunctional, state: State) -> Tensor:
        """Bound of the RMS distance to the minimizer in working precision, (b,)."""
        x = state.x
        gap, _ = optimality(x, state.grad, objective.hessian_floor(x), self.box)
        mu = objective.strong_convexity().to(x.device).expand(len(x))
        return distance_bound(gap.double(), mu, x[0].numel())

    def look(self, k: int, objective: ConvexFunctional, state: State, index: Tensor, last: Tensor) -> Verdict:
        """Test the images after k iterations; those of `last`, bool (b,), have to end."""
        return Verdict((self.measure(objective, state, index) <= 1) | last)


class Residual(StopRule):
    """Images end when their RMS residual is at most `tol`, float64 (B,); nothing is proved."""

    def __init__(self, tol: Tensor, box: Box | None) -> None:
        self.tol, self.box = tol, box

    def measure(self, objective: ConvexFunctional, state: State, index: Tensor) -> Tensor:
        _, rms = optimality(state.x, state.grad, objective.hessian_floor(state.x), self.box)
        return torch.where(rms == 0, 0.0, rms.double() / self.tol[index])


class Watch:
    """The receiver of the events of a solve, and whether its callback asked to stop."""

    def __init__(self, callback: Callback | None) -> None:
        self.callback, self.stopped = callback, False
        self.iteration, self._before = 0, 0
        self._stages: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[bool]:
        """Enter a stage; gives whether it is an outer one, whose iterations count."""
        self._stages.append(name)
        try:
            yield len(self._stages) == 1
        finally:
            self._stages.pop()

    def at(self, k: int) -> None:
        """Note that the outer stage has made k iterations."""
        self.iteration = self._before + k

    def close(self) -> None:
        """Add the iterations of an outer stage that has ended."""
        self._before = self.iteration

    def report(self, index: Tensor, point: _Point) -> None:
        """Give an event to the callback, if there is one."""
        if self.callback is not None:
            event = Event("/".join(self._stages), self.iteration, index, point)
            self.stopped = self.callback(event) is True


_WATCH: ContextVar[Watch | None] = ContextVar("icgn_watch", default=None)


@contextmanager
def watching(callback: Callback | None) -> Iterator[Watch]:
    """Report all loops within to a callback, however deep they are."""
    watch = Watch(callback)
    token = _WATCH.set(watch)
    try:
        yield watch
    finally:
        _WATCH.reset(token)


def stopped() -> bool:
    """Whether the callback of the surrounding solve asked to stop."""
    watch = _WATCH.get()
    return watch is not None and watch.stopped


@dataclass(frozen=True, eq=False)
class Reached:
    """Where a loop ended: images, nan where there was nothing to do, their iterations int64 (B,) and work (B,)."""

    x: Tensor
    iterations: Tensor
    work: Tensor


@dataclass(frozen=True, eq=False)
class _Point:
    """What an event computes its numbers from."""

    objective: ConvexFunctional
    state: State
    rule: StopRule
    pictures: Pictures


@torch.no_grad()
def iterate(
    stage: str,
    objective: ConvexFunctional,
    method: Method[Any],
    x0: Tensor,
    rule: StopRule,
    limit: int | Tensor,
    index: Tensor | None = None,
    pictures: Pictures = lambda x: x,
) -> Reached:
    """Iterate until a rule has ended every image; images stop one by one and do not influence each other.

    Parameters
    ----------
    stage : str
        name of the loop in events.
    objective : ConvexFunctional
        what is minimized, over the box of `rule`.
    method : Method
        the method.
    x0 : Tensor
        starting images (B, C, H, W), feasible.
    rule : StopRule
        when an image has ended.
    limit : int or Tensor
        iterations allowed, for all images or int64 (B,).
    index : Tensor, optional
        places of the images to run, int64; default all.
    pictures : callable, optional
        the pictures of an event from those that the method walks over.
    """
    watch = _WATCH.get() or Watch(None)
    index = torch.arange(len(x0), device=x0.device) if index is None else index
    limits = torch.as_tensor(limit, device=x0.device).expand(len(x0))
    x = torch.full_like(x0, torch.nan)
    iterations = torch.zeros(len(x0), dtype=torch.int64, device=x0.device)
    work = torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
    with watch.stage(stage) as outer:
        active = objective.select(index)
        state = method.init(active, x0[index], rule.box)
        k, soonest = 0, int(limits[index].min())
        while True:
            if outer:
                watch.at(k)
            if k % rule.every == 0 or k >= soonest or watch.stopped:
                last = limits[index] <= k if k >= soonest else torch.zeros_like(index, dtype=torch.bool)
                verdict = rule.look(k, active, state, index, last | watch.stopped)
                if verdict.again:
                    state = _begun_anew(active, method, state, verdict.again, rule.box)
                if bool(verdict.ended.any()):
                    at, keep = index[verdict.ended], torch.nonzero(~verdict.ended).flatten()
                    x[at], work[at], iterations[at] = state.x[verdict.ended], state.work[verdict.ended].double(), k
                    if len(keep) == 0:
                        break
                    index, active, state = index[keep], active.select(keep), state.select(keep)
                    soonest = int(limits[index].min())
            if not watch.stopped:
                watch.report(index, _Point(active, state, rule, pictures))
            if not watch.stopped:
                state, k = method.step(active, state, rule.box), k + 1
        if outer:
            watch.close()
    return Reached(x, iterations, work)


def _begun_anew(
    active: ConvexFunctional, method: Method[Any], state: State, places: Sequence[int], box: Box | None
) -> State:
    """The state after a restart of the method on some images, whose responses have drifted."""
    at = torch.tensor(places, device=state.x.device)
    fresh = method.init(active.select(at), state.x[at], box)
    return state.put(at, replace(fresh, work=fresh.work + state.work[at]))
