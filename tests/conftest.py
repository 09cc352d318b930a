"""Fixtures shared by all tests."""
import pytest, torch

@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request):
    return request.param
