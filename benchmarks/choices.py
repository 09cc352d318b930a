"""Choices made by measurement: border and smallest knee of a ridge network, looseness of a conditional one.

    python benchmarks/choices.py

Restores crops of the bundled photographs with the shipped gray weights and one choice changed, without training again:
PSNR on the whole picture and on its outermost 4 pixels, and iterations to the certified distance of 1e-4.
"""

from __future__ import annotations

import copy
import math
from statistics import mean

import torch

import icgn
from icgn.datasets import add_noise, bundled, seed_of
from icgn.regularizers import ConditionalICGN, ConvexRegularizer, RidgeICGN

_SIDE, _FRAME = 160, 4


def psnr(error: torch.Tensor) -> float:
    """PSNR in dB of errors in intensities."""
    return -10 * math.log10(float(error.square().mean()))


def measure(regularizer: ConvexRegularizer, sigma: float) -> tuple[float, float, float]:
    """Mean PSNR, mean PSNR of the frame, and mean iterations."""
    whole, frame, iterations = [], [], []
    for sample in bundled(gray=True):
        clean = sample.image[:, :_SIDE, :_SIDE]
        solution = icgn.denoise(add_noise(clean, sigma, seed_of(sample.name))[None], sigma, regularizer)
        error = solution.x[0].clamp(0, 1) - clean
        inside = torch.zeros_like(error, dtype=torch.bool)
        inside[:, _FRAME:-_FRAME, _FRAME:-_FRAME] = True
        whole.append(psnr(error))
        frame.append(psnr(error[~inside]))
        iterations.append(float(solution.stats.iterations[0]))
    return mean(whole), mean(frame), mean(iterations)


def main() -> None:
    """Print a table for each choice."""
    shipped, conditional = (icgn.load_pretrained(name) for name in ("ridge-gray", "conditional-gray"))
    assert isinstance(shipped, RidgeICGN) and isinstance(conditional, ConditionalICGN)
    for sigma in (15 / 255, 25 / 255):
        print(f"sigma {255 * sigma:g}              PSNR   frame   iterations")
        for border in ("reflect", "zero", "valid"):
            changed = copy.deepcopy(shipped)
            changed.bank.border = border
            print("border {:10s} {:9.3f} {:7.3f} {:9.1f}".format(border, *measure(changed, sigma)))
        for knee in (0.0, 0.01, 0.02, 0.04, 0.08):
            changed = copy.deepcopy(shipped)
            changed.min_knee = knee
            print("min_knee {:8.2f} {:9.3f} {:7.3f} {:9.1f}".format(knee, *measure(changed, sigma)))
        # How loosely the first problem is solved, and whether the condition is computed once more.
        for parts in ((1e-3,), (0.05,), (0.15,), (0.5,), (0.05, 0.05)):
            refined = copy.deepcopy(conditional)
            refined.looseness = parts
            name = ", ".join(f"{part:g}" for part in parts)
            print("looseness {:10s} {:6.3f} {:7.3f} {:9.1f}".format(name, *measure(refined, sigma)))


if __name__ == "__main__":
    main()
