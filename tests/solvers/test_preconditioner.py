"""Preconditioners: symmetric, positive definite, exact where the Hessian is a convolution, local where it is not."""

from dataclasses import dataclass

import deepinv
import pytest
import torch

import icgn
from icgn.datasets import add_noise, bundled
from icgn.functionals.functional import HessianPart
from icgn.regularizers import PerChannel, TotalVariation
from icgn.solvers import Problem, solve
from icgn.solvers.methods import preconditioner as module
from icgn.solvers.methods.preconditioner import Preconditioner, preconditioner_at


@dataclass
class Known:
    """A Hessian of known parts."""

    parts: tuple[HessianPart, ...] | None

    def hessian_parts(self, u, shape):
        return self.parts


def spectrum(height, width, channels=1):
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    bumps = torch.exp(-20 * (rows**2 + columns**2)).double()
    return torch.stack([1 + (1 + c) * bumps for c in range(channels)])[None]


def densities(seed, *shape):
    draw = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    sizes = (6 * draw - 5).exp()
    return sizes / sizes.mean((1, 2, 3), keepdim=True)


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cases():
    even = HessianPart(torch.ones(1, 1, 1, 1, dtype=torch.float64))
    for channels in (1, 2, 3):
        s = spectrum(10, 13, channels)
        local = HessianPart(s, densities(0, 2, 1, 10, 13))
        colours = HessianPart(s, densities(1, 1, channels, 10, 13))
        for parts in ((HessianPart(s),), (even, local), (colours, local)):
            yield channels, parts
    matrix = torch.diag_embed(spectrum(10, 13, 2).movedim(1, -1)).movedim((-2, -1), (1, 2)).to(torch.complex128)
    yield 2, (even, HessianPart(matrix, densities(2, 2, 1, 10, 13)))


@pytest.mark.parametrize(("channels", "parts"), list(cases()))
def test_it_is_symmetric_and_positive_definite(channels, parts):
    x, y = images(2, channels, 10, 13), images(2, channels, 10, 13, seed=1)
    p = preconditioner_at(Known(parts), x, x)
    left, right = ((p.apply(a) * b).sum((1, 2, 3)) for a, b in ((x, y), (y, x)))
    torch.testing.assert_close(left, right)
    assert bool(((p.apply(x) * x).sum((1, 2, 3)) > 0).all())
    if p.shares:
        torch.testing.assert_close(sum(d.square() for d in p.shares), torch.ones_like(p.shares[0]))


@pytest.mark.parametrize("channels", [1, 3])
def test_it_inverts_a_convolution(channels):
    x, s = images(2, channels, 10, 15), spectrum(10, 15, channels)
    p = preconditioner_at(Known((HessianPart(s),)), x, x)
    back = preconditioner_at(Known((HessianPart(1 / s),)), x, x)
    torch.testing.assert_close(back.apply(p.apply(x)), x)


def test_a_diagonal_that_has_the_sizes_it_knows_is_inverted():
    low, high = module._SIZES[0], module._SIZES[-1]
    sizes = torch.full((1, 1, 10, 12), low, dtype=torch.float64)
    sizes[..., 6:] = high
    x = images(1, 1, 10, 12)
    p = preconditioner_at(Known((HessianPart(torch.full((1, 1, 1, 1), 3.0).double(), sizes),)), x, x)
    torch.testing.assert_close(p.apply(3 * sizes * x), x)


def test_lines_of_k_space_keep_one_convolution():
    sharp = torch.ones(1, 1, 10, 7, dtype=torch.float64)
    sharp[..., ::2] = 0
    x = images(1, 1, 10, 12)
    parts = HessianPart(sharp), HessianPart(spectrum(10, 12), densities(0, 1, 1, 10, 12))
    assert len(preconditioner_at(Known(parts), x, x).inverses) == 1


@pytest.mark.parametrize("coupled", [False, True])
def test_sizes_that_are_slow_to_transform_have_the_spectrum_of_the_next_fast_one(coupled):
    def inverse(rows, cols):
        s = spectrum(rows, cols, 2)
        if coupled:
            s = torch.diag_embed(s.movedim(1, -1)).movedim((-2, -1), (1, 2)).to(torch.complex128)
        x = images(1, 2, rows, cols)
        return preconditioner_at(Known((HessianPart(s),)), x, x)

    near, exact = inverse(107, 74), inverse(108, 75)
    assert near.size == exact.size == (108, 75)
    torch.testing.assert_close(near.inverses[0], exact.inverses[0], atol=3e-3, rtol=0)


