r"""Counts, as of photons, denoised where their noise is even.

The generalized Anscombe transform makes the noise of counts white, and the exact unbiased inverse brings the denoised
picture back. Where counts are few, this is repeated: the estimate x' is mixed with the counts,
:math:`\bar y = \lambda y + (1 - \lambda) x'`, whose noise is smaller and more easily made even, and denoised again
(Azzari, Foi 2016, IEEE Signal Process. Lett. 23(8), 1086). Every problem is convex; the last one is certified.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.functionals.anscombe import stabilized, unstabilized, unstabilized_distance
from icgn.functionals.noise import Poisson, PoissonGaussian
from icgn.solvers import Solution

CountNoise = Poisson | PoissonGaussian
"""Noise of counts."""

ResultT = TypeVar("ResultT")

# Stabilized counts are divided by at least this, so that their noise is at most 50 of 255 levels.
_LEAST = 5.1
# Shares of the counts in what is denoised, one after the other, up to so many counts per pixel in the mean: measured
# on bundled photographs (docs/noise.md).
_SHARES = ((5.0, (1.0, 0.5, 0.35)), (15.0, (1.0, 0.65)), (float("inf"), (1.0,)))


@keyword_only
@dataclass(frozen=True, eq=False)
class Stabilized:
    r"""Counts whose noise is even.

    Attributes
    ----------
    z : Tensor
        f(u) / scale (B, C, H, W), in about [0, 1], f the generalized Anscombe transform, :math:`u = (y - o)/\lambda^2`
        of counts without their offset.
    scale : float
        the noise of z is white, of standard deviation 1 / scale.
    noise : Poisson or PoissonGaussian
        what u is.
    measured : Poisson or PoissonGaussian
        what y is.
    share : float
        :math:`\lambda`, the share of the counts in what is denoised.
    """

    z: Tensor
    scale: float
    noise: CountNoise
    measured: CountNoise
    share: float = 1.0

    @property
    def sigma(self) -> float:
        """The level of the noise of z."""
        return 1 / self.scale

    def limits(self, given: tuple[float, float] | str | None) -> tuple[float, float]:
        """The range of z: [0, 1], or that of a range of measurements."""
        if given is None or isinstance(given, str):
            return 0.0, 1.0
        numbers = self.measured.mean(torch.tensor(given, dtype=torch.float64)) / self.share**2
        low, high = (stabilized(numbers, self.noise) / self.scale).tolist()
        return low, high

    def back(self, solution: Solution) -> Solution:
        """The solution in the unit of the picture: the exact unbiased inverse of its pictures.

        Its distance is that to the inverse of the minimizer; objective and gap stay those of the problem of z.

        Parameters
        ----------
        solution : Solution
            of denoising z.
        """
        z, unit = self.scale * solution.x, self.share**2
        distance = unstabilized_distance(z, self.scale * solution.certificate.rms_distance, self.noise)
        x = unit * unstabilized(z.double(), self.noise)
        rounded = x.to(solution.x)
        rounding = (rounded - x).square().flatten(1).mean(1).sqrt()
        certificate = replace(solution.certificate, rms_distance=unit * distance + rounding)
        return replace(solution, x=rounded, certificate=certificate)


def stabilize(y: Tensor, noise: CountNoise, *, estimate: Tensor | None = None, share: float = 1.0) -> Stabilized:
    r"""Make the noise of counts even, or that of counts mixed with an estimate of the picture.

    Parameters
    ----------
    y : Tensor
        counts (B, C, H, W), in the unit of the noise.
    noise : Poisson or PoissonGaussian
        gain, read-out and offset.
    estimate : Tensor, optional
        x', of the shape of y, in the unit of the picture.
    share : float
        :math:`\lambda` of :math:`\lambda y + (1 - \lambda) x'`, 1 without an estimate.

    Raises
    ------
    TypeError
        if the noise is none of counts.
    ValueError
        for negative counts of a Poisson noise.
    """
    if not isinstance(noise, Poisson | PoissonGaussian):
        raise TypeError(f"noise: got {type(noise).__name__}, expected Poisson or PoissonGaussian")
    if isinstance(noise, Poisson) and bool((y < 0).any()):
        raise ValueError(f"y: got negative values down to {float(y.min()):.4g}, expected counts >= 0 for Poisson")
    u, own = _without_offset(y, noise)
    if estimate is not None:
        # The mixture has the mean of u over the square of the share, and the variance that counts of this mean have.
        u = (share * u + (1 - share) * estimate) / share**2
        own = PoissonGaussian(own.gain, own.read / share) if isinstance(own, PoissonGaussian) else own
    z = stabilized(u, own)
    scale = max(float(z.nan_to_num(0.0, 0.0, 0.0).max()), _LEAST)
    return Stabilized(z=z / scale, scale=scale, noise=own, measured=noise, share=share)


def denoise_counts(
    y: Tensor,
    noise: CountNoise,
    denoise: Callable[[Stabilized], ResultT],
    solution_of: Callable[[ResultT], Solution],
) -> tuple[ResultT, Solution]:
    """Denoise counts, where they are few again and again; gives the last result, and its solution brought back.

    Parameters
    ----------
    y : Tensor
        counts (B, C, H, W), in the unit of the noise.
    noise : Poisson or PoissonGaussian
        what they are.
    denoise : callable
        denoises stabilized counts.
    solution_of : callable
        the solution of what it returns, whose pictures may be the channels of y one by one.
    """
    estimate = None
    for share in _shares(y, noise):
        counts = stabilize(y, noise, estimate=estimate, share=share)
        result = denoise(counts)
        solution = counts.back(solution_of(result))
        estimate = solution.x.reshape(y.shape).to(y)
    return result, solution


def with_offset(solution: Solution, noise: CountNoise) -> Solution:
    """The solution in the numbers of the measurement: an empty pixel has the offset of the noise there.

    Parameters
    ----------
    solution : Solution
        of :func:`denoise_counts`.
    noise : Poisson or PoissonGaussian
        what the counts are.
    """
    if isinstance(noise, PoissonGaussian) and noise.offset:
        return replace(solution, x=solution.x + noise.offset)
    return solution


def _without_offset(y: Tensor, noise: CountNoise) -> tuple[Tensor, CountNoise]:
    """Measurements whose mean is the picture, and their noise."""
    own = PoissonGaussian(noise.gain, noise.read) if isinstance(noise, PoissonGaussian) else Poisson(noise.gain)
    return noise.mean(y), own


def _shares(y: Tensor, noise: CountNoise) -> tuple[float, ...]:
    """The shares by the mean number of counts, read-out noise counting as such."""
    u, own = _without_offset(y.detach().double(), noise)
    mean = float(u.nan_to_num(0.0, 0.0, 0.0).mean()) / own.gain
    read = own.read if isinstance(own, PoissonGaussian) else 0.0
    return next(shares for most, shares in _SHARES if mean + (read / own.gain) ** 2 <= most)
