"""Inverse problems beyond denoising: the certified minimizers of total variation and of a learned regularizer.

    python benchmarks/inverse.py --data ROOT

ROOT holds BSDS500, BSD68.txt and, for deblurring, levin09_kernels.npz. Both methods minimize

    sigma^2 |A x - y|^2 / (2 noise^2) + weight R(x; sigma)

over a box, with (sigma, weight) found for each task and method by the same search (:func:`tune`) on pictures that
are not those of the test: two or three crops of BSDS500 (val without BSD68), or random ellipses where the test is a
phantom. Tested are the photographs bundled with scikit-image (centre crops) and, for deblurring, ten whole pictures of
BSD68.

Every row stands in docs/results/inverse/results.json as soon as it is known and is not computed again;
``python benchmarks/results.py`` puts the table into RESULTS.md.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from harness import RESULTS, Threads, read, write
from inverse_figure import Panel, draw
from inverse_tasks import NOISE, TASKS, Case, Kernels, Task, ellipses, read_kernels, shepp_logan
from torch import Tensor

from icgn.datasets import bsd68, bsds500, bundled, quality
from icgn.regularizers import ConvexRegularizer, PerChannel, TotalVariation, load_pretrained, read_card
from icgn.solvers import Problem, solve
from icgn.storage import versions

GAP, ITERATIONS = 1e-3, 3000
# Smoothing of total variation, in intensities: below a gray level.
EPS = 3e-3
# Side of the test pictures in pixels.
CROP = 192
# The answers of the search need less accuracy, and begin where the last one ended.
_ROUGH_GAP, _ROUGH_ITERATIONS = 1e-2, 100
# Gray levels that the search begins with, factors of its steps, and the most tries.
_LEVELS, _STEPS, _TRIES = (5.0, 10.0, 20.0, 40.0), (2**0.5, 2**0.25), 16


# Task and picture of the rows of the figure.
SHOWN = {
    "deblurring": "camera",
    "inpainting, half missing": "chelsea",
    "MRI x4": "astronaut",
    "CT, 60 views": "coffee",
}


@dataclass(frozen=True, eq=False)
class Method:
    """A regularizer with its name and a hash of all that its answers depend on."""

    name: str
    regularizer: ConvexRegularizer
    fingerprint: str


def methods(model: str) -> list[Method]:
    """Total variation and a learned regularizer.

    Raises
    ------
    ModelError
        if the model cannot be loaded.
    """
    tv = TotalVariation(eps=EPS)
    facts = f"TotalVariation {tv.factor} {tv.exponent} {tv.eps}"
    card = read_card(model)
    learned = load_pretrained(model, device="cpu")
    return [
        Method("tv", tv, hashlib.sha256(facts.encode()).hexdigest()[:16]),
        Method(str(card.get("name", model)), learned, str(card["sha256"])[:16]),
    ]


@dataclass(frozen=True, eq=False)
class Answer:
    """The picture (1, C, H, W) that minimizes the objective of a case, and what it took."""

    x: Tensor
    relative_gap: float
    iterations: int
    seconds: float


def restore(
    case: Case,
    method: Method,
    sigma: float,
    weight: float,
    gap: float = GAP,
    max_iter: int = ITERATIONS,
    start: Tensor | None = None,
) -> Answer:
    """The minimizer of a case; sigma in intensities, `gap` the relative objective gap to be certified."""
    regularizer = PerChannel(method.regularizer) if case.complex else method.regularizer
    problem = Problem(case.y, case.physics, regularizer, sigma=sigma, noise=NOISE, weight=weight, box=case.box)
    start = case.start if start is None else start
    solution = solve(problem, tol=1e-6, gap_tol=gap, max_iter=max_iter, x0=start)
    relative = float(solution.certificate.relative_gap[0])
    return Answer(solution.x, relative, int(solution.stats.iterations[0]), solution.stats.seconds)


def psnr(case: Case, x: Tensor) -> float:
    """PSNR in dB of a picture (1, C, H, W); of the modulus if it is complex."""
    return quality(case.shown(x), case.shown(case.clean)).psnr


def tune(cases: list[Case], method: Method) -> tuple[float, float, float]:
    r"""Search (sigma, weight) of the best mean PSNR: four sigmas with weight 1, then a compass search from the best.

    The latter tries the four neighbours at a factor :math:`\sqrt 2`, moves to the first that is better, and goes on
    with :math:`2^{1/4}` where none is: at most 16 tries in all, the same for every method.

    Returns
    -------
    (float, float, float)
        sigma in intensities, weight, and the mean PSNR in dB.
    """
    starts = [c.start for c in cases]
    tried: dict[tuple[int, int], float] = {}

    def score(place: tuple[int, int]) -> float:
        if place not in tried:
            sigma, weight = _at(place)
            for i, case in enumerate(cases):
                starts[i] = restore(case, method, sigma, weight, _ROUGH_GAP, _ROUGH_ITERATIONS, starts[i]).x
            tried[place] = sum(psnr(c, x) for c, x in zip(cases, starts, strict=True)) / len(cases)
        return tried[place]

    best = max(((round(4 * math.log2(level)), 0) for level in _LEVELS), key=score)
    for step in (round(4 * math.log2(s)) for s in _STEPS):
        moved = True
        while moved and len(tried) < _TRIES:
            around = [(best[0] + a * step, best[1] + b * step) for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))]
            better = next((p for p in around if len(tried) < _TRIES and score(p) > score(best)), best)
            moved, best = better != best, better
    return *_at(best), tried[best]


def _at(place: tuple[int, int]) -> tuple[float, float]:
    """Sigma in intensities and weight of a point of the grid of the search, in quarters of octaves."""
    return 2 ** (place[0] / 4) / 255, 2 ** (place[1] / 4)


def crop(image: Tensor, side: int) -> Tensor:
    """The centre of a picture (C, H, W), at most `side` pixels high and wide, both divisible by 4."""
    height, width = (min(side, s) // 4 * 4 for s in image.shape[-2:])
    top, left = ((s - k) // 2 for s, k in zip(image.shape[-2:], (height, width), strict=True))
    return image[..., top : top + height, left : left + width]


def tuning_cases(task: Task, data: Path, kernels: Kernels) -> list[Case]:
    """What a task is tuned on."""
    if task.pictures == "phantom":
        pictures = [(f"ellipses {i}", ellipses(task.side, i)) for i in range(task.crops)]
    else:
        samples = bsds500(data, split="val-rest", gray=True)
        samples = samples[:: len(samples) // task.crops][: task.crops]
        pictures = [(s.name, crop(s.image, task.side)) for s in samples]
    # The kernels of deblurring are taken from different ends of the list.
    return [task.make(n, image, 3 * i, kernels) for i, (n, image) in enumerate(pictures)]


def test_cases(name: str, task: Task, data: Path, kernels: Kernels) -> Iterator[Case]:
    """What a task is tested on."""
    if task.pictures == "phantom":
        yield task.make("Shepp-Logan", shepp_logan(CROP), 0, kernels)
        return
    index = 0
    for sample in bundled(gray=True):
        yield task.make(sample.name, crop(sample.image, CROP), index, kernels)
        index += 1
    for sample in bsd68(data)[:10] if name == "deblurring" else ():
        yield task.make(sample.name, sample.image, index, kernels)
        index += 1


class Results:
    """The file of results: read once, written after every entry.

    Parameters
    ----------
    path : Path
        JSON; rows and tunings of another version of a method are dropped when it is run again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = read(path, {})
        self.rows: list[dict[str, Any]] = content.get("rows", [])
        self.tuning: list[dict[str, Any]] = content.get("tuning", [])

    def find(self, kind: str, **keys: Any) -> dict[str, Any] | None:
        """The entry of ``rows`` or ``tuning`` with these values, or None."""
        return next((r for r in getattr(self, kind) if all(r[k] == v for k, v in keys.items())), None)

    def add(self, kind: str, entry: dict[str, Any], unique: tuple[str, ...]) -> dict[str, Any]:
        """Keep an entry in the place of those that agree with it in the fields `unique`, and write the file."""
        entries = getattr(self, kind)
        entries[:] = [r for r in entries if any(r[k] != entry[k] for k in unique)] + [entry]
        entries.sort(key=lambda r: list(TASKS).index(r["task"]))
        settings = {
            "seed": 0, "noise": NOISE, "gap": GAP, "max_iter": ITERATIONS, "crop": CROP,
            "threads": torch.get_num_threads(), "versions": versions("torch", "deepinv", "numpy", "scikit-image"),
        }  # fmt: skip
        content = {"settings": settings, "tuning": self.tuning, "rows": self.rows}
        write(self.path.parent, {self.path.name: content})
        return entry


