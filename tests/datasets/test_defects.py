"""Dead pixels, salt and pepper, stripes: found where they are, and nowhere else."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from icgn.datasets import Picture, bundled
from icgn.datasets.defects import find_impulses, find_stripes
from icgn.pictures import restore_picture
from icgn.pictures.defects import clear


def rng(seed=0):
    return np.random.default_rng(seed)


def clean(gray=True, side=160):
    photographs = bundled(gray=gray)
    image = photographs.find("camera" if gray else "coffee").image
    return image[:, 60 : 60 + side, 120 : 120 + side].double().numpy()


def noisy(x, level=10, seed=0):
    return ((255 * x + level * rng(seed).standard_normal(x.shape)).round()).clip(0, 255) / 255


def page(level):
    image = Image.new("L", (256, 192), 255)
    draw = ImageDraw.Draw(image)
    for i in range(16):
        draw.text(
            (6, 6 + 11 * i), "The quick brown fox jumps over the lazy dog", fill=0, font=ImageFont.load_default(11)
        )
    return noisy(np.asarray(image, float)[None] / 255, level)


@pytest.mark.parametrize("share", [0.05, 0.15, 0.3])
@pytest.mark.parametrize("gray", [True, False])
def test_salt_and_pepper_are_found(share, gray):
    y = noisy(clean(gray))
    bad = rng(1).random(y.shape[1:]) < share
    y[:, bad] = rng(2).integers(0, 2, bad.sum())
    found = find_impulses(y)
    assert (found & bad).sum() > 0.85 * bad.sum() and (found & ~bad).mean() < 0.02


def test_dead_and_hot_pixels_are_found():
    y = np.clip(clean(), 0.2, 0.8) + 0.02 * rng().standard_normal((1, 160, 160))
    bad = np.zeros(y.shape[1:], bool)
    bad[rng(3).integers(2, 158, 12), rng(4).integers(2, 158, 12)] = True
    y[:, bad] += 0.7 * rng(5).choice([-1, 1], bad.sum())
    found = find_impulses(y)
    assert (found & bad).sum() >= 0.6 * bad.sum() and (found & ~bad).sum() <= 2


@pytest.mark.parametrize("axis", [0, 1])
def test_stripes_are_found_and_taken_away(axis):
    x = clean(side=224)[:, :160, :]
    x = x if axis == 0 else x.swapaxes(1, 2)
    y = noisy(x, 5)
    offsets = 4 / 255 * rng(6).standard_normal(y.shape[1 + axis])
    striped = y + (offsets[:, None] if axis == 0 else offsets[None])
    found = find_stripes(striped)
    assert found is not None and found.axis == axis
    assert np.square(found.removed(striped) - y).mean() < 0.4 * np.square(striped - y).mean()


@pytest.mark.parametrize("gray", [True, False])
def test_photographs_have_none(gray):
    for sample in bundled(gray=gray):
        x = sample.image[:, :160, :200].double().numpy()
        for y in (x, noisy(x, 5), noisy(x, 25)):
            assert find_stripes(y) is None and find_impulses(y).mean() < 2e-3


@pytest.mark.parametrize("level", [0, 5, 10])
def test_pages_and_flat_pictures_have_none(level):
    for y in (page(level), noisy(np.full((1, 40, 40), 0.5), level), np.zeros((3, 4, 4)), page(level).swapaxes(1, 2)):
        assert find_stripes(y) is None and not find_impulses(y).any()


def test_what_was_found_is_said_and_the_picture_is_restored():
    x = clean(side=96)
    y = noisy(x)
    bad = rng(1).random(y.shape[1:]) < 0.05
    y[:, bad] = rng(2).integers(0, 2, bad.sum())
    cleared = clear(Picture(torch.from_numpy(y).float()))
    assert cleared.known is not None and [note.topic for note in cleared.notes] == ["dead"]
    restored = restore_picture(Picture(torch.from_numpy(y).float()), tol=1e-3)
    error = ((restored.picture.pixels.double().numpy() - x) ** 2).mean()
    assert error < 0.05 * ((y - x) ** 2).mean() and "filled in" in " ".join(n.text() for n in restored.notes)
    assert torch.equal(restored.before, torch.from_numpy(y).float())
    plain = clear(Picture(torch.from_numpy(noisy(x)).float()))
    assert plain.known is None and not plain.notes
