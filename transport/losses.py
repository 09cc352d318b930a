"""The interface of the losses of transport maps."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from icgn.transport.vectors import GradientNetwork


class Objective(ABC):
    """A loss bound to the networks that it trains.

    Attributes
    ----------
    network : GradientNetwork
        the map from source to target.
    conjugate : GradientNetwork or None
        a map from target to source, trained beside it.
    """

    network: GradientNetwork
    conjugate: GradientNetwork | None = None

    @abstractmethod
    def values(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """What to differentiate, and an estimate of the loss for the history, of batches (B, d); both scalars."""


class TransportLoss(ABC):
    """A loss of a map from a source to a target measure; subclasses are frozen dataclasses of its parameters."""

    @abstractmethod
    def bind(self, network: GradientNetwork) -> Objective:
        """The loss of the map `network`."""
