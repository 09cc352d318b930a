"""Data terms as functionals: deepinv's fidelities and physics, with rigorous constants where they are known."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import deepinv
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from icgn.functionals.capability import Capability
from icgn.functionals.functional import ConvexFunctional, Responses, density, dot, per_image, tensor
from icgn.functionals.physics import converted, gram_bounds, image_parameters, is_identity, of_images


@dataclass(frozen=True, eq=False)
class DataFunctional(ConvexFunctional):
    r"""The data term :math:`d(A x, y)` for a linear deepinv physics A; subclasses define d on the measurements."""

    y: Tensor
    physics: Any
    gram: Tensor
    """Rigorous lower and upper bound of A^T A (0 and inf where unknown), (2,), or (2, B): one of each image."""

    limited: torch.dtype | None = field(default=None, kw_only=True)
    """Precision of the physics where it cannot follow that of y."""

    own: tuple[str, ...] = field(default=(), kw_only=True)
    """Buffers of the physics that have one entry per image; the others are shared by all images."""

    def linear(self, x: Tensor) -> Responses:
        if is_identity(self.physics):
            return x
        return self.physics.A(x) if self.limited is None else self.physics.A(x.to(self.limited)).to(x)

    def linear_adjoint(self, z: Responses, shape: torch.Size) -> Tensor:
        z = tensor(z)
        if is_identity(self.physics):
            return z
        return self.physics.A_adjoint(z) if self.limited is None else self.physics.A_adjoint(z.to(self.limited)).to(z)

    def select(self, index: Tensor) -> DataFunctional:
        gram = self.gram[:, index] if self.gram.ndim > 1 else self.gram
        return replace(self, y=self.y[index], physics=of_images(self.physics, self.own, index), gram=gram)

    def to(self, dtype: torch.dtype) -> DataFunctional:
        if self.y.dtype == dtype:
            return self
        y = self.y.to(dtype)
        physics = converted(self.physics, y)
        if physics is None:
            return replace(self, y=y, limited=self.y.dtype)
        return replace(self, y=y, physics=physics, limited=None)

    def precision(self, dtype: torch.dtype) -> torch.dtype:
        return dtype if self.limited is None else self.limited


@dataclass(frozen=True, eq=False)
class GaussianData(DataFunctional):
    r""":math:`\tfrac12 |A x - y|^2`."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        return super().capabilities | {Capability.QUADRATIC}

    def potential(self, u: Responses) -> Tensor:
        r = tensor(u) - self.y
        return dot(r, r) / 2

    def potential_grad(self, u: Responses) -> Tensor:
        return tensor(u) - self.y

    def potential_hvp(self, u: Responses, q: Responses) -> Tensor:
        return tensor(q)

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        return dot(tensor(u) - self.y, tensor(q)) + t * dot(tensor(q), tensor(q))

    def slopes_along(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        return self.slope(u, q, torch.zeros_like(t[0])) + t * self.curvature(u, q)

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        return dot(tensor(q), tensor(q))

    def hessian_floor(self, x: Tensor) -> Tensor:
        if isinstance(self.physics, deepinv.physics.Inpainting):
            return self.physics.mask.to(x).square() * (1 - 1e-6)
        return super().hessian_floor(x)

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        if len(shape) > 4:  # volumes have no spectrum of pictures
            return None
        if is_identity(self.physics):
            return tensor(u).new_ones(1, 1, 1, 1)
        if isinstance(self.physics, deepinv.physics.BlurFFT):
            return self.physics.mask[..., 0].square().to(tensor(u))
        if isinstance(self.physics, deepinv.physics.MRI) and self.physics.mask.ndim == 4:
            return _mask_spectrum(self.physics.mask).to(tensor(u))
        return self._probed_spectrum

    def hessian_density(self, u: Responses, shape: torch.Size) -> Tensor | None:
        """Known pixels have one, missing ones none; None for other physics."""
        if not isinstance(self.physics, deepinv.physics.Inpainting):
            return None
        return density(self.physics.mask.square().mean(1, keepdim=True).to(tensor(u)), reach=0)

    @cached_property
    def _probed_spectrum(self) -> Tensor:
        return probe_spectrum(self)

    def lipschitz(self) -> Tensor:
        return self.gram[1]

    def strong_convexity(self) -> Tensor:
        return self.gram[0]


@dataclass(frozen=True, eq=False)
class WeightedGaussianData(GaussianData):
    r""":math:`\tfrac12 \sum_i w_i (A x - y)_i^2` for weights w > 0 of the measurements.

    Its modulus is that of :math:`A^T A` times the least weight, its Lipschitz constant that times the largest.
    """

    weights: Tensor
    """Positive, something that broadcasts to y, with the batch first."""

    @classmethod
    def of(cls, data: DataFunctional, weights: Tensor) -> WeightedGaussianData:
        """The weighted square of the measurements of another data term."""
        return cls(data.y, data.physics, data.gram, weights, limited=data.limited, own=data.own)

    def potential(self, u: Responses) -> Tensor:
        r = tensor(u) - self.y
        return dot(self.weights * r, r) / 2

    def potential_grad(self, u: Responses) -> Tensor:
        return self.weights * (tensor(u) - self.y)

    def potential_hvp(self, u: Responses, q: Responses) -> Tensor:
        return self.weights * tensor(q)

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        weighted = self.weights * tensor(q)
        return dot(tensor(u) - self.y, weighted) + t * dot(tensor(q), weighted)

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        return dot(self.weights * tensor(q), tensor(q))

    def hessian_floor(self, x: Tensor) -> Tensor:
        if is_identity(self.physics):
            return self.weights.to(x)
        if isinstance(self.physics, deepinv.physics.Inpainting):
            return super().hessian_floor(x) * self.weights.to(x)
        return per_image(self.strong_convexity(), x)

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        """That of the square times the mean weight of each image."""
        spectrum = super().hessian_spectrum(u, shape)
        mean = self.weights.expand(len(self.weights), *self.y.shape[1:]).flatten(1).mean(1)
        return None if spectrum is None else spectrum * per_image(mean, spectrum)

    def hessian_density(self, u: Responses, shape: torch.Size) -> Tensor | None:
        known = super().hessian_density(u, shape)
        if known is None and not is_identity(self.physics):
            return None
        if self.weights.ndim != 4 or len(shape) != 4:
            return None
        weights = self.weights.mean(1, keepdim=True).to(tensor(u))
        whole = weights if known is None else weights * known
        return density(whole.expand(-1, 1, *shape[-2:]), reach=0)

    def lipschitz(self) -> Tensor:
        return self.gram[1].to(self.weights.device) * self.weights.double().flatten(1).amax(1)

    def strong_convexity(self) -> Tensor:
        return self.gram[0].to(self.weights.device) * self.weights.double().flatten(1).amin(1)

    def select(self, index: Tensor) -> DataFunctional:
        chosen = super().select(index)
        assert isinstance(chosen, WeightedGaussianData)
        return replace(chosen, weights=self.weights[index] if len(self.weights) > 1 else self.weights)

    def to(self, dtype: torch.dtype) -> DataFunctional:
        converted_data = super().to(dtype)
        assert isinstance(converted_data, WeightedGaussianData)
        return replace(converted_data, weights=self.weights.to(dtype))


class UnboundedData(DataFunctional):
    """A data term without known moduli: the Lipschitz bound is inf and the strong convexity 0."""

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        v = torch.addcmul(tensor(u), tensor(q), per_image(t, tensor(u)))
        return dot(tensor(self.potential_grad(v)), tensor(q))

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        return dot(tensor(self.potential_hvp(u, q)), tensor(q))

    def lipschitz(self) -> Tensor:
        return torch.tensor(torch.inf, dtype=torch.float64)

    def strong_convexity(self) -> Tensor:
        return torch.tensor(0.0, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class FidelityData(UnboundedData):
    r""":math:`d(A x, y)` for any convex, twice differentiable distance d of a :class:`deepinv.optim.DataFidelity`.

    No modulus is known: the Lipschitz bound is inf and the strong convexity 0.
    """

    fidelity: Any

    def potential(self, u: Responses) -> Tensor:
        return self.fidelity.d.fn(tensor(u), self.y)

    def potential_grad(self, u: Responses) -> Tensor:
        # deepinv's default switches requires_grad on in place: hand it a copy of its own.
        v = tensor(u).detach().clone()
        if not (torch.is_grad_enabled() and (self.y.requires_grad or tensor(u).requires_grad)):
            return self.fidelity.d.grad(v, self.y).detach()
        v = tensor(u) if tensor(u).requires_grad else v.requires_grad_()
        return torch.autograd.grad(self.fidelity.d.fn(v, self.y).sum(), v, create_graph=True)[0]

    def potential_hvp(self, u: Responses, q: Responses) -> Tensor:
        with torch.enable_grad():
            v = tensor(u).detach().clone().requires_grad_()
            g = torch.autograd.grad(self.fidelity.d.fn(v, self.y).sum(), v, create_graph=True)[0]
            return torch.autograd.grad(g, v, tensor(q).detach())[0]


@dataclass(frozen=True, eq=False)
class PoissonData(UnboundedData):
    r"""The Poisson likelihood :math:`\sum_i v_i - c_i + c_i \log(c_i / v_i)` of counts c.

    :math:`v = A x / \text{gain} + \text{bkg}` are the expected counts. It is deepinv's ``PoissonLikelihood``, with one
    value per image and the factor 1 / gain in its derivatives. Outside its domain, :math:`v > 0` where a count is
    positive and :math:`v \ge 0` elsewhere, the value is inf and derivatives are nan. No modulus is known: the Lipschitz
    bound is inf and the strong convexity 0.
    """

    gain: float
    background: float
    counted: bool
    """Whether y holds counts; otherwise counts times the gain."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        return super().capabilities - {Capability.FINITE}

    def potential(self, u: Responses) -> Tensor:
        v, c = self._mean(u), self._counts
        value = v - c + torch.xlogy(c, c) - torch.xlogy(c, v)
        return torch.where(self._inside(v), value, torch.inf).flatten(1).sum(1)

    def potential_grad(self, u: Responses) -> Tensor:
        v = self._mean(u)
        ratio = torch.where(self._counts > 0, self._counts / v, 0.0)
        return torch.where(self._inside(v), 1 - ratio, torch.nan) / self.gain

    def potential_hvp(self, u: Responses, q: Responses) -> Tensor:
        v = self._mean(u)
        bend = torch.where(self._counts > 0, self._counts / v.square(), 0.0)
        return torch.where(self._inside(v), bend, torch.nan) * tensor(q) / self.gain**2

    @property
    def _counts(self) -> Tensor:
        return self.y if self.counted else self.y / self.gain

    def _mean(self, u: Responses) -> Tensor:
        return tensor(u) / self.gain + self.background

    def _inside(self, v: Tensor) -> Tensor:
        return (v > 0) | ((v == 0) & (self._counts == 0))


def data_functional(y: Tensor, physics: Any, fidelity: Any) -> DataFunctional:
    """The data term of a deepinv fidelity (None: the square); its scale is not part of it.

    Raises
    ------
    ValueError
        for negative counts of a Poisson likelihood, a gain that is not positive or a negative background, or a physics
        whose parameters for each image are not buffers with the batch first.
    """
    own = image_parameters(physics, y)
    gram = gram_bounds(physics, "mask" in own)
    if fidelity is None or isinstance(fidelity, deepinv.optim.L2):
        return GaussianData(y, physics, gram, own=own)
    if not isinstance(fidelity, deepinv.optim.PoissonLikelihood):
        return FidelityData(y, physics, gram, fidelity, own=own)
    gain, background = float(fidelity.d.gain), float(fidelity.d.bkg)
    if not (gain > 0 and background >= 0):
        raise ValueError(
            f"data_fidelity: got a Poisson gain of {gain:g} and a background of {background:g}, expected > 0 and >= 0"
        )
    if bool((y < 0).any()):
        raise ValueError(f"y: got negative values down to {float(y.min()):.4g}, expected counts >= 0 for Poisson")
    return PoissonData(y, physics, gram, gain, background, not fidelity.d.denormalize, own=own)


def probe_spectrum(data: DataFunctional, probes: int = 2, window: int = 9) -> Tensor:
    r"""Spectrum of a circular convolution that resembles :math:`A^T A`, (B or 1, 1, H, W // 2 + 1), by random probes.

    :math:`\sum \mathrm{Re}(\bar{\hat v} \cdot \widehat{A^T A v}) / \sum |\hat v|^2` over white images v, colours and
    neighbouring frequencies. Exact in the mean for circular convolutions with a smooth spectrum.
    """
    like = data.physics.A_adjoint(data.y)
    generator = torch.Generator().manual_seed(0)
    cross, power = torch.zeros(()), torch.zeros(())
    for _ in range(probes):
        v = torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
        a, b = torch.fft.rfft2(v), torch.fft.rfft2(data.physics.A_adjoint(data.physics.A(v)))
        cross = cross.to(v) + (a.conj() * b).real.sum(1, keepdim=True)
        power = power.to(v) + a.abs().square().sum(1, keepdim=True)
    return (_smooth(cross, window) / _smooth(power, window)).clamp_min(0)


def _mask_spectrum(mask: Tensor) -> Tensor:
    """Spectrum of A^T A in the real and in the imaginary part, for a mask (B, 2, H, W) of centred frequencies.

    Both parts see the mean of a frequency and its opposite; what couples them, where only one is measured, is left out.
    """
    m = torch.fft.ifftshift(mask[:, :1], (-2, -1)).square()
    opposite = m.flip(-2, -1).roll((1, 1), (-2, -1))
    return ((m + opposite) / 2)[..., : m.shape[-1] // 2 + 1]


def _smooth(spectrum: Tensor, window: int) -> Tensor:
    """Mean over neighbouring frequencies: periodic in the first, mirrored in the second."""
    m = min(window // 2, spectrum.shape[-2] - 1, spectrum.shape[-1] - 1)
    rows = torch.cat([spectrum[..., -m:, :], spectrum, spectrum[..., :m, :]], -2) if m else spectrum
    return F.avg_pool2d(F.pad(rows, (m, m, 0, 0), mode="reflect"), 2 * m + 1, stride=1)
