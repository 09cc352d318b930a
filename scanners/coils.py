r"""Receiver coils: the covariance of their noise, whitening, sensitivity maps, and the smooth phase of the picture.

Coil c measures :math:`y_c = M F s_c x + n_c`, with noise n that is white over k-space and correlated between the coils,
:math:`E\, n n^H = 2 \Sigma`. With :math:`\Sigma = L L^H` the samples :math:`L^{-1} y` are those of coils with the maps
:math:`L^{-1} s`, and their real and imaginary parts have independent noise of deviation 1 (Pruessmann et al. 2001,
Magn. Reson. Med. 46(4), doi:10.1002/mrm.1241).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch
from deepinv.physics import MultiCoilMRI
from torch import Tensor

from icgn.scanners.grid import calibration
from icgn.scanners.kspace import KSpace, Measured, checked_noise

# Fewer rows or columns of calibration than this do not fit the kernels of ESPIRiT.
_LEAST = 12
# The samples farthest from the middle that are taken for noise: a part of the measured ones, and so many for each coil.
_OUTER, _EACH = 0.02, 20


@dataclass(frozen=True, eq=False)
class CoilNoise:
    r"""The noise of the coils.

    Attributes
    ----------
    covariance : Tensor
        :math:`\Sigma`, complex128 (C, C): of the real part of every coil its variance on the diagonal.
    words : str
        how it was found.
    """

    covariance: Tensor
    words: str

    @property
    def level(self) -> float:
        """Root mean square over the coils of the deviation of a real part."""
        return float(self.covariance.diagonal().real.mean().sqrt())

    def whiten(self, values: Tensor) -> Tensor:
        r""":math:`L^{-1}` applied to the coils of samples or maps, complex (C, ...)."""
        flat = values.to(self.covariance).flatten(1)
        triangle = torch.linalg.cholesky(self.covariance)
        return torch.linalg.solve_triangular(triangle, flat, upper=False).reshape(values.shape)


def coil_noise(kspace: Measured, noise: float | Tensor | None = None) -> CoilNoise:
    """The noise of the coils: given, of a noise scan, or of the samples that lie farthest from the middle.

    Parameters
    ----------
    kspace : KSpace
        the measurement.
    noise : float or Tensor, optional
        the deviation of real and imaginary parts, in the unit of k-space, the same and independent in all coils; or a
        noise scan, complex (C, ...). Default the noise scan of the file, else the outer samples, in which some signal
        may be left: the level is too large then rather than too small.

    Raises
    ------
    TypeError, ValueError
        for a level that is not positive and finite, a scan that does not fit (:func:`~icgn.scanners.checked_noise`),
        too few samples to estimate from, or coils that are linear combinations of others.
    """
    if noise is not None and not isinstance(noise, Tensor):
        if not 0 < noise < float("inf"):
            raise ValueError(f"noise: got {noise:g}, expected a positive number, in the unit of k-space")
        return CoilNoise(torch.eye(kspace.coils, dtype=torch.complex128) * float(noise) ** 2, "given")
    if noise is not None:
        return _estimated(checked_noise(noise, kspace.coils), "of a noise scan")
    if kspace.noise is not None:
        return _estimated(kspace.noise, "of the noise scan in the file")
    return _estimated(outer_samples(kspace), "of the outer samples of k-space")


def outer_samples(kspace: Measured) -> Tensor:
    """The measured samples that lie farthest from the middle of k-space, relative to its sides, (C, N).

    Raises
    ------
    ValueError
        where fewer than twenty for each coil would have to be taken from a tenth of what was measured.
    """
    samples, far = kspace.measured
    measured = len(far)
    count = max(round(_OUTER * measured), _EACH * kspace.coils)
    if count > measured / 10:
        raise ValueError(
            f"noise: got {measured} measured places, too few to find the noise of {kspace.coils} coils; give a level or"
            " a noise scan"
        )
    return samples[:, far.argsort(stable=True)[-count:]]


def coil_maps(kspace: KSpace, noise: CoilNoise, maps: Tensor | None = None) -> tuple[Tensor, str]:
    r"""Sensitivity maps of the whitened coils, complex128 (C, H, W), and how they were found.

    Parameters
    ----------
    kspace : KSpace
        the measurement.
    noise : CoilNoise
        of the coils.
    maps : Tensor, optional
        of the coils as measured, complex (C, H, W), for a picture in the unit of k-space. Default estimated by ESPIRiT
        (Uecker et al. 2014, Magn. Reson. Med. 71(3), doi:10.1002/mrm.24751; sigpy's, through deepinv) from the measured
        square in the middle, with :math:`\sum_c |s_c|^2 = 1` where there is a signal. A single coil has the map 1.

    Raises
    ------
    TypeError, ValueError
        for maps of another shape, that are not finite or zero throughout, and where none can be estimated: without
        sigpy, or if less than 12 x 12 places in the middle are measured.
    """
    if maps is not None:
        return noise.whiten(_checked(maps, kspace)) * noise.level, "given"
    if kspace.coils == 1:
        return torch.ones_like(kspace.samples), "1, of a single coil"
    side = calibration(kspace.mask)
    if side < _LEAST:
        raise ValueError(
            f"maps: got {side} x {side} measured places in the middle of k-space, expected at least {_LEAST} x {_LEAST}"
            " to estimate maps from; give maps"
        )
    if importlib.util.find_spec("sigpy") is None:
        raise ValueError("maps: got none, and sigpy, which estimates them, is missing: pip install 'icgn[scanners]'")
    white = torch.view_as_real(noise.whiten(kspace.samples)).movedim(-1, 0)[None]
    found = MultiCoilMRI.estimate_coil_maps(white.float(), calib_size=side)[0].to(torch.complex128)
    if not bool((found != 0).any()):
        raise ValueError("maps: ESPIRiT found no place with a signal; is this k-space of a picture? Give maps")
    return found, f"estimated by ESPIRiT from the middle {side} x {side}"


def _estimated(samples: Tensor, words: str) -> CoilNoise:
    covariance = samples @ samples.mH / (2 * samples.shape[1])
    deviations = covariance.diagonal().real.sqrt()
    correlation = covariance / (deviations[:, None] * deviations)
    least = float(torch.linalg.eigvalsh(correlation)[0])
    if not least > 1e-6:
        raise ValueError("noise: a coil is a combination of others, expected coils with noise of their own")
    return CoilNoise(covariance, words)


def _checked(maps: Tensor, kspace: KSpace) -> Tensor:
    expected = kspace.shape
    if not maps.is_complex():
        raise TypeError(f"maps: got {maps.dtype}, expected complex numbers")
    maps = maps[None] if maps.ndim == 2 else maps
    if tuple(maps.shape) != expected:
        raise ValueError(f"maps: got shape {tuple(maps.shape)}, expected {expected}: coils, height, width of k-space")
    if not bool(torch.isfinite(torch.view_as_real(maps)).all()):
        raise ValueError("maps: got NaN or infinite values, expected finite ones")
    if not bool((maps != 0).any()):
        raise ValueError("maps: got zeros only, expected the sensitivity of the coils")
    return maps
