r"""How far a restored picture moves when its measurement does: |x(y + e) - x(y)| / |e|, random and worst case.

    python benchmarks/stability.py

**Theorem.** Let R_c be convex, c fixed. The map from y to the minimizer of |x - y|^2 / 2 + R_c(x) is the proximal
operator of R_c, and firmly non-expansive:

    |x(y1) - x(y2)|^2 <= <x(y1) - x(y2), y1 - y2>,    hence |x(y1) - x(y2)| <= |y1 - y2|.

(Optimality says y - x in dR_c(x), and the subdifferential is monotone: <(y1 - x1) - (y2 - x2), x1 - x2> >= 0.) So it is
for the unconditional network, whatever its weights, and for the conditional one with its condition held fixed. With
c = c(y), computed from the data, it is not: then x(y) is still the unique minimizer of a convex problem, but that
problem moves with y. This benchmark measures what is left: where the theorem holds the ratio has to be at most 1, and
it is checked; elsewhere it is what it is.

*Random*: e is white Gaussian noise, scaled to the given RMS. *Adversarial*: the largest ratio found by projected
gradient ascent of |x(y + e) - x(y)|^2 over the sphere of the same RMS, from the best of the random directions, with the
gradient J^T (x(y + e) - x(y)) of ``solve(..., differentiable=True)`` through all of the map: first solution, condition,
last solution. It is a lower bound of the worst case. BM3D has no derivative: it gets the perturbations found for the
networks, and a random search from the best of them.

The card of a conditional network says how loosely its first solution is computed. The stopping of an iteration is not
continuous in y, and no derivative sees it; "exact start" is the same network with its first solution computed to a
gradient of 1e-6 sigma. What is reported as it is has also been tried with the perturbations found for the others.

A network is solved in float64 until its certificate proves an RMS distance of at most 1e-6 times the RMS of e: a ratio
is that of the minimizers up to twice that. Pictures are centre crops of the photographs bundled with scikit-image; no
data is needed; on one core the default takes about an hour.
"""

from __future__ import annotations

import copy
import importlib.util
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import deepinv
import torch
import typer
from harness import RESULTS, Out, Threads, central, conditions, numbers, write
from stability_report import EXACT, EXACT_NAME, Example, drawing, markdown, verdict, violations
from torch import Tensor

import icgn
from icgn.datasets import add_noise, bundled, seed_of
from icgn.evaluation.restorers import BM3D
from icgn.regularizers import ConvexRegularizer
from icgn.regularizers.pretrained import read_card
from icgn.solvers import Problem, solve

PHYSICS = deepinv.physics.Denoising()
# RMS distance to the minimizer as a part of the RMS of e: of the ratios reported, and on the way of the ascent.
ACCURACY, ROUGH = 1e-6, 1e-3
# First step of the ascent and of the random search on the unit sphere, and iterations allowed per solution.
_STEP, _SEARCH_STEP, _ITERATIONS = 4.0, 0.5, 20_000
_WHITE = 255.0


@dataclass(frozen=True, eq=False)
class Answer:
    """Restored pictures (B, 1, H, W), and the RMS distance to the exact ones that is proved (B,)."""

    x: Tensor
    distance: Tensor


@dataclass(frozen=True, eq=False)
class Network:
    """The map from y to the minimizer.

    Attributes
    ----------
    name : str
        in the table.
    regularizer : ConvexRegularizer
        in float64, its parameters frozen.
    sigma : float
        noise level in intensities.
    condition : Tensor, optional
        of a conditional regularizer, to be held fixed.
    bounded : bool
        whether the theorem says that the ratio is at most 1.
    warm : bool
        whether the start does not matter, because every solution on the way is accurate.
    """

    name: str
    regularizer: ConvexRegularizer
    sigma: float
    condition: Tensor | None = None
    bounded: bool = False
    warm: bool = True

    def __call__(self, y: Tensor, tol: float, start: Tensor | None = None, differentiable: bool = False) -> Answer:
        """Solve for measurements (B, 1, H, W) to an RMS distance of `tol`, in intensities."""
        problem = Problem(y, PHYSICS, self.regularizer, self.sigma, condition=self.condition)
        start = start if self.warm else None
        solution = solve(problem, tol=tol, x0=start, differentiable=differentiable, max_iter=_ITERATIONS)
        return Answer(solution.x, solution.certificate.rms_distance)


