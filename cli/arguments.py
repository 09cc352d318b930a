"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Precision = Literal["auto", "float32", "bfloat16"]
Border = Literal["valid", "circular"]
UNIT = (
    "in gray levels of 255 (also of 16-bit files, and of floats in [0, 1]); in the unit of the file for floats beyond,"
    " signed, 32-bit and scaled integers"
)
"""How levels are typed."""

# Options that several commands have.
Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="IN...",
        help="Pictures or stacks (PNG, JPEG, TIFF, .npy, FITS, NIfTI, DICOM, HDF5 by path inside, ...), or folders of"
        " them. All pages of a stack are restored, one by one.",
    ),
]
Recursive = Annotated[
    bool, typer.Option("--recursive", help="Enter folders inside folders, and make them again in OUT.")
]
Range = Annotated[
    str | None,
    typer.Option(
        "--range",
        metavar="LOW,HIGH|auto",
        help="The numbers of the file, in its own unit, that are black and white to the model; auto: found in the"
        " picture. Default: all of the type, or auto where a picture fills little of it.",
    ),
]
Volume = Annotated[
    bool,
    typer.Option(
        "--volume",
        help="Take the pages of a gray stack as slices of one volume, restored at once by what is known of the slices"
        " across all three axes; all of it is in memory.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say warnings and errors only; no table.")]
Json = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="What was read, assumed and proved, an object for each picture; - for stdout."
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        metavar="N",
        help="Processes that share several pictures, and the threads. Default one, or one for each core where there is"
        " enough to do and enough memory.",
    ),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="OUT", help="File, or folder for several; what is there is replaced.")
]
Reference = Annotated[
    Path | None, typer.Option("--reference", metavar="CLEAN", help="Clean picture, or folder: adds PSNR and SSIM.")
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Shipped model, path, tv, or FILE.py:CLASS of your own, which is run; default conditional-gray or"
        " conditional-color. Gray ones take each channel.",
    ),
]
_DISTANCE = "Certified RMS distance to the minimizer, in intensities (0 to 1)"
Tol = Annotated[
    float | None,
    typer.Option("--tol", help=f"{_DISTANCE}; default a 250th of sigma, which nobody sees.", show_default=False),
]
FixedTol = Annotated[float, typer.Option("--tol", help=f"{_DISTANCE}.")]
Gap = Annotated[
    float, typer.Option("--gap", help="Certified relative gap of the objective, where no distance can be certified.")
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, ...; default cuda where there is one.")]
Compare = Annotated[
    Path | None,
    typer.Option(
        "--compare", metavar="FIG", help="Figure of one picture: before, restored and difference side by side."
    ),
]
Uncertainty = Annotated[
    Path | None,
    typer.Option(
        "--uncertainty",
        metavar="MAP",
        help="Picture of how far the pixels of one picture may be from the truth: calibrated for white noise.",
    ),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, metavar="N", help="CPU threads.")]
NoiseKind = Annotated[
    str | None,
    typer.Option(
        "--noise",
        metavar="KIND",
        help=f"Noise of the measurement: LEVEL, {UNIT}, or as for denoise; default estimated.",
    ),
]
ModelSigma = Annotated[
    float | None,
    typer.Option(
        "--sigma",
        help=f"Noise level at which the model is used, {UNIT}: how much is smoothed. Default the noise, times"
        " 7.5 (deblur) or 6 (inpaint), which suits them; for restore, try six to eight times the noise.",
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(
        "--sigma",
        help="Strength: level that the model removes, white being 255. Default the one of least error on a tenth of"
        " what was measured, which is held out to find it.",
    ),
]
Factor = Annotated[float, typer.Option("--weight", min=0.0, metavar="W", help="Factor of the regularizer.")]
SmallGap = Annotated[float, typer.Option("--gap", help="Certified relative gap of the objective.")]
Weight = Annotated[
    str,
    typer.Option(
        "--weight",
        metavar="W",
        help="Factor of the regularizer, or the rule that finds it from the noise level: discrepancy (the residual as"
        " large as the noise) or sure (the least estimated error); both take five to ten times as long; large"
        " pictures are searched on tiles that make up a quarter megapixel.",
    ),
]
