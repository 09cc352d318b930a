"""The command line: ``icgn denoise``, ``deblur``, ``inpaint``, ``restore``, ``mri``, ``ct`` and others."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from icgn.cli.arguments import (
    UNIT,
    Border,
    Compare,
    Device,
    FixedTol,
    Gap,
    Inputs,
    Jobs,
    Json,
    Model,
    ModelSigma,
    NoiseKind,
    Output,
    Precision,
    Quiet,
    Range,
    Recursive,
    Reference,
    Threads,
    Tol,
    Uncertainty,
    Volume,
    Weight,
)
from icgn.cli.ct import ct
from icgn.cli.lazy import defer
from icgn.cli.mri import mri
from icgn.cli.screen import console, refuse, say, warnings_said

# Commands import what they need inside, torch, deepinv and scikit-image included: `icgn --help` answers at once.
app = typer.Typer(
    name="icgn",
    help="Restore pictures with learned convex regularizers, and prove how far each is from the global minimizer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# Old spellings of options, which keep working for one release.
_RENAMED = {"--strength": "--weight"}


# The table of docs/words.md in short.
_WORDS = """\b
Words          unit           in Python    too smooth?     too noisy?
--sigma        gray levels    sigma        lower it        raise it
--noise        gray levels    noise        lower it        raise it
--weight       none, 1        weight       lower it        raise it
sigma: the level that the model removes; noise: that of the measurement;
weight: a factor of the smoothing (once called strength). More: docs/words.md."""


class Command(TyperCommand):
    """A command that takes old spellings of its options, with a warning that names the new one."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if {"inputs", "weight"} <= {p.name for p in self.params}:
            self.epilog = _WORDS

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [self._renamed(a) for a in args])

    def _renamed(self, argument: str) -> str:
        name, equals, value = argument.partition("=")
        new = _RENAMED.get(name)
        if new is None:
            return argument
        say("warning", f"{name} is {new} now; the old name will go with the next release")
        return f"{new}{equals}{value}"


@app.command(cls=Command)
def denoise(
    inputs: Inputs,
    output: Output,
    noise: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Noise of the pictures: auto (the default: found in each); white:LEVEL or correlated:LEVEL, levels as"
            " for --sigma; poisson, poisson:GAIN or poisson-gaussian:GAIN,READ for counts, in values of the file.",
        ),
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option(help=f"Level to remove, that of the noise if it is white, {UNIT}. Default by --noise."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="CLEAN", help="Clean picture, or folder: adds PSNR and SSIM, and gives sigma."),
    ] = None,
    model: Model = None,
    weight: Weight = "1",
    tol: Tol = None,
    device: Device = None,
    compare: Compare = None,
    uncertainty: Uncertainty = None,
    range: Range = None,
    recursive: Recursive = False,
    volume: Volume = False,
    quiet: Quiet = False,
    json: Json = None,
    jobs: Jobs = None,
) -> None:
    """Remove noise from pictures.

    Without --noise and --sigma the noise is measured against --reference, or else found in the picture: white,
    correlated as in photographs, or of counts; how large it is; and this is said. Depth, transparency, colour profile,
    dpi and Exif data are kept as far as the format of OUT can, and pictures are turned upright. The exit code is 0 only
    if every picture was written; 2 if the command cannot be carried out as given.
    """
    from icgn.cli.request import Request
    from icgn.cli.restoring import denoise_files

    request = Request(
        inputs, output, reference, compare, model, device, weight, tol,
        sigma=sigma, range=range, recursive=recursive, volume=volume, quiet=quiet, json=json, processes=jobs,
        uncertainty=uncertainty,
    )  # fmt: skip
    denoise_files(request, noise)


@app.command(cls=Command)
def deblur(
    inputs: Inputs,
    output: Output,
    kernel: Annotated[
        str,
        typer.Option(
            metavar="KERNEL",
            help="File of a blurred point, of any kind; gaussian:STD (pixels); or motion:LENGTH,ANGLE.",
        ),
    ],
    border: Annotated[
        Border, typer.Option(help="valid: photographs; circular: simulated blur that wraps around the frame.")
    ] = "valid",
    noise: NoiseKind = None,
    sigma: ModelSigma = None,
    weight: Weight = "1",
    reference: Reference = None,
    model: Model = None,
    tol: Tol = None,
    gap: Gap = 1e-2,
    device: Device = None,
    compare: Compare = None,
    range: Range = None,
    recursive: Recursive = False,
    volume: Volume = False,
    quiet: Quiet = False,
    json: Json = None,
    jobs: Jobs = None,
) -> None:
    """Remove a known blur from pictures.

    The kernel is the picture of a point of light as the blurred picture shows it (convolution, not correlation), its
    centre the pixel (height // 2, width // 2), counted from 0; it is scaled to sum 1. A background of it is subtracted,
    what does not matter of one as large as the picture is cut off, and each is said. ANGLE is in degrees,
    counterclockwise from the horizontal. With --border valid nothing is assumed beyond the frame: the margin that was
    blurred into it is estimated too, and cut off.
    """
    from icgn.cli.request import Request
    from icgn.cli.restoring import deblur_files

    request = Request(
        inputs, output, reference, compare, model, device, weight, tol, gap, sigma,
        range=range, recursive=recursive, volume=volume, quiet=quiet, json=json, processes=jobs
    )  # fmt: skip
    deblur_files(request, kernel, border, noise)


