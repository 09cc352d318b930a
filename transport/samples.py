"""Checks of samples, and what draws batches of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Sampler = Callable[[int], Tensor]
"""Draws n fresh samples, (n, d)."""


def check_samples(name: str, samples: Tensor, dim: int | None = None, least: int = 1) -> Tensor:
    """Return `samples`, or raise unless they are at least `least` finite rows (n, d), with d = `dim` where given.

    Raises
    ------
    TypeError
        unless they are a floating-point tensor.
    ValueError
        for another shape, too few rows, or rows with NaN or infinite numbers; all messages begin with `name`.
    """
    if not isinstance(samples, Tensor) or not samples.is_floating_point():
        given = samples.dtype if isinstance(samples, Tensor) else type(samples).__name__
        raise TypeError(f"{name}: got {given}, expected a floating-point tensor (n, d)")
    columns = "d" if dim is None else dim
    if samples.ndim != 2 or samples.shape[1] < 1 or (dim is not None and samples.shape[1] != dim):
        raise ValueError(f"{name}: got shape {tuple(samples.shape)}, expected (n, {columns})")
    if len(samples) < least:
        raise ValueError(f"{name}: got {len(samples)} samples, expected at least {least}")
    finite = torch.isfinite(samples).all(1)
    if not bool(finite.all()):
        rows = (~finite).nonzero().flatten().tolist()
        raise ValueError(f"{name}: got nan or infinite numbers in {len(rows)} rows, first {rows[:5]}, expected none")
    return samples


def make_sampler(name: str, source: Sampler | Tensor, generator: torch.Generator | None) -> Sampler:
    """A sampler of `source`: itself, or draws with replacement from the rows of a tensor (n, d).

    Parameters
    ----------
    name : str
        begins the messages of errors.
    source : Sampler or Tensor
        what to draw from.
    generator : torch.Generator, optional
        of the draws from a tensor, on the CPU; torch's default one if None.

    Raises
    ------
    TypeError, ValueError
        if it is neither callable nor samples; see :func:`check_samples`.
    """
    if isinstance(source, Tensor):
        rows = check_samples(name, source, least=2)
        return lambda n: rows[torch.randint(len(rows), (n,), generator=generator).to(rows.device)]
    if not callable(source):
        raise TypeError(f"{name}: got {type(source).__name__}, expected a tensor (n, d) or a function n -> (n, d)")
    return source
