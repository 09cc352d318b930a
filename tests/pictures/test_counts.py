"""Counts: stabilized, denoised and brought back, with a distance that holds in the unit of the counts."""

import deepinv
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import icgn
from icgn.datasets import Picture, bundled, read_picture
from icgn.functionals.anscombe import stabilized, unstabilized, unstabilized_distance
from icgn.functionals.noise import Poisson, PoissonGaussian, White
from icgn.pictures import parse_noise, restore_picture, stabilize
from icgn.pictures.counts import denoise_counts
from icgn.solvers import Problem, solve


def counts(noise, side=48, seed=0):
    clean = bundled(gray=True).find("camera").image[None, :, 100 : 100 + side, 200 : 200 + side]
    return clean, noise.draw(clean, torch.Generator().manual_seed(seed))


def psnr(x, clean):
    return float(-10 * (x - clean).square().mean().log10())


@pytest.fixture(scope="module")
def model():
    return icgn.load_pretrained("ridge-gray-small")


@settings(max_examples=60, deadline=None)
@given(
    gain=st.floats(1e-3, 1e3),
    read=st.floats(0, 3),
    low=st.floats(0, 50),
    width=st.floats(0, 50),
    step=st.floats(1e-6, 3),
    seed=st.integers(0, 99),
)
def test_the_distance_in_counts_is_a_bound(gain, read, low, width, step, seed):
    noise = PoissonGaussian(gain, read * gain) if read else Poisson(gain)
    generator = torch.Generator().manual_seed(seed)
    z = low + width * torch.rand(2, 1, 6, 6, generator=generator, dtype=torch.float64)
    other = z + step * torch.randn(z.shape, generator=generator, dtype=torch.float64)
    distance = (z - other).flatten(1).square().mean(1).sqrt()
    true = (unstabilized(z, noise) - unstabilized(other, noise)).flatten(1).square().mean(1).sqrt()
    assert (true <= unstabilized_distance(z, distance, noise) * (1 + 1e-12)).all()


@pytest.mark.parametrize(
    "noise", [Poisson(1 / 60), Poisson(1 / 60, counted=True), Poisson(1 / 3), PoissonGaussian(0.05, 0.02, 0.1)]
)
def test_denoised_counts_are_near_the_inverse_of_the_minimizer(noise, model):
    clean, y = counts(noise)
    last = {}

    def denoise(stable):
        last["counts"] = stable
        problem = Problem(stable.z, deepinv.physics.Denoising(), model, stable.sigma)
        last["solution"] = solve(problem, tol=1e-3)
        last["exact"] = solve(problem.to(torch.float64), tol=1e-9).x
        return last["solution"]

    _, found = denoise_counts(y, noise, denoise, lambda solved: solved)
    stable = last["counts"]
    exact = stable.share**2 * unstabilized(stable.scale * last["exact"], stable.noise)
    assert float((found.x - exact).square().mean().sqrt()) <= float(found.certificate.rms_distance)
    unit = noise.gain if isinstance(noise, Poisson) and noise.counted else 1.0
    assert psnr(found.x, clean) > psnr(unit * y - getattr(noise, "offset", 0.0), clean) + 2
    whole = icgn.denoise(y, noise=noise, regularizer=model, tol=1e-3)
    assert torch.allclose(whole.x, found.x, atol=2e-3)


def test_mixed_counts_have_unit_variance():
    noise, x = PoissonGaussian(0.5, 0.3, 2.0), torch.full((1, 1, 200, 200), 6.0)
    y = noise.draw(x, torch.Generator().manual_seed(0))
    for share in (1.0, 0.5, 0.35):
        found = stabilize(y, noise, estimate=x if share < 1 else None, share=share)
        assert float((found.scale * found.z).std()) == pytest.approx(1, rel=0.03)


def test_pictures_of_counts_are_denoised_alike(model):
    noise = Poisson(1 / 20)
    _, y = counts(noise)
    restored = restore_picture(y[0], noise=noise, regularizer=model, tol=1e-3)
    assert torch.allclose(restored.picture.pixels, icgn.denoise(y, noise=noise, regularizer=model, tol=1e-3).x[0])
    assert "counts" in [note.topic for note in restored.notes]
    assert restored.rms_distance == pytest.approx(float(restored.solution.certificate.rms_distance[0]))


