"""How far a training or an evaluation is, on a terminal."""

from __future__ import annotations

from icgn.cli.screen import Steps
from icgn.training import Progress, Validation


class Bar(Steps, Progress):
    """A bar with the steps done, a note and the time left; messages and validations are printed above it."""

    def validation(self, result: Validation) -> None:
        self.message(str(result))
