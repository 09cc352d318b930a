"""The tables that commands print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from icgn.cli.screen import console

if TYPE_CHECKING:
    from icgn.evaluation import Mean


_REQUIRED = ("torch", "deepinv", "numpy", "scikit-image", "pillow", "tifffile", "imagecodecs", "safetensors")
# Packages that some commands need, and the extra that brings each.
_OPTIONAL = {
    "accelerate": "train",
    "tensorboard": "train",
    "gradio": "app",
    "geomloss": "transport",
    "huggingface_hub": "hub",
    "bm3d": "bm3d",
    "sigpy": "scanners",
}


def print_table(rows: Sequence[Sequence[str]], measured: bool, label: str = "noisy") -> None:
    """Print the rows of :func:`icgn.cli.outcome.row` with their legend.

    Parameters
    ----------
    rows : sequence of rows
        one per picture.
    measured : bool
        whether PSNR and SSIM are among the cells.
    label : str
        what the pictures were before.
    """
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("picture", overflow="fold", min_width=12)
    for heading in ["sigma", "steps", "seconds", "proved", *["PSNR", "SSIM"] * measured]:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for cells in rows:
        table.add_row(*map(Text, cells))
    console().print(table)
    own = [cells[1].endswith("u") for cells in rows]
    unit = (
        "the unit of the file (u)" if all(own) else "gray levels (0 to 255)" + ", u: in the unit of the file" * any(own)
    )
    legend = f"proved: RMS distance to the minimizer (not to the unknown scene); it and sigma in {unit}"
    if any("gap" in cells[4] for cells in rows):
        legend += (
            "; gap: the objective is proved to be within this part of its minimum (no distance can be proved: the data"
            " alone do not determine the picture)"
        )
    legend += f"; PSNR in dB and SSIM, {label} > restored" * measured
    console().print(legend, style="dim", soft_wrap=True)


def print_means(means: Sequence[Mean]) -> None:
    """Print the means of ``icgn evaluate``, one row per model and noise level."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("model", overflow="fold", min_width=10)
    for heading in ("params", "sigma", "noisy", "PSNR", "SSIM", "steps", "seconds", "proved", "certified"):
        table.add_column(heading, justify="right", no_wrap=True)
    for m in means:
        certified = f"{m.converged}/{m.pictures}" if not math.isnan(m.iterations) else "-"
        numbers = [f"{m.noisy_psnr:.2f}", f"{m.psnr:.2f}", f"{m.ssim:.4f}", f"{m.iterations:.0f}", f"{m.seconds:.2f}"]
        cells = [str(m.parameters), f"{m.sigma:g}", *numbers, f"{m.rms_distance:.4f}", certified]
        table.add_row(m.model, *(Text(c.replace("nan", "-")) for c in cells))
    console().print(table)
    legend = (
        "means over the pictures; sigma, the noise that was added, and proved, the largest certified RMS distance to"
        " the minimizer, in gray levels of 255; noisy and PSNR in dB, before and after"
    )
    console().print(legend, style="dim", soft_wrap=True)


def print_info() -> None:
    """Print versions, which optional packages are there, devices, and the shipped models with class and default."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    import icgn
    from icgn.regularizers.pretrained import DEFAULT_MODELS, available_models, read_card

    table = Table.grid(padding=(0, 2))
    table.add_row("icgn", icgn.__version__)
    table.add_row("python", f"{platform.python_version()}, {platform.system()} {platform.machine()}")
    for package in _REQUIRED:
        table.add_row(package, version(package))
    for package, extra in _OPTIONAL.items():
        try:
            table.add_row(package, version(package))
        except PackageNotFoundError:
            # As text: in markup the brackets would vanish.
            table.add_row(package, Text(f"not installed: pip install 'icgn[{extra}]'"))
    table.add_row("cpu", f"{torch.get_num_threads()} threads")
    for i in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(i).total_memory / 2**30
        table.add_row(f"cuda:{i}", f"{torch.cuda.get_device_name(i)}, {memory:.0f} GiB")
    for name in available_models():
        default = ", the default" if name in DEFAULT_MODELS.values() else ""
        table.add_row(name, f"model, {read_card(name)['architecture']['type']}{default}")
    console().print(table, soft_wrap=True)
