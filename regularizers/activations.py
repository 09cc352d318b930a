r"""Activations of one-hidden-layer gradient networks, with their closed forms.

With a hidden activation :math:`s`, the integral of the input convex gradient network needs
:math:`\psi` with :math:`\psi' = (s')^2`, and its potential the primitive :math:`\Phi` of :math:`\psi - \psi(0)`
(Richter-Powell, Lorraine, Amos 2021, arXiv:2111.12187).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


class Activation(ABC):
    r"""A scalar activation s: :math:`\psi' = (s')^2`, :math:`\psi(0) = 0`, :math:`0 \le \psi' \le` `steepest`."""

    name: str
    steepest: float

    @abstractmethod
    def hidden(self, t: Tensor) -> Tensor:
        """The activation s of the hidden layer of M."""

    @abstractmethod
    def psi(self, t: Tensor) -> Tensor:
        r""":math:`\psi(t) = \int_0^t s'(r)^2 dr`, nondecreasing."""

    @abstractmethod
    def psi_prime(self, t: Tensor) -> Tensor:
        r""":math:`\psi'(t) = s'(t)^2 \ge 0`."""

    @abstractmethod
    def potential(self, t: Tensor) -> Tensor:
        r""":math:`\Phi(t) = \int_0^t \psi(r) dr \ge 0`."""

    def clip(self, t: Tensor, knee: Tensor) -> Tensor:
        r""":math:`\kappa\,\psi(t / \kappa)` with a knee :math:`\kappa > 0`: of slope at most `steepest`."""
        return knee * self.psi(t / knee)


class Tanh(Activation):
    r""":math:`\psi = \tanh - \tanh^3 / 3`."""

    name, steepest = "tanh", 1.0

    def hidden(self, t: Tensor) -> Tensor:
        return torch.tanh(t)

    def psi(self, t: Tensor) -> Tensor:
        h = torch.tanh(t)
        return h - h**3 / 3

    def psi_prime(self, t: Tensor) -> Tensor:
        return (1 - torch.tanh(t) ** 2) ** 2

    def potential(self, t: Tensor) -> Tensor:
        # log cosh t without overflow.
        log_cosh = t.abs() + F.softplus(-2 * t.abs()) - math.log(2)
        return 2 / 3 * log_cosh + torch.tanh(t) ** 2 / 6


class Sigmoid(Activation):
    r""":math:`\psi = s^2/2 - s^3/3 - 1/12` with the logistic s."""

    name, steepest = "sigmoid", 1 / 16

    def hidden(self, t: Tensor) -> Tensor:
        return torch.sigmoid(t)

    def psi(self, t: Tensor) -> Tensor:
        s = torch.sigmoid(t)
        return s**2 / 2 - s**3 / 3 - 1 / 12

    def psi_prime(self, t: Tensor) -> Tensor:
        s = torch.sigmoid(t)
        return (s * (1 - s)) ** 2

    def potential(self, t: Tensor) -> Tensor:
        s = torch.sigmoid(t)
        primitive = (F.softplus(t) - s + s**2) / 6
        return primitive - t / 12 - (math.log(2) - 1 / 4) / 6


class Softplus(Activation):
    r""":math:`\psi = \operatorname{softplus} - s - (\log 2 - 1/2)` with the logistic s."""

    name, steepest = "softplus", 1.0

    def hidden(self, t: Tensor) -> Tensor:
        return F.softplus(t)

    def psi(self, t: Tensor) -> Tensor:
        return F.softplus(t) - torch.sigmoid(t) - (math.log(2) - 0.5)

    def psi_prime(self, t: Tensor) -> Tensor:
        return torch.sigmoid(t) ** 2

    def potential(self, t: Tensor) -> Tensor:
        # softplus(r) = max(r, 0) + log(1 + exp(-|r|)); the second part has no elementary primitive.
        smooth = torch.sign(t) * _primitive_of_log1p_exp_minus(t.abs())
        integral = F.relu(t) ** 2 / 2 + smooth
        return integral - (F.softplus(t) - math.log(2)) - (math.log(2) - 0.5) * t


class HardTanh(Activation):
    r"""Slopes 0 and 1: :math:`\psi = s` is the clip to [-1, 1], :math:`\Phi` the Huber function."""

    name, steepest = "hardtanh", 1.0

    def hidden(self, t: Tensor) -> Tensor:
        return F.hardtanh(t)

    def psi(self, t: Tensor) -> Tensor:
        return F.hardtanh(t)

    def psi_prime(self, t: Tensor) -> Tensor:
        return (t.abs() < 1).to(t.dtype)

    def clip(self, t: Tensor, knee: Tensor) -> Tensor:
        return torch.clamp(t, min=-knee, max=knee)

    def potential(self, t: Tensor) -> Tensor:
        inside = F.hardtanh(t)
        return inside * (t - inside / 2)


_ACTIVATIONS: dict[str, type[Activation]] = {a.name: a for a in (Tanh, Sigmoid, Softplus, HardTanh)}


def make_activation(name: str) -> Activation:
    """The activation called `name`: tanh, sigmoid, softplus or hardtanh.

    Raises
    ------
    ValueError
        if there is none of that name.
    """
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation: got {name!r}, expected one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]()


def _primitive_of_log1p_exp_minus(t: Tensor) -> Tensor:
    """The integral of log(1 + exp(-r)) over [0, t], t >= 0, by panels of Gauss-Legendre nodes (error under 1e-13)."""
    nodes, weights = np.polynomial.legendre.leggauss(20)
    total = torch.zeros_like(t)
    edges = (0.0, 2.0, 5.0, 10.0, 20.0, 40.0)
    for left, right in pairwise(edges):
        width = (t.clamp(left, right) - left) / 2
        for node, weight in zip(nodes, weights, strict=True):
            total = total + weight * width * torch.log1p(torch.exp(-(left + width * (node + 1))))
    return total
