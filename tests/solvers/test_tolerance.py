"""Default tolerances: a part of the noise, the same in every unit, for each image its own."""

import deepinv
import pytest
import torch

import icgn
from icgn.pictures import restore_picture
from icgn.regularizers import ScaledRegularizer
from icgn.solvers.tolerance import invisible_distance

LEVELS = (2 / 255, 50 / 255)


@pytest.fixture(scope="module")
def model():
    return icgn.load_pretrained("ridge-gray-small")


def noisy(sigma, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(2, 1, 24, 20, generator=generator, dtype=torch.float64)
    return (x + sigma * torch.randn(x.shape, generator=generator, dtype=x.dtype)).to(dtype)


def per_image(levels):
    return torch.tensor(levels, dtype=torch.float64)[:, None, None, None]


@pytest.mark.parametrize("sigma", LEVELS)
def test_pictures_are_proved_to_a_part_of_the_noise(model, sigma):
    y = noisy(sigma)
    solutions = [
        icgn.denoise(y, sigma, regularizer=model, range=(0, 1)),
        icgn.Reconstructor(model, sigma, noise=sigma).solve(y, deepinv.physics.Denoising()),
        icgn.deblur(y, torch.ones(1, 1), sigma, sigma=sigma, regularizer=model, border="circular", range=(0, 1)),
        restore_picture(y[0], sigma=sigma, regularizer=model, range=(0, 1)).solution,
    ]
    for solution in solutions:
        assert solution.converged and (solution.certificate.rms_distance <= sigma / 250).all()


def test_each_image_has_its_own_and_is_not_disturbed_by_others(model):
    y, levels = noisy(per_image(LEVELS)), torch.tensor(LEVELS)
    both = icgn.denoise(y, levels, regularizer=model)
    assert (both.certificate.rms_distance <= levels / 250).all()
    for i, level in enumerate(LEVELS):
        alone = icgn.denoise(y[i : i + 1], level, regularizer=model)
        assert alone.stats.iterations[0] == both.stats.iterations[i]
    assert both.certificate.rms_distance[1] > LEVELS[0] / 250


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [4096.0, 2.0**-20])
def test_the_same_steps_in_every_unit(model, dtype, scale):
    sigma = 25 / 255
    y = noisy(sigma, dtype)
    unit = icgn.denoise(y, sigma, regularizer=model, range=(0, 1))
    other = icgn.denoise(scale * y, scale * sigma, regularizer=model, range=(0, scale))
    assert torch.equal(unit.stats.iterations, other.stats.iterations)
    assert (other.certificate.rms_distance <= scale * sigma / 250).all()
    assert torch.allclose(other.certificate.rms_distance, scale * unit.certificate.rms_distance, rtol=1e-4)


def test_a_scaled_regularizer_scales_it(model):
    y = noisy(0.1, torch.float64)
    scaled = ScaledRegularizer(model, 0.0, 1024.0)
    distances = [
        invisible_distance(icgn.Problem(s * y, deepinv.physics.Denoising(), reg, sigma=s * level))
        for s, reg in ((1.0, model), (1024.0, scaled))
        for level in (0.1, 1e-18)
    ]
    for unit, other in zip(distances[:2], distances[2:], strict=True):
        assert torch.allclose(other, 1024 * unit, rtol=1e-12, atol=0)


def test_it_is_not_below_what_the_precision_reaches(model):
    y = noisy(0.0)
    for sigma in (0.0, 1e-6):
        solution = icgn.denoise(y, sigma, regularizer=model)
        assert solution.converged and (solution.certificate.rms_distance <= 1e-6).all()
        assert torch.allclose(solution.x, y, atol=5e-6)


def test_without_a_distance_the_gap_counts(model):
    physics = deepinv.physics.Inpainting((1, 24, 20), mask=(torch.rand(1, 24, 20) > 0.3).float())
    reconstructor = icgn.Reconstructor(model, 0.1, box=(0, 1), gap_tol=1e-2)
    solution = reconstructor.solve(noisy(0.1) * physics.mask, physics)
    assert solution.converged and (solution.certificate.relative_gap <= 1e-2).all()


def test_solve_keeps_a_distance_in_intensities(model):
    sigma = 50 / 255
    problem = icgn.Problem(noisy(sigma), deepinv.physics.Denoising(), model, sigma=sigma)
    given, part = icgn.solve(problem), icgn.solve(problem, tol=None)
    assert (given.certificate.rms_distance <= 1e-4).all() and (part.certificate.rms_distance <= sigma / 250).all()
    assert (part.stats.iterations <= given.stats.iterations).all()


@pytest.mark.parametrize("hot", [1e4, 1e6])
def test_a_hot_pixel_excuses_no_other_pixel(model, hot):
    sigma = 25 / 255
    y = noisy(sigma)
    y[:, :, 5, 7] = hot
    solution = icgn.denoise(y, sigma, regularizer=model, range=(0, 1))
    exact = icgn.denoise(y.double(), sigma, regularizer=model, range=(0, 1), tol=1e-6)
    apart = (solution.x.double() - exact.x).square().mean((1, 2, 3)).sqrt()
    assert solution.converged and (solution.certificate.rms_distance <= sigma / 10).all()
    assert (apart <= solution.certificate.rms_distance + exact.certificate.rms_distance).all()
