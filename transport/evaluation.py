"""How far a map is from the optimal one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from icgn.transport.conjugate import conjugate_points
from icgn.transport.vectors import GradientNetwork, check_vectors

# Newton steps of :func:`cost_bounds`.
_NEWTON = 30
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


@dataclass(frozen=True)
class CostBounds:
    r"""What a convex function proves of the cost :math:`\tfrac12 W_2^2` between the measures of two samples.

    Attributes
    ----------
    lower : float
        a rigorous lower bound of the cost between the empirical measures; -inf where nothing is proved.
    moved : float
        the cost :math:`\tfrac12 \mathbb E |\nabla f(x) - x|^2` of the map, which is optimal to where it takes the
        source. The two agree where that is the target; where
        it is not, as for independent samples of the target, `moved` may be below `lower`.
    """

    lower: float
    moved: float


@torch.no_grad()
def cost_bounds(network: GradientNetwork, x: Tensor, y: Tensor, guess: Tensor | None = None) -> CostBounds:
    r"""The Kantorovich dual of a convex potential, and the cost of its map.

    .. math::

        \tfrac12 W_2^2 \ge \tfrac12 \mathbb E|x|^2 + \tfrac12 \mathbb E|y|^2 - \mathbb E f(x) - \mathbb E f^*(y), \qquad
        f^*(y) \le \langle z, y\rangle - f(z) + |\nabla f(z) - y|^2 / 2\mu

    for any z and f convex of modulus :math:`\mu > 0` (Villani 2003, Topics in Optimal Transportation, theorem 1.3);
    z comes from Newton steps. In float64.

    Parameters
    ----------
    network : GradientNetwork
        the map, the gradient of f.
    x, y : Tensor
        samples of source and target, (n, d) and (m, d).
    guess : Tensor, optional
        where to begin to look for z, (m, d), such as the images of y under the inverse map; default y.

    Raises
    ------
    TypeError, ValueError
        if these are no samples of that dimension.
    """
    x, y = (check_vectors(s, network.dim, name).double() for s, name in ((x, "x"), (y, "y")))
    z = conjugate_points(network, y, y if guess is None else guess.to(y), _NEWTON, network.dim)
    left = (network.grad(z) - y).square().sum(1)
    modulus = float(network.strong_convexity())
    excess = left / (2 * modulus) if modulus > 0 else torch.where(left == 0, 0.0, torch.inf)
    conjugate = torch.linalg.vecdot(z, y) - network.fn(z) + excess
    squares = (x.square().sum(1).mean() + y.square().sum(1).mean()) / 2
    lower = float(squares - network.fn(x).mean() - conjugate.mean())
    return CostBounds(lower, float((network.grad(x) - x).square().sum(1).mean() / 2))


def _compare(map: Map, optimal: Map, x: Tensor) -> tuple[Tensor, Tensor]:
    """T - T* and T* on the samples, in float64."""
    check_vectors(x, least=2)
    images = [check_vectors(f(x), x.shape[1], name).double() for name, f in (("map(x)", map), ("optimal(x)", optimal))]
    if any(len(image) != len(x) for image in images):
        raise ValueError(f"map, optimal: got {[len(i) for i in images]} images, expected {len(x)}, one for each x")
    return images[0] - images[1], images[1]
