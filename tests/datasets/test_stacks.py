"""Stacks in bounded memory, killed and continued, and files that are damaged."""

import importlib.util
import io
import os
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import tifffile
import torch
from file_kinds import KINDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from icgn.datasets import (
    Extent,
    Picture,
    PictureError,
    create_stack,
    list_pictures,
    measure,
    open_stack,
    plan,
    read_picture,
    survey,
    write_picture,
)
from icgn.datasets.picture import FILE_SUFFIXES


def stack_file(path, pages=6, size=(40, 50), seed=0, **options):
    data = np.random.default_rng(seed).integers(0, 2**16, (pages, *size)).astype(np.uint16)
    tifffile.imwrite(path, data, photometric="minisblack", **options)
    return data


# Memory

_STREAM = """
import resource, sys
import icgn.datasets as d
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with d.open_stack(sys.argv[1]) as stack, d.create_stack(sys.argv[2], stack) as writer:
    extent = d.measure(stack)
    for i in range(writer.done, len(stack)):
        writer.write(stack[i])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, extent.bits)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is read from resource")
def test_a_stack_streams_in_the_memory_of_a_few_pages(tmp_path):
    # 80 MiB of samples; the least bound that leaves room for the libraries, and far from them.
    data = stack_file(tmp_path / "in.tif", 40, (1024, 1024))
    done = subprocess.run(
        [sys.executable, "-c", _STREAM, tmp_path / "in.tif", tmp_path / "out.tif"],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kilobytes, bits = map(int, done.stdout.split())
    assert kilobytes / 1024 < 50 and bits == 16
    assert np.array_equal(tifffile.imread(tmp_path / "out.tif"), data)


# Killed and continued

_SLOW = """
import sys, time
import icgn.datasets as d
with d.open_stack(sys.argv[1]) as stack, d.create_stack(sys.argv[2], stack, key="a") as writer:
    for i in range(writer.done, len(stack)):
        writer.write(stack[i])
        print(i, flush=True)
        time.sleep(0.05)
