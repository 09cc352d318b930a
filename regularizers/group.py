"""Gradient networks whose responses are coupled in groups, and the first of them: projections onto l1 balls."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from icgn.compat import once_positional
from icgn.functionals.functional import per_image
from icgn.regularizers.bank import BankFunctional
from icgn.regularizers.filter_map import FilterMap
from icgn.regularizers.filters import FilterOperator
from icgn.regularizers.frozen import Frozen
from icgn.regularizers.head import Head, SquaredNorm
from icgn.regularizers.network import BankArguments, BankRegularizer, BankSpec
from icgn.regularizers.registry import register

# Groups of at most so many members are sorted by a network of comparisons, much faster than a sort on a CPU.
_NETWORK = 8


@dataclass(frozen=True, eq=False)
class Penalty(Frozen, ABC):
    """A convex function H of groups v (..., G, M, S): M members coupled, groups and S phases apart.

    H(0) = 0 and its gradient there is 0.
    """

    @property
    @abstractmethod
    def steepest(self) -> float:
        """An upper bound of the Hessian."""

    @abstractmethod
    def value(self, v: Tensor) -> Tensor:
        """Values H(v), shape (..., G, 1, S)."""

    @abstractmethod
    def grad(self, v: Tensor) -> Tensor:
        """The gradient, shape of v."""

    @abstractmethod
    def hvp(self, v: Tensor, q: Tensor) -> Tensor:
        """The Hessian product, shape of v."""

    @abstractmethod
    def diagonal(self, v: Tensor) -> Tensor:
        """The diagonal of the Hessian, shape of v."""

    @property
    def proximal(self) -> bool:
        """Whether :meth:`prox` is known."""
        return False

    def prox(self, v: Tensor, t: Tensor) -> Tensor:
        """Minimize |p - v|^2 / 2 + t H(p)."""
        raise NotImplementedError(f"{type(self).__name__}: has no known proximal map")

    def seen(self, weight: Tensor) -> Tensor:
        """The rows (G, M, ...) without what the Hessian annihilates, for a smaller bound."""
        return weight

    def bend(self, rows: Tensor) -> Tensor:
        r"""Rigorous bounds of :math:`|W_g^T \nabla^2 H\, W_g|`, (G,), where each group has one response: (G, M, n)."""
        return torch.full((len(rows),), math.inf, dtype=rows.dtype, device=rows.device)


@dataclass(frozen=True, eq=False)
class GroupHead(Head):
    r"""Responses in groups: :math:`h(u) = \sum_g \kappa_g^2 H_g(u_g / \kappa_g)`, of curvature at most that of H.

    Responses (B, ..., G M S) are cut along the last axis into G groups of M `members` and S phases; `knee` holds
    :math:`\kappa`, (B, ..., G, 1, 1) or with a batch of one.
    """

    penalty: Penalty
    knee: Tensor
    members: int

    planes: ClassVar[bool] = True

    @property
    def proximal(self) -> bool:
        return self.penalty.proximal

    def value(self, u: Tensor) -> Tensor:
        return (self.knee.square() * self.penalty.value(self._cut(u))).flatten(1).sum(1)

    def grad(self, u: Tensor) -> Tensor:
        return (self.knee * self.penalty.grad(self._cut(u))).flatten(-3)

    def hvp(self, u: Tensor, q: Tensor) -> Tensor:
        return self.penalty.hvp(self._cut(u), self._groups(q)).flatten(-3)

    def diagonal(self, u: Tensor) -> Tensor:
        return self.penalty.diagonal(self._cut(u)).flatten(-3)

    def prox(self, v: Tensor, t: Tensor) -> Tensor:
        scaled = self._cut(v)
        return (self.knee * self.penalty.prox(scaled, per_image(t, scaled))).flatten(-3)

    def steepest(self) -> Tensor:
        return torch.tensor(self.penalty.steepest, dtype=torch.float64)

    def lipschitz(self, weight: Tensor, squared_norm: SquaredNorm) -> Tensor:
        groups = weight.unflatten(0, (-1, self.members))
        bound = self.penalty.steepest * squared_norm(self.penalty.seen(groups).flatten(0, 1))
        # Filters overlap, rows of a matrix do not.
        return torch.minimum(bound, self.penalty.bend(groups).sum()) if weight.ndim == 2 else bound

    def _groups(self, u: Tensor) -> Tensor:
        return u.unflatten(-1, (self.knee.shape[-3], self.members, -1))

    def _cut(self, u: Tensor) -> Tensor:
        return self._groups(u) / self.knee


class GroupedRegularizer(BankRegularizer):
    r"""Base of :class:`GroupICGN` and :class:`~icgn.regularizers.softmax.SoftmaxICGN`.

    .. math::

        R(x; \sigma) = \sum_{g, p} \lambda_g \tau_g\, H\big(\operatorname{diag}(\gamma_g) (W_g \star x)_p / \tau_g\big),

    with strengths :math:`\lambda_g(\sigma)` and scales :math:`\tau_g(\sigma)` per group and gains
    :math:`\gamma_k(\sigma)` per filter.
    """

    def __init__(self, groups: int, members: int, common: BankArguments, **own: Any) -> None:
        check_groups(groups, members)
        spec = BankSpec(**common)
        super().__init__(spec, groups * members, {"groups": groups, "members": members, **own})
        self.members = members
        # As in RidgeICGN: a Laplacian prior, shared by the overlapping windows of a filter; a group saturates as one.
        start = math.log(0.6 * members / spec.size**2)
        self.log_lambda = nn.Parameter((1.5 * spec.log_sigma + start).expand(groups, spec.knots).clone())
        self.log_tau = nn.Parameter((spec.log_sigma - 3.0).expand(groups, spec.knots).clone())
        self.log_gain = nn.Parameter(torch.zeros(groups * members, spec.knots))

    @abstractmethod
    def penalty(self) -> Penalty:
        """The penalty H with the present parameters."""

    def frozen(self, sigma: Tensor) -> BankFunctional:
        lam, tau = self.curves(sigma)
        scale = self.curve(self.log_gain, sigma) * (lam / tau).sqrt().repeat_interleave(self.members, -1)
        # sigma = 0 gives lambda = 0, no response at all; knees must stay positive.
        knee = (lam * tau).sqrt().clamp_min(torch.finfo(tau.dtype).tiny)
        head = GroupHead(self.penalty(), knee[:, None, :, None, None], self.members)
        return BankFunctional(head, FilterMap.build(self.bank, scale, kind=FilterOperator))


@register
@once_positional("groups", "members", "size", "channels", "border", "sigma_range", "knots", "min_knee")
class GroupICGN(GroupedRegularizer):
    r"""Convolutional regularizer of groups of filters: the gradient projects each group onto an l1 ball.

    .. math::

        \nabla R(x; \sigma) = W^T \Gamma \Lambda\, P(\Gamma W x / \tau), \qquad
        P = \operatorname{proj}_{\{|p|_1 \le 1\}} \text{ in each group},

    so that R sums :math:`\lambda \tau H`, H the Moreau envelope of the largest modulus in a group,
    :math:`H(v) = \min_w |w|_\infty + |v - w|^2 / 2`: of all filters of a group only the strongest cost. With groups of
    one it is :class:`~icgn.regularizers.RidgeICGN` with the hard tanh; with more it is outside the ridge class. R is
    even and zero at constant pictures. The Lipschitz constant is at most :math:`|(\Lambda/\tau)^{1/2} \Gamma W|^2`. A
    subclass, in closed form, of the monotone gradient networks of Chaudhari et al. (2024, arXiv:2404.07361).

    Parameters
    ----------
    groups, members : int
        number of groups and filters in each.
    size, channels, border, sigma_range, knots, min_knee :
        see :class:`~icgn.regularizers.network.BankSpec`.

    Raises
    ------
    ValueError
        if a parameter is out of range.
    """

    def __init__(self, *, groups: int = 8, members: int = 4, **common: Unpack[BankArguments]) -> None:
        super().__init__(groups, members, common)
        with torch.no_grad():
            # The slopes of a ridge network, although the members share a ball.
            self.log_tau.add_(math.log(members))

    def penalty(self) -> MaxEnvelope:
        return MaxEnvelope()


def check_groups(groups: int, members: int) -> None:
    """Raise ``ValueError`` unless both numbers are positive."""
    if groups < 1 or members < 1:
        raise ValueError(f"groups, members: got {groups}, {members}, expected at least 1 of each")


@dataclass(frozen=True, eq=False)
class MaxEnvelope(Penalty):
    r"""The Moreau envelope of the largest modulus, :math:`H(v) = \max_{|p|_1 \le 1} \langle v, p\rangle - |p|^2 / 2`.

    The maximum is at p = P(v), the gradient.
    """

    @property
    def steepest(self) -> float:
        return 1.0

    @property
    def proximal(self) -> bool:
        return True

    def value(self, v: Tensor) -> Tensor:
        p = project_l1(v)
        return (p * (v - p / 2)).sum(-2, keepdim=True)

    def grad(self, v: Tensor) -> Tensor:
        return project_l1(v)

    def hvp(self, v: Tensor, q: Tensor) -> Tensor:
        signs, inside = self._face(v)
        mean = (signs * q).sum(-2, keepdim=True) / signs.square().sum(-2, keepdim=True).clamp_min(1)
        return torch.where(inside, q, signs.square() * q - signs * mean)

    def diagonal(self, v: Tensor) -> Tensor:
        signs, inside = self._face(v)
        active = signs.square()
        return torch.where(inside, 1.0, active * (1 - 1 / active.sum(-2, keepdim=True).clamp_min(1)))

    def prox(self, v: Tensor, t: Tensor) -> Tensor:
        # By Moreau's identity: the conjugate of H is |p|^2 / 2 on the ball.
        return v - t * project_l1(v / (1 + t))

    def _face(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Signs of the projection, 0 where a coordinate vanishes, and whether the group is inside the ball."""
        return torch.sign(project_l1(v)), v.abs().sum(-2, keepdim=True) <= 1


