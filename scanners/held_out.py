"""Samples that are held out: they choose the strength of a regularizer without the true picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

PART = 0.1
"""The part of the samples that is held out."""

# Strengths that are tried, in octaves: the first step and the last, and how many tries there are at most.
_STEPS, _TRIES = (1.0, 0.5), 8


@dataclass(frozen=True)
class Trial:
    """A strength that was tried, and the error on what was held out, over its noise: 1 if noise is all that is left."""

    sigma: float
    error: float


def split(mask: Tensor, *, keep: int = 0, part: float = PART, seed: int = 0) -> Tensor:
    """Draw the measured places that are held out, bool (H, W): whole lines where whole lines were measured.

    Parameters
    ----------
    mask : Tensor
        bool (H, W): where it was measured.
    keep : int
        side of the square in the middle, and number of the middle lines, of which nothing is held out.
    part : float
        the part of the other places or lines that is.
    seed : int
        of the drawing.

    Raises
    ------
    ValueError
        if less than ten places or lines could be held out from.
    """
    height, width = mask.shape
    lines, columns = mask.all(1), mask.all(0)
    generator = torch.Generator().manual_seed(seed)
    if not bool(mask.all()) and bool((mask.any(1) == lines).all()):
        return (_lines_drawn(lines, keep, part, generator)[:, None] & mask).contiguous()
    if not bool(mask.all()) and bool((mask.any(0) == columns).all()):
        return (_lines_drawn(columns, keep, part, generator) & mask).contiguous()
    free = mask.clone()
    top, left = height // 2 - keep // 2, width // 2 - keep // 2
    free[top : top + keep, left : left + keep] = False
    return drawn(free.flatten(), part, generator).reshape(mask.shape)


def _lines_drawn(lines: Tensor, keep: int, part: float, generator: torch.Generator) -> Tensor:
    free = lines.clone()
    first = len(lines) // 2 - keep // 2
    free[first : first + keep] = False
    return drawn(free, part, generator)


def drawn(free: Tensor, part: float, generator: torch.Generator) -> Tensor:
    """Some of the free places of a line, bool like it; with less than ten there is a ``ValueError``."""
    places = torch.nonzero(free).flatten()
    if len(places) < 10:
        raise ValueError(f"strength: got {len(places)} samples or lines that can be held out, expected 10; give sigma")
    chosen = places[torch.randperm(len(places), generator=generator)[: max(1, round(part * len(places)))]]
    held = torch.zeros_like(free)
    held[chosen] = True
    return held


def search(error: Callable[[float], float], first: float, bounds: tuple[float, float]) -> tuple[float, list[Trial]]:
    """Search the sigma of the least error: steps of an octave downhill from the first, then of half an octave.

    Parameters
    ----------
    error : callable
        the error of a sigma.
    first : float
        sigma to begin with.
    bounds : (float, float)
        the sigmas that may be tried.

    Returns
    -------
    (float, list of Trial)
        the best sigma, and everything that was tried.
    """
    tried: dict[int, Trial] = {}
    low, high = (math.log2(b / first) for b in bounds)

    def value(place: int) -> float:
        """Of first times 2 to the power of place half octaves."""
        if not low <= place / 2 <= high or (place not in tried and len(tried) >= _TRIES):
            return math.inf
        if place not in tried:
            sigma = first * 2 ** (place / 2)
            tried[place] = Trial(sigma, error(sigma))
        return tried[place].error

    best = 0
    value(best)
    for octaves in _STEPS:
        step = round(2 * octaves)
        while True:
            better = next((p for p in (best + step, best - step) if value(p) < value(best)), best)
            if better == best:
                break
            best = better
    return tried[best].sigma, list(tried.values())
