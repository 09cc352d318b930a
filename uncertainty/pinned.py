"""Boxes in which some pixels are fixed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from icgn.functionals.box import Box


@dataclass(frozen=True, eq=False)
class PinnedBox(Box):
    """The pictures of a box, of any number, whose pixels are `values` where `fixed` is True, both (1, C, H, W)."""

    fixed: Tensor
    values: Tensor

    def project(self, x: Tensor) -> Tensor:
        return torch.where(self.fixed, self.values.to(x), super().project(x))

    def bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low, high = super().bounds(x)
        values = self.values.to(x)
        return torch.where(self.fixed, values, low), torch.where(self.fixed, values, high)

    def free(self, x: Tensor) -> Tensor:
        return super().free(x) & ~self.fixed
