"""Which version of this library tells something."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def version() -> str:
    """Return the version of this distribution; empty where it was copied instead of installed."""
    try:
        return metadata.version("resilient-providers")
    except metadata.PackageNotFoundError:
        return ""
