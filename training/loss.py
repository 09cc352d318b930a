"""What all losses share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from icgn.regularizers.base import ConvexRegularizer
from icgn.training.patches import Batch


class Loss(ABC):
    """A training loss; subclasses are frozen dataclasses of its parameters, the keys of ``[loss]`` in a recipe.

    Attributes
    ----------
    fits_weight : bool
        whether the loss leaves the weight of the regularizer open, to be fitted on validation pictures afterwards.
    trains_conditional : bool
        whether it trains conditional regularizers.
    """

    fits_weight: ClassVar[bool] = False
    trains_conditional: ClassVar[bool] = False

    @abstractmethod
    def values(self, regularizer: ConvexRegularizer, batch: Batch) -> Tensor:
        """The loss of each patch of the batch, shape (B,), within the graph of the parameters."""


def weighted_error(x: Tensor, batch: Batch) -> Tensor:
    r"""The errors :math:`w(\sigma) |x - x_{clean}|^2 / n` of restored patches, shape (B,).

    The weight :math:`w = 100\,(\sigma / 25)^{-1.27}`, sigma in gray levels, is the inverse of the error that convex
    regularizers reach at that level, so that all levels count alike.
    """
    weight = 100 * (batch.sigma * 255 / 25).clamp_min(0.04) ** -1.27
    return (x - batch.clean).square().mean((1, 2, 3)) * weight


def full_precision(like: Tensor) -> torch.autocast:
    """A context in which automatic mixed precision is off."""
    return torch.autocast(like.device.type, enabled=False)
