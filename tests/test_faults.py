"""What must survive: kill -9 at any moment, a full disk, a folder that cannot be written, memory that does not suffice.

The faults are those of the operating system, in processes forked from this one, which have torch loaded already.
"""

import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import tomli_w
import torch
from processes import ended, forked
from training_cases import recipe, write_photographs
from typer.testing import CliRunner

import icgn
from icgn import cli, datasets
from icgn.datasets import Picture, read_picture, write_picture
from icgn.regularizers import ModelError, RidgeICGN, load_pretrained, save_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the faults are those of Linux"),
]
KILLS = int(os.environ.get("FAULT_KILLS", "2"))
COUNT = 50


def run(*arguments):
    result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def killed_after(work, seconds):
    """Do `work` in a process that is killed after some seconds; returns its exit code."""
    with forked(work) as child:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        return ended(child)


def killed_at(monkeypatch, name, call, work):
    """Do `work` in a process that kills itself at the given call of a function of os that writes."""

    def suicidal():
        real, calls = getattr(os, name), iter(range(10**6))

        def fatal(*arguments, **options):
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        setattr(os, name, fatal)
        return work()

    with forked(suicidal) as child:
        return ended(child)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    reg = RidgeICGN(filters=4, size=3, knots=3)
    with torch.no_grad():
        reg.log_lambda += 2.0
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(reg, path, {"name": "small"})
    return path


# Kills


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    """Fifty pictures, and what becomes of them without a fault."""
    place = tmp_path_factory.mktemp("pictures")
    (place / "in").mkdir()
    for i in range(COUNT):
        pixels = torch.rand(1, 12, 14, generator=torch.Generator().manual_seed(i))
        write_picture(place / "in" / f"{i:02}.png", Picture(pixels))
    begin = time.perf_counter()
    denoise_all(place / "in", place / "whole", model)
    return place, time.perf_counter() - begin


def denoise_all(source, out, model):
    return run("denoise", source, "-o", out, "--sigma", 25, "--model", model).exit_code


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def check_whole(found, whole):
    """Every picture that is there under its name is that of an undisturbed run."""
    assert all(whole[name] == content for name, content in found.items() if not name.startswith("."))


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_killed_run_over_fifty_pictures_is_completed_by_the_next(tmp_path, folder, model, kill):
    place, seconds = folder
    whole = contents(place / "whole")
    assert len(whole) == COUNT
    moment = random.Random(kill).uniform(0, seconds)
    code = killed_after(lambda: denoise_all(place / "in", tmp_path / "out", model), moment)
    assert code in (-signal.SIGKILL, 0)
    found = contents(tmp_path / "out") if (tmp_path / "out").exists() else {}
    check_whole(found, whole)
    assert denoise_all(place / "in", tmp_path / "out", model) == 0
    assert contents(tmp_path / "out") == whole


@pytest.fixture
def few(tmp_path, folder):
    """Five of the pictures, and what becomes of them."""
    place, _ = folder
    (tmp_path / "in").mkdir()
    for file in sorted((place / "in").iterdir())[:5]:
        shutil.copy(file, tmp_path / "in")
    whole = contents(place / "whole")
    return tmp_path / "in", {file.name: whole[file.name] for file in (tmp_path / "in").iterdir()}


@pytest.mark.parametrize(("name", "call"), [("open", 1), ("fsync", 0), ("replace", 1)])
def test_a_kill_while_a_picture_is_written(tmp_path, few, model, monkeypatch, name, call):
    source, whole = few
    out = tmp_path / "out"
    code = killed_at(monkeypatch, name, call, lambda: denoise_all(source, out, model))
    # A replace of pathlib may be one of another module in some versions of Python.
    assert code in (-signal.SIGKILL, 0)
    check_whole(contents(out), whole)
    assert denoise_all(source, out, model) == 0 and contents(out) == whole


def test_drafts_of_others_are_left_alone(tmp_path):
    mine, others = tmp_path / ".a.png.0123456789ab.part", tmp_path / ".b.png.0123456789ab.part"
    for file in (mine, others, tmp_path / ".a.png.part"):
        file.touch()
    datasets.prepare_folders([tmp_path / "a.png"])
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.png.part", ".b.png.0123456789ab.part"]


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """Arguments of a short training without its folder, the weights that it gives, and its seconds."""
    place = tmp_path_factory.mktemp("training")
    photographs = write_photographs(place / "photographs", 4)
    (place / "r.toml").write_text(tomli_w.dumps(recipe(steps=16, validate_every=2).to_dict()))
    arguments = ["train", "--recipe", place / "r.toml", "--data", photographs, "--device", "cpu", "--threads", 1]
    begin = time.perf_counter()
    assert run(*arguments, "--out", place / "whole").exit_code == 0
    return arguments, (place / "whole" / "tiny.safetensors").read_bytes(), time.perf_counter() - begin


