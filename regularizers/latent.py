"""A ridge network with latent pictures: convex, one minimization deeper than one hidden layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icgn.functionals.capability import Capability
from icgn.functionals.functional import BlackBoxFunctional, Responses, dot, per_image
from icgn.functionals.sums import SumFunctional
from icgn.regularizers.base import ConvexRegularizer, check_sigma
from icgn.regularizers.blocks import BlockRidgeFunctional
from icgn.regularizers.curves import curve, log_knots
from icgn.regularizers.filters import Border, initial_filters
from icgn.regularizers.responses import FiniteState
from icgn.regularizers.ridge import RidgeICGN
from icgn.regularizers.ridge_functional import RidgeFunctional
from icgn.solvers.partial import PartialMinimum

# Least modulus in the latent pictures: what certificates and the speed of solvers rest on.
_LEAST_EPSILON = 0.02
# Size of the entries of new filters on latent pictures: small, so that a network starts near the plain one.
_COUPLING = 0.04


class LatentICGN(FiniteState, ConvexRegularizer):
    r"""Ridge regularizer of the picture together with latent pictures, which are minimized out.

    .. math::

        R(x; \sigma) = \min_{z} R_0\big((x, z); \sigma\big) + \tfrac{\epsilon(\sigma)}{2} |z|^2, \qquad
        \nabla R(x) = \nabla_x R_0\big((x, z^*); \sigma\big),

    with a ridge network :math:`R_0` (:class:`~icgn.regularizers.RidgeICGN`) of C + K channels, x first. A partial
    minimum of a convex function is convex. Filters on x - z and on z make it the infimal convolution of two ridge
    networks, and filters that compare differences of x with z the total generalized variation (Bredies, Kunisch, Pock
    2010): here the filters, and with them the decomposition of the picture, are learned.

    :func:`icgn.solve` finds x and z together, at the price of a ridge network of so many channels. Evaluated on its
    own, R needs z for each value and gradient (:class:`icgn.solvers.partial.PartialMinimum`).

    Parameters
    ----------
    filters, size, channels, units, activation, border, sigma_range, knots, min_knee :
        of the ridge network; `channels` C are those of the picture.
    latents : int
        number K of latent pictures.

    Raises
    ------
    ValueError
        if a parameter is out of range.

    Examples
    --------
    >>> import torch
    >>> from icgn import LatentICGN
    >>> regularizer = LatentICGN(filters=4, size=3, latents=1, activation="tanh").double()
    >>> x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    >>> bool(regularizer.fn(x, sigma=0.1) <= regularizer.ridge.fn(torch.cat([x, 0 * x], 1), sigma=0.1))
    True
    """

    def __init__(
        self,
        filters: int = 32,
        size: int = 9,
        channels: int = 1,
        latents: int = 1,
        units: int = 1,
        activation: str = "hardtanh",
        border: Border = "reflect",
        sigma_range: tuple[float, float] = (1 / 255, 50 / 255),
        knots: int = 9,
        min_knee: float = 0.015,
    ) -> None:
        super().__init__()
        if latents < 1:
            raise ValueError(f"latents: got {latents}, expected at least 1")
        if channels < 1:
            raise ValueError(f"channels: got {channels}, expected at least 1")
        self.ridge = RidgeICGN(
            filters, size, channels + latents, units, activation, border, sigma_range, knots, min_knee
        )
        self.architecture: dict[str, Any] = {**self.ridge.architecture, "channels": channels, "latents": latents}
        self.channels, self.latents = channels, latents
        self.min_size, self.sigma_range = self.ridge.min_size, self.ridge.sigma_range
        self.log_epsilon = nn.Parameter(torch.full_like(log_knots(self.ridge_range, knots), math.log(0.1)))
        with torch.no_grad():
            raw = self.ridge.bank.raw
            raw[:, :channels] = initial_filters(filters, channels, size)
            raw[:, channels:] = _coupling(raw[:, channels:])

    @property
    def ridge_range(self) -> tuple[float, float]:
        """Noise levels of the first and the last knot."""
        assert self.ridge.sigma_range is not None
        return self.ridge.sigma_range

    @classmethod
    def upon(cls, ridge: RidgeICGN, latents: int = 1, **changes: Any) -> LatentICGN:
        """A network that starts near a trained ridge network: latent pictures that it hardly uses yet.

        Parameters
        ----------
        ridge : RidgeICGN
            stays as it is.
        latents : int
            number of latent pictures.
        changes :
            constructor arguments that differ from those of `ridge`, as :meth:`RidgeICGN.widened` takes them.
        """
        wide = ridge.widened(**changes) if changes else ridge
        new = cls(**wide.architecture, latents=latents).to(wide.log_tau)
        channels = wide.architecture["channels"]
        with torch.no_grad():
            weight = wide.bank.weight
            new.ridge.bank.raw[:, :channels] = weight
            for name in ("log_lambda", "log_tau"):
                getattr(new.ridge, name).copy_(getattr(wide, name))
        return new.train(ridge.training)

    def epsilon(self, sigma: Tensor) -> Tensor:
        r"""The modulus :math:`\epsilon(\sigma) \ge 0.02` of the latent pictures at noise levels (B,)."""
        return _LEAST_EPSILON + curve(self.log_epsilon, sigma, self.ridge_range, 0.0)

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> PartialMinimum:
        r"""The frozen functional :math:`R(.; \sigma)`; see :meth:`ConvexRegularizer.at`."""
        self._refuse_condition(condition)
        quadratic = LatentQuadratic(self.epsilon(check_sigma(sigma, self.log_epsilon)), self.architecture["channels"])
        one = torch.ones((), dtype=torch.float64, device=self.log_epsilon.device)
        joint = JointFunctional([self.ridge.at(sigma), quadratic], [one, one])
        return PartialMinimum(joint, self.architecture["channels"], self.latents)


def _coupling(like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (_COUPLING * torch.randn(like.shape, generator=generator)).to(like)


class JointFunctional(SumFunctional):
    """A ridge network over (x, z) and the quadratic in z, with a spectrum that couples their channels."""

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        ridge, quadratic = self.terms
        assert isinstance(quadratic, LatentQuadratic) and isinstance(u[0], Tensor)
        assert isinstance(ridge, RidgeFunctional | BlockRidgeFunctional)
        whole = ridge if isinstance(ridge, RidgeFunctional) else ridge.whole
        matrix = matrix_spectrum(whole, ridge.slopes(u[0], shape), shape)
        if matrix is None:
            return None
        floor = quadratic.hessian_floor(matrix.real[:, 0]).reshape(len(quadratic.epsilon), -1)
        return matrix + torch.diag_embed(floor)[..., None, None].to(matrix)


def matrix_spectrum(ridge: RidgeFunctional, slopes: Tensor, shape: torch.Size) -> Tensor | None:
    r"""The matrices :math:`\sum_k \bar D_k \hat w_k \hat w_k^*` of the channels, with the mean slope of each filter.

    Shape (B, C, C, H, W // 2 + 1), or None for pictures too small for the filters; from the sums of
    :meth:`RidgeFunctional.slopes`, for images of a shape.
    """
    weight = ridge.operator.weight.detach()
    filters, channels, d, _ = weight.shape
    # Correlations of all pairs of channels of each filter: its channels as pictures, and as kernels of a group.
    pairs = F.conv2d(
        weight.repeat_interleave(channels, 1).reshape(1, -1, d, d),
        weight.repeat(1, channels, 1, 1).reshape(-1, 1, d, d),
        padding=d - 1,
        groups=filters * channels**2,
    ).reshape(filters, channels, channels, 2 * d - 1, 2 * d - 1)
    return ridge.transform_of(slopes, pairs, shape)


@dataclass(frozen=True, eq=False)
class LatentQuadratic(BlackBoxFunctional):
    r"""The function :math:`\tfrac\epsilon2 |z|^2` of (x, z), x of the given number of channels."""

    epsilon: Tensor
    """One for all images or one for each, (1,) or (B,)."""
    channels: int

    @property
    def capabilities(self) -> frozenset[Capability]:
        return super().capabilities | {Capability.RESPONSES}

    def fn(self, x: Tensor) -> Tensor:
        z = x[:, self.channels :]
        return self.epsilon.to(x) / 2 * dot(z, z)

    def grad(self, x: Tensor) -> Tensor:
        return self.hvp(x, x)

    def hvp(self, x: Tensor, v: Tensor) -> Tensor:
        return self._diagonal(x) * v

    def _diagonal(self, x: Tensor) -> Tensor:
        latent = torch.arange(x.shape[1], device=x.device).reshape(-1, 1, 1) >= self.channels
        return per_image(self.epsilon, x) * latent

    def hessian_floor(self, x: Tensor) -> Tensor:
        return self._diagonal(x).detach()

    def lipschitz(self) -> Tensor:
        return self.epsilon.detach().double()

    def strong_convexity(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64, device=self.epsilon.device)

    def select(self, index: Tensor) -> LatentQuadratic:
        return self if len(self.epsilon) == 1 else LatentQuadratic(self.epsilon[index], self.channels)

    def to(self, dtype: torch.dtype) -> LatentQuadratic:
        return LatentQuadratic(self.epsilon.to(dtype), self.channels)
