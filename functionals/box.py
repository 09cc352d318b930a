"""Box constraints."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from functools import cache

import torch
from torch import Tensor

from icgn.compat import keyword_only


@keyword_only
@dataclass(frozen=True)
class Box:
    """The images with low <= x <= high at every pixel; a side may be infinite.

    Raises
    ------
    ValueError
        if the box is empty or a bound is NaN.
    """

    _: KW_ONLY
    low: float = float("-inf")
    high: float = float("inf")

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"box: got [{self.low}, {self.high}], expected low <= high (the box is empty)")

    @classmethod
    def of(cls, box: Box | tuple[float, float] | None) -> Box | None:
        """Box from a pair (low, high); None stays None."""
        return box if box is None or isinstance(box, Box) else cls(low=float(box[0]), high=float(box[1]))

    def brought(self, low: float, scale: float) -> Box:
        """The box of (x - low) / scale, with 40 binary places."""
        bounds = ((bound - low) / scale for bound in (self.low, self.high))
        first, last = (b if math.isinf(b) else round(b * 2**40) / 2**40 for b in bounds)
        return Box(low=first, high=last)

    @property
    def bounded(self) -> bool:
        """Whether both sides are finite, so that a gap over the box can be."""
        return self.high - self.low < float("inf")

    def project(self, x: Tensor) -> Tensor:
        """The nearest image in the box."""
        return x.clamp(*_inside(self.low, self.high, x.dtype))

    def bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The two bounds as scalars like x, inside the box where x cannot hold them."""
        low, high = _inside(self.low, self.high, x.dtype)
        return x.new_tensor(low), x.new_tensor(high)

    def free(self, x: Tensor) -> Tensor:
        """Where x is strictly inside: the pixels that can move in both directions."""
        return (x > self.low) & (x < self.high) & torch.isfinite(x)


@cache
def _inside(low: float, high: float, dtype: torch.dtype) -> tuple[float, float]:
    """The smallest and the largest number of a precision in the box; the nearest ones where it has none there."""
    near = torch.tensor([low, high], dtype=dtype)
    towards = torch.nextafter(near, near.flip(0)).tolist()
    nearest = near.tolist()
    first = nearest[0] if nearest[0] >= low else towards[0]
    last = nearest[1] if nearest[1] <= high else towards[1]
    return (first, last) if first <= last else (nearest[0], nearest[1])
