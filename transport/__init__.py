"""Optimal transport, density estimation and flows of measures with gradients of convex functions."""

from icgn.transport.composition import Composition, DiagonalAffine
from icgn.transport.convex_flow import ConvexPotentialFlow, FlowRecipe, fit_flow, mean_log_prob
from icgn.transport.correlation import Correlation
from icgn.transport.dense import DenseDeepICGN, DenseGroupICGN, DenseRidgeICGN, DenseSoftmaxICGN
from icgn.transport.evaluation import cosine, l2_uvp
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
from icgn.transport.sinkhorn import Sinkhorn
from icgn.transport.vectors import GradientNetwork
from icgn.transport.wasserstein import JKORecipe, OrnsteinUhlenbeck, WassersteinFlow, jko_step, symmetric_kl

__all__ = [
    "AffineMap",
    "Composition",
    "ConvexPotentialFlow",
    "Correlation",
    "DenseDeepICGN",
    "DenseGroupICGN",
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
    "Sinkhorn",
    "StochasticLogDet",
    "WassersteinFlow",
    "cosine",
    "fit_flow",
    "fit_map",
    "gaussian_map",
    "gaussian_pair",
    "jko_step",
    "l2_uvp",
    "match_moments",
    "match_scale",
    "mean_log_prob",
    "mixture_pair",
    "random_covariance",
    "symmetric_kl",
]
