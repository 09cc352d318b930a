"""What draws batches of samples, and their covariance."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from icgn.transport.vectors import check_vectors

Sampler = Callable[[int], Tensor]
"""Draws n fresh samples, (n, d)."""


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
        if it is neither callable nor samples, finite vectors (n, d).
    """
    if isinstance(source, Tensor):
        rows = check_vectors(source, name=name, least=2)
        return lambda n: rows[torch.randint(len(rows), (n,), generator=generator).to(rows.device)]
    if not callable(source):
        raise TypeError(f"{name}: got {type(source).__name__}, expected a tensor (n, d) or a function n -> (n, d)")
    return source


def covariance(x: Tensor, name: str = "x") -> Tensor:
    """The covariance matrix (n, n) of points x (B, n), in float64.

    Raises
    ------
    ValueError
        if it is singular: coordinates that are constant or depend on each other have no density.
    """
    c = torch.atleast_2d(torch.cov(x.detach().double().T))
    if len(x) <= x.shape[1]:
        raise ValueError(f"{name}: got {len(x)} points, expected more than their dimension {x.shape[1]}")
    # Judged free of units: a standard deviation a millionth of another one's is not singular.
    scale = c.diagonal().sqrt()
    flat = (scale == 0).nonzero().flatten().tolist()
    least = float(torch.linalg.eigvalsh(c / scale.outer(scale))[0]) if not flat else 0.0
    if flat or least < 1e-9:
        what = f"coordinates {flat[:5]} are constant" if flat else f"least eigenvalue of the correlations {least:.1e}"
        raise ValueError(f"{name}: got a singular covariance ({what}), expected points that fill the space")
    return c
