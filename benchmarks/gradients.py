r"""ICGN or ICNN? Gradient networks and an input convex network at equal parameters and equal training seconds.

    python benchmarks/gradients.py

Each network is fitted to gradients of convex functions: the polynomial of the paper, a maximum of affine functions in
the plane smoothed by a Gaussian (no ridge network of any width represents it), and random convex functions in 8, 32 and
256 dimensions. Compared are the ICGN of the paper by quadrature, the dense networks of the package in closed form
(ridge, deep, softmax, group), and the ICNN, differentiated by autograd, twice in training.

All get the same care. For every network, target and size, what it is made of (two variants each), the scale of its
first weights and its learning rate are chosen on *another* function of the same kind. All start with the same scale of
values, have a quadratic term of the same rank, the same samples, batches and optimizer, and the same seconds of CPU
time, after a first step that is not counted. How many steps they do in them is their affair, and is reported.

Writes results.json, results.csv, table.md and a picture for each target. What is in the folder already is kept if it
was measured with the same settings: a run that was interrupted goes on, another one begins anew. On one core the
default takes about two hours; no data is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from gradients_fit import BATCH, RATES, SHARPNESS, Choice, choose, defects, evaluation_seconds, fitted, quality
from gradients_networks import FAMILIES, parameters
from gradients_report import Fields, drawing, markdown, table
from gradients_targets import Polynomial, PositiveNorms, Samples, Target, best_affine, random_maximum
from harness import RESULTS, Out, Threads, conditions, numbers, resumed, write
from torch import Tensor, nn

SIZES = (100, 1_000, 10_000)
# A target is learned with at least so many parameters per dimension.
LEAST = 8
# Points to learn from and to measure at, and points along the side of a picture.
TRAIN, TEST, SIDE = 16384, 2048, 61


@dataclass(frozen=True)
class Task:
    """A target, and another of its kind, on which the choices for every network are made."""

    title: str
    target: Callable[[], Target]
    validation: Callable[[], Target]


def _norms(dim: int) -> Task:
    title = f"Random convex function in {dim} dimensions"
    return Task(title, lambda: PositiveNorms(dim, seed=0), lambda: PositiveNorms(dim, seed=1))


TARGETS: dict[str, Task] = {
    "polynomial": Task("The paper's polynomial", Polynomial, lambda: Polynomial((0.6, 0.8, -0.4, 1.2, -0.2))),
    "maximum": Task("Smoothed maximum of 5 affine functions", lambda: random_maximum(0), lambda: random_maximum(1)),
    **{f"dimension-{dim}": _norms(dim) for dim in (8, 32, 256)},
}


@dataclass(frozen=True)
class Problem:
    """The measurements of all networks on one target at one size."""

    card: dict[str, Any]
    rows: list[dict[str, Any]]
    fields: Fields


def problem(key: str, size: int, seconds: float, seeds: int) -> Problem:
    """Choose, fit and measure every network on a target of :data:`TARGETS`, each for the same seconds."""
    target, other = TARGETS[key].target(), TARGETS[key].validation()
    (train, test), validation = samples(target), samples(other)
    rows: list[dict[str, Any]] = []
    networks: dict[str, nn.Module] = {}
    for family in FAMILIES:
        choice = choose(family, size, *validation, seconds)
        for seed in range(seeds):
            network, training = fitted(family, size, choice, train, seconds, seed)
            rows.append({
                "target": key, "dim": target.dim, "size": size, "network": family, "seed": seed,
                "variant": choice.variant, "sharpness": choice.sharpness, "rate": choice.rate, "steps": training.steps,
                "step_seconds": training.seconds / training.steps, **measure(network, train, test),
            })  # fmt: skip
            networks.setdefault(family, network)
    card = {"target": key, "title": TARGETS[key].title, "dim": target.dim, "size": size}
    return Problem({**card, "affine": best_affine(train, test)}, rows, fields(target, networks, train.size))


def samples(target: Target) -> tuple[Samples, Samples]:
    """Samples to learn from and others to measure with, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    train, test = (target.samples(count, generator).to(torch.float32) for count in (TRAIN, TEST))
    return train, test


def measure(network: nn.Module, train: Samples, test: Samples) -> dict[str, float]:
    """Parameters, decibels, defects and seconds of an evaluation; the network is left in float64."""
    found = {
        "parameters": parameters(network),
        "decibels": quality(network, train, test),
        "evaluation_seconds": evaluation_seconds(network, test.points),
    }
    asymmetry, least = defects(network, test.points)
    return {**found, "asymmetry": asymmetry, "least_curvature": least}


