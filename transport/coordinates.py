"""Dense networks in the units and about the means of samples, so that fits depend on neither."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from icgn.transport.dense import DenseDeepICGN, DenseGrouped
from icgn.transport.vectors import GradientNetwork

DenseNetwork: TypeAlias = "DenseGrouped | DenseDeepICGN"


def check_dense(name: str, network: GradientNetwork) -> DenseNetwork:
    """Return `network`, or raise ``TypeError`` unless it is one of the package's dense networks."""
    if not isinstance(network, DenseGrouped | DenseDeepICGN):
        raise TypeError(f"{name}: got {type(network).__name__}, expected one of the package's dense networks")
    return network


@torch.no_grad()
def translate(network: DenseNetwork, source: Tensor, target: Tensor) -> None:
    r"""Replace N by :math:`N(x - s) + t`, exactly and in place.

    Biases move by the responses of s; what the network subtracts so that its curved part vanishes at 0, and the affine
    part, go into the constant :math:`a`.

    Parameters
    ----------
    network : DenseNetwork
        the network N.
    source, target : Tensor
        s and t, (d,).
    """
    s = source.to(network.shift)
    value = network.grad(torch.zeros_like(s)[None])[0]
    network.bias.sub_(activations(network, s[None])[0].view_as(network.bias))
    # N(s - s) + t is what it was at 0, and t.
    network.shift.add_(value - network.grad(s[None])[0] + target.to(network.shift))


def activations(network: DenseNetwork, x: Tensor) -> Tensor:
    """The products of the rows of W with samples x (B, d), which add to the biases, (B, K)."""
    responses = x @ network.W.to(x).T
    if isinstance(network, DenseGrouped):
        return responses * (-network.log_scale()).exp().to(x).repeat_interleave(network.members)
    return responses


@contextmanager
def centred(network: DenseNetwork, source_mean: Tensor, target_mean: Tensor) -> Iterator[None]:
    r"""Within the context the network maps :math:`x - m` to :math:`N(x) - m'`; afterwards x again, as trained."""
    translate(network, -source_mean, -target_mean)
    try:
        yield
    finally:
        translate(network, source_mean, target_mean)


@torch.no_grad()
def strengthen(network: DenseNetwork, factor: float) -> None:
    """Multiply the curved part h(W x) by a positive factor."""
    if isinstance(network, DenseGrouped):
        network.log_lambda.add_(math.log(factor))
    else:
        weight = F.softplus(network.raw_c.double()) * factor
        # The inverse of softplus.
        network.raw_c.copy_(weight + torch.log(-torch.expm1(-weight)))


def parameter_groups(
    network: DenseNetwork, source_scale: float, target_scale: float, learning_rate: float
) -> list[dict[str, Any]]:
    r"""Groups for an optimizer of the Adam family, with learning rates in the units of the parameters.

    With source and target in units u and v, W is in 1/u, the constant in v, Q in :math:`(v / u)^{1/2}`; all others are
    pure numbers or logarithms. So training does the same in all units. The rate of Q is further divided by the root of
    the dimension, so that a step moves the affine part by about the same in all dimensions; that of W is not, by
    measurement (docs/decisions.md).
    """
    affine = math.sqrt(target_scale / source_scale / network.dim)
    units = {"W": 1 / source_scale, "shift": target_scale, "Q": affine}
    return [
        {"params": [parameter], "lr": learning_rate * units.get(name, 1.0)}
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    ]
