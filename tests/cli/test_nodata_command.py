"""Pixels that a file says have no data: they change nothing, and stay as they are."""

import numpy as np
import pytest
import tifffile
import torch
from skimage import data

from icgn.datasets import open_stack, read_picture, write_picture
from icgn.pictures import Deblur, Denoise, Inpaint, estimated_level, read_kernel, restore_picture
from icgn.pictures.tasks import with_data

NODATA = (42113, "s", 0, "-9999", True)


def scene():
    """Heights of a landscape, with noise, and a corner without data."""
    clean = 1000 + 2.0 * data.camera()[100:164, 150:214]
    noisy = clean + 20 * np.random.default_rng(0).standard_normal(clean.shape)
    empty = np.zeros(clean.shape, bool)
    empty[:24, :30] = True
    return clean, noisy.astype(np.float32), empty


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.mark.parametrize("number", [-9999.0, np.nan, np.inf])
def test_pixels_without_data_stay_and_the_others_are_as_good(tmp_path, run, number):
    clean, noisy, empty = scene()
    tags = [NODATA] if number == -9999 else []
    tifffile.imwrite(tmp_path / "whole.tif", noisy)
    tifffile.imwrite(tmp_path / "in.tif", np.where(empty, np.float32(number), noisy), extratags=tags)
    found = {}
    for name in ("whole", "in"):
        result = run(
            "denoise", tmp_path / f"{name}.tif", "-o", tmp_path / f"{name}-r.tif", "--model", "ridge-gray-small"
        )
        assert result.exit_code == 0 and " converged " in result.stdout, result.output
        found[name] = tifffile.imread(tmp_path / f"{name}-r.tif").astype(float)
    assert "17.6 % of the pixels have no data, and stay so" in result.stderr
    assert np.array_equal(
        found["in"][empty], np.full(empty.sum(), -9999 if number == -9999 else np.nan), equal_nan=True
    )
    assert rms((found["in"] - clean)[~empty]) < 1.05 * rms((found["whole"] - clean)[~empty])


def test_numbers_that_are_none_do_not_change_what_is_read(tmp_path):
    """Whatever stands there, the range and the pixels are the same."""
    _, noisy, empty = scene()
    found = []
    for number in (-9999.0, 3e7):
        path = tmp_path / f"{number:.0f}.tif"
        tags = [(42113, "s", 0, f"{number:.0f}", True)]
        tifffile.imwrite(path, np.where(empty, np.float32(number), noisy), extratags=tags)
        found.append(read_picture(path))
    assert found[0].range == found[1].range == (noisy[~empty].min(), noisy[~empty].max())
    assert torch.equal(found[0].pixels, found[1].pixels) and torch.equal(found[0].nodata[0], torch.from_numpy(empty))


def test_whole_numbers_with_data_are_never_rounded_to_none(tmp_path):
    values = np.full((9, 12), 3, np.uint8)
    values[0, :4] = 0
    tifffile.imwrite(tmp_path / "in.tif", values, extratags=[(42113, "s", 0, "0", True)], photometric="minisblack")
    picture = read_picture(tmp_path / "in.tif")
    assert picture.nodata.sum() == 4 and torch.equal(picture.pixels, torch.full((1, 9, 12), 3 / 255))
    picture.pixels[:] = 0.2 / 255
    write_picture(tmp_path / "out.tif", picture)
    written = tifffile.imread(tmp_path / "out.tif")
    assert np.array_equal(written == 0, values == 0) and (written[values > 0] == 1).all()


def test_a_kind_that_cannot_say_it_makes_them_black(tmp_path):
    _, noisy, empty = scene()
    np.save(tmp_path / "in.npy", np.where(empty, np.nan, noisy))
    notes = write_picture(tmp_path / "out.png", read_picture(tmp_path / "in.npy"))
    assert any("720 pixels without data become black: PNG cannot say that" in note for note in notes)
    assert (read_picture(tmp_path / "out.png").pixels[0].numpy()[empty] == 0).all()


def test_pages_of_a_stack_may_lack_data_in_part_or_wholly(tmp_path, run):
    _, noisy, empty = scene()
    stack = np.stack([noisy, np.where(empty, np.nan, noisy), np.full_like(noisy, np.nan)])
    tifffile.imwrite(tmp_path / "in.tif", stack, photometric="minisblack")
    result = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "out.tif", "--model", "ridge-gray-small")
    assert result.exit_code == 0, result.output
    assert np.array_equal(np.isnan(tifffile.imread(tmp_path / "out.tif")), np.isnan(stack))
    with open_stack(tmp_path / "in.tif") as opened:
        assert [p if (p := opened.page(i).nodata) is None else int(p.sum()) for i in range(3)] == [None, 720, 64 * 64]


def test_noise_and_tasks_know_pixels_without_data(tmp_path):
    _, noisy, empty = scene()
    np.save(tmp_path / "in.npy", np.where(empty, np.nan, noisy))
    np.save(tmp_path / "whole.npy", noisy)
    lacking, whole = read_picture(tmp_path / "in.npy"), read_picture(tmp_path / "whole.npy")
    levels = [estimated_level(p).value * (p.range[1] - p.range[0]) for p in (lacking, whole)]
    assert levels[0] == pytest.approx(levels[1], rel=0.15)
    assert isinstance(with_data(Denoise(), lacking), Denoise) and with_data(Denoise(), None).smoothing == 1
    task = with_data(Inpaint(torch.ones(64, 64)), lacking)
    assert torch.equal(task.known, ~lacking.nodata)
    with pytest.raises(ValueError, match="y: 720 pixels have no data"):
        restore_picture(lacking, task=Deblur(read_kernel("gaussian:1")), noise=0.02)
