"""Optimal transport maps on pairs whose map is known: unexplained variance, cosine, seconds.

    python benchmarks/transport.py

Gaussian pairs of random means and covariances (their map is affine, in closed form) and random Gaussian mixtures with
their image under the gradient of a random convex function, both losses, several seeds. Two starts: the optimal map
between Gaussians with the moments of the samples, which is the answer for the Gaussian pairs up to sampling error, so
that training can only keep it; and a shift and a scaling alone, from which everything else has to be learned. Writes
results.json and table.md; no data is needed.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from harness import RESULTS, table, write

from icgn.transport import (
    Correlation,
    DenseSoftmaxICGN,
    Pair,
    Sinkhorn,
    cosine,
    fit_map,
    gaussian_pair,
    l2_uvp,
    mixture_pair,
)
from icgn.transport.fitting import Start
from icgn.transport.losses import TransportLoss

# Where the map is close already, small steps keep it so.
LEARNING_RATE: dict[Start, float] = {"moments": 1e-2, "scale": 3e-2}
LOSSES: dict[str, TransportLoss] = {"Sinkhorn": Sinkhorn(), "correlation": Correlation()}
_HEAD = ("pair", "start", "loss", "L2-UVP at the start, %", "L2-UVP, %", "largest", "cosine", "steps", "CPU seconds")


@dataclass(frozen=True)
class Row:
    """One fit.

    Attributes
    ----------
    pair, loss, start, seed :
        what was fitted and how; the seed is that of pair, network and samples.
    start_uvp, uvp, cosine : float
        before training, and after it, on fresh samples; UVP in percent.
    steps, batch : int
        of the training.
    seconds : float
        processor time of the training.
    """

    pair: str
    loss: str
    start: str
    seed: int
    start_uvp: float
    uvp: float
    cosine: float
    steps: int
    batch: int
    seconds: float


def pairs(dims: list[int], mixtures: list[int], condition: float, seed: int) -> list[Pair]:
    """The pairs of a seed, each with a generator of its own."""
    own = [gaussian_pair(d, torch.Generator().manual_seed(1000 * seed + d), condition=condition) for d in dims]
    return own + [mixture_pair(d, torch.Generator().manual_seed(1000 * seed + 500 + d)) for d in mixtures]


def measure(pair: Pair, loss: str, start: Start, seed: int, steps: int, batch: int) -> Row:
    """Fit a softmax network to a pair."""
    test = pair.source(20000)
    networks = []
    begin = 0.0
    for count in (0, steps):
        torch.manual_seed(seed)
        networks.append(_network(test.shape[1]))
        begin = time.process_time()
        fit_map(
            networks[-1],
            pair.source,
            pair.target,
            LOSSES[loss],
            steps=count,
            batch=batch,
            learning_rate=LEARNING_RATE[start],
            start=start,
        )
    seconds = time.process_time() - begin
    before, after = (l2_uvp(n, pair.map, test) for n in networks)
    return Row(pair.name, loss, start, seed, before, after, cosine(networks[-1], pair.map, test), steps, batch, seconds)


def _network(dim: int) -> DenseSoftmaxICGN:
    return DenseSoftmaxICGN(dim, groups=4, members=16, strong_convexity=0.01, quadratic=dim)


def page(rows: list[Row], settings: dict[str, Any]) -> str:
    """The means over the seeds, Markdown."""
    lines = []
    keys = dict.fromkeys((r.pair, r.start, r.loss) for r in rows)
    for key in keys:
        own = [r for r in rows if (r.pair, r.start, r.loss) == key]
        cells = [
            f"{mean(r.start_uvp for r in own):.3f}",
            f"**{mean(r.uvp for r in own):.3f}**",
            f"{max(r.uvp for r in own):.3f}",
            f"{mean(r.cosine for r in own):.4f}",
            f"{own[0].steps} x {own[0].batch}",
            f"{mean(r.seconds for r in own):.1f}",
        ]
        lines.append((*key, *cells))
    network = _network(2)
    text = (
        f"Means over {len({r.seed for r in rows})} seeds; *largest* is the worst of them. Covariances with condition "
        f"number {settings['condition']:g}; {type(network).__name__} of 4 groups of 16 with a quadratic part of full "
        "rank; fresh samples in each step, 20000 for the errors. The start *moments* is the optimal map between "
        "Gaussians with the moments of 16384 samples, but for a weak random curved part; *scale* matches means and "
        f"total variance only. Learning rates {LEARNING_RATE['moments']:g} and {LEARNING_RATE['scale']:g}. "
        f"`python benchmarks/transport.py`, {settings['threads']} CPU thread(s), torch {settings['torch']}."
    )
    return "\n".join([table(_HEAD, lines), "", text])


def main() -> None:
    """Measure all and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="*", default=[2, 8, 64], help="of the Gaussian pairs")
    parser.add_argument("--mixtures", type=int, nargs="*", default=[2, 8], help="dimensions of the mixtures")
    parser.add_argument("--starts", nargs="+", choices=list(LEARNING_RATE), default=list(LEARNING_RATE))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--condition", type=float, default=20.0, help="condition number of the covariances")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "transport")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    settings = {"condition": options.condition, "threads": options.threads, "torch": torch.__version__}
    for seed in options.seeds:
        for pair in pairs(options.dims, options.mixtures, options.condition, seed):
            for start in options.starts:
                for loss in LOSSES:
                    rows.append(measure(pair, loss, start, seed, options.steps, options.batch))
                    r = rows[-1]
                    print(
                        f"{r.pair:20s} {r.start:8s} {r.loss:12s} seed {seed}: L2-UVP {r.start_uvp:.3f} -> "
                        f"{r.uvp:.3f}%, cosine {r.cosine:.4f}, {r.seconds:.1f} s",
                        flush=True,
                    )
                    content = {"settings": settings, "rows": [asdict(row) for row in rows]}
                    write(options.output, {"results.json": content, "table.md": page(rows, settings)})


if __name__ == "__main__":
    main()
