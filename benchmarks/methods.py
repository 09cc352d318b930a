"""Every method of icgn, and deepinv's own solvers, on the same convex problems: gap against work and against time.

    python benchmarks/methods.py                    # denoising
    python benchmarks/methods.py --physics blur     # deblurring

*Work* counts pairs of W and W^T, the filter bank and its adjoint. The *gap* is (F - F*) / F*, the best so far, with F*
found by ``conjugate`` to an RMS distance of 1e-12 and F evaluated in float64 after the run. With one thread, *seconds*
are those of the processor, which other programs disturb little. A method is stopped when it has used ten times the work
of ``conjugate`` to the last level; then ``>`` says so. The competitors are in ``competitors.py``. No data is needed;
denoising takes five minutes on one core.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import geometric_mean
from typing import Annotated, Any

import deepinv
import torch
import typer
from competitors import COMPETITORS
from harness import RESULTS, Out, Threads, central, conditions, write
from methods_report import LEVELS, OURS, drawing, markdown
from torch import Tensor

import icgn
from icgn.datasets import add_noise, bundled, seed_of
from icgn.functionals.box import Box
from icgn.functionals.functional import ConvexFunctional, dot
from icgn.solvers import Method, State
from icgn.solvers.certificate import certify
from icgn.solvers.methods.choice import METHODS
from icgn.solvers.objective import Objective

# A method that has used so many times the work of ours is stopped.
_PATIENCE = 10.0


@dataclass
class Trace:
    """The images of a run with their work and seconds; the clock stands still while they are recorded."""

    solution: Tensor
    scale: float
    most: float
    clock: Callable[[], float]
    images: list[Tensor] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    done: bool = False
    _begin: float = 0.0

    def start(self) -> None:
        """Start the clock."""
        self._begin = self.clock()

    def record(self, x: Tensor, work: float) -> bool:
        """Keep an image; True when the run should end."""
        now = self.clock()
        self.images.append(x.clone())
        self.work.append(work)
        self.seconds.append(now - self._begin)
        error = x - self.solution
        # Half the squared distance is about the gap, once it is small; well below the last level is enough.
        near = float(dot(error, error)[0]) / 2 <= 0.01 * LEVELS[-1] * self.scale
        self.done = near or work >= self.most or not bool(torch.isfinite(x).all())
        self._begin += self.clock() - now
        return self.done


class Recorded(Method[State]):
    """A method that records every image it computes."""

    def __init__(self, inner: Method[Any], trace: Trace) -> None:
        self.inner, self.trace = inner, trace

    def check(self, objective: Objective) -> None:
        self.inner.check(objective)

    def init(self, objective: ConvexFunctional, x: Tensor, box: Box | None) -> State:
        state = self.inner.init(objective, x, box)
        self.trace.record(state.x, float(state.work[0]))
        return state

    def step(self, objective: ConvexFunctional, state: State, box: Box | None) -> State:
        state = self.inner.step(objective, state, box)
        self.trace.record(state.x, float(state.work[0]))
        return state


@dataclass(frozen=True)
class Case:
    """A problem with its minimizer, the minimum, and the clock of the runs."""

    problem: icgn.Problem
    solution: Tensor
    minimum: float
    clock: Callable[[], float]

    @classmethod
    def of(cls, problem: icgn.Problem, clock: Callable[[], float]) -> Case:
        """Find the minimum."""
        solution = icgn.solve(problem, method="conjugate", tol=1e-12, max_iter=20_000)
        return cls(problem, solution.x, float(solution.certificate.objective[0]), clock)

    def trace(self, most: float) -> Trace:
        """An empty trace with a limit of the work."""
        return Trace(self.solution, abs(self.minimum), most, self.clock)

    def ours(self, name: str, problem: icgn.Problem, most: float) -> Trace:
        """The run of a method of icgn."""
        trace = self.trace(most)
        trace.start()
        method = Recorded(METHODS[name](), trace)
        icgn.solve(problem, method=method, tol=1e-300, max_iter=10**9, callback=lambda event: trace.done)
        return trace

    def theirs(self, name: str, problem: icgn.Problem, most: float) -> Trace:
        """The run of a solver of deepinv."""
        trace = self.trace(most)
        go = COMPETITORS[name].run(problem, self.solution.to(problem.y), trace.record)
        trace.start()
        go()
        return trace

    def curve(self, trace: Trace) -> dict[str, list[float]]:
        """Work, seconds, best gap and best certified distance of some images of a run (all 40 first, then 2%)."""
        chosen, k = [], 0
        while k < len(trace.images):
            chosen.append(k)
            k += max(1, k // 50) if k >= 40 else 1
        chosen = sorted({*chosen, len(trace.images) - 1})
        rows: dict[str, list[float]] = {"work": [], "seconds": [], "gap": [], "distance": []}
        gap = distance = math.inf
        for k in chosen:
            proof = certify(self.problem.objective, trace.images[k].double())
            now = (float(proof.objective[0]) - self.minimum) / abs(self.minimum)
            gap = min(gap, max(now, 0.0)) if math.isfinite(now) else gap
            distance = min(distance, float(proof.rms_distance[0]))
            for key, value in zip(rows, (trace.work[k], trace.seconds[k], gap, distance), strict=True):
                rows[key].append(value)
        return rows


def reached(curve: dict[str, list[float]], level: float) -> dict[str, float | bool]:
    """Work and seconds to a level of the gap, and whether it was reached: otherwise they are lower bounds."""
    index = next((i for i, gap in enumerate(curve["gap"]) if gap <= level), None)
    last = -1 if index is None else index
    return {"work": curve["work"][last], "seconds": curve["seconds"][last], "reached": index is not None}


def compare(case: Case, dtype: torch.dtype, most: float) -> dict[str, dict[str, list[float]]]:
    """The curves of all methods on one problem, ours first; most bounds the work of any."""
    problem = cast(case.problem, dtype)
    curves = {OURS: case.curve(case.ours(OURS, problem, most))}
    limit = min(most, _PATIENCE * float(reached(curves[OURS], LEVELS[-1])["work"]))
    runs = {**{n: case.ours for n in METHODS if n != OURS}, **dict.fromkeys(COMPETITORS, case.theirs)}
    for name, run in runs.items():
        curves[name] = case.curve(run(name, problem, limit))
        print(f"  {name:32s} {curves[name]['work'][-1]:7.1f} pairs, gap {curves[name]['gap'][-1]:.1e}", flush=True)
    return curves


def cast(problem: icgn.Problem, dtype: torch.dtype) -> icgn.Problem:
    """The problem in another precision, with its objective built."""
    physics = problem.physics.float() if dtype is torch.float32 else problem.physics
    new = icgn.Problem(problem.y.to(dtype), physics, problem.regularizer, problem.sigma, noise=problem.noise)
    assert new.objective is not None
    return new


def pose(picture: Tensor, seed: int, physics: str, regularizer: Any) -> icgn.Problem:
    """A problem for a clean picture (1, H, W): denoising at sigma 0.1, or a Gaussian blur with noise of 0.01."""
    clean = picture[None].double()
    if physics == "denoising":
        return icgn.Problem(add_noise(picture, 0.1, seed)[None].double(), deepinv.physics.Denoising(), regularizer, 0.1)
    kernel = deepinv.physics.functional.blur.gaussian_blur(sigma=(1.5, 1.5)).double()
    blur = deepinv.physics.BlurFFT(clean.shape[1:], kernel).double()
    noise = 0.01 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed), dtype=clean.dtype)
    return icgn.Problem(blur.A(clean) + noise, blur, regularizer, 5 / 255, noise=0.01)


def table(curves: dict[str, dict[str, dict[str, list[float]]]]) -> list[dict[str, Any]]:
    """Per method and level the geometric means over the pictures of work and seconds."""
    rows = []
    for name in next(iter(curves.values())):
        for level in LEVELS:
            found = [reached(own[name], level) for own in curves.values()]
            means = {key: geometric_mean(max(float(f[key]), 1e-9) for f in found) for key in ("work", "seconds")}
            rows.append({"method": name, "level": level, **means, "reached": all(f["reached"] for f in found)})
    return rows


def main(
    threads: Threads = 1,
    model: Annotated[str, typer.Option(help="Name or path of a gray model.")] = "ridge-gray",
    physics: Annotated[str, typer.Option(help="denoising or blur.")] = "denoising",
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
    pictures: Annotated[str, typer.Option(help="Bundled photographs, separated by commas.")] = "camera,chelsea",
    side: Annotated[int, typer.Option(min=16, help="Side of the central crop.")] = 96,
    most: Annotated[float, typer.Option(help="Work at which every method is stopped.")] = 5000.0,
    out: Out = None,
) -> None:
    """Run all methods, and write results.json, methods.png and table.md."""
    if physics not in ("denoising", "blur") or dtype not in ("float64", "float32"):
        raise typer.BadParameter("expected --physics denoising or blur, --dtype float64 or float32")
    torch.set_num_threads(threads)
    regularizer = icgn.load_pretrained(model).double()
    curves = {}
    for name in pictures.split(","):
        print(name, flush=True)
        picture = central(bundled(gray=True).find(name).image, side)
        problem = pose(picture, seed_of(name), physics, regularizer)
        case = Case.of(problem, time.process_time if threads == 1 else time.perf_counter)
        curves[name] = compare(case, getattr(torch, dtype), most)
    settings = {
        "model": model, "physics": physics, "dtype": dtype, "pictures": pictures, "side": side, "threads": threads,
        "clock": "processor" if threads == 1 else "wall", **conditions("torch", "deepinv"),
    }  # fmt: skip
    content = {"settings": settings, "table": table(curves), "curves": _rounded(curves)}
    page = markdown(content)
    folder = out or RESULTS / ("methods" if physics == "denoising" else "methods-blur")
    write(folder, {"results.json": content, "table.md": page, "methods.png": drawing(content)}, indent=None)
    print(page)


def _rounded(value: Any) -> Any:
    """Numbers with four digits; nothing for infinite ones."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.4g}") if math.isfinite(value) else None


if __name__ == "__main__":
    typer.run(main)
