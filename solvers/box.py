"""Box constraints."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Box:
    """The images with low <= x <= high at every pixel; a side may be infinite.

    Raises
    ------
    ValueError
        if the box is empty or a bound is NaN.
    """

    low: float = float("-inf")
    high: float = float("inf")

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"box: got [{self.low}, {self.high}], expected low <= high (the box is empty)")

    @classmethod
    def of(cls, box: Box | tuple[float, float] | None) -> Box | None:
        """Box from a pair (low, high); None stays None."""
        return box if box is None or isinstance(box, Box) else cls(float(box[0]), float(box[1]))

    @property
    def bounded(self) -> bool:
        """Whether both sides are finite, so that a gap over the box can be."""
        return self.high - self.low < float("inf")

    def project(self, x: Tensor) -> Tensor:
        """The nearest image in the box."""
        return x.clamp(self.low, self.high)

    def bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The two bounds as scalars like x."""
        return x.new_tensor(self.low), x.new_tensor(self.high)

    def free(self, x: Tensor) -> Tensor:
        """Where x is strictly inside: the pixels that can move in both directions."""
        return (x > self.low) & (x < self.high) & torch.isfinite(x)
