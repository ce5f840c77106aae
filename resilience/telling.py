"""What a call tells its provider's listeners, and the numbers that go with it."""

from __future__ import annotations

from typing import Final, TypedDict, final

from resilience._core.words import Reason, Verdict
from resilience.errors import CallRejected
from resilience.events import (
    AttemptFailed,
    AttemptTimedOut,
    CallFailed,
    CallRecovered,
    CallWasRejected,
    RetryScheduled,
)
from resilience.failure import Failure
from resilience.runtime import ProviderRuntime
from resilience.watching import End, observed

RETRIED: Final = "retried"
"""What followed a failed attempt, where it was another one. Otherwise it is the `Reason` why not."""


class _Where(TypedDict):
    """What every event of a call starts with."""

    provider: str
    operation: str
    time: float


@final
class Teller:
    """Tells what happens in the calls of one operation."""

    __slots__ = ("_operation", "_runtime")

    def __init__(self, runtime: ProviderRuntime, operation: str) -> None:
        self._runtime = runtime
        self._operation = operation

    def _where(self) -> _Where:
        return {
            "provider": self._runtime.name,
            "operation": self._operation,
            "time": self._runtime.wall_clock(),
        }

    def ended(self, end: End, seconds: float, failure: Failure | None) -> None:
        """A call is over that no lane has counted."""
        runtime = self._runtime
        if end is End.SUCCESS or end is End.SUCCESS_AFTER_RETRY:
            runtime.succeeded += 1
        elif end is End.FAILURE:
            runtime.counting().failed(failure)
        elif end is End.CANCELLED:
            runtime.counting().cancelled += 1
        if observed.metered and end is not End.REJECTED:
            runtime.counting().call_took(self._operation, end, seconds)

    def ended_swiftly(self, verdict: Verdict, seconds: float) -> None:
        """A call is over that was one attempt, all of it, and that no lane has counted."""
        if verdict is Verdict.SUCCESS:
            self._runtime.succeeded += 1
            if observed.metered:
                self._runtime.counting().swift(self._operation, seconds)
            return
        end = End.CANCELLED if verdict is Verdict.IGNORED else End.FAILURE
        self.ended(end, seconds, None)
        if observed.metered:
            self._runtime.counting().attempt_took(self._operation, end, seconds)

    def rejected(self, rejection: CallRejected) -> CallRejected:
        """A call was refused before it left."""
        if rejection.reason is Reason.SHUTTING_DOWN:
            self._runtime.life.call_refused()
        self._runtime.counting().rejected(rejection.reason.value, self._operation, self._runtime.wall_clock())
        if self._runtime.bus.hears_rejections:
            self._runtime.bus.emit(
                CallWasRejected(**self._where(), reason=rejection.reason, retry_after=rejection.retry_after)
            )
        return rejection

    def recovered(self, attempts: int, duration: float) -> None:
        """A call succeeded after *attempts* attempts."""
        self._runtime.recovered += 1
        self._runtime.bus.emit(CallRecovered(**self._where(), attempts=attempts, duration=duration))

    def timed_out(self, error: BaseException, attempt: int, duration: float) -> None:
        """Our own limit interrupted an attempt; *error* is the `CallTimeout`."""
        scope, limit = error.args[2:4]
        self._runtime.timeouts += scope != "shutdown"  # which was not the provider's slowness
        self._runtime.bus.emit(
            AttemptTimedOut(**self._where(), attempt=attempt, scope=scope, limit=limit, duration=duration)
        )

    def failed(self, failure: Failure, attempt: int, duration: float) -> None:
        """An attempt failed. So frequent when things go badly that it is only made for those who ask."""
        if self._runtime.bus.hears(AttemptFailed):
            self._runtime.bus.emit(AttemptFailed(**self._where(), failure=failure, attempt=attempt, duration=duration))

    def scheduled(self, failure: Failure, attempt: int, max_attempts: int, delay: float) -> None:
        """Attempt number *attempt* follows in *delay* seconds."""
        self._runtime.retries += 1
        tally = self._runtime.counting()
        tally.followed(failure.kind.value, RETRIED)
        tally.delays.record(delay)
        self._runtime.bus.emit(
            RetryScheduled(**self._where(), failure=failure, attempt=attempt, max_attempts=max_attempts, delay=delay)
        )

    def gave_up(self, failure: Failure, reason: Reason, error: BaseException, duration: float) -> None:
        """A call gave up, and *error* goes to the caller."""
        self._runtime.exhausted += failure.retryable
        self._runtime.counting().followed(failure.kind.value, reason.value)
        self._runtime.bus.emit(
            CallFailed(
                **self._where(),
                failure=failure,
                attempts=failure.attempts,
                duration=duration,
                reason=reason,
                error=error,
            )
        )
