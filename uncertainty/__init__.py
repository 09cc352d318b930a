"""How sure a picture is: credible regions, tests of structures and intervals, which convexity allows."""

from icgn.uncertainty.errors import ErrorModel
from icgn.uncertainty.intervals import CredibleIntervals, credible_intervals
from icgn.uncertainty.region import CredibleRegion, credible_region
from icgn.uncertainty.structure import StructureTest

__all__ = [
    "CredibleIntervals",
    "CredibleRegion",
    "ErrorModel",
    "StructureTest",
    "credible_intervals",
    "credible_region",
]
