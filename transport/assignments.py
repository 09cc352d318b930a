"""A start for transport maps: networks fitted to optimal assignments between batches of samples."""

from __future__ import annotations

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from icgn.transport.coordinates import DenseNetwork, centred, parameter_groups
from icgn.transport.moments import match_moments

# Samples of an assignment: its work grows with the cube, and 512 take a twentieth of a second.
_SIZE = 512
# Steps of the regression, the pairs in each, and the rate at the first.
_STEPS, _BATCH, _RATE = 200, 256, 3e-2


def match_assignments(network: DenseNetwork, x: Tensor, y: Tensor) -> None:
    r"""Fit a network to the optimal assignments between batches of two samples, in place, from :func:`match_moments`.

    .. math:: \min_N \sum_i |N(x_i) - y_{\pi(i)}|^2, \qquad \pi \text{ of least } \sum_i |x_i - y_{\pi(i)}|^2
        \text{ in each batch of 512}.

    The pairs of small batches scatter, and in the mean are those of a blurred map (Fatras et al. 2020,
    arXiv:1910.04091): a start from which the curved part has learned most of what it will be, in a few seconds, and no
    solution. The expected error of each image counts alike, where the gradient of a dual is weak in the directions that
    the map stretches.

    Parameters
    ----------
    network : DenseNetwork
        the map, changed in place.
    x, y : Tensor
        samples of source and target, (n, d) and (m, d), more than d of each; as many as there are pairs are used.

    Raises
    ------
    TypeError, ValueError
        as :func:`match_moments`.
    """
    match_moments(network, x, y)
    own, images = _pairs(x, y)
    unit, size = (float(s.var(0).mean().sqrt()) for s in (own, images))
    source, target = own.mean(0), images.mean(0)
    with centred(network, source, target), torch.enable_grad():
        optimizer = torch.optim.Adam(parameter_groups(network, unit, size, _RATE), betas=(0.9, 0.99))
        rates = [group["lr"] for group in optimizer.param_groups]
        generator = torch.Generator().manual_seed(0)
        for step in range(_STEPS):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1 + math.cos(math.pi * step / _STEPS)) / 2
            some = torch.randint(len(own), (_BATCH,), generator=generator).to(own.device)
            optimizer.zero_grad(set_to_none=True)
            distance = (network(own[some] - source) - (images[some] - target)).square().sum(1).mean()
            (distance / size**2).backward()
            optimizer.step()


def _pairs(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Samples of x and those of y that are assigned to them, batch by batch."""
    generator = torch.Generator().manual_seed(0)
    x, y = (s[torch.randperm(len(s), generator=generator).to(s.device)] for s in (x, y))
    count = min(len(x), len(y))
    size = min(count, _SIZE)
    pairs = []
    for first in range(0, count - size + 1, size):
        a, b = x[first : first + size], y[first : first + size]
        # Only the product counts: it has no cancellation far from the origin once the means are gone.
        costs = -(a - x.mean(0)).double() @ (b - y.mean(0)).double().T
        rows, columns = linear_sum_assignment(costs.cpu().numpy())
        pairs.append((a[torch.from_numpy(rows).to(a.device)], b[torch.from_numpy(columns).to(b.device)]))
    return torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs])