@dataclass(frozen=True, eq=False)
class BlockMatching:
    """BM3D as a map of the same kind; nothing is left to be solved, so that its distance is 0."""

    sigma: float
    name: str = "bm3d"
    bounded: bool = False

    def __call__(self, y: Tensor, tol: float = 0.0, start: Tensor | None = None) -> Answer:
        """Restore measurements (B, 1, H, W) one by one; the other arguments mean nothing."""
        restorer = BM3D()
        return Answer(torch.stack([restorer(picture, self.sigma).image for picture in y]), torch.zeros(len(y)).double())


Map = Network | BlockMatching


def rms(x: Tensor) -> Tensor:
    """RMS of every picture of a batch, (B,)."""
    return x.flatten(1).square().mean(1).sqrt()


def unit(x: Tensor) -> Tensor:
    """Every picture of a batch scaled to an RMS of 1; 0 stays 0."""
    return x / _wide(rms(x).clamp_min(1e-300))


@dataclass(frozen=True)
class Effort:
    """How hard it is searched: random directions per picture, steps of the ascent, tries without a derivative, seed."""

    directions: int = 4
    steps: int = 25
    tries: int = 8
    seed: int = 0


def directions(names: Sequence[str], side: int, effort: Effort) -> list[Tensor]:
    """White Gaussian pictures (B, 1, side, side) of RMS 1, a stream of its own for every picture."""
    streams = [torch.Generator().manual_seed(seed_of(f"stability {name}", seed=effort.seed)) for name in names]
    shape = (effort.directions, 1, side, side)
    drawn = torch.stack([torch.randn(shape, generator=g, dtype=torch.float64) for g in streams], 1)
    return [unit(e) for e in drawn]


@dataclass(frozen=True, eq=False)
class Probe:
    """A map at some measurements, where perturbations of one size begin.

    Attributes
    ----------
    map : Map
        what is probed.
    y, x : Tensor
        measurements and what they lead to, (B, 1, H, W).
    distance : Tensor
        what is proved of x, (B,).
    size : float
        RMS of the perturbations, in intensities.
    """

    map: Map
    y: Tensor
    x: Tensor
    distance: Tensor
    size: float

    @classmethod
    def of(cls, own: Map, y: Tensor, size: float) -> Probe:
        """Solve for y."""
        answer = own(y, ACCURACY * size)
        return cls(own, y, answer.x, answer.distance, size)

    def change(self, e: Tensor) -> tuple[Tensor, Tensor]:
        """The change (x(y + size e) - x(y)) / size of directions e of RMS 1, and the error of its RMS (B,)."""
        answer = self.map(self.y + self.size * e, ACCURACY * self.size, self.x)
        return (answer.x - self.x) / self.size, (answer.distance + self.distance) / self.size

    def slope(self, e: Tensor) -> tuple[Tensor, Tensor]:
        """Ratios (B,) at e, and the gradient of half their square, up to its length."""
        assert isinstance(self.map, Network)
        y = (self.y + self.size * e).requires_grad_(True)
        x = self.map(y, ROUGH * self.size, self.x, differentiable=True).x
        change = (x - self.x).detach() / self.size
        (gradient,) = torch.autograd.grad(x, y, change)
        return rms(change), gradient


@dataclass(frozen=True, eq=False)
class Found:
    """The directions (B, 1, H, W) of a search, and the best ratios after each of its steps, each (B,)."""

    e: Tensor
    trace: list[Tensor]


def ascend(probe: Probe, e: Tensor, steps: int) -> Found:
    r"""Projected gradient ascent of the ratio from e: :math:`e \leftarrow \text{unit}(e + t\, \text{unit}(g))`.

    A step that does not improve its picture is taken back, and t halved there. With large t and where the map is linear
    it is the power method for :math:`J^T J`, which never goes down.
    """
    best, gradient = probe.slope(e)
    kept, trace = e, [best]
    step = torch.full_like(best, _STEP)
    for _ in range(steps):
        e = unit(kept + _wide(step) * unit(gradient))
        ratio, slope = probe.slope(e)
        better = ratio > best
        step = torch.where(better, step, step / 2)
        best = torch.where(better, ratio, best)
        kept, gradient = _choose(better, e, kept), _choose(better, slope, gradient)
        trace.append(best)
    return Found(kept, trace)


@dataclass
class Worst:
    """The worst direction so far of every picture, its change, and the error that any ratio may have."""

    e: Tensor
    change: Tensor
    error: Tensor

    def add(self, e: Tensor, change: Tensor, error: Tensor) -> None:
        """Take the pictures of another direction where it is worse."""
        worse = rms(change) > rms(self.change)
        self.e, self.change = _choose(worse, e, self.e), _choose(worse, change, self.change)
        self.error = torch.maximum(self.error, error)


