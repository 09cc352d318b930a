r"""CT in its units: from counts or line integrals to a certified slice in 1/cm.

.. math::

    F(x) = \sum_i \frac{\sigma^2}{2 \ell_i^2} (A x - p)_i^2 + w R(x; \sigma), \qquad 0 \le x \le b,

A the integrals of x along the rays. Of line integrals :math:`\ell` is their noise. Of counts the sum is the quadratic
approximation of the likelihood around the integrals of a first solution, with the expected counts as weights
(:mod:`icgn.scanners.sinogram`); what is proved is proved for that approximation. Where the gains of the cells differ,
their offsets are unknowns of the same problem (:mod:`icgn.scanners.cells`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from icgn.functionals.intensities import least_squares
from icgn.functionals.noise import White
from icgn.regularizers import ConvexRegularizer
from icgn.scanners.axis import axis_offset
from icgn.scanners.cells import CellOffsets, FreeCells, cell_gains
from icgn.scanners.geometry import Geometry
from icgn.scanners.held_out import PART, Trial
from icgn.scanners.rays import RayMatrix
from icgn.scanners.sinogram import Sinogram, rings
from icgn.scanners.solving import FIRST, check_strength, choose_sigma, default_gray, solve_prepared, solve_roughly
from icgn.solvers import Callback, Solution
from icgn.solvers.units import rounded

# The brightest pixels of the circle that do not count for the range.
_BRIGHT = 5e-3
# Noise of views that are held out, as a multiple of the largest: they weigh nothing.
_BLIND = 1e6
# Line integrals and levels are rounded to this part of the median noise: data in any unit are solved by the same steps.
_STEP = 2.0**-20
_CM = 0.1


@dataclass(frozen=True, eq=False)
class RayData:
    """A sinogram in the order of deepinv, without a unit: over its median noise, pixels counted as 1.

    Attributes
    ----------
    geometry : Geometry
        of the scan.
    physics : deepinv.physics.LinearPhysics
        sums over pixels, (1, 1, W, W) to (1, 1, N, V).
    sinogram : Sinogram
        line integrals, which are y times `factor`.
    factor : Tensor
        the median noise of line integrals times the slant of each ray, (1, 1, N, 1).
    width : float
        the attenuation that is white to the regularizer, times :attr:`unit`.
    rough : Tensor
        ten conjugate gradients without a regularizer, (1, 1, W, W).
    gains : Tensor or None
        deviations of the offsets of the cells, float64 (N,); None for a detector without any.
    """

    geometry: Geometry
    physics: Any
    sinogram: Sinogram
    factor: Tensor
    width: float
    rough: Tensor
    gains: Tensor | None = None
    signed: ClassVar[bool] = False

    @property
    def y(self) -> Tensor:
        """Measured sums over pixels, (1, 1, N, V)."""
        return rounded(self.sinogram.integrals.T[None, None] / self.factor, _STEP)

    @property
    def levels(self) -> Tensor:
        """Their noise."""
        return rounded(self.sinogram.levels.T[None, None] / self.factor, _STEP).clamp_min(_STEP)

    @property
    def unit(self) -> float:
        """The attenuation in 1/cm that is 1 in pictures of these data."""
        return float((self.factor[0, 0, :, 0] / self.geometry.slant)[0]) / (_CM * self.geometry.pixel_spacing)

    def posed(self, device: torch.device) -> tuple[Tensor, Any, White]:
        """Measured sums, operator and noise, in float64 on a device; offsets of cells are minimized over."""
        y, physics, noise = self.y.to(device), self.physics.to(device), White(self.levels.to(device))
        if self.gains is None:
            return y, physics, noise
        free = FreeCells(physics, self._cells(slice(None))).to(device)
        return rounded(free.cells.apply(y.transpose(-2, -1)), _STEP).transpose(-2, -1), free, noise

    def residual(self, x: Tensor) -> Tensor:
        """Measured less explained, over its noise, (V, N); offsets of cells are left in it."""
        found = (self.y - self.physics.A(x.to(self.y))) / self.levels
        return found[0, 0].T

    def explained(self, x: Tensor, views: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The residual less the offsets of cells, over its noise, (V, N), and the offsets as line integrals (N,).

        They are the most likely ones given the slice and some of the views, bool (V,); default all.
        """
        residual = self.residual(x)
        if self.gains is None:
            return residual, residual.new_zeros(residual.shape[1])
        chosen = slice(None) if views is None else views
        levels = self.levels[0, 0].T
        offsets = self._cells(chosen).offsets((residual * levels)[chosen])
        return residual - offsets / levels, offsets * self.factor[0, 0, :, 0]

    def _cells(self, views: Tensor | slice) -> CellOffsets:
        assert self.gains is not None
        return CellOffsets.of(self.levels[0, 0].T[views], rounded(self.gains / self.factor[0, 0, :, 0], _STEP))

    def error(self, x: Tensor, views: Tensor) -> float:
        """Root mean square over some views, bool (V,), of the residual over its noise, given the others' offsets."""
        return float(self.explained(x, ~views)[0][views].square().mean().sqrt())

    def without(self, views: Tensor) -> RayData:
        """The data without some views, which get so much noise that they weigh nothing."""
        levels = torch.where(views[:, None], _BLIND * self.sinogram.levels.max(), self.sinogram.levels)
        return replace(self, sinogram=replace(self.sinogram, levels=levels))

    def expanded(self, x: Tensor) -> RayData:
        """The likelihood of counts to second order around the line integrals of a picture."""
        integrals = (self.physics.A(x.to(self.factor)) * self.factor)[0, 0].T
        return replace(self, sinogram=self.sinogram.expanded(integrals))


