"""Local credible intervals, against closed forms and a plain bisection of the whole objective."""

import math

import deepinv
import pytest
import torch
from quadratic import Quadratic

import icgn
from icgn.uncertainty import credible_intervals, credible_region

FLOAT = torch.float64


def picture(channels=1, side=26, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.zeros(1, channels, side, side + 3, dtype=FLOAT)
    x[..., 5:17, 8:20] = 0.7
    return x + 0.1 * torch.randn(x.shape, generator=g, dtype=FLOAT)


def plain(region, place, side, sign, keep_detail):
    """The end of the interval of one block by bisection of the whole objective, NaN where a flat block is outside."""
    channel, row, column = place
    x = region.posterior.x
    part = (slice(None), channel, slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side))
    mean, inside, outside = x[part].mean(), 0.0, 1e4
    start = x[part].clone() if keep_detail else mean

    def contained(t):
        trial = x.clone()
        trial[part] = start + sign * t
        return bool(region.contains(trial))

    if not contained(0.0):
        return math.nan
    for _ in range(60):
        t = (inside + outside) / 2
        inside, outside = (t, outside) if contained(t) else (inside, t)
    return float(mean + sign * inside)


def masked_fourier(x):
    """A physics without any local structure."""
    g = torch.Generator().manual_seed(3)
    mask = (torch.rand(x.shape[-2:], generator=g) < 0.6).to(x)
    return deepinv.physics.LinearPhysics(
        A=lambda v, **_: torch.view_as_real(mask * torch.fft.fft2(v, norm="ortho")).movedim(-1, 1).flatten(1, 2),
        A_adjoint=lambda z, **_: (
            torch.fft.ifft2(
                mask * torch.view_as_complex(z.unflatten(1, (2, -1)).movedim(1, -1).contiguous()), norm="ortho"
            ).real
        ),
    )


def problem_of(kind):
    x, sigma = picture(3 if kind == "colour" else 1), 0.1
    denoising = deepinv.physics.Denoising()
    if kind == "masked Fourier":
        physics = masked_fourier(x)
        return icgn.Problem(physics.A(x), physics, icgn.TotalVariation(), sigma=sigma, box=(-0.5, 1.5))
    if kind == "inpainting":
        mask = (torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(1)) < 0.5).to(x)
        physics = deepinv.physics.Inpainting(tuple(x.shape[1:]), mask=mask)
        return icgn.Problem(physics(x), physics, icgn.load_pretrained("ridge-gray-small"), sigma=sigma, box=(-0.5, 1.5))
    if kind == "range":
        model = icgn.load_pretrained("ridge-gray-small")
        return icgn.Problem(50 * x - 10, denoising, model, sigma=50 * sigma, range=(-10.0, 40.0))
    if kind == "map":
        levels = torch.linspace(0.05, 0.2, x.shape[-1], dtype=FLOAT).expand(x.shape).contiguous()
        return icgn.Problem(x, denoising, icgn.TotalVariation(), sigma=sigma, noise=levels)
    if kind == "other head":
        model = icgn.GroupICGN(groups=2, members=2, size=3)
        return icgn.Problem(x[..., :12, :12], denoising, model, sigma=sigma)
    if kind == "colour":
        return icgn.Problem(x, denoising, icgn.load_pretrained("ridge-color"), sigma=sigma)
    model = icgn.TotalVariation() if kind == "total variation" else icgn.load_pretrained(kind)
    return icgn.Problem(x, denoising, model, sigma=sigma)


@pytest.mark.parametrize("side", [8, 5])
@pytest.mark.parametrize(
    "kind",
    [
        "total variation",
        "ridge-gray-small",
        "conditional-gray-small",
        "colour",
        "range",
        "map",
        "inpainting",
        "masked Fourier",
        "other head",
    ],
)
def test_intervals_are_those_of_a_plain_bisection(kind, side):
    problem = problem_of(kind)
    solution = icgn.solve(problem, tol=1e-3, gap_tol=1e-2, max_iter=60)
    keep = side == 5
    found = credible_intervals(problem, solution, blocks=side, alpha=0.1, keep_detail=keep)
    region = credible_region(problem, solution, alpha=0.1)
    unit = float(problem.sigma) / 0.1
    places = [(0, 0, 0), (0, 1, 1), (found.low.shape[1] - 1, found.low.shape[2] - 1, found.low.shape[3] - 1)]
    for place in places:
        for sign, ends in ((-1, found.low), (1, found.high)):
            expected = plain(region, place, side, sign, keep)
            assert float(ends[0][place]) == pytest.approx(expected, abs=1e-4 * unit, nan_ok=True)


