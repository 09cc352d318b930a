"""How far a map is from the optimal one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from icgn.transport.vectors import check_vectors

Map = Callable[[Tensor], Tensor]


@torch.no_grad()
def l2_uvp(map: Map, optimal: Map, x: Tensor) -> float:
    r"""Unexplained variance of a map, in percent (Korotin et al. 2021, arXiv:1909.13082).

    .. math:: 100\, \mathbb E_\mu |T(x) - T^*(x)|^2 / \operatorname{Var}(\nu), \qquad
        \operatorname{Var}(\nu) = \mathbb E_\mu |T^*(x) - \mathbb E\, T^*(x)|^2.

    0 for the optimal map, 100 for the constant map to the mean of nu.

    Parameters
    ----------
    map, optimal : callable
        T and T*, of samples (B, d).
    x : Tensor
        samples of mu, (B, d), at least 2; not those of the training.

    Raises
    ------
    TypeError, ValueError
        if x or a map's results are not finite samples of one shape, or nu has no variance.
    """
    difference, image = _compare(map, optimal, x)
    variance = (image - image.mean(0)).square().sum(1).mean()
    if not float(variance) > 0:
        raise ValueError("optimal: got a constant map, expected one with a target of positive variance")
    return float(100 * difference.square().sum(1).mean() / variance)


@torch.no_grad()
def cosine(map: Map, optimal: Map, x: Tensor) -> float:
    r"""Cosine of the angle between two displacements in :math:`L^2(\mu)` (Korotin et al. 2021, arXiv:2106.01954).

    .. math:: \frac{\mathbb E_\mu \langle T(x) - x, T^*(x) - x\rangle}
        {(\mathbb E_\mu |T(x) - x|^2\, \mathbb E_\mu |T^*(x) - x|^2)^{1/2}},

    1 for the optimal map.

    Parameters
    ----------
    map, optimal : callable
        T and T*, of samples (B, d).
    x : Tensor
        samples of mu, (B, d), at least 2; not those of the training.

    Raises
    ------
    TypeError, ValueError
        if x or a map's results are not finite samples of one shape, or a map is the identity.
    """
    difference, image = _compare(map, optimal, x)
    best = image - x.double()
    own = best + difference
    length = own.norm() * best.norm()
    if not float(length) > 0:
        raise ValueError("map, optimal: got the identity, which has no direction, expected maps that move samples")
    return float((own * best).sum() / length)


def _compare(map: Map, optimal: Map, x: Tensor) -> tuple[Tensor, Tensor]:
    """T - T* and T* on the samples, in float64."""
    check_vectors(x, least=2)
    images = [check_vectors(f(x), x.shape[1], name).double() for name, f in (("map(x)", map), ("optimal(x)", optimal))]
    if any(len(image) != len(x) for image in images):
        raise ValueError(f"map, optimal: got {[len(i) for i in images]} images, expected {len(x)}, one for each x")
    return images[0] - images[1], images[1]
