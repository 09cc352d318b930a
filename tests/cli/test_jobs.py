"""Pictures shared among processes: files, report and objects of one process; kills and Ctrl-C lose nothing."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from icgn.cli import processes
from icgn.cli.main import app

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def pictures(folder, sizes):
    folder.mkdir()
    for i, (height, width) in enumerate(sizes):
        pixels = np.random.default_rng(i).normal(128, 20, (height, width)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def command(*arguments):
    return [sys.executable, "-m", "icgn", *map(str, arguments)]


def run(*arguments):
    return subprocess.run(command(*arguments), env=ENVIRONMENT, capture_output=True, text=True, timeout=280)


def without_seconds(records):
    return [{k: v for k, v in r.items() if k not in ("seconds", "output")} for r in records]


def test_processes_are_started_by_themselves_where_that_is_worth_while(tmp_path, monkeypatch):
    files = [tmp_path / str(i) for i in range(4)]
    for file in files:
        file.write_bytes(bytes(1 << 20))
    monkeypatch.setattr(processes, "_available", lambda: 1 << 40)
    assert [processes.default_jobs(files, n) for n in (1, 2, 4, 5)] == [1, 2, 4, 1]
    assert processes.default_jobs(files[:1] * 2, 2) == 2 and processes.default_jobs(files[:1], 1) == 1
    assert processes.default_jobs([tmp_path / "missing"] * 9, 2) == 1
    monkeypatch.setattr(processes, "_available", lambda: 5 << 30)
    assert processes.default_jobs(files, 4) == 2


def test_memory_is_known_or_taken_to_be_enough():
    assert processes._available() > 1 << 20


def test_a_launcher_shares_the_pictures_among_its_processes(tmp_path, monkeypatch):
    folder, runner = pictures(tmp_path / "in", [(16, 16)] * 3), CliRunner()
    options = ["denoise", str(folder), "-o", str(tmp_path / "out"), "--model", "tv", "--sigma", "20"]
    written = []
    for rank in (0, 1):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(rank))
        done = runner.invoke(app, [*options, "--json", str(tmp_path / "all.json")])
        assert done.exit_code == 0, done.output
        assert f"process {rank + 1} of 2: {2 - rank} of 3 pictures" in done.output
        records = json.loads((tmp_path / f"all.{rank}.json").read_text())
        written.append([Path(r["output"]).name for r in records])
    assert written == [["0.png", "2.png"], ["1.png"]]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0.png", "1.png", "2.png"]


@pytest.mark.slow
def test_a_picture_that_fails_does_not_end_the_other_processes_of_a_launcher(tmp_path):
    folder = pictures(tmp_path / "in", [(16, 16), (500, 500)])
    (folder / "0.png").write_text("no picture")
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "icgn.cli",
    ]
    options = ["denoise", folder, "-o", tmp_path / "out", "--model", "tv", "--sigma", "20"]
    done = subprocess.run([*launcher, *map(str, options)], env=ENVIRONMENT, capture_output=True, text=True, timeout=280)
    assert done.returncode != 0 and "1 of 1 pictures failed" in done.stderr
    assert (tmp_path / "out" / "1.png").is_file() and "Restored" in done.stdout


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    folder = pictures(tmp_path / "in", [(40, 44), (90, 70), (32, 33), (50, 51)])
    (folder / "bad.png").write_text("no picture")
    mask = tmp_path / "mask.png"
    Image.fromarray((np.random.default_rng(0).random((64, 64)) > 0.3).astype(np.uint8) * 255).save(mask)
    done = {}
    for jobs in (1, 2):
        out = tmp_path / f"out{jobs}"
        options = ("--model", "ridge-gray-small", "--json", tmp_path / f"{jobs}.json", "--jobs", jobs)
        result = run("denoise", folder, "-o", out, *options)
        assert result.returncode == 1, result.stderr
        said = [line for line in result.stderr.splitlines() if not line.startswith("progress")]
        table = [re.sub(r" +\d+\.\d\d  ", " ", line) for line in result.stdout.splitlines() if "out" not in line]
        files = {f.name: f.read_bytes() for f in sorted(out.iterdir())}
        done[jobs] = said, table, files, without_seconds(json.loads((tmp_path / f"{jobs}.json").read_text()))
    assert done[1] == done[2]
    assert list(done[1][2]) == ["0.png", "1.png", "2.png", "3.png"]
    masked = pictures(tmp_path / "masked", [(64, 64), (64, 64)])
    result = run("inpaint", masked, "-o", tmp_path / "filled", "--mask", mask, "--model", "tv", "--jobs", 2)
    assert result.returncode == 0 and len(list((tmp_path / "filled").iterdir())) == 2, result.stderr


PHYSICS = """
import multiprocessing, os, signal
import deepinv

def physics(img_size, device):
    if multiprocessing.parent_process() is not None and img_size[-1] == 31:
        os.kill(os.getpid(), signal.SIGKILL)
    return deepinv.physics.Denoising()
"""


@pytest.mark.slow
def test_a_killed_process_costs_its_picture_alone(tmp_path):
    folder = pictures(tmp_path / "in", [(24, 24), (24, 31), (24, 24), (24, 24)])
    (tmp_path / "p.py").write_text(PHYSICS)
    arguments = ("-o", tmp_path / "out", "--physics", f"{tmp_path / 'p.py'}:physics", "--noise", 20, "--sigma", 20)
    result = run("restore", folder, *arguments, "--model", "tv", "--jobs", 2, "--json", "-")
    records = json.loads(result.stdout)
    assert result.returncode == 1 and "1 of 4 pictures failed" in result.stderr
    assert [r["status"] for r in records] == ["converged", "failed", "converged", "converged"]
    assert "1.png" in records[1]["error"] and "killed" in records[1]["error"]
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["0.png", "2.png", "3.png"]


def begun(tmp_path, sizes):
    """A run in a session of its own, of which the first picture is written."""
    folder, out = pictures(tmp_path / "in", sizes), tmp_path / "out"
    arguments = command(
        "denoise", folder, "-o", out, "--jobs", 2, "--sigma", 20, "--tol", 1e-6, "--json", tmp_path / "o.json"
    )
    started = subprocess.Popen(
        arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 200
    while not (out / "0.png").exists():
        assert started.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return started, out


SIZES = [(24, 24), *[(400, 400)] * 5]


@pytest.mark.slow
def test_ctrl_c_writes_what_is_reached(tmp_path):
    started, out = begun(tmp_path, SIZES)
    os.killpg(started.pid, signal.SIGINT)
    _, said = started.communicate(timeout=200)
    assert started.returncode == 130 and "interrupted" in said, said
    assert "Traceback" not in said
    records = json.loads((tmp_path / "o.json").read_text())
    assert sorted(r["output"] for r in records) == sorted(str(f) for f in out.iterdir())
    assert 1 <= len(records) < len(SIZES)


@pytest.mark.slow
def test_the_other_processes_end_with_a_killed_one(tmp_path):
    started, out = begun(tmp_path, SIZES)
    os.kill(started.pid, signal.SIGKILL)
    started.communicate(timeout=200)  # its pipes close with the last process that has them
    for file in out.iterdir():
        Image.open(file).load()
