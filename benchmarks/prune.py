"""A model with fewer filters, for training to go on from: where the small conditional network began.

    python benchmarks/prune.py ridge-gray-small 16 --data ROOT -o first.safetensors
    python benchmarks/prune.py conditional-gray 24 --data ROOT --first RUN -o start.safetensors

ROOT is the root of BSDS500, RUN a trained ridge network that gives the first solution. Filters are chosen on crops of
128 x 128 of every 17th picture to train on (:func:`icgn.training.prune`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import icgn
from icgn.datasets import bsds500
from icgn.regularizers import ConditionalICGN, RidgeICGN
from icgn.regularizers.pretrained import read_card, save_model
from icgn.training import prune

_TOP, _LEFT, _SIDE, _EVERY = 60, 100, 128, 17


def main(
    model: Annotated[str, typer.Argument(help="Ridge or conditional network: shipped, or a path.")],
    filters: Annotated[int, typer.Argument(min=1, help="How many filters are left.")],
    data: Annotated[Path, typer.Option(help="Root of BSDS500.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File of the weights, .safetensors.")],
    first: Annotated[
        str | None, typer.Option(help="Ridge network for the first solution of a conditional one.")
    ] = None,
) -> None:
    """Prune a model and write it."""
    network = icgn.load_pretrained(model)
    if not isinstance(network, RidgeICGN | ConditionalICGN):
        raise typer.BadParameter(f"model: got a {type(network).__name__}, expected RidgeICGN or ConditionalICGN")
    if isinstance(network, ConditionalICGN) and first is not None:
        begin = icgn.load_pretrained(first)
        if not isinstance(begin, RidgeICGN):
            raise typer.BadParameter(f"first: got a {type(begin).__name__}, expected RidgeICGN")
        network = network.begun_by(begin)
    photographs = bsds500(data, split="train", gray=network.channels == 1)
    crops = [photographs[i].image[:, _TOP : _TOP + _SIDE, _LEFT : _LEFT + _SIDE] for i in range(0, 200, _EVERY)]
    save_model(prune(network, filters, crops), out, {**read_card(model), "name": out.stem})
    print(f"{filters} filters: {out}")


if __name__ == "__main__":
    typer.run(main)
