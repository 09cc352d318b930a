"""Compositions of gradient networks: maps of measures whose densities follow by change of variables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from icgn.compat import keyword_only
from icgn.transport.logdet import ExactLogDet, LogDet
from icgn.transport.vectors import GradientNetwork, check_vectors


class Pushed(NamedTuple):
    """Points (B, n) after a map, and the log-determinants (B,) of its Jacobian where they came from."""

    points: Tensor
    logdet: Tensor


class DiagonalAffine(nn.Module):
    r"""The invertible map :math:`y_i = e^{s_i} (x_i - c_i)` (the ActNorm of Kingma, Dhariwal 2018, arXiv:1807.03039).

    Parameters
    ----------
    dim : int
        dimension n.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(dim))
        self.centre = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """The points y, shape (B, n)."""
        return (x - self.centre.to(x.dtype)) * self.log_scale.exp().to(x.dtype)

    def inverse(self, y: Tensor) -> Tensor:
        """The points x, shape (B, n)."""
        return y * (-self.log_scale).exp().to(y.dtype) + self.centre.to(y.dtype)

    @torch.no_grad()
    def standardize(self, x: Tensor) -> None:
        """Make the points x (B, n) of mean 0 and standard deviation 1, coordinate by coordinate."""
        self.centre.copy_(x.mean(0))
        self.log_scale.copy_(-x.std(0).log())


class Composition(nn.Module):
    r"""The map :math:`T = T_L \circ \dots \circ T_1` of gradient networks and diagonal affine maps.

    Each factor is injective with a symmetric, positive definite Jacobian, so that
    :math:`\log|\det DT| = \sum_l \log\det DT_l`.

    Parameters
    ----------
    layers : sequence of GradientNetwork or DiagonalAffine
        the factors, the first one to be applied first; at least one network, all of one dimension.

    Raises
    ------
    ValueError
        if there is no network, or two of different dimensions.
    """

    def __init__(self, layers: Sequence[GradientNetwork | DiagonalAffine]) -> None:
        super().__init__()
        dims = [layer.dim for layer in layers if isinstance(layer, GradientNetwork)]
        dims += [len(layer.centre) for layer in layers if isinstance(layer, DiagonalAffine)]
        if not any(isinstance(layer, GradientNetwork) for layer in layers) or len(set(dims)) > 1:
            raise ValueError(f"layers: got dimensions {dims}, expected at least one network, all of one dimension")
        self.dim = dims[0]
        self.layers = nn.ModuleList(layers)

    @property
    def factors(self) -> list[GradientNetwork | DiagonalAffine]:
        """The layers, in the order in which they are applied."""
        return cast("list[GradientNetwork | DiagonalAffine]", list(self.layers))

    def forward(self, x: Tensor) -> Tensor:
        """The points T(x), shape (B, n)."""
        for layer in self.factors:
            x = layer(x)
        return x

    @keyword_only
    def push(self, x: Tensor, *, logdet: LogDet | None = None) -> Pushed:
        """The points T(x) with their log-determinants, by default exact ones.

        Raises
        ------
        TypeError, ValueError
            if x is not a floating-point tensor (B, n) of finite numbers.
        """
        check_vectors(x, self.dim)
        logdet = ExactLogDet() if logdet is None else logdet
        total = x.new_zeros(len(x))
        for layer in self.factors:
            if isinstance(layer, GradientNetwork):
                x, total = layer(x), total + logdet(layer, x)
            else:
                x, total = layer(x), total + layer.log_scale.to(x.dtype).sum()
        return Pushed(x, total)

    @keyword_only
    @torch.no_grad()
    def inverse(self, y: Tensor, *, tol: float = 1e-5, max_iter: int = 5000) -> Tensor:
        r"""The points x (B, n) with T(x) = y, each within a certified RMS distance.

        Layers are inverted in float64, the last first. An error e after layer l is at most :math:`e / c_l` before it,
        :math:`c_l` its modulus of strong convexity or least scale; so :math:`T_l` is inverted to the tolerance
        :math:`c_1 \cdots c_{l-1}\, tol / L`.

        Parameters
        ----------
        y : Tensor
            points (B, n).
        tol : float
            the RMS distance.
        max_iter : int
            iterations allowed for each network.

        Raises
        ------
        TypeError, ValueError
            if y is not a floating-point tensor (B, n) of finite numbers, `tol` is not positive, or a network is not
            strongly convex.
        RuntimeError
            if `tol` is not reached.
        """
        check_vectors(y, self.dim, "y")
        if not 0 < tol < math.inf:
            raise ValueError(f"tol: got {tol}, expected a positive number")
        moduli = [_modulus(layer) for layer in self.factors]
        share = tol / len(moduli)
        x = y.double()
        for i, layer in reversed(list(enumerate(self.factors))):
            if isinstance(layer, GradientNetwork):
                x = layer.inverse(x, tol=share * math.prod(moduli[:i]), max_iter=max_iter)
            else:
                x = layer.inverse(x)
        return x.to(y.dtype)


def _modulus(layer: GradientNetwork | DiagonalAffine) -> float:
    if isinstance(layer, GradientNetwork):
        return float(layer.strong_convexity())
    return float(layer.log_scale.min().exp())


@torch.no_grad()
def fit_affine(network: GradientNetwork, x: Tensor, matrix: Tensor, offset: Tensor, curved: float = 0.5) -> None:
    r"""Start a network near the affine map :math:`x \mapsto A x + b`, with a mean Jacobian A at points x.

    The curved part is shrunk by scaling its matrix W, and Q takes what its mean Jacobian and :math:`\mu` leave of A.

    Parameters
    ----------
    network : GradientNetwork
        with at least n rows of Q.
    x : Tensor
        points (B, n).
    matrix : Tensor
        symmetric, positive definite A (n, n).
    offset : Tensor
        the mean (n,) of N over x.
    curved : float
        the part of the least eigenvalue of :math:`A - \mu I` that the curved part may take of the mean Jacobian.

    Raises
    ------
    ValueError
        if Q has too few rows.
    """
    n = network.dim
    if len(network.Q) < n:
        raise ValueError(f"network: got quadratic={len(network.Q)}, expected at least {n} rows of Q")
    A = matrix.to(network.Q).double()
    eye = torch.eye(n).to(A)
    network.Q.zero_()
    room = max(curved * (float(torch.linalg.eigvalsh(A)[0]) - network.mu), 1e-6)
    W = network.get_parameter("W")
    for _ in range(20):
        mean = network.jacobian(x[:512]).double().mean(0) - network.mu * eye  # a start needs no more points
        most = float(torch.linalg.eigvalsh(mean)[-1])
        if most <= room:
            break
        W.mul_(min(0.9, math.sqrt(room / most)))
    values, vectors = torch.linalg.eigh(A - network.mu * eye - mean)
    network.Q[:n] = (values.clamp_min(0).sqrt() * vectors).T.to(network.Q)
    network.shift.add_((offset.to(x) - network(x).mean(0)).to(network.shift))
