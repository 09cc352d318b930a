"""Gradient networks whose responses are coupled in groups, and the first of them: projections onto l1 balls."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from icgn.functionals.functional import per_image
from icgn.regularizers.base import check_sigma
from icgn.regularizers.curves import curve, log_knots
from icgn.regularizers.filters import Border, FilterBank
from icgn.regularizers.responses import BankFunctional, BankRegularizer, Head, SquaredNorm

# Groups of at most so many members are sorted by a network of comparisons, much faster than a sort on a CPU.
_NETWORK = 8


class Penalty(ABC):
    """A convex function H of groups v (..., G, M, S): M members coupled, groups and S phases apart.

    H(0) = 0 and its gradient there is 0: where a bias moves the minimum, the tangent at 0 is subtracted, as the paper
    subtracts psi(b).
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

    def prox(self, v: Tensor, t: Tensor) -> Tensor | None:
        """Minimize |p - v|^2 / 2 + t H(p), or return None where that is not known."""
        return None

    def seen(self, weight: Tensor) -> Tensor:
        """The rows (G, M, ...) without what the Hessian annihilates, for a smaller bound."""
        return weight

    def bend(self, rows: Tensor) -> Tensor:
        r"""Rigorous bounds of :math:`|W_g^T \nabla^2 H\, W_g|`, (G,), where each group has one response: (G, M, n)."""
        return torch.full((len(rows),), math.inf, dtype=rows.dtype, device=rows.device)

    @abstractmethod
    def to(self, dtype: torch.dtype) -> Penalty:
        """The same in another precision."""


@dataclass(frozen=True, eq=False)
class GroupHead(Head):
    r"""Responses in groups: :math:`h(u) = \sum_g \kappa_g^2 H_g(u_g / \kappa_g)`, of curvature at most that of H.

    Responses (B, ..., G M S) are cut along the last axis into G groups of M `members` and S `phases`; `knee` holds
    :math:`\kappa`, (B, ..., G, 1, 1) or with a batch of one.
    """

    penalty: Penalty
    knee: Tensor
    members: int
    phases: int = 1

    def value(self, u: Tensor) -> Tensor:
        return (self.knee.square() * self.penalty.value(self._cut(u))).flatten(1).sum(1)

    def grad(self, u: Tensor) -> Tensor:
        return (self.knee * self.penalty.grad(self._cut(u))).flatten(-3)

    def hvp(self, u: Tensor, q: Tensor) -> Tensor:
        return self.penalty.hvp(self._cut(u), self._groups(q)).flatten(-3)

    def diagonal(self, u: Tensor) -> Tensor:
        return self.penalty.diagonal(self._cut(u)).flatten(-3)

    @property
    def proximal(self) -> bool:
        return self.penalty.proximal

    def prox(self, v: Tensor, t: Tensor) -> Tensor | None:
        scaled = self._cut(v)
        p = self.penalty.prox(scaled, per_image(t, scaled))
        return None if p is None else (self.knee * p).flatten(-3)

    def steepest(self) -> float:
        return self.penalty.steepest

    def lipschitz(self, weight: Tensor, squared_norm: SquaredNorm) -> Tensor:
        groups = weight.unflatten(0, (-1, self.members))
        bound = self.penalty.steepest * squared_norm(self.penalty.seen(groups).flatten(0, 1))
        # Filters overlap, rows of a matrix do not.
        return torch.minimum(bound, self.penalty.bend(groups).sum()) if weight.ndim == 2 else bound

    def select(self, index: Tensor) -> GroupHead:
        return self if len(self.knee) == 1 else replace(self, knee=self.knee[index])

    def to(self, dtype: torch.dtype) -> GroupHead:
        return replace(self, penalty=self.penalty.to(dtype), knee=self.knee.to(dtype))

    def _groups(self, u: Tensor) -> Tensor:
        return u.unflatten(-1, (-1, self.members, self.phases))

    def _cut(self, u: Tensor) -> Tensor:
        return self._groups(u) / self.knee


