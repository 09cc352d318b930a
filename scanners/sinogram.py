r"""Sinograms: transmission counts or line integrals, with the noise of every ray.

A ray of line integral p and I_0 photons without an object is counted as Poisson of mean :math:`I_0 e^{-p}`. To second
order around an expected integral :math:`\bar p`, with :math:`\bar I = I_0 e^{-\bar p}`, its negative log-likelihood is

.. math::

    \tfrac{\bar I}{2} \big(p - \bar p - 1 + I / \bar I\big)^2 + \text{const},

a quadratic with the expected counts as weights (Sauer and Bouman 1993, IEEE Trans. Signal Process. 41(2),
doi:10.1109/78.193196). At :math:`\bar p = \log(I_0 / I)` the weights are the counts themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Fewer counts than this have no logarithm that is worth its weight.
_FEWEST = 0.5
# Photons of a ray without an object are at least so many; fewer were scaled, or are parts that were transmitted.
_OPEN = 10
# View sums of a scan differ little, sums over views a lot; both as relative deviations.
_EVEN, _UNEVEN = 0.1, 0.25


@dataclass(frozen=True, eq=False)
class Sinogram:
    """Line integrals, without a unit, and their noise.

    Attributes
    ----------
    integrals : Tensor
        float64 (V, N), views first.
    levels : Tensor
        standard deviation of each, positive, float64 (V, N).
    counts : Tensor or None
        the counts that they are of, and
    unattenuated : Tensor or None
        those without an object, that broadcast to them.
    words : str
        how the noise was found.
    """

    integrals: Tensor
    levels: Tensor
    counts: Tensor | None = None
    unattenuated: Tensor | None = None
    words: str = ""

    @classmethod
    def of_counts(cls, counts: Tensor, unattenuated: float | Tensor) -> Sinogram:
        """Transmission counts, expanded at their own logarithms.

        Parameters
        ----------
        counts : Tensor
            (V, N), not negative, not scaled.
        unattenuated : float or Tensor
            counts without an object, positive: one, one for each cell (N,), or (V, N).

        Raises
        ------
        ValueError
            for another shape, negative counts, NaN, cells that counted nothing in any view and views without counts,
            counts that were scaled, or are larger than those without an object, and a sinogram that looks transposed.
        """
        counts = _checked(counts, "counts")
        if bool((counts < 0).any()):
            bad = int((counts < 0).sum())
            raise ValueError(f"sinogram: got {bad} negative counts down to {float(counts.min()):.4g}, expected >= 0")
        open_ = torch.as_tensor(unattenuated, dtype=torch.float64)
        if not bool((open_ > 0).all()) or not bool(torch.isfinite(open_).all()):
            raise ValueError(
                "unattenuated: got counts that are not positive and finite, expected those without an object"
            )
        views, cells = counts.shape
        if tuple(open_.shape) not in ((), (1,), (cells,), (1, cells), (views, cells)):
            raise ValueError(
                f"unattenuated: got shape {tuple(open_.shape)}, expected one number, {cells} of cells, or"
                f" {tuple(counts.shape)}"
            )
        most, median = float(open_.median()), float(counts.median())
        if most < _OPEN or median < _FEWEST:
            raise ValueError(
                f"unattenuated: got {most:.3g} counts without an object and {median:.3g} in the median with it,"
                f" expected photons, at least {_OPEN}, not scaled; of transmitted parts T give line integrals -log(T)"
            )
        _check_views(counts, "counted nothing")
        dead = torch.nonzero(~(counts > 0).any(0)).flatten().tolist()
        if dead:
            raise ValueError(
                f"sinogram: cell {dead[0]} counted nothing in any view, expected counts ({len(dead)} cells)"
            )
        ratio = float((counts / open_).median())
        if ratio > 1.5:
            raise ValueError(
                f"unattenuated: half of the counts are over {ratio:.3g} times those without an object, expected fewer;"
                " is the number per cell and view, or are these line integrals?"
            )
        seen = counts.clamp_min(_FEWEST)
        made = cls(torch.log(open_ / seen), seen.rsqrt(), counts, open_.expand_as(counts), "of the counts")
        _check_turned(made.integrals)
        return made

    @classmethod
    def of_integrals(cls, integrals: Tensor, noise: float | Tensor) -> Sinogram:
        """Line integrals with noise of known deviation.

        Parameters
        ----------
        integrals : Tensor
            (V, N), without a unit: logarithms of unattenuated over transmitted.
        noise : float or Tensor
            its standard deviation, positive, one or (V, N).

        Raises
        ------
        ValueError
            for another shape, NaN, noise that is not positive, views of zeros, integrals that are negative in the mean,
            and a sinogram that looks transposed.
        """
        integrals = _checked(integrals, "line integrals")
        _check_views(integrals, "is 0")
        if float(integrals.mean()) < 0:
            raise ValueError(
                f"sinogram: got line integrals of {float(integrals.mean()):.3g} in the mean, expected attenuation,"
                " above 0: log(unattenuated / transmitted); change their sign"
            )
        levels = torch.as_tensor(noise, dtype=torch.float64)
        if not bool((levels > 0).all()) or not bool(torch.isfinite(levels).all()):
            raise ValueError(
                "noise: got a level that is not positive and finite, expected the deviation of line integrals"
            )
        _check_turned(integrals)
        return cls(integrals, levels.expand_as(integrals), words="given")

    def expanded(self, at: Tensor) -> Sinogram:
        """The quadratic approximation of the likelihood of the counts around other line integrals (V, N).

        Line integrals that were not measured as counts stay as they are.
        """
        if self.counts is None or self.unattenuated is None:
            return self
        expected = (self.unattenuated * (-at).exp()).clamp_min(_FEWEST)
        moved = torch.log(self.unattenuated / expected)
        integrals = moved + 1 - self.counts / expected
        return Sinogram(integrals, expected.rsqrt(), self.counts, self.unattenuated, "of the expected counts")

    def of_views(self, chosen: Tensor) -> Sinogram:
        """The same with some of its views, bool (V,)."""
        counts = None if self.counts is None else self.counts[chosen]
        open_ = None if self.unattenuated is None else self.unattenuated[chosen]
        return Sinogram(self.integrals[chosen], self.levels[chosen], counts, open_, self.words)


def rings(residual: Tensor, levels: Tensor) -> list[tuple[int, float]]:
    r"""Cells whose residuals have the same sign in too many views: they make rings.

    Parameters
    ----------
    residual : Tensor
        measured less explained line integrals, (V, N).
    levels : Tensor
        their noise, (V, N).

    Returns
    -------
    list of (int, float)
        cell and mean residual over noise, times :math:`\sqrt V`, of those beyond the deviation of all cells sixfold.
    """
    score = (residual / levels).mean(0) * math.sqrt(len(residual))
    spread = float(1.4826 * (score - score.median()).abs().median())
    limit = 6 * max(spread, 1.0)
    found = torch.nonzero((score - score.median()).abs() > limit).flatten().tolist()
    return [(int(i), float(score[i])) for i in found]


def _checked(values: Tensor, what: str) -> Tensor:
    if values.is_complex() or values.dtype is torch.bool:
        raise TypeError(f"sinogram: got {values.dtype}, expected real numbers")
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError(f"sinogram: got shape {tuple(values.shape)}, expected (views, cells)")
    values = values.double()
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise ValueError(f"sinogram: got {bad} NaN or infinite {what} of {values.numel()}, expected finite ones")
    return values


def _check_views(values: Tensor, what: str) -> None:
    empty = torch.nonzero(~(values != 0).any(1)).flatten().tolist()
    if empty and len(empty) < len(values):
        raise ValueError(
            f"sinogram: view {empty[0]} {what} in any cell, expected views that were measured ({len(empty)} views);"
            " leave them out, and their angles"
        )


def _check_turned(integrals: Tensor) -> None:
    """Every view of an object that is seen as a whole has the same sum; cells do not, unless views come last."""
    of_views, of_cells = integrals.sum(1), integrals.sum(0)
    views, cells = (float(s.std() / s.mean().abs().clamp_min(1e-300)) for s in (of_views, of_cells))
    if views > _UNEVEN and cells < _EVEN and views > 4 * cells:
        raise ValueError(
            f"sinogram: got shape {tuple(integrals.shape)}, expected (views, cells); its columns have equal sums"
            f" ({100 * cells:.1g} %) and its rows have not ({100 * views:.2g} %), as of one that is transposed"
        )
