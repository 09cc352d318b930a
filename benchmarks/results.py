"""RESULTS.md: every shipped model and the baselines on BSD68, at sigma 5, 15, 25, 50 and 0.1 (25.5 gray levels).

    python benchmarks/results.py --data ROOT

ROOT holds BSDS500 and BSD68.txt. Rows that stand in docs/results already and fit the present weights and settings are
kept, so that an interrupted run goes on where it stopped; ``--offline`` only writes the pages from what is there. From
nothing it takes some hours on two cores; processes of torchrun share the work. The other sections are the tables of
``benchmarks/inverse.py``, ``frontier.py``, ``gradients.py`` and ``transport.py``, and that of ``flows_table.py`` of two
demos. Rows *MODEL, sure* are of ``icgn evaluate --strength sure``.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Annotated

import flows_table
import typer
from inverse_table import section as inverse_section

from icgn.regularizers import available_models, read_card
from icgn.regularizers.pretrained import write_files
from icgn.training import Mean, Processes, Request, evaluation, markdown, means, read_results

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
LEVELS = (5.0, 15.0, 25.0, 50.0, 25.5)

# Models of which the table of the README shows every level.
_ALL_LEVELS = ("conditional-gray", "ridge-gray", "ridge-gray, sure")

_HEAD = """# Results

Written by `python benchmarks/results.py --data ROOT`; do not edit. ROOT holds BSDS500 and the list of the 68 test
pictures, which were never trained or tuned on.

Means over all 68 pictures; a level that is missing is not measured yet. Noise levels are in gray levels of 255
(25.5 is 0.1 in intensities). *Distance* is the largest certified RMS distance of any picture to the global minimizer,
in gray levels. Seconds are wall-clock on a machine that had other work to do: they compare methods, roughly. Every row
of every picture, seeds, versions and hashes of the weights are in `docs/results/`.
"""


_TABLES = {
    "frontier": ("Unconditional networks as image regularizers", "python benchmarks/frontier.py --data ROOT"),
    "gradients": ("Learning gradients: ICGN or ICNN", "python benchmarks/gradients.py"),
    "transport": ("Optimal transport maps", "python benchmarks/transport.py"),
    "flows": ("Density estimation", "python demos/convex_potential_flow.py"),
}
"""Tables of other scripts, by folder of docs/results: title, and the command that measures them."""


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
    rows, facts = read_results(folder / "results.json")
    order = {m: i for i, m in enumerate(models(color))}
    # A level that is not finished yet is left out.
    whole = [m for m in means(rows) if _shipped(m) in order and m.pictures == len(facts["pictures"])]
    table = sorted(whole, key=lambda m: (m.sigma, order[_shipped(m)], m.model))
    lines = [f"## {'Colour' if color else 'Gray'}", "", markdown(table), "", _recipes(table), ""]
    versions = ", ".join(f"{k} {v}" for k, v in facts["versions"].items())
    lines += [
        f"Seed {facts['seed']}, {facts['threads']} CPU thread(s), {facts['device']}; {versions}.",
        "",
        f"![plot](docs/results/{folder.name}/results.png)",
        "",
    ]
    return "\n".join(lines)


def _shipped(row: Mean) -> str:
    """The model of a row, without its strength."""
    return row.model.split(", ")[0]


def quoted(name: str) -> str:
    """The section with the first table of ``table.md`` in a folder of docs/results, or nothing."""
    path = RESULTS / name / "table.md"
    if not path.exists():
        return ""
    title, command = _TABLES[name]
    table = re.search(r"(?:^\|.*\n)+", path.read_text(), flags=re.MULTILINE)
    pictures = [f"![{p.stem}]({p.relative_to(ROOT)})" for p in sorted(path.parent.glob("frontier.png"))]
    text = (
        f"Measured by `{command}`; what the columns mean, and more, is in [{name}/table.md]({path.relative_to(ROOT)})."
    )
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
    write_files({path: new.encode()})


def main(
    data: Annotated[Path | None, typer.Option(help="Root of BSDS500, with BSD68.txt.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Only write the pages from docs/results.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
) -> None:
    """Measure what is not measured yet, and write RESULTS.md and the table of the README."""
    if not offline:
        if data is None:
            raise typer.BadParameter("got none, expected the root of BSDS500, or --offline", param_hint="--data")
        for color in (False, True):
            request = Request(models(color), "bsd68", LEVELS, data, color, threads=threads)
            evaluation(request, RESULTS / ("color" if color else "gray"))
        if Processes().rank:
            return  # the main process writes the pages
    flows = RESULTS / "flows"
    write_files({flows / "table.md": flows_table.page(flows).encode()})
    sections = [section(False), section(True), inverse_section(RESULTS / "inverse"), *map(quoted, _TABLES)]
    parts = [_HEAD, *filter(None, sections)]
    write_files({ROOT / "RESULTS.md": "\n".join(parts).encode()})
    rows, facts = read_results(RESULTS / "gray" / "results.json")
    whole = [m for m in means(rows) if m.pictures == len(facts["pictures"])]
    update(ROOT / "README.md", markdown([m for m in whole if m.sigma == 25 or m.model in _ALL_LEVELS]))


if __name__ == "__main__":
    typer.run(main)
