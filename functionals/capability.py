"""What a functional can do beyond values, gradients and Hessian products, declared instead of probed."""

from __future__ import annotations

from enum import Enum


class Capability(Enum):
    """An optional ability of a :class:`~icgn.functionals.ConvexFunctional`; the values are words for messages."""

    RESPONSES = "slopes along a line that cost no gradient"
    POTENTIAL_PROX = "a proximal map of its potential, with the norm of its linear part"
    FINITE = "finite values everywhere"
    QUADRATIC = "a quadratic function of the measurements"
