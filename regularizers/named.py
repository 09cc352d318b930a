"""Regularizers by what is typed: a trained one, total variation, or one of a file of your own."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from icgn.compat import keyword_only
from icgn.regularizers.base import ConvexRegularizer
from icgn.regularizers.pretrained import load_pretrained
from icgn.regularizers.registry import ModelError
from icgn.regularizers.tv import TotalVariation
from icgn.storage.code import first_line, load_object

TV = "tv"
"""The name of total variation."""


def is_code(name: str | Path) -> bool:
    """Whether a name is that of a regularizer in a file of Python code, ``FILE.py:NAME``."""
    return ".py:" in str(name)


@keyword_only
def load_regularizer(name: str | Path, *, device: str | torch.device = "cpu") -> ConvexRegularizer:
    """Load a regularizer, in evaluation mode with its parameters frozen.

    Parameters
    ----------
    name : str or path
        what :func:`icgn.load_pretrained` takes; ``tv`` for :class:`icgn.TotalVariation`; or ``FILE.py:NAME``, a class
        or function that is called without arguments and returns a :class:`icgn.regularizers.ConvexRegularizer`. The
        file is executed.
    device : str or torch.device
        where it computes.

    Raises
    ------
    ModelError
        if there is no such model, or the code fails or returns something else.
    """
    if is_code(name):
        made = _of_code(str(name))
    elif name == TV:
        made = TotalVariation()
    else:
        return load_pretrained(name, device=device)
    return made.to(device).eval().requires_grad_(False)


def _of_code(name: str) -> ConvexRegularizer:
    try:
        factory = load_object(name, "model", "FILE.py:NAME, e.g. own.py:MyRegularizer")
        made = factory()
    except ValueError as error:
        raise ModelError(str(error)) from error
    except (Exception, SystemExit) as error:  # whatever the code raises
        raise ModelError(f"model {name}: failed: {first_line(error)}") from error
    if not (isinstance(made, nn.Module) and isinstance(made, ConvexRegularizer)):
        raise ModelError(f"model {name}: returned {type(made).__name__}, expected a ConvexRegularizer")
    return made
