"""
The throttle: while a provider refuses many calls for being busy, hold a share of them back.

The arithmetic is `resilience._core.throttle`; this is the part that holds a lock, reads the clock and tells listeners.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, final

from resilience._core.throttle import AdaptiveThrottle
from resilience._core.words import Priority, Reason, Verdict
from resilience.classify import classify
from resilience.errors import Throttled
from resilience.events import CallWouldBeRejected, EventBus, process_bus
from resilience.failure import Failure, FailureKind
from resilience.policies._around import Around
from resilience.policies._checks import checked_input
from resilience.policies._forks import survives
from resilience.policies._lots import by_lot
from resilience.settings import ThrottleSettings
from resilience.settings._types import FrozenDict

_BUSY = frozenset({FailureKind.RATE_LIMIT, FailureKind.OVERLOADED})


class ThrottleRefusal(NamedTuple):
    """Why a call is held back, in figures; its text is made only when somebody reads it."""

    reason: Reason
    calls: int
    accepted: int
    window: float
    share: float

    def __str__(self) -> str:
        busy = f"{self.calls - self.accepted} of {self.calls} calls in {self.window:g} s were refused as too many"
        return f"{busy}, {self.share * 100:.0f} % are held back"


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottleSnapshot:
    """
    One look at a throttle. JSON-ready through `dataclasses.asdict`.

    Args:
        name: The throttle's name.
        mode: ``"enforce"``, ``"shadow"`` or ``"disabled"``.
        calls: Calls that completed in the window.
        accepted: Those among them that the provider did not refuse for being busy.
        share: The share of calls that is held back (in shadow mode: would be), by priority.
    """

    name: str
    mode: str
    calls: int
    accepted: int
    share: Mapping[str, float]


def accepted(failure: Failure) -> bool | None:
    """Whether the provider accepted a call that ended with *failure*; None if that tells nothing."""
    if failure.kind in _BUSY:
        return False
    # A timeout says neither that it was taken nor that it was refused; what is nobody's evidence says nothing.
    return None if failure.kind is FailureKind.TIMEOUT or failure.verdict is Verdict.IGNORED else True


@final
class Throttle(Around[None]):
    """
    Holds back a share of the calls while the provider refuses many of them.

    Use it as ``await throttle.call(fn, ...)``, as ``async with throttle:``, or as a decorator.

    Args:
        settings: When and how much. Default: `ThrottleSettings(enabled=True)`.
        name: What it protects; it stands in errors and events. Default: ``"throttle"``.
        clock: A monotonic clock in seconds. Default: `time.monotonic`.
        wall_clock: Seconds since the Unix epoch, for events. Default: `time.time`.
        rng: Draws who is held back. Default: a fresh `random.Random`.
        bus: Where to tell events. Default: a bus of its own below the process-wide one.

    Raises:
        ConfigurationError: *name* is not a string, or *settings* are not `ThrottleSettings`.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_core",
        "_entered",
        "_rng",
        "_wall_clock",
        "active",
        "bus",
        "lock",
        "name",
        "settings",
    )

    _what = "a throttle"

    active: bool
    """Whether calls may be held back at present: if not, nobody needs to ask."""
    bus: EventBus
    lock: AbstractContextManager[Any]
    name: str
    settings: ThrottleSettings

    def __init__(
        self,
        settings: ThrottleSettings | None = None,
        *,
        name: str = "throttle",
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        bus: EventBus | None = None,
    ) -> None:
        settings = settings if settings is not None else ThrottleSettings(enabled=True)
        checked_input(self._what, name, settings, ThrottleSettings)
        self.settings = settings
        self.name = name
        self.bus = bus if bus is not None else EventBus(process_bus)
        self.lock = threading.RLock()
        self._clock = clock
        self._wall_clock = wall_clock
        self._rng = rng if rng is not None else random.Random()
        self.start_anew()
        survives(self)

    def start_anew(self) -> None:
        """Forget every call."""
        settings = self.settings
        self._core = AdaptiveThrottle(settings.ratio, settings.window, settings.max_reject, settings.minimum_calls)
        self._entered = {}
        self.active = False

    def adopt(self, settings: ThrottleSettings) -> None:
        """
        Work by other *settings* from now on, with the calls that are known; `active` may have changed afterwards.

        Raises:
            ConfigurationError: *settings* are not `ThrottleSettings`.
        """
        checked_input(self._what, self.name, settings, ThrottleSettings)
        with self.lock:
            now = self._clock()
            self.settings = settings
            self._core.adopt(
                now,
                ratio=settings.ratio,
                window=settings.window,
                max_reject=settings.max_reject,
                minimum_calls=settings.minimum_calls,
            )
            self._look(now)

    # -- reading ---------------------------------------------------------------------------------------------------

    def snapshot(self) -> ThrottleSnapshot:
        """Return the figures as they are now."""
        with self.lock:
            now = self._clock()
            calls, accepted = self._core.counts(now)
            share = {priority.value: self._core.share(now, priority) for priority in Priority}
        return ThrottleSnapshot(
            name=self.name,
            mode=self.settings.mode if self.settings.enabled else "disabled",
            calls=calls,
            accepted=accepted,
            share=FrozenDict(share if self.settings.limits else dict.fromkeys(share, 0.0)),
        )

    def __repr__(self) -> str:
        now = self.snapshot()
        share = now.share[Priority.DEFAULT] * 100
        return f"<Throttle {self.name!r} holds back {share:.0f} %, {now.accepted}/{now.calls} accepted>"

    # -- deciding --------------------------------------------------------------------------------------------------

    def try_admit(self, priority: Priority = Priority.DEFAULT, *, now: float | None = None) -> ThrottleRefusal | None:
        """
        Return why a call is held back; None if it may leave.

        Args:
            priority: How much the call matters. Default: `Priority.DEFAULT`.
            now: The moment. Default: the clock is asked, if need be.
        """
        if not self.active:
            return None
        with self.lock:
            now = self._clock() if now is None else now
            self._look(now)
            if not self._core.holds_back(now, priority, self._rng):
                return None
            calls, accepted = self._core.counts(now)
            share = self._core.share(now, priority)
        if self.settings.mode == "shadow" or not by_lot(self.settings.enforced, self._rng):
            event = CallWouldBeRejected(provider=self.name, time=self._wall_clock(), reason=Reason.THROTTLED)
            self.bus.emit(event)
            return None
        return ThrottleRefusal(Reason.THROTTLED, calls, accepted, self.settings.window, share)

    def record(self, accepted: bool, n: int = 1, *, now: float | None = None) -> None:
        """
        Count *n* calls that have completed; those that were held back do not count.

        Args:
            accepted: Whether the provider took them; False only if it refused them for being busy.
            n: How many. Default: 1.
            now: The moment. Default: the clock is asked.
        """
        if not self.settings.limits:
            return
        with self.lock:
            now = self._clock() if now is None else now
            self._core.record(now, accepted=accepted, n=n)
            self._look(now)

    def _look(self, now: float) -> None:
        self.active = self.settings.limits and self._core.share(now) > 0

    def refused(self, refusal: ThrottleRefusal) -> Throttled:
        """Return the exception that tells of *refusal*."""
        return Throttled(self.name, refusal.reason, None, refusal)

    # -- using it alone --------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        refusal = self.try_admit()
        if refusal is not None:
            raise self.refused(refusal)

    def _end(self, entry: None, error: BaseException | None) -> None:  # noqa: ARG002  # nothing to give back
        answer = True if error is None else accepted(classify(error))
        if answer is not None:
            self.record(answer)
