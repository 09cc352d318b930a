r"""Cells of a detector whose gains differ, which make rings: found together with the slice, in one convex problem.

The line integrals of cell j have an offset :math:`c_j` in all views, the logarithm of its gain. With independent
:math:`c_j` of mean 0 and deviation :math:`\tau_j`, and noise :math:`\ell_{vj}` of the rays, the least over all c of

.. math::

    \sum_{v, j} \frac{(A x + c - p)_{vj}^2}{2 \ell_{vj}^2} + \sum_j \frac{c_j^2}{2 \tau_j^2}
    = \sum_{v, j} \frac{(T (A x - p))_{vj}^2}{2 \ell_{vj}^2}

is a quadratic of x again: T subtracts from the views of each cell a part :math:`\beta_j = 1 - (1 + \tau_j^2
s_j)^{-1/2}` of their mean with the weights :math:`\ell_{vj}^{-2}`, whose sum is :math:`s_j`. It is the whitening of the
noise of rays and cells together. What is proved of x is proved for the minimum over both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from deepinv.physics import LinearPhysics
from scipy.signal import savgol_filter
from torch import Tensor

# Cells around that a parabola is fitted to.
_WINDOW = 7
# Median of the absolute value of a normal number of deviation 1 less the parabola of the seven around it.
_MEDIAN = 0.6745 * (2 / 3) ** 0.5
# Differences are gains where they are larger than noise by this factor: objects have some structure, too.
_SEEN = 2.0


@dataclass(frozen=True, eq=False)
class CellOffsets:
    """The offsets of cells given the slice, and the map T that is left of them.

    Attributes
    ----------
    weights : Tensor
        of the views in the mean of each cell, of sum 1, (V, N).
    known : Tensor
        the part of the mean residual that is the most likely offset, (N,).
    """

    weights: Tensor
    known: Tensor

    @classmethod
    def of(cls, levels: Tensor, gains: Tensor) -> CellOffsets:
        """Of the noise of rays (V, N), and the deviations of the offsets of cells (N,)."""
        precision = levels.double().square().reciprocal()
        total = precision.sum(0)
        odds = gains.double().square() * total
        return cls(precision / total, odds / (1 + odds))

    def offsets(self, residual: Tensor) -> Tensor:
        """The most likely offsets (N,), given measured less explained line integrals (V, N)."""
        return self.known * (self.weights * residual).sum(0)

    @property
    def part(self) -> Tensor:
        """The part of the mean that T subtracts, (N,)."""
        return 1 - (1 - self.known).sqrt()

    def apply(self, values: Tensor) -> Tensor:
        """T of (..., V, N)."""
        return values - self.part.to(values) * (self.weights.to(values) * values).sum(-2, keepdim=True)

    def adjoint(self, values: Tensor) -> Tensor:
        """Its transpose."""
        return values - self.weights.to(values) * (self.part.to(values) * values.sum(-2, keepdim=True))


class FreeCells(LinearPhysics):  # type: ignore[misc]
    """An operator of sinograms (..., N, V) whose cells have unknown offsets: T A.

    Parameters
    ----------
    physics : LinearPhysics
        A.
    cells : CellOffsets
        which T it is.
    """

    def __init__(self, physics: LinearPhysics, cells: CellOffsets) -> None:
        super().__init__()
        self.physics = physics
        self.register_buffer("weights", cells.weights)
        self.register_buffer("known", cells.known)

    @property
    def cells(self) -> CellOffsets:
        """Which T it is."""
        return CellOffsets(self.weights, self.known)

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:  # noqa: N802
        """T A x."""
        return self.cells.apply(self.physics.A(x).transpose(-2, -1)).transpose(-2, -1)

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:  # noqa: N802
        """The transpose."""
        return self.physics.A_adjoint(self.cells.adjoint(y.transpose(-2, -1)).transpose(-2, -1))


def cell_gains(integrals: Tensor, levels: Tensor) -> float:
    """How much the gains of the cells seem to differ, from a sinogram alone; 0 where noise explains the differences.

    The mean over the views, of an object that turns, changes slowly from cell to cell, but for edges around the axis,
    which are seen alike on both sides of it. What the cells differ from the parabola of the seven around them (Savitzky
    and Golay 1964), less the same of the cell on the other side, is by its median the deviation.

    Parameters
    ----------
    integrals, levels : Tensor
        line integrals and their noise, (V, N).

    Returns
    -------
    float
        deviation of the offsets of line integrals.
    """
    precision = levels.double().square().reciprocal()
    total = precision.sum(0)
    mean = (precision * integrals.double()).sum(0) / total
    window = min(_WINDOW, len(mean) - 1 + len(mean) % 2)
    away = mean - torch.from_numpy(savgol_filter(mean.numpy(), window, 2))
    variance = total.reciprocal()
    return _deviation((away - away.flip(0)).abs() / 2**0.5, ((variance + variance.flip(0)) / 2).sqrt())


def _deviation(away: Tensor, noise: Tensor) -> float:
    """The deviation t for which the median of away / sqrt(t^2 + noise^2) is that of normal numbers; 0 for noise."""
    if float((away / noise).median()) < _SEEN * _MEDIAN:
        return 0.0
    low, high = 0.0, float(away.max()) / _MEDIAN
    for _ in range(60):
        middle = (low + high) / 2
        wide = float((away / (middle**2 + noise.square()).sqrt()).median()) < _MEDIAN
        low, high = (low, middle) if wide else (middle, high)
    return high
