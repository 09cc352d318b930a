"""icgn: learned convex regularizers for imaging inverse problems, with a certificate for every image."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Where each public name lives. Nothing is imported before it is used (PEP 562).
_HOMES = {
    "ConditionalICGN": "icgn.regularizers",
    "ConvexRegularizer": "icgn.regularizers",
    "DeepICGN": "icgn.regularizers",
    "FilterBank": "icgn.regularizers",
    "GroupICGN": "icgn.regularizers",
    "ICGN": "icgn.regularizers",
    "ICNN": "icgn.regularizers",
    "LatentICGN": "icgn.regularizers",
    "LocalLevels": "icgn.regularizers",
    "PerChannel": "icgn.regularizers",
    "PullBack": "icgn.regularizers",
    "RidgeICGN": "icgn.regularizers",
    "SoftmaxICGN": "icgn.regularizers",
    "TotalVariation": "icgn.regularizers",
    "VolumeRegularizer": "icgn.regularizers",
    "available_models": "icgn.regularizers",
    "check_regularizer": "icgn.regularizers",
    "deblur": "icgn.pictures",
    "denoise": "icgn.pictures",
    "estimate_noise": "icgn.pictures",
    "inpaint": "icgn.pictures",
    "load_pretrained": "icgn.regularizers",
    "Certificate": "icgn.solvers",
    "Problem": "icgn.solvers",
    "Reconstructor": "icgn.solvers",
    "Solution": "icgn.solvers",
    "Status": "icgn.solvers",
    "solve": "icgn.solvers",
}
_PARTS = (
    "datasets",
    "evaluation",
    "functionals",
    "pictures",
    "regularizers",
    "scanners",
    "solvers",
    "training",
    "transport",
    "uncertainty",
)

__all__ = [*_HOMES, *_PARTS, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _PARTS:
        return importlib.import_module(f"icgn.{name}")
    raise AttributeError(f"module 'icgn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from icgn import (
        datasets,
        evaluation,
        functionals,
        pictures,
        regularizers,
        scanners,
        solvers,
        training,
        transport,
        uncertainty,
    )
    from icgn.pictures import deblur, denoise, estimate_noise, inpaint
    from icgn.regularizers import (
        ICGN,
        ICNN,
        ConditionalICGN,
        ConvexRegularizer,
        DeepICGN,
        FilterBank,
        GroupICGN,
        LatentICGN,
        LocalLevels,
        PerChannel,
        PullBack,
        RidgeICGN,
        SoftmaxICGN,
        TotalVariation,
        VolumeRegularizer,
        available_models,
        check_regularizer,
        load_pretrained,
    )
    from icgn.solvers import Certificate, Problem, Reconstructor, Solution, Status, solve
