"""
The bulkhead: so many attempts at once and no more, and a short line for those who come too early.

The line is `resilience._core.queue`, a limit that adapts itself `resilience._core.limit`; this is the part that holds
a lock, parks tasks on their own loops and tells listeners.

A place that gets free is handed to the next in line in the same step, so nobody can slip in between; whoever was
given one and is cancelled before it could run hands it on.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, final

from resilience._core.queue import Line
from resilience._core.words import Priority, Reason, Verdict
from resilience.classify import classify
from resilience.errors import BulkheadFull
from resilience.events import ConcurrencyLimitChanged, Event, EventBus, process_bus
from resilience.policies._around import Around
from resilience.policies._bulkhead import DROPS, NO_LIMIT, adaptive_limit, fixed_limit
from resilience.policies._bulkhead import BulkheadRefusal as BulkheadRefusal
from resilience.policies._bulkhead import BulkheadSnapshot as BulkheadSnapshot
from resilience.policies._checks import checked_input
from resilience.policies._forks import survives
from resilience.policies._lots import by_lot
from resilience.policies._places import Place as Place
from resilience.policies._places import Places, State
from resilience.policies._waiter import Waiter
from resilience.settings import BulkheadSettings
from resilience.settings._types import FrozenDict


def _none() -> int:
    """No places are counted elsewhere."""
    return 0


def _nothing() -> None:
    """Nobody needs to know whether somebody waits."""


@final
class Bulkhead(Places, Around[tuple[Place, float]]):
    """
    Limits how many attempts run at once.

    Use it as ``await bulkhead.call(fn, ...)``, as ``async with bulkhead:``, as a decorator, or, with a priority, as
    ``with await bulkhead.acquire(priority=Priority.CRITICAL):``.

    Args:
        settings: Limits and waits. Default: `BulkheadSettings()`, which limits nothing.
        name: What it protects; it stands in errors and events. Default: ``"bulkhead"``.
        clock: A monotonic clock in seconds. Default: `time.monotonic`.
        wall_clock: Seconds since the Unix epoch, for events. Default: `time.time`.
        rng: Spreads the probes of a "vegas" limit, and draws which refusals hold. Default: a fresh `random.Random`.
        bus: Where to tell events. Default: a bus of its own below the process-wide one.
        elsewhere: Returns how many places are in use that no `Place` stands for; who frees one calls `freed`.
        crowded: Called under the lock whenever the line gets its first waiter or loses its last.

    Raises:
        ConfigurationError: *name* is not a string, or *settings* are not `BulkheadSettings`.
    """

    __slots__ = ("_adaptive", "_entered", "_rng", "_wall_clock", "bus")

    _what = "a bulkhead"

    bus: EventBus
    limit: int
    line: Line[Place]
    settings: BulkheadSettings

    def __init__(
        self,
        settings: BulkheadSettings | None = None,
        *,
        name: str = "bulkhead",
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        bus: EventBus | None = None,
        elsewhere: Callable[[], int] = _none,
        crowded: Callable[[], None] = _nothing,
    ) -> None:
        settings = settings if settings is not None else BulkheadSettings()
        checked_input(self._what, name, settings, BulkheadSettings)
        self.settings = settings
        self.name = name
        self.bus = bus if bus is not None else EventBus(process_bus)
        # Reentrant: the collector may close an abandoned call in the middle of a decision about another one.
        self.lock: AbstractContextManager[Any] = threading.RLock()
        self._clock = clock
        self._wall_clock = wall_clock
        self._rng = rng if rng is not None else random.Random()
        self._shadow = self.settings.mode == "shadow"
        self._elsewhere = elsewhere
        self._crowded = crowded
        self.start_anew()
        if elsewhere is _none:
            survives(self)  # one that is part of a provider is woken by it after a fork

    def start_anew(self) -> None:
        """Forget every place and every waiter without telling anybody: in a forked child, none of them exist."""
        settings = self.settings
        self.granted = 0
        self.limit = fixed_limit(settings)
        self.line = Line(settings.max_queue, lifo_when_overloaded=settings.order == "adaptive_lifo")
        self._adaptive = adaptive_limit(settings, self._rng)
        self._over = 0
        self._crowd = False
        self._news = ()
        self._entered = {}

    def adopt(self, settings: BulkheadSettings) -> None:
        """
        Work by other *settings* from now on, with every place as it is.

        Beyond a lower limit nobody is thrown out: others enter once there is room below it. Under a higher one those
        who wait get their places at once. Who waits goes on waiting, for as long as it was going to. A limit that
        adapts itself goes on from where it is.

        Raises:
            ConfigurationError: *settings* are not `BulkheadSettings`.
        """
        checked_input(self._what, self.name, settings, BulkheadSettings)
        with self.lock:
            self.settings = settings
            if (settings.mode == "shadow") is not self._shadow:
                self._switch(not self._shadow)
            self.line.adopt(settings.max_queue, lifo_when_overloaded=settings.order == "adaptive_lifo")
            self._adaptive = adaptive_limit(settings, self._rng, self._adaptive)
            limit = self._adaptive.allowed if self._adaptive is not None else fixed_limit(settings)
            if limit != self.limit:
                self.limit = limit
                self._hand_on()
            # Told with the next thing that happens: a provider holds its lock around this.
            self._news = self._settle()

    # -- reading ---------------------------------------------------------------------------------------------------

    def snapshot(self) -> BulkheadSnapshot:
        """Return the figures as they are now."""
        with self.lock:
            return BulkheadSnapshot(
                name=self.name,
                mode=self.settings.mode,
                limit=self.limit if self.limit != NO_LIMIT else None,
                in_use=self.in_use,
                waiting=self.waiting,
                max_queue=self.line.size,
                by_priority=FrozenDict({priority.value: self.line.waiting(priority) for priority in Priority}),
                overloaded=self.line.overloaded(self._clock()),
                adaptive=self._adaptive.limit if self._adaptive is not None else None,
            )

    def __repr__(self) -> str:
        now = self.snapshot()
        places = f"{now.in_use}/{now.limit} in use" if now.limit is not None else f"{now.in_use} in use, no limit"
        return f"<Bulkhead {self.name!r} {places}, {now.waiting} waiting>"

    # -- places ----------------------------------------------------------------------------------------------------

    def try_acquire(
        self, *, priority: Priority = Priority.DEFAULT, now: float | None = None
    ) -> Place | BulkheadRefusal:
        """
        Return a place if one is free and nobody waits who comes first, else why not. Does not wait.

        Args:
            priority: How much the call matters. Default: `Priority.DEFAULT`.
            now: The moment. Default: the clock is asked, if need be.
        """
        answer = self.at_once(priority=priority, now=now)
        return self._by_lot(answer) if isinstance(answer, BulkheadRefusal) else answer

    def at_once(self, *, priority: Priority = Priority.DEFAULT, now: float | None = None) -> Place | BulkheadRefusal:
        """Do the same for somebody who goes on to `acquire` if need be, and so is not refused yet."""
        with self.lock:
            place = self._take(priority, now)
            if place is None:
                return self._refusal(self.line.refuses(priority) or Reason.BULKHEAD_FULL)
            told = self._settle()
        self._tell(told)
        return place

    def _by_lot(self, refusal: BulkheadRefusal) -> Place | BulkheadRefusal:
        """Return *refusal*, or a place beyond the limit if it is not in earnest."""
        if by_lot(self.settings.enforced, self._rng):
            return refusal
        with self.lock:
            place = self._take_beyond(refusal.reason)
            told = self._settle()
        self._tell(told)
        return place

    async def acquire(self, *, priority: Priority = Priority.DEFAULT, max_wait: float | None = None) -> Place:
        """
        Return a place, after a wait if need be.

        Args:
            priority: How much the call matters. Default: `Priority.DEFAULT`.
            max_wait: How long to wait, in seconds. Default: as the settings say.

        Raises:
            BulkheadFull: No place got free in time, or the line is full, or others matter more.
        """
        wait = self.settings.max_wait if max_wait is None else max_wait
        answer = self._claim(priority, wait)
        if not isinstance(answer, BulkheadRefusal) and answer.waiter is not None:
            answer = await self._wait(answer, answer.waiter, wait)
        if isinstance(answer, BulkheadRefusal):
            answer = self._by_lot(answer)
        if isinstance(answer, BulkheadRefusal):
            raise self.refused(answer)
        return answer

    def leave(self, place: Place) -> None:
        """Take *place* back and hand it on; the same as ``place.leave()``."""
        with self.lock:
            if place.state is State.LEFT or place.line is not self.line:
                return
            self._vacate(place)
            told = self._settle()
        self._tell(told)

    def freed(self) -> None:
        """Hand on what got free elsewhere."""
        with self.lock:
            self._hand_on()
            told = self._settle()
        self._tell(told)

    def outlook(self, *, priority: Priority = Priority.DEFAULT) -> BulkheadRefusal | None:
        """Return why `acquire` would surely refuse a call at this moment, None if it might not; takes nothing."""
        with self.lock:
            if self.settings.mode != "enforce" or self.settings.enforced < 1 or self._has_room(priority):
                return None
            reason = self.line.refuses(priority)
            return self._refusal(reason) if reason is not None else None

    def refused(self, refusal: BulkheadRefusal) -> BulkheadFull:
        """Return the exception that tells of *refusal*."""
        return BulkheadFull(self.name, refusal.reason, None, refusal)

    # -- the limit -------------------------------------------------------------------------------------------------

    def saw(
        self,
        now: float,
        *,
        successes: int = 0,
        drops: int = 0,
        in_flight: int | None = None,
        latency: float | None = None,
    ) -> None:
        """
        Tell an adaptive limit what became of attempts since the last time; without one it does nothing.

        Args:
            now: The moment, on the bulkhead's clock.
            successes: So many were answered. Not those we refused ourselves, nor those a caller cancelled.
            drops: So many were refused by a busy provider, or timed out.
            in_flight: The greatest number that ran at once meanwhile. Default: those that run now.
            latency: How long the successes took on average, in seconds. None: not known.
        """
        adaptive = self._adaptive
        if adaptive is None:
            return
        with self.lock:
            busy = self.in_use if in_flight is None else in_flight
            why = adaptive.saw(now, successes=successes, drops=drops, in_flight=busy, latency=latency)
            if why:
                self._adopt(adaptive.allowed, why)
            told = self._settle()
        self._tell(told)

    def _adopt(self, limit: int, why: str) -> None:
        before, self.limit = self.limit, limit
        if before != limit:
            name = self.name
            self._note(
                lambda time_: ConcurrencyLimitChanged(provider=name, time=time_, before=before, after=limit, reason=why)
            )
            self._hand_on()

    # -- telling ---------------------------------------------------------------------------------------------------

    def _tell(self, news: tuple[Callable[[float], Event], ...]) -> None:
        """Tell the listeners, after the lock was left: they may read snapshots and may call back."""
        if news:
            time_ = self._wall_clock()
            for event in news:
                self.bus.emit(event(time_))

    def _claim(self, priority: Priority, wait: float) -> Place | BulkheadRefusal:
        """Return a place, or a place in the line, or why there is neither."""
        with self.lock:
            place = self._take(priority, None)
            if place is None:
                reason = self.line.refuses(priority)
                if reason is not None or wait <= 0:
                    return self._refusal(reason or Reason.BULKHEAD_FULL)
                place = Place(self, self.line, State.WAITING, Waiter())
                self._line_up(place, priority, self._clock())
            told = self._settle()
            if place.state is State.WAITING and place.waiter is not None:
                # Now that the others know that we wait: what got free elsewhere before they did, nobody told us.
                self._hand_on()
                told += self._settle()
        self._tell(told)
        return place

    # -- waiting ---------------------------------------------------------------------------------------------------

    async def _wait(self, place: Place, waiter: Waiter, wait: float) -> Place | BulkheadRefusal:
        began = self._clock()
        try:
            await waiter.wait(wait)
        except BaseException:
            place.leave()  # its spot in the line, or the place that it was just given
            raise
        return self._outcome(place, began) or place

    def _outcome(self, place: Place, began: float) -> BulkheadRefusal | None:
        """Return why *place*, whose wait is over, was not given."""
        with self.lock:
            if place.state is State.TAKEN or place.waiter is None:  # or shadow mode has begun
                return None
            if place.state is State.REFUSED:
                return self._refusal(Reason.SHED)
            refusal = self._refusal(Reason.BULKHEAD_TIMEOUT, self._clock() - began)
        place.leave()
        return refusal

    # -- using it alone --------------------------------------------------------------------------------------------

    async def _begin(self) -> tuple[Place, float]:
        place = await self.acquire()
        return place, self._clock()

    def _end(self, entry: tuple[Place, float], error: BaseException | None) -> None:
        place, began = entry
        try:
            if self._adaptive is not None:
                self._report(began, error)
        finally:
            place.leave()

    def _report(self, began: float, error: BaseException | None) -> None:
        now = self._clock()
        if error is None:
            latency = now - began if self.settings.latency == "attempt" else None
            self.saw(now, successes=1, latency=latency)
            return
        failure = classify(error)
        if failure.kind in DROPS:
            self.saw(now, drops=1)
        elif failure.verdict is Verdict.SUCCESS:  # it said no, but it answered
            self.saw(now, successes=1)
