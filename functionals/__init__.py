"""Convex functions as solvers see them: the interface, sums, compositions with linear maps, data terms, boxes."""

from icgn.functionals.box import Box
from icgn.functionals.functional import BlackBoxFunctional, ComposedFunctional, ConvexFunctional, SumFunctional

__all__ = ["BlackBoxFunctional", "Box", "ComposedFunctional", "ConvexFunctional", "SumFunctional"]
