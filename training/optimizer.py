"""The optimizers of recipes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from icgn.regularizers.base import ConvexRegularizer

if TYPE_CHECKING:
    from icgn.training.recipe import Recipe

_BETAS = (0.9, 0.99)


def make_optimizer(regularizer: ConvexRegularizer, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer of a recipe for the parameters that require a gradient, a group with its ``peak`` rate per prefix.

    Raises
    ------
    ValueError
        if a prefix of ``learning_rate`` fits no parameter, or a parameter no prefix.
    ModuleNotFoundError
        if its package is not installed.
    """
    groups: list[dict[str, Any]] = []
    left = {n: p for n, p in regularizer.named_parameters() if p.requires_grad}
    for prefix, rate in recipe.learning_rate.items():
        names = [n for n in left if n.startswith(prefix)]
        if not names:
            raise ValueError(f"learning_rate: no parameter starts with {prefix!r}; there are {', '.join(left)}")
        groups.append({"params": [left.pop(n) for n in names], "lr": rate, "peak": rate})
    if left:
        raise ValueError(f"learning_rate: no rate for {', '.join(left)}")
    return OPTIMIZERS[recipe.optimizer](groups)


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
