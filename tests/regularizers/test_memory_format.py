"""Parameters in channels_last, standard advice for convolutional networks, change no result."""

import copy

import pytest
import torch
from conditional_cases import conditional
from latent_cases import latent
from training_cases import data, recipe

from icgn import training
from icgn.regularizers import ICNN, DeepICGN, GroupICGN, RidgeICGN, SoftmaxICGN, load_pretrained, save_model

COMMON = {"size": 3, "knots": 3}
NETWORKS = {
    "ridge": lambda channels: RidgeICGN(filters=4, channels=channels, **COMMON),
    "group": lambda channels: GroupICGN(groups=2, members=2, channels=channels, **COMMON),
    "softmax": lambda channels: SoftmaxICGN(groups=2, members=2, channels=channels, **COMMON),
    "deep": lambda channels: DeepICGN(layers=2, filters=3, inner_size=3, channels=channels, **COMMON),
    "latent": lambda channels: latent(channels, 1),
    "conditional": lambda channels: conditional(channels),
    "ICNN": lambda channels: ICNN(layers=3, filters=4, size=3, channels=channels, knots=3),
    "ICNN of one layer": lambda channels: ICNN(layers=1, filters=4, size=3, channels=channels, knots=3),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", NETWORKS)
def test_results_do_not_depend_on_the_memory_format(kind, channels, tmp_path):
    plain = NETWORKS[kind](channels).double()
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    x = torch.rand(2, channels, 10, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for pictures in (x, x.to(memory_format=torch.channels_last)):
        torch.testing.assert_close(last.fn(pictures, 0.1), plain.fn(x, 0.1))
        torch.testing.assert_close(last.grad(pictures, 0.1), plain.grad(x, 0.1))
        torch.testing.assert_close(last.hvp(pictures, pictures, 0.1), plain.hvp(x, x, 0.1))
    torch.testing.assert_close(last.lipschitz(0.1), plain.lipschitz(0.1))
    if kind == "conditional":
        torch.testing.assert_close(last.condition(x, 0.1, 0.1 * x), plain.condition(x, 0.1, 0.1 * x))
    save_model(last.float(), tmp_path / "last.safetensors", {})
    torch.testing.assert_close(load_pretrained(tmp_path / "last.safetensors").grad(x, 0.1), plain.float().grad(x, 0.1))


@pytest.mark.parametrize("kind", ["RidgeICGN", "DeepICGN", "ConditionalICGN", "ICNN"])
def test_training_in_channels_last(kind, tmp_path):
    own = {
        "ConditionalICGN": {"filters": 3, "width": 4, "blocks": 1},
        "DeepICGN": {"filters": 3},
        "ICNN": {"filters": 3},
    }.get(kind, {})
    model, rates = {"type": kind, **COMMON, **own}, {"": 1e-3}
    wanted = recipe(model=model, learning_rate=rates, steps=2, validate_every=2)
    trained = []
    for form in (torch.contiguous_format, torch.channels_last):
        model = training.build(wanted).to(memory_format=form)
        training.fit(model, wanted, data(), tmp_path / str(form))
        trained.append(model)
    for a, b in zip(trained[0].parameters(), trained[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
