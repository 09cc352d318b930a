"""Losses on what a few gradients do to a noisy picture."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from torch import Tensor

from icgn.compat import keyword_only
from icgn.regularizers.base import ConvexRegularizer
from icgn.solvers import Problem
from icgn.solvers.unrolled import unroll
from icgn.training.losses.loss import Batch, Loss, full_precision, weighted_error
from icgn.training.ranges import COUNT, Range


@keyword_only
@dataclass(frozen=True)
class GradientSteps(Loss, name="gradient-steps"):
    r"""Error :math:`w(\sigma) |x_t - x|^2 / n` after t gradient steps on the objective from its start.

    The t-step denoiser of Goujon et al. 2022 (arXiv:2211.12461), with exact steps along the gradient
    (:func:`icgn.solvers.unrolled.unroll`) in place of a global bound.

    Attributes
    ----------
    steps : int
        t.
    """

    ranges: ClassVar[dict[str, Range]] = {"steps": COUNT}
    _: KW_ONLY
    steps: int = 10

    def values(self, regularizer: ConvexRegularizer, batch: Batch) -> Tensor:
        with full_precision(batch.y):
            problem = Problem(batch.y, batch.physics, regularizer, batch.sigma)
            return weighted_error(unroll(problem.build_objective(), problem.start(), self.steps), batch)


@dataclass(frozen=True)
class ScoreMatching(Loss, name="score-matching"):
    r"""Denoising score matching: :math:`w(\sigma) |y - \nabla R(y; \sigma) - x|^2 / n`.

    With :math:`-\nabla R / \sigma^2` for the score of the density of noisy pictures, this is the objective of Vincent
    2011 (Neural Computation 23(7)) times :math:`\sigma^4`; by Tweedie's formula its minimizer denoises in one
    gradient. As a regularizer it lacks the right weight, which is fitted afterwards. For denoising only: with another
    physics the pseudo-inverse of the measurements takes the place of y, where noise is no longer white.
    """

    fits_weight: ClassVar[bool] = True

    def values(self, regularizer: ConvexRegularizer, batch: Batch) -> Tensor:
        with full_precision(batch.y):
            y = batch.physics.A_dagger(batch.y)
        return weighted_error(y - regularizer.at(batch.sigma).grad(y).to(y.dtype), batch)
