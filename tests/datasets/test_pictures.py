import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from icgn.datasets import Picture, PictureError, picture, read_picture, write_picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY_PROFILE = SRGB[:16] + b"GRAY" + SRGB[20:]


def levels(shape, bits, seed=0):
    return np.random.default_rng(seed).integers(0, 2**bits, shape).astype(np.uint8 if bits <= 8 else np.uint16)


def random_picture(channels, bits, alpha=False, size=(11, 17), seed=0, **kept):
    top = 2**bits - 1
    planes = torch.from_numpy(levels((channels + alpha, *size), bits, seed).astype(np.float32)) / top
    return Picture(planes[:channels], alpha=planes[channels:] if alpha else None, bits=bits, **kept)


def assert_same(a, b):
    assert a.bits == b.bits and torch.equal(a.pixels, b.pixels)
    assert (a.alpha is None) == (b.alpha is None)
    if a.alpha is not None:
        assert torch.equal(a.alpha, b.alpha)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bytes(width, height, bits=8, colour=0, data=b""):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def exif_bytes(orientation=None, maker=None):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    if maker:
        exif[271] = maker
    return exif.tobytes()


# Round trips


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".png", ".tif", ".TIFF", ".PNG"]),
    channels=st.sampled_from([1, 3]),
    bits=st.sampled_from([8, 16]),
    alpha=st.booleans(),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 99),
)
def test_lossless_formats_keep_every_level(tmp_path, suffix, channels, bits, alpha, size, seed):
    original = random_picture(channels, bits, alpha, size, seed)
    write_picture(tmp_path / f"a{suffix}", original)
    assert_same(read_picture(tmp_path / f"a{suffix}"), original)


