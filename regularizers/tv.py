"""Total variation, smoothed: the classical convex regularizer, behind the same contract as the learned ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from icgn.compat import keyword_only
from icgn.functionals.capability import Capability
from icgn.functionals.functional import ConvexFunctional, Responses, density, dot, per_image, tensor
from icgn.regularizers.base import ConvexRegularizer, check_sigma
from icgn.regularizers.frozen import PerImage

# |D|^2 <= 4 for the differences along each of the two axes.
_SQUARED_NORM = 8.0


class TotalVariation(ConvexRegularizer):
    r"""Isotropic total variation (Rudin, Osher, Fatemi 1992), smoothed by Huber's function.

    .. math::

        R(x; \sigma) = a\, \sigma^b \sum_{c, p} H_\varepsilon\big(|(D x_c)_p|\big), \qquad
        H_\varepsilon(r) = \begin{cases} r^2 / 2 \varepsilon & r \le \varepsilon \\
        r - \varepsilon / 2 & r > \varepsilon, \end{cases}

    with forward differences :math:`(D x)_p = (x_{p + \text{right}} - x_p,\; x_{p + \text{down}} - x_p)`, zero across
    the border; any number of channels c, each on its own. Since :math:`0 \le r - H_\varepsilon(r) \le \varepsilon / 2`,
    the value is below that of the unsmoothed total variation by at most :math:`a\, \sigma^b \varepsilon / 2` per pixel
    and channel. The gradient has the Lipschitz constant :math:`8\, a\, \sigma^b / \varepsilon`.

    Parameters
    ----------
    factor, exponent : float
        a and b, a >= 0 and b > 0. The default makes
        :math:`\arg\min_x \tfrac12 |x - y|^2 + R(x; \sigma)` the best denoiser of photographs with noise of 5 to 50 gray
        levels, found on photographs of BSDS500 that are not in BSD68 (docs/decisions.md).
    eps : float
        :math:`\varepsilon > 0`, in intensities: the edge height up to which the penalty is quadratic.

    Raises
    ------
    ValueError
        if a parameter is out of range.
    """

    anchor: Tensor

    @keyword_only
    def __init__(self, *, factor: float = 1.469, exponent: float = 1.351, eps: float = 1e-3) -> None:
        super().__init__()
        if not 0 <= factor < math.inf:
            raise ValueError(f"factor: got {factor}, expected a finite number >= 0 (a negative one is not convex)")
        for name, value in (("exponent", exponent), ("eps", eps)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name}: got {value}, expected a positive, finite number")
        self.factor, self.exponent, self.eps = float(factor), float(exponent), float(eps)
        # A buffer for the device: there is no parameter.
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> TotalVariationFunctional:
        r"""The frozen functional :math:`R(.; \sigma)`; see :meth:`ConvexRegularizer.at`."""
        self._refuse_condition(condition)
        s = check_sigma(sigma, self.anchor.double())
        return TotalVariationFunctional(self.factor * s**self.exponent, self.eps)


@dataclass(frozen=True, eq=False)
class TotalVariationFunctional(PerImage, ConvexFunctional):
    r""":math:`w \sum_{c, p} H_\varepsilon(|(D x_c)_p|)`, one weight w per image or one for all.

    Responses are the differences D x, (B, C, 2, H, W): to the right and down. With
    :math:`m = \max(|u_p|, \varepsilon)`,

    .. math::

        H = \tfrac12 (|u_p|^2 / m + m - \varepsilon), \qquad \nabla H = u_p / m, \qquad
        \nabla^2 H\, q = \big(q - [|u_p| > \varepsilon]\, u_p \langle u_p, q \rangle / m^2\big) / m.

    `weight` is float64, (B,) or (1,).
    """

    weight: Tensor
    eps: float

    @property
    def capabilities(self) -> frozenset[Capability]:
        return super().capabilities | {Capability.POTENTIAL_PROX}

    def linear(self, x: Tensor) -> Responses:
        return torch.stack([F.pad(x.diff(dim=-1), (0, 1)), F.pad(x.diff(dim=-2), (0, 0, 0, 1))], 2)

    def linear_adjoint(self, z: Responses, shape: torch.Size) -> Tensor:
        right, down = tensor(z).unbind(2)
        return -F.pad(right[..., :-1], (1, 1)).diff(dim=-1) - F.pad(down[..., :-1, :], (0, 0, 1, 1)).diff(dim=-2)

    def potential(self, u: Responses) -> Tensor:
        square, m = self._lengths(tensor(u))
        return self.weight.to(m) * (square / m + m - self.eps).flatten(1).sum(1) / 2

    def potential_grad(self, u: Responses) -> Tensor:
        _, m = self._lengths(tensor(u))
        return tensor(u) * (per_image(self.weight, m) / m)

    def potential_hvp(self, u: Responses, q: Responses) -> Tensor:
        v, p = tensor(u), tensor(q)
        square, m = self._lengths(v)
        along = torch.where(square > self.eps**2, (v * p).sum(2, keepdim=True) / m.square(), 0.0)
        return (p - v * along) * (per_image(self.weight, m) / m)

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        return dot(self.potential_grad(self.move(u, q, t)), tensor(q))

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        return dot(self.potential_hvp(u, q), tensor(q))

    def prox_potential(self, v: Responses, s: Tensor) -> Responses:
        r"""Shrink the lengths: :math:`p = v\, (1 - t / \max(|v|, \varepsilon + t))` with t = s w."""
        square, _ = self._lengths(tensor(v))
        t = per_image(s.to(self.weight.device) * self.weight, square)
        return tensor(v) * (1 - t / torch.maximum(square.sqrt(), self.eps + t))

    def linear_norm(self) -> Tensor:
        return self.weight.new_tensor(math.sqrt(_SQUARED_NORM))

    def potential_lipschitz(self) -> Tensor:
        return self.weight / self.eps

    def lipschitz(self) -> Tensor:
        return self.weight * (_SQUARED_NORM / self.eps)

    def strong_convexity(self) -> Tensor:
        return self.weight.new_zeros(())

    def to(self, dtype: torch.dtype) -> TotalVariationFunctional:
        """The same: it computes in the precision of the images."""
        return self

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        """The spectrum of the Laplacian times the mean over pixels and channels of half the trace of the Hessian."""
        bend = self._bend(u)
        height, width = shape[-2:]
        return per_image(self.weight * bend.flatten(1).mean(1), bend[:, :, 0]) * _laplacian(height, width).to(bend)

    def hessian_density(self, u: Responses, shape: torch.Size) -> Tensor | None:
        """Half the trace of the Hessian at each pixel, the mean over the channels and 3 x 3 pixels."""
        return density(self._bend(u)[:, :, 0].mean(1, keepdim=True), reach=1)

    def _bend(self, u: Responses) -> Tensor:
        """Half the trace of the Hessian at each pixel and channel, over the weight, (B, C, 1, H, W)."""
        square, m = self._lengths(tensor(u))
        return torch.where(square > self.eps**2, 0.5, 1.0) / m

    def _lengths(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Squared lengths of the differences, and m = max(length, eps), both (B, C, 1, H, W)."""
        right, down = u.split(1, 2)
        square = torch.addcmul(right.square(), down, down)
        return square, square.clamp_min(self.eps**2).sqrt()


def _laplacian(height: int, width: int) -> Tensor:
    """Spectrum of D^T D with circular borders, (H, W // 2 + 1)."""
    rows = 2 - 2 * torch.cos(2 * math.pi * torch.fft.fftfreq(height, dtype=torch.float64))
    columns = 2 - 2 * torch.cos(2 * math.pi * torch.fft.rfftfreq(width, dtype=torch.float64))
    return rows[:, None] + columns
