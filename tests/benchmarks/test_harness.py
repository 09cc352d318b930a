"""What the benchmarks share: files that are read back, tables, options, crops, and seconds as ratios."""

import itertools

import pytest
import torch
import typer


@pytest.fixture
def harness(script):
    return script("harness")


def test_files_are_written_together_and_read_back(harness, tmp_path):
    content = {"settings": {"seed": 0}, "rows": [1.5]}
    harness.write(tmp_path / "new", {"results.json": content, "table.md": "text", "picture.png": b"\x89"})
    assert harness.read(tmp_path / "new" / "results.json", None) == content
    assert (tmp_path / "new" / "table.md").read_text() == "text\n"
    assert (tmp_path / "new" / "picture.png").read_bytes() == b"\x89"
    assert harness.read(tmp_path / "nothing.json", "otherwise") == "otherwise"


def test_a_run_goes_on_only_with_the_same_settings(harness, tmp_path):
    content = {"settings": {"seed": 0}, "rows": [1.5]}
    harness.write(tmp_path, {"results.json": content})
    assert harness.resumed(tmp_path / "results.json", {"seed": 0}, rows=[]) == content
    assert harness.resumed(tmp_path / "results.json", {"seed": 1}, rows=[]) == {"settings": {"seed": 1}, "rows": []}


def test_a_table(harness):
    assert harness.table(("a", "b"), [(1, "x"), (2, "y")]) == "| a | b |\n|---|---|\n| 1 | x |\n| 2 | y |"


@pytest.mark.parametrize("text", ["", "5,x", "5,-1", "nan", "inf"])
def test_bad_numbers_are_named(harness, text):
    assert harness.numbers("5,0.5", "sizes") == [5.0, 0.5] and harness.numbers("5,7", "sizes", int) == [5, 7]
    with pytest.raises(typer.BadParameter, match="sizes: got"):
        harness.numbers(text, "sizes")


def test_the_central_square(harness):
    picture = torch.arange(35.0).view(1, 5, 7)
    assert torch.equal(harness.central(picture, 3), picture[:, 1:4, 2:5])
    assert torch.equal(harness.central(picture, 6), picture[:, :, :6])


def test_seconds_are_medians_and_ratios_of_the_same_round(harness, monkeypatch):
    ticks = itertools.count()
    assert harness.seconds(lambda: None, 3, clock=lambda: float(next(ticks))) == 1.0
    assert harness.ratio({"a": [2.0, 40.0, 6.0], "b": [1.0, 10.0, 3.0]}, "a", "b") == 2.0
    times = harness.in_turns({"a": lambda: None, "b": lambda: None}, rounds=2)
    assert set(times) == {"a", "b"} and all(len(t) == 2 and min(t) >= 0 for t in times.values())
