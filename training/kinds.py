"""The tables of a recipe that name a class by their ``type``: losses and kinds of noise."""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar

from icgn.training.ranges import Range, check


class Kind(ABC):
    """What a table of a recipe describes; subclasses of its kinds are frozen dataclasses of the keys of the table.

    ``class Loss(Kind)`` has a dictionary `known` of its own; ``class Mine(Loss, name="mine")`` adds itself to it, and
    is the loss of recipes with ``type = "mine"``.

    Attributes
    ----------
    known : dict
        the classes by their ``type``.
    name : str
        the ``type`` of recipes.
    ranges : dict
        what each parameter may be.

    Raises
    ------
    RecipeError
        if a parameter is out of its range.
    """

    known: ClassVar[dict[str, Any]]
    name: ClassVar[str]
    ranges: ClassVar[dict[str, Range]] = {}

    def __init_subclass__(cls, name: str = "") -> None:
        if "known" in vars(cls):
            return
        cls.name = name or cls.__name__
        cls.known[cls.name] = cls

    def __post_init__(self) -> None:
        check(self, self.ranges)

    def to_dict(self) -> dict[str, Any]:
        """The table of a recipe."""
        return {"type": self.name, **vars(self)}
