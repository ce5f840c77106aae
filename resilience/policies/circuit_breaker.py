"""
The circuit breaker: stop calling a provider that fails, and find out gently whether it is back.

The decisions are `resilience._core.circuit`; this is the part that holds a lock, reads the clock, calls the
function and tells listeners.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, ParamSpec, TypeVar, final

from resilience._core.circuit import Circuit
from resilience._core.states import Change, CircuitRules, CircuitState, Permit, Refusal
from resilience._core.words import Reason, Verdict, many
from resilience.classify import classify
from resilience.errors import CircuitOpen
from resilience.events import CallWouldBeRejected, CircuitChanged, EventBus, ProbeLost, process_bus
from resilience.failure import Failure
from resilience.policies._around import Around
from resilience.policies._breaker import CircuitBreakerSnapshot as CircuitBreakerSnapshot
from resilience.policies._breaker import initial_state, matches, rules_from
from resilience.policies._checks import checked_input
from resilience.policies._forks import survives
from resilience.policies._lots import by_lot
from resilience.settings import BreakerSettings

_log = logging.getLogger("resilience.circuit")

P = ParamSpec("P")
T = TypeVar("T")


class _Told(NamedTuple):
    """What the listeners are still to be told."""

    changes: list[Change]
    lost: int
    spared: Reason | None


def _nothing() -> None:
    """Nobody counts beside us, and nobody keeps a copy of our door."""


@final
class CircuitBreaker(Around[tuple[Permit, float]]):
    """
    Stops calls to a provider that keeps failing.

    Use it as ``await breaker.call(fn, ...)``, as ``async with breaker:``, or as a decorator.

    Args:
        name: What it protects; it stands in errors, events and logs. Default: ``"circuit"``.
        settings: Thresholds and times. Default: `BreakerSettings()`.
        attempt_timeout: How long a call usually may last, in seconds; half of it is "slow" and twice of it a
            probe's lease, unless the settings say otherwise. Default: 30.
        hint_cap: The longest pause that a provider's hint may ask for, in seconds. Default: 120.
        clock: A monotonic clock in seconds. Default: `time.monotonic`.
        wall_clock: Seconds since the Unix epoch, for snapshots and events. Default: `time.time`.
        rng: Draws the jitter of the open time. Default: a fresh `random.Random`.
        bus: Where to tell events. Default: a bus of its own below the process-wide one.
        absorb: Called under the lock before each decision; adds successes that were counted elsewhere.
        refresh: Called under the lock after each decision that may have changed the state.

    Raises:
        ConfigurationError: *name* is not a string, or *settings* are not `BreakerSettings`.
    """

    __slots__ = (
        "__weakref__",
        "_absorb",
        "_clock",
        "_entered",
        "_live",
        "_refresh",
        "_rng",
        "_since",
        "_wall_clock",
        "bus",
        "circuit",
        "lock",
        "name",
        "settings",
        "unwell_since",
    )

    _what = "a circuit breaker"

    bus: EventBus
    circuit: Circuit
    name: str
    settings: BreakerSettings

    def __init__(
        self,
        name: str = "circuit",
        settings: BreakerSettings | None = None,
        *,
        attempt_timeout: float | None = 30.0,
        hint_cap: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        bus: EventBus | None = None,
        absorb: Callable[[], None] = _nothing,
        refresh: Callable[[], None] = _nothing,
    ) -> None:
        settings = settings if settings is not None else BreakerSettings()
        checked_input(self._what, name, settings, BreakerSettings)
        self.name = name
        self.settings = settings
        self.bus = bus if bus is not None else EventBus(process_bus)
        self.lock: AbstractContextManager[Any] = threading.RLock()
        rules = rules_from(self.settings, attempt_timeout=attempt_timeout, hint_cap=hint_cap)
        self.circuit = Circuit(rules, clock(), state=initial_state(self.settings))
        self._clock = clock
        self._wall_clock = wall_clock
        self._rng = rng if rng is not None else random.Random()
        self._absorb = absorb
        self._refresh = refresh
        self._entered = {}
        self._since: float | None = None  # in seconds since the Unix epoch; None: from the beginning
        self.unwell_since: float | None = None  # likewise: when it was closed last, whatever probes have failed since
        self._live: dict[Permit, float] = {}  # when each call began, so that a hang is seen while it lasts
        if absorb is _nothing:
            survives(self)  # one that is part of a provider is woken by it after a fork

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def state(self) -> CircuitState:
        """The present state."""
        return self.circuit.state

    def snapshot(self) -> CircuitBreakerSnapshot:
        """Return the state and its figures as they are now."""
        with self.lock:
            self._absorb()
            now, circuit = self._clock(), self.circuit
            calls, failed, slow = circuit.counts(now)
            left = max(0.0, circuit.until - now) if circuit.state is CircuitState.OPEN else None
            return CircuitBreakerSnapshot(
                name=self.name,
                state=circuit.state,
                since=self._since,
                retry_after=left,
                until=self._wall_clock() + left if left is not None else None,
                evidence=str(circuit.evidence),
                failures_in_a_row=circuit.failures_in_a_row,
                calls=calls,
                failed=failed,
                slow=slow,
                probes=circuit.probes,
                trips=circuit.trips,
                stale_results=circuit.stale,
            )

    def __repr__(self) -> str:
        now = self.snapshot()
        when = f", next probe in {now.retry_after:.1f} s" if now.retry_after is not None else ""
        row = many(now.failures_in_a_row, "failure")
        figures = f"{now.failed}/{now.calls} failed" if now.calls else f"{row} in a row"
        return f"<CircuitBreaker {self.name!r} {now.state.upper()}{when}, {figures}>"

    # -- by hand ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Refuse every call until `close` or `reset` is called: for an operator who knows more."""
        self._decide(lambda _: self.circuit.force_open())

    def close(self) -> None:
        """Admit calls again at once, with an empty window."""
        self._decide(self.circuit.close)

    def reset(self) -> None:
        """Return to the state that the settings ask for and forget all evidence."""
        self._decide(lambda now: self.circuit.reset(now, initial_state(self.settings)))
        self._since = None

    def start_anew(self) -> None:
        """Forget everything without telling anybody: in a forked child, none of it happened."""
        # Any moment that has passed will do. Our clock may belong to a loop that does not run here.
        self.circuit = Circuit(self.circuit.rules, self.circuit._closed_at, state=initial_state(self.settings))
        self._since = self.unwell_since = None
        self._live.clear()
        self._entered.clear()

    def restore(self, snapshot: CircuitBreakerSnapshot) -> None:
        """
        Continue from a snapshot that another process took.

        State, remaining open time and trips are carried; the window starts empty, since its calls are not known.
        Where today's settings ask for a state (forced open, disabled), they overrule yesterday's.

        Raises:
            TypeError: *snapshot* is not a `CircuitBreakerSnapshot`.
            ValueError: Its state is none; it may have come back from JSON as a string.
        """
        if not isinstance(snapshot, CircuitBreakerSnapshot):
            raise TypeError(f"restore() takes what snapshot() returned, not {snapshot!r}")
        asked = initial_state(self.settings)
        state = CircuitState(snapshot.state) if asked is CircuitState.CLOSED else asked
        if state is CircuitState.DISABLED:
            state = asked  # only settings disable, and today's do not
        left = snapshot.until - self._wall_clock() if snapshot.until is not None else 0.0
        self._decide(lambda now: self.circuit.restore(state, now, remaining=left, trips=snapshot.trips))
        if state == snapshot.state:
            self._since = snapshot.since

    def adopt(
        self, settings: BreakerSettings, *, attempt_timeout: float | None = 30.0, hint_cap: float = 120.0
    ) -> None:
        """
        Work by other *settings* from now on, with everything that is known so far.

        State, open time, permits, probes and trips stay. The window stays where its length does; with another number
        of seconds or calls it keeps what it can, and from calls to seconds it starts empty. Where the settings ask for
        another state than before (forced open, disabled, or that no longer), they get it.

        Args:
            settings: The new ones.
            attempt_timeout: As for a new breaker. Default: 30.
            hint_cap: As for a new breaker. Default: 120.

        Raises:
            ConfigurationError: *settings* are not `BreakerSettings`.
        """
        checked_input(self._what, self.name, settings, BreakerSettings)
        rules = rules_from(settings, attempt_timeout=attempt_timeout, hint_cap=hint_cap)
        self._decide(lambda now: self._adopt(settings, rules, now))

    def _adopt(self, settings: BreakerSettings, rules: CircuitRules, now: float) -> None:
        before, asked = initial_state(self.settings), initial_state(settings)
        self.settings = settings
        self.circuit.adopt(rules, now)
        # What is closed again was perhaps opened for another reason meanwhile: that stays.
        if asked is not before and (asked is not CircuitState.CLOSED or self.circuit.state is before):
            self.circuit.enter_by_settings(asked, now)

    # -- deciding --------------------------------------------------------------------------------------------------

    def acquire(self, now: float) -> Permit | Refusal:
        """Admit one attempt at *now*, or say why not. Every permit must be given back with `release`."""
        with self.lock:
            self._absorb()
            answer = self.circuit.acquire(now)
            if isinstance(answer, Refusal) and not self._in_earnest(answer):
                answer = self.circuit.spare(answer)
            told = self._settle()
        self._tell(told)
        return answer

    def release(
        self, permit: Permit, verdict: Verdict, now: float, *, slow: bool = False, failure: Failure | None = None
    ) -> None:
        """Return *permit* with the outcome of the attempt. Releasing twice does nothing."""
        kind = failure.kind.value if failure is not None else ""
        hint = failure.retry_after if failure is not None else None
        with self.lock:
            self._absorb()
            self.circuit.release(permit, verdict, now, self._rng, slow=slow, kind=kind, hint=hint)
            told = self._settle()
        self._tell(told)

    def _in_earnest(self, refusal: Refusal) -> bool:
        """Decide by lot whether *refusal* holds; what was opened by hand is shut for all."""
        return refusal.reason is Reason.FORCED_OPEN or by_lot(self.circuit.rules.enforced, self._rng)

    def judge_in_flight(self, hanging: int, now: float) -> None:
        """Count *hanging* live calls as slow already, and open if they break the slow rule."""
        with self.lock:
            self._absorb()
            self.circuit.judge_in_flight(hanging, now, self._rng)
            told = self._settle()
        self._tell(told)

    def verdict(self, error: BaseException, failure: Failure) -> Verdict:
        """Return what *error* says about the provider, after the exclusions in the settings."""
        for rule in self.settings.ignore:
            try:
                if matches(rule, error, failure):
                    return Verdict.IGNORED
            except Exception:  # a permit hangs on this answer
                _log.exception("an ignore rule failed", extra={"component": "circuit", "provider": self.name})
        return failure.verdict

    def refused(self, refusal: Refusal) -> CircuitOpen:
        """Return the exception that tells of *refusal*."""
        return CircuitOpen(self.name, refusal.reason, refusal.retry_after, refusal.evidence)

    def _decide(self, decision: Callable[[float], None]) -> None:
        with self.lock:
            self._absorb()
            decision(self._clock())
            told = self._settle()
        self._tell(told)

    def _settle(self) -> _Told | None:
        """Collect what the circuit left to be told. Called under the lock."""
        circuit = self.circuit
        self._refresh()
        if not circuit.changes and not circuit.lost and circuit.spared is None:
            return None
        told = _Told(circuit.changes, circuit.lost, circuit.spared)
        if circuit.changes:
            self._since = self._wall_clock()
            if circuit.state in (CircuitState.CLOSED, CircuitState.DISABLED):
                self.unwell_since = None
            elif self.unwell_since is None:
                self.unwell_since = self._since
        circuit.changes, circuit.lost, circuit.spared = [], 0, None
        return told

    def _tell(self, told: _Told | None) -> None:
        """Tell the listeners, after the lock was left: they may read snapshots and may call back."""
        if told is None:
            return
        time_ = self._wall_clock()
        for _ in range(told.lost):
            self.bus.emit(ProbeLost(provider=self.name, time=time_))
        if told.spared is not None:
            self.bus.emit(CallWouldBeRejected(provider=self.name, time=time_, reason=told.spared))
        for change in told.changes:
            self.bus.emit(
                CircuitChanged(
                    provider=self.name,
                    time=time_,
                    before=change.before,
                    after=change.after,
                    reason=change.evidence.rule,
                    figures=str(change.evidence),
                    retry_after=change.retry_after,
                )
            )

    # -- using it alone --------------------------------------------------------------------------------------------

    async def _begin(self) -> tuple[Permit, float]:
        now = self._clock()
        slow_after = self.circuit.rules.slow_after
        # A list of the values is one step that no other thread can divide.
        hanging = sum(now - began >= slow_after for began in list(self._live.values()))
        if hanging:
            self.judge_in_flight(hanging, now)
        answer = self.acquire(now)
        if isinstance(answer, Refusal):
            raise self.refused(answer)
        self._live[answer] = now
        return answer, now

    def _end(self, entry: tuple[Permit, float], error: BaseException | None) -> None:
        permit, began = entry
        del self._live[permit]
        now = self._clock()
        slow = now - began >= self.circuit.rules.slow_after
        if error is None:
            self.release(permit, Verdict.SUCCESS, now, slow=slow)
        else:
            failure = classify(error)
            self.release(permit, self.verdict(error, failure), now, slow=slow, failure=failure)
