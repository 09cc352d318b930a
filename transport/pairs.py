"""Pairs of probability measures whose optimal transport map is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.transport.dense import DenseSoftmaxICGN
from icgn.transport.samples import Sampler

# Eigenvalues of a covariance below this part of the largest, and asymmetries above it, are refused.
_RELATIVE = 1e-10


@dataclass(frozen=True, eq=False)
class AffineMap:
    r"""The map :math:`T(x) = A (x - m) + m'` of samples x (B, d).

    Attributes
    ----------
    matrix : Tensor
        A, (d, d), float64.
    source_mean, target_mean : Tensor
        m and m', (d,), float64.
    """

    matrix: Tensor
    source_mean: Tensor
    target_mean: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """T(x), in the precision and on the device of x."""
        return (x - self.source_mean.to(x)) @ self.matrix.to(x).T + self.target_mean.to(x)


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    r"""The measure :math:`\sum_k w_k \mathcal N(m_k, L_k L_k^T)`, a sampler: ``mixture(n)`` draws (n, d) in float32.

    Attributes
    ----------
    means : Tensor
        (K, d), float64.
    factors : Tensor
        square roots L of the covariances, (K, d, d), float64.
    weights : Tensor
        (K,), positive, float64.
    generator : torch.Generator
        of the draws, on the CPU.
    """

    means: Tensor
    factors: Tensor
    weights: Tensor
    generator: torch.Generator

    def __call__(self, n: int) -> Tensor:
        """Draw n samples."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=self.generator)
        noise = torch.randn(n, self.means.shape[1], generator=self.generator, dtype=self.means.dtype)
        out = torch.empty_like(noise)
        for i, (mean, factor) in enumerate(zip(self.means, self.factors, strict=True)):
            out[k == i] = noise[k == i] @ factor.T + mean
        return out.float()


@dataclass(frozen=True, eq=False)
class Pair:
    r"""Two measures :math:`\mu, \nu` on R^d with the optimal map :math:`T^*` between them.

    Attributes
    ----------
    name : str
        for tables.
    source, target : Sampler
        draw from mu and nu.
    map : callable
        the optimal map T*, (B, d) to (B, d).
    """

    name: str
    source: Sampler
    target: Sampler
    map: Callable[[Tensor], Tensor]


def gaussian_map(mean: Tensor, cov: Tensor, target_mean: Tensor, target_cov: Tensor) -> AffineMap:
    r"""The optimal map between two Gaussians.

    .. math:: T(x) = A (x - m) + m', \qquad A = C^{-1/2} (C^{1/2} C' C^{1/2})^{1/2} C^{-1/2},

    with A symmetric positive semi-definite, so that T is the gradient of a convex quadratic function (Peyre and Cuturi
    2019, arXiv:1803.00567, remark 2.31). Computed in float64.

    Parameters
    ----------
    mean, cov : Tensor
        m, (d,), and C, (d, d), of the source.
    target_mean, target_cov : Tensor
        m' and C' of the target.

    Raises
    ------
    ValueError
        if shapes do not agree, a number is not finite, a covariance is not symmetric or has a negative eigenvalue, or
        the source's is singular: a map need then not exist.
    """
    m = _mean("mean", mean, None)
    n = _mean("target_mean", target_mean, len(m))
    values, vectors = _spectrum("cov", cov, len(m))
    _refuse_singular("cov", values)
    other_values, other_vectors = _spectrum("target_cov", target_cov, len(m))
    root = (vectors * values.sqrt()) @ vectors.T
    inverse_root = (vectors * values.rsqrt()) @ vectors.T
    product = root @ ((other_vectors * other_values) @ other_vectors.T) @ root
    inner, axes = torch.linalg.eigh((product + product.T) / 2)
    matrix = inverse_root @ ((axes * inner.clamp_min(0).sqrt()) @ axes.T) @ inverse_root
    return AffineMap((matrix + matrix.T) / 2, m, n)


@keyword_only
def random_covariance(dim: int, generator: torch.Generator, *, condition: float = 10.0) -> Tensor:
    r"""A covariance (d, d) with random axes and log-uniform eigenvalues from c^(-1/2) to c^(1/2), c the `condition`.

    The extreme eigenvalues are taken, so that the condition number is exactly c for d > 1.

    Parameters
    ----------
    dim : int
        dimension d.
    generator : torch.Generator
        of the random numbers, on the CPU.
    condition : float
        c, at least 1.

    Raises
    ------
    ValueError
        if `dim` or `condition` is below 1.
    """
    if dim < 1 or not 1 <= condition < math.inf:
        raise ValueError(f"dim, condition: got {dim}, {condition}, expected at least 1 and a finite number >= 1")
    axes = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64)).Q
    exponents = torch.rand(dim, generator=generator, dtype=torch.float64) - 0.5
    exponents[0], exponents[-1] = -0.5, 0.5
    cov = (axes * condition**exponents) @ axes.T
    return (cov + cov.T) / 2


