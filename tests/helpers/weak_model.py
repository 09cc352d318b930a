"""An untrained model for tests of commands."""

from __future__ import annotations

import torch

from icgn.pictures import models
from icgn.regularizers import RidgeICGN


def in_place_of_all(monkeypatch, *, filters: int, strength: float) -> RidgeICGN:
    """A gray model that removes noise visibly, which commands then take in the place of all others."""
    torch.manual_seed(0)
    reg = RidgeICGN(filters=filters, size=3, channels=1, sigma_range=(1 / 255, 50 / 255)).requires_grad_(False)
    reg.log_lambda += strength
    monkeypatch.setattr(models, "load_regularizer", lambda name, device="cpu": reg)
    return reg
