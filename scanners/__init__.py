"""Measurements of scanners, from the file to a certified picture: MRI with coils."""

from icgn.scanners.coils import CoilNoise, coil_maps, coil_noise
from icgn.scanners.held_out import Trial, split
from icgn.scanners.kspace import KSpace, checked_noise
from icgn.scanners.kspace_files import read_coils, read_kspace
from icgn.scanners.mri import CoilData, CoilPicture, prepare_coils, reconstruct_mri, solve_coils

__all__ = [
    "CoilData",
    "CoilNoise",
    "CoilPicture",
    "KSpace",
    "Trial",
    "checked_noise",
    "coil_maps",
    "coil_noise",
    "prepare_coils",
    "read_coils",
    "read_kspace",
    "reconstruct_mri",
    "solve_coils",
    "split",
]
