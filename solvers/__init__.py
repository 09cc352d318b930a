"""Solvers for convex imaging problems, with a certificate for every image."""

from icgn.solvers.accelerated import AcceleratedGradient
from icgn.solvers.admm import ADMM, HQS
from icgn.solvers.box import Box
from icgn.solvers.certificate import Certificate, certify
from icgn.solvers.conjugate import ConjugateGradient
from icgn.solvers.functional import BlackBoxFunctional, ConvexFunctional, SumFunctional
from icgn.solvers.gradient import GradientDescent
from icgn.solvers.lbfgs import LBFGS
from icgn.solvers.method import Method, State
from icgn.solvers.newton import NewtonCG
from icgn.solvers.nmapg import NmAPG
from icgn.solvers.primal_dual import PrimalDual
from icgn.solvers.problem import Problem
from icgn.solvers.proximal import FISTA, ProximalGradient
from icgn.solvers.reconstructor import Reconstructor
from icgn.solvers.solution import Solution, Stats, Status
from icgn.solvers.solve import solve
from icgn.solvers.strength import best_weight

__all__ = [
    "ADMM",
    "FISTA",
    "HQS",
    "LBFGS",
    "AcceleratedGradient",
    "BlackBoxFunctional",
    "Box",
    "Certificate",
    "ConjugateGradient",
    "ConvexFunctional",
    "GradientDescent",
    "Method",
    "NewtonCG",
    "NmAPG",
    "PrimalDual",
    "Problem",
    "ProximalGradient",
    "Reconstructor",
    "Solution",
    "State",
    "Stats",
    "Status",
    "SumFunctional",
    "best_weight",
    "certify",
    "solve",
]
