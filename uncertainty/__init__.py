"""How sure a picture is: credible regions, tests of structures, intervals and draws, which convexity allows."""

from icgn.uncertainty.chains import Chains
from icgn.uncertainty.errors import ErrorModel
from icgn.uncertainty.intervals import CredibleIntervals, credible_intervals
from icgn.uncertainty.langevin import LangevinConstants, langevin
from icgn.uncertainty.region import CredibleRegion, credible_region
from icgn.uncertainty.sampling import PosteriorSamples, sample_posterior
from icgn.uncertainty.structure import StructureTest

__all__ = [
    "Chains",
    "CredibleIntervals",
    "CredibleRegion",
    "ErrorModel",
    "LangevinConstants",
    "PosteriorSamples",
    "StructureTest",
    "credible_intervals",
    "credible_region",
    "langevin",
    "sample_posterior",
]
