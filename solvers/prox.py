"""The proximal map of a functional, to certified accuracy."""

from __future__ import annotations

import torch
from torch import Tensor

from icgn.functionals.functional import ConvexFunctional


@torch.no_grad()
def prox(functional: ConvexFunctional, x: Tensor, gamma: float | Tensor, tol: float, max_iter: int) -> Tensor:
    r"""The minimizer of :math:`\tfrac12 |z - x|^2 + \gamma g(z)`, within an RMS distance `tol` that is certified.

    Raises
    ------
    ValueError
        if gamma is negative or not finite.
    RuntimeError
        if the tolerance is not reached, with the distance that was.
    """
    import deepinv

    from icgn.solvers.problem import Problem
    from icgn.solvers.solve import solve

    problem = Problem(x, deepinv.physics.Denoising(), _Bound(functional), sigma=1.0, weight=gamma)
    solution = solve(problem, tol=tol, max_iter=max_iter)
    if not solution.converged:
        worst = float(solution.certificate.rms_distance.max())
        reasons = ", ".join(sorted({s.name for s in solution.status}))
        raise RuntimeError(
            f"prox: certified RMS distance {worst:.2e} after {max_iter} iterations, tol {tol} ({reasons})"
        )
    return solution.x


class _Bound:
    """A functional posing as a regularizer that ignores sigma."""

    def __init__(self, functional: ConvexFunctional) -> None:
        self.functional = functional

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> ConvexFunctional:
        return self.functional

    def check_image(self, x: Tensor) -> None:
        """The regularizer has checked already."""
