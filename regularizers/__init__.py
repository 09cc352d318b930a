"""Convex regularizers, learned and composed."""

from icgn.regularizers.base import ConvexRegularizer, SumRegularizer
from icgn.regularizers.checks import ContractError, ContractReport, check_regularizer
from icgn.regularizers.denoise import denoise
from icgn.regularizers.filters import FilterBank
from icgn.regularizers.icgn import ICGN, IntegrabilityDefect, NotAGradientError
from icgn.regularizers.icnn import ICNN
from icgn.regularizers.pretrained import ModelError, available_models, load_pretrained, read_card, save_model
from icgn.regularizers.pullback import PerChannel, PullBack
from icgn.regularizers.ridge import RidgeICGN
from icgn.regularizers.tv import TotalVariation

__all__ = [
    "ICGN",
    "ICNN",
    "ContractError",
    "ContractReport",
    "ConvexRegularizer",
    "FilterBank",
    "IntegrabilityDefect",
    "ModelError",
    "NotAGradientError",
    "PerChannel",
    "PullBack",
    "RidgeICGN",
    "SumRegularizer",
    "TotalVariation",
    "available_models",
    "check_regularizer",
    "denoise",
    "load_pretrained",
    "read_card",
    "save_model",
]
