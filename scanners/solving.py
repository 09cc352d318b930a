"""What all scanners solve alike: a box that gives way, and a strength by held-out samples."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from icgn.functionals.noise import White
from icgn.regularizers import ConvexRegularizer, load_pretrained
from icgn.regularizers.pretrained import DEFAULT_MODELS
from icgn.scanners.held_out import Trial, search
from icgn.solvers import Callback, Event, Problem, Solution, solve

FIRST = 16 / 255
"""Sigma at which the search for the strength begins, as a part of the range: right for most pictures."""

# How the pictures on the way to a strength are solved.
_ROUGH: dict[str, Any] = {"gap_tol": 3e-2, "max_iter": 60}

# Sigmas that are tried, as a part of the range, where a regularizer does not say what it was trained for.
_BOUNDS = 1 / 255, 100 / 255
# How far beyond the range pictures may be, and how often that is doubled.
_BOX, _WIDENINGS = 2.0, 4


def default_gray(regularizer: ConvexRegularizer | None) -> ConvexRegularizer:
    """The regularizer, or the shipped one of gray pictures."""
    return load_pretrained(DEFAULT_MODELS[1]) if regularizer is None else regularizer


def device_of(regularizer: ConvexRegularizer) -> torch.device:
    """Where a regularizer computes."""
    tensors = itertools.chain(regularizer.parameters(), regularizer.buffers())
    return next((t.device for t in tensors), torch.device("cpu"))


def check_strength(sigma: float | None) -> None:
    """Raise ``ValueError`` unless a sigma is None or a part of the range."""
    if sigma is not None and not 0 < sigma < 1:
        raise ValueError(f"sigma: got {sigma:g}, expected a part of the range between 0 and 1, e.g. {FIRST:.2g}")


class Prepared(Protocol):
    """Data of a scanner without a unit, ready to be solved."""

    def posed(self, device: torch.device) -> tuple[Tensor, Any, float | White]:
        """Measurement, operator and noise, where they are computed with."""

    @property
    def width(self) -> float:
        """What is white to the regularizer."""

    @property
    def signed(self) -> bool:
        """Whether pictures may be negative."""

    def without(self, held: Tensor, /) -> Prepared:
        """The data without what is held out."""

    def error(self, x: Tensor, held: Tensor, /) -> float:
        """Root mean square of what a picture leaves of what is held out, over its noise."""


def solve_prepared(
    data: Prepared,
    regularizer: ConvexRegularizer,
    sigma: float,
    *,
    weight: float = 1.0,
    start: Tensor | None = None,
    **options: Any,
) -> Solution:
    """Solve for the picture of prepared data at one strength; parts on a bound of the box double it.

    Parameters
    ----------
    data : CoilData or RayData
        what was measured.
    regularizer : ConvexRegularizer
        of gray pictures; of two channels, real and imaginary part, for coils.
    sigma : float
        as a part of the range.
    weight : float
        factor of the regularizer.
    start : Tensor, optional
        picture to begin with, in the unit of the data.
    **options
        of :func:`icgn.solve`.
    """
    width, high = data.width, _BOX * data.width
    y, physics, noise = data.posed(device_of(regularizer))
    start = None if start is None else start.to(y)
    for _ in range(_WIDENINGS):
        low = -high if data.signed else 0.0
        problem = Problem(
            y, physics, regularizer, sigma * width, noise=noise, weight=weight, box=(low, high), range=(0.0, width)
        )
        solution = solve(problem, x0=None if start is None else start.clamp(low, high), **options)
        pressed = solution.x >= high * (1 - 1e-6)
        if data.signed:
            pressed |= solution.x <= low * (1 - 1e-6)
        if not bool(pressed.any()):
            break
        start, high = solution.x, 2 * high
    return solution


def choose_sigma(
    data: Prepared,
    held: Tensor,
    regularizer: ConvexRegularizer,
    start: Tensor,
    *,
    weight: float,
    callback: Callback | None,
) -> tuple[float, list[Trial], Tensor]:
    """The sigma of least error on held-out samples, all errors, and the picture of that sigma.

    Parameters
    ----------
    data : CoilData or RayData
        what was measured.
    held : Tensor
        what of it is held out.
    regularizer : ConvexRegularizer
        whose trained range of sigma bounds the search.
    start : Tensor
        where the first solution begins; the others begin at the last one.
    weight : float
        factor of the regularizer.
    callback : callable or None
        of every solution.
    """
    rest = data.without(held)
    found: dict[float, Tensor] = {}
    last = start

    def tried(sigma: float) -> float:
        nonlocal last
        last = found[sigma] = solve_roughly(rest, regularizer, sigma, last, weight=weight, callback=callback)
        return data.error(last.cpu(), held)

    sigma, trials = search(tried, FIRST, regularizer.sigma_range or _BOUNDS)
    return sigma, trials, found[sigma]


def solve_roughly(
    data: Prepared,
    regularizer: ConvexRegularizer,
    sigma: float,
    start: Tensor,
    *,
    weight: float,
    callback: Callback | None,
) -> Tensor:
    """A picture on the way to a strength; to the callback its stage is ``"strength"``."""
    told = None if callback is None else _of_strength(callback)
    return solve_prepared(data, regularizer, sigma, weight=weight, start=start, callback=told, **_ROUGH).x


def _of_strength(callback: Callback) -> Callback:
    def told(event: Event) -> bool | None:
        return callback(event if "/" in event.stage else replace(event, stage="strength"))

    return told
