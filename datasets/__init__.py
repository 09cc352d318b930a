"""Photographs: picture files, collections of them, and reproducible noise."""

from icgn.datasets.collections import (
    Photographs,
    Sample,
    bsd68,
    bsds500,
    bundled,
    download_bsds500,
    folder,
    list_pictures,
    to_gray,
)
from icgn.datasets.figure import comparison, difference, visible_gain
from icgn.datasets.files import Job, plan, prepare_folders
from icgn.datasets.noise import add_noise, estimate_sigma, measure_sigma, scaled_luma, seed_of
from icgn.datasets.picture import (
    PIXEL_LIMIT,
    SUFFIXES,
    Picture,
    PictureError,
    depth,
    is_jpeg,
    read_picture,
    write_picture,
)
from icgn.datasets.quality import Quality, quality

__all__ = [
    "PIXEL_LIMIT",
    "SUFFIXES",
    "Job",
    "Photographs",
    "Picture",
    "PictureError",
    "Quality",
    "Sample",
    "add_noise",
    "bsd68",
    "bsds500",
    "bundled",
    "comparison",
    "depth",
    "difference",
    "download_bsds500",
    "estimate_sigma",
    "folder",
    "is_jpeg",
    "list_pictures",
    "measure_sigma",
    "plan",
    "prepare_folders",
    "quality",
    "read_picture",
    "scaled_luma",
    "seed_of",
    "to_gray",
    "visible_gain",
    "write_picture",
]
