"""How sure a picture is: credible regions, tests of structures and intervals, which convexity allows."""

from icgn.uncertainty.region import CredibleRegion, credible_region
from icgn.uncertainty.structure import StructureTest

__all__ = ["CredibleRegion", "StructureTest", "credible_region"]
