"""What a functional can do beyond values, gradients and Hessian products, declared instead of probed."""

from __future__ import annotations

from enum import Enum


class Capability(Enum):
    """An optional ability of a :class:`ConvexFunctional`; the values complete the words "a function that ..."."""

    RESPONSES = "gives slopes along a line without a gradient"
    POTENTIAL_PROX = "has a proximal map of its potential"
    FINITE = "is finite everywhere"
    QUADRATIC = "is quadratic"
