"""Where source, object and detector of a CT scan are, and deepinv's operator of it in 1/cm and millimetres."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from deepinv.physics import Tomography
from torch import Tensor

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Beam = Literal["parallel", "fan"]

# Views within so few degrees are angles in radians: no scan is so short. Beyond so many they were converted twice.
_LEAST, _MOST = 7.0, 3600.0
# Bytes of the tables of places that deepinv keeps for every ray.
_TABLES = 6 * 2**30
_NEEDED = {"parallel": ("detector_spacing",), "fan": ("detector_spacing", "source_distance", "detector_distance")}
_KNOWN = ("beam", "detector_spacing", "source_distance", "detector_distance", "size", "pixel_spacing")


@dataclass(frozen=True, eq=False)
class Geometry:
    """A scan in one plane around a fixed axis, which is seen in the middle of the detector.

    Attributes
    ----------
    angles : Tensor
        of the views, in degrees, float64 (V,).
    cells : int
        of the detector.
    detector_spacing : float
        distance of neighbouring cells, in millimetres.
    beam : {"parallel", "fan"}
        rays of a view are parallel, or come from one point and meet a flat detector.
    source_distance, detector_distance : float
        of the fan's source and of the detector from the axis, in millimetres.
    size : int
        pixels of a side of the picture. Of parallel beams as many as there are cells, and pixels as large as these.
    pixel_spacing : float
        of the picture, in millimetres.
    """

    angles: Tensor
    cells: int
    detector_spacing: float
    beam: Beam = "parallel"
    source_distance: float = math.inf
    detector_distance: float = 0.0
    size: int = 0
    pixel_spacing: float = 0.0

    def __post_init__(self) -> None:
        _check_angles(self.angles)
        if self.beam not in _NEEDED:
            raise ValueError(f"beam: got {self.beam!r}, expected 'parallel' or 'fan'")
        if self.cells < 4:
            raise ValueError(f"cells: got {self.cells}, expected at least 4")
        for name in _NEEDED[self.beam]:
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name}: got {value:g}, expected a positive number of millimetres")
        self._set_picture()
        bytes_ = 16 * len(self.angles) * self.cells * self.size
        if bytes_ > _TABLES:
            raise ValueError(
                f"geometry: {len(self.angles)} views of {self.cells} cells and a picture of {self.size} x {self.size}"
                f" need tables of {bytes_ / 2**30:.0f} GiB, expected at most {_TABLES / 2**30:.0f}; sum neighbouring"
                " cells, or take every other view"
            )

    def _set_picture(self) -> None:
        if self.beam == "parallel":
            if self.size not in (0, self.cells) or self.pixel_spacing not in (0, self.detector_spacing):
                raise ValueError(
                    f"geometry: got size {self.size} and pixel_spacing {self.pixel_spacing:g} for a parallel beam,"
                    f" expected those of the detector, {self.cells} and {self.detector_spacing:g}; leave them out"
                )
            object.__setattr__(self, "size", self.cells)
            object.__setattr__(self, "pixel_spacing", float(self.detector_spacing))
            return
        enlarged = (self.source_distance + self.detector_distance) / self.source_distance
        size = self.size or self.cells
        # The circle that all views see, inscribed in the picture.
        half = self.detector_spacing * (self.cells - 1) / 2
        seen = 2 * self.source_distance * math.sin(math.atan(half / (enlarged * self.source_distance)))
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "pixel_spacing", float(self.pixel_spacing or seen / size))
        if self.pixel_spacing * size / 2 >= self.source_distance:
            raise ValueError(
                f"source_distance: got {self.source_distance:g}, expected more than half the side of the picture,"
                f" {self.pixel_spacing * size / 2:.4g} mm"
            )

    @property
    def circle(self) -> Tensor:
        """The circle that is reconstructed, bool (size, size)."""
        t = torch.linspace(-1, 1, self.size, dtype=torch.float64)
        return t[:, None].square() + t.square() <= 1

    @property
    def slant(self) -> Tensor:
        """How much longer the way through a pixel is for the ray of each cell than for the middle one, (cells,)."""
        if self.beam == "parallel":
            return torch.ones(self.cells, dtype=torch.float64)
        away = (torch.arange(self.cells, dtype=torch.float64) - (self.cells - 1) / 2) * self.detector_spacing
        return (1 + (away / (self.source_distance + self.detector_distance)).square()).sqrt()

    def of_views(self, chosen: Tensor) -> Geometry:
        """The same scan with some of its views, bool (V,)."""
        return replace(self, angles=self.angles[chosen])

    def physics(self, dtype: torch.dtype = torch.float64) -> Tomography:
        """The operator: sums over pixels of a picture (1, 1, size, size), (1, 1, cells, V); without the slant.

        The fan of deepinv has its pixels on a grid one pixel narrower than it counts, which its pixel size makes good.
        """
        fan = {
            "pixel_spacing": self.pixel_spacing * (self.size - 1) / self.size,
            "source_radius": self.source_distance,
            "detector_radius": self.detector_distance,
            "n_detector_pixels": self.cells,
            "detector_spacing": self.detector_spacing,
        }
        return Tomography(
            angles=self.angles, img_width=self.size, circle=True, normalize=False, dtype=dtype,
            fan_beam=self.beam == "fan", fan_parameters=fan if self.beam == "fan" else None,
        )  # fmt: skip


def read_geometry(path: Path, angles: Tensor, cells: int) -> Geometry:
    """Read a geometry from a TOML or JSON file.

    Keys: ``beam`` ("parallel" or "fan"), ``detector_spacing``, and of a fan ``source_distance``, ``detector_distance``,
    ``size`` and ``pixel_spacing``; lengths in millimetres.

    Parameters
    ----------
    path : Path
        the file.
    angles : Tensor
        of the views, in degrees.
    cells : int
        of the detector.

    Raises
    ------
    ValueError
        naming the file, for one that cannot be read, keys that are missing or unknown, and lengths that are none.
    """
    try:
        return _geometry(_parsed(path), angles, cells)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: {error}") from error


def _geometry(found: Mapping[str, Any], angles: Tensor, cells: int) -> Geometry:
    unknown = sorted(set(found) - set(_KNOWN))
    if unknown:
        raise ValueError(f"has {unknown[0]!r}, expected of {', '.join(_KNOWN)}")
    beam = found.get("beam", "parallel")
    missing = [name for name in _NEEDED.get(beam, ()) if name not in found]
    if missing:
        raise ValueError(f"has no {missing[0]!r}, expected {', '.join(_NEEDED[beam])} of a {beam} beam, in millimetres")
    wrong = [n for n, v in found.items() if n != "beam" and (isinstance(v, bool) or not isinstance(v, int | float))]
    if wrong:
        raise ValueError(f"{wrong[0]}: got {found[wrong[0]]!r}, expected a number")
    return Geometry(angles, cells, **found)


def _parsed(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ValueError("there is no such file")
    text = path.read_text(encoding="utf-8")
    found = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"holds {type(found).__name__}, expected names and numbers")
    return found


def parse_angles(text: str, views: int) -> Tensor:
    """The angles of views in degrees: ``FIRST,LAST``, spread evenly with the last left out, or a file of numbers.

    Parameters
    ----------
    text : str
        two numbers, or the name of a ``.npy`` or text file with one number for each view.
    views : int
        how many there are.

    Raises
    ------
    ValueError
        for anything else, another number of angles, and angles that look like radians or were converted twice.
    """
    parts = text.split(",")
    try:
        first, last = (float(p) for p in parts)
        found = first + (last - first) * torch.arange(views, dtype=torch.float64) / views
    except ValueError:
        found = _angles_of_file(Path(text), views)
    _check_angles(found)
    return found


def _angles_of_file(path: Path, views: int) -> Tensor:
    if not path.is_file():
        raise ValueError(f"angles: got {str(path)!r}, expected FIRST,LAST in degrees, or a file with one for each view")
    try:
        values = np.load(path, allow_pickle=False) if path.suffix.lower() == ".npy" else _numbers(path)
        found = torch.from_numpy(np.asarray(values, np.float64)).flatten()
    except (ValueError, TypeError, EOFError) as error:
        raise ValueError(f"angles: {path}: cannot be read as numbers ({error})") from error
    if len(found) != views:
        raise ValueError(f"angles: {path}: got {len(found)} angles for {views} views, expected one for each")
    return found


def _numbers(path: Path) -> list[float]:
    return [float(v) for v in path.read_text(encoding="utf-8").replace(",", " ").split()]


def _check_angles(angles: Tensor) -> None:
    if angles.ndim != 1 or len(angles) < 2 or not bool(torch.isfinite(angles).all()):
        raise ValueError(f"angles: got shape {tuple(angles.shape)}, expected finite degrees, one for each of the views")
    span, largest = float(angles.max() - angles.min()), float(angles.abs().max())
    if span < _LEAST:
        raise ValueError(
            f"angles: got {len(angles)} views within {span:.3g} degrees, expected degrees; these look like radians:"
            " multiply them by 180 / pi"
        )
    if largest > _MOST:
        raise ValueError(f"angles: got {largest:.4g} degrees, expected at most {_MOST:g}; were they converted twice?")
