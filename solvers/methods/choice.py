"""The methods by name, and the automatic choice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from icgn.functionals.capability import Capability
from icgn.solvers.methods.accelerated import AcceleratedGradient
from icgn.solvers.methods.admm import ADMM, HQS
from icgn.solvers.methods.conjugate import ConjugateGradient
from icgn.solvers.methods.gradient import GradientDescent
from icgn.solvers.methods.lbfgs import LBFGS
from icgn.solvers.methods.method import Method
from icgn.solvers.methods.newton import NewtonCG
from icgn.solvers.methods.nmapg import NmAPG
from icgn.solvers.methods.primal_dual import PrimalDual
from icgn.solvers.methods.proximal import FISTA, ProximalGradient
from icgn.solvers.objective import Objective

METHODS: dict[str, type[Method[Any]]] = {
    "gradient": GradientDescent,
    "accelerated": AcceleratedGradient,
    "proximal": ProximalGradient,
    "fista": FISTA,
    "admm": ADMM,
    "hqs": HQS,
    "primal-dual": PrimalDual,
    "conjugate": ConjugateGradient,
    "lbfgs": LBFGS,
    "newton": NewtonCG,
    "nmapg": NmAPG,
}


def choose(method: str | Method[Any], objective: Objective, x: Tensor) -> Method[Any]:
    """The method for an objective of images like x (B, C, H, W), checked against its assumptions.

    ``"auto"`` is :class:`ConjugateGradient`, the fastest of ``benchmarks/methods.py`` (level with L-BFGS for
    deblurring). It is :class:`LBFGS`, which needs fewer gradients, for regularizers that are known by them alone or
    that have latent pictures (:mod:`icgn.solvers.objective`), unless there is a box; and :class:`AcceleratedGradient`
    for Poisson data, whose domain a line search cannot leave.

    Raises
    ------
    ValueError
        if there is no method of that name, or if the objective breaks its assumptions.
    """
    if isinstance(method, str):
        if method == "auto":
            method = _automatic(objective, x)
        if method not in METHODS:
            raise ValueError(f"method: got {method!r}, expected 'auto' or one of {', '.join(METHODS)}")
        method = METHODS[method]()
    method.check(objective)
    return method


def _automatic(objective: Objective, x: Tensor) -> str:
    if Capability.FINITE not in objective.data.capabilities:
        return "accelerated"
    regularizer = objective.regularizer
    if Capability.RESPONSES in regularizer.capabilities or objective.box is not None:
        return "conjugate"
    first = torch.zeros(1, dtype=torch.int64, device=x.device)
    inner, image = regularizer.select(first), x[first]
    known = inner.hessian_spectrum(inner.linear(image), image.shape) is not None
    return "conjugate" if known else "lbfgs"
