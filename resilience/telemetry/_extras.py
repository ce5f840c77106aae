"""What is only there with an extra."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def needs(extra: str, what: str) -> Generator[None, None, None]:
    """
    Import within this what comes with *extra*.

    Raises:
        ImportError: It is not installed; says what to install.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"{what} need an extra: pip install 'resilient-providers[{extra}]' ({error})", name=error.name
        ) from error
