"""Modules that other packages import and that commands seldom need: executed when a name in them is first asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from threading import RLock
from types import ModuleType
from typing import Any

# deepinv imports torchvision, whose models and operators import the compiler of torch: longer than torch itself.
SELDOM = frozenset({"torchvision.models", "torchvision.ops", "torchvision.datasets", "torchvision.io"})
_LOCK = RLock()


class Deferred(MetaPathFinder):
    """A finder of modules whose code runs when one of their names is asked for.

    Unlike those of ``importlib.util.LazyLoader`` they can be asked where they come from without being executed, as
    ``inspect`` does with all modules there are.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module of the names, which is executed late; None for all others."""
        spec = PathFinder.find_spec(fullname, path, target) if fullname in self.names else None
        if spec is not None and spec.loader is not None:
            spec.loader = _LateLoader(spec.loader)
        return spec


class _LateLoader(Loader):
    """Make a module as another loader does, but let its first use execute it."""

    def __init__(self, inner: Loader) -> None:
        self.inner = inner

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = _Late


class _Late(ModuleType):
    """A module that has not been executed yet."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        with _LOCK:
            spec = self.__spec__
            # Within its own execution, and after that of another thread, it is a module like any other.
            if spec is not None and isinstance(spec.loader, _LateLoader):
                spec.loader = spec.loader.inner
                spec.loader.exec_module(self)
                self.__class__ = ModuleType  # type: ignore[assignment]
            found: Any = object.__getattribute__(self, name)
        return found


def defer(names: frozenset[str] = SELDOM) -> None:
    """Let this process execute modules late that it has not loaded yet; for programs, not for libraries."""
    if not any(isinstance(finder, Deferred) for finder in sys.meta_path):
        sys.meta_path.insert(0, Deferred(names))
