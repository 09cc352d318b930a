"""Fixtures shared by all tests."""

import importlib
import os
import shutil
import signal
from pathlib import Path

# One CPU thread in every process, this one and those that tests start: problems are small, and workers share the cores.
# It is read when torch is loaded.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from typer.testing import CliRunner

import icgn
from icgn import cli

# Every run of the suite draws the same examples, so that it fails for what was changed; `make fuzz` draws new ones.
settings.register_profile("same", derandomize=True)
settings.load_profile("default" if "FUZZ_EXAMPLES" in os.environ else "same")


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request):
    """Every kind of device of this machine."""
    return request.param


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """`-n auto` is one worker for each core that this process may use, hyper-threads included."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.fixture(autouse=True)
def one_thread():
    """One CPU thread, with which sums are always made in the same order, whatever the last test chose."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Make a folder by `make(folder)` in one of the workers; the others wait for it, and all get its path."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def get(name, make):
        folder, made = base / name, base / f"{name}.made"
        with FileLock(base / f"{name}.lock"):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                made.touch()
        return folder

    return get


@pytest.fixture
def interruptible():
    """Ctrl-C as in a terminal: a shell that starts the tests in the background makes them ignore it."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)


@pytest.fixture
def run():
    """Run the command with some arguments; whatever happens, no traceback."""

    def invoke(*arguments):
        result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result

    return invoke


@pytest.fixture
def script(monkeypatch):
    """Import a script of the benchmarks by name, as Python does that runs it."""
    monkeypatch.syspath_prepend(str(Path(icgn.__file__).parent / "benchmarks"))
    return importlib.import_module
