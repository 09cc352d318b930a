"""Where the axis of rotation is seen on the detector of a CT scan, from the sinogram alone."""

from __future__ import annotations

import torch

from icgn.scanners.geometry import Geometry
from icgn.scanners.sinogram import Sinogram

# Degrees that parallel views have to cover at least, and those of a fan, which has to go around.
_SPANS = {"parallel": 150.0, "fan": 359.0}


def axis_offset(sinogram: Sinogram, geometry: Geometry) -> tuple[float, float] | None:
    r"""How far from the middle of the detector the axis is seen, in cells, and the standard error of that.

    The first moment of a parallel view over its sum is the middle of mass of the object as it is seen from there,
    :math:`o + a \cos\theta + b \sin\theta`, whatever the object; o is the axis (Helgason 1965, Ludwig 1966: conditions
    of consistency). Over all views of a fan around the object the moments are odd about the axis, so that o is their
    mean. It is found by least squares.

    Parameters
    ----------
    sinogram : Sinogram
        of an object that all views see as a whole.
    geometry : Geometry
        of the scan.

    Returns
    -------
    (float, float) or None
        positive towards the later cells; None where the views cover too little, or nothing is attenuated.
    """
    angles = geometry.angles.double()
    step = angles.sort().values.diff().median()
    if float(angles.max() - angles.min() + step) < _SPANS[geometry.beam]:
        return None
    away = torch.arange(geometry.cells, dtype=torch.float64) - (geometry.cells - 1) / 2
    integrals = sinogram.integrals.double()
    mass = float(integrals.sum(1).mean())
    if not mass > 0:
        return None
    moments = (integrals * away).sum(1) / mass
    turn = torch.deg2rad(angles)
    waves = torch.stack([torch.ones_like(turn), turn.cos(), turn.sin()], 1)
    inverse = torch.linalg.inv(waves.T @ waves)
    found = inverse @ (waves.T @ moments)
    left = float((moments - waves @ found).square().sum()) / max(1, len(turn) - 3)
    return float(found[0]), float((left * inverse[0, 0]).sqrt())
