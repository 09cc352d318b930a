"""Operators of deepinv: checks before solving, rigorous constants, precision, parameters of single images."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import deepinv
import torch
from torch import Tensor

PHYSICS_ERRORS = (RuntimeError, ValueError, IndexError, TypeError, AssertionError)
"""What deepinv's operators raise for shapes and precisions that they do not take."""

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


def is_identity(physics: Any) -> bool:
    """Whether A is the identity: deepinv's Denoising."""
    return isinstance(physics, deepinv.physics.Denoising)


def gram_bounds(physics: Any, each: bool = False) -> Tensor:
    r"""Rigorous bounds :math:`l I \preceq A^T A \preceq u I`, (0, inf) where unknown, (2,), or (2, B) for `each` image.

    Known: the identity, circular convolution (deepinv's BlurFFT, by the discrete Fourier transform of its kernel) and
    inpainting, both by their singular values.
    """
    if is_identity(physics):
        return torch.ones(2, dtype=torch.float64)
    if isinstance(physics, deepinv.physics.BlurFFT | deepinv.physics.Inpainting):
        square = physics.mask.double().square()
        square = square.flatten(1) if each else square.flatten()
        # The factors cover the float32 rounding of the phases, whose modulus is 1 only up to 1e-7.
        return torch.stack([square.amin(-1) * (1 - 1e-6), square.amax(-1) * (1 + 1e-6)])
    return torch.tensor([0.0, torch.inf], dtype=torch.float64)


@torch.no_grad()
def converted(physics: Any, y: Tensor) -> Any:
    """A copy of a physics in the precision of y, or None where it cannot follow."""
    try:
        physics = in_precision(physics, y.dtype)
        back = y if is_identity(physics) else physics.A(physics.A_adjoint(y))
    except PHYSICS_ERRORS:
        return None
    return physics if back.dtype == y.dtype else None


def in_precision(physics: Any, dtype: torch.dtype) -> Any:
    """A copy of a physics with real parameters of the dtype and complex ones of as many bits in either part."""
    physics = copy.deepcopy(physics)
    # deepinv's Tomography keeps an adjoint that belongs to the object it was copied from.
    if getattr(physics, "_auto_grad_adjoint_fn", None) is not None:
        physics._auto_grad_adjoint_fn = None
    # Not Module.to(dtype): that would drop the imaginary part of complex buffers.
    return physics._apply(lambda t: t.to(dtype.to_complex() if t.is_complex() else dtype) if _real(t) else t)


def _real(t: Tensor) -> bool:
    return t.is_floating_point() or t.is_complex()


@torch.no_grad()
def image_parameters(physics: Any, y: Tensor) -> tuple[str, ...]:
    """Names of the buffers of a physics that have one entry for each image of the batch y.

    A buffer whose first side is as long as the batch may still be shared by all images, as one factor per channel is.
    To decide, the first and the last image are measured alone.

    Raises
    ------
    ValueError
        if neither the entries nor the whole buffers explain what is measured of one image.
    """
    batch = len(y)
    names = tuple(n for n, b in physics.named_buffers() if b.ndim and b.shape[0] == batch > 1)
    if not names or is_identity(physics):
        return ()
    like = physics.A_adjoint(torch.nan_to_num(y))
    v = torch.randn(like.shape, generator=torch.Generator().manual_seed(0), dtype=like.dtype).to(like.device)
    whole = physics.A(v)
    for own in (names, ()):
        places = [torch.tensor([i], device=y.device) for i in (0, batch - 1)]
        if all(_measures(of_images(physics, own, i), v[i], whole[i]) for i in places):
            return own
    raise ValueError(
        f"physics: the buffers {', '.join(names)} of {type(physics).__name__} are neither shared by all images nor one"
        f" entry for each of the {batch}, expected parameters of images to be buffers with the batch first"
    )


def _measures(physics: Any, x: Tensor, y: Tensor) -> bool:
    """Whether a physics maps x to y, to rounding."""
    try:
        found = physics.A(x)
    except PHYSICS_ERRORS:
        return False
    return found.shape == y.shape and bool((found - y).abs().max() <= 1e-4 * y.abs().max())


def of_images(physics: Any, own: tuple[str, ...], index: Tensor) -> Any:
    """The physics of some images: buffers with one entry per image are indexed, shared ones kept."""
    if not own:
        return physics
    selected = copy.deepcopy(physics)
    for name in own:
        owner = selected.get_submodule(name.rpartition(".")[0])
        leaf = name.rpartition(".")[2]
        setattr(owner, leaf, getattr(owner, leaf)[index])
    return selected
