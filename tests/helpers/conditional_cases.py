"""A small conditional network whose masks vary from place to place and from picture to picture."""

from __future__ import annotations

import torch

from icgn.regularizers import ConditionalICGN


def conditional(channels=1, seed=0, **options):
    """An untrained network with random weights, quick on small pictures."""
    arguments = {"filters": 3, "size": 3, "knots": 3, "width": 6, "blocks": 1, "reach": 2.0, "looseness": (1e-6,)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reg = ConditionalICGN(channels=channels, **{**arguments, **options})
        with torch.no_grad():
            for p in (reg.network.tail.weight, reg.network.tail.bias, reg.network.direct):
                p.copy_(0.5 * torch.randn_like(p))
            for ridge in (reg.first, reg.ridge):
                ridge.log_lambda += 1.5
                ridge.log_tau += 2.0
    return reg


def masks(reg, size, seed=0, reach=1.0):
    """A random condition (1, K, H, W)."""
    g = torch.Generator().manual_seed(seed)
    return torch.exp(reach * torch.randn(1, reg.ridge.architecture["filters"], *size, generator=g)).double()
