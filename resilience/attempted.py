"""
How the attempts of one call end, and what follows.

======================================  ===========================================================================
an attempt ended with                   what follows
======================================  ===========================================================================
a result                                permit and place back as success; the call is over
a result whose outcome is still open    permit and place stay, until it is known (see `hold`)
the caller's cancellation               permit back as ignored (slow evidence if it was old); it propagates
a failure that may be tried again       permit back; budget charged; pause; admission; the next attempt
a failure that may not                  permit back; a note on the error tells why; it propagates
======================================  ===========================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from resilience._core.budget import Charge
from resilience._core.states import Permit
from resilience._core.words import UNSET, Reason, Usage, Verdict
from resilience.admission import Admission
from resilience.classify import attach
from resilience.classify._foreign import safely
from resilience.course import Course
from resilience.errors import ProviderError, ResilienceError, UnacceptableResult, annotate, leave
from resilience.failure import Delivery, Failure, FailureKind
from resilience.guard import here, is_inside, somewhere
from resilience.lane import SLACK, Lane
from resilience.life import Interrupt
from resilience.misuse import explain_misuse
from resilience.plan import Plan
from resilience.policies.retry import attempts_note
from resilience.runtime import ProviderRuntime
from resilience.settings._types import is_mapping
from resilience.turn import NO_TURN
from resilience.watching import End, Watch

_log = logging.getLogger("resilience.call")

T = TypeVar("T")

_NO_PERMIT = Permit(None)

_ENDS = {Verdict.SUCCESS: End.SUCCESS, Verdict.FAILURE: End.FAILURE, Verdict.IGNORED: End.CANCELLED}

_DEEPEST = 5  # links of a chain of errors

_MARK = "__resilience_spent__"
"""Where an error that comes out says which provider has given up on it, in which task, and when."""


class Attempted(Course):
    """
    The state of one call.

    Args:
        runtime: The provider's runtime.
        plan: What this call is entitled to.
        began: When it began, on the runtime's clock.
        attempt: How many attempts were made already. Default: 0.
        lane: Where they were made, if this may be no task at all. Default: None, it is one.
        watched: Whether it is a call of its own to whoever follows calls. Default: True.
    """

    __slots__ = (
        "_began",
        "_charge",
        "_delay",
        "_error",
        "_failure",
        "_first",
        "_permit",
        "_task",
        "_way",
        "follow",
        "key",
        "lane",
    )

    attempt: int
    began: float
    follow: Callable[[Failure, bool], Reason | None] | None
    key: str | None
    lane: Lane
    plan: Plan
    runtime: ProviderRuntime
    watch: Watch | None

    def __init__(
        self,
        runtime: ProviderRuntime,
        plan: Plan,
        began: float,
        *,
        attempt: int = 0,
        lane: Lane | None = None,
        watched: bool = True,
    ) -> None:
        self._task, loop = here() if lane is None else somewhere(lane)  # first: there may be no loop
        self.lane = lane if lane is not None else runtime.lane_for(plan, loop)
        super().__init__(runtime, plan, began, attempt=attempt, watched=watched and not attempt)
        self._way = Admission(runtime, plan, self._task, loop, began + plan.total)
        self._began = began
        self._first: float | None = None  # how long it took until it was held
        self._delay = 0.0
        self._charge: Charge | None = None
        self._error: BaseException | None = None
        self._failure: Failure | None = None
        self._permit = _NO_PERMIT
        self.key = None  # made when it is first told
        self.follow = None  # decides in place of the retries what follows a failure
        if attempt:
            runtime.common.count_call()

    # -- results ---------------------------------------------------------------------------------------------------

    def succeeded(self, began: float, result: object = UNSET) -> None:
        """Return the permit of an attempt that succeeded, and settle what its *result* says, if there is one."""
        runtime = self.runtime
        now = runtime.clock()
        if self.plan.options.usage is not None and result is not UNSET:
            self._settle_usage(self.plan.options.usage, result)
        self._release(Verdict.SUCCESS, now, None, slow=self._slow(began, now))
        self._attempt_over(End.SUCCESS, now - began)
        self._succeeded(now)

    def failed(
        self, error: BaseException, began: float, limit: float, *, expired: bool, permit: Permit | None = None
    ) -> bool:
        """
        Return the permit of an attempt that failed, and decide what follows.

        Args:
            error: What came out of the attempt; our own timeout already as `CallTimeout`.
            began: When the attempt began.
            limit: How long it could have lasted, in seconds.
            expired: Whether our own limit interrupted it.
            permit: The permit, if it was not taken by `enter`.

        Returns:
            Whether another attempt follows, after `pause`.
        """
        runtime = self.runtime
        if permit is not None:
            self._permit = permit
            if runtime.limits is not None:
                self._way.turn = runtime.limits.quick_turn(began)
        now = runtime.clock()
        if not isinstance(error, Exception):  # nobody's failure: a cancellation, an exit, a closed coroutine
            self._release(Verdict.IGNORED, now, None, slow=self._slow(began, now))
            self._attempt_over(End.CANCELLED, now - began)
            self.over(End.CANCELLED, now)
            return False
        nested = self._was_retried_inside(error, began)
        failure = self._classified(error)
        # A limit that the caller's deadline cut short says little: only that the attempt was slow, if it was.
        cut_short = expired and limit < self.plan.limit
        # The inner call has told the breaker, unless it borrowed our probe: then the vote is ours.
        told = nested and not self._permit.probe
        verdict = Verdict.IGNORED if cut_short or told else runtime.breaker.verdict(error, failure)
        self._release(verdict, now, failure, slow=self._slow(began, now))
        if expired:
            self._tell.timed_out(error, self.attempt, now - began)
        if not nested:
            runtime.obey(failure, now)
        if runtime.limits is not None:
            runtime.limits.heed(error.result if isinstance(error, UnacceptableResult) else error, began)
        self._attempt_over(End.FAILURE, now - began, failure=failure, error=error)
        self._tell.failed(failure, self.attempt, now - began)
        if self.follow is not None:
            reason = self.follow(failure, nested)
        else:
            reason = Reason.ALREADY_RETRIED if nested else self._schedule(failure, now)
        if reason is not None:
            self._give_up(error, failure, reason)
            return False
        self._error, self._failure = error, failure
        return True

    # -- held open -------------------------------------------------------------------------------------------------

    def adopt(self, permit: Permit) -> None:
        """Take over an attempt that was held without a call of its own, because something went wrong with it."""
        self._permit = permit

    def hold(self) -> bool:
        """Keep permit and turn of the attempt that has just returned; return whether it was slow."""
        self.runtime.held[id(self)] = None
        now = self.runtime.clock()
        self._first = now - self._began
        return self._slow(self._began, now)

    def interruptible(self, interrupt: Interrupt) -> None:
        """Let a shutdown whose grace is over call *interrupt* while the attempt is held."""
        self.runtime.held[id(self)] = interrupt

    def renew(self) -> None:
        """Renew the lease of a probe that shows signs of life."""
        if self._permit.probe:
            self.runtime.renew(self._permit)

    def used(self, usage: Usage) -> None:
        """Settle what the attempt has really used up."""
        self._way.turn.settle(usage)

    def let_go(self, error: BaseException | None, verdict: Verdict | None, *, slow: bool) -> Failure | None:
        """End a held attempt with what came of it. There is no other attempt after it."""
        runtime = self.runtime
        runtime.held.pop(id(self), None)  # not there any more if a fork has made it the parent's
        now = runtime.clock()
        if error is None or not isinstance(error, Exception):
            usual = Verdict.SUCCESS if error is None else Verdict.IGNORED
            verdict = verdict or usual
            self._release(verdict, now, None, slow=slow)
            self._attempt_over(_ENDS[verdict], now - self._began)
            if verdict is Verdict.SUCCESS:
                self._succeeded(now)
            else:
                self.over(_ENDS[verdict], now)
            return None
        failure = self._classified(error)
        self._release(verdict or runtime.breaker.verdict(error, failure), now, failure, slow=slow)
        runtime.obey(failure, now)
        self._attempt_over(End.FAILURE, now - self._began, failure=failure, error=error)
        self._tell.failed(failure, self.attempt, now - self._began)
        self._give_up(error, failure, Reason.STREAM_COMMITTED)
        return failure

    def _succeeded(self, now: float) -> None:
        if self.attempt > 1:
            self._tell.recovered(self.attempt, now - self.began)
            self.over(End.SUCCESS_AFTER_RETRY, now)
        else:
            self.over(End.SUCCESS, now)

    def _settle_usage(self, usage: Callable[[Any], Usage], result: object) -> None:
        try:
            self.used(usage(result))
        except Exception:  # the result is worth more than the bill
            _log.exception("usage= failed", extra={"component": "limits", "provider": self.runtime.name})

    def _release(self, verdict: Verdict, now: float, failure: Failure | None, *, slow: bool) -> None:
        permit, self._permit = self._permit, _NO_PERMIT
        turn, self._way.turn = self._way.turn, NO_TURN
        self.runtime.settle(permit, verdict, now, slow=slow, failure=failure, task=self._task)
        if failure is not None and failure.delivery is Delivery.UNSENT:
            turn.refund()
        else:
            turn.leave()
        if self.runtime.limits is not None:
            self.runtime.limits.left(verdict, failure, whole=now - self._began, first=self._first)

    def _slow(self, began: float, now: float) -> bool:
        return now - began >= self.plan.slow_after

    def _classified(self, error: BaseException) -> Failure:
        runtime = self.runtime
        return runtime.classify(error).attributed(
            provider=runtime.name, operation=self.plan.operation, attempts=self.attempt, time=runtime.wall_clock()
        )

    def _was_retried_inside(self, error: BaseException, began: float) -> bool:
        """
        Whether an inner call of the same provider, within this very attempt, has already given up on *error*.

        The inner call may have been a transport's, below an SDK that has made an error of its own: from the one that
        came out there, or from the response.
        """
        link: BaseException | None = error
        for _ in range(_DEEPEST):
            if link is None:
                return False
            known = safely(link, "__dict__")  # not the attribute itself: an error may answer to every name
            mark = known[_MARK] if is_mapping(known) and _MARK in known else None
            if mark is not None and mark[:-1] == self._signature and mark[-1] >= began:
                return True
            if self._is_marked(safely(link, "response"), began):
                return True
            link = link.__cause__
        return False

    @property
    def _signature(self) -> tuple[str, int, int]:
        """Say which provider, whichever arm of its experiment, makes this call, and in which task."""
        return self.runtime.name, id(self.runtime.life), id(self._task)

    def _is_marked(self, response: object, began: float) -> bool:
        """Whether a transport has left on *response* that this very provider gave up on it, since *began*."""
        extensions = safely(response, "extensions")
        failure: object = extensions.get("resilience") if is_mapping(extensions) else None
        if not isinstance(failure, Failure) or failure.provider != self.runtime.name:
            return False
        return self.runtime.wall_clock() - failure.time <= self.runtime.clock() - began

    def _schedule(self, failure: Failure, now: float) -> Reason | None:
        """Schedule another attempt and pay for it, or return why not."""
        runtime, plan = self.runtime, self.plan
        decision = plan.retry.decide(
            failure,
            attempt=self.attempt,
            idempotent=plan.idempotent,
            previous=self._delay,
            can_refresh=plan.options.refresh is not None,
        )
        if decision.reason is not None:
            return decision.reason
        if runtime.life.stopping:
            return Reason.SHUTTING_DOWN
        delay = decision.delay
        if now + delay >= self._way.ends - SLACK or delay >= self._way.remaining(now):
            return Reason.DEADLINE_WOULD_PASS
        refusal = runtime.peek(now + delay)
        if refusal is not None and refusal.reason is not Reason.HALF_OPEN_SATURATED and not self._way.borrows:
            return refusal.reason
        patience = delay + runtime.settings.gate.max_wait if plan.options.may_wait else 0.0
        if runtime.common.gate_left(now) > patience:
            return Reason.PROVIDER_GATED
        if runtime.pending_full:
            return Reason.PENDING_FULL
        if runtime.settings.budget.enabled:
            self._charge = runtime.common.charge(now)
            if self._charge is None:
                return Reason.RETRY_BUDGET_EXHAUSTED
        self._delay = delay
        self._tell.scheduled(failure, self.attempt + 1, plan.retry.most_attempts(failure.kind), delay)
        return None

    def charge_back(self) -> None:
        """Give back what a retry cost that will not leave."""
        charge, self._charge = self._charge, None
        if charge is not None:
            self.runtime.common.refund(charge)

    def forget(self) -> None:
        """Drop the last error: it holds the frames of this call, and they hold the call."""
        self._error = None

    # -- giving up -------------------------------------------------------------------------------------------------

    def _give_up(self, error: BaseException, failure: Failure, reason: Reason) -> None:
        """Leave on *error* what a reader and an outer call need to know, and tell the listeners."""
        runtime = self.runtime
        now = runtime.clock()
        if reason is not Reason.ALREADY_RETRIED:  # then the inner call has left better
            attach(error, failure)
            annotate(error, runtime.name, attempts_note(failure, self.attempt, reason))
        # Only for an outer call: on a stored exception the mark would meet the next one.
        outer = is_inside(self._task, runtime.lanes.values())
        leave(error, _MARK, (*self._signature, now) if outer else None)
        self._failure = failure
        self._tell.gave_up(failure, reason, error, now - self.began)
        self.over(End.FAILURE, now, failure=failure, reason=reason, error=error)

    def raise_as_asked(self, error: BaseException, func: object = UNSET) -> None:
        """Raise what stands for *error* where it is not the error itself."""
        if isinstance(error, TypeError):
            explain_misuse(error, func)
        if self._failure is not None and self._is_providers(error, self._failure):
            raise ProviderError(self._failure) from error

    def _is_providers(self, error: BaseException, failure: Failure) -> bool:
        """Whether *error* is to be replaced by the standard one: no cancellation, not ours, not the caller's bug."""
        if not self.plan.standard or not isinstance(error, Exception) or isinstance(error, ResilienceError):
            return False
        return failure.kind is not FailureKind.BAD_REQUEST or failure.evidence is not Verdict.IGNORED

    def _given_up(self, error: BaseException, failure: Failure, reason: Reason) -> BaseException:
        """Give up on an error after all, and return what to raise for it."""
        self._give_up(error, failure, reason)
        if self._is_providers(error, failure):
            standard = ProviderError(failure)
            standard.__cause__ = error
            return standard
        return error
