"""RESULTS.md: every shipped model and the baselines on BSD68, at sigma 5, 15, 25, 50 and 0.1 (25.5 gray levels).

    python benchmarks/results.py --data ROOT

ROOT holds BSDS500 and BSD68.txt. Rows that stand in docs/results already and fit the present weights and settings are
kept, so that an interrupted run goes on where it stopped; ``--offline`` only writes the pages from what is there. Rows
of earlier weights are not shown. From nothing it takes some hours on two cores; processes of torchrun share the work.
The other sections are the tables of ``benchmarks/inverse.py``, ``frontier.py``, ``gradients.py``, ``transport.py``,
``scanners.py``, ``strength.py``, ``sampling.py``, ``radio.py`` and ``uncertainty.py``, and that of ``flows_table.py``
of two demos. Rows *MODEL, sure* are of ``icgn evaluate --weight sure``.
"""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import flows_table
import torch
import typer
from harness import RESULTS, ROOT, Threads, write
from inverse_table import section as inverse_section

from icgn.cli.progress import Bar
from icgn.evaluation import BASELINES, Mean, Request, evaluation, make_restorer, markdown, means, read_results
from icgn.evaluation.results import current
from icgn.regularizers import available_models, read_card
from icgn.training import Processes

LEVELS = (5.0, 15.0, 25.0, 50.0, 25.5)

# The rows of the table in the README, at sigma 25; RESULTS.md has all models and levels.
_SHORT = (
    "tv",
    "bm3d",
    "icnn-gray",
    "ridge-gray-tiny",
    "ridge-gray-small",
    "ridge-gray",
    "ridge-gray, sure",
    "conditional-gray-small",
    "conditional-gray",
)

_HEAD = """# Results

Written by `python benchmarks/results.py --data ROOT`; do not edit. ROOT holds BSDS500 and the list of the 68 test
pictures, which were never trained or tuned on.

Means over all 68 pictures; a level that is missing is not measured yet. Noise levels are in gray levels of 255
(25.5 is 0.1 in intensities). *Distance* is the largest certified RMS distance of any picture to the global minimizer,
in gray levels. Seconds are wall-clock on a machine that had other work to do: they compare methods, roughly. Every row
of every picture, seeds, versions and hashes of the weights are in `docs/results/`.
"""


_TABLES = {
    "frontier/table.md": ("Unconditional networks as image regularizers", "python benchmarks/frontier.py --data ROOT"),
    "gradients/table.md": ("Learning gradients: ICGN or ICNN", "python benchmarks/gradients.py"),
    "transport/table.md": ("Optimal transport maps", "python benchmarks/transport.py"),
    "wasserstein2/table.md": ("Pairs of the Wasserstein-2 benchmark", "python benchmarks/wasserstein2.py --root ROOT"),
    "scanners/table.md": (
        "Scanners: MRI with coils, CT by counts",
        "python benchmarks/scanners.py --kspace KSPACE.npy",
    ),
    "strength/table.md": ("Strength without the true picture", "python benchmarks/strength.py"),
    "flows/table.md": ("Density estimation", "python demos/convex_potential_flow.py"),
    "uncertainty/sampling.md": ("Draws from posteriors", "python benchmarks/sampling.py"),
    "uncertainty/radio.md": ("Skies of radio telescopes", "python benchmarks/radio.py --data RADIO --threads 2"),
    "uncertainty/errors-conditional-gray-25.md": (
        "How many errors calibrated intervals cover: gray",
        "python benchmarks/uncertainty.py evaluate --bsds BSDS500 --model conditional-gray --sigma 25",
    ),
    "uncertainty/errors-conditional-color-25.md": (
        "How many errors calibrated intervals cover: colour",
        "python benchmarks/uncertainty.py evaluate --bsds BSDS500 --model conditional-color --sigma 25 --every 8",
    ),
}
"""Tables of other scripts, by file in docs/results: title, and the command that measures them."""


def models(color: bool) -> list[str]:
    """The shipped models for gray or for colour pictures, and the baselines that are installed."""
    channels = 3 if color else 1
    shipped = [m for m in available_models() if read_card(m)["architecture"].get("channels", 1) == channels]
    if color:
        return shipped
    return [*shipped, "tv", *(["bm3d"] if importlib.util.find_spec("bm3d") else [])]


def section(color: bool) -> str:
    """A section of the page, from the files."""
    folder = RESULTS / ("color" if color else "gray")
    if not (folder / "results.json").exists():
        return ""
    table, facts = means_of(color)
    order = {m: i for i, m in enumerate(dict.fromkeys([*models(color), *BASELINES]))}
    table = sorted(table, key=lambda m: (m.sigma, order[_shipped(m.model)], m.model))
    lines = [f"## {'Colour' if color else 'Gray'}", "", markdown(table), "", _recipes(table), ""]
    measured = [facts["methods"][name]["measured"] for name in dict.fromkeys(m.model for m in table)]
    lines += [
        f"Seed {facts['seed']}; {_environments([e for several in measured for e in several])}.",
        "",
        f"![plot](docs/results/{folder.name}/results.png)",
        "",
    ]
    return "\n".join(lines)


