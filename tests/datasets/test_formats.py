"""Every kind of file: read page by page, written again, read by the program that made it."""

import importlib.util
import os
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from file_kinds import KINDS, Kind

from icgn.datasets import Picture, PictureError, create_stack, measure, open_stack, read_picture, write_picture
from icgn.datasets.formats import FORMATS, identify

DOCS = Path(__file__).parents[2] / "docs" / "files.md"
BEGIN, END = "<!-- table of kinds, made by tests/datasets/test_formats.py -->", "<!-- end of table -->"


def kind_id(kind):
    return re.sub(r"\W+", "-", f"{kind.name} {kind.program}")


def made(kind: Kind, folder: Path) -> Path:
    if kind.package and importlib.util.find_spec(kind.package) is None:
        pytest.skip(f"{kind.package} is not installed (extra science)")
    path = folder / f"in{kind.suffix}"
    kind.make(path)
    return path


def copied(source, target):
    """Write the pages of a file again by the library; returns the containers of both and the notes."""
    with open_stack(source) as stack, create_stack(target, stack) as writer:
        for i in range(len(stack)):
            page = stack.page(i)
            writer.write(page.values, page.alpha)
        notes = writer.finish()
        before = stack.container
    with open_stack(target) as stack:
        return before, stack.container, notes


@pytest.mark.parametrize("kind", KINDS, ids=kind_id)
def test_a_file_of_another_program_keeps_samples_type_pages_and_metadata(tmp_path, kind):
    source, target = made(kind, tmp_path), tmp_path / f"out{kind.suffix}"
    before, after, notes = copied(f"{source}{kind.inside}", f"{target}{kind.inside}")
    assert before.pages == after.pages == kind.pages
    for name in [
        "kind",
        "dtype",
        "shape",
        "axes",
        "bits",
        "slope",
        "intercept",
        "top",
        "alpha",
        "icc",
        "spacing",
        "unit",
    ]:
        assert getattr(before, name) == getattr(after, name), name
    assert before.dpi == pytest.approx(after.dpi, abs=0.03) if before.dpi else after.dpi is None
    one, two = kind.load(source), kind.load(target)
    assert one.dtype.name == two.dtype.name and np.array_equal(one, two, equal_nan=one.dtype.kind == "f")
    assert kind.kept(source) == kind.kept(target)
    assert all("compression" in n for n in notes)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kind", KINDS, ids=kind_id)
def test_pages_are_the_numbers_that_the_other_program_reads(tmp_path, kind):
    source = made(kind, tmp_path)
    expected = kind.load(source)
    if kind.package == "nibabel":
        expected = expected.T
    with open_stack(f"{source}{kind.inside}") as stack:
        found = stack.container
        inner = [np.concatenate([p.values, *([p.alpha * found.limits[1]] if p.alpha is not None else [])]) for p in
                 (stack.page(i) for i in range(len(stack)))]  # fmt: skip
        extent = measure(stack)
        assert found.describe().startswith(found.kind) and str(found.width) in found.describe()
    numbers = np.stack([np.moveaxis(p, 0, -1) for p in inner]).astype(float)
    if kind.suffix == ".dcm":
        expected = expected * found.slope + found.intercept
    if "RGB plane" in kind.name:
        expected = np.moveaxis(expected, 0, -1)
    if kind.suffix == ".jpg":
        return
    assert np.allclose(numbers.ravel(), expected.astype(float).ravel(), atol=1e-6, equal_nan=True)
    known = np.isfinite(numbers) & (numbers != found.empty)
    if not found.alpha:
        assert (extent.low, extent.high) == (numbers[known].min(), numbers[known].max())
        assert ("without data" in kind.keeps) == (not known.all())


@pytest.mark.parametrize("kind", [k for k in KINDS if k.pages == 1], ids=kind_id)
def test_a_single_picture_keeps_its_samples_as_intensities(tmp_path, kind):
    source, target = made(kind, tmp_path), tmp_path / f"out{kind.suffix}"
    try:
        picture = read_picture(f"{source}{kind.inside}")
    except PictureError as error:
        assert "open_stack" in str(error)
        return
    assert float(picture.pixels.min()) >= 0 and float(picture.pixels.max()) <= 1
    write_picture(f"{target}{kind.inside}", picture)
    one, two = kind.load(source), kind.load(target)
    assert one.dtype.name == two.dtype.name and one.shape == two.shape and kind.kept(source) == kind.kept(target)
    if one.dtype.kind == "f" or one.dtype.itemsize > 2:
        assert np.allclose(one, two, rtol=0, atol=1e-6 * np.nanmax(np.abs(one.astype(float))), equal_nan=True)
    else:
        assert np.array_equal(one, two)