@keyword_only
def gaussian_pair(dim: int, generator: torch.Generator, *, condition: float = 10.0) -> Pair:
    """Two Gaussians of random means and covariances (:func:`random_covariance`), with their map in closed form.

    Parameters
    ----------
    dim : int
        dimension d.
    generator : torch.Generator
        of the measures and, from then on, of their samples.
    condition : float
        condition number of the covariances, at least 1.

    Raises
    ------
    ValueError
        see :func:`random_covariance`.
    """
    means = torch.randn(2, dim, generator=generator, dtype=torch.float64)
    covs = torch.stack([random_covariance(dim, generator, condition=condition) for _ in range(2)])
    source, target = (
        GaussianMixture(m[None], torch.linalg.cholesky(c)[None], torch.ones(1, dtype=torch.float64), generator)
        for m, c in zip(means, covs, strict=True)
    )
    return Pair(f"Gaussian, d = {dim}", source, target, gaussian_map(means[0], covs[0], means[1], covs[1]))


@keyword_only
def mixture_pair(dim: int, generator: torch.Generator, *, components: int = 4, pieces: int = 8) -> Pair:
    r"""A random Gaussian mixture and its image under the gradient of a random convex function.

    .. math:: T^*(x) = 0.3 x + \sum_g W_g^T \operatorname{softmax}(W_g x + b_g),

    a gradient of a convex function, thus optimal to the image of any measure (Brenier 1991; Makkuva et al. 2020,
    arXiv:1908.10347, and Korotin et al. 2021, arXiv:2106.01954, test solvers in this way). The softmax part comes from
    :class:`~icgn.regularizers.DenseSoftmaxICGN` with two modules.

    Parameters
    ----------
    dim : int
        dimension d.
    generator : torch.Generator
        of the measures and, from then on, of their samples.
    components : int
        components of the mixture.
    pieces : int
        classes of each softmax module.

    Raises
    ------
    ValueError
        if `components` is below 1, `pieces` below 2, or `dim` below 1.
    """
    if components < 1:
        raise ValueError(f"components: got {components}, expected at least 1")
    network = _random_softmax(dim, pieces, generator)
    means = 2 * torch.randn(components, dim, generator=generator, dtype=torch.float64) / dim**0.25
    factors = torch.stack(
        [torch.linalg.cholesky(0.4 * random_covariance(dim, generator, condition=4.0)) for _ in means]
    )
    weights = 0.5 + torch.rand(components, generator=generator, dtype=torch.float64)
    source = GaussianMixture(means, factors, weights, generator)

    @torch.no_grad()
    def optimal(x: Tensor) -> Tensor:
        return network(x)

    return Pair(f"mixture, d = {dim}", source, lambda n: optimal(source(n)), optimal)


def _random_softmax(dim: int, pieces: int, generator: torch.Generator) -> DenseSoftmaxICGN:
    network = DenseSoftmaxICGN(dim, groups=2, members=pieces, strong_convexity=0.3)
    with torch.no_grad():
        network.W.copy_(2 * torch.randn(network.W.shape, generator=generator) / dim**0.25)
        network.bias.copy_(torch.randn(network.bias.shape, generator=generator))
        network.log_lambda.zero_()
    return network.requires_grad_(False)


def _mean(name: str, mean: Tensor, dim: int | None) -> Tensor:
    if mean.ndim != 1 or len(mean) < 1 or (dim is not None and len(mean) != dim):
        raise ValueError(f"{name}: got shape {tuple(mean.shape)}, expected ({'d' if dim is None else dim},)")
    if not bool(torch.isfinite(mean).all()):
        raise ValueError(f"{name}: got nan or infinite numbers, expected finite ones")
    return mean.detach().double()


def _spectrum(name: str, cov: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The eigenvalues, ascending and nonnegative, and eigenvectors of a valid covariance, in float64."""
    if cov.shape != (dim, dim):
        raise ValueError(f"{name}: got shape {tuple(cov.shape)}, expected ({dim}, {dim}), the mean being ({dim},)")
    if not bool(torch.isfinite(cov).all()):
        raise ValueError(f"{name}: got nan or infinite numbers, expected finite ones")
    relative = max(_RELATIVE, 10 * torch.finfo(cov.dtype).eps) if cov.is_floating_point() else _RELATIVE
    c = cov.detach().double()
    largest = float(c.abs().max())
    asymmetry = float((c - c.T).abs().max())
    if asymmetry > relative * largest:
        raise ValueError(f"{name}: got a matrix with |C - C^T| up to {asymmetry:.3g}, expected a symmetric one")
    values, vectors = torch.linalg.eigh((c + c.T) / 2)
    if float(values[0]) < -relative * largest * dim:
        raise ValueError(f"{name}: got an eigenvalue {float(values[0]):.3g}, expected none below 0")
    return values.clamp_min(0), vectors


def _refuse_singular(name: str, values: Tensor) -> None:
    if not float(values[0]) > _RELATIVE * float(values[-1]):
        raise ValueError(
            f"{name}: got a singular covariance, eigenvalues from {float(values[0]):.3g} to {float(values[-1]):.3g}, "
            "expected a positive definite one"
        )
