"""A ridge network with latent pictures: convex, one minimization deeper than one hidden layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from icgn.compat import keyword_only, once_positional
from icgn.functionals.capability import Capability
from icgn.functionals.functional import BlackBoxFunctional, HessianPart, Responses, dot, per_image
from icgn.functionals.sums import SumFunctional
from icgn.regularizers.bank import BankFunctional, BlockFunctional
from icgn.regularizers.base import check_sigma
from icgn.regularizers.filters import initial_filters
from icgn.regularizers.frozen import PerImage
from icgn.regularizers.network import BankArguments, Network
from icgn.regularizers.registry import register
from icgn.regularizers.ridge import RidgeICGN
from icgn.solvers.partial import PartialMinimum

# Least modulus in the latent pictures: what certificates and the speed of solvers rest on.
_LEAST_EPSILON = 0.02
# Size of the entries of new filters on latent pictures: small, so that a network starts near the plain one.
_COUPLING = 0.04


@register
@once_positional(
    "filters", "size", "channels", "latents", "units", "activation", "border", "sigma_range", "knots", "min_knee"
)
class LatentICGN(Network):
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
        *,
        filters: int = 32,
        latents: int = 1,
        units: int = 1,
        activation: str = "hardtanh",
        **common: Unpack[BankArguments],
    ) -> None:
        super().__init__()
        if latents < 1:
            raise ValueError(f"latents: got {latents}, expected at least 1")
        channels = common.get("channels", 1)
        if channels < 1:
            raise ValueError(f"channels: got {channels}, expected at least 1")
        joint: BankArguments = {"min_knee": 0.015, **common, "channels": channels + latents}
        self.ridge = RidgeICGN(filters=filters, units=units, activation=activation, **joint)
        self.architecture = {**self.ridge.architecture, "channels": channels, "latents": latents}
        self.channels, self.latents = channels, latents
        self.min_size, self.sigma_range = self.ridge.min_size, self.ridge.sigma_range
        self.log_epsilon = nn.Parameter(torch.full_like(self.ridge.log_tau[0, 0], math.log(0.1)))
        with torch.no_grad():
            raw = self.ridge.bank.raw
            raw[:, :channels] = initial_filters(filters, channels, self.min_size)
            raw[:, channels:] = _coupling(raw[:, channels:])

    @classmethod
    @keyword_only
    def upon(cls, ridge: Network, /, *, latents: int = 1, **changes: Any) -> LatentICGN:
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
        if not isinstance(ridge, RidgeICGN):
            raise TypeError(f"ridge: got {type(ridge).__name__}, expected a RidgeICGN")
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
        return _LEAST_EPSILON + self.ridge.curve(self.log_epsilon, sigma)

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
        assert isinstance(ridge, BankFunctional | BlockFunctional) and isinstance(quadratic, LatentQuadratic)
        matrix = ridge.matrix_spectrum(u[0], shape)
        if matrix is None:
            return None
        floor = quadratic.hessian_floor(matrix.real[:, 0]).reshape(len(quadratic.epsilon), -1)
        return matrix + torch.diag_embed(floor)[..., None, None].to(matrix)

    def hessian_parts(self, u: Responses, shape: torch.Size) -> tuple[HessianPart, ...] | None:
        """One part: the channels are coupled."""
        spectrum = self.hessian_spectrum(u, shape)
        return None if spectrum is None else (HessianPart(spectrum),)


@dataclass(frozen=True, eq=False)
class LatentQuadratic(PerImage, BlackBoxFunctional):
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
