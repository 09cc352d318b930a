"""One picture in, one certified picture out: what the command line, the page and scripts call."""

from icgn.pictures.counts import Stabilized, stabilize
from icgn.pictures.kernels import Kernel, load_kernel, make_kernel, read_kernel
from icgn.pictures.levels import NoiseLevel, Note, estimated_level, measured_level
from icgn.pictures.masks import Mask, MaskPages, known_pixels, load_mask, open_mask, read_mask
from icgn.pictures.models import default_regularizer, regularizers_by_channels
from icgn.pictures.noise import NoiseEstimate, estimate_noise
from icgn.pictures.noise_words import NoiseWords, parse_noise
from icgn.pictures.picture import restore_picture
from icgn.pictures.ranges import intensity_range
from icgn.pictures.result import Restored
from icgn.pictures.tasks import Deblur, Denoise, Enlarge, Inpaint, Measured, Pose, Task
from icgn.pictures.tensors import deblur, denoise, inpaint

__all__ = [
    "Deblur",
    "Denoise",
    "Enlarge",
    "Inpaint",
    "Kernel",
    "Mask",
    "MaskPages",
    "Measured",
    "NoiseEstimate",
    "NoiseLevel",
    "NoiseWords",
    "Note",
    "Pose",
    "Restored",
    "Stabilized",
    "Task",
    "deblur",
    "default_regularizer",
    "denoise",
    "estimate_noise",
    "estimated_level",
    "inpaint",
    "intensity_range",
    "known_pixels",
    "load_kernel",
    "load_mask",
    "make_kernel",
    "measured_level",
    "open_mask",
    "parse_noise",
    "read_kernel",
    "read_mask",
    "regularizers_by_channels",
    "restore_picture",
    "stabilize",
]