"""


def test_a_killed_run_is_continued_and_no_page_is_lost_or_twice(tmp_path):
    data = stack_file(tmp_path / "in.tif", 30, description="kept")
    target = tmp_path / "out.tif"
    run = subprocess.Popen(
        [sys.executable, "-c", _SLOW, tmp_path / "in.tif", target], stdout=subprocess.PIPE, text=True
    )
    for _ in range(8):
        assert run.stdout.readline()
    run.kill()
    run.wait()
    run.stdout.close()
    assert not target.exists()
    with open_stack(tmp_path / "in.tif") as stack, create_stack(target, stack, key="a") as writer:
        assert 8 <= writer.done < 30
        for i in range(writer.done, len(stack)):
            writer.write(stack[i])
    assert np.array_equal(tifffile.imread(target), data)
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted(["in.tif", target.name])


def begin(folder, pages, key="a"):
    with open_stack(folder / "in.tif") as stack, create_stack(folder / "out.tif", stack, key=key) as writer:
        for i in range(pages):
            writer.write(stack[i])


def resumed(folder, key="a"):
    with open_stack(folder / "in.tif") as stack, create_stack(folder / "out.tif", stack, key=key) as writer:
        return writer.done


def test_a_page_that_was_cut_off_or_altered_is_written_again(tmp_path):
    stack_file(tmp_path / "in.tif")
    begin(tmp_path, 4)
    (kept,) = tmp_path.glob(".*.pages")
    whole = kept.read_bytes()
    assert resumed(tmp_path) == 4
    kept.write_bytes(whole[:-3])
    assert resumed(tmp_path) == 3
    altered = bytearray(whole)
    altered[-5000] ^= 1
    kept.write_bytes(bytes(altered))
    assert resumed(tmp_path) == 2
    kept.write_bytes(b"something else")
    assert resumed(tmp_path) == 0


def test_pages_of_other_options_or_another_source_are_not_taken(tmp_path):
    stack_file(tmp_path / "in.tif")
    begin(tmp_path, 4)
    assert resumed(tmp_path, key="b") == 0
    begin(tmp_path, 4)
    stack_file(tmp_path / "in.tif", seed=1)
    assert resumed(tmp_path) == 0
    assert [f.name for f in tmp_path.iterdir()] == ["in.tif"]


def test_a_failing_disk_keeps_the_pages_and_the_old_file(tmp_path, monkeypatch):
    data = stack_file(tmp_path / "in.tif")
    (tmp_path / "out.tif").write_bytes(b"old")

    def fail(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(PictureError, match=r"out\.tif: cannot be written: no space"):
        patch.setattr(os, "fsync", fail)
        begin(tmp_path, 6)
    assert (tmp_path / "out.tif").read_bytes() == b"old" and not list(tmp_path.glob("*.part"))
    begin_again = resumed(tmp_path)
    assert begin_again == 6 and np.array_equal(tifffile.imread(tmp_path / "out.tif"), data)


def test_two_runs_do_not_write_to_one_file(tmp_path):
    stack_file(tmp_path / "in.tif")
    with open_stack(tmp_path / "in.tif") as stack, create_stack(tmp_path / "out.tif", stack):
        with pytest.raises(PictureError, match="another run writes to it"):
            create_stack(tmp_path / "out.tif", stack)
        with pytest.raises(PictureError, match="would overwrite the file that is read"):
            create_stack(tmp_path / "in.tif", stack)


def test_wrong_pages_are_refused_by_name(tmp_path):
    stack_file(tmp_path / "in.tif", pages=2, size=(5, 6))
    with open_stack(tmp_path / "in.tif") as stack, create_stack(tmp_path / "out.tif", stack) as writer:
        for bad, word in [
            (torch.zeros(1, 5, 7), r"\(1, 5, 7\) without opacity, expected \(1, 5, 6\)"),
            (torch.full((1, 5, 6), torch.nan), "30 NaN or infinite pixels"),
        ]:
            with pytest.raises(PictureError, match=word):
                writer.write(bad)
        with pytest.raises(PictureError, match="got 0 pages, expected 2"):
            writer.finish()
        for page in stack:
            writer.write(page)
        with pytest.raises(PictureError, match="expected 2 pages"):
            writer.write(stack[0])
    with open_stack(tmp_path / "out.tif") as stack, pytest.raises(IndexError):
        stack[2]


# Between kinds of file


def test_what_another_kind_loses_is_said_once_and_pages_are_never_lost(tmp_path):
    data = stack_file(tmp_path / "in.tif", 3, (9, 10), resolution=(300, 300), resolutionunit="INCH")
    with open_stack(tmp_path / "in.tif") as stack:
        for name, word in [
            ("a.png", "PNG holds one picture, got 3 pages; write .tif or .npy"),
            ("a.dcm", "DICOM is written only from DICOM"),
        ]:
            with pytest.raises(PictureError, match=word):
                create_stack(tmp_path / name, stack)
        with create_stack(tmp_path / "a.npy", stack) as writer:
            for page in stack:
                writer.write(page)
    assert writer.notes == ("not kept in NumPy array: the Exif data, the print resolution",)
    assert np.array_equal(np.load(tmp_path / "a.npy"), data)


@pytest.mark.parametrize(("mode", "method"), [("1", "group4"), ("L", "jpeg"), ("RGB", "jpeg")])
def test_a_compression_that_is_not_written_again_is_said(tmp_path, mode, method):
    Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32) // 128 * 128).convert(mode).save(
        tmp_path / "a.tif", compression=method
    )
    notes = write_picture(tmp_path / "b.tif", read_picture(tmp_path / "a.tif"))
    assert any("lossless compression (deflate)" in note for note in notes), notes
    assert not write_picture(tmp_path / "c.tif", read_picture(tmp_path / "b.tif"))


def test_floats_need_a_range_in_a_kind_that_holds_levels(tmp_path):
    field = np.linspace(-2, 3, 90, dtype=np.float32).reshape(9, 10)
    tifffile.imwrite(tmp_path / "in.tif", field)
    with open_stack(tmp_path / "in.tif") as stack:
        with pytest.raises(PictureError, match="expected a range"):
            create_stack(tmp_path / "a.png", stack)
        extent = measure(stack)
        assert (extent.low, extent.high, extent.range) == (-2, 3, (-2, 3))
        with create_stack(tmp_path / "a.png", stack, range=extent.range) as writer:
            writer.write(stack[0])
    assert writer.notes == ("-2 to 3 are written as the levels 0 to 65535 of PNG",)
    assert np.allclose(read_picture(tmp_path / "a.png").pixels[0] * 5 - 2, field, atol=1e-4)


def test_12_bits_in_16_are_found_by_their_largest_number(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.arange(4096, dtype=np.uint16).reshape(64, 64))
    with open_stack(tmp_path / "a.tif") as stack:
        assert stack.container.bits == 16 and measure(stack).bits == 12 and stack.container.range == (0, 65535)


def test_a_scan_in_its_unit_goes_to_integers_of_that_unit(tmp_path):
    kind = next(k for k in KINDS if k.name.startswith("DICOM, CT"))
    if importlib.util.find_spec("pydicom") is None:
        pytest.skip("pydicom is not installed (extra science)")
    kind.make(tmp_path / "a.dcm")
    with open_stack(tmp_path / "a.dcm") as stack, create_stack(tmp_path / "a.tif", stack) as writer:
        writer.write(stack[0])
        assert stack.container.limits == (-1024, 3071)
    out = tifffile.imread(tmp_path / "a.tif")
    assert out.dtype == np.int16 and np.array_equal(out, kind.load(tmp_path / "a.dcm").astype(int) - 1024)
    assert writer.notes == ("not kept in TIFF: the DICOM attributes",)


def test_arrays_have_the_axes_that_are_said(tmp_path):
    array = np.random.default_rng(0).random((3, 9, 11)).astype(np.float32)
    np.save(tmp_path / "a.npy", array)
    with open_stack(tmp_path / "a.npy") as stack:
        assert (stack.container.axes, len(stack), stack.container.place(2)) == ("ZYX", 3, {"Z": 2})
    with open_stack(tmp_path / "a.npy", axes="SYX") as stack:
        assert len(stack) == 1 and np.array_equal(stack[0], array)
        with create_stack(tmp_path / "b.npy", stack) as writer:
            writer.write(stack[0])
    assert np.array_equal(np.load(tmp_path / "b.npy"), array)
    for axes in ("YX", "ZZX", "zyx", "YXY"):
        with pytest.raises(PictureError, match="axes: got"):
            open_stack(tmp_path / "a.npy", axes=axes)


def test_unnamed_channels_are_not_opacity_and_a_resized_picture_has_no_old_place(tmp_path):
    geo = [(33550, "d", 3, (0.5, 0.5, 0.0), True)]
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 9), np.uint8), extratags=geo, metadata=None)
    picture = read_picture(tmp_path / "a.tif")
    assert not write_picture(tmp_path / "b.tif", picture)
    enlarged = Picture(torch.zeros(1, 16, 18), container=picture.container, range=picture.range)
    assert write_picture(tmp_path / "c.tif", enlarged) == (
        "not kept, as the size or the channels have changed: the GeoTIFF tags",
    )
    with tifffile.TiffFile(tmp_path / "b.tif") as same, tifffile.TiffFile(tmp_path / "c.tif") as other:
        assert 33550 in same.pages[0].tags and 33550 not in other.pages[0].tags


# Damage


def contents():
    """Bytes of files of every kind that is one file, with the suffix and the place inside."""
    found = []
    for kind in KINDS:
        missing = kind.package and importlib.util.find_spec(kind.package) is None
        if kind.suffix != ".zarr" and not missing:
            found.append(kind)
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("whole"), []
    for index, kind in enumerate(contents()):
        path = folder / f"{index}{kind.suffix}"
        kind.make(path)
        with open_stack(f"{path}{kind.inside}") as stack:
            pages = len(stack)
        found.append((kind, path.read_bytes(), pages))
    return found


def read_all(path):
    """All pages of a file, or None if it is refused, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with open_stack(path) as stack:
                return [stack.page(i) for i in range(len(stack))]
        except PictureError as error:
            assert str(path).split(":")[0] in str(error) and "Traceback" not in str(error)
            return None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_refused_by_name_or_read_as_far_as_they_are_whole(tmp_path, capfd, files, data):
    kind, whole, pages = data.draw(st.sampled_from(files))
    content = bytearray(whole)
    cut = data.draw(st.booleans())
    if cut:
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 6))):
            content[data.draw(st.integers(0, min(len(content) - 1, 3000)))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"a{kind.suffix}"
    path.write_bytes(bytes(content))
    begun = time.monotonic()
    read = read_all(f"{path}{kind.inside}")
    assert time.monotonic() - begun < 20
    if cut and read is not None:
        assert len(read) == pages, "a file that was cut off lost pages without a word"
    out, err = capfd.readouterr()
    assert not out and not err


def test_a_stack_whose_end_is_missing_is_not_read_as_a_shorter_one(tmp_path):
    for options in ({}, {"compression": "zlib"}, {"imagej": True}, {"truncate": True}, {"ome": True}):
        path = tmp_path / "a.tif"
        more = {} if "imagej" in options else {"photometric": "minisblack"}
        tifffile.imwrite(path, np.ones((9, 30, 31), np.uint16), **options, **more)
        whole = path.read_bytes()
        for part in (0.3, 0.6, 0.9, 0.99):
            path.write_bytes(whole[: int(part * len(whole))])
            assert read_all(path) is None, (options, part)


def test_other_files_are_named_with_what_to_do(tmp_path):
    stream = io.BytesIO()
    Image.new("L", (9, 9)).save(stream, "GIF")
    for content, word in [
        (stream.getvalue(), "a GIF; convert it to one of PNG, JPEG, TIFF"),
        (b"hello, this is a text", ".png file; convert it"),
        (b"", "empty"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 100, "a HEIC file"),
    ]:
        path = tmp_path / "a.png"
        path.write_bytes(content)
        with pytest.raises(PictureError, match=word):
            open_stack(path)
    with pytest.raises(PictureError, match="no such file"):
        open_stack(tmp_path / "none.tif")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.fits").write_bytes(b"SIMPLE  =                    T".ljust(2880))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "astropy" else find(name, *a))
    with pytest.raises(
        PictureError, match=r"a FITS file, which needs astropy; install it: pip install 'icgn\[science\]'"
    ):
        open_stack(tmp_path / "a.fits")


def fits_file(path, replaced=b"", by=b""):
    fits = pytest.importorskip("astropy.io.fits")
    data = np.random.default_rng(0).standard_normal((9, 11)).astype(np.float32)
    fits.PrimaryHDU(data, fits.Header([("CLOCK", "x")])).writeto(path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(replaced, by.ljust(len(replaced))))
    return data


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"SIMPLE  =                    T".ljust(2880), "no BITPIX, no NAXIS, no END in its first 2880 bytes"),
        (b"SIMPLE  =                    T".ljust(700), "ends after 700 of 2880 bytes"),
    ],
)
def test_a_fits_without_a_picture_is_named_with_what_to_do(tmp_path, head, word):
    pytest.importorskip("astropy")
    (tmp_path / "a.fits").write_bytes(head)
    with pytest.raises(PictureError, match=f"damaged header .*{word}.*copy or download it again"):
        open_stack(tmp_path / "a.fits")


