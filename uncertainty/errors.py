r"""How large the error of a denoised picture is, pixel by pixel: a small regression, and factors that are calibrated.

The scale s of the error at a pixel is log-linear in features of the picture x and the measurement y,

.. math::

    \log \frac{s}{\sigma} = a_0 + \sum_k a_k f_k\!\left(\frac{x}{\sigma}, \frac{y}{\sigma}\right) + b \log \sigma,

the features being logarithms of local deviations of x, of its Laplacian, and of y - x, in windows of several sizes. A
factor q for each level of noise makes of s the half width of an interval, so that on the pictures of the calibration
a part of all pixels, 0.9, had a smaller error (split conformal prediction; Angelopoulos, Bates 2021, arXiv:2107.07511).
The pictures of the fit and those of the calibration are different ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

_WINDOWS, _RESIDUAL, _DETAIL = (3, 7, 15), (5, 15), (3, 9)
# Variances have this added, in units of the noise.
_FLOOR = 1e-2
# Levels are compared with this one, 25 of 255.
_MIDDLE = 25 / 255
# Factors hold for levels this far beyond those of the calibration.
_BEYOND = 1.1
FEATURES = 2 + len(_WINDOWS) + len(_RESIDUAL) + len(_DETAIL)
"""How many coefficients there are: a constant, windows of the three kinds, and the level."""


@dataclass(frozen=True, kw_only=True)
class ErrorModel:
    """What the errors of a denoiser are like, with white noise at the level that it is asked to remove, and weight 1.

    Attributes
    ----------
    coefficients : tuple of float
        a constant, those of the features, and that of the level.
    levels : tuple of float
        levels of the calibration, ascending, in intensities.
    factors : mapping
        for each side of a block, a factor for each level.
    coverage : float
        the part of the pixels, or blocks, of the calibration that the intervals cover.
    pictures : int
        how many pictures it was calibrated on.

    Raises
    ------
    ValueError
        for numbers that do not fit one another.
    """

    coefficients: tuple[float, ...]
    levels: tuple[float, ...]
    factors: Mapping[int, tuple[float, ...]]
    coverage: float
    pictures: int

    def __post_init__(self) -> None:
        if len(self.coefficients) != FEATURES:
            raise ValueError(f"coefficients: got {len(self.coefficients)}, expected {FEATURES}")
        if not self.levels or any(len(f) != len(self.levels) for f in self.factors.values()):
            raise ValueError("factors: got another number of them than of levels, expected one for each level")

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> ErrorModel:
        """The one that the card of a model holds (:func:`icgn.regularizers.read_card`).

        Raises
        ------
        ValueError
            for a card that holds none.
        """
        found = card.get("errors")
        if found is None:
            raise ValueError(f"model: got {card.get('name')!r}, expected one whose errors are calibrated")
        return cls(
            coefficients=tuple(found["coefficients"]),
            levels=tuple(level / 255 for level in found["levels"]),
            factors={int(side): tuple(values) for side, values in found["factors"].items()},
            coverage=float(found["coverage"]),
            pictures=int(found["pictures"]),
        )

    @property
    def guaranteed(self) -> float:
        r"""The coverage that is guaranteed for a further picture in the mean: :math:`n c / (n + 1)`.

        If the pictures of the calibration and a further one are exchangeable, the expected part of its pixels that are
        not covered is at most :math:`(n (1 - c) + 1) / (n + 1)` for n pictures (conformal risk control; Angelopoulos,
        Bates, Fisch, Lei, Schuster 2022, arXiv:2208.02814).
        """
        return self.pictures * self.coverage / (self.pictures + 1)

    def half_widths(
        self, x: Tensor, y: Tensor, sigma: float, *, blocks: int = 1, range: tuple[float, float] = (0.0, 1.0)
    ) -> Tensor:
        """Half widths of the intervals of pixels, or of the means of blocks: (B, C, H, W) or (B, C, rows, columns).

        Parameters
        ----------
        x, y : Tensor
            denoised and noisy pictures (B, C, H, W), H and W at least 8.
        sigma : float
            the level of the noise, that was removed, in the unit of the pictures.
        blocks : int
            side of a block, one that was calibrated; those at the far borders may be smaller.
        range : (float, float)
            the intensities that were 0 and 1 to the regularizer.

        Raises
        ------
        ValueError
            for pictures of different or other shapes, a level or blocks that were not calibrated.
        """
        if x.ndim != 4 or x.shape != y.shape or min(x.shape[-2:]) < 8:
            raise ValueError(
                f"x, y: got shapes {tuple(x.shape)} and {tuple(y.shape)}, expected the same (B, C, H, W), 8 x 8 pixels"
                " or more"
            )
        level = sigma / (range[1] - range[0])
        factor = self._factor(level, blocks)
        scale = sigma * self.scales(x, y, sigma, level=level)
        if blocks > 1:
            scale = F.avg_pool2d(scale.square(), blocks, ceil_mode=True, count_include_pad=False).sqrt()
        return factor * scale

    def scales(self, x: Tensor, y: Tensor, sigma: float, *, level: float) -> Tensor:
        """The scales s / sigma at pixels, float64, before any factor.

        Parameters
        ----------
        x, y : Tensor
            as for :meth:`half_widths`.
        sigma : float
            level of the noise, in the unit of the pictures.
        level : float
            the same, in intensities.
        """
        weights = torch.tensor(self.coefficients, dtype=torch.float64, device=x.device)
        return (features(x, y, sigma, level=level) @ weights).exp()

    def _factor(self, level: float, blocks: int) -> float:
        if blocks not in self.factors:
            raise ValueError(f"blocks: got {blocks}, expected one of {sorted(self.factors)}, which are calibrated")
        low, high = self.levels[0] / _BEYOND, self.levels[-1] * _BEYOND
        if not low <= level <= high:
            raise ValueError(
                f"sigma: got {255 * level:.3g} gray levels, expected {255 * self.levels[0]:.3g} to"
                f" {255 * self.levels[-1]:.3g}, where the errors are calibrated"
            )
        return _interpolated(math.log(level), [math.log(v) for v in self.levels], self.factors[blocks])

    def text(self) -> str:
        """What half widths say, in words."""
        return (
            f"{self.coverage:.0%} of the errors were smaller on {self.pictures} photographs of the calibration; at"
            f" least {self.guaranteed:.1%} are in the mean over further pictures like those, with white noise of that"
            " level"
        )


def features(x: Tensor, y: Tensor, sigma: float, *, level: float) -> Tensor:
    """The features of all pixels, float64 (B, C, H, W, K): a constant first, the level last.

    Parameters
    ----------
    x, y : Tensor
        denoised and noisy pictures (B, C, H, W).
    sigma : float
        level of the noise, in the unit of the pictures.
    level : float
        the same, in intensities.
    """
    # Only differences count: without the mean nothing is lost to rounding.
    mean = x.double().mean((2, 3), keepdim=True)
    z, residual = (x.double() - mean) / sigma, (y.double() - x.double()) / sigma
    side = F.pad(z, (1, 1, 1, 1), mode="reflect")
    laplacian = 4 * z - side[..., 1:-1, :-2] - side[..., 1:-1, 2:] - side[..., :-2, 1:-1] - side[..., 2:, 1:-1]
    found = [torch.ones_like(z)]
    found += [_logarithm(_smoothed(z.square(), n) - _smoothed(z, n).square()) for n in _WINDOWS]
    found += [_logarithm(_smoothed(residual.square(), n)) for n in _RESIDUAL]
    found += [_logarithm(_smoothed(laplacian.square(), n)) for n in _DETAIL]
    found.append(torch.full_like(z, math.log(level / _MIDDLE)))
    return torch.stack(found, -1)


def _logarithm(variance: Tensor) -> Tensor:
    return (variance.clamp_min(0) + _FLOOR).log() / 2


def _smoothed(x: Tensor, side: int) -> Tensor:
    m = side // 2
    return F.avg_pool2d(F.pad(x, (m, m, m, m), mode="reflect"), side, stride=1)


def _interpolated(at: float, places: list[float], values: tuple[float, ...]) -> float:
    """The value of the lines through values at ascending places; the first and last one beyond."""
    for k in range(1, len(places)):
        if at <= places[k]:
            part = max(0.0, (at - places[k - 1]) / (places[k] - places[k - 1]))
            return values[k - 1] + part * (values[k] - values[k - 1])
    return values[-1]
