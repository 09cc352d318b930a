"""A restored picture as a row of the table, and as a figure."""

from __future__ import annotations

import math

from torch import Tensor

from icgn.datasets import Picture, comparison, difference, quality, visible_gain
from icgn.pictures import Restored


def row(name: str, restored: Restored, clean: Picture | None) -> list[str]:
    """Write the row of the table: sigma and certified distance in gray levels, quality before and after if known."""
    cells = [
        name,
        f"{255 * restored.sigma:.2f}",
        str(restored.iterations),
        f"{restored.seconds:.2f}",
        _proved(restored),
    ]
    if clean is not None:
        pairs = [_quality(pixels, clean.pixels) for pixels in (restored.before, restored.picture.pixels)]
        cells += [f"{pairs[0][0]}>{pairs[1][0]}", f"{pairs[0][1]}>{pairs[1][1]}"]
    return [*cells, str(restored.status).split(":")[0]]


def figure(restored: Restored, clean: Picture | None, label: str) -> Picture:
    """Draw the picture before, restored and amplified difference side by side, and the clean picture if there is one.

    The one before is left out where it is no picture, and the difference where the sizes differ.
    """
    before, after = restored.before, restored.picture.pixels
    panels = [("restored", after)]
    if before is not None:
        panels.insert(0, (label, before))
        if before.shape == after.shape:
            gain = visible_gain(before, after)
            panels.append((f"{label} - restored, x {gain:g}", difference(before, after, gain)))
    if clean is not None:
        panels.append(("reference", clean.pixels))
    return comparison(panels)


def _proved(restored: Restored) -> str:
    # Pictures in [0, 1] are never farther apart than 1: a larger bound, as of most blurs, says nothing.
    if restored.rms_distance <= 1:
        return f"{255 * restored.rms_distance:.4f}"
    return f"gap {restored.relative_gap:.1e}".replace("e-0", "e-") if math.isfinite(restored.relative_gap) else "-"


def _quality(pixels: Tensor | None, clean: Tensor) -> tuple[str, str]:
    if pixels is None or pixels.shape != clean.shape:
        return "-", "-"
    measured = quality(pixels, clean)
    return f"{measured.psnr:.2f}", f"{measured.ssim:.3f}"
