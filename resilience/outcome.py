"""How a call ended, as a value."""

from __future__ import annotations

from typing import Generic, TypeVar, cast, final

from resilience._core.words import Reason
from resilience.classify import failure_of
from resilience.errors import CallRejected, CircuitOpen
from resilience.failure import Failure

T = TypeVar("T")


@final
class Outcome(Generic[T]):
    """
    How a call ended: with a value, with an error, or refused before it left.

    Attributes:
        value: What the function returned; None unless `ok`.
        rejected: Whether we refused the call before it left.
    """

    __match_args__ = ("value", "error")
    __slots__ = ("_error", "_facts", "rejected", "value")

    rejected: bool
    value: T | None

    def __init__(
        self, value: T | None = None, error: Exception | None = None, facts: tuple[object, ...] | None = None
    ) -> None:
        self.value = value
        self._error = error
        # An open circuit is the cheap path of a sick system: its exception is made when somebody wants to see it.
        self._facts = facts
        if facts is not None:
            self.rejected = True
        elif error is not None and isinstance(error, CallRejected) and failure_of(error) is None:
            self.rejected = True
            error.__traceback__ = None  # nobody's frames but ours
        else:  # a call whose own function was refused elsewhere has left, and failed: its error has a failure
            self.rejected = False

    @property
    def ok(self) -> bool:
        """Whether the call returned a value."""
        return self._error is None and self._facts is None

    @property
    def error(self) -> Exception | None:
        """What the function raised, or the rejection, which then has no traceback; None if `ok`."""
        if self._error is None and self._facts is not None:
            self._error = CircuitOpen(*self._facts)
        return self._error

    @property
    def reason(self) -> Reason | None:
        """Why it was refused; None if it was not."""
        error = self.error
        return error.reason if self.rejected and isinstance(error, CallRejected) else None

    @property
    def failure(self) -> Failure | None:
        """The classified error of the provider; None if it succeeded or was refused."""
        return failure_of(self._error) if self._error is not None else None

    @property
    def retry_after(self) -> float | None:
        """In how many seconds a new call makes sense, as far as anybody knows."""
        error = self.error
        if isinstance(error, CallRejected):
            return error.retry_after
        return self.failure.retry_after if self.failure is not None else None

    def unwrap(self) -> T:
        """
        Return the value.

        Raises:
            Exception: The error, if there is one.
        """
        if self.error is not None:
            raise self.error
        return cast("T", self.value)

    def __repr__(self) -> str:
        if self.ok:
            return f"<Outcome ok {type(self.value).__name__}>"
        what = f"rejected {self.reason}" if self.rejected else f"failed {type(self.error).__name__}"
        return f"<Outcome {what}>"