def search(probe: Probe, worst: Worst, tries: int, seed: int) -> list[Tensor]:
    """Random search from the worst, for maps without a derivative: plus white noise of half its size, kept where worse.

    Returns the ratios before and after every try.
    """
    generator = torch.Generator().manual_seed(seed)
    trace = [rms(worst.change)]
    for _ in range(tries):
        e = unit(worst.e + _SEARCH_STEP * torch.randn(worst.e.shape, generator=generator, dtype=worst.e.dtype))
        worst.add(e, *probe.change(e))
        trace.append(rms(worst.change))
    return trace


@dataclass(frozen=True, eq=False)
class Measured:
    """What perturbations of one size do to a map, each (B,) or a list over directions of them.

    Attributes
    ----------
    random, adversarial : list of Tensor, Tensor
        the ratios.
    e, change : Tensor
        the worst directions (B, 1, H, W) of RMS 1 that were found, and the changes they make.
    trace : list of Tensor
        best ratios after each step of the search.
    error : Tensor
        that the ratios may have, proved.
    """

    random: list[Tensor]
    adversarial: Tensor
    e: Tensor
    change: Tensor
    trace: list[Tensor]
    error: Tensor


def measure(
    own: Map, y: Tensor, size: float, random: Sequence[Tensor], effort: Effort, others: Sequence[Tensor] = ()
) -> Measured:
    """Random and adversarial ratios of a map.

    Parameters
    ----------
    own : Map
        network or BM3D.
    y : Tensor
        measurements (B, 1, H, W), float64.
    size : float
        RMS of the perturbations, in intensities.
    random : sequence of Tensor
        directions to measure, as of :func:`directions`; the ascent begins at the best of them, picture by picture.
    effort : Effort
        of the search.
    others : sequence of Tensor
        directions found for other maps, which count as candidates here.
    """
    probe = Probe.of(own, y, size)
    changes = [probe.change(e) for e in random]
    worst = Worst(random[0], *changes[0])
    for e, change in zip(random[1:], changes[1:], strict=True):
        worst.add(e, *change)
    begin = worst.e
    for e in others:
        worst.add(e, *probe.change(e))
    if isinstance(own, Network):
        found = ascend(probe, begin, effort.steps)
        trace = found.trace
        worst.add(found.e, *probe.change(found.e))
    else:
        trace = search(probe, worst, effort.tries, effort.seed)
    return Measured([rms(c) for c, _ in changes], rms(worst.change), worst.e, worst.change, trace, worst.error)


def networks(name: str, regularizer: ConvexRegularizer, sigma: float, y: Tensor) -> list[Network]:
    """The maps of a conditional network: its condition fixed at that of y, exact start, and as it is.

    An unconditional one has one map.
    """
    if not regularizer.looseness:
        return [Network(name, regularizer, sigma, bounded=True)]
    exact = copy.deepcopy(regularizer)
    exact.looseness = tuple(EXACT for _ in regularizer.looseness)
    condition = solve(Problem(y, PHYSICS, regularizer, sigma)).condition
    return [
        Network(f"{name}, condition fixed", regularizer, sigma, condition, bounded=True),
        Network(f"{name}{EXACT_NAME}", exact, sigma),
        Network(name, regularizer, sigma, warm=False),
    ]


def compare(
    maps: Sequence[Map], y: Tensor, names: Sequence[str], sizes: Sequence[float], effort: Effort
) -> tuple[list[dict[str, Any]], dict[tuple[str, float], Measured]]:
    """Rows of all maps, sizes and pictures, and the perturbations by map and size; sizes in gray levels."""
    rows: list[dict[str, Any]] = []
    found: dict[tuple[str, float], Measured] = {}
    sigma = round(maps[0].sigma * _WHITE, 3)
    random = directions(names, y.shape[-1], effort)
    for size in sizes:
        others: list[Tensor] = []
        for own in maps:
            begin = time.perf_counter()
            # The map that derivatives do not fully describe, and the one without any, try what was found for others.
            known = [] if isinstance(own, Network) and own.warm else others
            m = found[own.name, size] = measure(own, y, size / _WHITE, random, effort, known)
            others.append(m.e)
            rows += _rows(own, m, sigma, size, names)
            print(
                f"sigma {sigma:g}, size {size:g}  {own.name:34s} random {max(float(r.max()) for r in m.random):7.4f}"
                f"  adversarial {float(m.adversarial.max()):7.4f}  ({time.perf_counter() - begin:.0f} s)",
                flush=True,
            )
    return rows, found