@pytest.mark.parametrize("channels", [1, 3])
def test_all_16_bit_levels_survive_and_others_can_read_them(tmp_path, channels):
    first = torch.arange(65536, dtype=torch.float32).reshape(1, 256, 256) / 65535
    ramp = torch.cat([first, first.flip(1), first.flip(2)])[:channels]
    for name in ("a.png", "a.tif"):
        write_picture(tmp_path / name, Picture(ramp, bits=16))
        assert torch.equal(read_picture(tmp_path / name).pixels, ramp)
    read = tifffile.imread(tmp_path / "a.tif")
    assert read.dtype == np.uint16 and np.array_equal(
        read.reshape(256, 256, channels)[..., 0].ravel(), np.arange(65536)
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_close_and_8_bit(tmp_path, channels):
    first = torch.linspace(0, 1, 48 * 64).reshape(1, 48, 64)
    smooth = torch.cat([first, 1 - first, first / 2])[:channels]
    write_picture(tmp_path / "a.jpg", Picture(smooth, bits=16))
    back = read_picture(tmp_path / "a.jpg")
    assert back.bits == 8 and back.pixels.shape == smooth.shape
    assert (back.pixels - smooth).abs().max() < 4 / 255


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_three_equal_channels_are_gray_and_are_written_as_three(tmp_path, suffix):
    gray = levels((9, 11), 8)
    colour = np.stack([gray] * 3, -1)
    if suffix == ".tif":
        tifffile.imwrite(tmp_path / "a.tif", colour, photometric="rgb")
    else:
        Image.fromarray(colour).save(tmp_path / f"a{suffix}", icc_profile=SRGB)
    with Image.open(tmp_path / f"a{suffix}") as stored:
        expected = np.asarray(stored)
    read = read_picture(tmp_path / f"a{suffix}")
    assert read.as_rgb and np.array_equal((read.pixels * 255).round().numpy(), expected[None, ..., 0])
    write_picture(tmp_path / "b.png", read)
    with Image.open(tmp_path / "b.png") as written:
        assert written.mode == "RGB" and np.array_equal(np.asarray(written), expected)
        assert written.info.get("icc_profile") == read.icc and (read.icc == SRGB) == (suffix != ".tif")
    assert not read_picture(written_gray(tmp_path / "c.png", gray)).as_rgb


def written_gray(path, gray):
    Image.fromarray(gray).save(path)
    return path


def test_rounding_is_to_the_nearest_level_and_clamped(tmp_path):
    values = torch.tensor([-3.0, -0.001, 0.4 / 255, 0.6 / 255, 100.49 / 255, 100.51 / 255, 1.2, 9.0])
    write_picture(tmp_path / "a.png", Picture(values.reshape(1, 1, -1)))
    assert np.asarray(Image.open(tmp_path / "a.png")).ravel().tolist() == [0, 0, 0, 1, 100, 101, 255, 255]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_profile_and_exif_survive(tmp_path, suffix, channels):
    profile = SRGB if channels == 3 else GRAY_PROFILE
    original = random_picture(channels, 8, icc=profile, exif=exif_bytes(maker="Zeiss"))
    write_picture(tmp_path / f"a{suffix}", original)
    back = read_picture(tmp_path / f"a{suffix}")
    assert back.icc == profile
    exif = Image.Exif()
    exif.load(back.exif)
    assert exif[271] == "Zeiss" and 0x0112 not in exif


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_density_survives_and_turns_with_the_picture(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"a{suffix}"
    Image.fromarray(levels((8, 12), 8)).save(file, dpi=(300, 150), exif=exif)
    expected = (300, 150) if orientation == 1 else (150, 300)
    read = read_picture(file)
    # PNG holds whole pixels per metre: an error of 0.0127 per inch each time.
    assert read.dpi == pytest.approx(expected, abs=0.013)
    for target in ("b.png", "b.jpg", "b.tif"):
        write_picture(tmp_path / target, read)
        assert read_picture(tmp_path / target).dpi == pytest.approx(expected, abs=0.026)
        with Image.open(tmp_path / target) as image:
            assert image.info["dpi"] == pytest.approx(expected, abs=0.026)


def test_a_density_that_makes_no_sense_is_none(tmp_path):
    assert read_picture(written_gray(tmp_path / "a.png", levels((8, 8), 8))).dpi is None
    file = tmp_path / "a.tif"
    for resolution, unit, expected in [
        ((0, 1), "INCH", None),
        ((40, 40), "NONE", None),
        ((100, 50), "CENTIMETER", (254, 127)),
    ]:
        tifffile.imwrite(file, levels((8, 8), 8), resolution=resolution, resolutionunit=unit)
        assert read_picture(file).dpi == (None if expected is None else pytest.approx(expected))


def test_16_bit_png_keeps_profile_and_exif(tmp_path):
    write_picture(tmp_path / "a.png", random_picture(3, 16, True, icc=SRGB, exif=exif_bytes(maker="Zeiss")))
    back = read_picture(tmp_path / "a.png")
    assert back.bits == 16 and back.icc == SRGB and back.exif is not None
    with Image.open(tmp_path / "a.png") as image:
        image.verify()


def test_profile_of_another_colour_space_is_left_out(tmp_path):
    write_picture(tmp_path / "a.png", random_picture(1, 8, icc=SRGB))
    assert read_picture(tmp_path / "a.png").icc is None


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_orientation_is_applied_once(tmp_path, orientation, suffix):
    # Constant quadrants survive JPEG.
    blocks = np.kron(
        np.array([[[10, 0, 0], [250, 0, 0], [0, 0, 0]], [[0, 250, 0], [0, 0, 250], [250, 250, 0]]]),
        np.ones((16, 16, 1)),
    )
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    image = Image.fromarray(blocks.astype(np.uint8))
    image.save(
        source, exif=exif_bytes(orientation, "Zeiss"), **({"quality": 95, "subsampling": 0} if suffix == ".jpg" else {})
    )
    with Image.open(source) as stored:
        upright = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    read = read_picture(source)
    assert np.array_equal((read.pixels * 255).round().byte().permute(1, 2, 0).numpy(), upright)
    write_picture(target, read)
    with Image.open(target) as stored:
        assert stored.getexif().get(0x0112, 1) == 1 and stored.size == upright.shape[1::-1]
    assert (read_picture(target).pixels - read.pixels).abs().max() < 6 / 255


@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_of_16_bit_colour(tmp_path, orientation):
    raw = levels((5, 8, 3), 16)
    tifffile.imwrite(tmp_path / "a.tif", raw, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    upright = np.rot90(raw, {3: 2, 6: -1}[orientation])
    assert np.array_equal(
        (read_picture(tmp_path / "a.tif").pixels.double() * 65535).round().permute(1, 2, 0).numpy(), upright
    )


# Unusual files


def test_palette_with_and_without_transparency(tmp_path):
    rgb = Image.fromarray(levels((9, 7, 3), 8) // 128 * 128)
    palette = rgb.quantize(8, dither=Image.Dither.NONE)
    expected = np.asarray(palette.convert("RGB"))
    palette.save(tmp_path / "a.png")
    palette.save(tmp_path / "b.png", transparency=0)
    a, b = read_picture(tmp_path / "a.png"), read_picture(tmp_path / "b.png")
    assert a.alpha is None and np.array_equal((a.pixels * 255).round().byte().permute(1, 2, 0).numpy(), expected)
    assert torch.equal(b.pixels, a.pixels)
    assert np.array_equal(b.alpha[0].numpy() == 0, np.asarray(palette) == 0)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_shallow_gray_png_keeps_its_intensities(tmp_path, bits):
    top = 2**bits - 1
    row = np.arange(8) % (top + 1)
    packed = np.packbits(np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :].ravel()).tobytes()
    (tmp_path / "a.png").write_bytes(png_bytes(8, 1, bits, 0, b"\0" + packed))
    assert torch.allclose(read_picture(tmp_path / "a.png").pixels[0, 0], torch.from_numpy(row / top).float())


def test_tiff_bilevel_inverted_palette_12_bit_planar_and_premultiplied(tmp_path):
    file = tmp_path / "a.tif"
    bits = levels((8, 16), 1)
    Image.fromarray(bits * 255).convert("1").save(file)
    assert np.array_equal(read_picture(file).pixels[0].numpy(), bits)
    gray = levels((6, 7), 8)
    tifffile.imwrite(file, gray, photometric="miniswhite")
    assert np.array_equal((read_picture(file).pixels[0] * 255).round().numpy(), 255 - gray)
    Image.fromarray(levels((9, 7, 3), 8)).quantize(8).save(file)
    with Image.open(file) as stored:
        expected = np.asarray(stored.convert("RGB"))
    assert np.array_equal((read_picture(file).pixels * 255).round().permute(1, 2, 0).numpy(), expected)
    deep = levels((6, 8), 12)
    tifffile.imwrite(file, deep, bitspersample=12, photometric="minisblack")
    assert np.allclose(read_picture(file).pixels[0].numpy(), deep / 4095)
    planar = levels((3, 6, 7), 16)
    tifffile.imwrite(file, planar, photometric="rgb", planarconfig="separate")
    assert np.array_equal((read_picture(file).pixels.double() * 65535).round().numpy(), planar)
    premultiplied = np.tile(np.array([100, 40, 0, 100], np.uint8), (4, 4, 1))
    tifffile.imwrite(file, premultiplied, photometric="rgb", extrasamples=["assocalpha"])
    read = read_picture(file)
    # 255 * 40 / 100 is 102.
    expected = torch.tensor([255.0, 102.0, 0.0])[:, None, None].expand(3, 4, 4) / 255
    assert torch.equal(read.pixels, expected) and torch.allclose(read.alpha, torch.tensor(100 / 255))


def test_tiff_thumbnail_page_is_no_second_picture(tmp_path):
    image = levels((20, 20), 8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(image, photometric="minisblack")
        tiff.write(image[::2, ::2].copy(), photometric="minisblack", subfiletype=1)
    assert read_picture(tmp_path / "a.tif").pixels.shape == (1, 20, 20)


def refused(path, *words):
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_what_cannot_be_read_rightly_is_refused(tmp_path):
    Image.new("CMYK", (9, 9)).save(tmp_path / "cmyk.jpg")
    Image.new("CMYK", (9, 9)).save(tmp_path / "cmyk.tif")
    tifffile.imwrite(tmp_path / "complex.tif", np.zeros((9, 9), np.complex64))
    tifffile.imwrite(tmp_path / "nan.tif", np.full((9, 9), np.nan, np.float32))
    tifffile.imwrite(
        tmp_path / "bands.tif", np.zeros((9, 9, 4), np.uint8), extrasamples=["unspecified"], photometric="rgb"
    )
    tifffile.imwrite(tmp_path / "pages.tif", np.zeros((3, 9, 9), np.uint8), photometric="minisblack")
    Image.new("L", (9, 9)).save(tmp_path / "image.gif")
    frames = [Image.new("L", (9, 9), level) for level in (0, 99)]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    refused(tmp_path / "moving.png", "animated")
    refused(tmp_path / "cmyk.jpg", "CMYK")
    refused(tmp_path / "cmyk.tif", "SEPARATED")
    refused(tmp_path / "complex.tif", "COMPLEXIEEEFP", "magnitudes")
    refused(tmp_path / "nan.tif", "no pixel has data")
    refused(tmp_path / "bands.tif", "4 channels", "open_stack")
    refused(tmp_path / "pages.tif", "3 pages", "open_stack", "create_stack")
    refused(tmp_path / "image.gif", "not a PNG", "a GIF", "convert it")
    refused(tmp_path / "missing.png", "no such file")
    refused(tmp_path, "directory")


@pytest.mark.parametrize("name", ["a.png", "b.png", "a.jpg", "a.tif"])
def test_damaged_files_are_refused_by_name(tmp_path, name):
    file = tmp_path / name
    write_picture(file, random_picture(3, 16 if name == "b.png" else 8, size=(64, 64)))
    whole = file.read_bytes()
    for length in (0, 1, 12, 30, len(whole) // 3, len(whole) - 300):
        file.write_bytes(whole[:length])
        refused(file, "empty" if length == 0 else "")
    file.write_text("this is a text, not a picture")
    refused(file, "not a PNG")


def test_bombs_are_refused_before_decoding(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png_bytes(100_000, 100_000))
    (tmp_path / "deep.png").write_bytes(png_bytes(30_000, 30_000, 16, 2))
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "JPEG")
    jpeg = bytearray(stream.getvalue())
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    (tmp_path / "a.jpg").write_bytes(bytes(jpeg))
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        tiff.pages[0].tags[256].overwrite(60_000)
        tiff.pages[0].tags[257].overwrite(60_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("a.png", "deep.png", "a.jpg", "a.tif"):
            refused(tmp_path / name, "pixels", "bomb")
    write_picture(tmp_path / "small.png", random_picture(1, 8, size=(10, 10)))
    monkeypatch.setattr(picture, "PIXEL_LIMIT", 99)
    refused(tmp_path / "small.png", "10 x 10", "at most 99")


# Writing


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("stage", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, suffix, stage):
    file = tmp_path / f"a{suffix}"
    write_picture(file, random_picture(1, 8))
    before = file.read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    if stage == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    for target in (file, tmp_path / f"new{suffix}"):
        with pytest.raises(PictureError, match=rf"{target.name}: cannot be written: no space"):
            write_picture(target, random_picture(1, 8, seed=1))
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        write_picture(tmp_path / "a.png", random_picture(1, 8))
    assert not list(tmp_path.iterdir())


def test_overwriting_keeps_permissions_and_links(tmp_path):
    file, link = tmp_path / "a.png", tmp_path / "link.png"
    write_picture(file, random_picture(1, 8))
    file.chmod(0o640)
    link.symlink_to(file)
    changed = random_picture(1, 8, seed=3)
    write_picture(link, changed)
    assert link.is_symlink() and file.stat().st_mode & 0o777 == 0o640
    assert_same(read_picture(file), changed)


def test_what_cannot_be_written_is_refused(tmp_path):
    bad = torch.full((1, 4, 4), torch.nan)
    (tmp_path / "file").write_text("x")
    cases = [
        (tmp_path / "a.png", Picture(bad), "16 NaN"),
        (tmp_path / "a.png", Picture(torch.zeros(1, 4, 4), alpha=bad), "alpha"),
        (tmp_path / "a.xyz", random_picture(1, 8), "expected one of .png"),
        (tmp_path / "a.jpg", random_picture(3, 8, alpha=True), "alpha"),
        (tmp_path / "file" / "a.png", random_picture(1, 8), "not a directory"),
        (tmp_path / "none" / "a.png", random_picture(1, 8), "no such file"),
        (tmp_path / "wide.jpg", Picture(torch.zeros(1, 1, 70_000)), "wide.jpg"),
    ]
    for path, unwritable, word in cases:
        with pytest.raises(PictureError) as caught:
            write_picture(path, unwritable)
        assert str(path) in str(caught.value) and word in str(caught.value)
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


def test_opaque_alpha_can_be_written_as_jpeg(tmp_path):
    write_picture(tmp_path / "a.jpg", Picture(torch.zeros(3, 8, 8), alpha=torch.ones(1, 8, 8)))
    assert read_picture(tmp_path / "a.jpg").alpha is None


@pytest.mark.parametrize(
    "arguments",
    [
        {"pixels": torch.zeros(4, 4)},
        {"pixels": torch.zeros(2, 4, 4)},
        {"pixels": torch.zeros(1, 0, 4)},
        {"pixels": torch.zeros(1, 4, 4, dtype=torch.uint8)},
        {"pixels": torch.zeros(1, 4, 4), "alpha": torch.zeros(1, 4, 5)},
        {"pixels": torch.zeros(1, 4, 4), "bits": 12},
    ],
)
def test_pictures_check_their_parts(arguments):
    with pytest.raises(ValueError, match="expected"):
        Picture(**arguments)
