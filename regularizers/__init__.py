"""Convex regularizers, learned and composed."""

from icgn.compat import moved
from icgn.regularizers.bank import BankFunctional
from icgn.regularizers.base import ConvexRegularizer, SumRegularizer
from icgn.regularizers.checks import ContractError, ContractReport, check_regularizer
from icgn.regularizers.conditional import ConditionalICGN
from icgn.regularizers.deep import DeepICGN
from icgn.regularizers.filter_map import FilterMap
from icgn.regularizers.filters import FilterBank
from icgn.regularizers.group import GroupICGN
from icgn.regularizers.head import Head
from icgn.regularizers.icgn import ICGN, IntegrabilityDefect, NotAGradientError
from icgn.regularizers.icnn import ICNN
from icgn.regularizers.latent import LatentICGN
from icgn.regularizers.local import LocalLevels
from icgn.regularizers.named import load_regularizer
from icgn.regularizers.network import BankRegularizer, BankSpec, Network
from icgn.regularizers.pretrained import available_models, load_pretrained, read_card, save_model
from icgn.regularizers.pullback import PerChannel, PullBack
from icgn.regularizers.registry import ModelError, register
from icgn.regularizers.ridge import RidgeICGN
from icgn.regularizers.scaled import ScaledRegularizer
from icgn.regularizers.shared import SharedRegularizer
from icgn.regularizers.softmax import SoftmaxICGN
from icgn.regularizers.tv import TotalVariation
from icgn.regularizers.volume import VolumeRegularizer

__all__ = [
    "ICGN",
    "ICNN",
    "BankFunctional",
    "BankRegularizer",
    "BankSpec",
    "ConditionalICGN",
    "ContractError",
    "ContractReport",
    "ConvexRegularizer",
    "DeepICGN",
    "FilterBank",
    "FilterMap",
    "GroupICGN",
    "Head",
    "IntegrabilityDefect",
    "LatentICGN",
    "LocalLevels",
    "ModelError",
    "Network",
    "NotAGradientError",
    "PerChannel",
    "PullBack",
    "RidgeICGN",
    "ScaledRegularizer",
    "SharedRegularizer",
    "SoftmaxICGN",
    "SumRegularizer",
    "TotalVariation",
    "VolumeRegularizer",
    "available_models",
    "check_regularizer",
    "load_pretrained",
    "load_regularizer",
    "read_card",
    "register",
    "save_model",
]

_DENSE = ("DenseDeepICGN", "DenseGroupICGN", "DenseRidgeICGN", "DenseSoftmaxICGN", "GradientNetwork")
__getattr__ = moved(__name__, {"denoise": "icgn.pictures", **dict.fromkeys(_DENSE, "icgn.transport")})