def _rows(own: Map, m: Measured, sigma: float, size: float, names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "method": own.name, "bounded": own.bounded, "sigma": sigma, "size": size, "picture": name,
            "random": [float(r[i]) for r in m.random], "adversarial": float(m.adversarial[i]),
            "trace": [round(float(t[i]), 6) for t in m.trace], "error": float(m.error[i]),
        }
        for i, name in enumerate(names)
    ]  # fmt: skip


def noisy(names: Sequence[str], side: int, sigma: float, seed: int) -> Tensor:
    """Noisy crops (B, 1, side, side) of bundled photographs, float64; sigma in intensities."""
    photographs = bundled(gray=True)
    clean = {name: central(photographs.find(name).image, side) for name in names}
    return torch.stack([add_noise(c, sigma, seed_of(name, seed=seed)) for name, c in clean.items()]).double()


def main(
    model: Annotated[str, typer.Option(help="Name or path of a gray conditional model.")] = "conditional-gray",
    plain: Annotated[str, typer.Option(help="Unconditional models, separated by commas.")] = "ridge-gray-small",
    pictures: Annotated[str, typer.Option(help="Bundled photographs, separated by commas.")] = "camera,chelsea,coins",
    side: Annotated[int, typer.Option(min=16, help="Side of the central crops.")] = 64,
    sigmas: Annotated[str, typer.Option(help="Noise levels, gray levels, separated by commas.")] = "5,15,25",
    sizes: Annotated[str, typer.Option(help="RMS of e, gray levels, separated by commas.")] = "0.1,1,5",
    steps: Annotated[int, typer.Option(min=1, help="Steps of the gradient ascent.")] = 25,
    tries: Annotated[int, typer.Option(min=1, help="Tries of the random search, for BM3D.")] = 8,
    count: Annotated[int, typer.Option("--directions", min=1, help="Random e per picture.")] = 4,
    bm3d: Annotated[bool, typer.Option(help="BM3D too, where it is installed.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of noise and perturbations.")] = 0,
    threads: Threads = 1,
    out: Out = None,
) -> None:
    """Measure, print the table, and write results.json, table.md and stability.png."""
    torch.set_num_threads(threads)
    names, levels, reach = pictures.split(","), numbers(sigmas, "sigmas"), sorted(numbers(sizes, "sizes"))
    effort, plain_names, shown = Effort(count, steps, tries, seed), [n for n in plain.split(",") if n], len(reach) // 2
    learned = {n: _frozen(n) for n in (*plain_names, model)}
    rows: list[dict[str, Any]] = []
    examples: list[Example] = []
    for level in levels:
        y = noisy(names, side, level / _WHITE, seed)
        maps: list[Map] = []
        for n, regularizer in learned.items():
            maps += networks(_name(n), regularizer, level / _WHITE, y)
        if bm3d and importlib.util.find_spec("bm3d"):
            maps.append(BlockMatching(level / _WHITE))
        new, found = compare(maps, y, names, reach, effort)
        rows += new
        examples = [(name, m.e[0, 0], m.change[0, 0]) for (name, size), m in found.items() if size == reach[shown]]
    settings = {
        "model": _name(model), "plain": plain_names, "pictures": names, "side": side, **asdict(effort),
        "threads": threads, **conditions("torch", "deepinv"),
    }  # fmt: skip
    content = {"settings": settings, "rows": rows}
    page = markdown(content)
    title = f"The worst e found for {names[0]}, sigma {levels[-1]:g}, RMS of e {reach[shown]:g}, and what it changes"
    picture = drawing(content, y[0, 0], examples, title)
    files = {"results.json": content, "table.md": page, "stability.png": picture}
    write(out or RESULTS / "stability", files, indent=None)
    print(page)
    if violations(rows):
        raise SystemExit(verdict(rows))


def _frozen(model: str) -> ConvexRegularizer:
    regularizer: ConvexRegularizer = icgn.load_pretrained(model).double().requires_grad_(False)
    return regularizer


def _name(model: str) -> str:
    return str(read_card(model).get("name", Path(model).name))


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _choose(where: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return torch.where(_wide(where), first, second)


if __name__ == "__main__":
    typer.run(main)
