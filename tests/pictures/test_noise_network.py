"""The network that finds levels of noise: in any unit, of any part of a picture, white or not."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icgn.datasets import add_noise, bundled, luma
from icgn.pictures import noise_network as module
from icgn.pictures.noise_network import BLOCK, NoiseNetwork, noise_network


def picture(side=96, channels=3):
    colour = bundled().find("coffee").image[:, 100 : 100 + side, 200 : 200 + side]
    return (colour if channels == 3 else luma(colour))[None]


@pytest.mark.parametrize("channels", [1, 3])
@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e5), shift=st.floats(-100, 100))
def test_levels_are_equivariant(channels, scale, shift):
    network = copy.deepcopy(noise_network(channels)).double()
    y = add_noise(picture(channels=channels), 0.05, seed=0).double()
    found, moved = network(y), network(scale * y + scale * shift)
    assert torch.allclose(moved.levels, scale * found.levels, rtol=1e-5)
    assert torch.allclose(moved.removal, scale * found.removal, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_level_for_each_block_of_each_channel(channels):
    found = noise_network(channels)(add_noise(picture(channels=channels), 0.05, seed=0)[..., :-3])
    assert found.levels.shape == (1, channels, 96 // BLOCK, 93 // BLOCK)
    assert found.luma.shape == found.removal.shape == (1, 1, 12, 11)
    assert (found.levels > 0).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [5 / 255, 15 / 255, 30 / 255])
def test_white_noise_is_found(channels, sigma):
    found = noise_network(channels)(add_noise(picture(192, channels), sigma, seed=0))
    assert float(found.levels.square().mean().sqrt()) == pytest.approx(sigma, rel=0.15)
    assert float(found.removal.square().mean().sqrt()) == pytest.approx(sigma, rel=0.3)


def test_halves_of_different_noise_are_told_apart():
    noise = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    noise[..., 64:] *= 4
    levels = noise_network()(picture(128) + 0.02 * noise).levels.mean(1)[0]
    assert levels[:, 9:].median() > 1.2 * levels[:, :7].median()


def test_blocks_that_are_not_used_do_not_count():
    y = add_noise(picture(128), 0.05, seed=0)
    framed = torch.zeros_like(y)
    framed[..., 32:96, 32:96] = y[..., 32:96, 32:96]
    used = torch.zeros(16, 16, dtype=torch.bool)
    used[4:12, 4:12] = True
    found = noise_network()(framed, used).levels[..., used].square().mean().sqrt()
    assert float(found) == pytest.approx(0.05, rel=0.25)


def test_what_it_does_not_take_is_refused():
    for channels, shape in ((3, (3, 64, 64)), (3, (1, 1, 64, 64)), (1, (1, 3, 64, 64)), (3, (1, 3, 16, 64))):
        with pytest.raises(ValueError, match=f"x: got shape .* expected .B, {channels}, H, W."):
            NoiseNetwork(channels)(torch.zeros(shape))


def test_large_pictures_strip_by_strip(monkeypatch):
    y = add_noise(picture(192), 0.05, seed=0)[..., :189, :]
    whole = noise_network()(y)
    monkeypatch.setattr(module, "_STRIP", 40 * 192)
    parts = noise_network()(y)
    assert torch.allclose(parts.levels, whole.levels, rtol=1e-4)
