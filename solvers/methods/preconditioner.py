"""Circular convolutions that resemble an inverse Hessian: they speed methods up, and nothing proved depends on them."""

from __future__ import annotations

import torch
from torch import Tensor

from icgn.functionals.functional import ConvexFunctional, Responses, colour_basis

# A spectrum is kept above this part of its largest entry: it only resembles that of the Hessian, and may vanish where
# the Hessian does not.
_FLOOR = 1e-3


def preconditioner_at(objective: ConvexFunctional, u: Responses, x: Tensor) -> Tensor | None:
    """Spectrum of P, which resembles the inverse Hessian at responses u of images x, if that of the Hessian is known.

    One number per channel, (B, C, H, W // 2 + 1), or a matrix, (B, C, C, H, W // 2 + 1), for each frequency.
    """
    spectrum = objective.hessian_spectrum(u, x.shape)
    if spectrum is None:
        return None
    if spectrum.ndim == 4:
        floor = _FLOOR * spectrum.amax((1, 2, 3), keepdim=True)
        return torch.maximum(spectrum, floor).reciprocal().expand(len(x), -1, -1, -1)
    matrix = spectrum.movedim((1, 2), (-2, -1))
    largest = matrix.diagonal(dim1=-2, dim2=-1).real.flatten(1).amax(1)
    identity = torch.eye(matrix.shape[-1]).to(matrix)
    inverse = torch.linalg.inv(matrix + _FLOOR * largest.reshape(-1, 1, 1, 1, 1) * identity)
    return inverse.movedim((-2, -1), (1, 2)).expand(len(x), -1, -1, -1, -1)


def apply_preconditioner(spectrum: Tensor | None, g: Tensor) -> Tensor:
    """The preconditioned images P g, g itself where no spectrum is known."""
    if spectrum is None:
        return g
    if spectrum.ndim == 5:
        mixed = torch.einsum("bcdhw,bdhw->bchw", spectrum, torch.fft.rfft2(g).to(spectrum))
        return torch.fft.irfft2(mixed, s=g.shape[-2:])
    if g.shape[1] == 1:
        return _filtered(g, spectrum)
    basis = colour_basis(g)
    filtered = _filtered(torch.einsum("dc,bchw->bdhw", basis, g), spectrum)
    return torch.einsum("dc,bdhw->bchw", basis, filtered)


def _filtered(g: Tensor, spectrum: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(g) * spectrum, s=g.shape[-2:])
