"""The weight and the scale of a regularizer whose training leaves them open, fitted on pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import torch
from scipy import optimize
from torch import Tensor

from icgn.compat import keyword_only
from icgn.regularizers.base import ConvexRegularizer
from icgn.solvers import Problem, solve
from icgn.training.measure import measure, psnr
from icgn.training.processes import Processes

Error = Callable[[Sequence[float]], float]

# Decibels that a scale must gain, times the square of its logarithm. Between two that are equally good, a scale near 1
# gives a problem that is solved faster, and varies less between noise levels.
_GAIN = 5e-3


class Rescalable(Protocol):
    """A regularizer that a weight and a scale can become part of."""

    def rescaled(self, sigma: Tensor, weight: Tensor, scale: Tensor) -> ConvexRegularizer:
        r"""The regularizer :math:`w(\sigma) R(s(\sigma) x; \sigma)`."""


@dataclass(frozen=True)
class Weights:
    r"""Weights w and scales s of :math:`w R(s x; \sigma)`.

    Attributes
    ----------
    sigma : tuple of float
        increasing noise levels, in intensities.
    weight, scale : tuple of float
        w and s at each of them, positive.
    """

    sigma: tuple[float, ...]
    weight: tuple[float, ...]
    scale: tuple[float, ...]

    def row(self) -> dict[str, float]:
        """Entries of a row of the training history."""
        named = zip(self.sigma, self.weight, self.scale, strict=True)
        return {k: v for s, w, c in named for k, v in ((f"weight_{_name(s)}", w), (f"scale_{_name(s)}", c))}

    @classmethod
    def ones(cls, sigma: Sequence[float]) -> Weights:
        """Weights and scales that change nothing."""
        return cls(tuple(sorted(sigma)), (1.0,) * len(sigma), (1.0,) * len(sigma))

    @classmethod
    def of_row(cls, row: Mapping[str, float]) -> Weights | None:
        """Read the entries of a row; None if it has none."""
        levels = [k.removeprefix("weight_") for k in row if k.startswith("weight_")]
        if not levels:
            return None
        levels.sort(key=float)
        weight, scale = (tuple(row[f"{name}_{s}"] for s in levels) for name in ("weight", "scale"))
        return cls(tuple(float(s) / 255 for s in levels), weight, scale)

    def applied(self, regularizer: ConvexRegularizer) -> ConvexRegularizer:
        """The regularizer with weight and scale in it.

        Raises
        ------
        TypeError
            if its class has no method ``rescaled``.
        """
        if not hasattr(regularizer, "rescaled"):
            raise TypeError(f"{type(regularizer).__name__}: has no method rescaled, which this loss needs afterwards")
        sigma, weight, scale = (torch.tensor(v, dtype=torch.float64) for v in (self.sigma, self.weight, self.scale))
        return cast(Rescalable, regularizer).rescaled(sigma, weight, scale)


@keyword_only
@torch.no_grad()
def fit_weights(
    regularizer: ConvexRegularizer,
    images: Sequence[Tensor],
    levels: Sequence[float],
    physics: Any,
    *,
    start: Weights | None = None,
    fine: bool = True,
    processes: Processes | None = None,
) -> Weights:
    r"""Weight and scale at each noise level that give the best mean PSNR of the minimizers on pictures.

    Parameters
    ----------
    regularizer : ConvexRegularizer
        with a method ``rescaled``.
    images : sequence of Tensor
        pictures (C, H, W) in [0, 1]; those to choose on, never those to report on.
    levels : sequence of float
        noise levels, in intensities.
    physics : deepinv.physics.LinearPhysics
        the operator.
    start : Weights, optional
        where to start; default: a gradient of the size of the noise, and scale 1.
    fine : bool
        True: both by the simplex method of Nelder and Mead, to a percent, where a scale far from 1 has to gain
        some hundredths of a decibel; False: the weight alone, to some percent, on at most four pictures.
    processes : Processes, optional
        among which the pictures are shared.
    """
    group = Processes(device=next(regularizer.parameters()).device) if processes is None else processes
    chosen = images if fine else images[:4]
    found = []
    for level in sorted(levels):
        error = _error(regularizer, chosen, level, physics, group)
        first = group.from_main(partial(_start, regularizer, images[0], level, start))
        if start is None or not fine:
            first = _line(error, first, start is None)
        found.append(_simplex(error, first) if fine else first)
    weight, scale = (tuple(math.exp(f[i]) for f in found) for i in range(2))
    return Weights(tuple(sorted(levels)), weight, scale)


def _error(
    regularizer: ConvexRegularizer, images: Sequence[Tensor], level: float, physics: Any, group: Processes
) -> Error:
    """Minus the mean PSNR, as a function of the logarithms of weight and scale."""
    device = next(regularizer.parameters()).device
    measured = {i: measure(images[i], level, i, physics, device) for i in group.share(range(len(images)))}
    # Trials are near one another: each picture starts at its last minimizer.
    last: dict[int, Tensor] = {}

    def error(logs: Sequence[float]) -> float:
        one = Weights((level,), (math.exp(logs[0]),), (math.exp(logs[1]),)).applied(regularizer)
        total = 0.0
        for i, y in measured.items():
            x = solve(Problem(y, physics, one, level), tol=3e-4, max_iter=150, x0=last.get(i)).x
            if bool(torch.isfinite(x).all()):
                last[i] = x
            total += psnr(x[0].cpu().clamp(0, 1), images[i])
        mean = float(group.sum(torch.tensor(total, dtype=torch.float64, device=group.device))) / len(images)
        return -mean if math.isfinite(mean) else math.inf

    return error


def _start(regularizer: ConvexRegularizer, image: Tensor, level: float, start: Weights | None) -> tuple[float, float]:
    # By name: rows of the history hold levels with six digits.
    known = [] if start is None else [_name(s) for s in start.sigma]
    if start is not None and _name(level) in known:
        place = known.index(_name(level))
        return math.log(start.weight[place]), math.log(start.scale[place])
    noise = level * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    gradient = regularizer.grad((image + noise)[None].to(next(regularizer.parameters())), level)
    size = float(gradient.square().mean().sqrt())
    return (math.log(level / size) if size > 0 else 0.0), 0.0


def _name(sigma: float) -> str:
    """A noise level in gray levels, as the name of a column of the history."""
    return f"{sigma * 255:g}"


def _simplex(error: Error, first: tuple[float, float]) -> tuple[float, float]:
    corners = [first, (first[0] - 0.1, first[1]), (first[0], first[1] + 0.2)]
    options = {"initial_simplex": corners, "xatol": 1e-2, "fatol": 1e-3, "maxfev": 40}

    def judged(logs: Sequence[float]) -> float:
        return error(logs) + _GAIN * logs[1] ** 2

    best = optimize.minimize(judged, first, method="Nelder-Mead", options=options).x
    return float(best[0]), float(best[1])


def _line(error: Error, first: tuple[float, float], unknown: bool) -> tuple[float, float]:
    reach = 1.5 if unknown else 0.5
    bounds = (first[0] - reach, first[0] + reach)
    options = {"xatol": 0.03, "maxiter": 12 if unknown else 6}
    best = optimize.minimize_scalar(lambda w: error((w, first[1])), bounds=bounds, method="bounded", options=options)
    return float(best.x), first[1]
