"""Adversarial regularization: low on photographs, high on naive reconstructions of them."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from icgn.compat import keyword_only
from icgn.regularizers.base import ConvexRegularizer
from icgn.training.losses.loss import Batch, Loss, full_precision
from icgn.training.ranges import POSITIVE, Range, one_of


@keyword_only
@dataclass(frozen=True)
class Adversarial(Loss, name="adversarial"):
    r"""The loss of adversarial regularization (Lunz, Oktem, Schonlieb 2018, arXiv:1805.11572).

    .. math::

        \frac{R(x) - R(\tilde x)}{\sigma \sqrt n} + \mu\, \big(|\nabla R(\hat x)| - 1\big)_+^2, \qquad
        \hat x = x + t (\tilde x - x), \quad t \sim U(0, 1),

    with clean patches x and corrupted ones :math:`\tilde x`, reconstructed from simulated measurements; for convex R
    that of Mukherjee et al. 2020 (arXiv:2008.02839). There the difference is not divided by the size of the noise,
    which at one noise level is another :math:`\mu`; here all levels of a range count alike. R enters only through its
    potential and its gradient, which a gradient network has in closed form: one backward pass. Where the linear part
    of R is known, :math:`\hat x` costs no convolution of its own, since responses are affine.

    Attributes
    ----------
    penalty : float
        :math:`\mu`, positive.
    corruption : str
        ``pseudo-inverse`` or ``adjoint`` of the measurements.
    """

    fits_weight: ClassVar[bool] = True
    ranges: ClassVar[dict[str, Range]] = {"penalty": POSITIVE, "corruption": one_of("pseudo-inverse", "adjoint")}
    _: KW_ONLY
    penalty: float = 10.0
    corruption: str = "pseudo-inverse"

    def values(self, regularizer: ConvexRegularizer, batch: Batch) -> Tensor:
        clean, corrupted = batch.clean, self._corrupted(batch)
        functional = regularizer.at(batch.sigma)
        u, v = functional.linear(clean), functional.linear(corrupted)
        between = functional.between(u, v, batch.position)
        slope = functional.grad_from(between, clean.shape).flatten(1).to(clean.dtype).norm(dim=1)
        fall = (functional.potential(u) - functional.potential(v)).to(clean.dtype)
        size = batch.sigma * clean[0].numel() ** 0.5
        return fall / size + self.penalty * F.relu(slope - 1).square()

    @torch.no_grad()
    def _corrupted(self, batch: Batch) -> Tensor:
        physics = batch.physics
        with full_precision(batch.y):
            return physics.A_dagger(batch.y) if self.corruption == "pseudo-inverse" else physics.A_adjoint(batch.y)
