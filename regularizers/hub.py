"""Models prepared for the Hugging Face Hub: weights, card and a page that describes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from icgn.regularizers.pretrained import load_pretrained, locate, read_card
from icgn.regularizers.registry import ModelError
from icgn.regularizers.remote import PREFIX, parse_name
from icgn.storage.files import write_files


def prepare(model: str | Path, folder: str | Path, repository: str = "OWNER/NAME") -> list[Path]:
    """Write the files of a repository on the hub: weights, card, and a README with its metadata; nothing is uploaded.

    Parameters
    ----------
    model : str or path
        as for :func:`icgn.load_pretrained`; it is loaded once, so that a damaged model is found here.
    folder : str or path
        made if missing; a model that is there already is replaced, other files are not touched.
    repository : str
        ``owner/name`` under which it will be uploaded, for the README.

    Returns
    -------
    list of Path
        weights, card and README.

    Raises
    ------
    ModelError
        if the model cannot be loaded, `repository` is no name, or `folder` holds another model.
    OSError
        if the files cannot be written; then none is.
    """
    parse_name(PREFIX + repository)
    folder = Path(folder)
    weights = locate(model)
    load_pretrained(weights)
    card = read_card(weights)
    target = folder / weights.name
    others = [p.name for p in folder.glob("*.safetensors") if p.name != target.name]
    if others:
        raise ModelError(f"{folder}: holds {others[0]} already, expected a folder for {target.name} alone")
    folder.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.samefile(weights):
        raise ModelError(f"{folder}: is where the model is, expected another folder")
    text = readme(card, repository)
    sources = {target: weights.read_bytes(), target.with_suffix(".json"): weights.with_suffix(".json").read_bytes()}
    contents = {**sources, folder / "README.md": text.encode()}
    write_files(contents)
    return list(contents)


def readme(card: dict[str, Any], repository: str) -> str:
    """Describe a model for the hub: metadata in YAML, how to use it, what it was trained on and what it reached.

    Parameters
    ----------
    card : dict
        of :func:`icgn.regularizers.read_card`; what it does not say is left out.
    repository : str
        ``owner/name``.
    """
    architecture = card["architecture"]
    data = card.get("data") or {}
    sections = [
        _metadata(),
        f"# {card.get('name', repository)}",
        f"A convex regularizer of class `{architecture['type']}` ({_channels(architecture)}) for"
        " icgn: restored pictures come with a proof of how far they are from the one global minimizer.",
        f"```python\nimport icgn\n\nreg = icgn.load_pretrained({PREFIX + repository!r})\n```\n\n"
        "Weights are safetensors with a JSON card: loading them runs no code.",
        _quality(card.get("psnr") or {}),
        f"## Training data\n\n{data['name']}: {data['licence']}" if {"name", "licence"} <= data.keys() else "",
        f"## Note\n\n{card['note']}" if card.get("note") else "",
    ]
    return "\n\n".join(s for s in sections if s) + "\n"


def _metadata() -> str:
    """The YAML head; JSON strings are YAML strings."""
    entries = {
        "library_name": "icgn",
        "pipeline_tag": "image-to-image",
        "tags": ["icgn", "image-restoration", "inverse-problems", "convex-regularization", "deepinv"],
        "license": "other",
        "license_name": "that of the training data",
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in entries.items()]
    return "\n".join(["---", *lines, "---"])


def _channels(architecture: dict[str, Any]) -> str:
    return {1: "gray", 3: "colour"}.get(architecture.get("channels", 1), "any channels")


def _quality(psnr: dict[str, Any]) -> str:
    """The PSNR of the card as a table, a row for every set of pictures and noise level."""
    rows = [(name, level, value) for name, levels in psnr.items() for level, value in levels.items()]
    if not rows:
        return ""
    head = "## Quality\n\nMean PSNR at the certified minimizer, noise levels in gray levels of 255.\n"
    lines = [f"| {name} | {level} | {value:.2f} |" for name, level, value in rows]
    return "\n".join([head, "| pictures | sigma | PSNR, dB |", "|---|---|---|", *lines])
