"""Stacks restored as one volume through the command line."""

import json
import os
import signal

import numpy as np
import pytest
import scipy.ndimage
import tifffile
import torch
from weak_model import in_place_of_all

from icgn.cli import volumes as picture_volumes
from icgn.functionals.noise import White
from icgn.pictures import denoise, volumes
from icgn.regularizers import VolumeRegularizer

SHAPE = (20, 24, 32)


@pytest.fixture(autouse=True)
def model(monkeypatch):
    """An untrained model that removes noise visibly, in the place of all others."""
    return in_place_of_all(monkeypatch, filters=6, strength=3.0)


def ball():
    """A bright ball, and with noise of 0.06, in [0, 1]."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    clean = np.where(z**2 + y**2 + x**2 < 0.5, 0.8, 0.2)
    return clean, clean + 0.06 * np.random.default_rng(0).standard_normal(clean.shape)


def stored(values, low=100, span=500):
    return np.clip(low + span * values, 0, 65535).round().astype(np.uint16)


def rms(a, b):
    return float(np.sqrt(np.mean((a.astype(float) - b) ** 2)))


@pytest.fixture
def solid(tmp_path):
    clean, noisy = (stored(v) for v in ball())
    tifffile.imwrite(tmp_path / "clean.tif", clean, photometric="minisblack")
    tifffile.imwrite(tmp_path / "in.tif", noisy, photometric="minisblack")
    return clean, noisy


def test_a_volume_is_restored_at_once_and_better_than_its_slices(tmp_path, run, solid):
    clean, _ = solid
    options = ("--reference", tmp_path / "clean.tif", "--json", tmp_path / "o.json")
    run("denoise", tmp_path / "in.tif", "-o", tmp_path / "slices.tif", *options)
    single = json.loads((tmp_path / "o.json").read_text())[0]
    result = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--volume", *options)
    assert result.exit_code == 0
    record = json.loads((tmp_path / "o.json").read_text())[0]
    assert record["converged"] and record["pages"] == 20 and record["distance"] is not None
    assert record["psnr"] > single["psnr"] > single["psnr_before"]
    out = tifffile.imread(tmp_path / "o.tif")
    assert out.shape == clean.shape and out.dtype == clean.dtype
    assert rms(out, clean) < rms(tifffile.imread(tmp_path / "slices.tif"), clean)


def test_a_volume_is_the_minimizer_of_the_joint_problem(tmp_path, run, model):
    noisy = ball()[1].astype(np.float32)
    np.save(tmp_path / "in.npy", noisy)
    assert run("denoise", tmp_path / "in.npy", "-o", tmp_path / "o.npy", "--volume", "--sigma", 15).exit_code == 0
    reg = VolumeRegularizer(model)
    precise = denoise(torch.from_numpy(noisy)[None], 15 / 255, regularizer=reg, range=(0, 1), tol=1e-6)
    assert rms(np.load(tmp_path / "o.npy"), precise.x[0].numpy()) < 1.1e-4


def test_voxels_of_another_depth_are_weighed_and_said(tmp_path, run):
    noisy = (255 * np.clip(ball()[1], 0, 1)).astype(np.uint8)
    about = {"axes": "ZYX", "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(tmp_path / "in.tif", noisy, imagej=True, resolution=(2.0, 2.0), metadata=about)
    result = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--volume")
    assert result.exit_code == 0
    assert "voxels of 2 x 0.5 x 0.5 (Z, Y, X): slices across Z, Y, X count 0.67, 0.17, 0.17" in result.stderr


@pytest.mark.parametrize("rule", ["1.2", "sure", "discrepancy", "poisson"])
def test_a_volume_takes_the_options_of_pictures(tmp_path, run, solid, rule):
    clean, noisy = solid
    options = ("--noise", "poisson:2") if rule == "poisson" else ("--weight", rule)
    result = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--volume", *options)
    assert result.exit_code == 0, result.stderr
    assert rms(tifffile.imread(tmp_path / "o.tif"), clean) < rms(noisy, clean)


def test_counts_keep_their_offset(tmp_path, run):
    counts = np.random.default_rng(0).poisson(100 * ball()[0]).astype(np.uint16) + 1000
    tifffile.imwrite(tmp_path / "in.tif", counts, photometric="minisblack")
    noise = ("--noise", "poisson-gaussian:1,1,1000")
    assert run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--volume", *noise).exit_code == 0
    assert rms(tifffile.imread(tmp_path / "o.tif"), 1000 + 100 * ball()[0]) < 5


COLOUR = (255 * np.random.default_rng(0).random((6, *SHAPE[1:], 3))).astype(np.uint8)
NOISY = stored(ball()[1])
REFUSED = {
    "one picture": (NOISY[0], {"photometric": "minisblack"}, "one picture for a volume"),
    "thin": (NOISY[:2], {"photometric": "minisblack"}, "at least 3 along each axis"),
    "series": (NOISY.reshape(4, 5, *SHAPE[1:]), {"imagej": True, "metadata": {"axes": "TZYX"}}, "along 4 T and 5 Z"),
    "channels": (NOISY[:4], {"imagej": True, "metadata": {"axes": "CYX"}}, "pages along 4 C"),
    "colour": (COLOUR, {"photometric": "rgb"}, "page 1 has colours"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_volume_is_refused_in_words(tmp_path, run, name):
    values, about, words = REFUSED[name]
    tifffile.imwrite(tmp_path / "in.tif", values, **about)
    result = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--volume")
    assert result.exit_code == 1 and words in result.stderr, result.stderr
    assert not (tmp_path / "o.tif").exists()


def test_a_figure_of_a_volume_is_refused(tmp_path, run, solid):
    result = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--volume", "--compare", tmp_path / "f.png")
    assert result.exit_code == 1 and "--compare: got a volume" in result.stderr


# Missing voxels, blur, noise that changes, Ctrl-C


@pytest.mark.parametrize("hidden", ["scratches", "a slice"])
def test_missing_voxels_are_filled_from_all_sides(tmp_path, run, hidden):
    clean, _ = ball()
    known = np.ones(SHAPE, bool)
    known[8:12, 6:9, 4:28] = False
    values = np.where(known, clean, np.nan).astype(np.float32)
    if hidden == "a slice":
        known = np.ones(SHAPE, bool)
        known[9], known[9, 0, 0] = False, True  # a mask that hides all of a page is refused
        values = np.where(known, clean, 1.0).astype(np.float32)
    tifffile.imwrite(tmp_path / "in.tif", values, photometric="minisblack")
    tifffile.imwrite(tmp_path / "mask.tif", known.astype(np.uint8), photometric="minisblack")
    words = ("--mask", tmp_path / "mask.tif", "-o", tmp_path / "o.tif", "--volume", "--yes", "--gap", "1e-3")
    result = run("inpaint", tmp_path / "in.tif", *words)
    assert result.exit_code == 0, result.stderr
    assert f"{int((~known).sum())} of {known.size} pixels of 20 pages" in result.stderr
    filled = tifffile.imread(tmp_path / "o.tif")
    assert filled.dtype == np.float32 and np.abs(filled - clean)[~known].mean() < 0.08


def test_a_blurred_volume_takes_the_kernel_of_its_slices(tmp_path, run):
    clean, _ = ball()
    blurred = scipy.ndimage.gaussian_filter(clean, (0, 1.2, 1.2)) + 0.004 * np.random.default_rng(0).standard_normal(
        SHAPE
    )
    tifffile.imwrite(tmp_path / "in.tif", blurred.astype(np.float32), photometric="minisblack")
    words = ("--kernel", "gaussian:1.2", "--noise", "1", "-o", tmp_path / "o.tif", "--volume", "--gap", "0.05")
    result = run("deblur", tmp_path / "in.tif", *words)
    assert result.exit_code == 0, result.stderr
    assert rms(tifffile.imread(tmp_path / "o.tif"), clean) < 0.8 * rms(blurred, clean)


def test_noise_that_changes_from_slice_to_slice_is_followed(tmp_path, run, model, monkeypatch):
    clean, _ = ball()
    levels = np.linspace(0.02, 0.12, SHAPE[0])
    noisy = clean + levels[:, None, None] * np.random.default_rng(0).standard_normal(SHAPE)
    for name, values in (("in", noisy), ("clean", clean)):
        tifffile.imwrite(tmp_path / f"{name}.tif", values.astype(np.float32), photometric="minisblack")
    known = ("--reference", tmp_path / "clean.tif", "--tol", "1e-6")
    seen, find = [], volumes.slice_levels
    monkeypatch.setattr(volumes, "slice_levels", lambda *a: seen.append(find(*a)) or seen[-1])
    result = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--volume", *known)
    assert result.exit_code == 0 and "it changes from page to page and is followed" in result.stderr
    (found,) = seen
    # Levels stay between those of the pages that were looked at.
    assert np.allclose(found, levels.clip(0.025, 0.115), rtol=0.1)
    y = torch.from_numpy(noisy.astype(np.float32))[None]
    level = float(found.square().mean().sqrt())
    options = {"noise": White(found[None, :, None, None].float()), "regularizer": VolumeRegularizer(model)}
    expected = denoise(y, level, range=(0, 1), tol=1e-6, **options).x[0]
    assert rms(tifffile.imread(tmp_path / "o.tif"), expected.numpy()) < 1e-4


def test_ctrl_c_writes_the_volume_that_was_reached(tmp_path, run, solid, monkeypatch, interruptible):
    class Interrupted(picture_volumes.Watch):
        def __call__(self, event):
            if event.iteration == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return super().__call__(event)

    monkeypatch.setattr(picture_volumes, "Watch", Interrupted)
    result = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--volume", "--tol", "1e-7")
    assert result.exit_code == 130 and not (tmp_path / "o.tif").exists()
    assert "o.not-converged.tif: what was reached" in result.stderr
    written = tifffile.imread(tmp_path / "o.not-converged.tif")
    clean, noisy = solid
    assert rms(written, clean) < rms(noisy, clean)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["clean.tif", "in.tif", "o.not-converged.tif"]
