"""A start for transport maps: networks whose mean and covariance of pushed samples are right."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from icgn.transport.coordinates import DenseNetwork, activations, strengthen
from icgn.transport.pairs import gaussian_map
from icgn.transport.samples import covariance
from icgn.transport.vectors import check_vectors

# Share of the slope of the map that the curved part h(W x) has at the start.
_CURVED = 0.1
# Samples from which the mean Jacobian of the curved part is estimated.
_SLOPE_SAMPLES = 512


@torch.no_grad()
def match_moments(network: DenseNetwork, x: Tensor, y: Tensor) -> None:
    r"""Set a network to the optimal map between the Gaussians with the moments of two samples, in place.

    The rows of W are scaled, and their biases shifted, so that the responses of the source have mean zero and standard
    deviation one; the strength of h is set to a tenth of the slope of the Gaussian map A; and the affine part gets
    the rest of it:

    .. math:: Q^T Q = (A - \mu I - \mathbb E \nabla^2 h(W x))_+, \qquad \mathbb E\, N(x) = \mathbb E\, y.

    With fewer rows in Q than dimensions, its best approximation. A start, not a solution: exact for Gaussians and Q of
    full rank up to the curved part, which training has to remove or to use.

    Parameters
    ----------
    network : DenseNetwork
        the map, changed in place.
    x, y : Tensor
        samples of source and target, (n, d), more than d of each.

    Raises
    ------
    TypeError, ValueError
        if these are no samples of that dimension, too few, or the covariance of x is singular.
    """
    x, y = _samples(network, x, y)
    target = torch.atleast_2d(torch.cov(y.T))  # which may be singular
    optimal = gaussian_map(x.mean(0), covariance(x, "source"), y.mean(0), target)
    _set_slope(network, optimal.matrix, x, y)


@torch.no_grad()
def match_scale(network: DenseNetwork, x: Tensor, y: Tensor) -> None:
    r"""Set a network to a shift and a scaling that match the means and total variances of two samples, in place.

    As :func:`match_moments` with :math:`A = (\operatorname{tr} C' / \operatorname{tr} C)^{1/2} I`: all correlations
    are left to be learned.

    Parameters
    ----------
    network : DenseNetwork
        the map, changed in place.
    x, y : Tensor
        samples of source and target, (n, d), more than d of each.

    Raises
    ------
    TypeError, ValueError
        if these are no samples of that dimension, too few, or x has no variance.
    """
    x, y = _samples(network, x, y)
    variances = [float(s.var(0).sum()) for s in (x, y)]
    if not variances[0] > 0:
        raise ValueError("source: got samples of variance 0, expected a positive one")
    _set_slope(network, math.sqrt(variances[1] / variances[0]) * torch.eye(network.dim).to(x), x, y)


def _samples(network: DenseNetwork, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    for name, samples in (("source", x), ("target", y)):
        check_vectors(samples, network.dim, name, network.dim + 1)
    return x.double(), y.double()


def _set_slope(network: DenseNetwork, slope: Tensor, x: Tensor, y: Tensor) -> None:
    """Make the network x -> slope x + const. from the mean of x to that of y, but for a weak curved part."""
    _standardize(network, x)
    some = x[:_SLOPE_SAMPLES]
    strengthen(network, _CURVED * float(slope.trace()) / max(float(_slope(network, some).trace()), 1e-30))
    _set_quadratic(network, slope - _slope(network, some) - network.mu * torch.eye(network.dim).to(x))
    network.shift.zero_()
    network.shift.copy_(y.mean(0) - network(x).mean(0))


def _standardize(network: DenseNetwork, x: Tensor) -> None:
    """Rows of W and biases for responses of mean zero and deviation one, before the bias the network has."""
    spread = activations(network, x).std(0).clamp_min(1e-30)
    network.W.div_(spread.to(network.W)[:, None])
    network.bias.sub_(activations(network, x.mean(0)[None])[0].to(network.bias).view_as(network.bias))


def _slope(network: DenseNetwork, x: Tensor) -> Tensor:
    """The mean Jacobian of the curved part, (d, d)."""
    functional = network.curved().to(x.dtype)
    basis = torch.eye(network.dim).to(x)
    return torch.stack([functional.hvp(x, e.expand_as(x)).mean(0) for e in basis])


def _set_quadratic(network: DenseNetwork, matrix: Tensor) -> None:
    """Q of the given number of rows with Q^T Q nearest to a symmetric matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    rows = (vectors * values.clamp_min(0).sqrt()).T.flip(0)
    network.Q.zero_()
    kept = min(len(network.Q), network.dim)
    network.Q[:kept] = rows[:kept].to(network.Q)
