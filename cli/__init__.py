"""The command line; importing it is cheap: torch and deepinv come with the modules inside."""

from icgn.cli.main import app, main

__all__ = ["app", "main"]
