"""Every kind of file through the command line: nothing is lost at sigma 0, and damaged ones end in words."""

import importlib.util
import math
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from file_kinds import KINDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from icgn import cli
from icgn.datasets import PictureError, open_stack
from icgn.regularizers import RidgeICGN, save_model

HERE = [k for k in KINDS if not k.package or importlib.util.find_spec(k.package)]
NAMES = [f"{k.name} {k.program}" for k in HERE]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny gray model, which takes each channel."""
    torch.manual_seed(0)
    tiny = RidgeICGN(filters=4, size=3, knots=3, channels=1, sigma_range=(1 / 255, 50 / 255))
    path = tmp_path_factory.mktemp("model") / "gray.safetensors"
    save_model(tiny, path, {"name": "gray"})
    return path


def denoised(source, target, model, *options):
    words = ["denoise", source, "-o", target, "--model", model, *options]
    result = CliRunner().invoke(cli.app, [str(w) for w in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output
    return result


def same(one, two):
    return np.array_equal(one, two, equal_nan=one.dtype.kind == "f")


@pytest.mark.parametrize("kind", HERE, ids=NAMES)
def test_sigma_zero_keeps_samples_type_pages_and_metadata(tmp_path, model, kind):
    source, target = tmp_path / f"in{kind.suffix}", tmp_path / f"out{kind.suffix}"
    kind.make(source)
    result = denoised(f"{source}{kind.inside}", f"{target}{kind.inside}", model, "--sigma", 0)
    assert result.exit_code == 0, result.output
    with open_stack(f"{source}{kind.inside}") as before, open_stack(f"{target}{kind.inside}") as after:
        for name in ("kind", "dtype", "shape", "axes", "bits", "slope", "intercept", "alpha", "icc", "spacing"):
            assert getattr(before.container, name) == getattr(after.container, name), name
    one, two = kind.load(source), kind.load(target)
    assert one.dtype.name == two.dtype.name and same(one, two) and kind.kept(source) == kind.kept(target)


@pytest.mark.parametrize("shape", [(1, 24), (24, 1), (1, 1), (5, 7, 3)])
def test_sigma_zero_copies_pictures_smaller_than_any_filter(tmp_path, shape):
    numbers = np.random.default_rng(0).standard_normal(shape)
    np.save(tmp_path / "in.npy", numbers)
    result = denoised(tmp_path / "in.npy", tmp_path / "out.npy", "ridge-gray-small", "--sigma", 0)
    assert result.exit_code == 0, result.output
    assert np.array_equal(np.load(tmp_path / "out.npy"), numbers)


def test_a_dash_is_no_file(tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("in.npy", np.zeros((16, 16)))
    for source, target in (("-", "out.npy"), ("in.npy", "-")):
        result = denoised(source, target, model, "--sigma", 0)
        assert result.exit_code == 2 and "expected the name of a file" in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["in.npy"]


@st.composite
def hurt(draw, path):
    """Damage a file, or a file of a folder: change, lose or add some of its bytes."""
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    file = draw(st.sampled_from(files))
    content = bytearray(file.read_bytes())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(content) - 1, 0)) | st.integers(0, min(400, max(len(content) - 1, 0))))
        match draw(st.sampled_from(["flip", "cut", "drop", "insert"])):
            case "flip" if content:
                content[at] ^= draw(st.integers(1, 255))
            case "cut":
                del content[at:]
            case "drop":
                del content[at : at + draw(st.integers(1, 20))]
            case _:
                content[at:at] = draw(st.binary(min_size=1, max_size=8))
    file.write_bytes(content)


LEVELS = st.sampled_from([0, 1e-300, 0.01, 1, 25, 255, 256, 1e6, 1e300, math.nan])
RANGES = st.sampled_from(["auto", "0,1", "0,255", "-1e9,1e9", "0,1e-300", "1,0", "0,65535"])
SUFFIXES = (".tif", ".npy", ".png", ".jpg", ".fits", ".nii.gz", ".h5")


@settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "15")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_end_in_words_and_whole_ones_lose_nothing(model, data):
    kind = data.draw(st.sampled_from(HERE))
    options = data.draw(
        st.fixed_dictionaries({"--tol": st.just("1e-2")}, optional={"--sigma": LEVELS, "--range": RANGES})
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / f"in{kind.suffix}"
        kind.make(source)
        if data.draw(st.booleans()):
            data.draw(hurt(source))
        suffix = data.draw(st.just(kind.suffix) | st.sampled_from(SUFFIXES))
        target = folder / f"out{suffix}"
        result = denoised(f"{source}{kind.inside}", target, model, *(f"{k}={v}" for k, v in options.items()))
        assert result.exit_code in (0, 1, 2) and (result.exit_code == 0) == target.exists(), result.output
        assert not [f for f in folder.rglob("*") if f.name.endswith((".part", ".lock"))]
        if result.exit_code:
            assert "error: " in result.stderr
            return
        place = f"{target}{kind.inside}" if suffix == kind.suffix else target
        try:
            written = open_stack(place)
        except PictureError:
            written = open_stack(target)
        with open_stack(f"{source}{kind.inside}") as before, written as after:
            one, two = before.container, after.container
            assert (one.pages, one.height, one.width) == (two.pages, two.height, two.width)
            assert two.channels >= one.channels or bool((before[0] == before[0][:1]).all())
            for i in range(len(after)):
                nodata, page = before.page(i).nodata, after[i]
                assert bool(torch.isfinite(page if nodata is None else page[:, ~nodata[0]]).all())
        shutil.rmtree(target, ignore_errors=True)
