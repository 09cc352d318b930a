"""Certificates against the truth, for all kinds of noise, maps and scales."""

import deepinv
import pytest
import torch

import icgn
from icgn.functionals.noise import Correlated, Poisson, PoissonGaussian, White
from icgn.regularizers import LocalLevels, RidgeICGN

SIDE = 10


def network(generator):
    torch.manual_seed(int(torch.randint(1000, (), generator=generator)))
    return RidgeICGN(filters=4, size=3).double()


def random(generator, low, high, *shape):
    return low * (high / low) ** torch.rand(*shape, generator=generator, dtype=torch.float64)


def physics(generator):
    kinds = [deepinv.physics.Denoising(), None]
    chosen = kinds[int(torch.randint(2, (), generator=generator))]
    if chosen is not None:
        return chosen
    mask = (torch.rand(1, SIDE, SIDE, generator=generator) < 0.7).double()
    mask[..., 0, 0] = 1
    return deepinv.physics.Inpainting((1, SIDE, SIDE), mask=mask)


NOISES = {
    "one level": lambda g: White(float(random(g, 0.02, 0.3, ()))),
    "one per image": lambda g: White(random(g, 0.02, 0.3, 2)),
    "a map": lambda g: White(random(g, 0.02, 0.3, 2, 1, SIDE, SIDE)),
    "correlated": lambda g: Correlated.gaussian(float(random(g, 0.02, 0.3, ())), 0.6),
    "counts": lambda g: Poisson(float(random(g, 0.01, 0.2, ()))),
    "counts and read-out": lambda g: PoissonGaussian(float(random(g, 0.01, 0.2, ())), 0.05, 0.1),
}


def check(kind, seed):
    """A loose solution lies within its certificate of a nearly exact one, in distance or in value."""
    g = torch.Generator().manual_seed(seed)
    noise, operator, reg = NOISES[kind](g), physics(g), network(g)
    scale = float(random(g, 1e-4, 1e4, ())) if not noise.counts else 1.0
    clean = torch.rand(2, 1, SIDE, SIDE, generator=g, dtype=torch.float64)
    measured = operator.A(clean)
    y = noise.draw(measured, g)
    options = {"box": (1e-3, 2.0)} if noise.counts else {}
    if not noise.counts:
        level = noise.level * scale
        y = scale * y
        noise = White(level) if isinstance(noise, White) else Correlated(level, noise.spectrum)
        options["range"] = (0.0, scale)
    sigma = scale * float(random(g, 0.05, 0.2, ()))
    problem = icgn.Problem(y, operator, reg, sigma, noise=noise, **options)
    rough = icgn.solve(problem, tol=3e-2 * scale, gap_tol=1e-2, max_iter=200)
    exact = icgn.solve(problem, tol=1e-10 * scale, gap_tol=1e-12, max_iter=3000)
    distance = (rough.x - exact.x).flatten(1).square().mean(1).sqrt()
    # The nearly exact solution has an error of its own.
    slack = exact.certificate.rms_distance.nan_to_num(0.0, 0.0, 0.0) + 1e-9 * scale
    assert (distance <= rough.certificate.rms_distance + slack).all()
    objective = problem.brought().objective if not noise.counts else problem.objective
    to_unit = (lambda x: x / scale) if not noise.counts else (lambda x: x)
    unit = scale**2 if not noise.counts else 1.0
    gap = unit * (objective.fn(to_unit(rough.x)) - objective.fn(to_unit(exact.x)))
    assert (gap <= rough.certificate.objective_gap * (1 + 1e-6) + 1e-9 * unit).all()


@pytest.mark.parametrize("kind", NOISES)
def test_certificates_of_all_kinds_of_noise(kind):
    for seed in range(2):
        check(kind, seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", NOISES)
def test_many_certificates_of_all_kinds_of_noise(kind):
    for seed in range(100, 150):
        check(kind, seed)


def test_certificates_of_local_levels_in_any_unit():
    for seed in range(4):
        g = torch.Generator().manual_seed(seed)
        scale = float(random(g, 1e-4, 1e4, ()))
        levels = scale * random(g, 0.02, 0.3, 2, 1, SIDE, SIDE)
        y = scale * torch.rand(2, 1, SIDE, SIDE, generator=g, dtype=torch.float64)
        reg, sigma = LocalLevels.of(network(g), levels)
        problem = icgn.Problem(y, deepinv.physics.Denoising(), reg, sigma, range=(0.0, scale))
        rough, exact = (icgn.solve(problem, tol=tol * scale) for tol in (3e-2, 1e-10))
        distance = (rough.x - exact.x).flatten(1).square().mean(1).sqrt()
        assert (distance <= rough.certificate.rms_distance + 1e-9 * scale).all()