def tuned(results: Results, task: str, method: Method, cases: Callable[[], list[Case]]) -> dict[str, Any]:
    """The (sigma, weight) of a task and method: from the file, or by the search."""
    known = results.find("tuning", task=task, fingerprint=method.fingerprint)
    if known:
        return known
    begin = time.perf_counter()
    sigma, weight, score = tune(cases(), method)
    entry = {
        "task": task, "method": method.name, "fingerprint": method.fingerprint, "sigma": sigma, "weight": weight,
        "psnr": score, "seconds": round(time.perf_counter() - begin, 2),
    }  # fmt: skip
    print(f"{task}, {method.name}: sigma {255 * sigma:.1f}, weight {weight:.2f}, {score:.2f} dB tuned", flush=True)
    return results.add("tuning", entry, ("task", "method"))


def measure(results: Results, task: str, method: Method, case: Case, numbers: dict[str, Any]) -> None:
    """One row, unless it is there."""
    sigma, weight = numbers["sigma"], numbers["weight"]
    keys = {"task": task, "fingerprint": method.fingerprint, "picture": case.name, "sigma": sigma, "weight": weight}
    if results.find("rows", **keys):
        return
    answer = restore(case, method, sigma, weight)
    row = {
        **keys,
        "method": method.name,
        "start": TASKS[task].start,
        "start_psnr": psnr(case, case.start),
        "psnr": psnr(case, answer.x),
        "relative_gap": answer.relative_gap,
        "iterations": answer.iterations,
        "seconds": round(answer.seconds, 3),
        "certified": answer.relative_gap <= GAP,
    }
    results.add("rows", row, ("task", "method", "picture"))
    print(f"{task}, {method.name}, {case.name}: {row['psnr']:.2f} dB, gap {row['relative_gap']:.1e}", flush=True)


