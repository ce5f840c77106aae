"""How a call ended, as a value."""

from __future__ import annotations

from typing import Generic, TypeGuard, TypeVar, cast, final

from resilience._core.words import Reason
from resilience.classify import failure_of
from resilience.errors import CallRejected
from resilience.failure import Failure

T = TypeVar("T")


def was_refused(error: Exception | None) -> TypeGuard[CallRejected]:
    """Whether *error* is our refusal of a call. One whose own function was refused elsewhere has left, and failed."""
    return isinstance(error, CallRejected) and failure_of(error) is None


@final
class Outcome(Generic[T]):
    """
    How a call ended: with a value, with an error, or refused before it left.

    Attributes:
        value: What the function returned; None unless `ok`.
        error: What it raised, or the rejection, which then has no traceback; None if `ok`.
    """

    __match_args__ = ("value", "error")
    __slots__ = ("error", "value")

    def __init__(self, value: T | None = None, error: Exception | None = None) -> None:
        self.value = value
        self.error = error

    @property
    def ok(self) -> bool:
        """Whether the call returned a value."""
        return self.error is None

    @property
    def rejected(self) -> bool:
        """Whether we refused the call before it left."""
        return was_refused(self.error)

    @property
    def reason(self) -> Reason | None:
        """Why it was refused; None if it was not."""
        return self.error.reason if was_refused(self.error) else None

    @property
    def failure(self) -> Failure | None:
        """The classified error of the provider; None if it succeeded or was refused."""
        return failure_of(self.error) if self.error is not None else None

    @property
    def retry_after(self) -> float | None:
        """In how many seconds a new call makes sense, as far as anybody knows."""
        if isinstance(self.error, CallRejected):
            return self.error.retry_after
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
