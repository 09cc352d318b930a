r"""Variance stabilization of counts: the generalized Anscombe transform and its exact unbiased inverse.

For :math:`y = a\, p + o + b\, n` (:class:`icgn.functionals.noise.PoissonGaussian`) and :math:`s = b / a`,

.. math::

    f(y) = 2 \sqrt{\max((y - o) / a + 3/8 + s^2,\ 0)}

has about unit variance wherever a few counts are expected. Its expectation is a concave function of the mean x, so that
the algebraic inverse of a denoised f(y) is too dark where counts are few. The exact unbiased inverse maps the
expectation of f(y) to x; it is taken in its closed form (Makitalo, Foi 2011, IEEE Trans. Image Process. 20(9), 2697;
2013, 22(1), 91).
"""

from __future__ import annotations

import math

from torch import Tensor

from icgn.functionals.noise import Poisson, PoissonGaussian


def stabilized(y: Tensor, noise: Poisson | PoissonGaussian) -> Tensor:
    """Counts with noise of unit variance, f(y), of the shape of y.

    Parameters
    ----------
    y : Tensor
        measured counts, in the unit of the noise.
    noise : Poisson or PoissonGaussian
        what they are.
    """
    gain, read, offset = _numbers(noise)
    return 2 * ((y - offset) / gain + 3 / 8 + (read / gain) ** 2).clamp_min(0).sqrt()


def unstabilized(z: Tensor, noise: Poisson | PoissonGaussian) -> Tensor:
    """The means x of counts whose stabilized ones have the mean z: the exact unbiased inverse, at least 0.

    Parameters
    ----------
    z : Tensor
        stabilized counts without noise.
    noise : Poisson or PoissonGaussian
        what the counts were.
    """
    gain, read, _ = _numbers(noise)
    root = math.sqrt(3 / 2)
    # At the transform of 0 counts, which is root, the closed form is 0 and it increases from there on.
    d = z.clamp_min(root)
    counts = d.square() / 4 + root / (4 * d) - 11 / (8 * d.square()) + 5 * root / (8 * d.pow(3)) - 1 / 8
    return noise.gain * (counts - (read / gain) ** 2).clamp_min(0)


def unstabilized_distance(z: Tensor, distance: Tensor, noise: Poisson | PoissonGaussian) -> Tensor:
    r"""Bound on the RMS distance between :func:`unstabilized` pictures whose stabilized ones are that far apart.

    The derivative of the inverse at d is at most :math:`d/2 + 0.3`, so that for any :math:`z^*`, in units of a count,

    .. math::

        \|g(z) - g(z^*)\|_{\text{rms}} \le \big(\max z/2 + 0.3\big)\,\delta + \sqrt{n}\,\delta^2 / 4, \qquad
        \delta = \|z - z^*\|_{\text{rms}}.

    Parameters
    ----------
    z : Tensor
        stabilized pictures (B, C, H, W) of n numbers each.
    distance : Tensor
        RMS distance of each to another one, float64 (B,).
    noise : Poisson or PoissonGaussian
        what the counts were.
    """
    flat = z.detach().double().flatten(1)
    steepest = flat.amax(1).clamp_min(0) / 2 + 0.3
    bound: Tensor = noise.gain * (steepest * distance + math.sqrt(flat.shape[1]) * distance.square() / 4)
    return bound


def _numbers(noise: Poisson | PoissonGaussian) -> tuple[float, float, float]:
    """Gain of y, read-out and offset."""
    if isinstance(noise, PoissonGaussian):
        return noise.gain, noise.read, noise.offset
    return (1.0 if noise.counted else noise.gain), 0.0, 0.0
