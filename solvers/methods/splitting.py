"""Objectives split into a smooth part and a part whose proximal map is taken: gradient-type methods differ in this."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import deepinv
import torch
from torch import Tensor

from icgn.functionals.box import Box
from icgn.functionals.data import GaussianData, WeightedGaussianData
from icgn.functionals.functional import ConvexFunctional, Responses, dot, per_image
from icgn.functionals.physics import is_identity
from icgn.functionals.sums import SumFunctional
from icgn.solvers.iterate import StopRule, iterate
from icgn.solvers.methods.conjugate import ConjugateGradient
from icgn.solvers.methods.method import State
from icgn.solvers.methods.projection import project
from icgn.solvers.objective import Objective

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
        whole = parts(objective)
        data = whole.data
        assert isinstance(data, GaussianData)
        return cls(SumFunctional([whole.regularizer], [whole.weight]), data, whole.data_weight)

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
        whole = parts(objective)
        smooth = SumFunctional([whole.data], [whole.data_weight])
        return cls(smooth, whole.regularizer, whole.weight, accuracy)

    def responses(self, u: Responses) -> Responses:
        return (u[0],)

    def evaluate(self, u: Responses, x: Tensor) -> Evaluation:
        smooth_grad = self.smooth.grad_from(u, x.shape)
        response = self.regularizer.linear(x)
        grad = smooth_grad + per_image(self.weight, x) * self.regularizer.grad_from(response, x.shape)
        return Evaluation((u[0], response), grad, smooth_grad, 1.0)

    def backward(self, z: Tensor, t: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        return inexact_prox(self.regularizer, t * self.weight.to(t), z, near, Relative(near, self.accuracy))

    def strong_convexity(self) -> Tensor:
        return self.weight * self.regularizer.strong_convexity().to(self.weight.device)


def parts(objective: ConvexFunctional) -> Objective:
    """The objective as one of two terms, which splittings need."""
    assert isinstance(objective, Objective)
    return objective


def data_prox(data: GaussianData, z: Tensor, gamma: Tensor) -> Tensor:
    r"""The images :math:`\arg\min_x \tfrac{\gamma}{2} |A x - y|^2 + \tfrac12 |x - z|^2`, one :math:`\gamma` per image.

    Exact where deepinv decomposes the operator, by conjugate gradients to a relative residual of 1e-6 elsewhere. Where
    gamma is 0 it is z.
    """
    physics = data.physics
    # deepinv divides by gamma.
    g = per_image(gamma.clamp_min(torch.finfo(z.dtype).tiny ** 0.5), z)
    weights = data.weights if isinstance(data, WeightedGaussianData) else None
    if is_identity(physics):
        g = g if weights is None else g * weights
        return (z + g * data.y) / (1 + g)
    if weights is not None:
        root = weights.sqrt()
        return _least_squares(lambda x: root * physics.A(x), lambda r: physics.A_adjoint(root * r), root * data.y, z, g)
    if isinstance(physics, deepinv.physics.DecomposablePhysics):
        return physics.prox_l2(z, data.y, g)
    # Not prox_l2: with a tolerance it changes the physics of the caller.
    return _least_squares(physics.A, physics.A_adjoint, data.y, z, g)


def _least_squares(
    forward: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor], y: Tensor, z: Tensor, g: Tensor
) -> Tensor:
    solution: Tensor = deepinv.optim.linear.least_squares(
        forward, adjoint, y, z=z, init=z, gamma=g, parallel_dim=[0], tol=1e-6, max_iter=100
    )
    return solution


class Relative(StopRule):
    """Proximal points end when the gradient is at most a part of their distance from the points `near`."""

    every = 1

    def __init__(self, near: Tensor, accuracy: float) -> None:
        self.near, self.accuracy = near, accuracy

    def measure(self, objective: ConvexFunctional, state: State, index: Tensor) -> Tensor:
        step = state.x - self.near[index]
        square = dot(state.grad, state.grad)
        return torch.where(square == 0, 0.0, (square / dot(step, step)).sqrt() / self.accuracy)


def inexact_prox(
    regularizer: ConvexFunctional, gamma: Tensor, z: Tensor, start: Tensor, rule: Relative
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
    rule : Relative
        when a point is accurate enough.

    Returns
    -------
    tuple of Tensor
        images (B, C, H, W) and the work of each, (B,).
    """
    identity = GaussianData(z, deepinv.physics.Denoising(), torch.ones(2, dtype=torch.float64))
    objective = Objective.of(identity, regularizer, torch.ones_like(gamma), gamma, None)
    reached = iterate("prox", objective, ConjugateGradient(), start, rule, _INNER)
    return reached.x, reached.work
