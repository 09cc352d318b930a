"""Optimal transport, density estimation and flows of measures with gradients of convex functions."""

from icgn.transport.assignments import match_assignments
from icgn.transport.composition import Composition, DiagonalAffine
from icgn.transport.convex_flow import ConvexPotentialFlow, FlowRecipe, fit_flow, mean_log_prob
from icgn.transport.correlation import Correlation
from icgn.transport.dense import DenseDeepICGN, DenseGroupICGN, DenseRidgeICGN, DenseSoftmaxICGN
from icgn.transport.evaluation import CostBounds, cosine, cost_bounds, l2_uvp
from icgn.transport.fitting import History, fit_map
from icgn.transport.logdet import ExactLogDet, StochasticLogDet
from icgn.transport.moments import match_moments, match_scale
from icgn.transport.pairs import (
    AffineMap,
    GaussianMixture,
    Pair,
    gaussian_map,
    gaussian_pair,
    mixture_pair,
    random_covariance,
)
from icgn.transport.quadratic_skips import DenseQuadraticICGN
from icgn.transport.semi_dual import SemiDual
from icgn.transport.sinkhorn import Sinkhorn
from icgn.transport.vectors import GradientNetwork
from icgn.transport.wasserstein import JKORecipe, OrnsteinUhlenbeck, WassersteinFlow, jko_step, symmetric_kl
from icgn.transport.wasserstein2 import BenchmarkMap, mix3_to_mix10

__all__ = [
    "AffineMap",
    "BenchmarkMap",
    "Composition",
    "ConvexPotentialFlow",
    "Correlation",
    "CostBounds",
    "DenseDeepICGN",
    "DenseGroupICGN",
    "DenseQuadraticICGN",
    "DenseRidgeICGN",
    "DenseSoftmaxICGN",
    "DiagonalAffine",
    "ExactLogDet",
    "FlowRecipe",
    "GaussianMixture",
    "GradientNetwork",
    "History",
    "JKORecipe",
    "OrnsteinUhlenbeck",
    "Pair",
    "SemiDual",
    "Sinkhorn",
    "StochasticLogDet",
    "WassersteinFlow",
    "cosine",
    "cost_bounds",
    "fit_flow",
    "fit_map",
    "gaussian_map",
    "gaussian_pair",
    "jko_step",
    "l2_uvp",
    "match_assignments",
    "match_moments",
    "match_scale",
    "mean_log_prob",
    "mix3_to_mix10",
    "mixture_pair",
    "random_covariance",
    "symmetric_kl",
]
