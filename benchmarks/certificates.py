"""Certificates against the truth: many random small problems, each with a reference solution in float64.

    python benchmarks/certificates.py --problems 1000

Every problem draws a network and its weights, a measurement, bounds or none, the noise, the precision, the method and
how early it is stopped: certificates are to hold at every point, not only at the end. The reference is solved by
another method to the last digits; how far it may itself be from the minimizer is part of the comparison. The exit code
is 1 if any certificate is below the true error.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Any

import deepinv
import torch
import typer
from harness import table
from torch import Tensor

import icgn
from icgn.functionals import ConvexFunctional
from icgn.regularizers import ConvexRegularizer
from icgn.solvers import solve

NETWORKS: dict[str, Callable[[], ConvexRegularizer]] = {
    "ridge": lambda: icgn.RidgeICGN(filters=4, size=3, knots=3),
    "ridge, smooth": lambda: icgn.RidgeICGN(filters=4, size=5, units=2, activation="tanh", knots=3),
    "group": lambda: icgn.GroupICGN(groups=2, members=3, size=3, knots=3),
    "softmax": lambda: icgn.SoftmaxICGN(groups=2, members=3, size=3, knots=3),
    "latent": lambda: icgn.LatentICGN(filters=4, size=3, latents=2, knots=3),
    "deep": lambda: icgn.DeepICGN(layers=2, filters=4, size=3),
    "ICNN": lambda: icgn.ICNN(layers=2, filters=4, size=3),
}
MEASUREMENTS: dict[str, Callable[[tuple[int, int, int], torch.Generator], Any]] = {
    "identity": lambda size, g: deepinv.physics.Denoising(),
    "mask": lambda size, g: deepinv.physics.Inpainting(size, mask=(torch.rand(size, generator=g) < 0.6).double()),
    "sharp blur": lambda size, g: deepinv.physics.BlurFFT(size, filter=_kernel(0.75)),
    "wide blur": lambda size, g: deepinv.physics.BlurFFT(size, filter=_kernel(0.3)),
    "half": lambda size, g: deepinv.physics.Downsampling(size, filter=None, factor=2),
}
_METHODS = ("auto", "conjugate", "gradient", "accelerated", "newton")


@dataclass(frozen=True)
class Comparison:
    """Certified and true errors of one problem; the true ones are lower bounds of what they name.

    Attributes
    ----------
    network, measurement : str
        what was drawn.
    distance, true_distance : float
        RMS distance to the minimizer, in intensities; certified inf where none can be proved.
    gap, true_gap : float
        of the objective.
    rounding : float
        of the objective in float64.
    """

    network: str
    measurement: str
    distance: float
    true_distance: float
    gap: float
    true_gap: float
    rounding: float

    @property
    def holds(self) -> bool:
        """Whether the certificate is at least the true error."""
        return self.true_distance <= self.distance * (1 + 1e-9) and self.true_gap <= self.gap + self.rounding


def main(
    problems: Annotated[int, typer.Option(min=1, help="Random problems.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the first problem; the next ones count on.")] = 0,
) -> None:
    """Compare certificates with true errors and print a table by measurement."""
    torch.set_num_threads(1)
    found = [compare(seed + i) for i in range(problems)]
    print(summary(found))
    broken = [(seed + i, c) for i, c in enumerate(found) if not c.holds]
    for number, comparison in broken:
        print(f"below the true error, seed {number}: {comparison}")
    print(f"{problems - len(broken)} of {problems} certificates are at least the true error")
    if broken:
        raise typer.Exit(1)


def compare(seed: int) -> Comparison:
    """Draw a problem, stop its solution somewhere, and compare the certificate with a reference solution."""
    rng, g = random.Random(seed), torch.Generator().manual_seed(seed)
    network, measurement = rng.choice(list(NETWORKS)), rng.choice(list(MEASUREMENTS))
    problem = _draw(network, measurement, rng, g)
    method = rng.choice(_METHODS)
    solution = solve(
        problem, method=method, tol=10 ** rng.uniform(-7, -2), gap_tol=1e-5, max_iter=rng.choice([0, 2, 10, 200])
    )
    exact = _in_float64(problem)
    reference = solve(exact, method="newton", tol=1e-12, gap_tol=1e-13, max_iter=50, x0=solution.x.double())
    x, best = solution.x.double(), reference.x
    apart = float((x - best).square().mean().sqrt())
    # What the reference proves of itself; without strong convexity minimizers differ, and nothing is to be compared.
    own = float(reference.certificate.rms_distance)
    value, lower = (_objective(exact, z) for z in (x, best))
    return Comparison(
        network=network,
        measurement=measurement,
        distance=float(solution.certificate.rms_distance),
        true_distance=max(apart - own, 0.0) if math.isfinite(own) else 0.0,
        gap=float(solution.certificate.objective_gap),
        true_gap=value - lower,
        rounding=1e-13 * abs(value) + 1e-15,
    )


def summary(found: list[Comparison]) -> str:
    """The comparisons by measurement: how many, how many hold, and the median of certified over true error."""
    rows = []
    for name in sorted({c.measurement for c in found}):
        own = [c for c in found if c.measurement == name]
        distances = [c.distance / c.true_distance for c in own if c.true_distance > 1e-9 and math.isfinite(c.distance)]
        gaps = [c.gap / c.true_gap for c in own if c.true_gap > 100 * c.rounding and math.isfinite(c.gap)]
        rows.append((name, len(own), sum(c.holds for c in own), _median(distances), _median(gaps)))
    heads = ("measurement", "problems", "hold", "distance, certified / true", "gap, certified / true")
    return table(heads, rows)


def _median(ratios: list[float]) -> str:
    return f"{median(ratios):.2f} (least {min(ratios):.3f}, of {len(ratios)})" if ratios else "-"


def _draw(network: str, measurement: str, rng: random.Random, g: torch.Generator) -> icgn.Problem:
    """A problem in float32 or float64 on a random picture of 6 to 12 pixels a side."""
    sigma = 10 ** rng.uniform(-2, -0.8)
    size = (1, 2 * rng.randint(3, 6), 2 * rng.randint(3, 6))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.randrange(2**31))
        regularizer = NETWORKS[network]().requires_grad_(False).double()
        for p in regularizer.parameters():
            p += 0.3 * torch.randn_like(p) * p.abs().mean()
        regularizer.float().double()  # numbers that both precisions hold: else they would pose different problems
    physics = MEASUREMENTS[measurement](size, g)
    x = torch.rand((1, *size), generator=g, dtype=torch.float64).cumsum(-1) / size[-1]
    clean = physics.double().A(x)
    y = clean + sigma * torch.randn(clean.shape, generator=g, dtype=torch.float64)
    box = rng.choice([None, (0.0, 1.0), (0.3, 0.6)])
    problem = icgn.Problem(
        y, physics, regularizer, sigma, noise=sigma * rng.choice([0.3, 1.0]), weight=rng.choice([0.3, 1, 3]), box=box
    )
    return problem.to(rng.choice([torch.float32, torch.float64]))


class _AsFrozen(ConvexRegularizer):
    """The functional that a problem has frozen, in float64, whatever sigma is."""

    def __init__(self, functional: ConvexFunctional) -> None:
        super().__init__()
        self.functional = functional

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> ConvexFunctional:
        return self.functional


def _in_float64(problem: icgn.Problem) -> icgn.Problem:
    """The same problem in float64.

    A float32 problem has a network whose constants at sigma were rounded to float32; made anew from the network in
    float64 it would be another problem, whose solution is some 1e-10 away.
    """
    exact = problem.to(torch.float64)
    regularizer = _AsFrozen(problem.objective.regularizer.to(torch.float64))
    return icgn.Problem(
        exact.y, exact.physics, regularizer, exact.sigma, noise=exact.noise, weight=exact.weight, box=exact.box
    )


def _objective(problem: icgn.Problem, x: Tensor) -> float:
    r"""F(x) = sigma^2 |A x - y|^2 / (2 noise^2) + weight R(x; sigma), written down anew."""
    assert isinstance(problem.regularizer, ConvexRegularizer) and isinstance(problem.weight, (int, float))
    data = float((problem.physics.A(x) - problem.y).square().sum()) / 2
    noise = problem.sigma if problem.noise is None else problem.noise
    return data * float(problem.sigma / noise) ** 2 + problem.weight * float(problem.regularizer.fn(x, problem.sigma))


def _kernel(centre: float) -> Tensor:
    """A blur that keeps `centre` of the light where it is and spreads the rest over the eight neighbours."""
    kernel = torch.full((1, 1, 3, 3), (1 - centre) / 8, dtype=torch.float64)
    kernel[..., 1, 1] = centre
    return kernel


if __name__ == "__main__":
    typer.run(main)
