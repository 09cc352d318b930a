"""Gradient networks of softmax modules: smooth, and universal among gradients of convex functions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from icgn.compat import once_positional
from icgn.regularizers.group import GroupedRegularizer, Penalty
from icgn.regularizers.network import BankArguments
from icgn.regularizers.registry import register


@register
@once_positional("groups", "members", "symmetric", "size", "channels", "border", "sigma_range", "knots", "min_knee")
class SoftmaxICGN(GroupedRegularizer):
    r"""Convolutional conic sum of softmax modules, one per group of filters and place.

    .. math::

        \nabla R(x; \sigma) = \sum_g \lambda_g W_g^T \Gamma_g \big(
        \operatorname{softmax}(\Gamma_g W_g x / \tau_g + b_g) - \operatorname{softmax}(b_g)\big),

    the module of the monotone gradient networks (mGradNet-M, Chaudhari et al. 2024, arXiv:2404.07361) with
    :math:`\alpha = \lambda, \beta = 1 / \tau`, strengths and scales piecewise log-linear in sigma. The potential is
    :math:`\sum \lambda \tau \operatorname{logsumexp}` less its tangent at x = 0, so that R is zero at constant
    pictures (the filters have zero mean) and nowhere negative.

    Parameters
    ----------
    groups, members : int
        number of modules and filters in each.
    symmetric : bool
        whether each filter enters with both signs: twice as many classes at the cost of the same convolutions, and R
        is even. The gradient is then :math:`e^{b_k} \sinh v_k / \sum_j e^{b_j} \cosh v_j`, tanh in a group of one.
    size, channels, border, sigma_range, knots, min_knee :
        see :class:`~icgn.regularizers.network.BankSpec`.

    Raises
    ------
    ValueError
        if a parameter is out of range; a group of one without `symmetric` is zero and refused.
    """

    def __init__(
        self, *, groups: int = 8, members: int = 4, symmetric: bool = True, **common: Unpack[BankArguments]
    ) -> None:
        super().__init__(groups, members, common, symmetric=symmetric)
        check_members(members, symmetric)
        self.symmetric = symmetric
        self.bias = nn.Parameter(torch.zeros(groups, members))

    def penalty(self) -> LogSumExp:
        return LogSumExp(self.bias[..., None], self.symmetric)


def check_members(members: int, symmetric: bool) -> None:
    """Raise ``ValueError`` for groups of one member whose softmax is constant."""
    if members < 2 and not symmetric:
        raise ValueError(f"members: got {members}, expected at least 2: the softmax of a single class is constant")


@dataclass(frozen=True, eq=False)
class LogSumExp(Penalty):
    r"""Logarithm of a sum of exponentials less its tangent at 0.

    .. math:: H(v) = \log\sum_k e^{l_k(v)} - \log\sum_k e^{l_k(0)} - \langle \operatorname{softmax}(l(0)), v\rangle,

    with the logits l(v) = v + b, or those of both v and -v where it is `symmetric`; `bias` is (G, M, 1). The Hessian
    :math:`\operatorname{diag}(p) - p p^T` of the first is at most 1/2, that of the second at most 1.
    """

    bias: Tensor
    symmetric: bool

    @property
    def steepest(self) -> float:
        return 1.0 if self.symmetric else 0.5

    def value(self, v: Tensor) -> Tensor:
        zero = torch.zeros_like(self.bias)
        rise = self._logits(v).logsumexp(-2, keepdim=True) - self._logits(zero).logsumexp(-2, keepdim=True)
        return rise - (v * self._mean(zero)).sum(-2, keepdim=True)

    def grad(self, v: Tensor) -> Tensor:
        return self._mean(v) - self._mean(torch.zeros_like(self.bias))

    def hvp(self, v: Tensor, q: Tensor) -> Tensor:
        p = self._logits(v).softmax(-2)
        # The second moment of both signs together, and the mean of their difference.
        moment, mean = self._folded(p, 1.0), self._folded(p, -1.0)
        return moment * q - mean * (mean * q).sum(-2, keepdim=True)

    def diagonal(self, v: Tensor) -> Tensor:
        p = self._logits(v).softmax(-2)
        return self._folded(p, 1.0) - self._folded(p, -1.0).square()

    def seen(self, weight: Tensor) -> Tensor:
        # diag(p) - p p^T annihilates constants, so what all members share has no curvature.
        return weight if self.symmetric else weight - weight.mean(1, keepdim=True)

    def bend(self, rows: Tensor) -> Tensor:
        # The Hessian is the covariance of the rows, at most a quarter of their squared diameter (Popoviciu).
        points = torch.cat([rows, -rows], 1) if self.symmetric else rows
        apart = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        return apart.amax((1, 2)).square() / 4 * (1 + 1e-12)

    def _logits(self, v: Tensor) -> Tensor:
        return torch.cat([v + self.bias, self.bias - v], -2) if self.symmetric else v + self.bias

    def _mean(self, v: Tensor) -> Tensor:
        return self._folded(self._logits(v).softmax(-2), -1.0)

    def _folded(self, p: Tensor, sign: float) -> Tensor:
        """Probabilities of v plus `sign` times those of -v, where there are such."""
        if not self.symmetric:
            return p
        plus, minus = p.chunk(2, -2)
        return plus + sign * minus
