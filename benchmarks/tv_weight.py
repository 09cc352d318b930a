"""The weight of total variation, the baseline of ``icgn evaluate``: a power of the noise level.

    python benchmarks/tv_weight.py --data ROOT

The best weight at four noise levels on photographs that are not those of the test (every eighth of the 32 of BSDS500's
val that are not in BSD68), and the power law through them: the numbers in ``training/restorers.py``.
"""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mean
from typing import Annotated

import numpy as np
import typer
from scipy import optimize

from icgn.datasets import add_noise, bsds500, quality, seed_of
from icgn.evaluation.restorers import TotalVariation


def main(
    data: Annotated[Path, typer.Option(help="Root of BSDS500, with BSD68.txt.")],
    every: Annotated[int, typer.Option(help="Take every n-th picture.")] = 8,
) -> None:
    """Fit the weight at each level, and the power law."""
    samples = list(bsds500(data, "val-rest", gray=True)[::every])
    tv = TotalVariation()
    tv.exponent = 0.0
    levels, weights = [5 / 255, 15 / 255, 25 / 255, 50 / 255], []
    for sigma in levels:
        noisy = [add_noise(s.image, sigma, seed_of(s.name)) for s in samples]

        def error(log_weight: float, noisy: list = noisy, sigma: float = sigma) -> float:  # type: ignore[type-arg]
            tv.factor = math.exp(log_weight)
            return -mean(quality(tv(y, sigma).image, s.image).psnr for y, s in zip(noisy, samples, strict=True))

        guess = math.log(sigma)
        best = optimize.minimize_scalar(
            error, bounds=(guess - 1.5, guess + 0.7), method="bounded", options={"xatol": 0.01}
        )
        weights.append(math.exp(best.x))
        print(f"sigma {255 * sigma:g}: weight {weights[-1]:.5f}, {-best.fun:.3f} dB", flush=True)
    exponent, log_factor = np.polyfit(np.log(levels), np.log(weights), 1)
    print(f"factor = {math.exp(log_factor):.3f}, exponent = {exponent:.3f}")


if __name__ == "__main__":
    typer.run(main)
