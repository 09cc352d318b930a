"""Pruned networks: what is left out is what others can stand in for, and masks stay with their filters."""

import pytest
import torch

from icgn import ConditionalICGN, RidgeICGN
from icgn.datasets import bundled
from icgn.training import prune
from icgn.training.pruning import _parts


def pictures(channels=1):
    image = bundled(gray=channels == 1).find("camera" if channels == 1 else "coffee").image
    return [image[:, 100:132, left : left + 32] for left in (100, 180)]


def ridge(channels=1, filters=6):
    return RidgeICGN(filters=filters, size=5, channels=channels)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_parts_of_the_filters_are_the_gradient(channels):
    functional = ridge(channels).at(0.1)
    x = torch.stack(pictures(channels))
    whole = _parts(functional, x).sum(0).reshape(x.shape)
    inside = (..., slice(4, -4), slice(4, -4))
    torch.testing.assert_close(whole[inside].float(), functional.grad(x)[inside])


@torch.no_grad()
def test_a_filter_that_stands_twice_is_left_out_and_made_up_for():
    network = ridge()
    network.log_lambda.copy_(network.log_lambda[:, :1].expand_as(network.log_lambda))
    double = network.narrowed([0, 1, 2, 0, 3, 1, 4, 5])
    found = prune(double, 6, pictures())
    x = torch.stack(pictures())
    torch.testing.assert_close(found.grad(x, 0.1), double.grad(x, 0.1), atol=1e-5, rtol=1e-3)


@torch.no_grad()
def test_masks_stay_with_their_filters():
    network = ConditionalICGN.upon(ridge(), width=8, blocks=1)
    for parameter in network.network.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    x, chosen = torch.stack(pictures()), [4, 1, 2]
    # The network sees all responses: those that are left out are made invisible to it.
    hidden = [k for k in range(6) if k not in chosen]
    network.network.lift.weight.unflatten(1, (6, -1))[:, hidden] = 0
    narrow = network.narrowed(chosen)
    mask = network.condition(x, 0.1, 0.1 * x)
    torch.testing.assert_close(narrow.condition(x, 0.1, 0.1 * x), mask[:, chosen])
    torch.testing.assert_close(narrow.first.grad(x, 0.1), network.first.grad(x, 0.1))
    parts = _parts(network.at(0.1, mask), x)
    torch.testing.assert_close(_parts(narrow.at(0.1, mask[:, chosen]), x), parts[chosen])


@torch.no_grad()
def test_another_network_begins():
    network, first = ConditionalICGN.upon(ridge(), width=8, blocks=1), ridge(filters=2)
    new, x = network.begun_by(first), torch.stack(pictures())
    torch.testing.assert_close(new.grad(x, 0.1), first.grad(x, 0.1))
    assert new.architecture["first"] == {"filters": 2} and new.architecture["filters"] == 6


@pytest.mark.parametrize("filters", [0, 7])
def test_there_is_no_network_of_that_many_filters(filters):
    with pytest.raises(ValueError, match=f"filters: got {filters}, expected 1 to 6"):
        prune(ridge(), filters, pictures())