@dataclass(frozen=True, eq=False)
class Slice:
    """A slice reconstructed from a sinogram, and what is proved of it.

    Attributes
    ----------
    x : Tensor
        attenuation in 1/cm, float32 (W, W); 0 outside the circle that all views see.
    solution : Solution
        of the whole square.
    sigma : float
        level that the regularizer was asked to remove, as a part of the range.
    range : float
        the attenuation that was white to the regularizer, in 1/cm.
    trials : tuple of Trial
        strengths that were tried on held-out views; empty where sigma was given.
    errors : dict
        error on the held-out views over their noise, of least squares and of this method.
    noise : str
        which data term it is.
    rings : list of (int, float)
        cells of the detector that differ from what all views explain (:func:`icgn.scanners.sinogram.rings`).
    offsets : Tensor
        what was found of each cell and subtracted from its line integrals, float64 (N,); 0 for a detector without.
    misfit : float
        root mean square of the residual over its noise; 1 if noise is all that is left.
    unexplained : float
        root mean square of the residual over that of the line integrals.
    axis : (float, float) or None
        where the axis is seen, in cells from the middle of the detector, and the standard error of that
        (:func:`icgn.scanners.axis_offset`).
    """

    x: Tensor
    solution: Solution
    sigma: float
    range: float
    trials: tuple[Trial, ...]
    errors: dict[str, float]
    noise: str
    rings: list[tuple[int, float]]
    offsets: Tensor
    misfit: float
    unexplained: float
    axis: tuple[float, float] | None

    @property
    def relative_gap(self) -> float:
        """The objective is proved to be within this part of its minimum."""
        return float(self.solution.certificate.relative_gap[0])


def prepare_rays(sinogram: Sinogram, geometry: Geometry, *, gains: float | Tensor | None = 0.0) -> RayData:
    """Find the operator, a rough picture and the range.

    Parameters
    ----------
    sinogram : Sinogram
        the measurement.
    geometry : Geometry
        with as many views and cells.
    gains : float or Tensor, optional
        deviation of the logarithms of the gains of cells, one or (N,); None: found (:func:`icgn.scanners.cell_gains`).

    Raises
    ------
    ValueError
        for another shape, a sinogram of nothing, and gains that are negative.
    """
    expected = (len(geometry.angles), geometry.cells)
    if tuple(sinogram.integrals.shape) != expected:
        raise ValueError(f"sinogram: got shape {tuple(sinogram.integrals.shape)}, expected {expected}: views, cells")
    physics = RayMatrix.of(geometry.physics())
    factor = (sinogram.levels.median() * geometry.slant).reshape(1, 1, -1, 1)
    data = RayData(geometry, physics, sinogram, factor, 1.0, factor, _gains(gains, sinogram))
    y, free, _ = data.posed(factor.device)
    rough = least_squares(y, free).clamp_min(0)
    inside = rough[0, 0][geometry.circle]
    width = float(inside.kthvalue(max(1, round((1 - _BRIGHT) * inside.numel()))).values)
    if not width > 0:
        raise ValueError("sinogram: the rays are not attenuated anywhere, expected line integrals above 0")
    return replace(data, width=width, rough=rough)


