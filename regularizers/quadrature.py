r"""Quadrature rules on [0, 1] for the integral that defines an input convex gradient network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

Rule = tuple[tuple[float, ...], tuple[float, ...]]
"""Nodes in [0, 1] and their weights, which sum to 1."""


@dataclass(frozen=True)
class Quadrature(ABC):
    r"""A rule :math:`\int_0^1 f(s)\,ds \approx \sum_i w_i f(s_i)` with n nodes and nonnegative weights.

    A valid module stays conservative with any rule; monotone it is only when the nodes resolve its activations (see
    :class:`~icgn.regularizers.icgn.ICGN`).

    Parameters
    ----------
    n : int
        number of nodes.

    Raises
    ------
    ValueError
        if n is not an integer, is too small for the rule, or (Simpson) is even.
    """

    n: int
    least: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or isinstance(self.n, bool) or self.n < self.least:
            raise ValueError(f"n: got {self.n!r}, expected an integer >= {self.least} for {type(self).__name__}")

    @abstractmethod
    def rule(self, random: bool) -> Rule:
        """Nodes and weights; `random` (training mode) matters to :class:`MonteCarlo` alone."""


class GaussLegendre(Quadrature):
    """Gauss-Legendre nodes: exact for polynomials of degree 2 n - 1, the rule of choice for a smooth module."""

    def rule(self, random: bool) -> Rule:
        """Nodes are inside the interval, symmetric about 1/2."""
        t, w = np.polynomial.legendre.leggauss(self.n)
        return tuple(((t + 1) / 2).tolist()), tuple((w / 2).tolist())


class Trapezoid(Quadrature):
    """Equally spaced nodes with both ends, n >= 2: exact for affine functions, error O(1 / n^2)."""

    least = 2

    def rule(self, random: bool) -> Rule:
        """Return the rule; the two ends count half."""
        inner = 1 / (self.n - 1)
        weights = [inner / 2, *[inner] * (self.n - 2), inner / 2]
        return tuple(np.linspace(0, 1, self.n).tolist()), tuple(weights)


class Simpson(Quadrature):
    """Composite Simpson rule on equally spaced nodes, n >= 3 and odd: exact for cubics, error O(1 / n^4)."""

    least = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n % 2 == 0:
            raise ValueError(f"n: got {self.n}, expected an odd number of nodes for Simpson")

    def rule(self, random: bool) -> Rule:
        """Weights 1, 4, 2, 4, ..., 4, 1, normalised."""
        weights = np.ones(self.n)
        weights[1:-1:2], weights[2:-1:2] = 4, 2
        return tuple(np.linspace(0, 1, self.n).tolist()), tuple((weights / weights.sum()).tolist())


class MonteCarlo(Quadrature):
    """Independent uniform nodes in training, Gauss-Legendre nodes of the same number in evaluation.

    With fixed nodes in training a module can learn to avoid them: what it is fitted to is then not its integral.
    The nodes come from torch's global generator (``torch.manual_seed``).
    """

    def rule(self, random: bool) -> Rule:
        """Drawn anew at each call when `random`."""
        if not random:
            return GaussLegendre(self.n).rule(random=False)
        nodes = torch.rand(self.n, dtype=torch.float64)
        return tuple(nodes.tolist()), (1 / self.n,) * self.n
