r"""MRI with coils: from k-space as measured to a certified complex picture.

.. math::

    F(u) = \sum_c \tfrac{\sigma^2}{2} \big|M F s_c e^{i\varphi} u - y_c\big|^2 + w\,\big(R(\mathrm{Re}\,u; \sigma) +
    R(\mathrm{Im}\,u; \sigma)\big), \qquad x = e^{i\varphi} u,

with whitened samples y (noise of deviation 1 in real and imaginary parts), their maps s, and a smooth phase
:math:`\varphi` estimated from the middle of k-space. Dividing a known phase out is a linear and unitary map, so F is
convex, and what is proved of u holds for x. A phase of the whole picture, or one that is smooth, changes
:math:`\varphi` alone: the same u is found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from icgn.regularizers import ConvexRegularizer, PerChannel
from icgn.scanners.coils import CoilNoise, coil_maps, coil_noise
from icgn.scanners.grid import Grid
from icgn.scanners.held_out import Trial
from icgn.scanners.kspace import KSpace
from icgn.scanners.shots import ShotKSpace, Trajectory
from icgn.scanners.solving import check_strength, choose_sigma, default_gray, solve_prepared
from icgn.solvers import Callback, Solution
from icgn.solvers.units import rounded

# Samples are rounded to this part of their noise, so that k-space in any unit is solved by the same steps.
_STEP = 2.0**-20
# Iterations of conjugate gradients of the picture without a regularizer: more fit the noise.
_SENSE = 10
# The brightest pixels that do not count for the range.
_BRIGHT = 5e-3


@dataclass(frozen=True, eq=False)
class CoilData:
    r"""Whitened k-space, and how it is measured of the picture u without its smooth phase.

    Attributes
    ----------
    y : Tensor
        float64 (1, 2, C, H, W), or (1, 2, C, S) along a trajectory, in multiples of its noise.
    maps : Tensor
        :math:`s e^{i\varphi}`, complex128 (C, H, W).
    sampling : Grid or Trajectory
        where it was measured.
    phase : Tensor
        :math:`e^{i\varphi}`, complex128 (H, W).
    noise : CoilNoise
        of the coils before; its level is the unit of u.
    width : float
        the modulus that is white to the regularizer, in multiples of the noise.
    sense : Tensor
        the picture of the maps and ten conjugate gradients without a regularizer, (1, 2, H, W).
    words : str
        how the maps were found.
    """

    y: Tensor
    maps: Tensor
    sampling: Grid | Trajectory
    phase: Tensor
    noise: CoilNoise
    width: float
    sense: Tensor
    words: str
    signed: ClassVar[bool] = True

    def posed(self, device: torch.device) -> tuple[Tensor, Any, float]:
        """Samples, operator and noise, in float32 on a device."""
        y = self.y.to(device, torch.float32)
        return y, self.physics(like=y), 1.0

    def physics(self, like: Tensor | None = None) -> LinearPhysics:
        """The operator, in the precision and on the device of a tensor."""
        return self.sampling.physics(self.maps, self.y if like is None else like)

    def error(self, u: Tensor, places: Tensor) -> float:
        """Root mean square of what is measured of pictures u less y, at some of the measured places, over the noise."""
        misfit = self.physics().A(u.to(self.y)) - self.y
        return float(misfit[..., places].square().mean().sqrt())

    def without(self, held: Tensor) -> CoilData:
        """The data without the places that are held out; maps, phase and range stay."""
        return replace(self, sampling=self.sampling.without(held), y=self.sampling.kept(self.y, held))


@dataclass(frozen=True, eq=False)
class CoilPicture:
    """A picture reconstructed from the k-space of coils, and what is proved of it.

    Attributes
    ----------
    x : Tensor
        complex64 (H, W), in the unit of k-space (orthonormal transforms).
    solution : Solution
        of u, real and imaginary part, in multiples of the noise.
    sigma : float
        level that the regularizer was asked to remove, as a part of the range.
    noise : CoilNoise
        of the coils.
    range : float
        the modulus that was white to the regularizer, in the unit of k-space.
    maps : str
        how the sensitivity maps were found.
    trials : tuple of Trial
        strengths that were tried on held-out samples; empty where sigma was given.
    errors : dict
        error on the held-out samples over their noise, of zero filling, of CG-SENSE, and of this method.
    """

    x: Tensor
    solution: Solution
    sigma: float
    noise: CoilNoise
    range: float
    maps: str
    trials: tuple[Trial, ...]
    errors: dict[str, float]

    @property
    def relative_gap(self) -> float:
        """The objective is proved to be within this part of its minimum."""
        return float(self.solution.certificate.relative_gap[0])


def prepare_coils(
    kspace: KSpace | ShotKSpace, *, maps: Tensor | None = None, noise: float | Tensor | None = None
) -> CoilData:
    """Whiten k-space, find maps, smooth phase and range.

    Parameters
    ----------
    kspace : KSpace or ShotKSpace
        the measurement.
    maps : Tensor, optional
        as for :func:`icgn.scanners.coil_maps`.
    noise : float or Tensor, optional
        as for :func:`icgn.scanners.coil_noise`.

    Raises
    ------
    TypeError, ValueError
        as these two.
    """
    found = coil_noise(kspace, noise)
    y, middle = _white(kspace.samples, found), kspace.middle()
    sensitivity, words = coil_maps(middle, found, maps)
    phase = _smooth_phase(middle, found, sensitivity)
    posed = CoilData(y, sensitivity * phase, kspace.sampling, phase, found, 1.0, y, words)
    sense = rounded(posed.physics().A_dagger(y, max_iter=_SENSE), _STEP)
    modulus = torch.linalg.vector_norm(sense, dim=1).flatten()
    bright = modulus.kthvalue(max(1, round((1 - _BRIGHT) * modulus.numel()))).values
    return replace(posed, width=float(bright) or 1.0, sense=sense)


def reconstruct_mri(
    kspace: KSpace | ShotKSpace,
    *,
    maps: Tensor | None = None,
    noise: float | Tensor | None = None,
    regularizer: ConvexRegularizer | None = None,
    sigma: float | None = None,
    weight: float = 1.0,
    gap_tol: float = 1e-3,
    max_iter: int = 1000,
    callback: Callback | None = None,
) -> CoilPicture:
    r"""Reconstruct a complex picture from the k-space of coils: the minimizer of the F above, certified.

    Parameters
    ----------
    kspace : KSpace or ShotKSpace
        the measurement, in any unit.
    maps : Tensor, optional
        sensitivity maps, complex (C, H, W); default estimated (:func:`icgn.scanners.coil_maps`).
    noise : float or Tensor, optional
        its level or a noise scan; default found (:func:`icgn.scanners.coil_noise`).
    regularizer : ConvexRegularizer, optional
        R, of gray pictures; default the shipped model.
    sigma : float, optional
        strength: the level that R is asked to remove, as a part of the range. Default the one of least error on a tenth
        of the measured places, which are held out for it; the picture is then that of all places.
    weight : float
        factor w of R.
    gap_tol : float
        relative gap of the objective that is to be proved.
    max_iter : int
        iterations allowed for the final picture.
    callback : callable, optional
        as for :func:`icgn.solve`, of every solution on the way; returning True ends each where it is.

    Returns
    -------
    CoilPicture
        the picture with what is proved of it; nothing is printed.

    Raises
    ------
    TypeError, ValueError
        as :func:`prepare_coils`, and for a regularizer that is not for gray pictures or a sigma that is not positive.
    """
    check_strength(sigma)
    both, data = PerChannel(default_gray(regularizer)), prepare_coils(kspace, maps=maps, noise=noise)
    trials: list[Trial] = []
    errors: dict[str, float] = {}
    start = data.sense
    if sigma is None:
        held = data.sampling.held_out()
        rest = data.without(held)
        sense = rest.physics().A_dagger(rest.y, max_iter=_SENSE)
        sigma, trials, start = choose_sigma(data, held, both, sense, weight=weight, callback=callback)
        plain = {"zero filling": rest.physics().A_adjoint(rest.y), "CG-SENSE": sense}
        errors = {name: data.error(u, held) for name, u in plain.items()} | {"this": min(t.error for t in trials)}
    options: dict[str, Any] = {"gap_tol": gap_tol, "max_iter": max_iter, "callback": callback}
    solution = solve_prepared(data, both, sigma, weight=weight, start=start, **options)
    u = torch.view_as_complex(solution.x[0].movedim(0, -1).double().cpu().contiguous())
    size = kspace.picture if isinstance(kspace, KSpace) else None
    x = _cropped(data.noise.level * data.phase * u, size).to(torch.complex64)
    width = data.noise.level * data.width
    return CoilPicture(x, solution, sigma, data.noise, width, data.words, tuple(trials), errors)


def _white(samples: Tensor, noise: CoilNoise) -> Tensor:
    """Whitened samples, real and imaginary part first, (1, 2, C, ...)."""
    parts = torch.view_as_real(noise.whiten(samples))
    return rounded(parts, _STEP).movedim(-1, 0)[None].contiguous()


def _smooth_phase(kspace: KSpace, noise: CoilNoise, maps: Tensor) -> Tensor:
    """The phase of the middle of k-space by deepinv, complex128 (H, W) of modulus 1."""
    y = _white(kspace.samples, noise)
    physics = Grid(kspace.mask).physics(maps, y)
    gauged = physics.phase_correct_maps(physics.A_adjoint(y))[0]
    phase = (maps.conj() * gauged).sum(0)
    return torch.where(phase == 0, torch.ones_like(phase), torch.sgn(phase))


def _cropped(x: Tensor, size: tuple[int, int] | None) -> Tensor:
    """The middle of a picture, where a file says that only this is meant."""
    if size is None:
        return x
    height, width = (min(a, b) for a, b in zip(size, x.shape, strict=True))
    top, left = (x.shape[0] - height) // 2, (x.shape[1] - width) // 2
    return x[top : top + height, left : left + width]
