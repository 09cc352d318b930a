"""Solvers for convex imaging problems, with a certificate for every image."""

from icgn.functionals.box import Box
from icgn.functionals.functional import BlackBoxFunctional, ConvexFunctional
from icgn.functionals.sums import SumFunctional
from icgn.solvers.certificate import Certificate, certify
from icgn.solvers.iterate import Callback, Event
from icgn.solvers.methods.accelerated import AcceleratedGradient
from icgn.solvers.methods.admm import ADMM, HQS
from icgn.solvers.methods.conjugate import ConjugateGradient
from icgn.solvers.methods.gradient import GradientDescent
from icgn.solvers.methods.lbfgs import LBFGS
from icgn.solvers.methods.method import Method, State
from icgn.solvers.methods.newton import NewtonCG
from icgn.solvers.methods.nmapg import NmAPG
from icgn.solvers.methods.primal_dual import PrimalDual
from icgn.solvers.methods.proximal import FISTA, ProximalGradient
from icgn.solvers.problem import Problem
from icgn.solvers.reconstructor import Reconstructor
from icgn.solvers.solution import Solution, Stats, Status
from icgn.solvers.solve import solve
from icgn.solvers.weight import best_weight

__all__ = [
    "ADMM",
    "FISTA",
    "HQS",
    "LBFGS",
    "AcceleratedGradient",
    "BlackBoxFunctional",
    "Box",
    "Callback",
    "Certificate",
    "ConjugateGradient",
    "ConvexFunctional",
    "Event",
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