def test_any_unit_gives_the_same(model):
    noise = Poisson(1.0)
    _, y = counts(Poisson(1 / 30))
    y = 30 * y
    one = icgn.denoise(y, noise=noise, regularizer=model, tol=1e-3)
    many = icgn.denoise(1000 * y, noise=Poisson(1000.0), regularizer=model, tol=1e-3)
    assert torch.allclose(many.x, 1000 * one.x, rtol=1e-5)
    assert torch.equal(many.stats.iterations, one.stats.iterations)


def test_what_is_not_counts_is_refused():
    with pytest.raises(TypeError, match="noise: got White"):
        stabilize(torch.zeros(1, 1, 8, 8), White(0.1))
    with pytest.raises(ValueError, match="negative values down to -1"):
        stabilize(torch.full((1, 1, 8, 8), -1.0), Poisson(1.0))
    assert float(stabilized(torch.tensor(-9.0), PoissonGaussian(1.0, 1.0))) == 0


# Noise in words


def test_words_give_noise_in_intensities():
    picture = Picture(torch.rand(1, 8, 8))
    assert parse_noise("auto").describe(picture) is None
    white = parse_noise("25").describe(picture)
    assert isinstance(white, White) and white.level == pytest.approx(25 / 255)
    correlated = parse_noise("correlated:5.1,0.5").describe(picture)
    assert correlated.level == pytest.approx(0.02) and correlated.correlation == pytest.approx(0.5, abs=0.05)
    assert parse_noise("poisson:0.25").describe(picture).gain == 0.25
    both = parse_noise("poisson-gaussian:0.5,0.1,0.2").describe(picture)
    assert (both.gain, both.read, both.offset) == (0.5, 0.1, 0.2)


def test_the_gain_of_counts_is_the_distance_of_their_values():
    values = torch.poisson(torch.full((1, 40, 40), 6.0), generator=torch.Generator().manual_seed(0)) * 0.03
    assert parse_noise("poisson").describe(Picture(values)).gain == pytest.approx(0.03)
    with pytest.raises(ValueError, match="expected poisson:GAIN"):
        parse_noise("poisson").describe(Picture(torch.rand(1, 40, 40)))


@pytest.mark.parametrize(
    "text",
    ["", "white", "blue:3", "0", "-3", "nan", "poisson:0", "poisson-gaussian:1", "correlated:5,1", "white:1,2"],
)
def test_other_words_are_refused(text):
    with pytest.raises(ValueError, match="noise: got"):
        parse_noise(text)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6, 0.9])
def test_gaussian_correlation_is_that_of_what_is_drawn(correlation):
    from icgn.datasets import neighbour_correlation
    from icgn.functionals.noise import Correlated

    noise = Correlated.gaussian(0.1, correlation)
    drawn = noise.draw(torch.zeros(1, 1, 256, 256), torch.Generator().manual_seed(0))[0]
    assert neighbour_correlation(drawn) == pytest.approx(correlation, abs=0.08)
    assert float(drawn.std()) == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize(("step", "empty", "kind"), [(2.0, 100, "u2"), (1.0, 0, "i2"), (3.0, 500, "f4")])
def test_restored_counts_are_in_the_numbers_of_the_file(step, empty, kind, tmp_path, model):
    # Files of signed numbers and of floats have an intensity 0 that is no count of 0.
    clean = (1 + counts(Poisson(1 / 60))[0]) / 2
    drawn = Poisson(1 / 60).draw(clean, torch.Generator().manual_seed(0))
    np.save(tmp_path / "y.npy", (empty + step * 60 * drawn[0, 0].double().numpy()).round().astype(kind))
    picture = read_picture(tmp_path / "y.npy")
    low, high = picture.range
    words = parse_noise(f"poisson-gaussian:{step},0,{empty}" if empty else "poisson")
    restored = restore_picture(picture, noise=words.describe(picture), regularizer=model, tol=1e-3)
    values = low + (high - low) * restored.picture.pixels.double()
    assert psnr((values - empty) / (60 * step), clean[0]) > psnr(drawn, clean) + 5
    told = restore_picture(picture, noise=f"poisson-gaussian:{step},0,{empty}", regularizer=model, tol=1e-3)
    assert torch.allclose(told.picture.pixels, restored.picture.pixels, atol=1e-5)
