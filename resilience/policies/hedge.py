"""
Hedging: when a call takes unusually long, make a second attempt beside it, and take what answers first.

::

    delay     the quantile 1 - max_extra_load of recent latencies, within min_delay .. max_delay
    budget    max_extra_load * calls in the window - second attempts in the window >= 1, and no floor

"Unusually long" alone does not bound the extra load: when everything becomes three times as slow, two calls in five
are. So the budget has no floor: at most *max_extra_load* of the calls are made twice, whatever happens.

What is learnt of a latency: how long a first attempt took that succeeded or ran into its time limit, and how long one
had already taken that lost against its second (it would have taken at least that). Never a quick failure, which would
drag the quantile down, and nothing of a second attempt beside a first: only the quick ones of those are ever seen.

The method is that of Dean and Barroso, "The Tail at Scale" (2013).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar, final

import anyio

from resilience._core.budget import Charge, RetryBudget
from resilience._core.quantile import LatencyHistogram
from resilience.classify import classify
from resilience.errors import annotate
from resilience.events import EventBus, HedgeLaunched, HedgeWon, process_bus
from resilience.failure import Failure, FailureKind
from resilience.policies._around import Decorates
from resilience.policies._checks import checked_input
from resilience.policies._forks import survives
from resilience.policies._race import FIRST, SECOND, Attempt, Race
from resilience.settings import HedgeSettings

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeSnapshot:
    """
    One look at a hedge. JSON-ready through `dataclasses.asdict`.

    Args:
        name: What it hedges.
        delay: When a second attempt would start, in seconds after the first; None while too little is known, or when
            it is switched off.
        latencies: How many latencies are known.
        available: How many second attempts the budget allows at this moment.
        calls: Calls so far.
        launched: Second attempts so far.
        won: Calls so far that a second attempt has answered.
    """

    name: str
    delay: float | None
    latencies: int
    available: float
    calls: int
    launched: int
    won: int


@final
class Hedge(Decorates):
    """
    Makes a second attempt beside a slow first one. Only for what may happen twice.

    Use it as ``await hedge.call(fn, ...)`` or as a decorator.

    Args:
        settings: How much extra load, and when. Default: `HedgeSettings(enabled=True)`.
        name: What it hedges; it stands in notes, events and logs. Default: ``"call"``.
        clock: A monotonic clock in seconds. Default: `time.monotonic`.
        wall_clock: Seconds since the Unix epoch, for events. Default: `time.time`.
        bus: Where to tell events. Default: a bus of its own below the process-wide one.

    Raises:
        ConfigurationError: *settings* are not `HedgeSettings`, or *name* is not a string.
    """

    __slots__ = (
        "__weakref__",
        "_budget",
        "_clock",
        "_latencies",
        "_wall_clock",
        "bus",
        "calls",
        "launched",
        "lock",
        "name",
        "settings",
        "won",
    )

    _what = "a hedge"

    bus: EventBus
    calls: int
    launched: int
    name: str
    settings: HedgeSettings
    won: int

    def __init__(
        self,
        settings: HedgeSettings | None = None,
        *,
        name: str = "call",
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        bus: EventBus | None = None,
    ) -> None:
        settings = settings if settings is not None else HedgeSettings(enabled=True)
        checked_input(self._what, name, settings, HedgeSettings)
        self.settings = settings
        self.name = name
        self.bus = bus if bus is not None else EventBus(process_bus)
        self._clock = clock
        # Reentrant: the collector may end a call in the middle of a decision.
        self.lock: AbstractContextManager[Any] = threading.RLock()
        self._wall_clock = wall_clock
        self.start_anew()
        survives(self)

    def start_anew(self) -> None:
        """Forget every call."""
        settings = self.settings
        self._latencies = LatencyHistogram(settings.latency_window)
        self._budget = RetryBudget(
            settings.max_extra_load, settings.latency_window, floor_per_second=0.0, floor_burst=0
        )
        self.calls = self.launched = self.won = 0

    def adopt(self, settings: HedgeSettings) -> None:
        """
        Work by other *settings* from now on, with the latencies that are known and what the budget has paid.

        Raises:
            ConfigurationError: *settings* are not `HedgeSettings`.
        """
        checked_input(self._what, self.name, settings, HedgeSettings)
        with self.lock:
            now, window = self._clock(), settings.latency_window
            if window != self.settings.latency_window:
                self._latencies = self._latencies.resized(window, now)
            self._budget.adopt(
                now, self.calls, ratio=settings.max_extra_load, window=window, floor_per_second=0.0, floor_burst=0
            )
            self.settings = settings

    # -- deciding --------------------------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """Count a call whose first attempt leaves at *now*."""
        with self.lock:
            if now >= self._budget.turn_at:
                self._budget.turn(now, self.calls)
            self.calls += 1

    def delay(self, now: float) -> float | None:
        """Return after how many seconds a call gets its second attempt; None: not at all."""
        settings = self.settings
        if not settings.enabled:
            return None
        with self.lock:
            if self._latencies.count(now) < settings.warm_up:
                return None
            delay = self._latencies.quantile(now, 1 - settings.max_extra_load) or 0.0
        if settings.max_delay is not None:
            delay = min(delay, settings.max_delay)
        return max(delay, settings.min_delay)

    def charge(self, now: float, remaining: float) -> Charge | None:
        """
        Pay for a second attempt.

        Args:
            now: The moment, on the clock.
            remaining: Seconds left for the call.

        Returns:
            The charge; None if the budget is spent, or if the second attempt would hardly be over in time.
        """
        if not self.settings.enabled:
            return None
        with self.lock:
            if remaining < (self._latencies.quantile(now, 0.5) or 0.0):
                return None
            return self._budget.try_spend(now, self.calls)

    def refund(self, charge: Charge, now: float) -> None:
        """Give back what was paid for a second attempt that did not leave."""
        with self.lock:
            self._budget.refund(charge, now)

    # -- results ---------------------------------------------------------------------------------------------------

    def record(self, now: float, seconds: float) -> None:
        """Learn that an attempt took, or would have taken at least, so many *seconds*."""
        with self.lock:
            self._latencies.record(now, seconds)

    def tell_launched(self, delay: float, operation: str = "") -> None:
        """Count and tell that a second attempt leaves, *delay* seconds after the first."""
        with self.lock:
            self.launched += 1
        self.bus.emit(HedgeLaunched(provider=self.name, operation=operation, time=self._wall_clock(), delay=delay))

    def tell_won(self, duration: float, operation: str = "") -> None:
        """Count and tell that a second attempt was the first to answer, *duration* seconds after the call began."""
        with self.lock:
            self.won += 1
        self.bus.emit(HedgeWon(provider=self.name, operation=operation, time=self._wall_clock(), duration=duration))

    def snapshot(self) -> HedgeSnapshot:
        """Return the figures as they are now."""
        now = self._clock()
        with self.lock:
            return HedgeSnapshot(
                name=self.name,
                delay=self.delay(now),
                latencies=self._latencies.count(now),
                available=self._budget.available(now, self.calls),
                calls=self.calls,
                launched=self.launched,
                won=self.won,
            )

    def __repr__(self) -> str:
        now = self.snapshot()
        when = f"after {now.delay:.3g} s" if now.delay is not None else "not now"
        return f"<Hedge {self.name!r} {when}, {now.launched} of {now.calls} calls hedged, {now.won} won>"

    # -- using it alone --------------------------------------------------------------------------------------------

    async def call(self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Await ``func(*args, **kwargs)``, and a second one beside it if the first takes unusually long.

        The first result counts. The other attempt is cancelled and waited for; if it has a result all the same, that
        is closed (``aclose`` or ``close``). The second attempt runs in a task of its own, so what *func* returns must
        not hold a cancel scope or a task group open.

        Raises:
            Exception: The first attempt's own error; a note tells of the second one's.
        """
        return await _Contest(self, func, args, kwargs).run()


