r"""Flows of measures in Wasserstein space, one gradient network for each implicit step.

The density :math:`\rho_t` of a diffusion :math:`dX = -\nabla V(X)\,dt + \sqrt{2\tau}\,dB` descends the free energy
:math:`\int V \rho + \tau \int \rho \log \rho` as fast as the distance :math:`W_2` allows (Jordan, Kinderlehrer, Otto
1998, doi:10.1137/S0036141096303359). Every implicit Euler step of it is a push-forward by the gradient of a convex
function (Brenier), which a network of this package is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from icgn.compat import keyword_only
from icgn.transport.composition import Composition
from icgn.transport.convex_flow import half_cosine
from icgn.transport.logdet import ExactLogDet, LogDet
from icgn.transport.vectors import GradientNetwork, check_vectors


@keyword_only
@dataclass(frozen=True)
class JKORecipe:
    """How :func:`jko_step` trains.

    Attributes
    ----------
    step : float
        the time step h.
    temperature : float
        the factor of the entropy.
    steps : int
        steps of Adam.
    batch : int
        points of each, drawn without replacement; all if there are fewer.
    learning_rate : float
        of the first half, then falling to zero along a cosine.
    """

    _: KW_ONLY
    step: float = 0.05
    temperature: float = 1.0
    steps: int = 100
    batch: int = 512
    learning_rate: float = 1e-2

    def __post_init__(self) -> None:
        for name in ("step", "temperature", "steps", "batch", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected a positive number")


def jko_energy(
    network: GradientNetwork,
    x: Tensor,
    potential: Callable[[Tensor], Tensor],
    recipe: JKORecipe,
    logdet: LogDet | None = None,
) -> Tensor:
    r"""What one step minimizes over convex f (Mokrov et al. 2021, arXiv:2106.00736), a scalar.

    .. math::

        E\Big[\tfrac1{2h} |\nabla f(x) - x|^2 + V(\nabla f(x)) - \tau \log\det \nabla^2 f(x)\Big],

    over points x (B, n) of the density before the step: it differs by a constant from
    :math:`W_2^2(\rho, \rho_k) / 2h + \int V \rho + \tau \int \rho \log\rho` at :math:`\rho = (\nabla f)_\# \rho_k`.
    """
    y = network(x)
    change = (logdet or ExactLogDet())(network, x)
    return ((y - x).square().sum(1) / (2 * recipe.step) + potential(y) - recipe.temperature * change).mean()


@keyword_only
def jko_step(
    network: GradientNetwork,
    x: Tensor,
    potential: Callable[[Tensor], Tensor],
    recipe: JKORecipe,
    generator: torch.Generator,
    *,
    logdet: LogDet | None = None,
) -> list[float]:
    r"""Train a network to be the map of one implicit step.

    Parameters
    ----------
    network : GradientNetwork
        changed in place; start from the last step's, or near the identity
        (:func:`~icgn.transport.composition.fit_affine`).
    x : Tensor
        points (N, n) of the density before the step, the more the better: what they miss of it is not seen.
    potential : callable
        V of points (B, n), shape (B,), differentiable.
    recipe : JKORecipe
        the time step and so on.
    generator : torch.Generator
        of the batches.
    logdet : LogDet, optional
        by default exact.

    Returns
    -------
    list of float
        :func:`jko_energy` of the batches.

    Raises
    ------
    TypeError, ValueError
        if x is not a floating-point tensor (N, n) of finite numbers or V has another shape.
    """
    check_vectors(x, network.dim)
    with torch.no_grad():
        values = potential(x[:2])
    if values.shape != x[:2, 0].shape:
        raise ValueError(f"potential: got values of shape {tuple(values.shape)} for {len(x[:2])} points, expected (B,)")
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: half_cosine(k / recipe.steps))
    energies = []
    for _ in range(recipe.steps):
        index = torch.randperm(len(x), generator=generator, device=generator.device)[: recipe.batch]
        energy = jko_energy(network, x[index.to(x.device)], potential, recipe, logdet)
        optimizer.zero_grad()
        energy.backward()
        optimizer.step()
        schedule.step()
        energies.append(float(energy.detach()))
    return energies


class WassersteinFlow(Composition):
    r"""A measure with density, pushed forward by one gradient network after the other.

    .. math:: \log \rho_K(T(x)) = \log \rho_0(x) - \log\det DT(x), \qquad T = \nabla f_K \circ \dots \circ \nabla f_1.

    Parameters
    ----------
    initial : torch.distributions.Distribution
        :math:`\rho_0`, of vectors (n,).
    networks : sequence of GradientNetwork
        the maps of the steps.

    Raises
    ------
    ValueError
        if there is none, or dimensions differ.
    """

    def __init__(self, initial: Distribution, networks: list[GradientNetwork]) -> None:
        super().__init__(networks)
        if initial.event_shape != (self.dim,):
            raise ValueError(f"initial: got vectors {tuple(initial.event_shape)}, expected ({self.dim},)")
        self.initial = initial

    @keyword_only
    def log_prob(self, y: Tensor, *, tol: float = 1e-5) -> Tensor:
        """Logarithms of the density at y (B, n), found at the certified preimage of y; see :meth:`inverse`."""
        x = self.inverse(y, tol=tol)
        return self.initial.log_prob(x) - self.push(x).logdet


class Divergence(NamedTuple):
    r"""Estimates of :math:`KL(\rho | q)` and :math:`KL(q | \rho)` in nats, and the standard error of their sum."""

    forward: float
    backward: float
    error: float

    @property
    def symmetric(self) -> float:
        """Their sum."""
        return self.forward + self.backward


@keyword_only
@torch.no_grad()
def symmetric_kl(
    flow: WassersteinFlow, target: Distribution, start: Tensor, reference: Tensor, *, tol: float = 1e-5
) -> Divergence:
    r"""Kullback-Leibler divergences between the density of a flow and a known one, in both directions.

    Averages of log-ratios of densities, nothing fitted to the points: :math:`E \log\rho(T(x)) - \log q(T(x))` over
    points x of :math:`\rho_0` by change of variables, and :math:`E \log q(y) - \log\rho(y)` over points y of q,
    :math:`\rho(y)` at the certified preimage of y.

    Parameters
    ----------
    flow : WassersteinFlow
        with density :math:`\rho`.
    target : torch.distributions.Distribution
        q.
    start, reference : Tensor
        points (B, n) of :math:`\rho_0` and of q.
    tol : float
        RMS distance of the preimages.

    Raises
    ------
    TypeError, ValueError
        if points are not floating-point tensors (B, n) of finite numbers.
    """
    check_vectors(start, flow.dim, "start")
    check_vectors(reference, flow.dim, "reference")
    pushed = flow.push(start)
    forward = flow.initial.log_prob(start) - pushed.logdet - target.log_prob(pushed.points)
    backward = target.log_prob(reference) - flow.log_prob(reference, tol=tol)
    variances = [float(ratio.double().var()) / len(ratio) for ratio in (forward, backward)]
    return Divergence(float(forward.double().mean()), float(backward.double().mean()), math.sqrt(sum(variances)))


@keyword_only
@dataclass(frozen=True, eq=False)
class OrnsteinUhlenbeck:
    r"""The diffusion of :math:`V(x) = \tfrac12 (x - b)^T A (x - b)`, whose Gaussian marginals are known.

    .. math::

        m_t = b + e^{-At} (m_0 - b), \qquad C_t = e^{-At} C_0 e^{-At} + \tau A^{-1} (I - e^{-2At}).

    Attributes
    ----------
    stiffness : Tensor
        symmetric, positive definite A (n, n).
    centre : Tensor
        b (n,).
    temperature : float
        :math:`\tau`.

    Raises
    ------
    ValueError
        if A is not symmetric and positive definite, or dimensions differ.
    """

    stiffness: Tensor
    centre: Tensor
    _: KW_ONLY
    temperature: float = 1.0

    def __post_init__(self) -> None:
        n, A = len(self.centre), self.stiffness
        if A.shape != (n, n) or not bool(torch.isfinite(A).all()) or not torch.allclose(A, A.mT):
            raise ValueError(f"stiffness: got a tensor {tuple(A.shape)}, expected a symmetric matrix ({n}, {n})")
        if not float(torch.linalg.eigvalsh(A)[0]) > 0:
            raise ValueError("stiffness: got a matrix that is not positive definite, expected one that is")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature: got {self.temperature}, expected a positive number")

    def potential(self, x: Tensor) -> Tensor:
        """V(x), shape (B,)."""
        apart = x - self.centre.to(x)
        return ((apart @ self.stiffness.to(x)) * apart).sum(1) / 2

    def marginal(self, initial: MultivariateNormal, t: float) -> MultivariateNormal:
        """The density at time t from a Gaussian one at time 0."""
        A = self.stiffness.double()
        decay = torch.linalg.matrix_exp(-A * t)
        mean = self.centre.double() + decay @ (initial.mean.double() - self.centre.double())
        grown = self.temperature * torch.linalg.solve(A, torch.eye(len(A)).to(A) - decay @ decay)
        return _gaussian(mean, decay @ initial.covariance_matrix.double() @ decay + grown, initial)

    def implicit_step(self, before: MultivariateNormal, h: float) -> MultivariateNormal:
        r"""The density after one exact implicit step from a Gaussian one, for covariances C that commute with A.

        The map is affine with the matrix :math:`S`, :math:`(I + hA) S - I = h \tau\, (C S)^{-1}`, a quadratic equation
        for the new square root :math:`S C^{1/2}` of the covariance. The mean solves :math:`(I + hA) m' = m + h A b`.

        Raises
        ------
        ValueError
            if A and C do not commute.
        """
        A, C = self.stiffness.double(), before.covariance_matrix.double()
        if not torch.allclose(A @ C, C @ A, atol=100 * torch.finfo(before.mean.dtype).eps * float(A.norm() * C.norm())):
            raise ValueError(
                "before: got a covariance that does not commute with the stiffness, expected one that does"
            )
        stiff = torch.eye(len(A)).to(A) + h * A
        # The greater root of the quadratic equation; all these matrices commute.
        root = torch.linalg.solve(2 * stiff, _square_root(C) + _square_root(C + 4 * h * self.temperature * stiff))
        mean = torch.linalg.solve(stiff, before.mean.double() + h * A @ self.centre.double())
        return _gaussian(mean, root @ root, before)


def _square_root(C: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(C)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T


def _gaussian(mean: Tensor, covariance: Tensor, like: MultivariateNormal) -> MultivariateNormal:
    return MultivariateNormal(mean.to(like.mean), ((covariance + covariance.mT) / 2).to(like.mean))
