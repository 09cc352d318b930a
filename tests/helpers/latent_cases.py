"""Small networks with latent pictures."""

import torch

from icgn.regularizers import LatentICGN


def latent(channels=1, latents=2, seed=0, **options):
    """A small network that makes use of its latent pictures."""
    reg = LatentICGN(
        filters=4, size=3, channels=channels, latents=latents, knots=3, **{"activation": "tanh", **options}
    )
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        reg.ridge.bank.raw += 0.2 * torch.randn(reg.ridge.bank.raw.shape, generator=g)
        reg.ridge.log_tau += 1.5 + 0.3 * torch.randn(reg.ridge.log_tau.shape, generator=g)
        reg.ridge.log_lambda += 4.0
        reg.log_epsilon += 1.5
    return reg
