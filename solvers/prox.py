"""The proximal map of a functional, to certified accuracy."""

from __future__ import annotations

import deepinv
import torch
from torch import Tensor

from icgn.functionals.data import GaussianData
from icgn.functionals.functional import ConvexFunctional
from icgn.solvers.objective import Objective
from icgn.solvers.run import minimize
from icgn.solvers.solution import Status
from icgn.solvers.tolerance import Tolerance


@torch.no_grad()
def prox(functional: ConvexFunctional, x: Tensor, gamma: float | Tensor, tol: float, max_iter: int) -> Tensor:
    r"""The minimizer of :math:`\tfrac12 |z - x|^2 + \gamma g(z)`, within an RMS distance `tol` that is certified.

    Parameters
    ----------
    functional : ConvexFunctional
        g.
    x : Tensor
        images (B, C, H, W), or vectors (B, n).
    gamma : float or Tensor
        nonnegative, one or one per image.
    tol : float
        RMS distance, in the unit of x.
    max_iter : int
        iterations allowed.

    Raises
    ------
    ValueError
        if gamma is negative or not finite, not one or one per image, or if x is not finite.
    RuntimeError
        if the tolerance is not reached, with the distance that was.
    """
    weight = torch.as_tensor(gamma, dtype=torch.float64, device=x.device).reshape(-1).clone()
    if len(weight) not in (1, len(x)) or not bool((torch.isfinite(weight) & (weight >= 0)).all()):
        raise ValueError(f"gamma: got {weight.tolist()}, expected finite numbers >= 0, one or one per image")
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"x: got {int((~torch.isfinite(x)).sum())} NaN or infinite values, expected finite images")
    identity = GaussianData(x, deepinv.physics.Denoising(), torch.ones(2, dtype=torch.float64))
    one = torch.ones(len(x), dtype=torch.float64, device=x.device)
    objective = Objective.of(identity, functional.blockwise(x.shape), one, weight.expand(len(x)), None)
    # The gap does not count: the objective is strongly convex.
    places = torch.arange(len(x), device=x.device)
    found = minimize("prox", objective, "auto", x, Tolerance(tol, 1e-3), max_iter, places)
    if not all(status is Status.CONVERGED for status in found.status):
        worst = float(found.certificate.rms_distance.max())
        reasons = ", ".join(sorted({s.name for s in found.status}))
        raise RuntimeError(
            f"prox: certified RMS distance {worst:.2e} after {max_iter} iterations, tol {tol} ({reasons})"
        )
    return found.x