def test_images_of_a_batch_are_taken_out_and_put_back():
    x, parts = images(3, 1, 11, 13), (HessianPart(spectrum(11, 13), densities(0, 3, 1, 11, 13)),)
    p, index = preconditioner_at(Known(parts), x, x), torch.tensor([2, 0])
    torch.testing.assert_close(p.take(index).apply(x[index]), p.apply(x)[index])
    torch.testing.assert_close(p.put(index, p.take(index)).apply(x), p.apply(x))
    sharp = torch.where(torch.arange(7) % 2 == 0, spectrum(11, 13), 1e-2)
    other = preconditioner_at(Known((HessianPart(sharp), *parts)), x, x)
    assert other.size == (11, 13) and p.size == (12, 15)
    taken = other.take(index)
    mixed = Preconditioner(p.inverses[:1], (), p.size).put(index, taken).apply(x)
    torch.testing.assert_close(mixed[1], Preconditioner(p.inverses[:1], (), p.size).apply(x)[1])
    assert bool(((mixed * x).sum((1, 2, 3)) > 0).all())


def test_nothing_known_is_no_preconditioner():
    assert preconditioner_at(Known(None), images(1, 1, 8, 8), images(1, 1, 8, 8)) is None


@pytest.mark.parametrize("name", ["ridge-gray-small", "tv", "per channel"])
def test_a_density_has_mean_one_and_is_that_of_the_diagonal_of_the_hessian(name):
    model = {"tv": TotalVariation(eps=0.05)}.get(name) or icgn.load_pretrained("ridge-gray-small")
    reg = PerChannel(model) if name == "per channel" else model
    clean = bundled(gray=True).find("camera").image[None, :, 100:132, 200:232].double()
    x = clean.expand(-1, 2, -1, -1).contiguous() if name == "per channel" else clean
    functional = reg.double().at(0.05)
    found = functional.hessian_density(functional.linear(x), x.shape)
    assert found.shape[-2:] == (32, 32) and bool((found >= 0).all())
    torch.testing.assert_close(found.mean((2, 3)), torch.ones_like(found[..., 0, 0]))
    # Where the density is large, the diagonal of the Hessian is: probes on single pixels.
    dark, light = (at(found[0, 0]).item() for at in (torch.argmin, torch.argmax))
    bends = []
    for place in (dark, light):
        v = torch.zeros_like(x)
        v[0, 0].view(-1)[place] = 1
        bends.append(float((v * functional.hvp(x, v)).sum()))
    assert bends[1] > bends[0]


def test_blocks_have_the_density_of_the_whole():
    functional = icgn.load_pretrained("ridge-gray-small").double().at(0.05)
    x = bundled(gray=True).find("camera").image[None, :, 100:141, 200:237].double()
    blocks = functional.blockwise(x.shape, limit=1 << 16)
    assert type(blocks) is not type(functional)
    whole = functional.hessian_density(functional.linear(x), x.shape)
    torch.testing.assert_close(blocks.hessian_density(x, x.shape), whole)


@pytest.mark.parametrize("missing", [False, True])
def test_fewer_iterations_than_with_one_convolution(missing, monkeypatch):
    clean = bundled(gray=True).find("camera").image[None, :, 60:156, 180:276]
    y = add_noise(clean, 0.1, seed=0)
    known = (torch.rand(clean.shape, generator=torch.Generator().manual_seed(0)) > 0.4).float()
    physics = deepinv.physics.Inpainting(clean.shape[1:], mask=known[0]) if missing else deepinv.physics.Denoising()
    box = (0.0, 1.0) if missing else None
    problem = Problem(known * y if missing else y, physics, icgn.load_pretrained("ridge-gray-small"), 0.1, box=box)

    def iterations():
        return int(solve(problem, tol=1e-4).stats.iterations[0])

    local = iterations()
    monkeypatch.setattr(module, "_SIZES", (1.0,))
    assert local < 0.9 * iterations()
