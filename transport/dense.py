"""Dense gradient networks: gradients of convex functions of vectors (B, n), in closed form and differentiable."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icgn.compat import keyword_only
from icgn.functionals.functional import tensor
from icgn.regularizers.activations import Activation, make_activation
from icgn.regularizers.group import GroupHead, MaxEnvelope, Penalty, Shifted, check_groups
from icgn.regularizers.softmax import LogSumExp, check_members
from icgn.regularizers.sweep import ConvexActivation, DeepHead, MatrixMap, check_nondecreasing, raw_weights
from icgn.transport.vectors import GradientNetwork, MatrixFunctional, QuadraticFunctional, check_vectors


class DenseGrouped(GradientNetwork):
    r"""Base of networks with :math:`h = \sum_g \lambda_g \tau_g H_g(W_g x / \tau_g)` of a penalty H of M responses."""

    def __init__(self, dim: int, groups: int, members: int, strong_convexity: float, quadratic: int) -> None:
        super().__init__(dim, strong_convexity=strong_convexity, quadratic=quadratic)
        check_groups(groups, members)
        self.members = members
        self.W = nn.Parameter(torch.randn(groups * members, dim) / math.sqrt(dim))
        self.bias = nn.Parameter(torch.randn(groups, members))
        self.log_lambda = nn.Parameter(torch.full((groups,), -math.log(groups) / 2))

    @abstractmethod
    def penalty(self, bias: Tensor) -> Penalty:
        """The penalty H with biases (G, M, 1)."""

    def log_scale(self) -> Tensor:
        r"""Logarithms of the :math:`\tau_g`."""
        return torch.zeros_like(self.log_lambda)

    def curved(self) -> MatrixFunctional:
        rows = ((self.log_lambda - self.log_scale()) / 2).exp().repeat_interleave(self.members)
        knee = ((self.log_lambda + self.log_scale()) / 2).exp()
        head = GroupHead(self.penalty(self.bias[..., None]), knee[None, :, None, None], self.members)
        return MatrixFunctional(head, self.W * rows[:, None])

    def jacobian(self, x: Tensor) -> Tensor:
        # The head broadcasts: its Hessian is evaluated once for each point instead of once for each direction.
        check_vectors(x, self.dim)
        curved = self.curved().to(x.dtype)
        quadratic = QuadraticFunctional(self.Q, self.shift, self.mu).to(x.dtype)
        basis = torch.eye(self.dim).to(x)
        bent = curved.head.hvp(tensor(curved.linear(x))[:, None], tensor(curved.linear(basis))[None])
        return curved.linear_adjoint(bent, x.shape) + quadratic.hvp(basis, basis)


class DenseRidgeICGN(DenseGrouped):
    r"""The paper's one-hidden-layer network in closed form (Richter-Powell, Lorraine, Amos 2021, arXiv:2111.12187).

    .. math:: N(x) = W^T a^2 (\psi(W x + b) - \psi(b)) + Q^T Q x + \mu x + a_0, \qquad \psi' = (s')^2.

    The ridge class of Goujon et al. (2022, arXiv:2211.12461); the gradient of a smoothed maximum of affine functions is
    outside, at any width.

    Parameters
    ----------
    dim, strong_convexity, quadratic :
        see :class:`GradientNetwork`.
    width : int
        hidden units.
    activation : str or Activation
        the hidden activation s: "tanh", "sigmoid", "softplus", "hardtanh", or one of your own.

    Raises
    ------
    ValueError
        if a number is out of range or psi is not nondecreasing.
    """

    @keyword_only
    def __init__(
        self,
        dim: int,
        *,
        width: int = 32,
        activation: str | Activation = "tanh",
        strong_convexity: float = 0.0,
        quadratic: int = 0,
    ) -> None:
        if width < 1:
            raise ValueError(f"width: got {width}, expected at least 1")
        super().__init__(dim, width, 1, strong_convexity, quadratic)
        self._activation = _activation(activation)
        check_nondecreasing(self._activation)

    def penalty(self, bias: Tensor) -> Penalty:
        return Shifted(Pointwise(self._activation), bias)


class DenseSoftmaxICGN(DenseGrouped):
    r"""Conic sum of softmax modules (mGradNet-M, Chaudhari et al. 2024, arXiv:2404.07361), smooth and universal.

    .. math::

        N(x) = \sum_k \alpha_k W_k^T \big(\operatorname{softmax}(\beta_k W_k x + b_k) - \operatorname{softmax}(b_k)\big)
        + Q^T Q x + \mu x + a.

    Parameters
    ----------
    dim, strong_convexity, quadratic :
        see :class:`GradientNetwork`.
    groups, members : int
        number of modules and classes of each, at least 2.

    Raises
    ------
    ValueError
        if a number is out of range.
    """

    @keyword_only
    def __init__(
        self, dim: int, *, groups: int = 1, members: int = 16, strong_convexity: float = 0.0, quadratic: int = 0
    ) -> None:
        check_members(members, symmetric=False)
        super().__init__(dim, groups, members, strong_convexity, quadratic)
        self.log_beta = nn.Parameter(torch.zeros(groups))

    def penalty(self, bias: Tensor) -> Penalty:
        return LogSumExp(bias, symmetric=False)

    def log_scale(self) -> Tensor:
        return -self.log_beta


class DenseGroupICGN(DenseGrouped):
    r"""Projections onto l1 balls: the Moreau envelopes of largest moduli of groups of affine functions.

    .. math:: N(x) = \sum_g \lambda_g W_g^T \big(P(W_g x / \tau_g + b_g) - P(b_g)\big) + Q^T Q x + \mu x + a.

    See :class:`~icgn.regularizers.group.GroupICGN`; piecewise linear.

    Parameters
    ----------
    dim, strong_convexity, quadratic :
        see :class:`GradientNetwork`.
    groups, members : int
        number of groups and responses in each.

    Raises
    ------
    ValueError
        if a number is out of range.
    """

    @keyword_only
    def __init__(
        self, dim: int, *, groups: int = 4, members: int = 4, strong_convexity: float = 0.0, quadratic: int = 0
    ) -> None:
        super().__init__(dim, groups, members, strong_convexity, quadratic)
        self.log_tau = nn.Parameter(torch.zeros(groups))

    def penalty(self, bias: Tensor) -> Penalty:
        return Shifted(MaxEnvelope(), bias)

    def log_scale(self) -> Tensor:
        return self.log_tau


class DenseDeepICGN(GradientNetwork):
    r"""The input convex network (Amos, Xu, Kolter 2017, arXiv:1609.07152) by an explicit backward sweep.

    .. math::

        p_1 = W_1 x + b_1, \quad p_l = U_l\, \varphi(p_{l-1}) + W_l x + b_l, \qquad
        h = \langle c, \varphi(p_L)\rangle, \qquad U_l, c > 0;

    see :class:`~icgn.regularizers.deep.DeepICGN`. One layer is :class:`DenseRidgeICGN`.

    Parameters
    ----------
    dim, strong_convexity, quadratic :
        see :class:`GradientNetwork`.
    widths : sequence of int
        units of each layer.
    activation : str or Activation
        "tanh", "sigmoid", "hardtanh", or one of your own with a bounded, nondecreasing psi; any psi for one layer.

    Raises
    ------
    ValueError
        if a number is out of range or the activation is not of that kind.
    """

    @keyword_only
    def __init__(
        self,
        dim: int,
        *,
        widths: Sequence[int] = (16, 16),
        activation: str | Activation = "tanh",
        strong_convexity: float = 0.0,
        quadratic: int = 0,
    ) -> None:
        super().__init__(dim, strong_convexity=strong_convexity, quadratic=quadratic)
        if not widths or min(widths) < 1:
            raise ValueError(f"widths: got {tuple(widths)}, expected at least one layer, each of at least 1 unit")
        self.widths = tuple(widths)
        self._phi = ConvexActivation(_activation(activation), len(self.widths))
        self.W = nn.Parameter(torch.randn(sum(self.widths), dim) / math.sqrt(dim))
        self.bias = nn.Parameter(torch.randn(sum(self.widths)))
        pairs = zip(self.widths[1:], self.widths[:-1], strict=True)
        self.raw_U = nn.ParameterList([nn.Parameter(raw_weights((out, units), 1 / units)) for out, units in pairs])
        self.raw_c = nn.Parameter(raw_weights((self.widths[-1],), 1 / math.sqrt(self.widths[-1])))

    def curved(self) -> MatrixFunctional:
        maps = tuple(MatrixMap(F.softplus(raw)) for raw in self.raw_U)
        biases = self.bias[None].split(self.widths, 1)
        return MatrixFunctional(DeepHead(self._phi, maps, tuple(biases), F.softplus(self.raw_c)[None]), self.W)


@dataclass(frozen=True, eq=False)
class Pointwise(Penalty):
    r""":math:`\Phi(v)` of each response."""

    activation: Activation

    @property
    def steepest(self) -> float:
        return self.activation.steepest

    def value(self, v: Tensor) -> Tensor:
        return self.activation.potential(v)

    def grad(self, v: Tensor) -> Tensor:
        return self.activation.psi(v)

    def hvp(self, v: Tensor, q: Tensor) -> Tensor:
        return self.diagonal(v) * q

    def diagonal(self, v: Tensor) -> Tensor:
        return self.activation.psi_prime(v)


def _activation(activation: str | Activation) -> Activation:
    return make_activation(activation) if isinstance(activation, str) else activation
