"""The optimizers of recipes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from icgn.regularizers.base import ConvexRegularizer

_BETAS = (0.9, 0.99)


def make_optimizer(kind: str, regularizer: ConvexRegularizer, rates: Mapping[str, float]) -> torch.optim.Optimizer:
    """Make the optimizer of the parameters that require a gradient, a group with its ``peak`` rate per prefix.

    Parameters
    ----------
    kind : str
        one of :data:`OPTIMIZERS`.
    regularizer : ConvexRegularizer
        whose parameters it changes.
    rates : mapping of str to float
        peak learning rate by prefix of the parameters' names; the longest prefix that fits counts.

    Raises
    ------
    ValueError
        if a prefix of ``learning_rate`` is left without a parameter, a parameter without a prefix, or none requires a
        gradient.
    ModuleNotFoundError
        if its package is not installed.
    """
    learned = {n: p for n, p in regularizer.named_parameters() if p.requires_grad}
    if not learned:
        raise ValueError("regularizer: no parameter requires a gradient, expected one to train: requires_grad_(True)")
    groups: dict[str, dict[str, Any]] = {}
    without: list[str] = []
    # In the order of the parameters: a recipe is the same whatever the order of its rates, and so is a resumed run.
    for name, parameter in learned.items():
        prefix = max((p for p in rates if name.startswith(p)), key=len, default=None)
        if prefix is None:
            without.append(name)
            continue
        group = groups.setdefault(prefix, {"params": [], "lr": rates[prefix], "peak": rates[prefix], "prefix": prefix})
        group["params"].append(parameter)
    idle = [prefix for prefix in rates if prefix not in groups]
    if idle and any(name.startswith(idle[0]) for name in learned):
        raise ValueError(f"learning_rate: every parameter that starts with {idle[0]!r} has a longer prefix")
    if idle:
        raise ValueError(f"learning_rate: no parameter starts with {idle[0]!r}; there are {', '.join(learned)}")
    if without:
        raise ValueError(f"learning_rate: no rate for {', '.join(without)}")
    return OPTIMIZERS[kind](list(groups.values()))


def _adam(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, betas=_BETAS)


def _soap(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    try:
        from pytorch_optimizer import SOAP
    except ImportError:
        raise ModuleNotFoundError(
            "optimizer soap needs pytorch-optimizer, expected: pip install 'icgn[train]'"
        ) from None
    # Bases for filters alone: curves over the noise level have too few entries, and lost by them.
    split = []
    for group in groups:
        filters = [p for p in group["params"] if p.dim() == 4]
        others = [p for p in group["params"] if p.dim() != 4]
        split += [{**group, "params": filters}] if filters else []
        split += [{**group, "params": others, "max_precondition_dim": 1}] if others else []
    optimizer: torch.optim.Optimizer = SOAP(split, betas=_BETAS, shampoo_beta=0.95, weight_decay=0.0)
    return optimizer


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]]], torch.optim.Optimizer]] = {"adam": _adam, "soap": _soap}
"""The optimizers of recipes by name: each is made from groups of parameters."""
