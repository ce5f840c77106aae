"""The course of one call as others see it: what is counted, timed and followed, each end exactly once."""

from __future__ import annotations

from resilience._core.words import Reason
from resilience.failure import Failure
from resilience.plan import Plan
from resilience.process import watch_of
from resilience.runtime import ProviderRuntime
from resilience.telling import Teller
from resilience.watching import AttemptWatch, End, Watch, observed


class Course:
    """
    What a call has come to.

    Args:
        runtime: The provider's runtime.
        plan: What the call is entitled to.
        began: When it began, on the runtime's clock.
        attempt: How many attempts were made already.
        watched: Whether it is a call of its own to whoever follows calls.
    """

    __slots__ = ("_is_over", "_seen", "_tell", "attempt", "began", "plan", "runtime", "watch")

    attempt: int
    began: float
    plan: Plan
    runtime: ProviderRuntime
    watch: Watch | None

    def __init__(self, runtime: ProviderRuntime, plan: Plan, began: float, *, attempt: int, watched: bool) -> None:
        self.runtime = runtime
        self.plan = plan
        self.began = began
        self.attempt = attempt
        self._tell = Teller(runtime, plan.operation)
        self._seen: AttemptWatch | None = None
        self._is_over = False
        self.watch = watch_of(runtime, plan.operation) if watched and observed.watcher is not None else None

    def over(
        self,
        end: End,
        now: float,
        *,
        failure: Failure | None = None,
        reason: Reason | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Tell that the call has come to its end. Only the first time counts."""
        if self._is_over:
            return
        self._is_over = True
        self._tell.ended(end, now - self.began, failure)
        if self.watch is not None:
            self.watch.ended(end, attempts=self.attempt, failure=failure, reason=reason, error=error)

    def abandoned(self, now: float | None = None) -> None:
        """Tell that nobody waits for the call any more, if it is not over. *now*: where there may be no clock."""
        if not self._is_over:
            self._unseen(End.CANCELLED)
            self.over(End.CANCELLED, self.runtime.clock() if now is None else now)

    def _attempt_over(
        self, end: End, seconds: float, *, failure: Failure | None = None, error: BaseException | None = None
    ) -> None:
        """Tell that an attempt has come to its end after *seconds*."""
        if observed.metered:
            self.runtime.counting().attempt_took(self.plan.operation, end, seconds)
        self._unseen(end, failure, error)

    def _unseen(self, end: End, failure: Failure | None = None, error: BaseException | None = None) -> None:
        seen, self._seen = self._seen, None
        if seen is not None:
            seen.ended(end, failure=failure, error=error)
