"""The demos in the gallery: their order, their arguments, and the figures that they write."""

from __future__ import annotations

import builtins
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst

# In the order of the gallery; others follow, by name.
DEMOS = (
    "denoise",
    "photograph",
    "deblur",
    "inpaint",
    "mri",
    "ct",
    "from_a_scanner",
    "train_your_own",
    "write_your_own_regularizer",
    "inside_deepinv",
    "in_deepinv_benchmark",
    "which_networks_are_gradients",
    "icgn_vs_icnn",
    "brenier_map",
    "convex_potential_flow",
    "wasserstein_flow",
)
_SITE = Path(__file__).resolve().parent.parent.parent
_FIGURES = _SITE / "figures"
_PATH = list(sys.path)


class DemoOrder:
    """Sort key of file names: the place in :data:`DEMOS`."""

    def __init__(self, src_dir: str) -> None:
        self.src_dir = src_dir

    def __call__(self, filename: str) -> tuple[int, str]:
        stem = Path(filename).stem
        return (DEMOS.index(stem) if stem in DEMOS else len(DEMOS), stem)


def quick_arguments(conf: dict[str, Any], script: dict[str, Any]) -> list[str]:
    """The command line of a shortened run."""
    return [*full_arguments(conf, script), "--quick"]


def full_arguments(conf: dict[str, Any], script: dict[str, Any]) -> list[str]:
    """The command line of a run in full: a folder of its own for each demo."""
    return [str(_folder(script["src_file"]))]


def figures(block: tuple[str, str, int], script: dict[str, Any], conf: dict[str, Any]) -> str:
    """Show the figures that a block of a demo has written, and move them out of the way of the next block."""
    shown = []
    for figure in sorted(_folder(script["src_file"]).glob("*.png"), key=lambda path: path.stat().st_mtime_ns):
        shown.append(next(script["image_path_iterator"]))
        shutil.move(figure, shown[-1])
    return figure_rst(shown, conf["src_dir"])


def reset(conf: dict[str, Any], filename: str) -> None:
    """Start a demo as from the command line: its own search path and ``__file__``, and no warnings of libraries."""
    import torch

    demo = _SITE / "demos" / Path(filename).name
    sys.path[:] = [str(demo.parent), *_PATH]
    # Scripts of a gallery have none.
    builtins.__file__ = str(demo)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    _folder(filename).mkdir(parents=True, exist_ok=True)


def _folder(demo: str) -> Path:
    return _FIGURES / Path(demo).stem