@dataclass(frozen=True, eq=False)
class Shifted(Penalty):
    r"""A penalty moved by biases b (G, M, 1), less its tangent at 0, as the paper subtracts :math:`\psi(b)`.

    .. math:: v \mapsto H(v + b) - H(b) - \langle \nabla H(b), v\rangle.
    """

    penalty: Penalty
    bias: Tensor

    @property
    def steepest(self) -> float:
        return self.penalty.steepest

    def value(self, v: Tensor) -> Tensor:
        rise = self.penalty.value(v + self.bias) - self.penalty.value(self.bias)
        return rise - (v * self.penalty.grad(self.bias)).sum(-2, keepdim=True)

    def grad(self, v: Tensor) -> Tensor:
        return self.penalty.grad(v + self.bias) - self.penalty.grad(self.bias)

    def hvp(self, v: Tensor, q: Tensor) -> Tensor:
        return self.penalty.hvp(v + self.bias, q)

    def diagonal(self, v: Tensor) -> Tensor:
        return self.penalty.diagonal(v + self.bias)


def project_l1(v: Tensor) -> Tensor:
    """Project groups v (..., M, S) onto the unit l1 ball along the axis of M (last but one), exactly."""
    size = v.abs()
    top, threshold = _threshold(size.detach())
    # Relative to the largest, so that a large common value costs no digits.
    below = size - top
    if torch.is_grad_enabled():
        active = below.detach() > threshold
        threshold = (torch.where(active, below, 0.0).sum(-2, keepdim=True) - 1) / active.sum(-2, keepdim=True)
    outside = torch.sign(v) * torch.relu(below - threshold)
    return torch.where(size.sum(-2, keepdim=True) <= 1, v, outside)


def _threshold(size: Tensor) -> tuple[Tensor, Tensor]:
    """The largest size, and the soft threshold less it: the greatest of (sum of the j largest - 1) / j, less it."""
    top, *others = _descending(size)
    total = torch.zeros_like(top)
    threshold = total - 1
    for j, part in enumerate(others, 2):
        total = total + (part - top)
        threshold = torch.maximum(threshold, (total - 1) / j)
    return top.unsqueeze(-2), threshold.unsqueeze(-2)


def _descending(size: Tensor) -> list[Tensor]:
    """The members of groups (..., M, S) in descending order, M tensors (..., S)."""
    parts = list(size.unbind(-2))
    if len(parts) > _NETWORK:
        return list(size.sort(-2, descending=True).values.unbind(-2))
    for i in range(len(parts)):
        for j in range(i % 2, len(parts) - 1, 2):
            parts[j], parts[j + 1] = torch.maximum(parts[j], parts[j + 1]), torch.minimum(parts[j], parts[j + 1])
    return parts
