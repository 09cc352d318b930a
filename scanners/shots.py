r"""K-space that was not measured on a grid: radial, spiral, any trajectory, by sigpy's transform.

Coil c measures

.. math::

    y_c(k) = \tfrac{1}{\sqrt{HW}} \sum_r s_c(r)\, x(r)\, e^{-2 \pi i k \cdot r},

r = (row / H, column / W) from the middle of the picture, k in cycles per field of view, as BART and sigpy write
trajectories. The transform is interpolated in an oversampled grid (Beatty, Nishimura, Pauly 2005, IEEE Trans. Med.
Imaging 24(6), doi:10.1109/TMI.2005.848376); its adjoint is exact.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from deepinv.physics import LinearPhysics, MultiCoilMRI
from numpy.typing import NDArray
from torch import Tensor

from icgn.scanners.grid import CALIBRATION
from icgn.scanners.held_out import PART, drawn
from icgn.scanners.kspace import KSpace, checked_noise
from icgn.solvers.units import rounded

# Oversampling of the grid, and width of the kernel on it: an error of 1e-5.
_OVERSAMPLED, _KERNEL = 2.0, 6
# Points that reach less far are not in cycles per field of view.
_LEAST = 4.0
# The largest sample lies within this part of the reach from the middle.
_MIDDLE = 1 / 4
# Conjugate gradients of the pictures of single coils, whose middle of k-space maps are estimated from.
_STEPS = 10
# Their samples are rounded to this part of the mean, so that the same steps solve k-space in any unit.
_STEP = 2.0**-30


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Where k-space was measured.

    Attributes
    ----------
    points : Tensor
        float64 (S, 2): along rows and along columns of k-space, in cycles per field of view.
    shots : Tensor
        the number of the spoke or other shot that each point is of, int64 (S,).
    shape : (int, int)
        height and width of the picture.
    """

    points: Tensor
    shots: Tensor
    shape: tuple[int, int]

    def physics(self, maps: Tensor, like: Tensor) -> CoilTransform:
        """The operator of coils with complex maps (C, H, W), in the precision and on the device of a tensor."""
        return CoilTransform(self.points, torch.view_as_real(maps).to(like))

    def without(self, held: Tensor) -> Trajectory:
        """What is left when some points, bool (S,), are held out."""
        return replace(self, points=self.points[~held], shots=self.shots[~held])

    def kept(self, y: Tensor, held: Tensor) -> Tensor:
        """The samples (..., S) that are left then."""
        return y[..., ~held]

    def held_out(self) -> Tensor:
        """A tenth of the shots, bool (S,).

        Raises
        ------
        ValueError
            for less than ten shots.
        """
        numbers = self.shots.unique()
        free = torch.ones(len(numbers), dtype=torch.bool)
        return torch.isin(self.shots, numbers[drawn(free, PART, torch.Generator().manual_seed(0))])


