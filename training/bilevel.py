"""The bilevel loss."""

from __future__ import annotations

import deepinv
from torch import Tensor

from icgn.regularizers.base import ConvexRegularizer
from icgn.solvers import Problem, solve
from icgn.solvers.implicit import attach_gradient
from icgn.training.patches import Batch
from icgn.training.recipe import Bilevel


def bilevel_loss(regularizer: ConvexRegularizer, batch: Batch, loss: Bilevel) -> Tensor:
    r"""Mean over the patches of :math:`w(\sigma) |x^*(y) - x|^2 / n`, differentiated implicitly; a scalar.

    :math:`x^*(y)` minimizes the denoising objective. The weight :math:`w = 100\,(\sigma / 25)^{-1.27}`, sigma in gray
    levels, is the inverse of the error that convex regularizers reach at that level, so that all levels count alike
    (Kunisch and Pock 2013, SIAM J. Imaging Sci. 6(2), for the bilevel problem).
    """
    problem = Problem(batch.noisy, deepinv.physics.Denoising(), regularizer, batch.sigma)
    solution = solve(problem, tol=loss.tol, max_iter=loss.max_iter)
    x = attach_gradient(problem, solution.x, loss.cg_tol, loss.cg_iter)
    weight = 100 * (batch.sigma * 255 / 25).clamp_min(0.04) ** -1.27
    return ((x - batch.clean).square().mean((1, 2, 3)) * weight).mean()
