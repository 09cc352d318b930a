"""Counts, as of photons, denoised where their noise is even."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.functionals.anscombe import stabilized, unstabilized, unstabilized_distance
from icgn.functionals.noise import Poisson, PoissonGaussian
from icgn.solvers import Solution

CountNoise = Poisson | PoissonGaussian
"""Noise of counts."""

# Stabilized counts are divided by at least this, so that their noise is at most 50 of 255 levels.
_LEAST = 5.1


@keyword_only
@dataclass(frozen=True, eq=False)
class Stabilized:
    """Counts whose noise is even.

    Attributes
    ----------
    z : Tensor
        f(y) / scale (B, C, H, W), in about [0, 1], f the generalized Anscombe transform.
    scale : float
        the noise of z is white, of standard deviation 1 / scale.
    noise : Poisson or PoissonGaussian
        what the counts are.
    """

    z: Tensor
    scale: float
    noise: CountNoise

    @property
    def sigma(self) -> float:
        """The level of the noise of z."""
        return 1 / self.scale

    def limits(self, given: tuple[float, float] | str | None) -> tuple[float, float]:
        """The range of z: [0, 1], or that of a range in the unit of the counts."""
        if given is None or isinstance(given, str):
            return 0.0, 1.0
        low, high = (stabilized(torch.tensor(given, dtype=torch.float64), self.noise) / self.scale).tolist()
        return low, high

    def back(self, solution: Solution) -> Solution:
        """The solution in the unit of the counts: the exact unbiased inverse of its pictures.

        Its distance is that to the inverse of the minimizer; objective and gap stay those of the problem of z.

        Parameters
        ----------
        solution : Solution
            of denoising z.
        """
        z = self.scale * solution.x
        distance = unstabilized_distance(z, self.scale * solution.certificate.rms_distance, self.noise)
        x = unstabilized(z.double(), self.noise)
        rounded = x.to(solution.x)
        rounding = (rounded - x).square().flatten(1).mean(1).sqrt()
        certificate = replace(solution.certificate, rms_distance=distance + rounding)
        return replace(solution, x=rounded, certificate=certificate)


def stabilize(y: Tensor, noise: CountNoise) -> Stabilized:
    """Make the noise of counts even.

    Parameters
    ----------
    y : Tensor
        counts (B, C, H, W), in the unit of the noise.
    noise : Poisson or PoissonGaussian
        gain, read-out and offset.

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
    z = stabilized(y, noise)
    scale = max(float(z.nan_to_num(0.0, 0.0, 0.0).max()), _LEAST)
    return Stabilized(z=z / scale, scale=scale, noise=noise)
