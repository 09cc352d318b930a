"""A regularizer with which every problem has a closed form."""

from __future__ import annotations

import torch

from icgn.regularizers import ConvexRegularizer
from icgn.solvers import BlackBoxFunctional


class Quadratic(ConvexRegularizer):
    """R(x) = a/2 |x|^2: every problem with it has a closed form."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = a

    def at(self, sigma=None, condition=None):
        return QuadraticFunctional(self.a)


class QuadraticFunctional(BlackBoxFunctional):
    def __init__(self, a):
        self.a = a

    def fn(self, x):
        return self.a / 2 * x.square().flatten(1).sum(1)

    def grad(self, x):
        return self.a * x

    def hvp(self, x, v):
        return self.a * v

    def lipschitz(self):
        return torch.tensor(self.a, dtype=torch.float64)

    def strong_convexity(self):
        return torch.tensor(self.a, dtype=torch.float64)

    def select(self, index):
        return self

    def to(self, dtype):
        return self
