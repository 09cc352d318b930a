"""How large errors are: fitted and calibrated for a model, and measured on other pictures.

    python benchmarks/uncertainty.py calibrate --bsds BSDS500 --model conditional-gray
    python benchmarks/uncertainty.py evaluate --bsds BSDS500 --model conditional-gray --sigma 25
    python benchmarks/uncertainty.py evaluate --bsds BSDS500 --model conditional-color --sigma 25 --every 8

`calibrate` fits the regression of :mod:`icgn.uncertainty.errors` on pictures of BSDS500 train and finds the factors on
those of val that are not in BSD68, at noise of 5, 15, 25 and 50 gray levels; both go into the card of the model.
`evaluate` counts how many errors on BSD68, middles of up to 400 x 400 pixels, the intervals cover, in the mean over the
pictures and picture by picture.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
import typer
from harness import RESULTS, Out, Threads, conditions, table, write
from torch import Tensor

import icgn
from icgn.datasets import Sample, add_noise, bsd68, bsds500, seed_of
from icgn.datasets.noise import luma
from icgn.regularizers import read_card
from icgn.regularizers.pretrained import locate
from icgn.uncertainty.errors import ErrorModel, features

LEVELS = (5, 15, 25, 50)
BLOCKS = (1, 8)
COVERAGE = 0.9
FITTED, SIDE, WHOLE = 20, 144, 400
# Pixels of a picture that the regression sees, and the least error that it tells from 0, as a part of the noise.
_PIXELS, _LEAST = 4000, 0.01


class Part(str, Enum):
    """What is done."""

    CALIBRATE = "calibrate"
    EVALUATE = "evaluate"


Case = tuple[str, float, Tensor, Tensor, Tensor]
"""Name, level in intensities, and the denoised, noisy and clean picture (1, C, H, W)."""


def main(
    part: Part,
    bsds: Annotated[Path, typer.Option(help="Folder of BSDS500.")],
    model: Annotated[str, typer.Option(help="Shipped model.")] = "conditional-gray",
    sigma: Annotated[float, typer.Option(help="Noise in gray levels, for evaluate.")] = 25.0,
    every: Annotated[int, typer.Option(min=1, help="Every so many pictures of BSD68, for evaluate.")] = 4,
    threads: Threads = 1,
    out: Out = None,
) -> None:
    """Calibrate a model, or measure its coverage."""
    torch.set_num_threads(threads)
    if part is Part.CALIBRATE:
        known = set(bsd68(bsds).names)
        train = list(bsds500(bsds, split="train"))
        fitted = list(cases(model, train[:: len(train) // FITTED][:FITTED], LEVELS, SIDE))
        val = [s for s in bsds500(bsds, split="val") if s.name not in known]
        found = list(cases(model, val, LEVELS, SIDE))
        errors = calibrated(fit(fitted), found)
        store(model, errors)
        for level in LEVELS:
            own = (case for case in found if round(255 * case[1]) == level)
            print(level, *evaluated(ErrorModel.of_card({"errors": errors}), own), sep="\n")
        return
    samples = list(bsd68(bsds, gray=icgn.load_pretrained(model).channels != 3))[::every]
    rows = evaluated(ErrorModel.of_card(read_card(model)), cases(model, samples, [sigma], WHOLE))
    text = table(("blocks", "pictures", "covered", "least", "80 % or more", "width, gray levels"), rows)
    print(text)
    name = f"errors-{model}-{sigma:g}"
    write(out or RESULTS / "uncertainty", {f"{name}.md": text, f"{name}.json": {**conditions(), "rows": rows}})


def cases(model: str, samples: Sequence[Sample], levels: Sequence[float], side: int) -> Iterator[Case]:
    """Pictures, or their middles, with noise, denoised by a model."""
    regularizer = icgn.load_pretrained(model)
    for level in levels:
        for sample in samples:
            clean = sample.image if regularizer.channels == 3 or len(sample.image) == 1 else luma(sample.image)
            height, width = clean.shape[1:]
            h, w = min(side, height), min(side, width)
            top, left = (height - h) // 2, (width - w) // 2
            clean = clean[:, top : top + h, left : left + w]
            y = add_noise(clean, level / 255, seed=seed_of(sample.name, seed=int(level)))[None]
            yield sample.name, level / 255, icgn.denoise(y, level / 255, regularizer=regularizer).x, y, clean[None]


def fit(found: Sequence[Case]) -> list[float]:
    """The coefficients of the least squares of the logarithms of errors."""
    generator = torch.Generator().manual_seed(0)
    rows, targets = [], []
    for _, sigma, x, y, clean in found:
        seen = features(x, y, sigma, level=sigma).flatten(0, -2)
        error = ((x - clean).double() / sigma).abs().flatten().clamp_min(_LEAST).log()
        chosen = torch.randperm(len(seen), generator=generator)[:_PIXELS]
        rows.append(seen[chosen])
        targets.append(error[chosen])
    return [round(v, 5) for v in torch.linalg.lstsq(torch.cat(rows), torch.cat(targets)[:, None])[0][:, 0].tolist()]


def calibrated(coefficients: list[float], found: Sequence[Case]) -> dict[str, Any]:
    """What goes into the card: the coefficients and, for blocks and levels, the factor that covers enough errors."""
    levels = sorted({sigma for _, sigma, *_ in found})
    unit = tuple(1.0 for _ in levels)
    plain = ErrorModel(
        coefficients=tuple(coefficients),
        levels=tuple(levels),
        factors=dict.fromkeys(BLOCKS, unit),
        coverage=COVERAGE,
        pictures=1,
    )
    factors: dict[str, list[float]] = {}
    for side in BLOCKS:
        factors[str(side)] = []
        for level in levels:
            # Every picture counts alike, whatever its size: the ratios of each are thinned to as many quantiles.
            at = np.linspace(0, 1, 2001)
            ratios = [np.quantile(ratio(plain, case, side).numpy(), at) for case in found if case[1] == level]
            factors[str(side)].append(round(float(np.quantile(np.concatenate(ratios), COVERAGE)), 4))
    return {
        "coefficients": coefficients,
        "levels": [round(255 * level, 4) for level in levels],
        "factors": factors,
        "coverage": COVERAGE,
        "pictures": len({name for name, *_ in found}),
        "data": "fitted on BSDS500 train, calibrated on BSDS500 val without BSD68; benchmarks/uncertainty.py",
    }


def ratio(model: ErrorModel, case: Case, side: int) -> Tensor:
    """Errors of the means of blocks over the half widths of their intervals, flat."""
    _, sigma, x, y, clean = case
    error = (x - clean).double()
    if side > 1:
        error = F.avg_pool2d(error, side, ceil_mode=True, count_include_pad=False)
    return (error.abs() / model.half_widths(x, y, sigma, blocks=side)).flatten()


def evaluated(model: ErrorModel, found: Iterator[Case]) -> list[tuple[str, ...]]:
    """Rows of the table: for each side of blocks, coverage in the mean, the least, and widths in gray levels."""
    covered: dict[int, list[float]] = {side: [] for side in BLOCKS}
    widths: dict[int, list[float]] = {side: [] for side in BLOCKS}
    for case in found:
        for side in BLOCKS:
            covered[side].append(float((ratio(model, case, side) <= 1).double().mean()))
            widths[side].append(510 * float(model.half_widths(case[2], case[3], case[1], blocks=side).mean()))
        print(case[0], *(f"{covered[side][-1]:.3f}" for side in BLOCKS), flush=True)
    rows = []
    for side in BLOCKS:
        c, w = np.array(covered[side]), np.array(widths[side])
        many = f"{int((c >= 0.8).sum())} of {len(c)}"
        rows.append((f"{side} x {side}", str(len(c)), f"{c.mean():.1%}", f"{c.min():.1%}", many, f"{w.mean():.1f}"))
    return rows


def store(model: str, errors: dict[str, Any]) -> None:
    """Write what was calibrated into the card of a model."""
    path = locate(model).with_suffix(".json")
    card = {**json.loads(path.read_text()), "errors": errors}
    path.write_text(json.dumps(card, indent=2, allow_nan=False) + "\n")
    print(json.dumps(errors))


if __name__ == "__main__":
    typer.run(main)
