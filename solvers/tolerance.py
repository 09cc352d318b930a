"""What counts as converged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from icgn.functionals.physics import is_identity
from icgn.solvers.problem import Problem

# The part of sigma that nobody sees, and the distance that a precision reaches, as a multiple of its rounding of y.
_PART, _ROUNDINGS = 1 / 250, 8.0
# The part of sigma up to which the rounding of a few huge values counts.
_COARSEST = 1 / 10


@dataclass(frozen=True, eq=False)
class Tolerance:
    """What counts as converged.

    Attributes
    ----------
    distance : float or Tensor
        RMS distance to the minimizer, in intensities, where the modulus is at least 0.01, for all images or (B,).
    gap : float
        relative objective gap, elsewhere.
    """

    distance: float | Tensor
    gap: float

    def distances(self, batch: int, device: torch.device) -> Tensor:
        """The distance of each image of a batch, float64 (B,)."""
        return torch.as_tensor(self.distance, dtype=torch.float64, device=device).expand(batch)


def invisible_distance(problem: Problem) -> Tensor:
    r"""The RMS distance to the minimizer that is a part of the noise, :math:`\sigma / 250`, float64 (B,).

    It changes the error of a denoised picture by less than 0.005 dB (docs/decisions.md). In denoising it is not below
    what the precision of y allows: eight times the rounding of its median size, and of its root mean square as long as
    that is at most a tenth of sigma: the rounding of a few huge values, such as hot pixels, excuses no others.

    Parameters
    ----------
    problem : Problem
        of images in [0, 1] or in the unit of its regularizer.
    """
    y = problem.y
    sigma = torch.as_tensor(problem.sigma, dtype=torch.float64, device=y.device).reshape(-1).expand(len(y))
    part = (_PART * sigma).clamp_min(torch.finfo(torch.float64).tiny)
    if not is_identity(problem.physics):
        return part
    size = y.detach().nan_to_num(0.0, 0.0, 0.0).flatten(1).double().abs()
    rounding = _ROUNDINGS * torch.finfo(y.dtype).eps
    whole = torch.minimum(rounding * size.square().mean(1).sqrt(), _COARSEST * sigma)
    return torch.maximum(part, torch.maximum(rounding * size.median(1).values, whole))
