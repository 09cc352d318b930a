"""The input convex neural network as a regularizer: the baseline that gradient networks are compared with."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icgn.compat import keyword_only
from icgn.functionals.functional import BlackBoxFunctional, per_image
from icgn.regularizers.base import check_sigma
from icgn.regularizers.curves import at_knots, curve, log_knots
from icgn.regularizers.filters import full_float32, initial_filters, squared_norm_bound
from icgn.regularizers.frozen import Frozen
from icgn.regularizers.network import Network
from icgn.regularizers.registry import register


@register
class ICNN(Network):
    r"""Convolutional input convex neural network (Amos, Xu, Kolter 2017, arXiv:1609.07152), by automatic derivatives.

    .. math::

        R(x; \sigma) = \alpha(\sigma)\, g(\beta(\sigma)\, x), \qquad
        g(x) = \sum_p \langle c, z_L \rangle_p + \sum_{j,p} \operatorname{huber}_\delta((f_j \star x)_p)
        + \tfrac{\rho}{2} |x|^2,

        z_1 = \phi(V_1 x + b_1), \qquad z_l = \phi(U_{l-1} z_{l-1} + V_l x + b_l), \qquad U_l, c \ge 0,

    with :math:`\phi` the leaky ReLU, its kink rounded to a parabola on :math:`[-\delta, \delta]` so that the gradient
    is Lipschitz continuous. Values are explicit, gradients and Hessian products cost one and two backward passes. The
    defaults make the two-layer network of the literature (27k parameters); :meth:`mukherjee` that of the adversarial
    convex regularizer.

    Parameters
    ----------
    layers : int
        number L of layers.
    filters : int
        channels of every layer.
    size : int
        side of all filters in pixels, odd.
    channels : int
        image channels.
    slope : float
        slope of :math:`\phi` on the left, in [0, 1).
    smoothing : float
        :math:`\delta`, positive, in units of the pre-activations.
    sparse_filters : int
        number of filters :math:`f_j`.
    strong_convexity : float
        :math:`\rho \ge 0`.
    zero_mean : bool
        whether the filters on the picture (V and f) have zero mean, so that a constant offset changes nothing.
    sigma_range, knots :
        of the curves :math:`\alpha, \beta`; see :class:`~icgn.regularizers.RidgeICGN`.

    Raises
    ------
    ValueError
        if a parameter is out of range.
    """

    @keyword_only
    def __init__(
        self,
        *,
        layers: int = 2,
        filters: int = 32,
        size: int = 5,
        channels: int = 1,
        slope: float = 0.0,
        smoothing: float = 0.01,
        sparse_filters: int = 0,
        strong_convexity: float = 0.0,
        zero_mean: bool = True,
        sigma_range: tuple[float, float] = (1 / 255, 50 / 255),
        knots: int = 9,
    ) -> None:
        super().__init__()
        if min(layers, filters, channels) < 1 or sparse_filters < 0:
            given = f"{layers}, {filters}, {channels}, {sparse_filters}"
            raise ValueError(f"layers, filters, channels, sparse_filters: got {given}, expected at least 1, 1, 1 and 0")
        if size < 3 or size % 2 == 0:
            raise ValueError(f"size: got {size}, expected an odd number of at least 3")
        if not 0 <= slope < 1:
            raise ValueError(f"slope: got {slope}, expected a number in [0, 1)")
        if not smoothing > 0 or not strong_convexity >= 0:
            given = f"{smoothing}, {strong_convexity}"
            raise ValueError(f"smoothing, strong_convexity: got {given}, expected a positive number and one >= 0")
        log_sigma = log_knots(sigma_range, knots)
        self.architecture = {
            "layers": layers, "filters": filters, "size": size, "channels": channels, "slope": slope,
            "smoothing": smoothing, "sparse_filters": sparse_filters, "strong_convexity": strong_convexity,
            "zero_mean": zero_mean, "sigma_range": list(sigma_range), "knots": knots,
        }  # fmt: skip
        self.channels, self.min_size = channels, size
        self.sigma_range = (float(sigma_range[0]), float(sigma_range[1]))
        self.slope, self.smoothing, self.zero_mean = float(slope), float(smoothing), zero_mean
        self.rho = float(strong_convexity)
        self.V = nn.Parameter(initial_filters(layers * filters + sparse_filters, channels, size))
        self.bias = nn.Parameter(torch.zeros(layers, filters))
        # Each unit starts as a mean of the ones before it.
        start = math.log(math.expm1(1 / (filters * size**2)))
        generator = torch.Generator().manual_seed(1)
        noise = 0.3 * torch.randn(layers - 1, filters, filters, size, size, generator=generator)
        self.raw_U = nn.Parameter(start + noise)
        self.raw_c = nn.Parameter(torch.zeros(filters))
        self.log_alpha = nn.Parameter(1.5 * log_sigma + math.log(4 / (filters * size**2)))
        self.log_beta = nn.Parameter(torch.zeros(knots))

    @classmethod
    @keyword_only
    def mukherjee(cls, *, channels: int = 1, **changes: Any) -> ICNN:
        """Make the network of the adversarial convex regularizer (Mukherjee et al. 2020, arXiv:2008.02839).

        Eleven layers of 48 filters 5 x 5, leaky ReLU of slope 0.2, global average, sparsifying filters and a quadratic
        term. The kinks are rounded here (`smoothing`); `changes` replace arguments.
        """
        published = {"layers": 11, "filters": 48, "size": 5, "slope": 0.2, "sparse_filters": 10,
                     "strong_convexity": 1e-3, "zero_mean": False}  # fmt: skip
        return cls(**{**published, "channels": channels, **changes})

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> ICNNFunctional:
        r"""The frozen functional :math:`R(.; \sigma)`; see :meth:`ConvexRegularizer.at`."""
        self._refuse_condition(condition)
        s = check_sigma(sigma, self.V)
        assert self.sigma_range is not None
        V = self.V - self.V.mean((2, 3), keepdim=True) if self.zero_mean else self.V
        return ICNNFunctional(
            V=V,
            bias=self.bias,
            U=F.softplus(self.raw_U),
            c=F.softplus(self.raw_c),
            alpha=curve(self.log_alpha, s, self.sigma_range, 1.5),
            beta=curve(self.log_beta, s, self.sigma_range, 0.0),
            leak=self.slope,
            smoothing=self.smoothing,
            rho=self.rho,
        )

    @property
    def receptive_radius(self) -> int:
        """L (d - 1) for L layers of filters d x d."""
        return len(self.bias) * (self.V.shape[-1] - 1)

    def rescaled(self, sigma: Tensor, weight: Tensor, scale: Tensor) -> ICNN:
        r"""The regularizer :math:`w(\sigma) R(s(\sigma) x; \sigma)`, of the same class.

        Parameters
        ----------
        sigma : Tensor
            increasing noise levels (L,), in intensities; see :meth:`icgn.regularizers.RidgeICGN.rescaled`.
        weight, scale : Tensor
            w > 0 and s > 0, shape (L,).
        """
        assert self.sigma_range is not None
        log_w, log_s = (at_knots(sigma, v, self.sigma_range, len(self.log_alpha)) for v in (weight, scale))
        new = copy.deepcopy(self)
        with torch.no_grad():
            new.log_alpha.add_(log_w.to(new.V))
            new.log_beta.add_(log_s.to(new.V))
        return new

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ICNN:
        # The memory format channels_last is of tensors with four axes; the filters of all layers have five.
        def apply(t: Tensor) -> Tensor:
            return fn(t.flatten(0, 1)).unflatten(0, t.shape[:2]) if t.ndim == 5 else fn(t)

        super()._apply(apply, recurse)  # type: ignore[no-untyped-call]
        return self


@dataclass(frozen=True, eq=False)
class ICNNFunctional(Frozen, BlackBoxFunctional):
    """The regularizer of :class:`ICNN` at fixed noise levels: alpha and beta have shape (B,) or (1,)."""

    V: Tensor
    bias: Tensor
    U: Tensor
    c: Tensor
    alpha: Tensor
    beta: Tensor
    leak: float
    smoothing: float
    rho: float

    def fn(self, x: Tensor) -> Tensor:
        with full_float32(x):
            return self.alpha * self._network(x * per_image(self.beta, x))

    def grad(self, x: Tensor) -> Tensor:
        return self._derivative(x, lambda v: self.fn(v).sum())

    def hvp(self, x: Tensor, v: Tensor) -> Tensor:
        def slope(z: Tensor) -> Tensor:
            g = torch.autograd.grad(self.fn(z).sum(), z, create_graph=True)[0]
            return (g * v).sum()

        return self._derivative(x, slope)

    def _derivative(self, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        """Differentiate f at x, within the graph of x and the parameters where gradients are recorded."""
        recorded = torch.is_grad_enabled()
        with torch.enable_grad(), full_float32(x):
            point = x if recorded and x.requires_grad else x.detach().requires_grad_()
            return torch.autograd.grad(f(point), point, create_graph=recorded)[0]

    def _network(self, x: Tensor) -> Tensor:
        layers, filters = self.bias.shape
        margin = self.V.shape[-1] // 2
        # One convolution for all layers: those with few input channels are slow.
        responses = F.conv2d(F.pad(x, (margin,) * 4, mode="reflect"), self.V)
        parts = responses[:, : layers * filters].unflatten(1, (layers, filters)).unbind(1)
        z = self._phi(parts[0] + self.bias[0][:, None, None])
        for U, b, v in zip(self.U, self.bias[1:], parts[1:], strict=True):
            z = self._phi(F.conv2d(z, U, b, padding=margin) + v)
        # No matrix product: automatic mixed precision would round the sum over all pixels.
        total = (z.flatten(2).sum(2) * self.c).sum(1)
        if responses.shape[1] > layers * filters:
            total = total + self._huber(responses[:, layers * filters :]).flatten(1).sum(1)
        return total + self.rho / 2 * x.square().flatten(1).sum(1) if self.rho else total

    def _phi(self, t: Tensor) -> Tensor:
        # With t clipped to [-d, d], (clip + d)^2 / 4d is the parabola inside, 0 on the left and d on the right.
        d = self.smoothing
        right = (t.clamp(-d, d) + d).square() / (4 * d) + F.relu(t - d)
        return right if self.leak == 0 else self.leak * t + (1 - self.leak) * right

    def _huber(self, t: Tensor) -> Tensor:
        inside = t.clamp(-self.smoothing, self.smoothing)
        return inside * (t - inside / 2) / self.smoothing

    def lipschitz(self) -> Tensor:
        r"""Bound by :math:`\alpha \beta^2 (\sum_l |g_l|_\infty \sup\phi'' |J_l|^2 + |f|^2 / \delta + \rho)`.

        :math:`|J_1| = |V_1|, |J_l| \le |U_{l-1}| |J_{l-1}| + |V_l|` bound the Jacobians of the pre-activations and
        :math:`g_L = c, g_{l-1} = U_{l-1}^T g_l` the derivatives with respect to the :math:`z_l`, as slopes are at most
        1. A nonnegative filter has the norm of its sums.
        """
        layers, filters = self.bias.shape
        V, U = self.V.detach().double().cpu(), self.U.detach().double().cpu()
        norms = [squared_norm_bound(v, "reflect").sqrt() for v in V[: layers * filters].split(filters)]
        sums = U.sum((-2, -1))
        jacobians = [norms[0]]
        for s, norm in zip(sums, norms[1:], strict=True):
            jacobians.append(torch.linalg.matrix_norm(s, 2) * (1 + 1e-12) * jacobians[-1] + norm)
        weights = [self.c.detach().double().cpu()]
        for s in sums.flip(0):
            weights.append(s.T @ weights[-1])
        bend = (1 - self.leak) / (2 * self.smoothing)
        bends = [g.max() * bend * j**2 for g, j in zip(reversed(weights), jacobians, strict=True)]
        total = torch.stack(bends).sum() + self.rho
        if len(V) > layers * filters:
            total = total + squared_norm_bound(V[layers * filters :], "reflect") / self.smoothing
        return self._factor * total.to(self._factor.device)

    def strong_convexity(self) -> Tensor:
        return self._factor * self.rho

    @property
    def _factor(self) -> Tensor:
        return self.alpha.detach().double() * self.beta.detach().double().square()

    def select(self, index: Tensor) -> ICNNFunctional:
        if len(self.alpha) == 1:
            return self
        return replace(self, alpha=self.alpha[index], beta=self.beta[index])
