"""Models on the Hugging Face Hub, fetched by name. Only weights and cards are read, never code."""

from __future__ import annotations

import os
import re
from pathlib import Path

from icgn.regularizers.registry import ModelError

PREFIX = "hf:"
"""What a name of a model on the hub begins with."""

# What is fetched; a repository may hold pickles and scripts beside them, and these stay where they are.
_PATTERNS = ["*.safetensors", "*.json"]
_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def is_hub_name(name: str | os.PathLike[str]) -> bool:
    """Whether a model is asked for by its name on the hub."""
    return isinstance(name, str) and name.startswith(PREFIX)


def parse_name(name: str) -> tuple[str, str | None]:
    """Split ``hf:owner/name`` or ``hf:owner/name@revision`` into repository and revision.

    Raises
    ------
    ModelError
        for anything else.
    """
    found = _NAME.fullmatch(name.removeprefix(PREFIX))
    if not is_hub_name(name) or found is None:
        raise ModelError(f"model: got {name!r}, expected hf:owner/name or hf:owner/name@revision")
    return found["repository"], found["revision"]


def fetch(name: str) -> Path:
    """Fetch weights and card of a model, or find them in the cache of ``huggingface_hub``; returns their folder.

    Parameters
    ----------
    name : str
        ``hf:owner/name``, the newest version, or ``hf:owner/name@revision``, a branch, tag or commit. The sha256 in
        the card shows a damaged file; only a commit is the same version at every time.

    Raises
    ------
    ModelError
        if ``huggingface_hub`` is not installed, the name is none, or the hub does not give the files; the message says
        why.
    """
    repository, revision = parse_name(name)
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ModelError(f"{name}: needs huggingface_hub, expected: pip install 'icgn[hub]'") from error
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=_PATTERNS))
    # Errors of the HTTP library, the hub and the disk have a common ancestor in some versions only.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{name}: cannot be fetched from the Hugging Face Hub: {reason}") from error
