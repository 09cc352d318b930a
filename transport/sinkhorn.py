"""Maps fitted by a Sinkhorn divergence between pushed samples and samples of the target."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn

from icgn.compat import keyword_only
from icgn.transport.losses import Objective, TransportLoss
from icgn.transport.vectors import GradientNetwork


@keyword_only
@dataclass(frozen=True)
class Sinkhorn(TransportLoss):
    r"""Sinkhorn divergence of the pushed measure :math:`N_\# \mu` to :math:`\nu`, estimated without bias.

    With the entropic transport cost :math:`W_\varepsilon` for :math:`|x - y|^2 / 2` between batches,

    .. math::

        S = \mathbb E\, W_\varepsilon(N(X), Y) - \tfrac12 \mathbb E\, W_\varepsilon(N(X), N(X'))
        - \tfrac12 \mathbb E\, W_\varepsilon(Y, Y'),

    X, X' and Y, Y' *independent* halves of a batch. The usual divergence of batches (Genevay, Peyre, Cuturi 2018,
    arXiv:1706.00292; Feydy et al. 2019, arXiv:1810.08278) has X' = X: then the expected gradient does not vanish at the
    true map, and more so in high dimension, where the sample X is near itself and far from any other. With
    independent halves (Salimans et al. 2018, arXiv:1803.05573) the gradient has mean zero at the true map whatever the
    size of the batch. As N is the gradient of a convex function, the only one that takes mu to nu is the optimal map
    (Brenier 1991). The costs are those of geomloss.

    Parameters
    ----------
    blur : float
        :math:`\sqrt\varepsilon`, in units of the root mean square distance of target samples from their mean, so that
        it does not depend on the scale of the data. Large is smooth, fast, and blind to details.
    scaling : float
        ratio of successive blurs in geomloss's annealing, in (0, 1).

    Raises
    ------
    ValueError
        if a parameter is out of range.
    """

    _: KW_ONLY
    blur: float = 0.2
    scaling: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.blur < math.inf:
            raise ValueError(f"blur: got {self.blur}, expected a positive finite number")
        if not 0 < self.scaling < 1:
            raise ValueError(f"scaling: got {self.scaling}, expected a number between 0 and 1")

    def bind(self, network: GradientNetwork) -> Objective:
        return _Divergence(self, network)


class _Divergence(Objective):
    def __init__(self, loss: Sinkhorn, network: GradientNetwork) -> None:
        self.loss, self.network = loss, network

    def values(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        value = divergence(self.network(x), y, self.loss)
        return value, value.detach()


def divergence(x: Tensor, y: Tensor, loss: Sinkhorn) -> Tensor:
    r"""Unbiased estimate of the divergence S of :class:`Sinkhorn` from samples (n, d), a differentiable scalar.

    As an estimate without bias it can be negative.

    Raises
    ------
    ImportError
        without geomloss (``pip install "icgn[transport]"``).
    ValueError
        with fewer than 4 samples of either.
    """
    half = min(len(x), len(y)) // 2
    if half < 2:
        raise ValueError(f"batch: got {len(x)} and {len(y)} samples, expected at least 4 of each")
    scale = (y - y.mean(0)).square().sum(1).mean().sqrt().clamp_min(torch.finfo(y.dtype).tiny)
    (x0, x1), (y0, y1) = ((s[:half] / scale, s[half : 2 * half] / scale) for s in (x, y))
    first, second = torch.stack([x0, x1, x0, y0]), torch.stack([y0, y1, x1, y1])
    costs = _entropic(loss)(first, second)
    return scale.square() * (costs[:2].mean() - costs[2:].sum() / 2)


def _entropic(loss: Sinkhorn) -> nn.Module:
    try:
        from geomloss import SamplesLoss
    except ImportError as error:
        raise ImportError('Sinkhorn: geomloss is missing: pip install "icgn[transport]"') from error
    return SamplesLoss("sinkhorn", p=2, blur=loss.blur, scaling=loss.scaling, debias=False, backend="tensorized")
