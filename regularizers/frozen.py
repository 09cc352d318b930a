"""Frozen data classes of tensors that change their precision and choose images field by field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

FrozenT = TypeVar("FrozenT", bound="Frozen")
PerImageT = TypeVar("PerImageT", bound="PerImage")


@dataclass(frozen=True, eq=False)
class Frozen:
    """Base of frozen data classes whose fields are tensors, numbers, other such objects, or tuples of these."""

    def to(self: FrozenT, dtype: torch.dtype) -> FrozenT:
        """The same with all tensors in another precision."""

        def cast(value: Any) -> Any:
            return value.to(dtype) if isinstance(value, Tensor | Frozen) else value

        return _mapped(self, cast)


@dataclass(frozen=True, eq=False)
class PerImage(Frozen):
    """As the base; the tensors have the batch first, of one entry where they are the same for all images."""

    def select(self: PerImageT, index: Tensor) -> PerImageT:
        """The same for the images `index` (int64) of the batch."""

        def pick(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value if len(value) == 1 else value[index]
            return value.select(index) if isinstance(value, PerImage) else value

        return _mapped(self, pick)


def _mapped(frozen: FrozenT, f: Callable[[Any], Any]) -> FrozenT:
    """The object with f applied to its fields, and to the entries of those that are tuples."""
    values = {field.name: getattr(frozen, field.name) for field in fields(frozen) if field.init}
    changes = {name: tuple(map(f, v)) if isinstance(v, tuple) else f(v) for name, v in values.items()}
    return replace(frozen, **changes)
