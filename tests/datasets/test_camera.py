"""Simulated cameras: what they write, how large their noise is, and what they refuse."""

import pytest
import torch

from icgn.datasets import bundled, neighbour_correlation, simulate_camera


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def scene(side=96):
    return bundled().find("coffee").image[:, 100 : 100 + side, 200 : 200 + side]


@pytest.mark.parametrize("seed", range(6))
def test_a_shot_has_the_size_of_its_scene_and_eight_bits(seed):
    picture = scene()[:, :80, :96]
    shot = simulate_camera(picture, 6 / 255, generator(seed))
    assert shot.clean.shape == shot.noisy.shape == picture.shape
    levels = 255 * shot.noisy
    assert torch.allclose(levels, levels.round(), atol=1e-4) and levels.min() >= 0 and levels.max() <= 255
    assert shot.clean.min() >= 0 and shot.clean.max() <= 1
    error = shot.noisy - shot.clean
    assert shot.level == pytest.approx(float(error.square().mean().sqrt()))
    assert shot.correlation == neighbour_correlation(error)


def test_noise_is_as_large_as_asked_for_and_correlated():
    shots = [simulate_camera(scene(), 10 / 255, generator(seed)) for seed in range(12)]
    levels = torch.tensor([shot.level for shot in shots]) * 255
    # Rounding, clipping and compression change it a little.
    assert (levels > 8).all() and (levels < 14).all()
    assert torch.tensor([shot.correlation for shot in shots]).median() > 0.3


def test_without_noise_compression_is_left_and_the_seed_decides():
    first, again, other = (simulate_camera(scene(), 0.0, generator(seed)) for seed in (1, 1, 2))
    assert first.level < 8 / 255 and torch.equal(first.noisy, again.noisy) and torch.equal(first.clean, again.clean)
    assert not torch.equal(first.noisy, other.noisy)


@pytest.mark.parametrize("phase", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("bilinear", [False, True])
def test_demosaicking_is_exact_for_linear_gray_ramps(phase, bilinear):
    from icgn.datasets.camera import _Camera

    camera = _Camera(torch.ones(3, 1, 1), torch.eye(3), 0.0, 0.0, 0.0, bilinear, phase)
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(20.0), indexing="ij")
    ramp = (0.1 + 0.02 * rows + 0.01 * columns).expand(3, -1, -1)
    found = camera.demosaicked(camera.mosaic(ramp))
    inside = (..., slice(3, -3), slice(3, -3))
    assert torch.allclose(found[inside], ramp[inside], atol=1e-5)


def test_colours_of_a_uniform_scene_stay():
    from icgn.datasets.camera import _Camera

    camera = _Camera(torch.tensor([2.0, 1.0, 1.5]).reshape(3, 1, 1), torch.eye(3), 0.0, 0.0, 0.0, False, (0, 1))
    flat = torch.tensor([0.2, 0.5, 0.7]).reshape(3, 1, 1).expand(3, 16, 16)
    found = camera.developed(camera.demosaicked(camera.mosaic(camera.undeveloped(flat))))
    assert torch.allclose(found, flat, atol=1e-5)


@pytest.mark.parametrize(
    ("picture", "sigma", "message"),
    [
        (torch.zeros(1, 32, 32), 0.1, "scene: got shape"),
        (torch.zeros(3, 8, 32), 0.1, "at least 16"),
        (torch.zeros(3, 32, 32), -0.1, "sigma: got -0.1"),
        (torch.zeros(3, 32, 32), float("nan"), "sigma: got nan"),
    ],
)
def test_what_cannot_be_photographed_is_refused(picture, sigma, message):
    with pytest.raises(ValueError, match=message):
        simulate_camera(picture, sigma, generator())


def test_the_correlation_of_neighbours():
    white = torch.randn(1, 200, 200, generator=generator())
    assert neighbour_correlation(white) < 0.02
    pairs = torch.nn.functional.avg_pool2d(white, 2, 1)
    assert neighbour_correlation(pairs) == pytest.approx(0.5, abs=0.03)
    assert neighbour_correlation(torch.zeros(3, 9, 9)) == 0
    with pytest.raises(ValueError, match="noise: got shape"):
        neighbour_correlation(torch.zeros(9, 9))
