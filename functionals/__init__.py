"""Convex functions as solvers see them: the interface, sums, linear maps before them, data terms, noise, boxes."""

from icgn.functionals.box import Box
from icgn.functionals.capability import Capability
from icgn.functionals.functional import BlackBoxFunctional, ConvexFunctional, Joint
from icgn.functionals.noise import Correlated, Noise, Poisson, PoissonGaussian, White, described
from icgn.functionals.sums import SumFunctional
from icgn.functionals.wrapped import WrappedFunctional

__all__ = [
    "BlackBoxFunctional",
    "Box",
    "Capability",
    "ConvexFunctional",
    "Correlated",
    "Joint",
    "Noise",
    "Poisson",
    "PoissonGaussian",
    "SumFunctional",
    "White",
    "WrappedFunctional",
    "described",
]
