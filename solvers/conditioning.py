"""Problems whose regularizer depends on the data: a first solution, the condition it gives, the convex problem left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from icgn.functionals.box import Box
from icgn.functionals.functional import ConvexFunctional, per_image
from icgn.solvers.certificate import optimality
from icgn.solvers.implicit import attach_gradient
from icgn.solvers.methods.choice import choose
from icgn.solvers.methods.method import Method
from icgn.solvers.problem import Problem, Regularizer

# Iterations between two looks at the gradient: each reads a number back from the device.
_LOOK_EVERY = 2


@dataclass(frozen=True, eq=False)
class Conditioned:
    """A problem with its condition.

    Attributes
    ----------
    problem : Problem
        the convex problem that is left.
    x : Tensor
        the solution that the condition was computed from, where to start.
    iterations : Tensor
        that it took, int64 (B,).
    work : Tensor
        pairs of a linear map and its adjoint applied per image, (B,).
    """

    problem: Problem
    x: Tensor
    iterations: Tensor
    work: Tensor


def is_conditional(problem: Problem) -> bool:
    """Whether a condition has to be computed before the problem can be solved."""
    return problem.condition is None and len(getattr(problem.regularizer, "looseness", ())) > 0


def conditioned(
    problem: Problem,
    method: str | Method[Any] = "auto",
    x0: Tensor | None = None,
    max_iter: int = 1000,
    differentiable: bool = False,
) -> Conditioned:
    r"""Compute the condition of a problem from its own solution without one, and again from that with it.

    The network sees the solution :math:`x_0`, sigma and the residual
    :math:`-\sigma^2 \nabla_x D(A x_0; y) / \text{weight}`, an image for every physics: :math:`y - x_0` for denoising,
    and :math:`\nabla R(x_0)` at the minimizer of the problem without a box.

    Parameters
    ----------
    problem : Problem
        of a conditional regularizer, with a weight that is a number. Its attribute ``looseness`` has one entry per
        condition to compute: the RMS gradient, as a part of sigma, to which the problem before it is solved. Its method
        ``condition(x, sigma, residual)`` computes one.
    method : str or Method
        as in :func:`icgn.solvers.solve`.
    x0 : Tensor, optional
        starting images; default :meth:`Problem.start`.
    max_iter : int
        iterations allowed for each solution on the way.
    differentiable : bool
        keep the graph from the parameters and y to the condition; solutions on the way are differentiated as if they
        were minimizers.
    """
    regularizer: Any = problem.regularizer
    x = problem.start() if x0 is None else x0
    work = torch.zeros(len(problem.y), dtype=torch.float64, device=problem.y.device)
    iterations = torch.zeros_like(work, dtype=torch.int64)
    for looseness in regularizer.looseness:
        tol = looseness * torch.as_tensor(problem.sigma, dtype=torch.float64, device=x.device).reshape(-1)
        reached = approach(problem, method, x.detach(), tol, max_iter)
        x, iterations, work = reached.x, iterations + reached.iterations, work + reached.work
        with torch.set_grad_enabled(differentiable):
            point = attach_gradient(problem, x) if differentiable else x
            condition = regularizer.condition(point, problem.sigma, residual(problem, point))
        problem = replace(problem, condition=condition)
    return Conditioned(problem, x.detach(), iterations, work)


def unconditional(problem: Problem) -> Problem:
    """The problem of a conditional regularizer without its condition; any other problem stays as it is."""
    return replace(problem, regularizer=_Unconditional(problem.regularizer)) if is_conditional(problem) else problem


class _Unconditional:
    """A conditional regularizer posing as the unconditional one it contains."""

    def __init__(self, regularizer: Regularizer) -> None:
        self.regularizer = regularizer

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> ConvexFunctional:
        return self.regularizer.at(sigma)

    def check_image(self, x: Tensor) -> None:
        self.regularizer.check_image(x)


def residual(problem: Problem, x: Tensor) -> Tensor:
    r"""The image :math:`-\sigma^2 \nabla_x D(A x; y) / \text{weight}`; 0 where the weight is 0 or y is not finite."""
    data = problem.build_objective()
    weight = torch.where(data.weights[1] > 0, data.weights[0] / data.weights[1], 0.0)
    return torch.nan_to_num(-per_image(weight, x) * data.terms[0].grad(x), 0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Approach:
    """Images near a minimizer, with the iterations (int64) and the work of each, (B,)."""

    x: Tensor
    iterations: Tensor
    work: Tensor


@torch.no_grad()
def approach(problem: Problem, method: str | Method[Any], x0: Tensor, tol: Tensor, max_iter: int) -> Approach:
    """Iterate until the RMS residual of each image is at most its entry of `tol`, (1,) or (B,); nothing is proved.

    Images stop one by one and do not influence each other. The image of a measurement that is not finite is 0.
    """
    chosen = choose(method, problem)
    box = problem.box if isinstance(problem.box, Box) else None
    x, work = torch.zeros_like(x0), torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
    iterations = torch.zeros(len(x0), dtype=torch.int64, device=x0.device)
    index = torch.nonzero(problem.valid).flatten()
    limit = tol.expand(len(x0))
    objective = problem.objective.select(index)
    state = chosen.init(objective, x0[index], box)
    for k in range(max_iter + 1):
        if k % _LOOK_EVERY == 0 or k == max_iter:
            _, rms = optimality(state.x, state.grad, objective.hessian_floor(state.x), box)
            ended = (rms.double() <= limit[index]) | (k == max_iter)
            if bool(ended.any()):
                at = index[ended]
                x[at], work[at], iterations[at] = state.x[ended], state.work[ended].double(), k
                keep = torch.nonzero(~ended).flatten()
                if len(keep) == 0:
                    break
                index, objective, state = index[keep], objective.select(keep), state.select(keep)
        state = chosen.step(objective, state, box)
    return Approach(x, iterations, work)
