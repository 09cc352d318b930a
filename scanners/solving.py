"""What all scanners solve alike: a box that gives way, and a strength by held-out samples."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from icgn.regularizers import ConvexRegularizer, load_pretrained
from icgn.regularizers.pretrained import DEFAULT_MODELS
from icgn.scanners.held_out import Trial, search
from icgn.solvers import Problem, Solution, solve

FIRST = 16 / 255
"""Sigma at which the search for the strength begins, as a part of the range: right for most pictures."""

ROUGH: dict[str, Any] = {"gap_tol": 3e-2, "max_iter": 60}
"""How the pictures on the way to a strength are solved."""

# Sigmas that are tried, as a part of the range, where a regularizer does not say what it was trained for.
_BOUNDS = 1 / 255, 100 / 255
# How often a box is doubled.
_WIDENINGS = 4


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


def solve_in_box(
    pose: Callable[[tuple[float, float]], Problem], low: float, high: float, start: Tensor | None, **options: Any
) -> Solution:
    """Solve a problem in a box; while pictures press on its upper bound, or on one below 0, this is doubled.

    Parameters
    ----------
    pose : callable
        the problem for bounds of the intensities.
    low, high : float
        the first bounds; low is 0 or -high.
    start : Tensor or None
        starting pictures.
    **options
        of :func:`icgn.solve`.
    """
    for _ in range(_WIDENINGS):
        begin = None if start is None else start.clamp(low, high)
        solution = solve(pose((low, high)), x0=begin, **options)
        pressed = solution.x >= high * (1 - 1e-6)
        if low < 0:
            pressed |= solution.x <= low * (1 - 1e-6)
        if not bool(pressed.any()):
            break
        start, low, high = solution.x, 2 * low, 2 * high
    return solution


def choose_sigma(
    regularizer: ConvexRegularizer,
    solved: Callable[[float, Tensor], Tensor],
    error: Callable[[Tensor], float],
    start: Tensor,
) -> tuple[float, list[Trial], Tensor]:
    """The sigma of least error on held-out samples, all errors, and the picture of that sigma.

    Parameters
    ----------
    regularizer : ConvexRegularizer
        whose trained range of sigma bounds the search.
    solved : callable
        ``solved(sigma, start)`` gives the picture of what is not held out.
    error : callable
        the error of a picture on what is.
    start : Tensor
        where the first solution begins; the others begin at the last one.
    """
    found: dict[float, Tensor] = {}
    last = start

    def tried(sigma: float) -> float:
        nonlocal last
        last = found[sigma] = solved(sigma, last)
        return error(last)

    sigma, trials = search(tried, FIRST, regularizer.sigma_range or _BOUNDS)
    return sigma, trials, found[sigma]