@app.command(cls=Command)
def inpaint(
    inputs: Inputs,
    output: Output,
    mask: Annotated[
        Path,
        typer.Option(
            metavar="MASK",
            help="Light where the picture is known, dark or transparent where it is missing: 0 and 1, 0 and 255, gray."
            " One for all, or a folder of masks named as the pictures.",
        ),
    ],
    invert: Annotated[bool, typer.Option("--invert", help="The mask is light where the picture is missing.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask about masks that hide nothing, or more than half.")
    ] = False,
    noise: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help=f"Noise of the known pixels: LEVEL, {UNIT}, or as for denoise; default 1/255 of the range.",
        ),
    ] = None,
    sigma: ModelSigma = None,
    weight: Weight = "1",
    reference: Reference = None,
    model: Model = None,
    tol: Tol = None,
    gap: Gap = 1e-2,
    device: Device = None,
    compare: Compare = None,
    range: Range = None,
    recursive: Recursive = False,
    volume: Volume = False,
    quiet: Quiet = False,
    json: Json = None,
    jobs: Jobs = None,
) -> None:
    """Fill in missing pixels of pictures, and remove the noise of the others.

    How many pixels are filled in is said. A mask that hides nothing, or more than half of the picture, is asked about;
    without a terminal one that hides nine tenths or more is refused unless --yes is given.
    """
    from icgn.cli.request import Request
    from icgn.cli.restoring import inpaint_files

    request = Request(
        inputs, output, reference, compare, model, device, weight, tol, gap, sigma,
        range=range, recursive=recursive, volume=volume, quiet=quiet, json=json, processes=jobs
    )  # fmt: skip
    inpaint_files(request, mask, noise=noise, invert=invert, yes=yes)


@app.command(cls=Command)
def restore(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="IN...", help="Measurements: pictures, .npy, .pt or .safetensors, or folders."),
    ],
    output: Output,
    physics: Annotated[
        str, typer.Option(metavar="FILE.py:FACTORY", help="Function that returns a deepinv LinearPhysics; FILE is run.")
    ],
    noise: NoiseKind = None,
    sigma: ModelSigma = None,
    weight: Weight = "1",
    reference: Reference = None,
    model: Model = None,
    tol: Tol = None,
    gap: Gap = 1e-2,
    device: Device = None,
    compare: Compare = None,
    range: Range = None,
    quiet: Quiet = False,
    json: Json = None,
    jobs: Jobs = None,
) -> None:
    """Restore pictures from measurements of any linear physics.

    FACTORY(img_size=SHAPE, device=DEVICE) is called for every measurement, SHAPE being its own without the batch,
    (C, H, W) of a picture, with C = 1 for gray models. The restored picture has the shape that A_adjoint gives.
    Measurements in .npy, .pt and .safetensors need --noise.
    """
    from icgn.cli.request import Request
    from icgn.cli.restoring import restore_files

    request = Request(
        inputs, output, reference, compare, model, device, weight, tol, gap, sigma,
        range=range, quiet=quiet, json=json, processes=jobs
    )  # fmt: skip
    restore_files(request, physics, noise)


app.command(cls=Command)(mri)
app.command(cls=Command)(ct)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the pictures.")] = Path(
        "icgn-demo"
    ),
) -> None:
    """Denoise two bundled photographs, one gray and one colour, with the shipped models."""
    from icgn.cli.restoring import demonstrate

    demonstrate(output)


