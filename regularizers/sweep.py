"""Input convex networks differentiated by an explicit backward sweep, over any inner maps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from icgn.functionals.functional import dot
from icgn.regularizers.activations import Activation
from icgn.regularizers.filters import full_float32
from icgn.regularizers.frozen import Frozen
from icgn.regularizers.head import Head, SquaredNorm

# Covers the rounding of the norm of a matrix in float64.
_ROUNDING = 1 + 1e-12
_TINY = 1e-150


@dataclass(frozen=True, eq=False)
class ConvexActivation:
    r"""The convex activations :math:`\varphi_l` of the layers, :math:`\varphi_l'' = (s')^2` with the activation s.

    The first has :math:`\varphi_1' = \psi`, of either sign. The others, :math:`\varphi_l' = \psi - \psi(-\infty)`, must
    not decrease and have bounded slopes: of a nonnegative combination of convex functions they make another one.

    Raises
    ------
    ValueError
        if :math:`\psi` decreases somewhere, is steeper than it says, or is not bounded where there are later layers.
    """

    activation: Activation
    layers: int

    def __post_init__(self) -> None:
        check_nondecreasing(self.activation)
        if self.layers > 1 and not max(self._limits) < math.inf:
            raise ValueError(
                f"activation: got {self.activation.name!r}, whose psi is not bounded, expected one that is (tanh,"
                f" sigmoid, hardtanh) in a network of {self.layers} layers: else its gradient has no Lipschitz constant"
            )

    @cached_property
    def _limits(self) -> tuple[float, float]:
        """The limits of psi at both ends, inf where it has none."""
        near, far = (self.activation.psi(torch.tensor([-t, t], dtype=torch.float64)).tolist() for t in (1e3, 1e6))
        low, high = (f if abs(n - f) <= 1e-9 else math.inf for n, f in zip(near, far, strict=True))
        return (low, high) if low < math.inf else (math.inf, math.inf)

    def value(self, layer: int, t: Tensor) -> Tensor:
        r""":math:`\varphi_l(t)`."""
        phi = self.activation.potential(t)
        return phi - self._limits[0] * t if layer else phi

    def slope(self, layer: int, t: Tensor) -> Tensor:
        r""":math:`\varphi_l'(t)`."""
        psi = self.activation.psi(t)
        return psi - self._limits[0] if layer else psi

    def bend(self, t: Tensor) -> Tensor:
        r""":math:`\varphi_l''(t) \ge 0`."""
        return self.activation.psi_prime(t)

    def largest_slope(self, layer: int) -> float:
        r"""The supremum of :math:`|\varphi_l'|`."""
        low, high = self._limits
        return high - low if layer else max(abs(low), abs(high))


def check_nondecreasing(activation: Activation) -> None:
    """Raise ``ValueError`` if psi decreases or is steeper than ``steepest`` on a grid over [-30, 30]."""
    t = torch.linspace(-30, 30, 6001, dtype=torch.float64)
    psi = activation.psi(t)
    rise = psi.diff() / t.diff()
    worst = int(rise.argmin())
    if not float(rise[worst]) >= -1e-9:
        raise ValueError(
            f"activation: the psi of {activation.name!r} has slope {float(rise[worst]):.3g} at {float(t[worst]):.3g},"
            " expected a nondecreasing one"
        )
    if not float(rise.max()) <= activation.steepest * (1 + 1e-6):
        raise ValueError(
            f"activation: the psi of {activation.name!r} has slope {float(rise.max()):.3g}, expected at most its"
            f" steepest, {activation.steepest:.3g}"
        )


@dataclass(frozen=True, eq=False)
class InnerMap(Frozen, ABC):
    """A linear map U between layers with entries that are not negative."""

    weight: Tensor

    @property
    def reach(self) -> int:
        """How many rows away an entry of U z depends on z."""
        return 0

    @abstractmethod
    def apply(self, z: Tensor) -> Tensor:
        """U z."""

    @abstractmethod
    def adjoint(self, d: Tensor) -> Tensor:
        """U^T d."""

    @abstractmethod
    def gains(self) -> Tensor:
        """A nonnegative matrix A (units out, units in), float64, with |D U E| <= |D A E| for diagonal D, E >= 0."""


@dataclass(frozen=True, eq=False)
class MatrixMap(InnerMap):
    """Units (B, K) by a matrix."""

    def apply(self, z: Tensor) -> Tensor:
        return z @ self.weight.T

    def adjoint(self, d: Tensor) -> Tensor:
        return d @ self.weight

    def gains(self) -> Tensor:
        return self.weight.detach().double()


@dataclass(frozen=True, eq=False)
class ConvolutionMap(InnerMap):
    """Pictures (B, K, rows, cols) by filters (K, K, d, d), zeros beyond the border.

    Its norm is at most that of the matrix of the sums, as a nonnegative filter has its largest response at frequency 0.
    """

    @property
    def reach(self) -> int:
        return self.weight.shape[-1] // 2

    def apply(self, z: Tensor) -> Tensor:
        with full_float32(z):
            return F.conv2d(z, self.weight, padding=self.weight.shape[-1] // 2)

    def adjoint(self, d: Tensor) -> Tensor:
        with full_float32(d):
            return F.conv_transpose2d(d, self.weight, padding=self.weight.shape[-1] // 2)

    def gains(self) -> Tensor:
        return self.weight.detach().double().sum((-2, -1))


@dataclass(frozen=True, eq=False)
class DeepHead(Head):
    r"""The input convex network as a function of the responses :math:`u_l` of all its layers.

    .. math::

        p_1 = u_1 + b_1, \quad p_l = U_l\, \varphi_{l-1}(p_{l-1}) + u_l + b_l, \qquad
        H(u) = \langle c, \varphi_L(p_L)\rangle, \qquad U_l, c \ge 0.

    The gradient is the sweep :math:`g_L = c`, :math:`d_l = g_l \varphi_l'(p_l)`, :math:`g_{l-1} = U_l^T d_l`, with one
    d per response, and the Hessian the Gram matrix
    :math:`\sum_l J_l^T \operatorname{diag}(g_l \varphi_l''(p_l)) J_l`, :math:`J_l = \partial p_l / \partial u`: no
    graph is needed for either. h is H less its tangent at u = 0. Responses (B, K, ...) are cut along the second axis;
    `biases` are (1, K_l, ...), `top` is c, (B, K_L, ...) or of one entry.
    """

    phi: ConvexActivation
    maps: tuple[InnerMap, ...]
    biases: tuple[Tensor, ...]
    top: Tensor
    _at_rest: dict[tuple[str, torch.Size], Tensor] = field(default_factory=dict, init=False)

    @property
    def halo(self) -> int:
        return sum(inner.reach for inner in self.maps)

    def value(self, u: Tensor) -> Tensor:
        linear = (self._rest("grad", u) * u).flatten(1).sum(1)
        return (self.outputs(u) - self._rest("outputs", u)).flatten(1).sum(1) - linear

    def grad(self, u: Tensor) -> Tensor:
        return self.raw_grad(u) - self._rest("grad", u)

    def hvp(self, u: Tensor, q: Tensor) -> Tensor:
        return self.raw_linearized(u)[1](q)

    def linearized(self, u: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        grad, product = self.raw_linearized(u)
        return grad - self._rest("grad", u), product

    def raw_linearized(self, u: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The gradient of H, which need not vanish at 0, and the Hessian as a map."""
        p = self._preactivations(u)
        slopes = [self.phi.slope(layer, pl) for layer, pl in enumerate(p)]
        g, d = self._sweep(slopes)
        bends = [gl * self.phi.bend(pl) for gl, pl in zip(g, p, strict=True)]

        def product(q: Tensor) -> Tensor:
            turned = [b * t for b, t in zip(bends, self._tangents(slopes, q), strict=True)]
            # The sweep of the tangents, from the last layer to the first; out holds it in this order.
            out = [turned[-1]]
            for layer in range(len(p) - 2, -1, -1):
                out.append(turned[layer] + self.maps[layer].adjoint(out[-1]) * slopes[layer])
            return torch.cat(out[::-1], 1)

        return torch.cat(d, 1), product

    def curvature(self, u: Tensor, q: Tensor) -> Tensor:
        p = self._preactivations(u)
        slopes = [self.phi.slope(layer, pl) for layer, pl in enumerate(p)]
        terms = zip(self._sweep(slopes)[0], p, self._tangents(slopes, q), strict=True)
        parts = [dot(t, g * self.phi.bend(pl) * t) for g, pl, t in terms]
        return torch.stack(parts).sum(0)

    def diagonal(self, u: Tensor) -> Tensor:
        """As if the units of a layer were affected by the next one independently of each other."""
        p = self._preactivations(u)
        slopes = [self.phi.slope(layer, pl) for layer, pl in enumerate(p)]
        bends = [g * self.phi.bend(pl) for g, pl in zip(self._sweep(slopes)[0], p, strict=True)]
        out = [bends[-1]]
        for layer in range(len(p) - 2, -1, -1):
            square = replace(self.maps[layer], weight=self.maps[layer].weight.square())
            out.append(bends[layer] + square.adjoint(out[-1]) * slopes[layer].square())
        return torch.cat(out[::-1], 1)

    def lipschitz(self, weight: Tensor, squared_norm: SquaredNorm) -> Tensor:
        r"""Bound :math:`\sum_l \sup\varphi''\, |\operatorname{diag}(\hat g_l)^{1/2} J_l W|^2`.

        :math:`\hat g_L = c`, :math:`\hat g_{l-1} = \sup\varphi_l' \cdot U_l^T \hat g_l` bound the :math:`g_l`, and for
        every positive diagonal E, :math:`|D J_l W| \le |D W_l| + |D U_l E^{-1}| \sup|\varphi_{l-1}'|\, |E J_{l-1} W|`.
        """
        rows = weight.split(self._sizes)
        g = [self.top.detach().double().to(weight.device).reshape(-1)]
        for layer in range(len(self.maps), 0, -1):
            g.append(self.phi.largest_slope(layer) * self.maps[layer - 1].gains().T @ g[-1])
        bounds = [self._jacobian(layer, gl.sqrt(), rows, squared_norm) for layer, gl in enumerate(g[::-1])]
        return self.phi.activation.steepest * torch.stack(bounds).square().sum()

    def rows(self, part: slice, seen: slice) -> DeepHead:
        if not self.halo:
            return self
        own = self.top.new_zeros(seen.stop - seen.start, 1)
        own[part.start - seen.start : part.stop - seen.start] = 1
        return replace(self, top=self.top * own)

    @property
    def _sizes(self) -> list[int]:
        return [b.shape[1] for b in self.biases]

    def _preactivations(self, u: Tensor) -> list[Tensor]:
        parts = u.split(self._sizes, 1)
        p = [parts[0] + self.biases[0]]
        for layer, (inner, part, b) in enumerate(zip(self.maps, parts[1:], self.biases[1:], strict=True)):
            p.append(inner.apply(self.phi.value(layer, p[-1])) + part + b)
        return p

    def _sweep(self, slopes: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The derivatives g of H with respect to the outputs of the layers, and d to the preactivations."""
        g, d = [self.top], [self.top * slopes[-1]]
        for layer in range(len(slopes) - 2, -1, -1):
            g.append(self.maps[layer].adjoint(d[-1]))
            d.append(g[-1] * slopes[layer])
        return g[::-1], d[::-1]

    def _tangents(self, slopes: list[Tensor], q: Tensor) -> list[Tensor]:
        """The derivatives of the preactivations along q."""
        parts = q.split(self._sizes, 1)
        t = [parts[0]]
        for layer, (inner, part) in enumerate(zip(self.maps, parts[1:], strict=True)):
            t.append(inner.apply(slopes[layer] * t[-1]) + part)
        return t

    def outputs(self, u: Tensor) -> Tensor:
        """The terms of H at all places."""
        p = self._preactivations(u)
        return self.top * self.phi.value(len(p) - 1, p[-1])

    def raw_grad(self, u: Tensor) -> Tensor:
        """The gradient of H, which need not vanish at 0."""
        slopes = [self.phi.slope(layer, pl) for layer, pl in enumerate(self._preactivations(u))]
        return torch.cat(self._sweep(slopes)[1], 1)

    def _rest(self, what: Literal["outputs", "grad"], u: Tensor) -> Tensor:
        """The terms or the gradient of H at 0, for responses like u; kept where no graph is."""
        # Without a halo they are the same at all places.
        places = u.shape[2:] if self.halo else [1] * (u.ndim - 2)
        zero = u.new_zeros(1, u.shape[1], *places)
        compute = self.outputs if what == "outputs" else self.raw_grad
        if torch.is_grad_enabled():
            return compute(zero)
        key = (what, zero.shape)
        if key not in self._at_rest:
            self._at_rest[key] = compute(zero)
        return self._at_rest[key]

    def _jacobian(self, layer: int, scale: Tensor, rows: Sequence[Tensor], squared_norm: SquaredNorm) -> Tensor:
        """Bound of |D J_l W| with the diagonal D of `scale`."""
        own = squared_norm(_times(scale, rows[layer])).sqrt().to(scale.device)
        if layer == 0:
            return own
        below = scale[:, None] * self.maps[layer - 1].gains()
        # The E that balances the two factors unit by unit.
        columns, sizes = below.norm(dim=0), rows[layer - 1].flatten(1).norm(dim=1)
        balance = (columns.clamp_min(_TINY) / sizes.clamp_min(_TINY)).sqrt()
        gain = matrix_norm(below / balance) * self.phi.largest_slope(layer - 1)
        return own + gain * self._jacobian(layer - 1, balance, rows, squared_norm)


def matrix_norm(matrix: Tensor) -> Tensor:
    """The spectral norm of a float64 matrix, 0 if it is empty, enlarged by what rounding may have lost."""
    if matrix.numel() == 0:
        return matrix.new_zeros(())
    norm: Tensor = torch.linalg.matrix_norm(matrix, 2) * _ROUNDING
    return norm


def _times(scale: Tensor, rows: Tensor) -> Tensor:
    return rows * scale.reshape(-1, *[1] * (rows.ndim - 1))


def raw_weights(shape: Sequence[int], mean: float, generator: torch.Generator | None = None) -> Tensor:
    """Numbers whose softplus scatters around a positive mean."""
    return math.log(math.expm1(mean)) + 0.3 * torch.randn(*shape, generator=generator)
