r"""Curves in the noise level: positive quantities, piecewise log-linear in :math:`\log\sigma`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def log_knots(sigma_range: tuple[float, float], knots: int) -> Tensor:
    """Give the logarithms of the noise levels of the knots, equally spaced, shape (knots,).

    Raises
    ------
    ValueError
        unless the range is two increasing positive numbers and there are at least two knots.
    """
    if knots < 2:
        raise ValueError(f"knots: got {knots}, expected at least 2")
    if not 0 < sigma_range[0] < sigma_range[1]:
        raise ValueError(f"sigma_range: got {sigma_range}, expected two increasing positive numbers")
    return torch.linspace(math.log(sigma_range[0]), math.log(sigma_range[1]), knots)


def curve(values: Tensor, sigma: Tensor, sigma_range: tuple[float, float], power: float) -> Tensor:
    """Interpolate logarithms (..., knots) linearly in log sigma and exponentiate.

    Above the last knot the last slope goes on; below the first the curve is proportional to sigma ** power, whatever
    its slope there: a learned one may have either sign, and the limit at 0 must not be infinite.

    Parameters
    ----------
    values : Tensor
        logarithms at the knots (..., knots).
    sigma : Tensor
        noise levels (B,), at least 0.
    sigma_range : (float, float)
        noise levels of the first and the last knot.
    power : float
        exponent below the first knot, at least 0.

    Returns
    -------
    Tensor
        shape (B, ...).
    """
    knots = values.shape[-1]
    low, high = (math.log(s) for s in sigma_range)
    position = (torch.log(sigma).clamp_min(low) - low) / (high - low) * (knots - 1)
    left = position.floor().clamp(0, knots - 2).long()
    line = values[..., left] + (values[..., left + 1] - values[..., left]) * (position - left)
    below = (sigma / sigma_range[0]).clamp_max(1) ** power
    return (torch.exp(line) * below).movedim(-1, 0)


def at_knots(sigma: Tensor, values: Tensor, sigma_range: tuple[float, float], knots: int) -> Tensor:
    """Give logarithms at the knots (knots,), in float64, of positive values (L,) known at increasing sigma (L,)."""
    logs = log_knots(sigma_range, knots).double()
    return interpolate(logs, sigma.double().log(), values.double().log())


def interpolate(at: Tensor, levels: Tensor, values: Tensor) -> Tensor:
    """Interpolate values (L,) at increasing levels (L,) linearly, constant outside; shape of `at`."""
    if len(levels) == 1:
        return values[0].expand_as(at)
    place = torch.searchsorted(levels, at).clamp(1, len(levels) - 1)
    low, high = levels[place - 1], levels[place]
    part = ((at - low) / (high - low)).clamp(0, 1)
    return values[place - 1] + part * (values[place] - values[place - 1])


@torch.no_grad()
def rescale(network: Any, sigma: Tensor, weight: Tensor, scale: Tensor) -> None:
    r"""Turn R into :math:`w(\sigma) R(s(\sigma) x; \sigma)`, by the curves `log_lambda` and `log_tau` of its network.

    The parameters are those of :meth:`icgn.regularizers.RidgeICGN.rescaled`; the network is changed in place.
    """
    knots = log_knots(network.sigma_range, network.log_tau.shape[-1]).double()
    w, s = (at_knots(sigma, v, network.sigma_range, len(knots)).exp() for v in (weight, scale))
    network.log_lambda.add_((w * s).log().to(network.log_lambda))
    floor = network.min_knee * knots.exp().to(w)
    knee = (network.log_tau.double().cpu().exp() + floor) / s - floor
    # Far below the floor a knee is the floor; its logarithm stays finite so that training can go on.
    network.log_tau.copy_(torch.maximum(knee, 1e-3 * knots.exp()).log())
