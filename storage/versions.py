"""The machine and the versions of packages, which are stored with results."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import icgn

_PACKAGES = ("torch", "deepinv", "numpy", "scikit-image")


def environment() -> dict[str, Any]:
    """The machine and the versions that rows are computed by."""
    return {"machine": platform.machine(), "versions": versions(*_PACKAGES)}


def versions(*packages: str) -> dict[str, str]:
    """The versions of icgn, of Python and of some packages."""
    own = {"icgn": icgn.__version__, "python": platform.python_version()}
    return own | {package: version(package) for package in packages}
