"""Names that have moved from one module to another."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def moved(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` (PEP 562) for names that have moved to other modules.

    Parameters
    ----------
    module : str
        name of the module that had them.
    homes : mapping of str to str
        the module that has each name now.

    Returns
    -------
    callable
        finds a name in its new module and warns with ``FutureWarning``; raises ``AttributeError`` for any other name.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        message = f"{module}.{name} is {homes[name]}.{name} now; the old name will go with the next release"
        warnings.warn(message, FutureWarning, stacklevel=2)
        return getattr(importlib.import_module(homes[name]), name)

    return find
