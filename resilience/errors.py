"""
Every exception this package raises.

::

    ResilienceError
      x ConfigurationError            (also a ValueError)
      x CallTimeout                   (also a TimeoutError)
      x ProviderError                 one type for every provider: ``errors="standard"``
      x CallRejected                  we refused before calling; says nothing new about the provider
        + CircuitOpen
        + ProviderGated
        + RateLimited
        + BulkheadFull
        + Throttled
        + CostLimitReached
        + DeadlineExceeded
        + ShuttingDown
      x StreamInterrupted             a stream broke off after its first items were out
      x UnacceptableResult            a value came back that counts as a failure
      x AllProvidersFailed            a fallback chain or a pool has nobody left to ask

A provider's own exception is let through unchanged unless ``errors="standard"`` asks for `ProviderError`.

The facts live in ``args`` and the text is made only when somebody reads it: a refusal is the cheap path of a
sick system, and ``args`` alone make the exceptions pickle and copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from resilience._core.words import Reason as Reason
from resilience._core.words import many

if TYPE_CHECKING:
    from resilience.failure import Failure


class ResilienceError(Exception):
    """The base of everything this package raises on its own account."""


class ConfigurationError(ResilienceError, ValueError):
    """A setting was refused. The text names the key, the value, where it came from and the likely slip."""


class ProviderError(ResilienceError):
    """
    A provider's final error under one common type; the original is its ``__cause__``.

    Raised instead of the original only with ``errors="standard"``. ``args`` is ``(failure,)``.
    """

    @property
    def failure(self) -> Failure:
        """The classified error."""
        failure: Failure = self.args[0]
        return failure

    def __str__(self) -> str:
        failure = self.failure
        where = _where(failure.provider, failure.operation)
        status = f", status {failure.status}" if failure.status is not None else ""
        tries = "1 attempt" if failure.attempts == 1 else f"{failure.attempts} attempts"
        return f"{where}: {failure.kind} after {tries} ({failure.error_type}{status})"


_WHAT_TOOK_LONG = {
    "attempt": "attempt",
    "connect": "opening the stream",
    "first_item": "waiting for the first item",
    "idle": "waiting for the next item",
}


class CallTimeout(ResilienceError, TimeoutError):
    """
    Our own deadline expired and interrupted the attempt.

    ``args`` is ``(provider, operation, scope, limit, elapsed)``; *scope* is ``"attempt"`` or ``"total"``, or of a
    stream ``"connect"``, ``"first_item"`` or ``"idle"``; *limit* and *elapsed* are seconds. With ``"shutdown"`` it was
    the process that could not wait any longer, and *limit* is how long it did.
    """

    def __init__(self, *facts: object) -> None:
        # TimeoutError is an OSError, which would read the facts as errno, text and file name.
        super().__init__()
        self.args = facts

    @property
    def provider(self) -> str:
        """The provider's name."""
        return str(self.args[0])

    @property
    def operation(self) -> str:
        """The operation's name, or an empty string."""
        return str(self.args[1])

    @property
    def scope(self) -> str:
        """``"attempt"`` or ``"total"`` for what took too long, what part of a stream, or ``"shutdown"``."""
        return str(self.args[2])

    @property
    def limit(self) -> float:
        """The limit that was exceeded, in seconds."""
        return float(self.args[3])

    @property
    def elapsed(self) -> float:
        """How long the attempt (or the call) had taken, in seconds."""
        return float(self.args[4])

    def __str__(self) -> str:
        where = _where(self.provider, self.operation)
        if self.scope == "shutdown":
            return f"{where}: interrupted by the shutdown after {self.elapsed:.3g} s (grace {self.limit:.3g} s)"
        what = _WHAT_TOOK_LONG.get(self.scope, "call")
        return f"{where}: {what} timed out after {self.elapsed:.3g} s (limit {self.limit:.3g} s)"


class CallRejected(ResilienceError):
    """
    We refused before calling. Never evidence against the provider.

    ``args`` is ``(provider, reason, retry_after, detail)``: *retry_after* in seconds or None, *detail* any object
    whose ``str`` is the figures.
    """

    _what: ClassVar[str] = "call refused"

    @property
    def provider(self) -> str:
        """The provider's name."""
        return str(self.args[0])

    @property
    def reason(self) -> Reason:
        """Why it was refused; the same value as on the metric."""
        return Reason(self.args[1])

    @property
    def retry_after(self) -> float | None:
        """In how many seconds a call may be admitted again, counted from the refusal; None if unknown."""
        seconds: float | None = self.args[2]
        return seconds

    def __str__(self) -> str:
        detail = str(self.args[3])
        text = f"{self.provider}: {self._what}" + (f", {detail}" if detail else "")
        if self.retry_after is not None:
            text += f", {self._next(self.retry_after)}"
        return text

    def _next(self, seconds: float) -> str:
        return f"retry in {seconds:.1f} s"


