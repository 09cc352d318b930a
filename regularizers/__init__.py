"""Convex regularizers, learned and composed."""

from icgn.regularizers.base import ConvexRegularizer, SumRegularizer
from icgn.regularizers.denoise import denoise
from icgn.regularizers.filters import FilterBank
from icgn.regularizers.pretrained import ModelError, available_models, load_pretrained, read_card, save_model
from icgn.regularizers.ridge import RidgeICGN

__all__ = [
    "ConvexRegularizer",
    "FilterBank",
    "ModelError",
    "RidgeICGN",
    "SumRegularizer",
    "available_models",
    "denoise",
    "load_pretrained",
    "read_card",
    "save_model",
]
