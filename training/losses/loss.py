"""What all losses share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from icgn.regularizers.base import ConvexRegularizer
from icgn.training.kinds import Kind

LOSSES: dict[str, type[Loss]] = {}
"""The losses by their ``type`` in a recipe; every subclass of :class:`Loss` adds itself."""


@dataclass(frozen=True, eq=False)
class Batch:
    r"""Patches and what was measured of them.

    Attributes
    ----------
    clean : Tensor
        patches (B, C, P, P), intensities in [0, 1].
    y : Tensor
        measurements, :math:`A x + \sigma n` with n standard normal unless the recipe has another noise; the noisy
        patches where A is the identity.
    sigma : Tensor
        the levels that the regularizer is asked to remove (B,), in intensities; those of the noise if it is white.
    position : Tensor
        one uniform random number per patch, (B,), for losses that need a point between two pictures.
    physics : deepinv.physics.LinearPhysics
        A.
    """

    clean: Tensor
    y: Tensor
    sigma: Tensor
    position: Tensor
    physics: Any

    def to(self, device: torch.device) -> Batch:
        """Move the tensors to a device, where the physics is already."""
        names = ("clean", "y", "sigma", "position")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


class Loss(Kind):
    """A training loss; subclasses are frozen dataclasses of its parameters, the keys of ``[loss]`` in a recipe.

    ``class MyLoss(Loss, name="mine")`` is the loss of recipes with ``type = "mine"`` once its module is imported.

    Attributes
    ----------
    fits_weight : bool
        whether the loss leaves the weight of the regularizer open, to be fitted on validation pictures afterwards.
    trains_conditional : bool
        whether it trains conditional regularizers.

    Raises
    ------
    RecipeError
        if a parameter is out of its range.
    """

    known: ClassVar[dict[str, Any]] = LOSSES
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
