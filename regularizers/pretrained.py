"""Models as files: safetensors weights beside a JSON card. Reading one never runs code."""

from __future__ import annotations

import hashlib
import json
import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from icgn.compat import keyword_only
from icgn.regularizers.network import Network
from icgn.regularizers.registry import ModelError, architecture_of, build_model, registered
from icgn.regularizers.remote import fetch, is_hub_name
from icgn.storage.files import write_files

_WEIGHTS = Path(__file__).parent / "weights"
_REQUIRED = ("architecture", "sha256")
# Numbers in an architecture up to which its file need not be as large: filters, sides squared, nodes, ...
_SMALL = 10_000

DEFAULT_MODELS = {1: "conditional-gray", 3: "conditional-color"}
"""The shipped models that are used where none is named, by number of channels."""


def available_models() -> list[str]:
    """Names of the shipped models."""
    return sorted(p.stem for p in _WEIGHTS.glob("*.safetensors"))


@keyword_only
def load_pretrained(name: str | Path, *, device: str | torch.device = "cpu") -> Network:
    """Load a trained regularizer, in evaluation mode with its parameters frozen.

    Parameters
    ----------
    name : str or path
        a shipped model (:func:`available_models`), or the path of a ``.safetensors`` file with its card, a ``.json``
        file of the same stem, beside it; or a folder that holds exactly one such pair. ``hf:owner/name`` is fetched
        from the Hugging Face Hub (:mod:`icgn.regularizers.hub`).
    device : str or torch.device
        where its parameters go.

    Raises
    ------
    ModelError
        if there is no such model, or if its weights or card are missing, truncated, altered (sha256), or do not fit
        each other; the message names the file.
    """
    weights = locate(name)
    card = read_card(weights)
    content = _read(weights)
    if hashlib.sha256(content).hexdigest() != card["sha256"]:
        raise ModelError(f"{weights}: the sha256 differs from that in its card: the file is truncated or altered")
    try:
        tensors = load_tensors(content)
        _check_size(card["architecture"], sum(t.numel() for t in tensors.values()))
        model = build_model(card["architecture"], str(weights))
        model.load_state_dict(tensors)
    except ModelError:
        raise
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise ModelError(f"{weights}: the weights do not fit the architecture of the card: {error}") from error
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise ModelError(f"{weights}: the weights are not finite")
    model.to(device).eval().requires_grad_(False)
    return model


def read_card(name: str | Path) -> dict[str, Any]:
    """Read the card of a model: architecture, recipe, data and licence, seed, measured PSNR, sha256, package version.

    Raises
    ------
    ModelError
        if there is no such model or its card is not readable.
    """
    path = locate(name).with_suffix(".json")
    try:
        card = json.loads(_read(path).decode())
    except (ValueError, RecursionError) as error:  # of encoding, syntax, numbers too long, and nesting too deep
        raise ModelError(f"{path}: not a JSON card: {error}") from error
    missing = [k for k in _REQUIRED if not isinstance(card, dict) or k not in card]
    if missing:
        raise ModelError(f"{path}: the card lacks {', '.join(missing)}")
    return dict(card)


def save_model(model: Network, path: str | Path, card: dict[str, Any]) -> None:
    """Write weights and card of a model, both at once or neither.

    Parameters
    ----------
    model : Network
        a regularizer of a registered class.
    path : str or path
        file of the weights, ending in ``.safetensors``; the card goes beside it, ending in ``.json``.
    card : dict
        what the card holds; architecture and sha256 are added.

    Raises
    ------
    ModelError
        if the model's class cannot be written in a card, or the suffix is not ``.safetensors``.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ModelError(f"path: got {path.name!r}, expected a name ending in .safetensors")
    architecture = architecture_of(model)
    if architecture is None:
        raise ModelError(f"model: got {type(model).__name__}, expected one of {', '.join(registered())}")
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    content = save_tensors(tensors)
    complete = {**card, "architecture": architecture, "sha256": hashlib.sha256(content).hexdigest()}
    text = json.dumps(complete, indent=2, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_files({path: content, path.with_suffix(".json"): text.encode()})


def locate(name: str | Path) -> Path:
    """Find the weights file of a model by its name, path or folder; one of the hub is fetched.

    Raises
    ------
    ModelError
        if there is none.
    """
    if is_hub_name(name):
        name = fetch(str(name))
    shipped = _WEIGHTS / f"{name}.safetensors"
    if isinstance(name, str) and os.sep not in name and shipped.is_file():
        return shipped
    path = Path(name)
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            raise ModelError(f"{path}: has {len(found)} .safetensors files, expected exactly one")
        return found[0]
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ModelError(
                f"{path}: expected a .safetensors file; pickles are refused because reading them runs code"
            )
        return path
    if path.parent != Path():
        raise ModelError(f"model: got {str(name)!r}, but there is no such file or folder")
    near = get_close_matches(str(name), available_models(), 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ModelError(
        f"model: got {str(name)!r}, expected one of {', '.join(available_models())}, or an existing path{hint}"
    )


def _check_size(architecture: Any, count: int) -> None:
    """Raise ``ValueError`` for an architecture far larger than its file, before memory and time are taken for it."""
    limit = max(count, _SMALL)
    for name, value in architecture.items() if isinstance(architecture, dict) else ():
        if isinstance(value, dict):
            _check_size(value, count)
        needed = value**2 if name == "size" and isinstance(value, int) else value
        if isinstance(needed, int) and needed > limit:
            raise ValueError(f"{name}: got {value}, but the file holds {count} numbers")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
