"""Fixtures shared by all tests."""

import importlib
import signal
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import icgn
from icgn import cli


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request):
    """Every kind of device of this machine."""
    return request.param


@pytest.fixture(scope="module")
def one_thread():
    """One CPU thread, with which sums are always made in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
def script(monkeypatch, one_thread):
    """Import a script of the benchmarks by name, as Python does that runs it."""
    monkeypatch.syspath_prepend(str(Path(icgn.__file__).parent / "benchmarks"))
    return importlib.import_module
