"""The bilevel loss: the error of the minimizer."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.regularizers.base import ConvexRegularizer
from icgn.solvers import Problem
from icgn.solvers.conditioning import approach, conditioned, is_conditional
from icgn.solvers.implicit import attach_gradient
from icgn.solvers.unrolled import unroll
from icgn.training.losses.loss import Batch, Loss, full_precision, weighted_error
from icgn.training.ranges import COUNT, POSITIVE, Range, one_of


@keyword_only
@dataclass(frozen=True)
class Bilevel(Loss, name="bilevel"):
    r"""Error :math:`w(\sigma) |x^*(y) - x|^2 / n` of the minimizer of the objective (Kunisch and Pock 2013).

    Attributes
    ----------
    derivative : str
        how the minimizer is differentiated. ``implicit``: by the implicit function theorem, one linear system
        (Samuel and Tappen 2009). ``jacobian-free``: the same with the identity for the inverse Hessian (Fung et al.
        2022, arXiv:2103.12803), cheaper and biased. ``unrolled``: through `max_iter` gradient steps from the start of
        the problem; its memory grows with them, that of the others does not.
    tol : float
        RMS gradient of the objective asked of the inner solver, in intensities: for denoising it bounds the distance to
        the minimizer.
    max_iter : int
        inner iterations at most.
    cg_tol : float
        relative residual of the linear system of the implicit derivative.
    cg_iter : int
        its conjugate-gradient steps at most.
    """

    trains_conditional: ClassVar[bool] = True
    ranges: ClassVar[dict[str, Range]] = {
        "derivative": one_of("implicit", "jacobian-free", "unrolled"),
        "tol": POSITIVE,
        "max_iter": COUNT,
        "cg_tol": POSITIVE,
        "cg_iter": COUNT,
    }
    _: KW_ONLY
    derivative: str = "implicit"
    tol: float = 5e-4
    max_iter: int = 40
    cg_tol: float = 1e-2
    cg_iter: int = 12

    def values(self, regularizer: ConvexRegularizer, batch: Batch) -> Tensor:
        # A certified minimizer needs all the digits there are.
        with full_precision(batch.y):
            return weighted_error(self._minimizer(Problem(batch.y, batch.physics, regularizer, batch.sigma)), batch)

    def _minimizer(self, problem: Problem) -> Tensor:
        start = problem.start()
        system = self.cg_tol, self.cg_iter if self.derivative == "implicit" else 0
        if is_conditional(problem):
            first = conditioned(
                problem, max_iter=self.max_iter, differentiable=True, cg_tol=system[0], cg_iter=system[1]
            )
            problem, start = first.problem, first.x
        objective = problem.objective.lifted(start.shape)
        graph = problem.build_objective().lifted(start.shape)
        begun = objective.start(start)
        if self.derivative == "unrolled":
            return objective.seen(unroll(graph, begun, self.max_iter))
        tol = torch.full((1,), self.tol, dtype=torch.float64, device=start.device)
        x = approach(objective, "auto", begun, tol, self.max_iter, problem.valid).x
        return objective.seen(attach_gradient(graph, objective, x, *system))
