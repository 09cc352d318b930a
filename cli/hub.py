"""``icgn hub``."""

from __future__ import annotations

from pathlib import Path

from icgn.cli.screen import console, refuse
from icgn.regularizers import hub
from icgn.regularizers.remote import PREFIX


def prepare_model(model: str, output: Path, repository: str) -> None:
    """Write the files of a repository on the hub and say what to do with them.

    Parameters
    ----------
    model, output, repository
        as for :func:`icgn.regularizers.hub.prepare`.

    Raises
    ------
    typer.Exit
        2 if there is no such model, or the files cannot be written.
    """
    try:
        written = hub.prepare(model, output, repository)
    except (ValueError, OSError) as error:
        refuse(str(error))
    screen = console()
    for path in written:
        screen.print(str(path), soft_wrap=True, markup=False)
    screen.print(f"Upload: hf upload {repository} {output}", soft_wrap=True, markup=False)
    screen.print(f"Use: --model {PREFIX}{repository}", soft_wrap=True, markup=False)
