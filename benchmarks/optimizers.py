"""What an optimizer and its rate give a short training: PSNR of the same small ridge network after as many steps.

    python benchmarks/optimizers.py --data ROOT [--steps 300]

Each run starts from the same cosines and sees the same patches: 24 filters of 7 x 7, all noise levels, on one thread.
The table has the mean PSNR on the crops of the pictures to choose on, and seconds of the run.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import torch
from rich.console import Console
from rich.table import Table

from icgn import training
from icgn.training import Bilevel, Pictures, Recipe, fit

_RUNS = [("adam", 6e-3), ("adam", 1.5e-2), ("adam", 6e-2), ("soap", 1.5e-2), ("soap", 6e-2)]
_LEVELS = (5, 15, 25, 50)


def recipe(optimizer: str, rate: float, steps: int) -> Recipe:
    """The run of one row."""
    return Recipe(
        name="optimizer",
        model={"type": "RidgeICGN", "filters": 24, "size": 7, "min_knee": 0.03},
        loss=Bilevel(max_iter=25, tol=1e-3),
        steps=steps,
        patch=40,
        learning_rate={"bank": rate, "log_": 5e-2},
        optimizer=optimizer,
        average=0.98,
        validate_every=steps,
        validation_sigma=tuple(level / 255 for level in _LEVELS),
    )


def run(wanted: Recipe, data: Pictures) -> tuple[dict[str, float], float]:
    """The validation after training, and the seconds it took."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        (row,) = fit(training.build(wanted), wanted, data, folder, console=Console(quiet=True))
    return row, time.monotonic() - begun


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=300)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    data = training.load_pictures(asked.data, 1, 64)
    table = Table("optimizer", "rate of filters", *(f"sigma {level}" for level in _LEVELS), "seconds")
    for optimizer, rate in _RUNS:
        row, seconds = run(recipe(optimizer, rate, asked.steps), data)
        table.add_row(optimizer, f"{rate:g}", *(f"{row[f'psnr_{level}']:.3f}" for level in _LEVELS), f"{seconds:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