def main(
    data: Annotated[Path, typer.Option(help="Root of BSDS500, with BSD68.txt and levin09_kernels.npz.")],
    task: Annotated[list[str] | None, typer.Option(help=f"Of: {'; '.join(TASKS)}. Default all.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Take every n-th test picture.")] = 1,
    model: Annotated[str, typer.Option(help="Name or path of a gray model.")] = "ridge-gray-small",
    out: Annotated[Path, typer.Option(help="Folder of results.json and pictures.png.")] = RESULTS / "inverse",
    threads: Threads = 1,
) -> None:
    """Tune and measure what is not measured yet, and draw the figure."""
    unknown = sorted(set(task or ()) - set(TASKS))
    if unknown:
        raise typer.BadParameter(f"got {unknown[0]!r}, expected one of {', '.join(TASKS)}", param_hint="--task")
    torch.set_num_threads(threads)
    kernels = read_kernels(data)
    compared, results = methods(model), Results(out / "results.json")
    for name in task or TASKS:
        pictures = functools.partial(tuning_cases, TASKS[name], data, kernels)
        numbers = [tuned(results, name, method, pictures) for method in compared]
        for case in itertools.islice(test_cases(name, TASKS[name], data, kernels), None, None, every):
            for method, found in zip(compared, numbers, strict=True):
                measure(results, name, method, case, found)
    panels = [panel(results, name, picture, compared, data, kernels) for name, picture in SHOWN.items()]
    draw([p for p in panels if p], TASKS, out / "pictures.png")


def panel(
    results: Results, name: str, picture: str, compared: Sequence[Method], data: Path, kernels: Kernels
) -> Panel | None:
    """A row of the figure: a picture of a task, solved again; None where the task is not tuned yet."""
    known = [results.find("tuning", task=name, fingerprint=m.fingerprint) for m in compared]
    case = next(c for c in test_cases(name, TASKS[name], data, kernels) if c.name.split()[0] == picture)
    answers = [restore(case, m, k["sigma"], k["weight"]).x for m, k in zip(compared, known, strict=True) if k]
    return (name, case, [m.name for m in compared], answers) if len(answers) == len(compared) else None


if __name__ == "__main__":
    typer.run(main)
