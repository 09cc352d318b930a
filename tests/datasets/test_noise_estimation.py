"""Noise found in pictures: how large it is, what it is like, and pictures that have hardly any to be measured in."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch

import icgn
from icgn.datasets import Picture, bundled, luma
from icgn.datasets.estimation import clipped_level, count_step, dark_frame, measure_flat, padding
from icgn.datasets.mosaic import bayer_places, interpolated
from icgn.functionals.noise import Correlated, Poisson, PoissonGaussian, White
from icgn.pictures.noise import estimate_noise


def rng(seed=0):
    return np.random.default_rng(seed)


def camera(side=256):
    return bundled(gray=True).find("camera").image[:, 60 : 60 + side, 120 : 120 + side].double().numpy()


def tensor(values):
    return torch.from_numpy(np.ascontiguousarray(values))


def demosaicked(mosaic):
    """Bilinear interpolation of a Bayer mosaic (H, W) in three colours (3, H, W)."""
    return interpolated(torch.from_numpy(mosaic)[None], bayer_places(*mosaic.shape)).numpy()


@pytest.mark.parametrize("sigma", [5 / 255, 15 / 255, 30 / 255])
def test_white_noise_is_white_and_as_large_as_it_is(sigma):
    found = estimate_noise(tensor(camera() + sigma * rng().standard_normal((1, 256, 256))))
    assert isinstance(found.noise, White)
    assert found.level == pytest.approx(sigma, rel=0.1) and found.sigma == found.level
    assert "white" in found.text() and f"{255 * found.level:.3g} gray levels" in found.text(255, "gray levels")


@pytest.mark.parametrize("sigma", [10 / 255, 25 / 255])
def test_noise_of_a_demosaicked_photograph_is_correlated(sigma):
    noise = demosaicked(sigma * rng().standard_normal((256, 256)))
    found = estimate_noise(tensor(camera() + noise))
    assert isinstance(found.noise, Correlated)
    assert found.level == pytest.approx(noise.std(), rel=0.3)
    assert found.sigma > 1.5 * found.level and "correlated" in found.text()


def test_enlarged_noise_is_correlated():
    small = camera(128) + 20 / 255 * rng().standard_normal((1, 128, 128))
    large = scipy.ndimage.zoom(small, (1, 2, 2), order=3)
    found = estimate_noise(tensor(large))
    truth = (large - scipy.ndimage.zoom(camera(128), (1, 2, 2), order=3)).std()
    assert isinstance(found.noise, Correlated) and found.level == pytest.approx(truth, rel=0.3)


def grain(side, radius):
    noise = scipy.ndimage.gaussian_filter(rng(round(10 * radius)).standard_normal((1, side, side)), (0, radius, radius))
    return noise / noise.std()


@pytest.mark.parametrize("scene", ["coffee", "chelsea", "rocket"])
@pytest.mark.parametrize("level", [3, 6])
def test_gray_noise_as_cameras_leave_it_has_its_level(scene, level):
    # Smooth at the size of a pixel, as photographs are, with noise of two sizes of grain.
    part = luma(bundled().find(scene).image[:, :128, 100:228])[None]
    clean = torch.nn.functional.interpolate(part, size=(256, 256), mode="bicubic")[0].double().numpy()
    noise = grain(256, 0.8) + 0.5 * grain(256, 2)
    noisy = clean + level / 255 * noise / noise.std()
    found = estimate_noise(tensor((255 * noisy).round().clip(0, 255) / 255))
    assert isinstance(found.noise, Correlated)
    assert 255 * found.level == pytest.approx(level, rel=0.3) and found.sigma > 1.5 * found.level


@pytest.mark.parametrize("blur", [0, 0.5])
def test_gray_pictures_of_microscopes_have_their_level(blur):
    scene = bundled(gray=True).find("coins").image[:, 40:296, 60:316].double().numpy()
    clean = scipy.ndimage.gaussian_filter(scene, (0, 1.5, 1.5))
    noise = np.sqrt(0.004 * clean + (2 / 255) ** 2) * rng().standard_normal(clean.shape)
    read_out = scipy.ndimage.gaussian_filter(noise, (0, blur, blur))
    assert estimate_noise(tensor(clean + read_out)).level == pytest.approx(read_out.std(), rel=0.3)


def test_the_noise_of_gray_pictures_is_that_in_any_unit():
    y = camera() + 0.03 * grain(256, 0.8)
    found, other = estimate_noise(tensor(y)), estimate_noise(tensor(500 * y - 70))
    assert other.level == pytest.approx(500 * found.level, rel=1e-3)
    assert other.sigma == pytest.approx(500 * found.sigma, rel=1e-3) and other.sure == found.sure


@pytest.mark.parametrize(("gain", "offset", "read"), [(2.1, 100, 5), (4.3, 300, 0), (1.7, 200, 10)])
def test_small_pictures_of_counts_with_an_offset_are_right_or_a_guess(gain, offset, read):
    noise = PoissonGaussian(gain, read, offset)
    for seed, (scene, place) in enumerate([("camera", 60), ("coins", 60), ("motorcycle", 120), ("coffee", 180)]):
        clean = bundled(gray=True).find(scene).image[:, place : place + 128, 120:248].double()
        mean = 100 * gain * clean
        drawn = noise.draw(mean, torch.Generator().manual_seed(seed))
        found = estimate_noise(drawn.round() / 65535)
        truth = float((drawn - offset - mean).square().mean().sqrt()) / 65535
        assert found.sure == "low" or found.level == pytest.approx(truth, rel=0.15)


def test_noise_that_grows_with_the_brightness_is_told():
    ramp = np.tile(np.linspace(0.05, 0.95, 256), (1, 256, 1))
    noise = PoissonGaussian(0.01, 0.02)
    drawn = noise.draw(tensor(ramp), torch.Generator().manual_seed(0))
    found = estimate_noise(drawn)
    assert isinstance(found.noise, PoissonGaussian)
    assert found.noise.gain == pytest.approx(0.01, rel=0.2)
    assert found.level == pytest.approx((drawn.numpy() - ramp).std(), rel=0.1)


@pytest.mark.parametrize(
    ("scene", "peak", "gain", "offset", "read"),
    [
        ("camera", 100, 2.1, 100, 5),
        ("camera", 60, 0.5, 100, 2),
        ("coffee", 200, 10, 500, 20),
        ("coffee", 100, 4.3, 300, 0),
        ("coins", 60, 1.7, 200, 10),
    ],
)
def test_counts_with_an_offset_have_their_level(scene, peak, gain, offset, read):
    clean = bundled(gray=True).find(scene).image[:, :256, 120:376].double().numpy()
    noise = PoissonGaussian(gain, read, offset)
    drawn = noise.draw(tensor(peak * gain * clean), torch.Generator().manual_seed(0))
    found = estimate_noise(Picture((drawn.round() / 65535).float()))
    assert found.level * 65535 == pytest.approx(math.sqrt(gain * peak * gain * clean.mean() + read**2), rel=0.15)
    if isinstance(found.noise, PoissonGaussian):
        # Offset and read-out are told apart by nothing; the variance at an intensity is what counts.
        bright = tensor(np.array([offset + 0.7 * gain * peak]) / 65535)
        assert float(found.noise.variance(found.noise.mean(bright))) * 65535**2 == pytest.approx(
            gain * 0.7 * gain * peak + read**2, rel=0.3
        )


def test_counts_with_an_offset_come_back_in_their_numbers():
    clean = camera(96)
    noise = PoissonGaussian(2.1, 5.0, 100.0)
    y = noise.draw(tensor(210 * clean[None]), torch.Generator().manual_seed(0)).round() / 65535
    x = icgn.denoise(y, noise="auto", regularizer=icgn.load_pretrained("ridge-gray-small"), tol=1e-3).x
    truth = tensor(210 * clean[None] + 100) / 65535
    assert (x - truth).square().mean() < 0.3 * (y - truth).square().mean() and abs((x - truth).mean()) < 2 / 65535


@pytest.mark.parametrize("side", [24, 32, 48])
@pytest.mark.parametrize("around", [None, 0, 3])
def test_small_pictures_and_fields_have_their_noise_or_are_a_guess(side, around):
    row, column = np.mgrid[:side, :side] - (side - 1) / 2
    inside = row**2 + column**2 < (0.46 * side) ** 2
    for seed, (top, left) in enumerate([(0, 0), (40, 90), (100, 20)]):
        clean = camera()[:, top : top + side, left : left + side]
        noisy = clean + 0.06 * rng(seed).standard_normal(clean.shape)
        if around is not None:
            noisy = np.where(inside, noisy, (around + (around > 0) * rng(9).standard_normal(clean.shape)) / 255)
        found = estimate_noise(tensor((255 * noisy).round().clip(0, 255) / 255))
        assert found.level > 0.02 and (found.sure == "low" or found.level == pytest.approx(0.06, rel=0.25))


@pytest.mark.parametrize("peak", [20, 100])
def test_counts_are_told_by_their_values(peak):
    counts = rng().poisson(peak * camera())
    found = estimate_noise(tensor(counts / counts.max()))
    assert isinstance(found.noise, Poisson) and found.noise.gain == pytest.approx(1 / counts.max())


def test_values_of_8_bits_are_no_counts():
    ramp = np.tile(np.linspace(0.05, 0.95, 256), (1, 256, 1))
    noisy = ramp + np.sqrt(ramp / 255) * rng().standard_normal(ramp.shape)
    assert not isinstance(estimate_noise(tensor((255 * noisy).round().clip(0, 255) / 255)).noise, Poisson)


def test_a_dark_frame_is_left_out():
    row, column = np.mgrid[:192, :256]
    inside = (row - 96) ** 2 + (column - 128) ** 2 < 85**2
    clean = np.where(inside, camera()[0, :192], 6 / 255)
    noisy = clean + np.where(inside, 25, 1) / 255 * rng().standard_normal(clean.shape)
    picture = (255 * noisy).round().clip(0, 255)[None] / 255
    frame = dark_frame(picture)
    assert frame is not None and not (frame & inside)[40:150, 80:180].any() and frame[~inside].mean() > 0.8
    assert estimate_noise(tensor(picture)).level == pytest.approx(25 / 255, rel=0.2)
    assert dark_frame(camera()) is None


@pytest.mark.parametrize("level", [-2.0, -0.5])
def test_what_a_scanner_padded_is_left_out(level):
    row, column = np.mgrid[:96, :96]
    whole = camera()[:, :96, 100:196] + 0.06 * rng().standard_normal((1, 96, 96))
    for outside in ((row < 20) & (column < 20), (row - 48) ** 2 + (column - 48) ** 2 > 47**2):
        picture = np.where(outside, level, whole)
        found = padding(picture)
        assert found is not None and found[outside].mean() > 0.99 and found[~outside].mean() < 0.1
        assert estimate_noise(tensor(picture)).level > 0.7 * estimate_noise(tensor(whole)).level
    assert padding(whole) is None and padding(np.clip(whole - 0.3, 0, 1)) is None


def test_pixels_outside_the_field_may_be_nan():
    noisy = camera() + 0.1 * rng().standard_normal((1, 256, 256))
    noisy[:, :, :60] = np.nan
    assert estimate_noise(tensor(noisy)).level == pytest.approx(0.1, rel=0.15)


@pytest.mark.parametrize("level", [0, 5, 10])
def test_a_page_of_paper_has_the_noise_of_its_paper(level):
    clean = np.full((1, 192, 256), 255.0)
    for line in range(6, 180, 11):
        clean[:, line : line + 7, 8:240:3] = 0
    noisy = (clean + level * rng().standard_normal(clean.shape)).round().clip(0, 255) / 255
    assert 0.6 * level / 255 <= estimate_noise(tensor(noisy)).level <= 2 * level / 255
    assert clipped_level(noisy[:, :, 244:]) == pytest.approx(level / 255, rel=0.2)


def test_flat_and_tiny_pictures_have_little_or_no_noise():
    for picture in (np.full((1, 64, 64), 0.5), np.zeros((3, 64, 64)), np.full((1, 3, 3), 0.2)):
        found = estimate_noise(tensor(picture))
        assert found.level == 0 and found.sigma == 0
    flat = 0.5 + 0.02 * rng().standard_normal((1, 64, 64))
    assert estimate_noise(tensor(flat)).level == pytest.approx(0.02, rel=0.1)
    tiny = estimate_noise(tensor(0.5 + 0.02 * rng().standard_normal((1, 8, 8))))
    assert 0 < tiny.level < 0.04 and tiny.sure == "low"


def test_gray_stored_as_colour_is_gray():
    noisy = tensor(camera() + 0.1 * rng().standard_normal((1, 256, 256)))
    assert estimate_noise(noisy.expand(3, -1, -1)).level == estimate_noise(noisy).level


def test_channels_may_have_levels_of_their_own():
    levels = np.array([0.05, 0.1, 0.05])
    noisy = camera() + levels[:, None, None] * rng().standard_normal((3, 256, 256))
    found = estimate_noise(Picture(tensor(noisy).float()))
    assert np.allclose(found.channels, levels, rtol=0.15)
    assert found.noise.level.shape == (1, 3, 1, 1)


def test_the_spectrum_is_that_of_the_noise():
    white = measure_flat(0.5 + 0.1 * rng().standard_normal((1, 256, 256)))
    assert white.coarseness == pytest.approx(1, abs=0.1) and white.levels[0] == pytest.approx(0.1, rel=0.05)
    blurred = scipy.ndimage.gaussian_filter(rng().standard_normal((1, 256, 256)), (0, 0.7, 0.7))
    assert measure_flat(0.5 + blurred).coarseness > 2
    assert measure_flat(np.ones((1, 8, 8))) is None


def test_steps_of_counts():
    assert count_step(np.array([0, 1, 2, 5, 6]) / 7) == pytest.approx(1 / 7)
    assert count_step(rng().random((1, 64, 64))) is None
    assert count_step(np.ones(5)) is None


@pytest.mark.parametrize(
    "bad", [torch.zeros(4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8), torch.full((1, 4, 4), torch.nan)]
)
def test_what_is_no_picture_is_refused(bad):
    with pytest.raises(ValueError, match=r"^picture: got"):
        estimate_noise(bad)
    with pytest.raises(TypeError, match=r"^picture: got ndarray"):
        estimate_noise(bad.numpy())


@pytest.mark.parametrize("photons", [5, 20, 100])
def test_counts_of_a_small_picture_are_counts(photons):
    coins = bundled(gray=True).find("coins").image[:, 60:156, 60:156].double().numpy()
    counts = rng().poisson(photons * coins) / photons
    found = estimate_noise(tensor(counts))
    assert isinstance(found.noise, Poisson) and found.noise.gain == pytest.approx(1 / photons)
