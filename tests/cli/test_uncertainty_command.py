"""``icgn denoise --uncertainty``: a picture of how far pixels may be from the truth."""

import numpy as np
import pytest
import tifffile

from icgn.datasets import bundled

LEVEL = 25


@pytest.fixture
def noisy(tmp_path):
    """A file of a photograph with white noise, and the photograph in gray levels."""
    clean = 255 * bundled(gray=True).find("camera").image[0, 100:196, 180:276].numpy()
    drawn = clean + LEVEL * np.random.default_rng(0).standard_normal(clean.shape)
    tifffile.imwrite(tmp_path / "in.tif", drawn.round().clip(0, 255).astype(np.uint8), photometric="minisblack")
    return tmp_path / "in.tif", clean


def test_the_map_covers_most_errors(tmp_path, run, noisy):
    path, clean = noisy
    options = ("--sigma", LEVEL, "--uncertainty", tmp_path / "map.tif")
    result = run("denoise", path, "-o", tmp_path / "o.tif", *options)
    assert result.exit_code == 0, result.stderr
    assert "90% of the errors were smaller on 32 photographs" in result.stderr
    half, error = tifffile.imread(tmp_path / "map.tif"), tifffile.imread(tmp_path / "o.tif") - clean
    assert half.shape == clean.shape and 2 < half.mean() < 40
    assert 0.8 < (abs(error) < half).mean() < 0.98
    png = run("denoise", path, "-o", tmp_path / "o.tif", *options[:3], tmp_path / "map.png")
    assert png.exit_code == 0 and "black is 0 and white" in png.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--model", "tv", "--sigma", 25), "expected one whose errors are calibrated"),
        (("--sigma", 120), "where the errors are calibrated"),
        (("--noise", "correlated:20"), "expected white noise"),
        (("--sigma", 25, "--weight", 2), "expected 1, for which errors are calibrated"),
    ],
)
def test_what_is_not_calibrated_is_refused(tmp_path, run, noisy, options, words):
    result = run("denoise", noisy[0], "-o", tmp_path / "o.tif", "--uncertainty", tmp_path / "map.png", *options)
    assert result.exit_code == 1 and words in result.stderr.replace("\n", " ")
    assert (tmp_path / "o.tif").exists() and not (tmp_path / "map.png").exists()


def test_it_is_of_one_picture(tmp_path, run, noisy):
    result = run("denoise", noisy[0], noisy[0], "-o", tmp_path / "out", "--uncertainty", tmp_path / "map.png")
    assert result.exit_code == 2
    result = run("denoise", noisy[0], "-o", tmp_path / "o.tif", "--uncertainty", noisy[0])
    assert result.exit_code == 2 and "would overwrite a file that is read" in result.stderr.replace("\n", " ")


def test_colour_has_a_map_of_the_mean_of_its_channels(tmp_path, run):
    clean = 255 * bundled().find("astronaut").image[:, 100:164, 180:244].permute(1, 2, 0).numpy()
    drawn = clean + LEVEL * np.random.default_rng(0).standard_normal(clean.shape)
    tifffile.imwrite(tmp_path / "in.tif", drawn.round().clip(0, 255).astype(np.uint8), photometric="rgb")
    options = ("--sigma", LEVEL, "--uncertainty", tmp_path / "map.tif")
    result = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", *options)
    assert result.exit_code == 0, result.stderr
    half, error = tifffile.imread(tmp_path / "map.tif"), tifffile.imread(tmp_path / "o.tif") - clean
    assert half.shape == clean.shape[:2] and 2 < half.mean() < 40
    assert 0.75 < (abs(error) < half[..., None]).mean() < 0.98
