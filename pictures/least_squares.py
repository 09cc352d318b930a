"""Rough images of measurements."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_STEPS = 10


def least_squares(y: Tensor, physics: Any) -> Tensor:
    r"""A rough image x of a measurement: conjugate gradients of :math:`|A x - y|^2`, ten steps from the best constant.

    Scaled and shifted as the measurement of scaled and shifted pictures is.
    """
    y = torch.where(torch.isfinite(y), y, 0.0)
    one = torch.ones_like(physics.A_adjoint(y))
    flat = physics.A(one)
    size = float(flat.square().sum())
    x = one * (float((flat * y).sum()) / size if size > 0 else 0.0)
    residual = y - physics.A(x)
    gradient = physics.A_adjoint(residual)
    direction, before = gradient, float(gradient.square().sum())
    for _ in range(_STEPS):
        measured = physics.A(direction)
        curved = float(measured.square().sum())
        if not (before > 0 and curved > 0):
            break
        x, residual = x + before / curved * direction, residual - before / curved * measured
        gradient = physics.A_adjoint(residual)
        now = float(gradient.square().sum())
        direction, before = gradient + now / before * direction, now
    return x