def test_the_kind_is_found_by_content_whatever_the_name_says(tmp_path):
    for kind in KINDS:
        if kind.suffix in (".zarr", ".nii.gz") or (kind.package and importlib.util.find_spec(kind.package) is None):
            continue
        source = made(kind, tmp_path)
        renamed = tmp_path / "renamed.xyz"
        source.replace(renamed)
        found = identify(renamed)
        assert found is not None and any(kind.suffix.endswith(s) or s.endswith(kind.suffix) for s in found.suffixes)
        with open_stack(f"{renamed}{kind.inside}") as stack:
            assert len(stack) == kind.pages and stack.container.kind == found.kind


def table() -> str:
    rows = ["| kind of file | written by | pages | what is kept beside pixels and type |", "|---|---|---|---|"]
    rows += [f"| {k.name} | {k.program} | {k.pages} | {k.keeps} |" for k in KINDS]
    return "\n".join(rows)


def test_the_table_of_the_documentation_is_what_is_tested():
    assert len(KINDS) >= 40
    text = DOCS.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    old, tail = rest.split(END)
    if os.environ.get("ICGN_WRITE_TABLE"):
        DOCS.write_text(f"{head}{BEGIN}\n{table()}\n{END}{tail}", encoding="utf-8")
    else:
        assert old.strip() == table(), "run this test with ICGN_WRITE_TABLE=1 to write the table anew"
    for found in FORMATS:
        assert found.kind in text and found.suffixes[0] in text


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif"])
def test_files_that_end_too_early_and_objects_are_named(tmp_path, suffix):
    path, values = tmp_path / f"a{suffix}", np.random.default_rng(0).random((20, 20))
    if suffix == ".tif":
        tifffile.imwrite(path, values)
        path.write_bytes(path.read_bytes()[:2000])
    else:
        (np.savez if suffix == ".npz" else np.save)(path, np.array([values, None], dtype=object))
    words = "the file is truncated" if suffix == ".tif" else "the array holds Python objects, expected numbers"
    with pytest.raises(PictureError, match=words):
        open_stack(path)
    if suffix == ".npy":
        np.save(path, values)
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(PictureError, match="the file is truncated"):
            open_stack(path)


# The contract of a format, from pictures of our own


@pytest.mark.parametrize("found", [f for f in FORMATS if f.fresh], ids=lambda f: f.kind)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_writes_a_new_picture(tmp_path, found, channels):
    if found.package and importlib.util.find_spec(found.package) is None:
        pytest.skip(f"{found.package} is not installed (extra science)")
    path = tmp_path / f"a{found.suffixes[0]}"
    pixels = torch.rand(channels, 9, 11, generator=torch.Generator().manual_seed(0))
    if found.channels and channels not in found.channels:
        with pytest.raises(PictureError, match=rf"{re.escape(str(path))}: cannot be written: .*{found.kind} holds 1"):
            write_picture(path, Picture(pixels))
        assert not list(tmp_path.iterdir())
        return
    write_picture(path, Picture(pixels))
    back = read_picture(path)
    tolerance = 0.04 if found.kind == "JPEG" else 0.51 / 255
    assert back.pixels.shape == pixels.shape
    low, high = back.range
    levels = low + back.pixels.double() * (high - low)
    scale = 1.0 if high in (0.0, 1.0) else 255.0
    assert (levels / scale - pixels).abs().max() < tolerance or found.kind == "JPEG"


@pytest.mark.parametrize("found", [f for f in FORMATS if f.many and f.fresh], ids=lambda f: f.kind)
def test_every_format_with_pages_takes_a_stack_of_another_kind(tmp_path, found):
    if found.package and importlib.util.find_spec(found.package) is None:
        pytest.skip(f"{found.package} is not installed (extra science)")
    stack = np.random.default_rng(0).integers(0, 4000, (3, 9, 11)).astype(np.uint16)
    np.save(tmp_path / "a.npy", stack)
    target = tmp_path / f"b{found.suffixes[0]}"
    _, after, notes = copied(tmp_path / "a.npy", target)
    assert after.pages == 3 and after.dtype == "uint16" and not notes
    with open_stack(target) as opened:
        assert np.array_equal(np.stack([v[0] for v in opened]), stack)
