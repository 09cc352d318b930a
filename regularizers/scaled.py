"""A regularizer for pictures of another range of intensities than [0, 1]."""

from __future__ import annotations

import math

from torch import Tensor

from icgn.functionals.scaled import scaled
from icgn.functionals.sums import SumFunctional
from icgn.regularizers.base import ConvexRegularizer
from icgn.regularizers.pullback import WrappedRegularizer


class ScaledRegularizer(WrappedRegularizer):
    r"""A regularizer made for [0, 1], for pictures with intensities in [low, high] of any unit.

    .. math::

        R_s(x; \sigma) = s^2\, R\big((x - b) / s;\ \sigma / s\big), \qquad s = \text{high} - \text{low},\quad b =
        \text{low},

    with x and sigma in the unit of the pictures. It is convex with the constants of R, and exactly equivariant: for
    :math:`y = s z + b`, the minimizer of :math:`\tfrac12 |x - y|^2 + R_s(x; \sigma)` is s times that of
    :math:`\tfrac12 |x - z|^2 + R(x; \sigma / s)`, plus b. Distances to minimizers multiply by s, objectives by
    :math:`s^2`.

    Parameters
    ----------
    regularizer : ConvexRegularizer
        R, of intensities in [0, 1].
    low, high : float
        the intensities of the pictures that are 0 and 1 to R, low < high.

    Raises
    ------
    TypeError
        if `regularizer` is none.
    ValueError
        unless the range is finite and not empty.
    """

    def __init__(self, regularizer: ConvexRegularizer, low: float, high: float) -> None:
        super().__init__(regularizer)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"range: got ({low:g}, {high:g}), expected two finite numbers, the lower first")
        self.low, self.scale = float(low), float(high) - float(low)
        self.channels, self.min_size = regularizer.channels, regularizer.min_size
        reach = regularizer.sigma_range
        self.sigma_range = None if reach is None else (self.scale * reach[0], self.scale * reach[1])

    def check_image(self, x: Tensor) -> None:
        self.regularizer.check_image(x)

    def pictures(self, x: Tensor) -> Tensor:
        return (x - self.low) / self.scale

    def differences(self, d: Tensor) -> Tensor:
        return d / self.scale

    def levels(self, sigma: float | Tensor | None, channels: int) -> float | Tensor | None:
        return None if sigma is None else sigma / self.scale

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> SumFunctional:
        """The functional at sigma, in the unit of the pictures; `condition` goes to the inner regularizer."""
        return scaled(self.regularizer.at(self.levels(sigma, 0), condition), self.low, self.scale)