class GroupedRegularizer(BankRegularizer):
    r"""Base of :class:`GroupICGN` and :class:`~icgn.regularizers.softmax.SoftmaxICGN`.

    .. math::

        R(x; \sigma) = \sum_{g, p} \lambda_g \tau_g\, H\big(\operatorname{diag}(\gamma_g) (W_g \star x)_p / \tau_g\big),

    with strengths :math:`\lambda_g(\sigma)` and scales :math:`\tau_g(\sigma)` per group and gains
    :math:`\gamma_k(\sigma)` per filter.
    """

    def __init__(
        self,
        groups: int,
        members: int,
        bank: FilterBank,
        sigma_range: tuple[float, float],
        knots: int,
        min_knee: float,
    ) -> None:
        super().__init__(bank, sigma_range, min_knee)
        log_sigma = log_knots(sigma_range, knots)
        self.members = members
        # As in RidgeICGN: a Laplacian prior, shared by the overlapping windows of a filter; a group saturates as one.
        start = math.log(0.6 * members / self.min_size**2)
        self.log_lambda = nn.Parameter((1.5 * log_sigma + start).expand(groups, knots).clone())
        self.log_tau = nn.Parameter((log_sigma - 3.0).expand(groups, knots).clone())
        self.log_gain = nn.Parameter(torch.zeros(groups * members, knots))

    @abstractmethod
    def penalty(self) -> Penalty:
        """The penalty H with the present parameters."""

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> BankFunctional:
        r"""The frozen functional :math:`R(.; \sigma)`; see :meth:`ConvexRegularizer.at`."""
        self._refuse_condition(condition)
        assert self.sigma_range is not None
        s = check_sigma(sigma, self.bank.raw)
        lam, tau = self.curves(s)
        gain = curve(self.log_gain, s, self.sigma_range, 0.0)
        scale = gain * (lam / tau).sqrt().repeat_interleave(self.members, -1)
        # sigma = 0 gives lambda = 0, no response at all; knees must stay positive.
        knee = (lam * tau).sqrt().clamp_min(torch.finfo(tau.dtype).tiny)
        head = GroupHead(self.penalty(), knee[:, None, :, None, None], self.members)
        functional = BankFunctional.build(head, self.bank, scale)
        return replace(functional, head=replace(head, phases=functional.operator.stride**2))


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
    size, channels, border :
        of the :class:`~icgn.regularizers.filters.FilterBank`.
    sigma_range, knots, min_knee :
        of the curves; see :class:`~icgn.regularizers.RidgeICGN`.

    Raises
    ------
    ValueError
        if a parameter is out of range.
    """

    def __init__(
        self,
        groups: int = 8,
        members: int = 4,
        size: int = 9,
        channels: int = 1,
        border: Border = "reflect",
        sigma_range: tuple[float, float] = (1 / 255, 50 / 255),
        knots: int = 9,
        min_knee: float = 0.02,
    ) -> None:
        check_groups(groups, members)
        bank = FilterBank(groups * members, size, channels, border)
        super().__init__(groups, members, bank, sigma_range, knots, min_knee)
        with torch.no_grad():
            # The slopes of a ridge network, although the members share a ball.
            self.log_tau.add_(math.log(members))
        self.architecture = {
            "groups": groups, "members": members, "size": size, "channels": channels, "border": border,
            "sigma_range": list(sigma_range), "knots": knots, "min_knee": min_knee,
        }  # fmt: skip

    def penalty(self) -> MaxEnvelope:
        return MaxEnvelope()


def check_groups(groups: int, members: int) -> None:
    """Raise ``ValueError`` unless both numbers are positive."""
    if groups < 1 or members < 1:
        raise ValueError(f"groups, members: got {groups}, {members}, expected at least 1 of each")


@dataclass(frozen=True, eq=False)
class MaxEnvelope(Penalty):
    r"""The Moreau envelope of the largest modulus, :math:`H(v) = \max_{|p|_1 \le 1} \langle v, p\rangle - |p|^2 / 2`.

    The maximum is at p = P(v), the gradient. A `bias` (G, M, 1) is added to v, and the tangent at 0 subtracted.
    """

    bias: Tensor | None = None

    @property
    def steepest(self) -> float:
        return 1.0

    def value(self, v: Tensor) -> Tensor:
        if self.bias is None:
            return _envelope(v)
        return _envelope(v + self.bias) - _envelope(self.bias) - (v * project_l1(self.bias)).sum(-2, keepdim=True)

    def grad(self, v: Tensor) -> Tensor:
        return project_l1(v) if self.bias is None else project_l1(v + self.bias) - project_l1(self.bias)

    def hvp(self, v: Tensor, q: Tensor) -> Tensor:
        signs, inside = self._face(v)
        mean = (signs * q).sum(-2, keepdim=True) / signs.square().sum(-2, keepdim=True).clamp_min(1)
        return torch.where(inside, q, signs.square() * q - signs * mean)

    def diagonal(self, v: Tensor) -> Tensor:
        signs, inside = self._face(v)
        active = signs.square()
        return torch.where(inside, 1.0, active * (1 - 1 / active.sum(-2, keepdim=True).clamp_min(1)))

    @property
    def proximal(self) -> bool:
        return self.bias is None

    def prox(self, v: Tensor, t: Tensor) -> Tensor | None:
        # By Moreau's identity: the conjugate of H is |p|^2 / 2 on the ball.
        return v - t * project_l1(v / (1 + t)) if self.bias is None else None

    def to(self, dtype: torch.dtype) -> MaxEnvelope:
        return self if self.bias is None else replace(self, bias=self.bias.to(dtype))

    def _face(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Signs of the projection, 0 where a coordinate vanishes, and whether the group is inside the ball."""
        a = v if self.bias is None else v + self.bias
        return torch.sign(project_l1(a)), a.abs().sum(-2, keepdim=True) <= 1


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


def _envelope(v: Tensor) -> Tensor:
    p = project_l1(v)
    return (p * (v - p / 2)).sum(-2, keepdim=True)
