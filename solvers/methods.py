"""The methods by name, and the automatic choice."""

from __future__ import annotations

from typing import Any

from icgn.solvers.accelerated import AcceleratedGradient
from icgn.solvers.conjugate import ConjugateGradient
from icgn.solvers.gradient import GradientDescent
from icgn.solvers.method import Method
from icgn.solvers.problem import Problem

METHODS: dict[str, type[Method[Any]]] = {
    "gradient": GradientDescent,
    "accelerated": AcceleratedGradient,
    "conjugate": ConjugateGradient,
}


def choose(method: str | Method[Any], problem: Problem) -> Method[Any]:
    """The method for a problem, checked against its assumptions.

    ``"auto"`` is :class:`ConjugateGradient`, the fastest in ``benchmarks/``, and :class:`AcceleratedGradient` where
    there is a box.

    Raises
    ------
    ValueError
        if there is no method of that name, or if the problem breaks its assumptions.
    """
    if isinstance(method, str):
        if method == "auto":
            method = "conjugate" if problem.box is None else "accelerated"
        if method not in METHODS:
            raise ValueError(f"method: got {method!r}, expected 'auto' or one of {', '.join(METHODS)}")
        method = METHODS[method]()
    method.check(problem)
    return method
