"""Measurements of scanners, from the file to a certified picture: MRI with coils, CT."""

from icgn.scanners.axis import axis_offset
from icgn.scanners.cells import cell_gains
from icgn.scanners.coils import CoilNoise, coil_maps, coil_noise
from icgn.scanners.ct import RayData, Slice, held_views, prepare_rays, reconstruct_ct
from icgn.scanners.geometry import Geometry, parse_angles, read_geometry
from icgn.scanners.held_out import Trial, split
from icgn.scanners.kspace import KSpace, checked_noise
from icgn.scanners.kspace_files import read_coils, read_kspace, read_shots
from icgn.scanners.mri import CoilData, CoilPicture, prepare_coils, reconstruct_mri
from icgn.scanners.rays import RayMatrix
from icgn.scanners.shots import ShotKSpace, Trajectory
from icgn.scanners.sinogram import Sinogram, rings
from icgn.scanners.solving import solve_prepared

__all__ = [
    "CoilData",
    "CoilNoise",
    "CoilPicture",
    "Geometry",
    "KSpace",
    "RayData",
    "RayMatrix",
    "ShotKSpace",
    "Sinogram",
    "Slice",
    "Trajectory",
    "Trial",
    "axis_offset",
    "cell_gains",
    "checked_noise",
    "coil_maps",
    "coil_noise",
    "held_views",
    "parse_angles",
    "prepare_coils",
    "prepare_rays",
    "read_coils",
    "read_geometry",
    "read_kspace",
    "read_shots",
    "reconstruct_ct",
    "reconstruct_mri",
    "rings",
    "solve_prepared",
    "split",
]