@cache
def means_of(color: bool) -> tuple[list[Mean], dict[str, Any]]:
    """The means over all pictures that are by the present weights and settings, and what they depend on."""
    rows, facts = read_results(RESULTS / ("color" if color else "gray") / "results.json")
    known = set(models(color))
    named = [name for name in dict.fromkeys(e.model for e in rows) if _shipped(name) in known]
    restorers = [
        make_restorer(_shipped(name), torch.device("cpu"), Request.tol, weight=_weight(name)) for name in named
    ]
    kept = {e.key for e in current(rows, restorers)}
    # What a baseline that is not installed here would do now cannot be asked: its rows stay.
    present = [e for e in rows if e.key in kept or (e.model in BASELINES and e.model not in known)]
    # A level that is not finished yet is left out.
    return [m for m in means(present) if m.pictures == len(facts["pictures"])], facts


def _shipped(name: str) -> str:
    """The model of a row, without its weight."""
    return name.split(", ")[0]


def _weight(name: str) -> float | str:
    """The weight in the name of a row."""
    given = name.split(", ")[1:]
    if not given:
        return 1.0
    return float(given[0]) if given[0][0].isdigit() else given[0]


def _environments(measured: list[dict[str, Any]]) -> str:
    """Threads, devices and versions by which rows were computed, each once."""
    threads = sorted({e["threads"] for e in measured})
    devices = sorted({e["device"] for e in measured})
    versions = sorted({(package != "icgn", package, v) for e in measured for package, v in e["versions"].items()})
    said = [
        f"{' or '.join(map(str, threads))} CPU thread(s)",
        *devices,
        *(f"{package} {v}" for _, package, v in versions),
    ]
    return ", ".join(said)


def quoted(name: str) -> str:
    """The section with the first table of a file in docs/results, or nothing."""
    path = RESULTS / name
    if not path.exists():
        return ""
    title, command = _TABLES[name]
    table = re.search(r"(?:^\|.*\n)+", path.read_text(), flags=re.MULTILINE)
    pictures = [f"![{p.stem}]({p.relative_to(ROOT)})" for p in sorted(path.parent.glob("frontier.png"))]
    text = f"Measured by `{command}`; what the columns mean, and more, is in [{name}]({path.relative_to(ROOT)})."
    return "\n".join([f"## {title}", "", text, "", table[0] if table else "", *pictures, ""])


def _recipes(table: list[Mean]) -> str:
    named = sorted({m.model for m in table} & set(available_models()))
    return "Recipes: " + ", ".join(f"{m}: `recipes/{read_card(m)['recipe_file']}`" for m in named) + "."


def update(path: Path, text: str) -> None:
    """Replace what stands between the marker lines of a Markdown file."""
    old = path.read_text()
    new, count = re.subn(
        r"(<!-- results -->\n).*?(<!-- /results -->)", lambda m: f"{m[1]}{text}\n{m[2]}", old, flags=re.DOTALL
    )
    if count != 1:
        raise typer.BadParameter(f"{path}: has no lines <!-- results --> and <!-- /results -->")
    write(path.parent, {path.name: new})


def main(
    data: Annotated[Path | None, typer.Option(help="Root of BSDS500, with BSD68.txt.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Only write the pages from docs/results.")] = False,
    threads: Threads = 1,
) -> None:
    """Measure what is not measured yet, and write RESULTS.md and the table of the README."""
    if not offline:
        if data is None:
            raise typer.BadParameter("got none, expected the root of BSDS500, or --offline", param_hint="--data")
        for color in (False, True):
            request = Request(models(color), dataset="bsd68", sigmas=LEVELS, data=data, color=color, threads=threads)
            evaluation(request, out=RESULTS / ("color" if color else "gray"), progress=Bar(transient=True))
        if Processes().rank:
            return  # the main process writes the pages
    flows = RESULTS / "flows"
    write(flows, {"table.md": flows_table.page(flows)})
    sections = [section(False), section(True), inverse_section(RESULTS / "inverse"), *map(quoted, _TABLES)]
    parts = [_HEAD, *filter(None, sections)]
    write(ROOT, {"RESULTS.md": "\n".join(parts)})
    shown = [m for m in means_of(False)[0] if m.sigma == 25 and m.model in _SHORT]
    update(ROOT / "README.md", markdown(sorted(shown, key=lambda m: _SHORT.index(m.model))))


if __name__ == "__main__":
    typer.run(main)
