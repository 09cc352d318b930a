"""Places of a grid of k-space where it was measured, and deepinv's operator there."""

from __future__ import annotations

from dataclasses import dataclass

from deepinv.physics import MultiCoilMRI
from torch import Tensor

from icgn.scanners.held_out import split

CALIBRATION = 24
"""Side of the square in the middle of k-space that maps are estimated from, at most; deepinv's own number."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where k-space was measured on a grid.

    Attributes
    ----------
    mask : Tensor
        bool (H, W).
    """

    mask: Tensor

    def physics(self, maps: Tensor, like: Tensor) -> MultiCoilMRI:
        """The operator of coils with complex maps (C, H, W), in the precision and on the device of a tensor."""
        maps = maps.to(like.device, like.dtype.to_complex())
        return MultiCoilMRI(mask=self.mask.to(like), coil_maps=maps, device=like.device)

    def without(self, held: Tensor) -> Grid:
        """What is left when some places, bool (H, W), are held out."""
        return Grid(self.mask & ~held)

    def kept(self, y: Tensor, held: Tensor) -> Tensor:
        """The samples (..., H, W) that are left then, 0 elsewhere."""
        return y * ~held

    def held_out(self) -> Tensor:
        """A tenth of the places, bool (H, W): see :func:`icgn.scanners.split`."""
        return split(self.mask, keep=calibration(self.mask))


def calibration(mask: Tensor) -> int:
    """Side of the largest square in the middle of a mask (H, W) that is measured throughout, at most 24."""
    height, width = mask.shape
    side = min(CALIBRATION, height, width)
    while side:
        top, left = height // 2 - side // 2, width // 2 - side // 2
        if bool(mask[top : top + side, left : left + side].all()):
            return side
        side -= 1
    return 0
