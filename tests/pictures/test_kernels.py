"""Point-spread functions as people have them: in any unit, with a background, off the centre, too large."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from icgn.pictures import Deblur, load_kernel, make_kernel, read_kernel, restore_picture
from icgn.regularizers import load_pretrained


def bump(height=15, width=15, row=7.0, column=7.0, std=1.5):
    r, c = np.mgrid[:height, :width]
    return np.exp(-((r - row) ** 2 + (c - column) ** 2) / (2 * std**2))


TRUE = read_kernel("gaussian:1.5")


def same(kernel, atol=2e-3):
    """Whether a kernel is the true one but for its margin."""
    side = max(kernel.shape[-1], TRUE.shape[-1], kernel.shape[-2])
    grown = [
        torch.nn.functional.pad(k, [(side - k.shape[-1]) // 2] * 2 + [(side - k.shape[-2]) // 2] * 2)
        for k in (kernel, TRUE)
    ]
    return torch.allclose(*grown, atol=atol)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("float.tif", lambda path, k: tifffile.imwrite(path, (40 * k).astype(np.float32))),
        ("8.png", lambda path, k: Image.fromarray((255 * k).round().astype(np.uint8)).save(path)),
        ("16.tif", lambda path, k: tifffile.imwrite(path, (60000 * k).round().astype(np.uint16))),
        ("signed.tif", lambda path, k: tifffile.imwrite(path, (30000 * k).round().astype(np.int16))),
        ("double.npy", np.save),
        ("whole.npy", lambda path, k: np.save(path, (1000 * k).round().astype(int))),
        ("four.npy", lambda path, k: np.save(path, k[None, None])),
        ("colour.png", lambda path, k: Image.fromarray((255 * k).round().astype(np.uint8)).convert("RGB").save(path)),
    ],
)
def test_a_kernel_is_read_in_its_own_unit(tmp_path, name, write):
    write(tmp_path / name, bump())
    found = load_kernel(str(tmp_path / name))
    assert same(found.values) and not found.warnings and "background" not in found.words
    assert found.words.startswith("15 x 15 values of ") and "scaled from sum" in found.words
    assert "its centre at row 7 and column 7" in found.words


@pytest.mark.parametrize("noise", [0.0, 0.002])
@pytest.mark.parametrize("level", [0.02, 0.1, 0.3, -0.004])
def test_a_background_is_subtracted_and_said(tmp_path, level, noise):
    k = bump(31, 31, 15, 15) + level + noise * np.random.default_rng(0).standard_normal((31, 31))
    np.save(tmp_path / "k.npy", k)
    found = load_kernel(str(tmp_path / "k.npy"))
    assert same(found.values) and "a background of " in found.words and not found.warnings
    with pytest.warns(UserWarning, match="subtract this background"):
        make_kernel(torch.from_numpy(k))


@pytest.mark.parametrize(
    "kernel",
    [
        np.ones((9, 9)),
        bump(5, 5, 2, 2, 1),
        bump(7, 7, 3, 3, 3),
        np.eye(11),
        np.pad(np.ones((3, 9)), 1),
        np.ones((1, 9)),
    ],
)
def test_what_is_no_background_stays(tmp_path, kernel):
    np.save(tmp_path / "k.npy", kernel)
    found = load_kernel(str(tmp_path / "k.npy"))
    assert "background" not in found.words and not found.warnings
    assert float(found.values.max()) == pytest.approx(kernel.max() / kernel.sum())


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (
            bump(24, 24, 11.5, 11.5),
            "sides of 24 x 24 are even, so that no pixel is in the middle: the centre is taken at",
        ),
        (bump(31, 31, 10, 20), "lies 5 pixels above and 5 pixels to the right of its centre"),
        (bump(std=3) + 0.04, "it does not fall below 4.3 % of its peak at its border"),
        (np.fft.ifftshift(bump(31, 31, 15, 15)), "lies in its corners"),
        (np.fft.ifftshift(bump(32, 32, 16, 16)), "numpy.fft.fftshift"),
    ],
)
def test_a_kernel_that_shifts_the_picture_is_warned_about(tmp_path, kernel, words):
    np.save(tmp_path / "k.npy", kernel)
    found = load_kernel(str(tmp_path / "k.npy"))
    assert len(found.warnings) == 1 and words in found.warnings[0]
    with pytest.warns(UserWarning, match="kernel"):
        read_kernel(str(tmp_path / "k.npy"))
    with pytest.warns(UserWarning, match="kernel: "):
        make_kernel(torch.from_numpy(kernel))


def test_even_sides_with_a_centre_are_no_reason_for_a_warning(tmp_path):
    np.save(tmp_path / "k.npy", bump(24, 24, 12, 12))
    found = load_kernel(str(tmp_path / "k.npy"))
    assert same(found.values) and not found.warnings and "its centre at row 12 and column 12" in found.words


def test_colour_and_negative_values_are_said(tmp_path):
    colours = np.stack([255 * bump(std=s) for s in (1.4, 1.5, 1.6)], -1)
    Image.fromarray(colours.round().astype(np.uint8)).save(tmp_path / "k.png")
    found = load_kernel(str(tmp_path / "k.png"))
    assert "the mean of its 3 channels" in found.words and same(found.values, atol=5e-3)
    np.save(tmp_path / "k.npy", np.array([[0, -1, 0], [-1, 8, -1], [0, -1, 0]]) / 4)
    found = load_kernel(str(tmp_path / "k.npy"))
    assert "negative values kept (1e+02 % of the sum)" in found.words and float(found.values.min()) == -0.25


def test_several_pages_are_no_kernel(tmp_path):
    tifffile.imwrite(tmp_path / "k.tif", np.ones((3, 9, 9), np.float32), photometric="minisblack")
    with pytest.raises(ValueError, match=r"kernel \S+k\.tif: has 3 pages, expected one"):
        load_kernel(str(tmp_path / "k.tif"))


@pytest.mark.parametrize("border", ["valid", "circular"])
@pytest.mark.parametrize("side", [20, 21, 33, 40, 41, 64])
def test_a_kernel_as_large_as_the_picture_is_cut_to_what_matters(border, side):
    r, c = np.mgrid[:side, :side] - side // 2
    kernel = make_kernel(torch.from_numpy((1 + (r**2 + c**2)) ** -3.0))
    task, y = Deblur(kernel, border=border), torch.rand(1, 1, 40, 32, generator=torch.Generator().manual_seed(0))
    model = load_pretrained("ridge-gray-small")
    restored = restore_picture(y[0], task=task, noise=0.05, regularizer=model, gap_tol=0.5, max_iter=5)
    said = [n.text() for n in restored.notes if n.topic == "kernel"]
    assert bool(said) == (side > 16) and restored.picture.pixels.shape == (1, 40, 32)
    fitted, lost = task.fitted((40, 32))
    assert lost <= 1e-3 and float(fitted.sum()) == pytest.approx(1)
    assert torch.equal(fitted[0, 0], fitted[0, 0].flip(0, 1)) and max(fitted.shape) <= 17


def test_what_cannot_be_cut_is_refused_and_what_hurts_is_warned_about():
    y = torch.zeros(1, 1, 24, 24)
    with pytest.raises(ValueError, match="kernel: got 31 x 31 pixels, expected at most the 24 x 24 of the picture"):
        Deblur(make_kernel(torch.ones(31, 31))).pose(y)
    wide = torch.ones(25, 25)
    wide[5:20, 5:20] = 100
    with pytest.warns(UserWarning, match="subtract this background"):
        task = Deblur(make_kernel(wide))
    (note,) = task.notes(task.pose(y))
    assert note.warning and "25 x 25 is cut to 23 x 23, leaving out 0.4 % of it" in note.text()


@pytest.mark.parametrize("words", ["disk:3", "missing.h5:/psf", "missing.png"])
def test_words_that_are_neither_a_kernel_nor_a_file_are_told_what_kernels_are(words):
    with pytest.raises(ValueError, match="gaussian:STD"):
        read_kernel(words)
