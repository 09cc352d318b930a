"""Problems whose regularizer depends on the data: first solutions, their condition, and the problem given it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from icgn.functionals.functional import per_image
from icgn.solvers.implicit import attach_gradient
from icgn.solvers.iterate import Reached, Residual, iterate
from icgn.solvers.methods.choice import choose
from icgn.solvers.methods.method import Method
from icgn.solvers.objective import Objective
from icgn.solvers.problem import Problem


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
        iterations that the first solutions took, int64 (B,).
    work : Tensor
        pairs of a linear map and its adjoint applied per image, (B,).
    """

    problem: Problem
    x: Tensor
    iterations: Tensor
    work: Tensor


def is_conditional(problem: Problem) -> bool:
    """Whether a condition has to be computed before the problem can be solved."""
    return problem.condition is None and len(problem.regularizer.looseness) > 0


def conditioned(
    problem: Problem,
    method: str | Method[Any] = "auto",
    *,
    x0: Tensor | None = None,
    max_iter: int = 1000,
    in_all: int | None = None,
    differentiable: bool = False,
    cg_tol: float = 1e-6,
    cg_iter: int = 200,
) -> Conditioned:
    r"""Compute the condition of a problem from first solutions: one without a condition, then others with the last one.

    The network sees the solution :math:`x_0`, sigma and the residual
    :math:`-\sigma^2 \nabla_x D(A x_0; y) / \text{weight}`, an image for every physics: :math:`y - x_0` for denoising,
    and :math:`\nabla R(x_0)` at the minimizer of the problem without a box.

    Parameters
    ----------
    problem : Problem
        with a conditional regularizer, and with a weight that is a number. The regularizer's attribute ``looseness``
        has one entry per condition to compute: the RMS gradient, as a part of sigma, to which the problem before it is
        solved. Its method ``condition(x, sigma, residual)`` computes one.
    method : str or Method
        as in :func:`icgn.solvers.solve`.
    x0 : Tensor, optional
        starting images (B, C, H, W); default :meth:`Problem.start`.
    max_iter : int
        iterations allowed for each solution on the way.
    in_all : int, optional
        iterations allowed for all of them together.
    differentiable : bool
        keep the graph from the parameters and y to the condition; solutions on the way are differentiated as if they
        were minimizers.
    cg_tol, cg_iter : float and int
        of the linear systems of these derivatives, see :func:`icgn.solvers.implicit.attach_gradient`.
    """
    regularizer = problem.regularizer
    x = problem.start() if x0 is None else x0
    work = torch.zeros(len(problem.y), dtype=torch.float64, device=problem.y.device)
    iterations = torch.zeros_like(work, dtype=torch.int64)
    posed = problem
    for looseness in regularizer.looseness:
        tol = looseness * torch.as_tensor(problem.sigma, dtype=torch.float64, device=x.device).reshape(-1)
        limit: int | Tensor = max_iter if in_all is None else (in_all - iterations).clamp(max=max_iter)
        reached = approach(posed.objective, method, x.detach(), tol, limit, problem.valid)
        x, iterations, work = reached.x, iterations + reached.iterations, work + reached.work
        with torch.set_grad_enabled(differentiable):
            graph = posed.build_objective() if differentiable else posed.objective
            point = attach_gradient(graph, posed.objective, x, cg_tol, cg_iter) if differentiable else x
            left = residual(graph, point)
            # Masks of large pictures fill a good part of the memory: the last ones go before the next are made.
            del posed, graph
            posed = problem.given(condition=regularizer.condition(point, problem.sigma, left))
    return Conditioned(posed, x.detach(), iterations, work)


def residual(objective: Objective, x: Tensor) -> Tensor:
    r"""The image :math:`-\sigma^2 \nabla_x D(A x; y) / \text{weight}`; 0 where the weight is 0 or y is not finite."""
    weight = torch.where(objective.weight > 0, objective.data_weight / objective.weight, 0.0)
    return torch.nan_to_num(-per_image(weight, x) * objective.data.grad(x), 0.0, 0.0, 0.0)


@torch.no_grad()
def approach(
    objective: Objective,
    method: str | Method[Any],
    x0: Tensor,
    tol: Tensor,
    max_iter: int | Tensor,
    valid: Tensor | None = None,
) -> Reached:
    """Iterate until the RMS residual of each image is at most its entry of `tol`; nothing is proved.

    Parameters
    ----------
    objective : Objective
        of images like `x0`.
    method : str or Method
        as in :func:`icgn.solvers.solve`.
    x0 : Tensor
        starting images (B, C, H, W).
    tol : Tensor
        RMS residual in intensities, float64 (1,) or (B,).
    max_iter : int or Tensor
        iterations allowed, for all images or int64 (B,).
    valid : Tensor, optional
        the images to run, bool (B,); the others come back as 0.
    """
    chosen = choose(method, objective, x0)
    index = None if valid is None else torch.nonzero(valid).flatten()
    rule = Residual(tol.expand(len(x0)), objective.box)
    reached = iterate("first", objective, chosen, x0, rule, max_iter, index)
    if valid is None:
        return reached
    return Reached(torch.where(per_image(valid, x0).bool(), reached.x, 0.0), reached.iterations, reached.work)