@dataclass(frozen=True, eq=False)
class ShotKSpace:
    """Samples of coils along a trajectory; make it by :meth:`of`, which checks.

    Attributes
    ----------
    samples : Tensor
        complex128 (C, S), in the unit of the file.
    trajectory : Trajectory
        where they were measured.
    noise : Tensor or None
        as that of :class:`KSpace`.
    words : str
        what was read.
    """

    samples: Tensor
    trajectory: Trajectory
    noise: Tensor | None = None
    words: str = ""

    @classmethod
    def of(
        cls, samples: Tensor, points: Tensor, *, size: int | None = None, noise: Tensor | None = None, words: str = ""
    ) -> ShotKSpace:
        """Check samples and trajectory.

        Parameters
        ----------
        samples : Tensor
            complex (C, shots, readout), or (C, shots) with one point each.
        points : Tensor
            real (shots, readout, 2), or (shots, 2): rows and columns, in cycles per field of view.
        size : int, optional
            pixels of a side of the picture; default twice the reach of the points.
        noise : Tensor, optional
            complex (C, ...).
        words : str
            what was read.

        Raises
        ------
        TypeError
            for samples that are not complex, or points that are.
        ValueError
            for shapes that do not belong together, NaN, coils and shots of zeros, and points in another unit.
        """
        if not samples.is_complex() or points.is_complex():
            raise TypeError(
                f"trajectory: got samples of {samples.dtype} and points of {points.dtype}, expected complex samples and"
                " real points"
            )
        if samples.ndim < 2 or points.ndim < 2 or points.shape[-1] != 2 or samples.shape[1:] != points.shape[:-1]:
            raise ValueError(
                f"trajectory: got points of shape {tuple(points.shape)} for samples of shape {tuple(samples.shape)},"
                f" expected (shots, readout, 2) for (coils, shots, readout): {(*samples.shape[1:], 2)}"
            )
        for name, values in (("samples", torch.view_as_real(samples)), ("points", points)):
            bad = int((~torch.isfinite(values)).sum())
            if bad:
                raise ValueError(f"trajectory: got {bad} NaN or infinite numbers of {name}, expected finite ones")
        _check_zeros(samples)
        shots = torch.arange(points.shape[0]).repeat_interleave(math.prod(points.shape[1:-1]))
        flat, places = samples.flatten(1).to(torch.complex128), points.reshape(-1, 2).double()
        side = _side(places, size)
        reach = places.square().sum(1)
        largest = int(flat.abs().square().sum(0).argmax())
        if float(reach[largest]) > _MIDDLE**2 * float(reach.max()):
            where = ", ".join(f"{v:.1f}" for v in places[largest].tolist())
            raise ValueError(
                f"trajectory: the largest sample is at ({where}), expected it near the middle of k-space, (0, 0); are"
                " points in the order of samples?"
            )
        noise = None if noise is None else checked_noise(noise, len(samples))
        return cls(flat, Trajectory(places, shots, (side, side)), noise, words)

    @property
    def coils(self) -> int:
        """How many coils there are."""
        return len(self.samples)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Coils, height and width."""
        return (self.coils, *self.trajectory.shape)

    @property
    def acceleration(self) -> float:
        """Places of the picture over samples."""
        return math.prod(self.trajectory.shape) / self.samples.shape[1]

    @property
    def extent(self) -> str:
        """How much was measured, in words."""
        return f"{len(self.trajectory.shots.unique())} shots of {self.samples.shape[1]} samples in all"

    @property
    def measured(self) -> tuple[Tensor, Tensor]:
        """All samples, (C, S), and how far from the middle they are, (S,)."""
        return self.samples, self.trajectory.points.square().sum(1)

    @property
    def sampling(self) -> Trajectory:
        """Where it was measured."""
        return self.trajectory

    def middle(self) -> KSpace:
        """The middle of k-space on a grid: of the pictures of single coils, by ten conjugate gradients each."""
        height, width = self.trajectory.shape
        size = self.samples.abs().square().mean().sqrt()
        each = rounded(torch.view_as_real(self.samples / size), _STEP).movedim(-1, 1)[:, :, None]
        alone = torch.ones(1, height, width, dtype=torch.complex128)
        pictures = self.trajectory.physics(alone, each).A_dagger(each, max_iter=_STEPS)
        grid = MultiCoilMRI.fft(torch.view_as_complex(pictures.movedim(1, -1).contiguous()), dim=(-2, -1))
        # Spokes are as close as the grid up to so far from the middle.
        spokes = len(self.trajectory.shots.unique())
        side = min(CALIBRATION, height, int(2 * spokes / math.pi))
        mask = torch.zeros(height, width, dtype=torch.bool)
        top, left = height // 2 - side // 2, width // 2 - side // 2
        mask[top : top + side, left : left + side] = True
        return KSpace(size * grid * mask, mask)


class CoilTransform(LinearPhysics):  # type: ignore[misc]
    """Pictures (B, 2, H, W), real and imaginary part, to samples of coils (B, 2, C, S) along a trajectory.

    Parameters
    ----------
    points : Tensor
        (S, 2), in cycles per field of view.
    maps : Tensor
        of the coils, real and imaginary part last, (C, H, W, 2).
    """

    maps: Tensor

    def __init__(self, points: Tensor, maps: Tensor) -> None:
        if importlib.util.find_spec("sigpy") is None:
            raise ValueError("trajectory: sigpy, which transforms it, is missing: pip install 'icgn[scanners]'")
        super().__init__()
        # Not a buffer: points keep their precision where the maps become float32.
        self.points: NDArray[np.float64] = points.double().numpy()
        self.register_buffer("maps", maps)

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:  # noqa: N802
        """The samples of pictures."""
        from sigpy import nufft

        seen = torch.view_as_complex(self.maps) * _complex(x)[:, None]
        found = nufft(seen.detach().cpu().numpy(), self._at(x), oversamp=_OVERSAMPLED, width=_KERNEL)
        return _real(torch.from_numpy(found).to(seen))

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:  # noqa: N802
        """The adjoint."""
        from sigpy import nufft_adjoint

        values, maps = _complex(y), torch.view_as_complex(self.maps)
        shape = (*values.shape[:2], *maps.shape[1:])
        found = nufft_adjoint(
            values.detach().cpu().numpy(), self._at(y), oshape=shape, oversamp=_OVERSAMPLED, width=_KERNEL
        )
        return _real((maps.conj() * torch.from_numpy(found).to(values)).sum(1))

    def _at(self, like: Tensor) -> NDArray[Any]:
        return self.points.astype(np.float64 if like.dtype is torch.float64 else np.float32)


def _complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.movedim(1, -1).contiguous())


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x).movedim(-1, 1).contiguous()


def _side(points: Tensor, size: int | None) -> int:
    reach = float(points.abs().max())
    if reach < _LEAST:
        raise ValueError(
            f"trajectory: got points up to {reach:.3g} from the middle, expected cycles per field of view, as BART and"
            " sigpy have them, up to half the size of the picture; multiply by the size, and of radians divide by 2 pi"
        )
    if size is None:
        return 2 * math.ceil(reach)
    if 2 * reach > size + 1:
        raise ValueError(
            f"size: got {size} pixels for points up to {reach:.4g}, expected at least {math.ceil(2 * reach)}"
        )
    return size


def _check_zeros(samples: Tensor) -> None:
    for axis, name in ((0, "coil"), (1, "shot")):
        others = tuple(i for i in range(samples.ndim) if i != axis)
        empty = torch.nonzero((samples == 0).all(others) if others else samples == 0).flatten().tolist()
        if empty:
            raise ValueError(
                f"trajectory: {name} {empty[0]} is zero throughout ({len(empty)} of {samples.shape[axis]}), expected"
                f" samples; leave the {name} out"
            )