def _gains(given: float | Tensor | None, sinogram: Sinogram) -> Tensor | None:
    """Deviations of the offsets of all cells; None for none."""
    if given is None:
        given = cell_gains(sinogram.integrals, sinogram.levels)
    cells = sinogram.integrals.shape[1]
    found = torch.as_tensor(given, dtype=torch.float64)
    if tuple(found.shape) not in ((), (cells,)) or not bool(((found >= 0) & torch.isfinite(found)).all()):
        raise ValueError(
            f"gains: got shape {tuple(found.shape)} from {float(found.min()):.3g}, expected one number >= 0, or {cells}"
        )
    return found.expand(cells) if bool((found > 0).any()) else None


def reconstruct_ct(
    sinogram: Sinogram,
    geometry: Geometry,
    *,
    gains: float | Tensor | None = None,
    regularizer: ConvexRegularizer | None = None,
    sigma: float | None = None,
    weight: float = 1.0,
    gap_tol: float = 1e-3,
    max_iter: int = 3000,
    callback: Callback | None = None,
) -> Slice:
    r"""Reconstruct a slice from a sinogram: the minimizer of the F above, certified.

    Parameters
    ----------
    sinogram : Sinogram
        counts or line integrals.
    geometry : Geometry
        of the scan.
    gains : float or Tensor, optional
        deviation of the logarithms of the gains of cells, which make rings, one or (N,); 0: they are equal. Default
        found in the sinogram (:func:`icgn.scanners.cell_gains`).
    regularizer : ConvexRegularizer, optional
        R, of gray pictures; default the shipped model.
    sigma : float, optional
        strength: the level that R is asked to remove, as a part of the range. Default the one of least error on a tenth
        of the views, which are held out for it; the slice is then that of all views.
    weight : float
        factor w of R.
    gap_tol : float
        relative gap of the objective that is to be proved.
    max_iter : int
        iterations allowed for the final slice.
    callback : callable, optional
        as for :func:`icgn.solve`, of every solution on the way; returning True ends each where it is.

    Returns
    -------
    Slice
        the slice with what is proved of it; nothing is printed.

    Raises
    ------
    ValueError
        as :func:`prepare_rays`, for a sigma that is no part of the range, and for fewer than ten views without one.
    """
    check_strength(sigma)
    data, regularizer = prepare_rays(sinogram, geometry, gains=gains), default_gray(regularizer)
    start, unit = data.rough, data.unit
    common: dict[str, Any] = {"weight": weight, "callback": callback}
    if sinogram.counts is not None:
        start = solve_roughly(data, regularizer, sigma or FIRST, start, **common)
        data = data.expanded(start)
    trials: list[Trial] = []
    errors: dict[str, float] = {}
    if sigma is None:
        held = held_views(len(geometry.angles))
        sigma, trials, start = choose_sigma(data, held, regularizer, start, **common)
        plain = prepare_rays(sinogram.of_views(~held), geometry.of_views(~held), gains=data.gains)
        rough = plain.rough * (plain.unit / unit)
        errors = {"least squares": data.error(rough, held), "this": min(t.error for t in trials)}
    solution = solve_prepared(data, regularizer, sigma, start=start, gap_tol=gap_tol, max_iter=max_iter, **common)
    x = solution.x.detach().cpu()
    shown = torch.where(geometry.circle, unit * x[0, 0], 0.0).float()
    found = rings(data.residual(x), torch.ones_like(sinogram.levels))
    residual, offsets = data.explained(x)
    misfit = float(residual.square().mean().sqrt())
    words, integrals = data.sinogram.words, data.sinogram.integrals
    unexplained = float((residual * data.sinogram.levels).square().mean().sqrt() / integrals.square().mean().sqrt())
    axis = axis_offset(sinogram, geometry)
    width = unit * data.width
    return Slice(shown, solution, sigma, width, tuple(trials), errors, words, found, offsets, misfit, unexplained, axis)


def held_views(views: int, seed: int = 0) -> Tensor:
    """A tenth of the views at random, the first and the last left in, bool (V,).

    Parameters
    ----------
    views : int
        how many there are, at least ten.
    seed : int
        of the drawing.

    Raises
    ------
    ValueError
        for fewer.
    """
    if views < 10:
        raise ValueError(f"strength: got {views} views, expected at least 10 to hold some out; give sigma")
    generator = torch.Generator().manual_seed(seed)
    chosen = 1 + torch.randperm(views - 2, generator=generator)[: max(1, round(PART * views))]
    return torch.zeros(views, dtype=torch.bool).index_fill(0, chosen, True)
