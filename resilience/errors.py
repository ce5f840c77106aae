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
        + DeadlineExceeded

A provider's own exception is let through unchanged unless ``errors="standard"`` asks for `ProviderError`.

The facts live in ``args`` and the text is made only when somebody reads it: a refusal is the cheap path of a
sick system, and ``args`` alone make the exceptions pickle and copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from resilience._core.words import Reason as Reason

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
        where = f"{failure.provider}.{failure.operation}" if failure.operation else failure.provider
        status = f", status {failure.status}" if failure.status is not None else ""
        tries = "1 attempt" if failure.attempts == 1 else f"{failure.attempts} attempts"
        return f"{where}: {failure.kind} after {tries} ({failure.error_type}{status})"


class CallTimeout(ResilienceError, TimeoutError):
    """
    Our own deadline expired and interrupted the attempt.

    ``args`` is ``(provider, operation, scope, limit, elapsed)``; *scope* is ``"attempt"`` or ``"total"``, *limit*
    and *elapsed* are seconds.
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
        """``"attempt"`` if one attempt took too long, ``"total"`` if the whole call did."""
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
        where = f"{self.provider}.{self.operation}" if self.operation else self.provider
        what = "attempt" if self.scope == "attempt" else "call"
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


class DeadlineExceeded(CallRejected, TimeoutError):
    """The caller's own deadline had passed before the call left."""

    def __init__(self, *facts: object) -> None:
        super().__init__()
        self.args = facts  # as in CallTimeout

    _what = "deadline has passed"


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
