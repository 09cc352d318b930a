r"""The objective that is solved: data term and regularizer with their weights, over a box.

A regularizer that is a minimum over latent pictures, :math:`g(x) = \min_z G(x, z)` with G convex in both, is solved
for x and z at once: :math:`\min_x D(x) + g(x) = \min_{x, z} D(x) + G(x, z)`. A method that sees the objective as a
whole walks over :math:`v = (x, z)`, one picture of more channels, and never computes g. For every v

.. math::

    F(x) - F^* \le (D(x) + G(x, z)) - F^*,

so that a certificate of the gap at v is one for x, and with :math:`\mu` of D of the distance too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from icgn.functionals.box import Box
from icgn.functionals.data import DataFunctional
from icgn.functionals.functional import ConvexFunctional
from icgn.functionals.latents import Visible, latent_modulus, lift
from icgn.functionals.sums import SumFunctional
from icgn.solvers.certificate import Certificate, distance_bound


@dataclass(frozen=True, eq=False)
class Objective(SumFunctional):
    r"""The objective :math:`F(x) = w_D D(A x; y) + w R(x)` over a box: data term first, regularizer second.

    Attributes
    ----------
    box : Box or None
        bounds of the intensities.
    """

    box: Box | None = None

    @classmethod
    def of(
        cls, data: DataFunctional, regularizer: ConvexFunctional, data_weight: Tensor, weight: Tensor, box: Box | None
    ) -> Objective:
        """The objective of two terms and their weights, float64 (B,)."""
        return cls((data, regularizer), (data_weight, weight), box)

    @property
    def data(self) -> DataFunctional:
        """The data term."""
        data = self.terms[0]
        assert isinstance(data, DataFunctional)
        return data

    @property
    def regularizer(self) -> ConvexFunctional:
        """The regularizer."""
        return self.terms[1]

    @property
    def data_weight(self) -> Tensor:
        """The weight of the data term, (B,)."""
        return self.weights[0]

    @property
    def weight(self) -> Tensor:
        """The weight of the regularizer, (B,)."""
        return self.weights[1]

    def lifted(self, shape: torch.Size) -> Objective:
        """The objective over (x, z) where the regularizer has latent pictures and a positive weight, else as it is.

        Parameters
        ----------
        shape : torch.Size
            of the images x, (B, C, H, W).
        """
        joint = self.regularizer.over_latents(shape)
        if joint is None or not bool((self.weight > 0).all()):
            return self
        box = None if self.box is None else VisibleBox(low=self.box.low, high=self.box.high, channels=joint.channels)
        terms = Visible(self.data, joint.channels), joint.functional
        return LiftedObjective(terms, self.weights, box, joint.channels, joint.latents)

    def start(self, x: Tensor) -> Tensor:
        """Images x as a start of this objective."""
        return x

    def seen(self, v: Tensor) -> Tensor:
        """The images x of the pictures that this objective is over."""
        return v

    def tolerance(self, tol: Tensor) -> Tensor:
        """The RMS distance in the pictures that this objective is over which proves one of `tol`, (B,), in x."""
        return tol

    def proved(self, certificate: Certificate, pixels: int) -> Certificate:
        """What a certificate of this objective proves of x, of so many values."""
        return certificate


@dataclass(frozen=True, eq=False)
class LiftedObjective(Objective):
    """An objective over (x, z), x being the first `channels`: strongly convex if the data term is in x and R in z."""

    channels: int = 1
    latents: int = 1

    @property
    def data(self) -> DataFunctional:
        visible = self.terms[0]
        assert isinstance(visible, Visible) and isinstance(visible.inner, DataFunctional)
        return visible.inner

    def strong_convexity(self) -> Tensor:
        modulus = self._modulus
        hidden = latent_modulus(self.regularizer, len(modulus), self.channels, self.latents, modulus.device)
        return torch.minimum(modulus, self.weight * hidden)

    def lifted(self, shape: torch.Size) -> Objective:
        return self

    def start(self, x: Tensor) -> Tensor:
        return lift(x, self.latents)

    def seen(self, v: Tensor) -> Tensor:
        return v[:, : self.channels]

    def tolerance(self, tol: Tensor) -> Tensor:
        mu = self.strong_convexity()
        ratio = torch.where(mu > 0, self._modulus / mu, 1.0)
        return tol * (ratio * self.channels / (self.channels + self.latents)).sqrt().to(tol)

    def proved(self, certificate: Certificate, pixels: int) -> Certificate:
        mu = self._modulus.to(certificate.objective_gap)
        distance = distance_bound(certificate.objective_gap, mu, pixels)
        return replace(certificate, rms_distance=distance, strong_convexity=mu)

    @property
    def _modulus(self) -> Tensor:
        """The modulus of the data term in x, (B,)."""
        return self.data_weight * self.data.strong_convexity().to(self.data_weight)


@dataclass(frozen=True)
class VisibleBox(Box):
    """A box for the first channels of pictures (x, z); z is free."""

    channels: int = 1

    def project(self, x: Tensor) -> Tensor:
        low, high = self.bounds(x)
        return torch.minimum(torch.maximum(x, low), high)

    def bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.arange(x.shape[1], device=x.device).reshape(-1, 1, 1) < self.channels
        low, high = super().bounds(x)
        return torch.where(seen, low, -torch.inf), torch.where(seen, high, torch.inf)

    def free(self, x: Tensor) -> Tensor:
        low, high = self.bounds(x)
        return (x > low) & (x < high) & torch.isfinite(x)
