"""Convex functions as solvers see them: the interface, sums, compositions with linear maps, data terms, boxes."""

from icgn.functionals.box import Box
from icgn.functionals.capability import Capability
from icgn.functionals.functional import BlackBoxFunctional, ConvexFunctional, Joint
from icgn.functionals.sums import SumFunctional
from icgn.functionals.wrapped import WrappedFunctional

__all__ = [
    "BlackBoxFunctional",
    "Box",
    "Capability",
    "ConvexFunctional",
    "Joint",
    "SumFunctional",
    "WrappedFunctional",
]
