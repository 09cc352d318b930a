"""Optimal maps on the pairs Mix3ToMix10 of the Wasserstein-2 benchmark (Korotin et al. 2021, arXiv:2106.01954).

    python benchmarks/wasserstein2.py --root ROOT
    python benchmarks/wasserstein2.py --root ROOT --dims 2,4,8 --seeds 3 --cpu-seconds 1200 --threads 2

ROOT is the folder of the files mix3to10_D.npz, which the package does not contain. Each network is fitted by the same
call of `fit_map` for the same processor time, which a busy machine does not change: a deep network, a sum of softmax
modules, and as the baseline the input convex network with quadratic skips of the benchmark's own solvers, so that
network and algorithm are told apart. L2-UVP and cosine by the protocol of the paper, 4096 fresh samples, in both
directions: the map of the pair, and the network of conjugates as the map back. From d = 32 on fits start from
assignments of batches, below from moments. Rows are kept: a run adds the dimensions and seeds that it measures. The
published rows are those of the paper.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from harness import RESULTS, Out, Threads, conditions, numbers, resumed, table, write

from icgn.transport import (
    DenseDeepICGN,
    DenseQuadraticICGN,
    DenseSoftmaxICGN,
    GradientNetwork,
    SemiDual,
    cosine,
    fit_map,
    l2_uvp,
    mix3_to_mix10,
)

DIMS = (2, 4, 8, 16, 32, 64, 128)
PUBLISHED = {
    "MMv1": (0.2, 1.0, 1.8, 1.4, 6.9, 8.1, 2.2),
    "MM:R": (0.1, 0.3, 0.7, 1.9, 2.8, 4.5, None),
    "MM": (0.1, 0.3, 0.9, 2.2, 4.2, 3.2, 3.1),
    "W2": (0.1, 0.7, 2.6, 3.3, 6.0, 7.2, 2.0),
    "linear": (14.1, 14.9, 27.3, 41.6, 55.3, 63.9, 63.6),
}
# Samples of the protocol.
_TEST = 4096
# The dimension from which on a start from assignments gains more than it takes.
_ASSIGNED = 32


def deep(dim: int) -> DenseDeepICGN:
    """Two layers, wider in more dimensions."""
    width = max(64, 2 * dim)
    return DenseDeepICGN(dim, widths=(width, width), quadratic=dim)


def softmax(dim: int) -> DenseSoftmaxICGN:
    """Modules of 32 classes, more in more dimensions."""
    return DenseSoftmaxICGN(dim, groups=max(8, dim // 4), members=32, quadratic=dim)


def icnn(dim: int) -> DenseQuadraticICGN:
    """The baseline: three layers of the widths that the benchmark's maps have, or wider."""
    width = max(64, 2 * dim)
    return DenseQuadraticICGN(dim, widths=(width, width, width // 2), quadratic=dim)


NETWORKS: dict[str, Callable[[int], GradientNetwork]] = {"deep": deep, "softmax": softmax, "icnn": icnn}


def main(
    root: Annotated[Path, typer.Option(help="Folder of mix3to10_D.npz.")],
    dims: Annotated[str, typer.Option(help="Dimensions, separated by commas.")] = "2,4,8,16",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds, from 0 on.")] = 1,
    networks: Annotated[str, typer.Option(help="Networks, separated by commas.")] = ",".join(NETWORKS),
    cpu_seconds: Annotated[float, typer.Option(min=1, help="Processor time of a fit, of all threads.")] = 1200.0,
    batch: Annotated[int, typer.Option(min=4, help="Samples of either measure in a step.")] = 512,
    learning_rate: Annotated[float, typer.Option(help="At the first step.")] = 3e-2,
    threads: Threads = 2,
    out: Out = None,
) -> None:
    """Fit all networks, print the table, and write it with its numbers."""
    torch.set_num_threads(threads)
    folder = RESULTS / "wasserstein2" if out is None else out
    settings = {"cpu_seconds": cpu_seconds, "batch": batch, "learning_rate": learning_rate, "threads": threads}
    content = resumed(folder / "results.json", settings, runs={})
    content["conditions"] = conditions("torch")
    for dim in numbers(dims, "dims", int):
        for seed in range(seeds):
            for name in networks.split(","):
                row = measured(root, dim, name, seed, cpu_seconds, batch, learning_rate)
                content["runs"][f"{name} {dim} {seed}"] = row
                print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
                write(folder, {"results.json": content, "table.md": markdown(content)})
    print(markdown(content))


def measured(
    root: Path, dim: int, name: str, seed: int, cpu_seconds: float, batch: int, learning_rate: float
) -> dict[str, Any]:
    """One fit of a network, and how far its maps are from the optimal ones."""
    torch.manual_seed(seed)
    # Samples of the two measures do not depend on each other.
    pairs = [mix3_to_mix10(root, dim, torch.Generator().manual_seed(2 * seed + k)) for k in range(2)]
    network, back = NETWORKS[name](dim), NETWORKS[name](dim)
    history = fit_map(
        network,
        pairs[0].source,
        pairs[1].target,
        SemiDual(conjugate=back),
        steps=10**9,
        batch=batch,
        learning_rate=learning_rate,
        start="assignments" if dim >= _ASSIGNED else "moments",
        seconds=cpu_seconds,
        clock=time.process_time,
    )
    x = mix3_to_mix10(root, dim, torch.Generator().manual_seed(10**6 + seed)).source(_TEST)
    y = pairs[0].map(x)
    return {
        "network": name,
        "dim": dim,
        "seed": seed,
        "parameters": sum(p.numel() for p in network.parameters()),
        "steps": len(history.loss),
        "seconds": history.seconds,
        "uvp": l2_uvp(network, pairs[0].map, x),
        "cosine": cosine(network, pairs[0].map, x),
        "uvp_back": l2_uvp(back, lambda _: x, y),
        "cosine_back": cosine(back, lambda _: x, y),
    }


def markdown(content: dict[str, Any]) -> str:
    """L2-UVP in percent by dimension: medians over the seeds, beside what is published."""
    runs = list(content["runs"].values())
    rows = []
    for name in NETWORKS:
        for key, what in (("uvp", ""), ("uvp_back", ", back")):
            cells = [_median([r[key] for r in runs if r["network"] == name and r["dim"] == d]) for d in DIMS]
            rows.append((f"icgn, {name}{what}", *cells))
    rows += [(name, *("-" if v is None else f"{v:.1f}" for v in values)) for name, values in PUBLISHED.items()]
    s = content["settings"]
    counts = {d: len({r["seed"] for r in runs if r["dim"] == d}) for d in DIMS}
    seen = ", ".join(f"{d}: {n}" for d, n in counts.items() if n)
    text = (
        f"L2-UVP, percent, medians over seeds (seeds for each dimension: {seen}); {s['cpu_seconds']:g} s of"
        f" processor time a fit, {s['threads']} threads, batches of {s['batch']}, learning rate {s['learning_rate']:g},"
        f" torch {content['conditions']['versions']['torch']}. *Back* is the map from target to source. The rows below"
        " are published (Korotin et al. 2021)."
    )
    return "\n".join([table(("method", *(f"d = {d}" for d in DIMS)), rows), "", text])


def _median(values: list[float]) -> str:
    return f"**{median(values):.2f}**" if values else "-"


if __name__ == "__main__":
    typer.run(main)