@pytest.mark.parametrize("side", [1, 4])
def test_intervals_of_a_gaussian_have_their_closed_form(side):
    y, a, sigma = picture()[..., :12, :12], 0.5, 0.1
    problem = icgn.Problem(y, deepinv.physics.Denoising(), Quadratic(a), sigma=sigma)
    solution = icgn.solve(problem, tol=1e-8)
    found = credible_intervals(problem, solution, blocks=side, alpha=0.1)
    centre, n = y / (1 + a), 144
    room = n + math.sqrt(16 * n * math.log(30))
    blocks = centre.unfold(2, side, side).unfold(3, side, side)
    scatter = (blocks - blocks.mean((4, 5), keepdim=True)).square().sum((4, 5))
    half = ((2 * sigma**2 * room / (1 + a) - scatter) / side**2).sqrt()
    assert torch.allclose(found.high, blocks.mean((4, 5)) + half, atol=1e-5)
    assert torch.allclose(found.low, blocks.mean((4, 5)) - half, atol=1e-5)
    assert found.picture().shape == y.shape and torch.allclose(
        found.picture()[0, 0, 0, 0], 2 * half[0, 0, 0, 0], atol=1e-5
    )


def test_what_nothing_bounds_is_infinite_and_a_box_bounds_it():
    mask = torch.ones(1, 16, 16, dtype=FLOAT)
    mask[:, 4:12, 4:12] = 0
    physics = deepinv.physics.Inpainting((1, 16, 16), mask=mask)
    y = physics(picture()[..., :16, :16])
    free = icgn.Problem(y, physics, Quadratic(0.0), sigma=0.1)
    found = credible_intervals(free, icgn.solve(free, max_iter=20), blocks=4)
    inside = found.high[0, 0, 1:3, 1:3]
    assert inside.isinf().all() and found.high.isinf().sum() == 4
    boxed = icgn.Problem(y, physics, Quadratic(0.0), sigma=0.1, box=(-1.0, 2.0))
    found = credible_intervals(boxed, icgn.solve(boxed, max_iter=20), blocks=4)
    assert torch.allclose(found.high[0, 0, 1:3, 1:3], torch.tensor(2.0, dtype=FLOAT))
    assert torch.allclose(found.low[0, 0, 1:3, 1:3], torch.tensor(-1.0, dtype=FLOAT))


def test_intervals_of_a_batch_are_those_of_its_pictures():
    y = torch.cat([picture(seed=0), picture(seed=1)])
    model, sigma = icgn.load_pretrained("ridge-gray-small"), torch.tensor([0.1, 0.05], dtype=FLOAT)
    both = icgn.Problem(y, deepinv.physics.Denoising(), model, sigma=sigma)
    found = credible_intervals(both, icgn.solve(both, tol=1e-7), blocks=8)
    for i in range(2):
        own = icgn.Problem(y[i : i + 1], deepinv.physics.Denoising(), model, sigma=float(sigma[i]))
        alone = credible_intervals(own, icgn.solve(own, tol=1e-7), blocks=8)
        assert torch.allclose(found.low[i : i + 1], alone.low, atol=1e-5, equal_nan=True)
    assert "not calibrated" in found.text()


def test_what_does_not_fit_is_refused():
    problem = icgn.Problem(picture(), deepinv.physics.Denoising(), icgn.TotalVariation(), sigma=0.1)
    solution = icgn.solve(problem)
    for blocks in (0, 27, 2.5):
        with pytest.raises(ValueError, match=r"^blocks: got"):
            credible_intervals(problem, solution, blocks=blocks)
    with pytest.raises(ValueError, match=r"^alpha: got"):
        credible_intervals(problem, solution, alpha=2.0)