def test_a_fits_whose_end_is_missing_is_refused_and_one_without_padding_is_read(tmp_path):
    fits_file(tmp_path / "a.fits", b"END".ljust(80), b"")
    with pytest.raises(PictureError, match=r"damaged header \(no END"):
        open_stack(tmp_path / "a.fits")
    data = fits_file(tmp_path / "b.fits")
    (tmp_path / "b.fits").write_bytes((tmp_path / "b.fits").read_bytes()[: 2880 + data.nbytes])
    with open_stack(tmp_path / "b.fits") as stack:
        assert torch.equal(stack[0][0], torch.from_numpy(data))


def test_a_fits_with_a_card_that_is_not_standard_is_written_again(tmp_path):
    data = fits_file(tmp_path / "a.fits", b"CLOCK   = 'x       '", b"CLOCK   = 12:30:11")
    with open_stack(tmp_path / "a.fits") as stack, create_stack(tmp_path / "b.fits", stack) as writer:
        writer.write(stack[0] + 1)
        writer.finish()
    assert b"CLOCK   = '12:30:11'" in (tmp_path / "b.fits").read_bytes()
    with open_stack(tmp_path / "b.fits") as stack:
        assert torch.equal(stack[0][0], torch.from_numpy(data) + 1)


# Folders


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "in"
    (place / "deep").mkdir(parents=True)
    image = Image.fromarray(np.arange(99, dtype=np.uint8).reshape(9, 11))
    for name, kind in [("a.png", "PNG"), ("b.bmp", "BMP"), ("c.jfif", "JPEG"), ("d.webp", "WEBP"), ("f.tif8", "TIFF")]:
        image.save(place / name, kind)
    image.save(place / "deep" / "g.png")
    image.save(place / "h.gif", "GIF")
    np.save(place / "i.npy", np.zeros((4, 5)))
    (place / "notes.txt").write_text("x")
    (place / ".hidden.png").write_bytes(b"x")
    if hasattr(os, "mkfifo"):
        os.mkfifo(place / "pipe.png")
    return place


