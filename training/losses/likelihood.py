"""A start for conditional networks: masks by the likelihood of the clean responses."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.functionals.functional import per_image
from icgn.regularizers.base import ConvexRegularizer
from icgn.regularizers.conditional import ConditionalICGN
from icgn.solvers import Problem
from icgn.solvers.conditioning import conditioned
from icgn.training.losses.loss import Batch, Loss, full_precision
from icgn.training.ranges import COUNT, POSITIVE, Range, RecipeError

# Grid on which the spectrum of a filter is summed, and the falloff of the power spectrum of photographs.
_GRID, _FALLOFF = 64, 2.4


@keyword_only
@dataclass(frozen=True)
class MaskLikelihood(Loss, name="mask-likelihood"):
    r"""The negative log-likelihood of the clean responses, whose scales are the inverse masks.

    .. math::

        \frac1{K n} \sum_{k, p} c_{kp} \, |w_k \star x|_p / \beta_k - \log c_{kp}, \qquad
        \beta_k = \text{contrast} \Big(\sum_\omega |\hat w_k(\omega)|^2 |\omega|^{-2.4}\Big)^{1/2},

    the responses of clean pictures x being independent Laplace variables of scale :math:`\beta_k / c_{kp}`, and
    :math:`\beta_k` their usual size in photographs. No problem is solved but the first, loosely: several times cheaper
    than the bilevel loss, and every mask has its own target. The masks that denoise best are others, but near: the
    bilevel loss begins there.

    Attributes
    ----------
    contrast : float
        amplitude of the spectrum of the photographs.
    floor : float
        responses below this part of sigma count as that large.
    max_iter : int
        iterations of the first solution at most.

    Raises
    ------
    RecipeError
        if a value is out of range, and at the first step if the model is not a ConditionalICGN.
    """

    trains_conditional: ClassVar[bool] = True
    ranges: ClassVar[dict[str, Range]] = {"contrast": POSITIVE, "floor": POSITIVE, "max_iter": COUNT}
    _: KW_ONLY
    contrast: float = 0.0074
    floor: float = 0.1
    max_iter: int = 20

    def values(self, regularizer: ConvexRegularizer, batch: Batch) -> Tensor:
        if not isinstance(regularizer, ConditionalICGN):
            raise RecipeError(f"loss: mask-likelihood trains a ConditionalICGN, got {type(regularizer).__name__}")
        with full_precision(batch.y):
            problem = Problem(batch.y, batch.physics, regularizer, batch.sigma)
            mask = conditioned(problem, max_iter=self.max_iter, differentiable=True).problem.condition
            assert isinstance(mask, Tensor)
            with torch.no_grad():
                size = self.contrast * usual_size(regularizer.ridge.bank.weight)
                r = regularizer.ridge.bank(batch.clean)
                r = torch.hypot(r, per_image(self.floor * batch.sigma, r)) / size[:, None, None]
            return (mask * r - mask.log()).mean((1, 2, 3))


def usual_size(weight: Tensor) -> Tensor:
    r"""The root :math:`(\sum_\omega |\hat w(\omega)|^2 |\omega|^{-2.4})^{1/2}` for filters (K, C, d, d), shape (K,)."""
    frequency = torch.fft.fftfreq(_GRID, device=weight.device)
    power = torch.cartesian_prod(frequency, frequency).square().sum(1).view(_GRID, _GRID)
    power[0, 0] = torch.inf
    spectrum = torch.fft.fft2(weight.float(), s=(_GRID, _GRID)).abs().square().sum(1)
    return (spectrum / power ** (_FALLOFF / 2)).mean((1, 2)).sqrt().to(weight)
