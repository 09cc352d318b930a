"""The loop that fits a gradient network to be an optimal transport map."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from icgn.transport.coordinates import DenseNetwork, centred, check_dense, parameter_groups
from icgn.transport.losses import Objective, TransportLoss
from icgn.transport.moments import match_moments, match_scale
from icgn.transport.samples import Sampler, make_sampler
from icgn.transport.vectors import GradientNetwork, check_vectors

Start = Literal["moments", "scale", "network"]
Callback = Callable[[int, float], "bool | None"]
"""A function of a step and its estimate of the loss; returning True ends a fit."""
_MATCHES = {"moments": match_moments, "scale": match_scale}


@dataclass(frozen=True)
class History:
    """The history of a fit.

    Attributes
    ----------
    loss : tuple of float
        the estimate of the loss at each step.
    seconds : float
        wall-clock time of it all.
    """

    loss: tuple[float, ...]
    seconds: float


def fit_map(
    network: GradientNetwork,
    source: Sampler | Tensor,
    target: Sampler | Tensor,
    loss: TransportLoss,
    *,
    steps: int = 1000,
    batch: int = 512,
    learning_rate: float = 2e-2,
    start: Start = "moments",
    start_samples: int = 16384,
    generator: torch.Generator | None = None,
    seconds: float | None = None,
    callback: Callback | None = None,
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
    loss : TransportLoss
        :class:`~icgn.transport.semi_dual.SemiDual`, :class:`~icgn.transport.correlation.Correlation` or
        :class:`~icgn.transport.sinkhorn.Sinkhorn`.
    steps, batch : int
        number of steps, 0 for the start alone, and samples of either measure in each, at least 4.
    learning_rate : float
        at the first step.
    start : {"moments", "scale", "network"}
        "moments" first sets the network to the optimal map between the Gaussians of the same means and covariances,
        :func:`~icgn.transport.moments.match_moments`; "scale" to the one of the same means and total variances;
        "network" goes on with it as it is.
    start_samples : int
        samples for the start, the means and the units; fixed samples are all used instead.
    generator : torch.Generator, optional
        of the draws from fixed samples, on the CPU.
    seconds : float, optional
        wall-clock time after which the fit has ended, whatever `steps` says: the learning rate falls with the share of
        the time, or of the steps, that has passed, whichever is larger.
    callback : callable
        ``callback(step, loss)`` after each step; returning True ends the fit.

    Raises
    ------
    TypeError, ValueError
        if a parameter is out of range, or samples are not finite, of another dimension than the network, or of no
        variance.
    FloatingPointError
        if the loss is not finite in some step; the network then has the parameters of the step before.
    """
    _check(steps, batch, learning_rate, start, seconds)
    draw_x, draw_y = make_sampler("source", source, generator), make_sampler("target", target, generator)
    objective = loss.bind(network)
    begin = time.perf_counter()
    x = _like(network, "source", source if isinstance(source, Tensor) else draw_x(start_samples))
    y = _like(network, "target", target if isinstance(target, Tensor) else draw_y(start_samples))
    measures = _Moments.of("source", x), _Moments.of("target", y)
    maps = [_Trained(check_dense("network", network), *measures)]
    if objective.conjugate is not None:
        maps.append(_Trained(check_dense("conjugate", objective.conjugate), *measures[::-1]))
    if start in _MATCHES:
        for own, samples in zip(maps, ((x, y), (y, x)), strict=False):
            _MATCHES[start](own.network, *samples)
    losses = []
    with ExitStack() as stack:
        for own in maps:
            stack.enter_context(centred(own.network, own.source.mean, own.target.mean))
        optimizer = torch.optim.Adam([g for own in maps for g in own.groups(learning_rate)], betas=(0.9, 0.99))
        rates = [group["lr"] for group in optimizer.param_groups]
        first = time.perf_counter()
        for step in range(steps):
            passed = max(step / steps, 0.0 if seconds is None else (time.perf_counter() - first) / seconds)
            if passed >= 1:
                break
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1 + math.cos(math.pi * passed)) / 2
            x = _like(network, "source", draw_x(batch)) - measures[0].mean
            y = _like(network, "target", draw_y(batch)) - measures[1].mean
            losses.append(_step(objective, optimizer, x, y, step))
            if callback is not None and callback(step, losses[-1]) is True:
                break
    return History(tuple(losses), time.perf_counter() - begin)


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
