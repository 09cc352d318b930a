"""The loop that fits a gradient network to be an optimal transport map."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from icgn.transport.assignments import match_assignments
from icgn.transport.checkpoints import Checkpoint, FitState
from icgn.transport.coordinates import DenseNetwork, centred, check_dense, parameter_groups, translate
from icgn.transport.evaluation import CostBounds, cost_bounds
from icgn.transport.losses import Objective, TransportLoss
from icgn.transport.moments import match_moments, match_scale
from icgn.transport.samples import Sampler, make_sampler
from icgn.transport.semi_dual import SemiDual
from icgn.transport.vectors import GradientNetwork, check_vectors

Start = Literal["assignments", "moments", "scale", "network"]
Callback = Callable[[int, float], "bool | None"]
"""A function of a step and its estimate of the loss; returning True ends a fit."""
_MATCHES = {"assignments": match_assignments, "moments": match_moments, "scale": match_scale}


@dataclass(frozen=True)
class History:
    """The history of a fit.

    Attributes
    ----------
    loss : tuple of float
        the estimate of the loss at each step.
    seconds : float
        time of it all, by the clock of the fit.
    bounds : tuple of CostBounds
        the bracket of the cost on the samples that were held out, the last entry at the end; empty without them.
    """

    loss: tuple[float, ...]
    seconds: float
    bounds: tuple[CostBounds, ...] = ()


def fit_map(
    network: GradientNetwork,
    source: Sampler | Tensor,
    target: Sampler | Tensor,
    loss: TransportLoss | None = None,
    *,
    steps: int = 1000,
    batch: int = 512,
    learning_rate: float = 3e-2,
    start: Start = "moments",
    start_samples: int = 16384,
    generator: torch.Generator | None = None,
    seconds: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
    callback: Callback | None = None,
    progress: bool = False,
    held_out: int = 0,
    tol: float | None = None,
    checkpoint: str | Path | None = None,
) -> History:
    r"""Fit N to be the optimal transport map for :math:`|x - y|^2` from a source to a target measure, in place.

    Adam with a learning rate that falls to zero along a cosine, about the means and in the units of the samples: the
    fit of shifted and scaled measures is the shifted and scaled fit (but for mu, which has a unit).

    Parameters
    ----------
    network : GradientNetwork
        the map N, one of the package's dense networks; with `quadratic` = d any affine optimal map is in its class.
    source, target : callable or Tensor
        functions that draw n fresh samples, (n, d), or fixed samples (n, d), drawn with replacement.
    loss : TransportLoss, optional
        :class:`~icgn.transport.semi_dual.SemiDual`, the default, :class:`~icgn.transport.correlation.Correlation` or
        :class:`~icgn.transport.sinkhorn.Sinkhorn`.
    steps, batch : int
        number of steps, 0 for the start alone, and samples of either measure in each, at least 4.
    learning_rate : float
        at the first step.
    start : {"assignments", "moments", "scale", "network"}
        "moments" first sets the network to the optimal map between the Gaussians of the same means and covariances,
        :func:`~icgn.transport.moments.match_moments`; "assignments" then fits it to optimal assignments between batches
        of 512 samples, :func:`~icgn.transport.assignments.match_assignments`, for maps that bend much; "scale" sets it
        to the one of the same means and total variances; "network" goes on with it as it is.
    start_samples : int
        samples for the start, the means and the units; fixed samples are all used instead.
    generator : torch.Generator, optional
        of the draws from fixed samples, on the CPU.
    seconds : float, optional
        time after which the fit has ended, its start included, whatever `steps` says: the learning rate falls with the
        share of the time, or of the steps, that has passed, whichever is larger.
    clock : callable
        what measures `seconds`: by default the clock on the wall; ``time.process_time`` counts those of the processor,
        so that fits on a busy machine are comparable.
    callback : callable
        ``callback(step, loss)`` after each step; returning True ends the fit.
    progress : bool
        whether to show a bar in the terminal.
    held_out : int
        samples of either measure, drawn once and not trained on (fixed samples may be drawn again), on which
        :func:`~icgn.transport.evaluation.cost_bounds` brackets the cost at the end.
    tol : float, optional
        the bracket is computed at each tenth of the fit too, which ends once the two bounds differ by this part of the
        cost of the map at most.
    checkpoint : str or Path, optional
        file that holds the state of the fit, written every minute and at the end. Where it exists, the fit goes on from
        it: fixed samples with a generator as if it had not been interrupted, other samplers with other samples.

    Raises
    ------
    TypeError, ValueError
        if a parameter is out of range, samples are not finite, of another dimension than the network, or of no
        variance, or the checkpoint is of another fit.
    FloatingPointError
        if the loss is not finite in some step; the network then has the parameters of the step before.
    """
    _check(steps, batch, learning_rate, start, seconds)
    watch = _Watch(held_out, tol)
    begin = clock()
    draw_x, draw_y = make_sampler("source", source, generator), make_sampler("target", target, generator)
    objective = (SemiDual() if loss is None else loss).bind(network)
    networks = [check_dense("network", network)]
    if objective.conjugate is not None:
        networks.append(check_dense("conjugate", objective.conjugate))
    settings = {"steps": steps, "batch": batch, "learning_rate": learning_rate, "start": start, "seconds": seconds}
    kept = None if checkpoint is None else Checkpoint(Path(checkpoint), settings)
    if kept is not None and kept.measures is not None:
        measures = [_Moments(mean.to(network.shift), scale) for mean, scale in kept.measures]
    else:
        x = _like(network, "source", source if isinstance(source, Tensor) else draw_x(start_samples))
        y = _like(network, "target", target if isinstance(target, Tensor) else draw_y(start_samples))
        measures = [_Moments.of("source", x), _Moments.of("target", y)]
        if start in _MATCHES:
            for own, samples in zip(networks, ((x, y), (y, x)), strict=False):
                _MATCHES[start](own, *samples)
    maps = [_Trained(own, *between) for own, between in zip(networks, (measures, measures[::-1]), strict=False)]
    watch.draw(network, draw_x, draw_y)
    with ExitStack() as stack:
        for trained in maps:
            stack.enter_context(centred(trained.network, trained.source.mean, trained.target.mean))
        optimizer = torch.optim.Adam([g for own in maps for g in own.groups(learning_rate)], betas=(0.9, 0.99))
        rates = [group["lr"] for group in optimizer.param_groups]
        state = FitState(list(networks), [(m.mean, m.scale) for m in measures], optimizer, generator)
        if kept is not None:
            kept.restore(state)
        report = stack.enter_context(_bar()) if progress else None
        first = begin - state.spent
        for step in range(len(state.losses), steps):
            passed = max(step / steps, 0.0 if seconds is None else (clock() - first) / seconds)
            if passed >= 1 or watch.ends(passed, maps):
                break
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1 + math.cos(math.pi * passed)) / 2
            x = _like(network, "source", draw_x(batch)) - measures[0].mean
            y = _like(network, "target", draw_y(batch)) - measures[1].mean
            state.losses.append(_step(objective, optimizer, x, y, step))
            state.spent = clock() - first
            if report is not None:
                report(passed, state.losses[-1])
            if kept is not None:
                kept.write(state)
            if callback is not None and callback(step, state.losses[-1]) is True:
                break
        if kept is not None:
            kept.write(state, now=True)
        watch.end(maps)
    return History(tuple(state.losses), clock() - begin, tuple(watch.bounds))


@dataclass(frozen=True, eq=False)
class _Moments:
    """The mean of a measure, (d,), and its root mean square deviation of one coordinate."""

    mean: Tensor
    scale: float

    @classmethod
    def of(cls, name: str, samples: Tensor) -> _Moments:
        check_vectors(samples, name=name, least=2)
        scale = float(samples.double().var(0).mean().sqrt())
        if not scale > 0:
            raise ValueError(f"{name}: got samples of variance 0, expected a positive one")
        return cls(samples.mean(0), scale)


@dataclass(frozen=True, eq=False)
class _Trained:
    """A network with the measures between which it maps."""

    network: DenseNetwork
    source: _Moments
    target: _Moments

    def groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """For the optimizer."""
        return parameter_groups(self.network, self.source.scale, self.target.scale, learning_rate)


class _Watch:
    """The bracket of the cost on samples that are held out, and the rule that ends a fit by it."""

    def __init__(self, held_out: int, tol: float | None) -> None:
        if held_out < 0 or held_out == 1:
            raise ValueError(f"held_out: got {held_out}, expected 0 for none, or at least 2 samples")
        if tol is not None and not (0 < tol < math.inf and held_out):
            raise ValueError(f"tol: got {tol} with held_out={held_out}, expected a positive number, and held_out > 0")
        self.held_out, self.tol = held_out, tol
        self.bounds: list[CostBounds] = []
        self._next = 0.1

    def draw(self, network: GradientNetwork, draw_x: Sampler, draw_y: Sampler) -> None:
        """Draw the samples, if there shall be any."""
        if self.held_out:
            self._x = _like(network, "source", draw_x(self.held_out))
            self._y = _like(network, "target", draw_y(self.held_out))

    def ends(self, passed: float, maps: Sequence[_Trained]) -> bool:
        """Whether the bounds are near enough, looked at once in each tenth of the fit."""
        if self.tol is None or passed < self._next:
            return False
        self._next = passed + 0.1
        self._measure(maps)
        return abs(self.bounds[-1].moved - self.bounds[-1].lower) <= self.tol * self.bounds[-1].moved

    def end(self, maps: Sequence[_Trained]) -> None:
        """The fit is over."""
        if self.held_out:
            self._measure(maps)

    def _measure(self, maps: Sequence[_Trained]) -> None:
        own = []
        for trained in maps:  # about the means: copies that are not
            own.append(copy.deepcopy(trained.network))
            translate(own[-1], trained.source.mean, trained.target.mean)
        with torch.no_grad():
            guess = own[1](self._y) if len(own) > 1 else None
        self.bounds.append(cost_bounds(own[0], self._x, self._y, guess))


@contextmanager
def _bar() -> Iterator[Callable[[float, float], None]]:
    """A bar in the terminal, and what moves it: the part that has passed, and the loss."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("fit"), BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=1.0)
        yield lambda passed, loss: bars.update(task, completed=passed, description=f"loss {loss:.4g}")


def _step(objective: Objective, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, step: int) -> float:
    optimizer.zero_grad(set_to_none=True)
    differentiated, value = objective.values(x, y)
    if not bool(torch.isfinite(differentiated)):
        raise FloatingPointError(f"step {step}: the loss is {differentiated.item()}; try a smaller learning_rate")
    differentiated.backward()
    optimizer.step()
    return float(value)


def _like(network: GradientNetwork, name: str, samples: Tensor) -> Tensor:
    return check_vectors(samples, network.dim, name).detach().to(network.shift)


def _check(steps: int, batch: int, learning_rate: float, start: str, seconds: float | None) -> None:
    if steps < 0 or batch < 4:
        raise ValueError(f"steps, batch: got {steps}, {batch}, expected at least 0 and 4")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate: got {learning_rate}, expected a positive finite number")
    if seconds is not None and not 0 < seconds < math.inf:
        raise ValueError(f"seconds: got {seconds}, expected a positive finite number")
    if start not in get_args(Start):
        raise ValueError(f"start: got {start!r}, expected one of {', '.join(get_args(Start))}")
