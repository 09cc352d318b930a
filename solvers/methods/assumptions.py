"""What methods assume of a problem: each check raises an error that names the method and the assumption."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icgn.functionals.data import GaussianData, PoissonData

if TYPE_CHECKING:
    from icgn.solvers.problem import Problem


def refuse_box(method: str, problem: Problem) -> None:
    """Raise ``ValueError`` if the problem has a box."""
    if problem.box is not None:
        raise ValueError(f"method: {method} assumes an unconstrained problem, got a box")


def refuse_domain(method: str, problem: Problem) -> None:
    """Raise ``ValueError`` if the data term is not finite everywhere."""
    if isinstance(problem.objective.terms[0], PoissonData):
        raise ValueError(f"method: {method} assumes an objective that is finite everywhere, got PoissonLikelihood")


def refuse_nonquadratic(method: str, problem: Problem) -> None:
    """Raise ``ValueError`` unless the data term is quadratic."""
    data = problem.objective.terms[0]
    if not isinstance(data, GaussianData):
        kind = type(problem.data_fidelity).__name__
        raise ValueError(f"method: {method} assumes a quadratic data term, whose prox is known, got {kind}")