def test_files_that_are_left_out_are_counted_by_kind(folder):
    found = survey(folder)
    assert [f.name for f in found.files] == ["a.png", "b.bmp", "c.jfif", "d.webp", "f.tif8", "i.npy"]
    assert found.summary() == "2 files left out: 1 x .txt file (notes.txt), 1 x a GIF (h.gif)"
    assert len(survey(folder, recursive=True).files) == 7
    assert [f.name for f in list_pictures(folder)] == ["a.png", "b.bmp", "c.jfif", "d.webp", "f.tif8"]
    assert survey(folder / "deep").summary() == ""


def test_places_inside_files_have_the_name_of_the_file_and_never_overwrite_it(tmp_path):
    np.savez(tmp_path / "in.npz", a=np.zeros((8, 9)), b=np.ones((8, 9)))
    (tmp_path / "out").mkdir()
    source = tmp_path / "in.npz:a"
    assert plan([source], tmp_path / "out", suffixes=FILE_SUFFIXES)[0].target == tmp_path / "out" / "in.npz"
    with pytest.raises(ValueError, match="would overwrite a picture that is read"):
        plan([source], tmp_path / "in.npz")


def test_a_thumbnail_that_is_not_kept_is_said_when_the_picture_is_written(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.zeros((20, 20), np.uint8), photometric="minisblack")
        file.write(np.zeros((10, 10), np.uint8), photometric="minisblack", subfiletype=1)
    (note,) = write_picture(tmp_path / "b.tif", read_picture(tmp_path / "a.tif"))
    assert "1 thumbnails" in note


def test_pictures_of_a_folder_are_written_in_their_own_kind_of_file(folder, tmp_path):
    targets = [str(j.target.relative_to(tmp_path)) for j in plan([folder], tmp_path / "out")]
    assert targets == ["out/a.png", "out/b.bmp", "out/c.jfif", "out/d.webp", "out/f.tif"]
    deep = plan([folder], tmp_path / "out", recursive=True, suffixes=FILE_SUFFIXES)
    targets = {str(j.target.relative_to(tmp_path)) for j in deep}
    assert {"out/deep/g.png", "out/i.npy", "out/f.tif"} < targets and len(targets) == 7


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, (0, 1)), (-0.2, 1.3, (0, 1)), (0, 4000, (0, 4000)), (-2e-6, 1e-5, (-2e-6, 1e-5)), (0, 0, (0, 1)),
     (0.5, 0.501, (0, 1)), (2e-3, 2e-3, (0, 1))],
)  # fmt: skip
def test_numbers_in_another_unit_have_a_range_of_their_own(low, high, expected):
    assert Extent(low, high, 32).range == expected
