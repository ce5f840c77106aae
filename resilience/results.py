"""What a result is worth, and what happens to one that nobody gets."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any, Final

import anyio

from resilience.classify import CATEGORIES
from resilience.errors import UnacceptableResult
from resilience.failure import Delivery, Failure, FailureKind

_log = logging.getLogger("resilience.results")

# Closing what nobody wants must not hold up anybody for long.
_PATIENCE: Final = 5.0  # seconds


def judge(result: object, accept: Callable[[Any], bool | FailureKind | Failure], provider: str, operation: str) -> None:
    """
    Raise what *accept* says against a result.

    Raises:
        UnacceptableResult: It counts as a failure.
        TypeError: *accept* says something else.
    """
    verdict: object = accept(result)
    if verdict is True:
        return
    if verdict is False:
        verdict = FailureKind.UNKNOWN_ERROR
    if isinstance(verdict, FailureKind):
        kind = type(result).__name__
        verdict = Failure(kind=verdict, category=CATEGORIES[verdict], error_type=kind, delivery=Delivery.PROCESSED)
    if not isinstance(verdict, Failure):
        raise TypeError(f"accept= returns True, False, a FailureKind or a Failure, not {verdict!r}")
    raise UnacceptableResult(provider, operation, verdict, result)


async def dispose(result: object) -> None:
    """Close a result that nobody will get, if it can be closed: bounded in time, whatever happens to the call."""
    close = getattr(result, "aclose", None) or getattr(result, "close", None)
    if not callable(close):
        return
    with anyio.move_on_after(_PATIENCE, shield=True):
        try:
            closing = close()
            if inspect.isawaitable(closing):
                await closing
        except Exception:
            _log.debug("a discarded result could not be closed", exc_info=True, extra={"component": "results"})
