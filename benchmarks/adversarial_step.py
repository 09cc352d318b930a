"""One adversarial training step of the shipped gradient network against one of the two-layer ICNN.

    python benchmarks/adversarial_step.py --threads 2

Same batch (8 patches of 64 x 64), same loss, same optimizer, in turns in one run; no data is needed.
"""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import Annotated

import torch
import typer
from harness import Threads, in_turns, ratio

import icgn
from icgn.datasets import bundled
from icgn.regularizers import ConvexRegularizer
from icgn.training import Adversarial, Batch, Recipe, draw, make_physics


def step(regularizer: ConvexRegularizer, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """Take one step, as the training loop does."""
    optimizer.zero_grad()
    torch.autograd.backward(Adversarial().values(regularizer, batch).mean())
    optimizer.step()


def main(
    threads: Threads = 2,
    model: Annotated[str, typer.Option(help="Name or path of the gradient network.")] = "adversarial-gray",
    rounds: Annotated[int, typer.Option(help="Rounds of both in turns, of which the median counts.")] = 7,
) -> None:
    """Print seconds and their ratio."""
    torch.set_num_threads(threads)
    recipe = Recipe("step", model={"type": "ICNN"}, batch=8, patch=64)
    batch = draw([s.image for s in bundled(gray=True)], recipe, 0, make_physics({}))
    networks: dict[str, ConvexRegularizer] = {model: icgn.load_pretrained(model), "ICNN": icgn.ICNN()}
    steps = {}
    for name, network in networks.items():
        network.train().requires_grad_(True)
        steps[name] = partial(step, network, torch.optim.Adam(network.parameters(), 1e-6), batch)
    times = in_turns(steps, rounds, repeat=3)
    for name, network in networks.items():
        parameters = sum(p.numel() for p in network.parameters())
        print(f"{name:20s} {parameters:7d} parameters  {median(times[name]) * 1e3:7.1f} ms a step")
    print(f"ratio {ratio(times, model, 'ICNN'):.2f} ({threads} threads)")


if __name__ == "__main__":
    typer.run(main)
