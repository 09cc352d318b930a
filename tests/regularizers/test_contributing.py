"""The network of CONTRIBUTING, one file and one line of registration, is all that a network of this package is."""

from __future__ import annotations

import math
import re
import runpy
from pathlib import Path

import deepinv
import pytest
import torch
from training_cases import data, recipe

import icgn
from icgn import training
from icgn.regularizers import PerChannel, PullBack, check_regularizer, load_pretrained, register, save_model
from icgn.regularizers.bank import BlockFunctional
from icgn.regularizers.distributed import receptive_radius
from icgn.regularizers.registry import ModelError, registered
from icgn.solvers import Problem, solve

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(icgn.__file__).parent / "CONTRIBUTING.md").read_text(), re.DOTALL)
TEXT = next(block for block in BLOCKS if "@register" in block)
SIGMA = 0.1


@pytest.fixture(scope="module")
def kind(tmp_path_factory):
    """The class, made by running the very text."""
    path = tmp_path_factory.mktemp("text") / "length.py"
    path.write_text(TEXT)
    return runpy.run_path(str(path), run_name="__main__")["LengthICGN"]


@pytest.fixture
def network(kind):
    return kind(filters=4, size=3, knots=3).double().requires_grad_(False)


def pictures(channels=1, side=12):
    g = torch.Generator().manual_seed(0)
    return torch.rand(2, channels, side, side + 1, generator=g, dtype=torch.float64)


def denoising(reg, y, sigma=SIGMA):
    return Problem(y, deepinv.physics.Denoising(), reg, sigma)


def test_the_text_is_short():
    assert len(TEXT.splitlines()) < 60


@pytest.mark.parametrize("border", ["reflect", "zero", "valid"])
def test_it_keeps_the_contract_of_a_regularizer(kind, border):
    check_regularizer(kind(filters=4, size=3, border=border), (2, 1, 8, 8))
    check_regularizer(PerChannel(kind(filters=3, size=3)) + kind(filters=3, size=3, channels=2), (2, 2, 7, 8))


@pytest.mark.parametrize("method", ["gradient", "accelerated", "conjugate", "lbfgs", "newton", "proximal"])
def test_every_method_solves_with_it(network, method):
    y = pictures()
    found = solve(denoising(network, y), method=method, tol=1e-5, max_iter=20000)
    assert found.converged
    exact = solve(denoising(network, y), tol=1e-9).x
    assert float((found.x - exact).square().mean().sqrt()) <= 1e-5


def test_it_is_preconditioned(network):
    functional, x = network.at(SIGMA), pictures()
    spectrum = functional.hessian_spectrum(functional.linear(x), x.shape)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rough = torch.fft.irfft2(torch.fft.rfft2(v) * spectrum, s=v.shape[-2:])
    exact = functional.hvp(x, v)
    assert 0.3 < float((v * rough).sum() / (v * exact).sum()) < 6


def test_in_blocks_it_is_the_same_function(network):
    x, sigma = pictures(side=21), torch.tensor([0.05, 0.2], dtype=torch.float64)
    whole = network.at(sigma)
    blocks = whole.blockwise(x.shape, limit=8_000)
    assert isinstance(blocks, BlockFunctional)
    torch.testing.assert_close(blocks.fn(x), whole.fn(x))
    torch.testing.assert_close(blocks.grad(x), whole.grad(x))
    torch.testing.assert_close(blocks.hvp(x, x), whole.hvp(x, x))


def test_it_takes_colour_and_wrappers(kind):
    y = pictures(3)
    for reg in (kind(filters=4, size=3, channels=3), PerChannel(kind(filters=4, size=3))):
        assert solve(denoising(reg.double().requires_grad_(False), y)).converged
    blur = deepinv.physics.BlurFFT((1, 12, 13), torch.ones(1, 1, 3, 3, dtype=torch.float64) / 9)
    check_regularizer(PullBack(kind(filters=3, size=3), blur), (1, 1, 12, 13))


def test_it_goes_through_a_file(kind, tmp_path):
    reg = kind(filters=4, size=3, knots=3)
    save_model(reg, tmp_path / "mine.safetensors", {"name": "mine"})
    again = load_pretrained(tmp_path / "mine.safetensors")
    x = pictures().float()
    assert type(again) is kind and again.architecture == reg.architecture
    torch.testing.assert_close(again.grad(x, SIGMA), reg.grad(x, SIGMA))


def test_a_recipe_trains_it(kind, tmp_path):
    wanted = recipe(model={"type": "LengthICGN", "filters": 4, "size": 3, "knots": 3}, steps=2, validate_every=2)
    model = training.build(wanted)
    before = model.bank.raw.detach().clone()
    rows = training.fit(model, wanted, data(), tmp_path)
    assert type(model) is kind and not torch.equal(model.bank.raw, before)
    assert rows[-1]["step"] == 2 and math.isfinite(rows[-1]["psnr_25"])
    training.export(tmp_path / "checkpoint.pt", tmp_path / "tiny.safetensors")
    assert type(load_pretrained(tmp_path / "tiny.safetensors")) is kind


def test_its_gradient_is_shared_by_processes(network):
    assert receptive_radius(network) == 2


def test_a_name_belongs_to_one_class(kind):
    assert registered()["LengthICGN"] is kind
    other = type("RidgeICGN", (kind,), {"__module__": "elsewhere"})
    with pytest.raises(ValueError, match=r"network: got RidgeICGN of elsewhere, expected a name that no class of icgn"):
        register(other)
    assert registered()["RidgeICGN"] is icgn.RidgeICGN


def test_an_architecture_that_is_not_registered_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"unknown architecture 'Nonesuch'.* to be imported first"):
        training.build(recipe(model={"type": "Nonesuch"}))
