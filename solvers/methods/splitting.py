"""Objectives as a smooth part and a part whose proximal map is taken: what gradient-type methods differ in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import deepinv
import torch
from torch import Tensor

from icgn.functionals.box import Box
from icgn.functionals.data import DataFunctional, GaussianData
from icgn.functionals.functional import ConvexFunctional, Responses, dot, per_image
from icgn.functionals.physics import is_identity
from icgn.functionals.sums import SumFunctional
from icgn.solvers.methods.conjugate import ConjugateGradient
from icgn.solvers.methods.projection import project

# Inner iterations of an inexact proximal map; its accuracy is checked, so that this is a safeguard.
_INNER = 200


@dataclass(frozen=True)
class Evaluation:
    """F at images x: its responses u and gradient, the gradient of the smooth part, and the work per image."""

    u: Responses
    grad: Tensor
    smooth_grad: Tensor
    work: float


class Splitting(ABC):
    r"""An objective :math:`F = f + g` with :math:`\nabla f` and :math:`\mathrm{prox}_{t g}`.

    Attributes
    ----------
    smooth : ConvexFunctional
        f.
    """

    smooth: ConvexFunctional

    @abstractmethod
    def responses(self, u: Responses) -> Responses:
        """The responses of f among those of F."""

    @abstractmethod
    def evaluate(self, u: Responses, x: Tensor) -> Evaluation:
        """Evaluate F at images x with responses u of f."""

    @abstractmethod
    def backward(self, z: Tensor, t: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        """The proximal point of t g at images z, sought from `near`, and the work it took, shape (B,)."""

    def strong_convexity(self) -> Tensor:
        """Modulus of g, 0 where unknown."""
        return torch.zeros((), dtype=torch.float64)


@dataclass(frozen=True)
class BoxSplitting(Splitting):
    """f = F, g the indicator of the box, or nothing."""

    smooth: ConvexFunctional
    box: Box | None

    def responses(self, u: Responses) -> Responses:
        return u

    def evaluate(self, u: Responses, x: Tensor) -> Evaluation:
        grad = self.smooth.grad_from(u, x.shape)
        return Evaluation(u, grad, grad, 0.5)

    def backward(self, z: Tensor, t: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        return project(z, self.box), torch.zeros(len(z), dtype=torch.float64, device=z.device)


@dataclass(frozen=True)
class DataSplitting(Splitting):
    """f the regularizer, g the data term, whose proximal map is that of the physics."""

    smooth: ConvexFunctional
    data: GaussianData
    data_weight: Tensor

    @classmethod
    def of(cls, objective: ConvexFunctional) -> DataSplitting:
        """Split an objective of :class:`~icgn.solvers.Problem`."""
        data, regularizer, data_weight, weight = parts(objective)
        assert isinstance(data, GaussianData)
        return cls(SumFunctional([regularizer], [weight]), data, data_weight)

    def responses(self, u: Responses) -> Responses:
        return (u[1],)

    def evaluate(self, u: Responses, x: Tensor) -> Evaluation:
        smooth_grad = self.smooth.grad_from(u, x.shape)
        measured = self.data.linear(x)
        grad = smooth_grad + per_image(self.data_weight, x) * self.data.grad_from(measured, x.shape)
        return Evaluation((measured, u[0]), grad, smooth_grad, 0.5)

    def backward(self, z: Tensor, t: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        return data_prox(self.data, z, t * self.data_weight.to(t)), torch.zeros_like(t, dtype=torch.float64)

    def strong_convexity(self) -> Tensor:
        return self.data_weight * self.data.strong_convexity().to(self.data_weight.device)


@dataclass(frozen=True)
class RegularizerSplitting(Splitting):
    r"""f the data term, g the regularizer, whose proximal map is found by an inner solver.

    A point x is accepted for :math:`\mathrm{prox}_{t g}(z)`, sought from y, when
    :math:`|x - z + t \nabla g(x)| \le \rho\, |x - y|`: relative error criteria of this kind keep the rates of forward-
    backward splitting and of its acceleration (Bello-Cruz, Goncalves, Krislock 2020, arXiv:2005.03766), and need no
    sequence of tolerances.
    """

    smooth: ConvexFunctional
    regularizer: ConvexFunctional
    weight: Tensor
    accuracy: float

    @classmethod
    def of(cls, objective: ConvexFunctional, accuracy: float = 0.1) -> RegularizerSplitting:
        """Split an objective of :class:`~icgn.solvers.Problem`."""
        data, regularizer, data_weight, weight = parts(objective)
        return cls(SumFunctional([data], [data_weight]), regularizer, weight, accuracy)

    def responses(self, u: Responses) -> Responses:
        return (u[0],)

    def evaluate(self, u: Responses, x: Tensor) -> Evaluation:
        smooth_grad = self.smooth.grad_from(u, x.shape)
        response = self.regularizer.linear(x)
        grad = smooth_grad + per_image(self.weight, x) * self.regularizer.grad_from(response, x.shape)
        return Evaluation((u[0], response), grad, smooth_grad, 1.0)

    def backward(self, z: Tensor, t: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        def accurate(x: Tensor, r: Tensor) -> Tensor:
            return dot(r, r) <= self.accuracy**2 * dot(x - near, x - near)

        return inexact_prox(self.regularizer, t * self.weight.to(t), z, near, accurate)

    def strong_convexity(self) -> Tensor:
        return self.weight * self.regularizer.strong_convexity().to(self.weight.device)


class Parts(NamedTuple):
    """The two terms of an objective of :class:`~icgn.solvers.Problem`, and their weights (B,)."""

    data: DataFunctional
    regularizer: ConvexFunctional
    data_weight: Tensor
    weight: Tensor


def parts(objective: ConvexFunctional) -> Parts:
    """Data term, regularizer and their weights."""
    assert isinstance(objective, SumFunctional)
    data, regularizer = objective.terms
    assert isinstance(data, DataFunctional)
    return Parts(data, regularizer, *objective.weights)


def data_prox(data: GaussianData, z: Tensor, gamma: Tensor) -> Tensor:
    r"""The images :math:`\arg\min_x \tfrac{\gamma}{2} |A x - y|^2 + \tfrac12 |x - z|^2`, one :math:`\gamma` per image.

    Exact where deepinv decomposes the operator, by conjugate gradients to a relative residual of 1e-6 elsewhere. Where
    gamma is 0 it is z.
    """
    physics = data.physics
    # deepinv divides by gamma.
    g = per_image(gamma.clamp_min(torch.finfo(z.dtype).tiny ** 0.5), z)
    if is_identity(physics):
        return (z + g * data.y) / (1 + g)
    if isinstance(physics, deepinv.physics.DecomposablePhysics):
        return physics.prox_l2(z, data.y, g)
    # Not prox_l2: with a tolerance it changes the physics of the caller.
    return deepinv.optim.linear.least_squares(
        physics.A, physics.A_adjoint, data.y, z=z, init=z, gamma=g, parallel_dim=[0], tol=1e-6, max_iter=100
    )


def inexact_prox(
    regularizer: ConvexFunctional,
    gamma: Tensor,
    z: Tensor,
    start: Tensor,
    accurate: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    r"""Approximate :math:`\arg\min_x \tfrac12 |x - z|^2 + \gamma g(x)` by nonlinear conjugate gradients from `start`.

    Parameters
    ----------
    regularizer : ConvexFunctional
        g.
    gamma : Tensor
        nonnegative, (B,).
    z, start : Tensor
        images (B, C, H, W).
    accurate : callable
        says, given the images x and the gradients there, which images are accurate enough, bool (B,).

    Returns
    -------
    tuple of Tensor
        images (B, C, H, W) and the work of each, (B,).
    """
    identity = GaussianData(z, deepinv.physics.Denoising(), torch.ones(2, dtype=torch.float64))
    objective = SumFunctional([identity, regularizer], [torch.ones_like(gamma), gamma])
    method = ConjugateGradient()
    state = method.init(objective, start, None)
    x, work, running = state.x, state.work, torch.ones_like(gamma, dtype=torch.bool)
    for _ in range(_INNER):
        # An image stays as it was when it became accurate: the others must not change it.
        x = torch.where(per_image(running, x).bool(), state.x, x)
        work = torch.where(running, state.work, work)
        running = running & ~(accurate(state.x, state.grad) | (dot(state.grad, state.grad) == 0))
        if not bool(running.any()):
            break
        state = method.step(objective, state, None)
    return x, work