@torch.no_grad()
def fields(target: Target, networks: dict[str, nn.Module], scale: float, count: int = SIDE) -> Fields:
    """The field, and the errors of networks in float64 fitted to it over a scale, on `count` points along each axis."""
    low, high = target.box
    side = torch.linspace(low, high, count, dtype=torch.float64)
    origin, basis = target.section()
    points = origin + torch.cartesian_prod(side, side) @ basis
    field = target.grad(points)

    def square(values: Tensor) -> Tensor:
        return values.unflatten(0, (count, count))

    errors = {name: square((scale * network(points) - field).norm(dim=1)) for name, network in networks.items()}
    return Fields(target.box, square(field @ basis.T), square(field.norm(dim=1)), errors)


def smallest(content: dict[str, Any], key: str) -> int:
    """The least size of a target among the problems done."""
    return min(c["size"] for c in content["problems"] if c["target"] == key)


def fields_again(content: dict[str, Any], key: str) -> Fields:
    """The fields of the smallest size, of networks fitted anew with the choices made for them in an earlier run."""
    target, size = TARGETS[key].target(), smallest(content, key)
    train, _ = samples(target)
    networks: dict[str, nn.Module] = {}
    for row in content["rows"]:
        if (row["target"], row["size"], row["seed"]) == (key, size, 0):
            choice = Choice(row["variant"], row["sharpness"], row["rate"])
            network, _ = fitted(row["network"], size, choice, train, content["settings"]["seconds"], 0)
            networks[row["network"]] = network.double()
    return fields(target, networks, train.size)


def settings(seconds: float, seeds: int, threads: int) -> dict[str, Any]:
    """What a reader of results.json has to know of the run."""
    return {
        "seconds": seconds, "seeds": seeds, "threads": threads, "batch": BATCH, "train": TRAIN, "test": TEST,
        "choices": 2 * len(SHARPNESS) * len(RATES), **conditions("torch"),
    }  # fmt: skip


def report(content: dict[str, Any], pictures: dict[str, Fields], out: Path) -> str:
    """Write everything measured so far; the page."""
    page = markdown(content)
    files = {"results.json": content, "results.csv": table(content["rows"]), "table.md": page}
    for key, values in pictures.items():
        own = [r for r in content["rows"] if r["target"] == key]
        labels, where = (
            (("x1", "x2"), "") if own[0]["dim"] == 2 else (("u", "v"), ", in a plane through a random point")
        )
        title = f"{TARGETS[key].title}: errors at about {own[0]['size']:,} parameters{where}"
        files[f"{key}.png"] = drawing(title, values, own, labels)
    write(out, files)
    return page


def main(
    targets: Annotated[str, typer.Option(help="Names of targets, separated by commas.")] = ",".join(TARGETS),
    sizes: Annotated[str, typer.Option(help="Parameters, separated by commas.")] = ",".join(map(str, SIZES)),
    seconds: Annotated[float, typer.Option(min=0.01, help="CPU seconds of each training.")] = 4.0,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each network.")] = 3,
    threads: Threads = 1,
    out: Out = None,
) -> None:
    """Measure, print the tables, and write results.json, results.csv, table.md and the pictures."""
    torch.set_num_threads(threads)
    problems = _problems(targets.split(","), numbers(sizes, "sizes", int))
    folder = out or RESULTS / "gradients"
    content = resumed(folder / "results.json", settings(seconds, seeds, threads), problems=[], rows=[])
    pictures: dict[str, Fields] = {}
    page = markdown(content) if content["problems"] else ""
    for key, size in problems:
        if any((c["target"], c["size"]) == (key, size) for c in content["problems"]):
            continue
        found = problem(key, size, seconds, seeds)
        content = together(content, found)
        # Networks differ most at the smallest size: that is drawn.
        if size == smallest(content, key):
            pictures[key] = found.fields
        elif key not in pictures:
            pictures[key] = fields_again(content, key)
        page = report(content, pictures, folder)
    print(page)


def together(content: dict[str, Any], found: Problem) -> dict[str, Any]:
    """The content with one problem more, in the order of a whole run."""
    targets = list(TARGETS)

    def place(entry: dict[str, Any]) -> tuple[int, int]:
        return targets.index(entry["target"]), entry["size"]

    problems = sorted([*content["problems"], found.card], key=place)
    return {**content, "problems": problems, "rows": sorted(content["rows"] + found.rows, key=place)}


def _problems(names: Sequence[str], sizes: Sequence[int]) -> list[tuple[str, int]]:
    unknown = [n for n in names if n not in TARGETS]
    if unknown:
        raise typer.BadParameter(f"--targets: got {', '.join(unknown)}, expected some of {', '.join(TARGETS)}")
    problems = [(n, s) for n in names for s in sorted(sizes) if s >= LEAST * TARGETS[n].target().dim]
    if not problems:
        raise typer.BadParameter(f"--sizes: got {sizes}, expected at least {LEAST} per dimension of a target")
    return problems


if __name__ == "__main__":
    typer.run(main)