@app.command()
def train(
    recipe: Annotated[Path, typer.Option(metavar="FILE", help="Recipe: a TOML file, as those in recipes/.")],
    data: Annotated[Path, typer.Option(metavar="ROOT", help="Folder of photographs, or root of BSDS500.")],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder for checkpoint, weights and card.")],
    init: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Start from this model instead of the recipe's init.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint in RUN.")] = False,
    device: Device = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="CPU threads; with 1 a resumed run is exact, bit for bit.")
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(
            help="Precision of convolutions in adversarial and score-matching losses; auto: bfloat16 on GPUs."
        ),
    ] = "auto",
) -> None:
    """Train a regularizer; afterwards, or meanwhile: icgn denoise --model RUN.

    Curves and example pictures: tensorboard --logdir RUN. Several processes: accelerate launch -m icgn.cli train ...,
    or torchrun --standalone --nproc-per-node N -m icgn.cli train .... Ctrl-C saves the step in progress and ends with
    exit code 130; --resume continues from there. The exit code is 1 if training could not go on, or RUN has a run
    already, and 2 if it cannot be carried out as given.
    """
    import torch

    from icgn import training
    from icgn.cli.options import find_device
    from icgn.cli.progress import Bar

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with warnings_said():
            weights = training.train(
                recipe,
                data,
                out,
                resume=resume,
                device=find_device(device),
                progress=Bar(),
                precision=precision,
                init=init,
            )
    except (training.TrainingError, torch.cuda.OutOfMemoryError) as error:
        say("error", str(error))
        raise typer.Exit(1) from error
    except (ValueError, OSError, ImportError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    console().print(f"Model: {weights}", soft_wrap=True, markup=False)


@app.command(cls=Command)
def evaluate(
    model: Annotated[
        list[str],
        typer.Option(
            help="Shipped model, path, FILE.py:CLASS, or a baseline: tv, bm3d (if installed). May be repeated."
        ),
    ],
    dataset: Annotated[
        str, typer.Option(metavar="D", help="bundled (photographs of scikit-image), bsd68 (with --data), or a folder.")
    ] = "bundled",
    sigma: Annotated[
        list[float] | None, typer.Option(help="Noise level in 8-bit gray levels; default 5, 15, 25, 50.")
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="ROOT", help="Root of BSDS500, for bsd68.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder for results.csv, .json and .png.")
    ] = None,
    color: Annotated[bool, typer.Option("--color", help="Colour pictures; gray models take each channel.")] = False,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Take every N-th picture.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
    weight: Weight = "1",
    tol: FixedTol = 1e-4,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Measure denoising models on clean photographs: PSNR, SSIM, iterations, seconds, certified distance.

    Rows that results.json in DIR holds already, of the same pictures, seed, weights and settings, are not computed
    again. Several processes share the pictures: torchrun --standalone --nproc-per-node N -m icgn.cli evaluate ...
    """
    from icgn import evaluation
    from icgn.cli.options import check_tolerance, find_device, parse_weight
    from icgn.cli.progress import Bar
    from icgn.cli.tables import print_means

    levels = sigma or [5.0, 15.0, 25.0, 50.0]
    try:
        check_tolerance("--tol", tol, "1e-4: intensities, white being 1")
        place, factor = find_device(device), parse_weight(weight)
        request = evaluation.Request(
            model, dataset=dataset, sigmas=levels, data=data, color=color, every=every, seed=seed, tol=tol,
            device=place, threads=threads, weight=factor,
        )  # fmt: skip
        with warnings_said():
            table = evaluation.evaluation(request, out=output, progress=Bar(transient=True))
    except (ValueError, OSError, ImportError) as error:
        refuse(str(error))
    except (RuntimeError, MemoryError) as error:  # a device out of memory, for example
        say("error", str(error) or type(error).__name__)
        raise typer.Exit(1) from error
    if table is None:
        return  # another process prints it
    print_means(table)
    if output is not None:
        console().print(f"Results are in {output}", soft_wrap=True, markup=False)


@app.command(name="app")
def page(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="0 takes any that is free.")] = 7860,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    threads: Threads = None,
) -> None:
    """Serve a page on which pictures are restored (needs: pip install 'icgn[app]').

    Pictures are worked on by this machine, are held in memory while a visitor's page is open, and are not kept; nothing
    is fetched from the network. The exit code is 2 if the page cannot be served as given.
    """
    # By name: the command line does not import the page.
    serve = importlib.import_module("icgn.app.command").serve

    def ready(url: str) -> None:
        console().print(f"The page is at {url} (Ctrl-C ends it)", soft_wrap=True, markup=False)

    try:
        serve(host, port, browser=browser, threads=threads, ready=ready)
    except (ImportError, ValueError, OSError) as error:
        refuse(str(error))


@app.command()
def hub(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Shipped model or path, as for --model.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder, made if missing.")],
    repository: Annotated[
        str, typer.Option("--repository", metavar="OWNER/NAME", help="Where it will be uploaded; for the README.")
    ] = "OWNER/NAME",
) -> None:
    """Prepare a model for the Hugging Face Hub: weights, card and README in a folder; nothing is uploaded.

    Afterwards: hf upload OWNER/NAME DIR, and wherever a model is named: hf:OWNER/NAME (needs: pip install 'icgn[hub]').
    """
    from icgn.cli.hub import prepare_model

    prepare_model(model, output, repository)


@app.command()
def info() -> None:
    """Print versions, devices and shipped models."""
    from icgn.cli.tables import print_info

    print_info()


def _print_version(wanted: bool) -> None:
    if wanted:
        import icgn

        typer.echo(f"icgn {icgn.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    defer()
    app()
