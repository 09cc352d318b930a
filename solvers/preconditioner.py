"""Circular convolutions that resemble an inverse Hessian: they speed methods up, and nothing proved depends on them."""

from __future__ import annotations

import torch
from torch import Tensor

from icgn.solvers.functional import ConvexFunctional, Responses, colour_basis


def spectrum_at(objective: ConvexFunctional, u: Responses, x: Tensor) -> Tensor | None:
    """Spectrum (B, C, H, W // 2 + 1) that resembles that of the Hessian at responses u of images x, if one is known."""
    spectrum = objective.hessian_spectrum(u, x.shape)
    if spectrum is None:
        return None
    # It only resembles that of the Hessian: it may vanish where the Hessian does not.
    floor = 1e-3 * spectrum.amax((1, 2, 3), keepdim=True)
    return torch.maximum(spectrum, floor).expand(len(x), -1, -1, -1)


def apply_inverse(spectrum: Tensor | None, g: Tensor) -> Tensor:
    """The preconditioned images P g, g itself where no spectrum is known."""
    if spectrum is None:
        return g
    if g.shape[1] == 1:
        return _filtered(g, spectrum)
    basis = colour_basis(g)
    filtered = _filtered(torch.einsum("dc,bchw->bdhw", basis, g), spectrum)
    return torch.einsum("dc,bdhw->bchw", basis, filtered)


def _filtered(g: Tensor, spectrum: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(g) / spectrum, s=g.shape[-2:])
