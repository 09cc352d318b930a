"""Files of pictures and of stacks, collections of photographs, and reproducible noise."""

from icgn.datasets.camera import Shot, simulate_camera
from icgn.datasets.collections import (
    Photographs,
    Sample,
    bsd68,
    bsds500,
    bundled,
    download_bsds500,
    folder,
    to_gray,
)
from icgn.datasets.figure import comparison, difference, visible_gain
from icgn.datasets.files import Job, left_out, plan, prepare_folders
from icgn.datasets.folders import Listing, list_pictures, survey
from icgn.datasets.formats import Container
from icgn.datasets.noise import (
    add_noise,
    effective_level,
    estimate_sigma,
    luma,
    measure_sigma,
    neighbour_correlation,
    scaled_luma,
    seed_of,
)
from icgn.datasets.picture import (
    FILE_SUFFIXES,
    PIXEL_LIMIT,
    SUFFIXES,
    Picture,
    depth,
    read_picture,
    write_picture,
)
from icgn.datasets.quality import Quality, quality
from icgn.datasets.stack import Extent, Page, PictureError, Stack, measure, open_stack
from icgn.datasets.stack_writer import StackWriter, create_stack

__all__ = [
    "FILE_SUFFIXES",
    "PIXEL_LIMIT",
    "SUFFIXES",
    "Container",
    "Extent",
    "Job",
    "Listing",
    "Page",
    "Photographs",
    "Picture",
    "PictureError",
    "Quality",
    "Sample",
    "Shot",
    "Stack",
    "StackWriter",
    "add_noise",
    "bsd68",
    "bsds500",
    "bundled",
    "comparison",
    "create_stack",
    "depth",
    "difference",
    "download_bsds500",
    "effective_level",
    "estimate_sigma",
    "folder",
    "left_out",
    "list_pictures",
    "luma",
    "measure",
    "measure_sigma",
    "neighbour_correlation",
    "open_stack",
    "plan",
    "prepare_folders",
    "quality",
    "read_picture",
    "scaled_luma",
    "seed_of",
    "simulate_camera",
    "survey",
    "to_gray",
    "visible_gain",
    "write_picture",
]
