"""
Retries: try again when that can help, later each time, and never together with everybody else.

`RetryHandler.decide` is the whole decision, synchronous and without side effects: it is what a provider's runtime
asks. `RetryHandler.call` is the same handler used alone.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple, ParamSpec, TypeVar, final

import anyio

from resilience._core.backoff import Backoff, after_hint
from resilience._core.words import Reason
from resilience.classify import classify
from resilience.errors import annotate
from resilience.events import CallFailed, CallRecovered, EventBus, RetryScheduled, process_bus
from resilience.failure import Delivery, Failure, FailureKind
from resilience.policies._around import Decorates
from resilience.policies._checks import checked_input
from resilience.settings import RetrySettings
from resilience.waiting import wait

P = ParamSpec("P")
T = TypeVar("T")


class RetryDecision(NamedTuple):
    """Try again after *delay* seconds, or stop for *reason*."""

    delay: float
    reason: Reason | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySnapshot:
    """
    One look at a retry handler. JSON-ready through `dataclasses.asdict`.

    Args:
        name: What it retries.
        max_attempts: How often a call is tried at most, the first time included.
        retries: How many retries were scheduled so far.
        recovered: How many calls succeeded after a retry.
        exhausted: How many calls gave up although their last error was worth a retry.
    """

    name: str
    max_attempts: int
    retries: int
    recovered: int
    exhausted: int


def attempts_note(failure: Failure, attempts: int, reason: Reason) -> str:
    """Return the note that tells a reader of the traceback what was tried."""
    tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    return f"gave up after {tries} ({failure.kind}; {reason})"


@final
class RetryHandler(Decorates):
    """
    Tries a call again when its failure is worth it, after a jittered and growing delay.

    Use it as ``await handler.call(fn, ...)`` or as a decorator.

    Args:
        settings: How often and how long. Default: `RetrySettings()`: 3 attempts, full jitter from 1 s.
        name: What it retries; it stands in notes, events and logs. Default: ``"call"``.
        hint_cap: A provider's hint beyond this many seconds ends the retries. Default: 120.
        clock: A monotonic clock in seconds. Default: `time.monotonic`.
        wall_clock: Seconds since the Unix epoch, for events. Default: `time.time`.
        rng: Draws the jitter. Default: a fresh `random.Random`.
        bus: Where to tell events. Default: a bus of its own below the process-wide one.

    Raises:
        ConfigurationError: *settings* are not `RetrySettings`, or *name* is not a string.
    """

    __slots__ = (
        "_backoff",
        "_clock",
        "_hint_cap",
        "_rng",
        "_wall_clock",
        "bus",
        "exhausted",
        "name",
        "recovered",
        "retries",
        "settings",
    )

    _what = "a retry handler"

    bus: EventBus
    exhausted: int
    name: str
    recovered: int
    retries: int
    settings: RetrySettings

    def __init__(
        self,
        settings: RetrySettings | None = None,
        *,
        name: str = "call",
        hint_cap: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        bus: EventBus | None = None,
    ) -> None:
        settings = settings if settings is not None else RetrySettings()
        checked_input(self._what, name, settings, RetrySettings)
        self.settings = settings
        self.name = name
        self.bus = bus if bus is not None else EventBus(process_bus)
        self.retries = 0
        self.recovered = 0
        self.exhausted = 0
        self._backoff = Backoff(settings.base_delay, settings.max_delay, settings.exponential_base, settings.jitter)
        self._hint_cap = hint_cap
        self._clock = clock
        self._wall_clock = wall_clock
        self._rng = rng if rng is not None else random.Random()

    def decide(
        self,
        failure: Failure,
        *,
        attempt: int,
        remaining: float = math.inf,
        idempotent: bool | None = None,
        previous: float = 0.0,
        can_refresh: bool = False,
    ) -> RetryDecision:
        """
        Decide whether attempt number *attempt*, which ended in *failure*, is followed by another one.

        Args:
            failure: What went wrong.
            attempt: How many attempts were made, this one included.
            remaining: Seconds left until the deadline. Default: no deadline.
            idempotent: False: only a request that surely was not sent is repeated. Default: None, trust the kind.
            previous: The delay before this attempt, for decorrelated jitter. Default: 0.
            can_refresh: Whether credentials can be renewed before the next attempt. Default: no.
        """
        rule = self.settings.per_kind.get(failure.kind)
        limit = self.most_attempts(failure.kind)
        refused = failure.kind is FailureKind.AUTHENTICATION_ERROR
        renews = refused and can_refresh
        # A rule that a user wrote for a kind says that it is worth trying again, whatever it usually is.
        asked_for = rule is not None and rule.max_attempts is not None and (renews or not refused)
        if not self.settings.enabled:
            return RetryDecision(0.0, Reason.RETRY_DISABLED)
        if not (failure.retryable or asked_for):
            return RetryDecision(0.0, Reason.NOT_RETRYABLE)
        if attempt >= limit:
            hopeless = limit == 1 and not failure.retryable
            return RetryDecision(0.0, Reason.NOT_RETRYABLE if hopeless else Reason.ATTEMPTS_SPENT)
        if idempotent is False and failure.delivery is not Delivery.UNSENT and not renews:
            return RetryDecision(0.0, Reason.NOT_IDEMPOTENT)
        if failure.retry_after is not None and failure.retry_after > self._hint_cap:
            return RetryDecision(0.0, Reason.HINT_BEYOND_CAP)
        scale = rule.delay_factor if rule is not None else 1.0
        delay = 0.0 if renews else self._delay(failure, attempt, previous, scale)
        return RetryDecision(delay, Reason.DEADLINE_WOULD_PASS if delay >= remaining else None)

    def most_attempts(self, kind: FailureKind) -> int:
        """Return how often a call is tried whose attempts fail with *kind*, the first time included."""
        rule = self.settings.per_kind.get(kind)
        return rule.max_attempts if rule is not None and rule.max_attempts is not None else self.settings.max_attempts

    def _delay(self, failure: Failure, attempt: int, previous: float, scale: float) -> float:
        if failure.retry_after:
            return after_hint(failure.retry_after, self._rng)
        return self._backoff.delay(attempt, self._rng, previous=previous, scale=scale)

    def snapshot(self) -> RetrySnapshot:
        """Return the figures as they are now."""
        return RetrySnapshot(
            name=self.name,
            max_attempts=self.settings.max_attempts,
            retries=self.retries,
            recovered=self.recovered,
            exhausted=self.exhausted,
        )

    def __repr__(self) -> str:
        settings = self.settings
        return (
            f"<RetryHandler {self.name!r} up to {settings.max_attempts} attempts, {settings.jitter} jitter from "
            f"{settings.base_delay:g} s, {self.retries} retries, {self.exhausted} exhausted>"
        )

    # -- using it alone --------------------------------------------------------------------------------------------

    async def call(self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Await ``func(*args, **kwargs)``, again and again while its failures are worth it.

        Raises:
            Exception: The last attempt's own error, with a note that counts the attempts.
        """
        began = self._clock()
        attempt, delay = 1, 0.0
        while True:
            try:
                result = await func(*args, **kwargs)
            except Exception as error:
                delay = self._failed(error, attempt, delay, began)
                if delay < 0:
                    raise
            else:
                if attempt > 1:
                    self._recovered(attempt, began)
                return result
            await wait(delay)
            attempt += 1

    def _failed(self, error: Exception, attempt: int, previous: float, began: float) -> float:
        """Return the delay before the next attempt, or -1 to give up."""
        failure = classify(error)
        remaining = anyio.current_effective_deadline() - anyio.current_time()
        decision = self.decide(failure, attempt=attempt, remaining=remaining, previous=previous)
        now = self._wall_clock()
        failure = failure.attributed(provider=self.name, operation="", attempts=attempt, time=now)
        if decision.reason is None:
            self.retries += 1
            self.bus.emit(
                RetryScheduled(
                    provider=self.name,
                    time=now,
                    failure=failure,
                    attempt=attempt + 1,
                    max_attempts=self.most_attempts(failure.kind),
                    delay=decision.delay,
                )
            )
            return decision.delay
        self.exhausted += failure.retryable
        annotate(error, self.name, attempts_note(failure, attempt, decision.reason))
        self.bus.emit(
            CallFailed(
                provider=self.name,
                time=now,
                failure=failure,
                attempts=attempt,
                duration=self._clock() - began,
                reason=decision.reason,
                error=error,
            )
        )
        return -1.0

    def _recovered(self, attempts: int, began: float) -> None:
        self.recovered += 1
        self.bus.emit(
            CallRecovered(
                provider=self.name, time=self._wall_clock(), attempts=attempts, duration=self._clock() - began
            )
        )