def check_resumed(arguments, weights, out):
    """A model that is there loads, or is told to be altered; the rerun ends with that of an undisturbed run."""
    result = run(*arguments, "--out", out, "--resume")
    assert result.exit_code == 0, result.output
    assert (out / "tiny.safetensors").read_bytes() == weights
    load_pretrained(out)
    assert not list(out.glob("*.part"))


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_killed_training_is_completed_by_the_next(tmp_path, training, kill):
    arguments, weights, seconds = training
    out = tmp_path / "run"
    moment = random.Random(kill).uniform(0, seconds)
    code = killed_after(lambda: run(*arguments, "--out", out).exit_code, moment)
    assert code in (-signal.SIGKILL, 0)
    check_resumed(arguments, weights, out)


@pytest.mark.parametrize(("name", "call"), [("fsync", 0), ("fsync", 2), ("replace", 0), ("replace", 1), ("replace", 2)])
def test_a_kill_while_a_model_is_written(tmp_path, training, monkeypatch, name, call):
    arguments, weights, _ = training
    out = tmp_path / "run"
    code = killed_at(monkeypatch, name, call, lambda: run(*arguments, "--out", out).exit_code)
    assert code in (-signal.SIGKILL, 0)
    try:
        load_pretrained(out)
    except ModelError as error:
        assert "tiny" in str(error) or str(out) in str(error)
    check_resumed(arguments, weights, out)


# Disks