class CircuitOpen(CallRejected):
    """The provider's circuit is open: recent calls failed, so this one was not tried."""

    _what = "circuit open"

    def _next(self, seconds: float) -> str:
        return f"next probe in {seconds:.1f} s"


class ProviderGated(CallRejected):
    """The provider asked everybody to stay away for longer than this call may wait."""

    _what = "provider asked for a pause"


class RateLimited(CallRejected):
    """More calls, or more tokens, than the rate limit allows by now."""

    _what = "rate limit"


class BulkheadFull(CallRejected):
    """As many attempts as may run are running, and no place to wait is left, or the wait was too long."""

    _what = "bulkhead full"


class Throttled(CallRejected):
    """The provider has been refusing a large share of calls, so a share of them is not sent."""

    _what = "throttled"


class CostLimitReached(CallRejected):
    """The money for this window is spent or reserved."""

    _what = "cost limit reached"


class DeadlineExceeded(CallRejected, TimeoutError):
    """The caller's own deadline had passed before the call left."""

    def __init__(self, *facts: object) -> None:
        super().__init__()
        self.args = facts  # as in CallTimeout

    _what = "deadline has passed"


class ShuttingDown(CallRejected):
    """The process, or at least its registry of providers, is going down: no call begins any more."""

    _what = "shutting down"


class StreamInterrupted(ResilienceError):
    """
    A stream broke off after its first items had reached the caller, so it cannot be repeated silently.

    ``args`` is ``(provider, operation, count, items)``; the error that broke it is the ``__cause__``.
    """

    @property
    def provider(self) -> str:
        """The provider's name."""
        return str(self.args[0])

    @property
    def operation(self) -> str:
        """The operation's name, or an empty string."""
        return str(self.args[1])

    @property
    def count(self) -> int:
        """How many items had come."""
        return int(self.args[2])

    @property
    def items(self) -> tuple[object, ...]:
        """The last items that had come, as many as ``stream.keep`` asks for."""
        items: tuple[object, ...] = self.args[3]
        return items

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"  # without the items

    def __str__(self) -> str:
        where = _where(self.provider, self.operation)
        why = f" ({type(self.__cause__).__name__})" if self.__cause__ is not None else ""
        return f"{where}: stream interrupted after {many(self.count, 'item')}{why}"


class UnacceptableResult(ResilienceError):
    """
    A value came back that counts as a failure, and no better one followed.

    ``args`` is ``(provider, operation, failure, result)``.
    """

    @property
    def failure(self) -> Failure:
        """What the value was taken for."""
        failure: Failure = self.args[2]
        return failure

    @property
    def result(self) -> object:
        """The value itself."""
        return self.args[3]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"  # without the value

    def __str__(self) -> str:
        provider, operation, failure, result = self.args
        where = _where(provider, operation)
        return f"{where}: the result was not acceptable: {failure.kind} ({type(result).__name__})"


class AllProvidersFailed(ResilienceError):
    """
    Every provider that could have been asked has failed or refused.

    ``args`` is ``(outcomes,)``; the last real error of a provider is the ``__cause__``.
    """

    @property
    def outcomes(self) -> tuple[tuple[str, BaseException], ...]:
        """Who was asked, in order, and what came out."""
        outcomes: tuple[tuple[str, BaseException], ...] = self.args[0]
        return outcomes

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"  # without what others wrote into their errors

    def __str__(self) -> str:
        said = "; ".join(f"{name}: {_brief(error)}" for name, error in self.outcomes)
        return f"all providers failed: {said}"


def _where(provider: str, operation: str) -> str:
    """Say whose call it was."""
    return f"{provider}.{operation}" if operation else provider


def _brief(error: BaseException) -> str:
    """Say of *error* what is safe to show: our own texts hold no payload, those of others may."""
    if isinstance(error, ResilienceError):
        return str(error).partition(": ")[2]
    failure: Failure | None = vars(error).get("__resilience_failure__")  # what `failure_of` returns
    return f"{failure.kind} ({type(error).__name__})" if failure is not None else type(error).__name__


_NOTE = "resilience: "


def annotate(error: BaseException, name: str, text: str) -> None:
    """
    Leave *text* of the provider *name* as a note on *error*, in place of what an earlier call of it left there.

    A function that raises one stored instance again and again must not make it grow; nested calls of different
    providers have each their own to say.
    """
    mine = f"{_NOTE}{name}: "
    notes: object = vars(error).get("__notes__", [])
    if isinstance(notes, list):  # else it is something of the error's own
        kept: list[object] = [
            note for note in cast("list[object]", notes) if not (isinstance(note, str) and note.startswith(mine))
        ]
        leave(error, "__notes__", [*kept, mine + text])


def leave(error: BaseException, name: str, value: object) -> None:
    """Write on *error*, even if its own ``__setattr__`` would refuse: a frozen one must come out as itself too."""
    BaseException.__setattr__(error, name, value)
