r"""The masses that samplers move with: convolutions, with a scale of their own at each pixel.

A mass :math:`M = D^{-1} C D^{-1}` resembles the inverse of the covariance of a posterior: C a circular convolution,
D a diagonal. Its products, its inverse and its square root cost a Fourier transform each. Nothing proved depends on it:
it decides how many steps a sampler takes, not what it samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from icgn.functionals.functional import ConvexFunctional, colour_basis
from icgn.functionals.sums import sum_of_spectra

# A spectrum is kept above this part of its largest entry.
_FLOOR = 1e-4
# Pixels on each side over which deviations of draws are smoothed, and the least one as a part of the mean.
_REACH, _LEAST = 2, 0.1
# The spectrum of draws counts as much as the one known before times the number of draws over this.
_KNOWN = 10


@dataclass(frozen=True, eq=False)
class Mass:
    """A positive definite operator of pictures (B, C, H, W), any B.

    Attributes
    ----------
    spectrum : Tensor
        of C, positive, (1, C, H, W // 2 + 1), in the colours of :func:`icgn.functionals.functional.colour_basis`.
    scale : Tensor
        the diagonal D, positive, (1, C, H, W), in the same colours.
    """

    spectrum: Tensor
    scale: Tensor

    @classmethod
    def of_hessian(cls, objective: ConvexFunctional, x: Tensor, sigma: float) -> Mass:
        """A convolution like the mean Hessian of F / sigma^2 at pictures; the identity over sigma^2 if unknown."""
        parts = objective.hessian_parts(objective.linear(x), x.shape)
        shape = (1, *x.shape[1:-1], x.shape[-1] // 2 + 1)
        spectrum = x.new_ones(shape)
        if parts is not None and not any(part.solid for part in parts):
            spectrum = sum_of_spectra([part.spectrum for part in parts], x.shape[1]).mean(0, keepdim=True)
            if spectrum.ndim == 5:
                basis = colour_basis(x).to(spectrum)
                spectrum = torch.einsum("db,abchw,dc->adhw", basis, spectrum, basis).real
        return cls(_floored(spectrum.to(x).expand(shape)) / sigma**2, x.new_ones(1, *x.shape[1:]))

    def of_draws(self, draws: Tensor) -> Mass:
        """The mass whose inverse resembles the covariance of draws (N, C, H, W), this one being known before."""
        around = _coloured(draws - draws.mean(0, keepdim=True))
        scale = _smoothed(around.square().mean(0, keepdim=True)).sqrt()
        mean = scale.square().mean((2, 3), keepdim=True).sqrt()
        scale = torch.maximum(scale / mean, torch.full_like(scale, _LEAST))
        power = torch.fft.rfft2(around / scale).abs().square().mean(0, keepdim=True) / draws[0, 0].numel()
        known = 1 / self.spectrum
        count = len(draws)
        return Mass(_floored((count + _KNOWN) / (count * power + _KNOWN * known)), scale)

    def times(self, v: Tensor) -> Tensor:
        """The pictures M v."""
        return self._in_colours(v, lambda w: self._convolved(w / self.scale, self.spectrum) / self.scale)

    def inverse(self, p: Tensor) -> Tensor:
        r"""The pictures :math:`M^{-1} p`."""
        return self._in_colours(p, lambda w: self.scale * self._convolved(self.scale * w, 1 / self.spectrum))

    def momentum(self, white: Tensor) -> Tensor:
        """A draw of N(0, M), from white noise of that shape."""
        return self._in_colours(white, lambda w: self._convolved(w, self.spectrum.sqrt()) / self.scale)

    def spread(self, white: Tensor) -> Tensor:
        r"""A draw of :math:`N(0, M^{-1})`, from white noise of that shape."""
        return self._in_colours(white, lambda w: self.scale * self._convolved(w, self.spectrum.rsqrt()))

    def _convolved(self, v: Tensor, spectrum: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(v) * spectrum, s=v.shape[-2:])

    def _in_colours(self, v: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        if v.shape[1] == 1:
            return f(v)
        return torch.einsum("dc,bdhw->bchw", colour_basis(v), f(_coloured(v)))


def _coloured(v: Tensor) -> Tensor:
    return v if v.shape[1] == 1 else torch.einsum("dc,bchw->bdhw", colour_basis(v), v)


def _floored(spectrum: Tensor) -> Tensor:
    return torch.maximum(spectrum, _FLOOR * spectrum.amax())


def _smoothed(squares: Tensor) -> Tensor:
    reach = min(_REACH, (min(squares.shape[-2:]) - 1) // 2)
    padded = F.pad(squares, (reach, reach, reach, reach), mode="replicate")
    return F.avg_pool2d(padded, 2 * reach + 1, stride=1)
