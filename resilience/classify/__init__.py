"""
From any error or response to a `Failure`, without importing a single SDK.

Three questions are answered apart: can it be retried (`Failure.category`), was the request sent
(`Failure.delivery`), and whose fault is it (`Failure.verdict`). Libraries are told by their classes' names and by what
hangs on their errors; the text of a message counts only where nothing else tells.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from resilience.classify._chain import of_error, of_response
from resilience.classify._finding import CATEGORIES as CATEGORIES
from resilience.errors import ProviderError, leave
from resilience.failure import Category, Failure, FailureKind

__all__ = ["Rule", "attach", "classify", "failure_of"]

Rule: TypeAlias = Callable[[object], Failure | FailureKind | None]
"""
Decides about an error or a response before anything else does.

It returns a whole `Failure`, or only a `FailureKind` (status, hint and delivery are then read as usual), or None to
pass. A rule for one class of error::

    def busy(error: object) -> FailureKind | None:
        return FailureKind.OVERLOADED if isinstance(error, PrinterOnFire) else None
"""

_ATTRIBUTE = "__resilience_failure__"

_log = logging.getLogger("resilience.classify")


def classify(error_or_response: object, *, rules: Sequence[Rule] = (), now: float | None = None) -> Failure:
    """
    Say what an error or a response means.

    Never raises: what cannot be read is an `unknown_error`.

    Args:
        error_or_response: An exception, or a response: anything with a status. A response below 400 is no failure of
            the provider's and comes back as a fatal `unknown_error` that speaks for the provider.
        rules: Tried in order before anything else. A rule that raises is logged and passed over. Default: none.
        now: The time in seconds since the Unix epoch, for ``Retry-After`` dates in responses that have no ``Date``.
            Default: None, the wall clock.
    """
    kind: FailureKind | None = None
    for rule in rules:
        decision = _ask(rule, error_or_response)
        if isinstance(decision, Failure):
            return decision
        if decision is not None:
            kind = decision
            break
    failure = _classify(error_or_response, now)
    if kind is None:
        return failure
    return replace(failure, kind=kind, category=CATEGORIES[kind], evidence=None)


def failure_of(error: BaseException) -> Failure | None:
    """
    Return the `Failure` that `execute` attached to *error* when it let it through, or None.

    A `ProviderError` carries its own.
    """
    failure = error.args[0] if isinstance(error, ProviderError) and error.args else vars(error).get(_ATTRIBUTE)
    return failure if isinstance(failure, Failure) else None


def attach(error: BaseException, failure: Failure) -> None:
    """Leave *failure* on *error*, where `failure_of` finds it and where pickling and copying keep it."""
    leave(error, _ATTRIBUTE, failure)


def _ask(rule: Rule, thing: object) -> Failure | FailureKind | None:
    try:
        decision = rule(thing)
        if decision is None or isinstance(decision, (Failure, FailureKind)):
            return decision
        raise TypeError(f"a rule returns a Failure, a FailureKind or None, not {decision!r}")
    except Exception:
        _log.exception("a rule failed", extra={"component": "classify"})
        return None


def _classify(thing: object, now: float | None) -> Failure:
    try:
        return of_error(thing, now) if isinstance(thing, BaseException) else of_response(thing, now)
    except Exception:  # an object that fights being looked at must not hide the error it came with
        _log.debug("could not be classified", exc_info=True, extra={"component": "classify"})
        return Failure(
            kind=FailureKind.UNKNOWN_ERROR, category=Category.RETRIABLE, error_type=str(type(thing).__name__)
        )
