"""Unconditional gradient networks, and ICNNs, as image regularizers: quality against the time of one gradient.

    python benchmarks/frontier.py --data ROOT --out docs/results/frontier

Every network is trained from a cold start by the bilevel loss, on the same patches of BSDS500, for the same seconds of
one CPU core (the steps of its schedule are found by timing some), and validated at sigma 25 on crops of the pictures of
val that are not in BSD68. The shipped unconditional models, trained much longer, are measured on the same crops. Ends
with a table and a figure; `--seconds 20` is a quick look. ROOT holds BSDS500 and the list of the 68 test pictures.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from deepinv.physics import Denoising
from harness import figure, png, read, seconds, table, write

import icgn
from icgn.datasets import bundled
from icgn.regularizers import (
    ICNN,
    ConvexRegularizer,
    DeepICGN,
    GroupICGN,
    LatentICGN,
    RidgeICGN,
    SoftmaxICGN,
    SumRegularizer,
)
from icgn.solvers import Problem
from icgn.training import Bilevel, Pictures, Recipe, fit, load_pictures, validate

SIGMA = 25 / 255
SIZE = (321, 481)
SHIPPED = ("ridge-gray", "ridge-gray-small", "latent-gray", "adversarial-gray")


def _with_ridge(other: ConvexRegularizer) -> SumRegularizer:
    """The conic sum of half a ridge network and another one."""
    return SumRegularizer([RidgeICGN(filters=16), other], [1.0, 1.0])


NETWORKS: dict[str, Callable[[], ConvexRegularizer]] = {
    "ridge, 32 filters": lambda: RidgeICGN(filters=32),
    "ridge, 64 filters": lambda: RidgeICGN(filters=64),
    "deep, 2 layers of 16": lambda: DeepICGN(layers=2, filters=16),
    "deep, 2 layers of 16, inner 3 x 3": lambda: DeepICGN(layers=2, filters=16, inner_size=3),
    "softmax, 8 groups of 4": lambda: SoftmaxICGN(groups=8, members=4),
    "l1 balls, 8 groups of 4": lambda: GroupICGN(groups=8, members=4),
    "l1 balls, 16 groups of 2": lambda: GroupICGN(groups=16, members=2),
    "ridge of 16 + softmax, 4 of 4": lambda: _with_ridge(SoftmaxICGN(groups=4, members=4)),
    "ridge of 16 + l1 balls, 8 of 2": lambda: _with_ridge(GroupICGN(groups=8, members=2)),
    "latent, 24 filters, 1 latent picture": lambda: LatentICGN(filters=24, latents=1),
    "latent, 24 filters, 3 latent pictures": lambda: LatentICGN(filters=24, latents=3),
    "ICNN, 2 layers of 10": lambda: ICNN(layers=2, filters=10),
    "ICNN, 2 layers of 32": lambda: ICNN(layers=2, filters=32),
}


@dataclass(frozen=True)
class Row:
    """One network: mean PSNR in dB on the crops, and milliseconds of one gradient of a picture of SIZE."""

    name: str
    parameters: int
    steps: int
    train_seconds: float
    psnr: float
    milliseconds: float


def recipe_for(regularizer: ConvexRegularizer, steps: int) -> Recipe:
    """The recipe, with the same rates for parameters of the same kind in every network."""
    names = [name for name, _ in regularizer.named_parameters()]
    rates = {name: 6e-3 if "bank" in name else 5e-2 if "log_" in name else 1e-2 for name in names}
    return Recipe(
        name="frontier",
        model={"type": "RidgeICGN"},
        loss=Bilevel(max_iter=40),
        steps=steps,
        batch=4,
        patch=48,
        sigma=(1 / 255, 50 / 255),
        learning_rate=rates,
        average=0.98,
        validate_every=steps,
        validation_sigma=(SIGMA,),
    )


def train(regularizer: ConvexRegularizer, data: Pictures, budget: float) -> tuple[int, float]:
    """Train for about `budget` seconds of CPU time; returns steps and seconds."""
    blind = replace(data, validation=[])
    trial = steps = 6
    state = {k: v.clone() for k, v in regularizer.state_dict().items()}

    def run(steps: int) -> float:
        begin = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            fit(regularizer, recipe_for(regularizer, steps), blind, folder)
        return time.process_time() - begin

    run(1)
    # Steps grow slower as the network grows sharper: a quarter of the schedule shows how much.
    for part in (trial, 0):
        number = part or max(trial, steps // 4)
        steps = max(trial, int(budget * number / run(number)))
        regularizer.load_state_dict(state)
    return steps, run(steps)


def measured(name: str, regularizer: ConvexRegularizer, data: Pictures, steps: int, spent: float) -> Row:
    """Validate a network and time its gradient."""
    result = validate(regularizer, recipe_for(regularizer, 1), data.validation, Denoising())
    parameters = sum(p.numel() for p in regularizer.parameters())
    return Row(name, parameters, steps, spent, result.row["psnr_25"], milliseconds(regularizer))


def milliseconds(regularizer: ConvexRegularizer) -> float:
    """Milliseconds of one gradient of a picture of SIZE."""
    picture = bundled(gray=True).find("camera").image[None, :, : SIZE[0], : SIZE[1]]
    # As solvers see it: with its latent pictures, if it has some.
    objective = Problem(picture, Denoising(), regularizer, SIGMA).objective.lifted(picture.shape)
    functional, x = objective.regularizer, objective.start(picture)
    with torch.no_grad():
        return 1000 * seconds(lambda: functional.grad(x))


def report(rows: list[Row], out: Path) -> None:
    """Write ``table.md``, ``results.json`` and ``frontier.png``."""
    facts = {"torch": torch.__version__, "icgn": icgn.__version__, "sigma": 25, "rows": [asdict(r) for r in rows]}
    best = sorted(rows, key=lambda r: -r.psnr)
    trained = [(str(r.steps), f"{r.train_seconds:.0f}") if r.steps else ("as shipped", "-") for r in best]
    cells = [
        (r.name, f"{r.parameters:,}", *own, f"{r.psnr:.2f}", f"{r.milliseconds:.0f}")
        for r, own in zip(best, trained, strict=True)
    ]
    heads = ("network", "parameters", "steps", "seconds of training", "PSNR, dB", "one gradient, ms")
    write(out, {"results.json": facts, "table.md": table(heads, cells), "frontier.png": _drawing(best)}, indent=2)


def _drawing(rows: list[Row]) -> bytes:
    sheet = figure(11, 5.5, dpi=110)
    axes = sheet.subplots()
    # By numbers, in the order of the table: names of neighbours would cover each other.
    for i, row in enumerate(rows, 1):
        point = (row.milliseconds, row.psnr)
        shape = {"marker": "o", "s": 40} if row.steps else {"marker": "*", "s": 90}
        axes.scatter(*point, color=f"C{i % 10}", label=f"{i}  {row.name}", **shape)
        axes.annotate(str(i), point, textcoords="offset points", xytext=(6, 4), fontsize=9)
    sheet.legend(loc="outside right upper", fontsize=9)
    axes.set(xscale="log", xlabel=f"one gradient of {SIZE[0]} x {SIZE[1]}, ms", ylabel="PSNR at sigma 25, dB")
    axes.set_title("Unconditional convex networks: dots trained for equal seconds, stars as shipped")
    axes.margins(x=0.1, y=0.1)
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(lambda value, _: f"{value:g}")
    return png(sheet)


def _others(out: Path, only: str) -> list[Row]:
    """Rows of earlier runs of the networks that are not trained now; their gradients are timed anew, as all others."""
    rows = [Row(**row) for row in read(out / "results.json", {"rows": []})["rows"]]
    kept = [row for row in rows if row.name in NETWORKS and only not in row.name]
    return [replace(r, milliseconds=milliseconds(NETWORKS[r.name]().requires_grad_(False))) for r in kept]


def main(
    data: Annotated[Path, typer.Option(help="Root of BSDS500.")],
    out: Annotated[Path, typer.Option(help="Folder of table, figure and results.")] = Path("frontier"),
    budget: Annotated[float, typer.Option("--seconds", help="CPU seconds of training for each network.")] = 240.0,
    only: Annotated[str, typer.Option(help="Train only networks with this in their names, and keep other rows.")] = "",
) -> None:
    """Train, measure, and write the report."""
    torch.set_num_threads(1)
    pictures = load_pictures(data, 1)
    rows = _others(out, only) if only else []
    for name in SHIPPED:
        model = icgn.load_pretrained(name)
        rows.append(measured(name, model, pictures, 0, 0.0))
        print(rows[-1], flush=True)
    for name, make in NETWORKS.items():
        if only not in name:
            continue
        network = make()
        steps, spent = train(network, pictures, budget)
        rows.append(measured(name, network.requires_grad_(False), pictures, steps, spent))
        print(rows[-1], flush=True)
        report(rows, out)
    report(rows, out)


if __name__ == "__main__":
    typer.run(main)
