r"""Functions of pictures (x, z), z being latent pictures in further channels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from icgn.functionals.functional import ConvexFunctional, Responses, colour_matrix
from icgn.functionals.wrapped import WrappedFunctional


@dataclass(frozen=True, eq=False)
class Visible(WrappedFunctional):
    """A function of x as one of (x, z)."""

    channels: int

    def map(self, x: Tensor) -> Tensor:
        return x[:, : self.channels]

    def map_adjoint(self, z: Tensor, shape: torch.Size) -> Tensor:
        return lift(z, shape[1] - self.channels)

    def mapped(self, shape: torch.Size) -> torch.Size:
        return torch.Size((shape[0], self.channels, *shape[2:]))

    def lipschitz(self) -> Tensor:
        return self.inner.lipschitz()

    def strong_convexity(self) -> Tensor:
        return torch.zeros_like(self.inner.strong_convexity())

    def hessian_floor(self, x: Tensor) -> Tensor:
        seen = self.map(x)
        return lift(self.inner.hessian_floor(seen).to(x).expand_as(seen), x.shape[1] - self.channels)

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        """The matrices of the inner spectrum in the channels of x, zero in the others."""
        spectrum = self.inner.hessian_spectrum(u, self.mapped(shape))
        if spectrum is None:
            return None
        more = shape[1] - self.channels
        return F.pad(colour_matrix(spectrum, self.channels), (0, 0, 0, 0, 0, more, 0, more))


def latent_modulus(joint: ConvexFunctional, batch: int, channels: int, latents: int, device: torch.device) -> Tensor:
    """The modulus of G(x, z) in the `latents` channels of z, which follow `channels` of x, float64, (B,) or (1,)."""
    shape = (channels + latents, 1, 1)
    pixel = torch.zeros(batch, *shape, dtype=torch.float64, device=device)
    return joint.hessian_floor(pixel).expand(-1, *shape)[:, channels:].amin((1, 2, 3))


def lift(x: Tensor, latents: int) -> Tensor:
    """Pictures (x, 0) with latent channels (B, C + `latents`, H, W)."""
    return F.pad(x, (0, 0, 0, 0, 0, latents))
