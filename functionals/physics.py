"""Checks of a physics before anything is solved with it."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from icgn.functionals.data import PHYSICS_ERRORS, is_identity

# Relative defect of <A u, v> = <u, A^T v> that float32 does not explain.
_DEFECT = 1e-3

_tested: weakref.WeakSet[Any] = weakref.WeakSet()


@torch.no_grad()
def check_physics(physics: Any, y: Tensor) -> None:
    r"""Refuse a physics that does not fit y, is zero, or whose `A_adjoint` is not the adjoint of `A`.

    The last two are tested by standard normal u and v, once for each physics object:
    :math:`|\langle A u, v\rangle - \langle u, A^T v\rangle| \le 10^{-3}\, |A u|`, and linearity in the same way.

    Raises
    ------
    ValueError
        naming the defect.
    """
    if is_identity(physics):
        return
    x, back = _round_trip(physics, y)
    if back.shape != y.shape:
        raise ValueError(
            f"y: got shape {tuple(y.shape)}, expected {tuple(back.shape)}: that of {type(physics).__name__}.A"
        )
    if physics in _tested:
        return
    generator = torch.Generator().manual_seed(0)
    u, w = (torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device) for _ in range(2))
    v = torch.randn(y.shape, generator=generator, dtype=y.dtype).to(y.device)
    a, b, pulled = physics.A(u), physics.A(w), physics.A_adjoint(v)
    name = type(physics).__name__
    if not bool((a != 0).any()):
        raise ValueError(f"physics: {name} maps every image to 0, expected an operator that measures something")
    sum_defect = _relative(torch.linalg.vector_norm(physics.A(u + w) - a - b), a)
    if not sum_defect <= _DEFECT:
        raise ValueError(f"physics: {name}.A is not linear: A(u + w) differs from A(u) + A(w) by {sum_defect:.1e}")
    # <A u, v> has the standard deviation |A u|.
    defect = _relative(((a * v).sum() - (u * pulled).sum()).abs(), a)
    if not defect <= _DEFECT:
        raise ValueError(
            f"physics: {name}.A_adjoint is not the adjoint of A: <A u, v> and <u, A_adjoint v> differ by {defect:.1e}"
            " of their size for random u and v"
        )
    _tested.add(physics)


def _round_trip(physics: Any, y: Tensor) -> tuple[Tensor, Tensor]:
    """The adjoint of y, and what the physics measures of it."""
    try:
        x = physics.A_adjoint(torch.nan_to_num(y))
        return x, physics.A(x)
    except PHYSICS_ERRORS as error:
        name = type(physics).__name__
        raise ValueError(f"y: got shape {tuple(y.shape)}, which {name}.A_adjoint does not take: {error}") from error


def _relative(difference: Tensor, reference: Tensor) -> float:
    return float(difference / torch.linalg.vector_norm(reference))
