r"""Log-determinants of the Jacobians of gradient networks, exact and stochastic, with their derivatives.

The Jacobian :math:`H(x) = \nabla^2 f(x)` of a gradient network is symmetric and positive definite, so that
:math:`\log\det H = \operatorname{tr} \log H` and :math:`\partial \log\det H = \operatorname{tr}(H^{-1} \partial H)`.
Both traces are averages over random probes, which need products with H alone.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.functionals.functional import dot
from icgn.transport.vectors import GradientNetwork

Distribution = Literal["rademacher", "gaussian", "orthogonal"]


class LogDet(Protocol):
    r"""An estimate of :math:`\log\det \nabla^2 f(x)`, differentiable in the network's parameters and in x."""

    def __call__(self, network: GradientNetwork, x: Tensor) -> Tensor:
        """Values of shape (B,) at the points x (B, n)."""


@dataclass(frozen=True)
class ExactLogDet:
    r"""The log-determinant by a Cholesky factorization of the whole Jacobian: n products and O(n³) for each point.

    Raises
    ------
    ValueError
        if a Jacobian is not positive definite.
    """

    def __call__(self, network: GradientNetwork, x: Tensor) -> Tensor:
        factor, info = torch.linalg.cholesky_ex(network.jacobian(x))
        _check_definite(info == 0)
        return 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)


@keyword_only
@dataclass(frozen=True)
class StochasticLogDet:
    r"""Stochastic Lanczos quadrature for the value, conjugate gradients for the derivative.

    With probes v, :math:`E\, v v^T = I`,

    .. math::

        \log\det H = E\, v^T \log(H)\, v, \qquad \partial \log\det H = E\, (H^{-1} v)^T (\partial H)\, v

    (Ubaru, Chen, Saad 2017, doi:10.1137/16M1104974; Huang et al. 2021, arXiv:2012.05942). m Lanczos steps from v give
    an orthonormal basis V and a tridiagonal :math:`T = V^T H V`; then :math:`|v|^2 e_1^T \log(T) e_1` is the Gauss
    quadrature of the first, and :math:`|v| V T^{-1} e_1`, the m-th iterate of conjugate gradients, the solution in the
    second. Both are exact for m = n: what is left is the variance of the probes, none for n orthogonal ones.

    Parameters
    ----------
    probes : int
        number of probes at each point, for "orthogonal" at most n.
    iterations : int
        Lanczos steps m, one product each; more than n are never taken.
    tolerance : float
        steps end before when the residual of every :math:`H s = v` is below this part of \|v\|.
    distribution : str
        "rademacher" (signs), "gaussian", or "orthogonal": columns of a random rotation, of length :math:`\sqrt n`.
    generator : torch.Generator
        of the probes; default a new one with seed 0.

    Raises
    ------
    ValueError
        if a number is out of range, or if a Jacobian is found not to be positive definite.
    """

    _: KW_ONLY
    probes: int = 1
    iterations: int = 20
    tolerance: float = 1e-4
    distribution: Distribution = "rademacher"
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def __post_init__(self) -> None:
        if self.probes < 1 or self.iterations < 1:
            raise ValueError(f"probes, iterations: got {self.probes}, {self.iterations}, expected at least 1 and 1")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance: got {self.tolerance}, expected a number in [0, 1)")
        if self.distribution not in ("rademacher", "gaussian", "orthogonal"):
            raise ValueError(f"distribution: got {self.distribution!r}, expected rademacher, gaussian or orthogonal")

    def __call__(self, network: GradientNetwork, x: Tensor) -> Tensor:
        v = self._draw(x)
        points = x.repeat(self.probes, 1)
        krylov = _lanczos(network, points.detach(), v, self.iterations, self.tolerance)
        value = krylov.log_form().view(self.probes, len(x)).mean(0)
        if not torch.is_grad_enabled():
            return value
        # Zero in value; its derivative is that of the log-determinant.
        form = dot(network.hvp(points, v), krylov.solution()).view(self.probes, len(x)).mean(0)
        return value + (form - form.detach())

    def _draw(self, x: Tensor) -> Tensor:
        """Probes (probes * B, n), those of one round after the other."""
        batch, n = x.shape
        options = {"generator": self.generator, "device": self.generator.device, "dtype": x.dtype}
        if self.distribution == "orthogonal":
            if self.probes > n:
                raise ValueError(f"probes: got {self.probes}, expected at most {n} orthogonal ones")
            q = torch.linalg.qr(torch.randn(batch, n, self.probes, **options)).Q  # type: ignore[call-overload]
            return math.sqrt(n) * q.permute(2, 0, 1).reshape(-1, n).to(x.device)
        v: Tensor = torch.randn(self.probes * batch, n, **options)  # type: ignore[call-overload]
        # A zero has no sign; it has probability zero too.
        return (v.sign() if self.distribution == "rademacher" else v).to(x.device)


