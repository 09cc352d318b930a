"""Fixtures shared by all tests."""

import signal

import pytest
import torch


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