def worth_repeating(failure: Failure) -> bool:
    """Whether a second attempt at once can help where the first has failed."""
    return failure.retryable and not failure.retry_after


def second_note(error: BaseException, failure: Failure) -> str:
    """Return the note that tells a reader of the first error what the second one was."""
    return f"the second attempt failed, too ({failure.kind}: {type(error).__name__})"


@final
class _Contest(Generic[T]):
    """One call through a hedge that is used alone."""

    __slots__ = ("_args", "_began", "_func", "_hedge", "_kwargs", "_race")

    def __init__(
        self, hedge: Hedge, func: Callable[..., Awaitable[T]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._hedge = hedge
        self._func = func
        self._args = args
        self._kwargs = kwargs
        self._race: Race[T] = Race()
        self._began = hedge._clock()

    async def run(self) -> T:
        race, hedge = self._race, self._hedge
        hedge.begin(self._began)
        try:
            await race.run(self._first, self._launch, hedge.delay(self._began))
            if race.winner is None:
                raise self._final_error()
            return race.value
        except BaseException:
            await race.abandon()
            raise
        finally:
            race.forget()

    async def _first(self) -> T:
        try:
            result = await self._func(*self._args, **self._kwargs)
        except Exception as error:
            failure = classify(error)
            if failure.kind is FailureKind.TIMEOUT:
                self._learn(self._began)
            if not failure.retryable:
                self._race.stop()
            raise
        except BaseException:
            if self._race.winner == SECOND:
                self._learn(self._began)
            raise
        self._learn(self._began)
        return result

    async def _launch(self) -> Attempt[T] | None:
        error, hedge, now = self._race.errors[FIRST], self._hedge, self._hedge._clock()
        if error is not None and not worth_repeating(classify(error)):
            return None
        remaining = anyio.current_effective_deadline() - anyio.current_time()
        if hedge.charge(now, remaining) is None:
            return None
        hedge.tell_launched(now - self._began)
        return self._second

    async def _second(self) -> T:
        alone, began = self._race.errors[FIRST] is not None, self._hedge._clock()
        result = await self._func(*self._args, **self._kwargs)
        if alone:
            self._learn(began)
        if self._race.undecided:
            self._hedge.tell_won(self._hedge._clock() - self._began)
        return result

    def _learn(self, began: float) -> None:
        now = self._hedge._clock()
        self._hedge.record(now, now - began)

    def _final_error(self) -> BaseException:
        error, other = self._race.errors
        assert error is not None  # noqa: S101 - nobody has won, so the first has failed
        if other is not None and other is not error:
            annotate(error, self._hedge.name, second_note(other, classify(other)))
        return error
