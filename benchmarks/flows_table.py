"""The page on flows of measures, from the tables that the two demos write, one after the other for each seed.

    python demos/convex_potential_flow.py OUT --seed N
    python demos/wasserstein_flow.py OUT --seed N

Their rows, of all seeds, are collected in the CSV files of docs/results/flows.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from statistics import mean

from harness import table

_LIKELIHOOD = (
    "Held-out log-likelihood in nats per row (higher is better), mean over seeds {seeds} of data or split, "
    "parameters and batches (each seed in brackets), by `python demos/convex_potential_flow.py --seed N`. The "
    "breast-cancer table is standardized by its training rows; the mixture is the best in validation of 48 (1 to "
    "20 components; full, tied, diagonal)."
)
_PROCESS = (
    "Ornstein-Uhlenbeck process in d dimensions, implicit steps of 0.05 by networks: symmetric KL from the closed "
    "form in nats (seed {seeds}, with the standard error of the estimate), by `python demos/wasserstein_flow.py "
    "--seed N`. Both directions are means of log-ratios of densities, that of the flow by change of variables, at "
    "4000 pushed points and at certified preimages of 500 points of the truth."
)
_MODELS = ("Gaussian", "Gaussian mixture", "flow, exact log-determinant", "flow, Lanczos, one probe")
# Toys have one flow, with the exact log-determinant.
_SAME = {"flow": "flow, exact log-determinant"}


def page(folder: Path) -> str:
    """The page in Markdown, from the two CSV files of a folder."""
    likelihood, process = (_read(folder / f"{n}.csv") for n in ("convex_potential_flow", "wasserstein_flow"))
    parts = [
        _LIKELIHOOD.format(seeds=_seeds(likelihood)),
        _likelihoods(likelihood),
        "![toys and a table](convex_potential_flow.png)",
        _PROCESS.format(seeds=_seeds(process)),
        _processes(process),
        "![flows](wasserstein_flow.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _seeds(rows: list[dict[str, str]]) -> str:
    return ", ".join(sorted({r["seed"] for r in rows}, key=int))


def _likelihoods(rows: list[dict[str, str]]) -> str:
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for r in sorted(rows, key=lambda r: int(r["seed"])):
        value = float(r["held-out log-likelihood, nats"])
        found[r["data"]][_SAME.get(r["model"], r["model"])].append(value)
    rows = [(data, *(_values(models.get(m, [])) for m in _MODELS)) for data, models in found.items()]
    return table(("data", *_MODELS), rows)


def _values(values: list[float]) -> str:
    return f"{mean(values):.2f} ({', '.join(f'{v:.2f}' for v in values)})" if values else "-"


def _processes(rows: list[dict[str, str]]) -> str:
    cells = []
    for r in rows:
        learned = f"{float(r['symmetric']):.3f} ± {float(r['standard error']):.3f}"
        exact, initial = float(r["exact implicit steps"]), float(r["initial density"])
        cells.append((r["d"], f"{float(r['t']):.2f}", learned, f"{exact:.4f}", f"{initial:.2f}"))
    return table(("d", "t", "learned", "exact implicit steps", "density at t = 0"), cells)
