"""Solvers for convex imaging problems, with a certificate for every image."""

from icgn.solvers.accelerated import AcceleratedGradient
from icgn.solvers.box import Box
from icgn.solvers.certificate import Certificate, certify
from icgn.solvers.conjugate import ConjugateGradient
from icgn.solvers.functional import BlackBoxFunctional, ConvexFunctional, SumFunctional
from icgn.solvers.gradient import GradientDescent
from icgn.solvers.method import Method, State
from icgn.solvers.problem import Problem
from icgn.solvers.solution import Solution, Stats, Status
from icgn.solvers.solve import solve

__all__ = [
    "AcceleratedGradient",
    "BlackBoxFunctional",
    "Box",
    "Certificate",
    "ConjugateGradient",
    "ConvexFunctional",
    "GradientDescent",
    "Method",
    "Problem",
    "Solution",
    "State",
    "Stats",
    "Status",
    "SumFunctional",
    "certify",
    "solve",
]
