"""The state of a fit of transport maps, kept in a file."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from icgn.storage import write_files
from icgn.transport.vectors import GradientNetwork

# Seconds on the wall between two writes.
_EVERY = 60.0


@dataclass(eq=False)
class FitState:
    """What a fit needs to go on.

    Attributes
    ----------
    networks : list of GradientNetwork
        what is trained, about the means of the samples.
    measures : list of tuple of Tensor and float
        the mean and the unit of the source, and those of the target.
    optimizer : torch.optim.Optimizer
        their optimizer.
    generator : torch.Generator or None
        of the draws from fixed samples.
    losses : list of float
        the estimate of the loss at each step so far.
    spent : float
        time of these steps, by the clock of the fit.
    """

    networks: list[GradientNetwork]
    measures: list[tuple[Tensor, float]]
    optimizer: torch.optim.Optimizer
    generator: torch.Generator | None
    losses: list[float] = field(default_factory=list)
    spent: float = 0.0


@dataclass(eq=False)
class Checkpoint:
    """A file with the state of a fit.

    Attributes
    ----------
    path : Path
        the file; its folder exists.
    settings : dict
        numbers and words that say which fit it is.

    Raises
    ------
    ValueError
        if the file is no checkpoint, or one of another fit.
    """

    path: Path
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        self._written = time.monotonic()
        self._content: dict[str, Any] | None = None
        if not self.path.exists():
            return
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            found = content["settings"]
        except Exception as error:  # torch names no class of errors for files that are not its own
            raise ValueError(f"checkpoint: {self.path} is no checkpoint of a fit: {error}") from error
        other = sorted(key for key in {*found, *self.settings} if found.get(key) != self.settings.get(key))
        if other:
            key = other[0]
            raise ValueError(
                f"checkpoint: {self.path} is of a fit with {key} = {found.get(key)!r}, expected"
                f" {self.settings.get(key)!r}; use another file for another fit"
            )
        self._content = content

    @property
    def measures(self) -> list[tuple[Tensor, float]] | None:
        """Means and units of source and target, None where there is no file yet."""
        measures: list[tuple[Tensor, float]] | None = None if self._content is None else self._content["measures"]
        return measures

    def restore(self, state: FitState) -> None:
        """Take over the state of the file, if there is one.

        Raises
        ------
        ValueError
            if its networks are others.
        """
        content = self._content
        if content is None:
            return
        try:
            for network, own in zip(state.networks, content["networks"], strict=True):
                network.load_state_dict(own)
            state.optimizer.load_state_dict(content["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"checkpoint: {self.path} is of other networks: {error}") from error
        state.losses, state.spent = content["losses"].tolist(), content["spent"]
        if state.generator is not None and content["generator"] is not None:
            state.generator.set_state(content["generator"])

    def write(self, state: FitState, now: bool = False) -> None:
        """Write the state if a minute has passed since the last time, or `now`."""
        if not now and time.monotonic() - self._written < _EVERY:
            return
        buffer = io.BytesIO()
        torch.save(
            {
                "settings": self.settings,
                "measures": state.measures,
                "networks": [network.state_dict() for network in state.networks],
                "optimizer": state.optimizer.state_dict(),
                "generator": None if state.generator is None else state.generator.get_state(),
                "losses": torch.tensor(state.losses, dtype=torch.float64),
                "spent": state.spent,
            },
            buffer,
        )
        write_files({self.path: buffer.getvalue()})
        self._written = time.monotonic()