@dataclass(frozen=True, eq=False)
class _Krylov:
    """Orthonormal bases V (B, n, m) started at v / |v|, and the spectral decompositions of T = V^T H V."""

    basis: Tensor
    values: Tensor
    vectors: Tensor
    length: Tensor

    def log_form(self) -> Tensor:
        """The quadratures of v^T log(H) v, shape (B,)."""
        return self.length.square() * (self.vectors[:, 0].square() * self.values.log()).sum(1)

    def solution(self) -> Tensor:
        """The approximations of H^{-1} v, shape (B, n)."""
        small = torch.einsum("bij,bj->bi", self.vectors, self.vectors[:, 0] / self.values)
        return self.length[:, None] * torch.einsum("bni,bi->bn", self.basis, small)


@torch.no_grad()
def _lanczos(network: GradientNetwork, x: Tensor, v: Tensor, iterations: int, tolerance: float) -> _Krylov:
    """Lanczos steps with full reorthogonalization, for each point its own."""
    functional = network.functional().to(x.dtype)
    responses = functional.linear(x)
    length = torch.linalg.vector_norm(v, dim=1)
    alive = torch.ones_like(length, dtype=torch.bool)
    basis, diagonal, off_diagonal = [v / length[:, None]], [], []
    # The pivot of T in its LDL^T factorization, and the last entry of T^{-1} e_1 up to its sign.
    pivot, last = torch.ones_like(length), torch.ones_like(length)
    beta = torch.zeros_like(length)
    steps = min(iterations, x.shape[1])
    for k in range(steps):
        w = functional.hvp_from(responses, functional.linear(basis[-1]), x.shape)
        size = torch.linalg.vector_norm(w, dim=1)
        # A basis that has become invariant ends; its block is padded by ones, which have no weight.
        alpha = torch.where(alive, dot(w, basis[-1]), 1.0)
        diagonal.append(alpha)
        pivot_before, pivot = pivot, alpha - beta.square() / pivot
        last = last * (beta / pivot_before if k else 1.0)
        if k + 1 == steps:
            break
        known = torch.stack(basis, 2)
        for _ in range(2):
            w = w - torch.einsum("bnk,bk->bn", known, torch.einsum("bnk,bn->bk", known, w))
        beta = torch.linalg.vector_norm(w, dim=1)
        alive = alive & (beta > 10 * torch.finfo(x.dtype).eps * size)
        beta = torch.where(alive, beta, 0.0)
        if bool((beta * last <= tolerance * pivot).all()):
            break
        off_diagonal.append(beta)
        basis.append(torch.where(alive[:, None], w / torch.where(alive, beta, 1.0)[:, None], 0.0))
    T = torch.stack(diagonal, 1).diag_embed()
    if off_diagonal:
        upper = torch.stack(off_diagonal, 1).diag_embed(1)
        T = T + upper + upper.mT
    values, vectors = torch.linalg.eigh(T)
    _check_definite(values[:, 0] > 0)
    return _Krylov(torch.stack(basis, 2), values, vectors, length)


def _check_definite(definite: Tensor) -> None:
    if not bool(definite.all()):
        rows = (~definite).nonzero().flatten().tolist()
        raise ValueError(
            f"network: the Jacobian is not positive definite at points {rows[:5]}, expected a network with a positive"
            " strong_convexity"
        )
