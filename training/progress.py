"""What a run reports while it goes on."""

from __future__ import annotations

from icgn.training.validation import Validation


class Progress:
    """A receiver of reports that shows nothing; subclasses show them. The command line has one for terminals.

    One object serves one run at a time. Only the main process of a run reports.
    """

    def start(self, name: str, total: int, done: int = 0) -> None:
        """Work begins, or goes on where it was interrupted.

        Parameters
        ----------
        name : str
            what the work is called.
        total : int
            its steps.
        done : int
            steps done before.
        """

    def step(self, done: int, note: str = "") -> None:
        """So many steps are done; `note` names the present work, or its quality so far."""

    def validation(self, result: Validation) -> None:
        """A validation was made."""

    def message(self, text: str) -> None:
        """Anything else that a person should read."""

    def end(self) -> None:
        """The work is over, by success, error or interruption."""
