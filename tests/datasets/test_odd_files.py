"""Files that are odd but in use: DICOM of every kind that pydicom ships, truth values, palettes and turned pages."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from icgn.datasets import PictureError, create_stack, open_stack


def dicom_file(name):
    pydicom = pytest.importorskip("pydicom")
    path = Path(pydicom.__file__).parent / "data" / "test_files" / f"{name}.dcm"
    return path if path.is_file() else pytest.skip(f"pydicom ships no {name}")


def copied(source, target):
    with open_stack(source) as stack, create_stack(target, stack) as writer:
        for i in range(len(stack)):
            page = stack.page(i)
            writer.write(page.values, page.alpha)
        writer.finish()
    return target


def samples(path):
    with open_stack(path) as stack:
        return np.stack([page.numpy() for page in stack])


@pytest.mark.parametrize(
    ("compressed", "plain"),
    [
        ("MR_small_jpeg_ls_lossless", "MR_small"),
        ("MR_small_RLE", "MR_small"),
        ("MR_small_jp2klossless", "MR_small"),
        ("SC_rgb_jpeg_gdcm", "SC_rgb_rle"),
    ],
)
def test_compressed_dicom_has_the_samples_of_the_plain_file(tmp_path, compressed, plain):
    # The plain ones begin with the header of a TIFF, so that other programs open them too.
    source = dicom_file(compressed)
    expected = samples(dicom_file(plain))
    assert np.array_equal(samples(source), expected)
    assert np.array_equal(samples(copied(source, tmp_path / "out.dcm")), expected)


@pytest.mark.parametrize("name", ["JPEG-lossy", "JPEGLSNearLossless_16", "image_dfl"])
def test_dicom_of_rare_compressions_is_read(name):
    found = samples(dicom_file(name))
    assert found.size and found.min() < found.max()


def test_dicom_of_one_bit_keeps_its_frames(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    source = dicom_file("liver_1frame")
    target = copied(source, tmp_path / "out.dcm")
    before, after = (pydicom.dcmread(p) for p in (source, target))
    assert before.BitsAllocated == after.BitsAllocated == 1 and before.pixel_array.any()
    assert np.array_equal(before.pixel_array, after.pixel_array)


@pytest.mark.parametrize("name", ["ExplVR_LitEndNoMeta", "meta_missing_tsyntax"])
def test_dicom_that_lacks_what_is_needed_is_refused_in_words(name):
    with pytest.raises(PictureError, match=r"without its preamble|does not say what its pixels are"):
        open_stack(dicom_file(name))


def test_truth_values_of_tifffile_are_what_was_written(tmp_path):
    truth = np.random.default_rng(0).random((13, 18)) > 0.3
    tifffile.imwrite(tmp_path / "truth.tif", truth)
    assert np.array_equal(samples(tmp_path / "truth.tif")[0, 0], 255.0 * truth)
    # Of other programs 0 is white where the file says so.
    tifffile.imwrite(tmp_path / "fax.tif", truth, software="a scanner")
    assert np.array_equal(samples(tmp_path / "fax.tif")[0, 0], 255.0 * ~truth)


@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "palette", "colormap": np.arange(768, dtype=np.uint16).reshape(3, 256) * 85},
        {"extratags": [(274, 3, 1, 6, True)]},
        {},
    ],
)
@pytest.mark.parametrize("pages", [1, 3])
def test_the_shape_that_a_description_says_is_that_of_the_pages(tmp_path, options, pages):
    shape = (13, 18) if pages == 1 else (pages, 13, 18)
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    tifffile.imwrite(tmp_path / "in.tif", array, **({"photometric": "minisblack"} | options))
    copied(tmp_path / "in.tif", tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        stored = (len(file.pages), *file.pages[0].shape)
        said = json.loads(file.pages[0].description)["shape"]
        assert tuple(said) == stored[pages == 1 :] and file.asarray().shape == tuple(said)