@contextmanager
def limited(kind, amount):
    """A limit of the operating system on this process."""
    old = resource.getrlimit(kind)
    resource.setrlimit(kind, (amount, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, old)


def test_files_that_do_not_fit(tmp_path, model):
    """The system refuses the last bytes of a file, as a full disk does."""
    write_picture(tmp_path / "in.png", Picture(torch.rand(1, 64, 64)))
    write_picture(tmp_path / "out.png", Picture(torch.zeros(1, 4, 4)))
    before = contents(tmp_path)
    with limited(resource.RLIMIT_FSIZE, 1000):
        result = run("denoise", tmp_path / "in.png", "-o", tmp_path / "out.png", "--sigma", 25, "--model", model)
        with pytest.raises(OSError, match="large"):
            save_model(load_pretrained(model), tmp_path / "small.safetensors", {"note": "x" * 2000})
    assert result.exit_code == 1 and "out.png: cannot be written: file too large" in result.stderr
    assert contents(tmp_path) == before


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 32 kB, where one can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=32k tmpfs '{place}' 2>/dev/null") != 0:
        pytest.skip("needs the right to mount")
    yield place
    os.system(f"umount '{place}'")


def test_a_full_disk(tmp_path, folder, training, model, tiny_disk):
    """What fits is whole, what does not is named; with room again the rerun completes."""
    place, _ = folder
    whole = contents(place / "whole")
    (tiny_disk / "filler").write_bytes(bytes(20_000))
    out = tiny_disk / "out"
    result = run("denoise", place / "in", "-o", out, "--sigma", 25, "--model", model)
    assert result.exit_code == 1 and "cannot be written: no space left on device" in result.stderr
    found = contents(out)
    assert 0 < len(found) < COUNT and not [name for name in found if name.startswith(".")]
    check_whole(found, whole)
    arguments, weights, _ = training
    result = run(*arguments, "--out", tiny_disk / "run")
    assert result.exit_code == 1 and "cannot be written: No space left on device" in result.stderr.replace("\n", " ")
    (tiny_disk / "filler").unlink()
    os.system(f"mount -o remount,size=4m '{tiny_disk}'")
    assert denoise_all(place / "in", out, model) == 0 and contents(out) == whole
    check_resumed(arguments, weights, tiny_disk / "run")


def test_folders_that_cannot_be_written(model):
    """As a user without the right, which root cannot be."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        write_picture(place / "in.png", Picture(torch.rand(1, 12, 12)))
        (place / "closed").mkdir(mode=0o555)
        (place / "closed").chmod(0o555)
        answers = place / "answers"
        answers.mkdir()
        answers.chmod(0o777)

        def work():
            torch.set_num_threads(1)
            if os.geteuid() == 0:
                os.seteuid(65534)
            closed = place / "closed"
            told = [
                run("denoise", place / "in.png", "-o", closed / "o.png", "--sigma", 25),
                run("denoise", place / "in.png", "-o", closed / "new" / "o.png", "--sigma", 25),
                run("demo", "-o", closed / "demo"),
                run("hub", "ridge-gray-small", "-o", closed / "hub"),
                run("evaluate", "--model", "tv", "--dataset", place, "--sigma", 5, "-o", closed / "e"),
            ]
            (answers / "a").write_text("\n".join(f"{r.exit_code} {r.stderr}" for r in told))

        with forked(work) as child:
            assert ended(child) == 0
        text = (answers / "a").read_text()
        assert len([line for line in text.splitlines() if line.startswith("2 error: ")]) == 5, text
        assert text.lower().count("permission denied") == 5 and not list((place / "closed").iterdir())


# Memory


def test_a_picture_too_large_for_the_memory(tmp_path, model):
    """The others of the folder are restored, and the message names a way out."""
    (tmp_path / "in").mkdir()
    write_picture(tmp_path / "in" / "a.png", Picture(torch.full((1, 3000, 3000), 0.5)))
    write_picture(tmp_path / "in" / "b.png", Picture(torch.rand(1, 12, 12)))

    def work():
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        with limited(resource.RLIMIT_AS, used + 250 * 2**20):
            result = run("denoise", tmp_path / "in", "-o", tmp_path / "out", "--sigma", 25, "--model", model)
        (tmp_path / "told").write_text(f"{result.exit_code} {result.stderr}")

    with forked(work) as child:
        assert ended(child) == 0
    told = (tmp_path / "told").read_text()
    assert told.startswith("1 ") and "a.png: out of memory (" in told and "overlapping tiles" in told
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b.png"]


# Links and names


def test_links_that_lead_to_themselves(tmp_path, model):
    loop, ring, good = tmp_path / "loop.png", tmp_path / "ring", tmp_path / "good.png"
    loop.symlink_to(loop)
    ring.symlink_to(ring)
    write_picture(good, Picture(torch.rand(1, 12, 12)))
    options = ("--sigma", 25, "--model", model)
    for command in (
        ["denoise", loop, "-o", tmp_path / "o.png"],
        ["denoise", ring, "-o", tmp_path / "o"],
        ["denoise", good, "-o", ring / "o.png"],
        ["denoise", good, "-o", tmp_path / "o.png", "--reference", loop],
        ["inpaint", good, "-o", tmp_path / "o.png", "--mask", loop],
        ["deblur", good, "-o", tmp_path / "o.png", "--kernel", loop],
    ):
        result = run(*command, *options)
        assert result.exit_code in (1, 2) and "error: " in result.stderr, command
    assert not (tmp_path / "o.png").exists()
    # A folder is read without them, and not beyond itself.
    (tmp_path / "deeper").mkdir()
    write_picture(tmp_path / "deeper" / "deep.png", Picture(torch.rand(1, 12, 12)))
    assert run("denoise", tmp_path, "-o", tmp_path / "out", *options).exit_code == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.png"]


def test_nothing_is_written_outside_of_the_output_folder(tmp_path, model):
    """Whatever the inputs are called, and wherever links among them lead."""
    source, elsewhere, out = tmp_path / "in", tmp_path / "elsewhere", tmp_path / "out"
    source.mkdir()
    elsewhere.mkdir()
    write_picture(elsewhere / "secret.png", Picture(torch.rand(1, 12, 12)))
    before = contents(elsewhere)
    (source / "link.png").symlink_to(elsewhere / "secret.png")
    for name in ("x..png", "%2e%2e%2fx.png", "..\\x.png", "..%2f..%2fx.png", "~.png", "-o.png", "a b;$(touch x).png"):
        write_picture(source / name, Picture(torch.rand(1, 12, 12)))
    result = run("denoise", source, "-o", out, "--sigma", 25, "--model", model)
    assert result.exit_code == 0, result.stderr
    assert contents(elsewhere) == before and sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "in", "out"]
    assert len(contents(out)) == 6 and not (out / "link.png").is_symlink()


@pytest.mark.parametrize("name", ["画" * 80 + ".png", "😀" * 60 + ".png", "a" * 251 + ".png", "\udcff\udcfe.png"])
def test_names_as_long_as_file_systems_allow_or_of_no_encoding(tmp_path, model, name):
    write_picture(tmp_path / name, Picture(torch.rand(1, 12, 12)))
    result = run("denoise", tmp_path, "-o", tmp_path / "out", "--sigma", 25, "--model", model)
    assert result.exit_code == 0, result.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == [name]
    assert read_picture(tmp_path / "out" / name).pixels.shape == (1, 12, 12)


def test_a_card_larger_than_its_file_takes_neither_memory_nor_time(tmp_path, model):
    for suffix in (".safetensors", ".json"):
        (tmp_path / f"m{suffix}").write_bytes(model.with_suffix(suffix).read_bytes())
    card = json.loads((tmp_path / "m.json").read_text())
    for change in ({"filters": 10**9}, {"size": 9999}, {"channels": 10**12}):
        (tmp_path / "m.json").write_text(json.dumps({**card, "architecture": {**card["architecture"], **change}}))
        with pytest.raises(ModelError, match=r"m\.safetensors: the weights do not fit the architecture of the card"):
            icgn.load_pretrained(tmp_path)
