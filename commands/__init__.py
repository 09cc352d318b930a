"""What the commands of the command line do; importing it is cheap: torch and deepinv come with the modules inside."""

from icgn.commands.screen import console, naming, progress, refuse, say, warnings_said

__all__ = ["console", "naming", "progress", "refuse", "say", "warnings_said"]
