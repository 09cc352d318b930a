"""The command line: ``icgn denoise``, ``icgn train``, ``icgn evaluate``, ``icgn demo``, ``icgn info``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

# torch, deepinv and scikit-image are imported where they are used: `icgn --help` answers at once.
if TYPE_CHECKING:
    import torch

    from icgn.datasets import Job, Picture, Sample
    from icgn.regularizers import ConvexRegularizer
    from icgn.training import Mean

app = typer.Typer(
    name="icgn",
    help="Restore pictures with learned convex regularizers, and prove how far each is from the global minimizer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_DEFAULT_MODELS = {1: "ridge-gray", 3: "ridge-color"}
_DEMO_PICTURES = {"camera": True, "coffee": False}
_DEMO_SIGMA = 25.0

ModelFor = Callable[[int], "ConvexRegularizer"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, eq=False)
class Restored:
    """One restored picture and what its row of the table says; RMS distance in intensities."""

    picture: Picture
    sigma: float
    iterations: int
    seconds: float
    rms_distance: float
    status: str
    converged: bool


@dataclass(frozen=True, eq=False)
class Outcome:
    """A restored picture with the noisy one, and the clean one if it is known."""

    name: str
    noisy: Picture
    restored: Restored
    clean: Picture | None = None


@app.command()
def denoise(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN...", help="Pictures (PNG, JPEG, TIFF), or folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="File, or folder for several.")],
    sigma: Annotated[
        float | None,
        typer.Option(help="Standard deviation of the noise in 8-bit gray levels, 0 to 255 (also for 16-bit files)."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="CLEAN", help="Clean picture, or folder: adds PSNR and SSIM, and gives sigma."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Shipped model or path; default ridge-gray or ridge-color. Gray ones take each channel."),
    ] = None,
    tol: Annotated[
        float, typer.Option(help="Certified RMS distance to the minimizer, in intensities (0 to 1).")
    ] = 1e-4,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; default cuda where there is one.")] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="FIG", help="Picture of noisy, restored and difference side by side.")
    ] = None,
) -> None:
    """Remove white noise from pictures.

    Without --sigma the noise level is measured against --reference, or else estimated from the picture and clamped to
    the range of the model. Depth, transparency and colour profile are kept. The exit code is 0 only if every picture
    was written; 2 if the command cannot be carried out as given.
    """
    from icgn.datasets import plan, prepare_folders

    _check_numbers(sigma, tol)
    try:
        jobs = plan(inputs, output, reference, compare)
        models = _models(model, _device(device))
        prepare_folders([job.target for job in jobs] + ([compare] if compare else []))
    except (ValueError, OSError) as error:
        _refuse(str(error))
    rows = []  # of text: the pictures of a folder need not fit in memory
    for job in _progress(jobs):
        try:
            rows.append(row(_denoise_file(job, sigma, models, tol, compare)))
        # A torch device out of memory is a RuntimeError; the other pictures may be smaller.
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            _say("error", _naming(job.source, str(error) or type(error).__name__))
    if rows:
        _print_table(rows, reference is not None)
    if len(rows) < len(jobs):
        _say("error", f"{len(jobs) - len(rows)} of {len(jobs)} pictures failed")
        raise typer.Exit(1)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the pictures.")] = Path(
        "icgn-demo"
    ),
) -> None:
    """Denoise two bundled photographs, one gray and one colour, with the shipped models."""
    from icgn import datasets

    try:
        models = _models(None, _device(None))
        datasets.prepare_folders([output / "any.png"])
    except (ValueError, OSError) as error:
        _refuse(str(error))
    outcomes = []
    for name, gray in _DEMO_PICTURES.items():
        try:
            outcomes.append(_demonstrate(datasets.bundled(gray).find(name), models, output))
        except (ValueError, OSError, RuntimeError) as error:
            _say("error", _naming(Path(name), str(error)))
    if outcomes:
        _print_table([row(o) for o in outcomes], measured=True)
        worst = 255 * max(o.restored.rms_distance for o in outcomes)
        _console().print(
            f"Each restored picture is proved to lie within {worst:.3g} gray levels (RMS, before rounding to 8 bits) of"
            " the one minimizer of its convex objective.",
            soft_wrap=True,
        )
        _console().print(f"Pictures are in {output}", soft_wrap=True, markup=False)
    if len(outcomes) < len(_DEMO_PICTURES):
        raise typer.Exit(1)


@app.command()
def train(
    recipe: Annotated[Path, typer.Option(metavar="FILE", help="Recipe: a TOML file, as those in recipes/.")],
    data: Annotated[Path, typer.Option(metavar="ROOT", help="Folder of photographs, or root of BSDS500.")],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder for checkpoint, weights and card.")],
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint in RUN.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; default cuda where there is one.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="CPU threads; with 1 a resumed run is exact, bit for bit.")
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(help="Of convolutions in adversarial and score-matching losses; auto: bfloat16 on GPUs."),
    ] = "auto",
) -> None:
    """Train a regularizer; afterwards, or meanwhile: icgn denoise --model RUN.

    Curves and example pictures: tensorboard --logdir RUN. Several processes: accelerate launch -m icgn.cli train ...,
    or torchrun --standalone --nproc-per-node N -m icgn.cli train .... Ctrl-C saves the step in progress and ends with
    exit code 130; --resume continues from there. The exit code is 1 if training could not go on, and 2 if it cannot be
    carried out as given.
    """
    import warnings

    import torch

    from icgn import training

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: _say("warning", str(message))
            weights = training.train(recipe, data, out, resume, _device(device), _console(stderr=True), precision)
    except (training.TrainingError, torch.cuda.OutOfMemoryError) as error:
        _say("error", str(error))
        raise typer.Exit(1) from error
    except (ValueError, OSError, ImportError) as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    _console().print(f"Model: {weights}", soft_wrap=True, markup=False)


@app.command()
def evaluate(
    model: Annotated[
        list[str], typer.Option(help="Shipped model, path, or a baseline: tv, bm3d (if installed). May be repeated.")
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
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 0,
    tol: Annotated[float, typer.Option(help="Certified RMS distance, in intensities.")] = 1e-4,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; default cuda where there is one.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="CPU threads.")] = None,
) -> None:
    """Measure denoising models on clean photographs: PSNR, SSIM, iterations, seconds, certified distance.

    Rows that results.json in DIR holds already, of the same pictures, seed, weights and settings, are not computed
    again. Several processes share the pictures: torchrun --standalone --nproc-per-node N -m icgn.cli evaluate ...
    """
    from icgn import training

    _check_numbers(None, tol)
    levels = sigma or [5.0, 15.0, 25.0, 50.0]
    try:
        request = training.Request(model, dataset, levels, data, color, every, seed, tol, _device(device), threads)
        table = training.evaluation(request, output, _console(stderr=True))
    except (ValueError, OSError, ImportError) as error:
        _refuse(str(error))
    except (RuntimeError, MemoryError) as error:  # a device out of memory, for example
        _say("error", str(error) or type(error).__name__)
        raise typer.Exit(1) from error
    if table is None:
        return  # another process prints it
    _print_means(table)
    if output is not None:
        _console().print(f"Results are in {output}", soft_wrap=True, markup=False)


@app.command()
def info() -> None:
    """Print versions, devices and shipped models."""
    import platform
    from importlib.metadata import version

    import torch

    import icgn
    from icgn.regularizers import available_models

    table = Table.grid(padding=(0, 2))
    table.add_row("icgn", icgn.__version__)
    table.add_row("python", platform.python_version())
    for package in ("torch", "deepinv", "numpy", "scikit-image", "pillow", "tifffile", "imagecodecs"):
        table.add_row(package, version(package))
    table.add_row("cpu", f"{torch.get_num_threads()} threads")
    for i in range(torch.cuda.device_count()):
        table.add_row(f"cuda:{i}", torch.cuda.get_device_name(i))
    table.add_row("models", ", ".join(available_models()) or "none")
    _console().print(table)


def restore(noisy: Picture, sigma: float, models: ModelFor, tol: float) -> Restored:
    """Denoise the pixels of a picture; alpha, profile, Exif and depth stay as they are.

    A gray model takes the channels of a colour picture one by one; the RMS distance is that of all of them together.

    Parameters
    ----------
    noisy : Picture
        what to restore; its pixels need not be in [0, 1].
    sigma : float
        noise level in intensities.
    models : callable
        gives the regularizer for a number of channels.
    tol : float
        RMS distance to the minimizer, in intensities.

    Raises
    ------
    ValueError
        if the model takes three channels and the picture is gray, or the picture is smaller than its filters.
    """
    from icgn import regularizers
    from icgn.solvers import Status

    regularizer = models(len(noisy.pixels))
    y = noisy.pixels[None].to(next(regularizer.parameters()).device)
    if regularizer.channels == 1:
        y = y.transpose(0, 1).contiguous()
    elif regularizer.channels not in (None, len(noisy.pixels)):
        raise ValueError(f"gray picture, but the model takes {regularizer.channels} channels; use --model ridge-gray")
    solution = regularizers.denoise(y, sigma, regularizer=regularizer, tol=tol)
    pixels = solution.x.reshape(noisy.pixels.shape).cpu()
    open_cases = [s for s in solution.status if s is not Status.CONVERGED]
    return Restored(
        picture=replace(noisy, pixels=pixels),
        sigma=sigma,
        iterations=int(solution.stats.iterations.max()),
        seconds=solution.stats.seconds,
        rms_distance=float(solution.certificate.rms_distance.square().mean().sqrt()),
        status=str(open_cases[0] if open_cases else solution.status[0]),
        converged=not open_cases,
    )


def figure(outcome: Outcome) -> Picture:
    """Draw noisy, restored and amplified difference side by side, and the clean picture if there is one."""
    from icgn.datasets import comparison, difference, visible_gain

    noisy, restored = outcome.noisy.pixels, outcome.restored.picture.pixels
    gain = visible_gain(noisy, restored)
    removed = difference(noisy, restored, gain)
    panels = [("noisy", noisy), ("restored", restored), (f"noisy - restored, x {gain:g}", removed)]
    if outcome.clean is not None:
        panels.append(("reference", outcome.clean.pixels))
    return comparison(panels)


def _demonstrate(sample: Sample, models: ModelFor, folder: Path) -> Outcome:
    """Add noise to a photograph, remove it, and write both and the comparison."""
    from icgn.datasets import Picture, add_noise, seed_of, write_picture

    clean = Picture(sample.image)
    noisy = Picture(add_noise(sample.image, _DEMO_SIGMA / 255, seed_of(sample.name)))
    outcome = Outcome(sample.name, noisy, restore(noisy, _DEMO_SIGMA / 255, models, 1e-4), clean)
    write_picture(folder / f"{sample.name}-noisy.png", noisy)
    write_picture(folder / f"{sample.name}-restored.png", outcome.restored.picture)
    write_picture(folder / f"{sample.name}-compare.png", figure(outcome))
    return outcome


def _denoise_file(job: Job, sigma: float | None, models: ModelFor, tol: float, compare: Path | None) -> Outcome:
    from icgn.datasets import read_picture, write_picture

    noisy = read_picture(job.source)
    clean = read_picture(job.reference) if job.reference else None
    if clean is not None and clean.pixels.shape != noisy.pixels.shape:
        sizes = [" x ".join(map(str, p.pixels.shape)) for p in (clean, noisy)]
        raise ValueError(f"{job.reference}: got {sizes[0]} (channels, height, width), expected {sizes[1]}")
    level = _sigma(job, noisy, clean, sigma, models)
    outcome = Outcome(job.source.name, noisy, restore(noisy, level, models, tol), clean)
    if not outcome.restored.converged:
        _say("warning", _naming(job.source, outcome.restored.status))
    write_picture(job.target, outcome.restored.picture)
    if compare is not None:
        write_picture(compare, figure(outcome))
    return outcome


def _sigma(job: Job, noisy: Picture, clean: Picture | None, given: float | None, models: ModelFor) -> float:
    """Find the noise level in intensities: as given, measured against the clean picture, or estimated."""
    from icgn.datasets import estimate_sigma, measure_sigma

    reach = models(len(noisy.pixels)).sigma_range
    if given is not None:
        if reach and given > 0 and not reach[0] <= given / 255 * (1 + 1e-6) <= reach[1] * (1 + 2e-6):
            hint = f"; did you mean {given * 255:g}?" if given < 1 else ""
            _say("warning", f"{job.source}: sigma {given:g} is outside the trained range {_range(reach)}{hint}")
        return given / 255
    if clean is not None:
        how, level = "measured against the reference", measure_sigma(noisy.pixels, clean.pixels)
    else:
        how, level = "estimated", estimate_sigma(noisy.pixels)
    _say("note", f"{job.source}: sigma {255 * level:.2f} gray levels, {how}")
    if clean is None and job.source.suffix.lower() in (".jpg", ".jpeg"):
        _say("note", f"{job.source}: JPEG compression leaves noise that is not white; the estimate may be too low")
    if reach and not reach[0] <= level <= reach[1]:
        level = min(max(level, reach[0]), reach[1])
        _say("warning", f"{job.source}: clamped to {255 * level:g}, the trained range being {_range(reach)}")
    return level


def _models(name: str | None, device: torch.device) -> ModelFor:
    """Give regularizers by number of channels, each loaded once; a named one at once, so that a wrong name is told."""
    from icgn.regularizers import load_pretrained

    @cache
    def load(name: str) -> ConvexRegularizer:
        return load_pretrained(name, device)

    if name is not None:
        load(name)
    return lambda channels: load(name or _DEFAULT_MODELS[channels])


def _device(name: str | None) -> torch.device:
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    # Torch reports a device that it lacks by RuntimeError, AssertionError or NotImplementedError.
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device: got {name!r}, expected one that torch has here, e.g. cpu ({reason})") from error
    return device


def _check_numbers(sigma: float | None, tol: float) -> None:
    if sigma is not None and not 0 <= sigma <= 255:
        _refuse(f"--sigma: got {sigma:g}, expected a number from 0 to 255: gray levels of an 8-bit picture, e.g. 25")
    if not 0 < tol < math.inf:
        _refuse(f"--tol: got {tol:g}, expected a positive number, e.g. 1e-4: intensities, white being 1")


def row(outcome: Outcome) -> list[str]:
    """Write the row of the table: sigma and certified distance in gray levels, quality before and after if known."""
    from icgn.datasets import quality

    r = outcome.restored
    cells = [outcome.name, f"{255 * r.sigma:.2f}", str(r.iterations), f"{r.seconds:.2f}", f"{255 * r.rms_distance:.4f}"]
    if outcome.clean is not None:
        before, after = (quality(p.pixels, outcome.clean.pixels) for p in (outcome.noisy, r.picture))
        cells += [f"{before.psnr:.2f}>{after.psnr:.2f}", f"{before.ssim:.3f}>{after.ssim:.3f}"]
    return [*cells, r.status.split(":")[0]]


def _print_table(rows: Sequence[Sequence[str]], measured: bool) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("picture", overflow="fold", min_width=12)
    for heading in ["sigma", "steps", "seconds", "proved", *["PSNR", "SSIM"] * measured]:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for cells in rows:
        table.add_row(*map(Text, cells))
    _console().print(table)
    legend = "proved: certified RMS distance to the minimizer; it and sigma in gray levels (0 to 255)"
    _console().print(legend + "; PSNR in dB and SSIM, noisy > restored" * measured, style="dim", soft_wrap=True)


def _print_means(means: Sequence[Mean]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("model", overflow="fold", min_width=10)
    for heading in ("params", "sigma", "noisy", "PSNR", "SSIM", "steps", "seconds", "proved", "certified"):
        table.add_column(heading, justify="right", no_wrap=True)
    for m in means:
        certified = f"{m.converged}/{m.pictures}" if not math.isnan(m.iterations) else "-"
        numbers = [f"{m.noisy_psnr:.2f}", f"{m.psnr:.2f}", f"{m.ssim:.4f}", f"{m.iterations:.0f}", f"{m.seconds:.2f}"]
        cells = [str(m.parameters), f"{m.sigma:g}", *numbers, f"{m.rms_distance:.4f}", certified]
        table.add_row(m.model, *(Text(c.replace("nan", "-")) for c in cells))
    _console().print(table)
    legend = "means over the pictures; PSNR in dB; proved: largest certified RMS distance to the minimizer, gray levels"
    _console().print(legend, style="dim", soft_wrap=True)


def _progress(jobs: Sequence[Job]) -> Iterable[Job]:
    errors = _console(stderr=True)
    return track(jobs, "denoising", console=errors, transient=True, disable=len(jobs) < 2 or not errors.is_terminal)


def _range(reach: tuple[float, float]) -> str:
    return f"{255 * reach[0]:g} to {255 * reach[1]:g}"


def _naming(path: Path, message: str) -> str:
    return message if str(path) in message else f"{path}: {message}"


def _console(stderr: bool = False) -> Console:
    # Made anew each time: the streams may have been replaced meanwhile.
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 120)
    return console


def _say(kind: str, message: str) -> None:
    style = {"error": "bold red", "warning": "yellow"}.get(kind, "dim")
    _console(stderr=True).print(Text.assemble((f"{kind}: ", style), message), soft_wrap=True)


def _refuse(message: str) -> NoReturn:
    _say("error", message)
    raise typer.Exit(2)


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
    app()


if __name__ == "__main__":
    main()
