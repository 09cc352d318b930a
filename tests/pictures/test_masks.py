"""Masks as people have them: of any kind of file, any pair of values, gray, or in the opacity."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from icgn.pictures import Inpaint, load_mask, read_mask, restore_picture
from icgn.pictures.masks import percent
from icgn.regularizers import load_pretrained

KNOWN = np.ones((12, 10), dtype=bool)
KNOWN[3:6, 2:9] = False


def gray(path):
    """Soft edges: the threshold is 127.5."""
    soft = np.where(KNOWN, 255, 0).astype(np.uint8)
    soft[0, 0], soft[3, 2] = 128, 127
    Image.fromarray(soft).save(path)


def opacity(path):
    pixels = np.full((*KNOWN.shape, 4), 30, dtype=np.uint8)
    pixels[..., 3] = np.where(KNOWN, 255, 0)
    Image.fromarray(pixels).save(path)


def both(path):
    """White strokes on black, and a transparent corner."""
    pixels = np.full((*KNOWN.shape, 4), 255, dtype=np.uint8)
    pixels[..., :3] = np.where(KNOWN, 255, 0)[..., None]
    pixels[5:6, 2:9, :] = (255, 255, 255, 0)
    Image.fromarray(pixels).save(path)


def cut_out(path):
    """A photograph out of which parts were cut."""
    pixels = np.random.default_rng(0).integers(0, 256, (*KNOWN.shape, 4)).astype(np.uint8)
    pixels[..., 3] = np.where(KNOWN, 255, 0)
    Image.fromarray(pixels).save(path)


def palette(path):
    Image.fromarray(np.where(KNOWN, 255, 0).astype(np.uint8)).convert("P").save(path)


KINDS = {
    "bool.png": lambda path: Image.fromarray(KNOWN).save(path),
    "bool.npy": lambda path: np.save(path, KNOWN),
    "one.png": lambda path: Image.fromarray(KNOWN.astype(np.uint8)).save(path),
    "255.png": lambda path: Image.fromarray(np.where(KNOWN, 255, 0).astype(np.uint8)).save(path),
    "65535.png": lambda path: Image.fromarray(np.where(KNOWN, 65535, 0).astype(np.uint16)).save(path),
    "labels.npy": lambda path: np.save(path, np.where(KNOWN, 2, 1)),
    "signed.npy": lambda path: np.save(path, np.where(KNOWN, 1.0, -1.0)),
    "float.tif": lambda path: tifffile.imwrite(path, KNOWN.astype(np.float32)),
    "int.tif": lambda path: tifffile.imwrite(path, KNOWN.astype(np.int16)),
    "gray.png": gray,
    "colour.png": lambda path: Image.fromarray(np.where(KNOWN, 255, 0).astype(np.uint8)).convert("RGB").save(path),
    "compressed.jpg": lambda path: Image.fromarray(np.where(KNOWN, 255, 0).astype(np.uint8)).save(path, quality=95),
    "opacity.png": opacity,
    "both.png": both,
    "cut out.png": cut_out,
    "palette.png": palette,
    "x.bmp": lambda path: Image.fromarray(KNOWN).save(path),
    "x.pbm": lambda path: Image.fromarray(KNOWN).save(path),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_same_pixels_are_known_in_any_kind_of_mask(tmp_path, name):
    KINDS[name](tmp_path / name)
    mask = load_mask(tmp_path / name)
    assert torch.equal(mask.known, torch.from_numpy(KNOWN)[None])
    assert mask.words.startswith("21 of 120 pixels (17.5 %) are filled in: ") and not mask.doubt
    assert torch.equal(read_mask(tmp_path / name, invert=name != "both.png"), mask.known ^ (name != "both.png"))


def test_the_threshold_is_said(tmp_path):
    gray(tmp_path / "m.png")
    assert "those up to 127.5, half way from 0 to 255" in load_mask(tmp_path / "m.png").words
    assert "those above 127.5" in load_mask(tmp_path / "m.png", invert=True).words


def test_the_noise_of_compression_around_white_hides_nothing(tmp_path):
    values = np.random.default_rng(0).integers(250, 256, (9, 9)).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "m.png")
    assert load_mask(tmp_path / "m.png").doubt == "hides no pixel: there is nothing to fill in"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 4)), "hides every pixel: all are 0"),
        (np.full((4, 4), np.nan), "got 16 NaN or infinite values"),
        (np.zeros((3, 4, 4, 4)), "pages"),
        (np.array([["a"]]), "cannot be read"),
    ],
)
def test_masks_that_cannot_be_used_say_why(tmp_path, values, message):
    np.save(tmp_path / "m.npy", values)
    with pytest.raises(ValueError, match=message) as error:
        load_mask(tmp_path / "m.npy")
    assert str(error.value).startswith(f"mask {tmp_path / 'm.npy'}: ")


def test_percentages_never_round_to_all_or_nothing():
    assert [percent(v) for v in (0, 1e-5, 0.0774, 0.5, 1 - 1e-5, 1)] == [
        "0 %", "less than 0.1 %", "7.7 %", "50 %", "more than 99.9 %", "100 %"
    ]  # fmt: skip


def test_how_many_pixels_are_filled_is_a_note_of_the_result():
    model, y = load_pretrained("ridge-gray-small"), torch.rand(1, 12, 10, generator=torch.Generator().manual_seed(0))
    task = Inpaint(torch.from_numpy(KNOWN))
    restored = restore_picture(y, task=task, noise=0.02, regularizer=model, gap_tol=0.5)
    assert [n.text() for n in restored.notes if n.topic == "mask"] == [
        "21 of 120 pixels (17.5 %) are filled in: those of the mask"
    ]
