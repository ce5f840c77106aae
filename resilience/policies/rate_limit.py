"""
The rate limit: so many requests, and so many tokens, in a time, and not one more.

The decisions are `resilience._core.bucket`; this is the part that holds a lock, reads the clock, keeps those who wait
in line, and heeds what the provider says in its headers. Only the head of the line sleeps for its turn, and it takes
what it needs when it wakes. So order is exact, and a caller that gives up has taken nothing.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, final

from resilience._core.bucket import Bucket, Buckets
from resilience._core.words import Priority
from resilience.classify._quotas import Quota, quotas
from resilience.errors import RateLimited
from resilience.events import CallWouldBeRejected, Event, EventBus, RateLimitTightened, process_bus
from resilience.policies._around import Decorates
from resilience.policies._checks import checked_input
from resilience.policies._forks import survives
from resilience.policies._line import Line, Place
from resilience.policies._lots import by_lot
from resilience.policies._rate_limit import RateLimitSnapshot as RateLimitSnapshot
from resilience.policies._rate_limit import RateRefusal as RateRefusal
from resilience.policies._rate_limit import RateWindow as RateWindow
from resilience.policies._rate_limit import checked, looked_at, nearest, windows_after, windows_of
from resilience.policies._reservation import Reservation as Reservation
from resilience.policies._waiter import Waiter
from resilience.settings import RateLimitSettings

P = ParamSpec("P")
T = TypeVar("T")

_SLACK = 1e-6  # seconds; a wait that is longer than allowed by rounding alone is not
_WORTH_TELLING = 0.01  # of a window


@final
class RateLimit(Decorates):
    """
    Lets so many requests and tokens pass in a time; further callers wait for their turn, in order.

    Use it as ``await limit.call(fn, ...)``, as ``async with limit:``, as a decorator, or take a reservation by hand::

        reservation = await limit.acquire(tokens=estimate)
        reply = await client.ask(...)
        reservation.settle(tokens=reply.usage.total_tokens)

    One limit serves every event loop and thread of the process.

    Args:
        settings: What is allowed.
        name: What it protects; it stands in errors and events. Default: ``"rate_limit"``.
        clock: A monotonic clock in seconds. Default: `time.monotonic`.
        wall_clock: Seconds since the Unix epoch, for events and for headers that name a time. Default: `time.time`.
        rng: Draws which refusals hold, where not all of them do. Default: a fresh `random.Random`.
        bus: Where to tell events. Default: a bus of its own below the process-wide one.

    Attributes:
        fast: The only window, if requests alone are limited, in one window, in earnest: who is in a hurry may take from
            it under the `lock` as `Bucket` describes, in place of `try_acquire`. Otherwise None.
        lock: Guards every decision.

    Raises:
        ConfigurationError: *settings* are not `RateLimitSettings`, or *name* is not a string.
    """

    __slots__ = (
        "__weakref__",
        "_buckets",
        "_clamps",
        "_clock",
        "_enforces",
        "_line",
        "_names",
        "_rng",
        "_wall_clock",
        "bus",
        "fast",
        "lock",
        "name",
        "rejected",
        "settings",
    )

    _what = "a rate limit"

    bus: EventBus
    fast: Bucket | None
    name: str
    rejected: int
    settings: RateLimitSettings

    def __init__(
        self,
        settings: RateLimitSettings,
        *,
        name: str = "rate_limit",
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        bus: EventBus | None = None,
    ) -> None:
        checked_input(self._what, name, settings, RateLimitSettings)
        self.name = name
        self.settings = settings
        self.bus = bus if bus is not None else EventBus(process_bus)
        self.lock: AbstractContextManager[Any] = threading.RLock()
        self._clock = clock
        self._wall_clock = wall_clock
        self._rng = rng if rng is not None else random.Random()
        self._set(settings, *windows_of(settings))
        self.rejected = 0
        self._line = Line(self._buckets, self._names, settings.max_queue)
        survives(self)

    def _set(self, settings: RateLimitSettings, buckets: Buckets, names: dict[Bucket, str]) -> None:
        self.settings = settings
        self._buckets = buckets
        self._names = names
        one = len(buckets.all) == 1 and len(buckets.requests) == 1
        self.fast = buckets.all[0] if one and settings.mode == "enforce" else None
        self._clamps = settings.oversized == "clamp"
        self._enforces = settings.mode == "enforce" and bool(names)

    def adopt(self, settings: RateLimitSettings) -> None:
        """
        Work by other *settings* from now on, with all that is used.

        So many requests and tokens as are used in a window stay used, whatever it now allows. Reservations settle as
        before. Who waits keeps its turn, and waits as long as it takes now.

        Raises:
            ConfigurationError: *settings* are not `RateLimitSettings`, or an allowance is too small to count with.
        """
        checked_input(self._what, self.name, settings, RateLimitSettings)
        with self.lock:
            self._set(settings, *windows_after(settings, self._names, self._clock()))
            self._line.adopt(self._buckets, self._names, settings.max_queue, clamps=self._clamps)

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many callers wait for their turn."""
        return len(self._line)

    def snapshot(self) -> RateLimitSnapshot:
        """Return the windows and their figures as they are now."""
        with self.lock:
            now = self._clock()
            return RateLimitSnapshot(
                name=self.name,
                mode=self.settings.mode,
                windows=tuple(looked_at(bucket, name, now) for bucket, name in self._names.items()),
                waiting=len(self._line),
                rejected=self.rejected,
            )

    def __repr__(self) -> str:
        now = self.snapshot()
        figures = [f"{window.remaining} of {window.burst:g} {window.name} left" for window in now.windows]
        mode = f" {now.mode.upper()}" if now.mode != "enforce" else ""
        waiting = [f"{now.waiting} waiting"] if now.waiting else []
        return f"<RateLimit {self.name!r}{mode} {', '.join((figures or ['no limit']) + waiting)}>"

    # -- taking ----------------------------------------------------------------------------------------------------

    def try_acquire(self, *, tokens: float | None = None, requests: float = 1) -> Reservation | RateRefusal:
        """
        Take what a call needs, if there is room at once and nobody waits, or say why not.

        Args:
            tokens: How many tokens it will use, as a guess. Default: ``settings.token_estimate``.
            requests: How many requests it makes. Default: 1.

        Raises:
            ValueError: A number is negative or not finite.
        """
        needed = self._needed(requests, tokens)
        answer = self._attempt(*needed)
        return self._by_lot(answer, *needed) if isinstance(answer, RateRefusal) else answer

    def at_once(self, *, tokens: float | None = None, requests: float = 1) -> Reservation | RateRefusal:
        """Do the same for somebody who goes on to `acquire` if need be, and so is not refused yet."""
        return self._attempt(*self._needed(requests, tokens))

    def taken(self) -> Reservation:
        """Return what stands for one request that was taken from the `fast` window."""
        return Reservation(self, 1, 0, taken=True)

    async def acquire(
        self,
        *,
        tokens: float | None = None,
        requests: float = 1,
        max_wait: float | None = None,
        priority: Priority = Priority.DEFAULT,
    ) -> Reservation:
        """
        Take what a call needs, and wait for it if need be.

        Args:
            tokens: How many tokens it will use, as a guess. Default: ``settings.token_estimate``.
            requests: How many requests it makes. Default: 1.
            max_wait: How long to wait at most, in seconds. Default: ``settings.max_wait``.
            priority: When the line is full, the youngest of the least important is sent away for a more important
                one. It changes nothing about the order of those who stay.

        Raises:
            RateLimited: It would take too long (known at once), or too many wait, or it never fits.
            ValueError: A number is negative or not finite.
        """
        needed = self._needed(requests, tokens)
        patience = self.settings.max_wait if max_wait is None else max_wait
        answer = self._attempt(*needed)
        if isinstance(answer, RateRefusal):
            if answer.retry_after is not None and answer.retry_after <= patience + _SLACK:
                answer = await self._wait_in_line(Place(*needed, priority, self._clock() + patience))
            if isinstance(answer, RateRefusal):
                answer = self._by_lot(answer, *needed)
        if isinstance(answer, RateRefusal):
            with self.lock:
                self.rejected += 1
            raise self.refused(answer)
        return answer

    def outlook(self, *, tokens: float | None = None, requests: float = 1) -> RateRefusal | None:
        """Return why `acquire` would surely refuse a call at this moment, None if it might not; takes nothing."""
        needed = self._needed(requests, tokens)
        if not self._enforces or self.settings.enforced < 1:
            return None
        with self.lock:
            now = self._clock()
            if not len(self._line) and not self._buckets.wait(now, *needed):
                return None
            refusal = self._line.refusal(now, *needed)
        wait = refusal.retry_after
        return refusal if wait is None or wait > self.settings.max_wait + _SLACK else None

    def refused(self, refusal: RateRefusal) -> RateLimited:
        """Return the exception that tells of *refusal*."""
        return RateLimited(self.name, refusal.reason, refusal.retry_after, refusal)

    def _needed(self, requests: float, tokens: float | None) -> tuple[float, float]:
        """Return what is to be taken, after defaults and, if so chosen, cut to what fits."""
        wanted = checked("tokens", self.settings.token_estimate if tokens is None else tokens)
        requests = checked("requests", requests)
        if self._clamps:
            return min(requests, self._buckets.most_requests), min(wanted, self._buckets.most_tokens)
        return requests, wanted

    def _attempt(self, requests: float, tokens: float) -> Reservation | RateRefusal:
        if not self._enforces:
            return self._admit(requests, tokens)
        with self.lock:
            now = self._clock()
            if self._line.try_take(now, requests, tokens):
                return Reservation(self, requests, tokens, taken=True)
            return self._line.refusal(now, requests, tokens)

    def _by_lot(self, refusal: RateRefusal, requests: float, tokens: float) -> Reservation | RateRefusal:
        """Return *refusal*, or a reservation of nothing if it is not in earnest."""
        if by_lot(self.settings.enforced, self._rng):
            return refusal
        self.bus.emit(CallWouldBeRejected(provider=self.name, time=self._wall_clock(), reason=refusal.reason))
        return Reservation(self, requests, tokens, taken=False)

    def _admit(self, requests: float, tokens: float) -> Reservation:
        """Admit, in a mode in which everybody is."""
        if self.settings.mode == "shadow":
            return self._pretend(requests, tokens)
        return Reservation(self, requests, tokens, taken=False)

    def _pretend(self, requests: float, tokens: float) -> Reservation:
        """Admit, and tell if there was no room. Who would have been refused takes nothing, as if it were not there."""
        with self.lock:
            now = self._clock()
            would = self._line.refusal(now, requests, tokens) if self._buckets.wait(now, requests, tokens) else None
            wait = would.retry_after if would is not None else 0.0
            taken = wait is not None and wait <= self.settings.max_wait
            if taken:
                self._buckets.charge(now, requests, tokens)
            reservation = Reservation(self, requests, tokens, taken=taken)
        if would is not None:
            self.bus.emit(CallWouldBeRejected(provider=self.name, time=self._wall_clock(), reason=would.reason))
        return reservation

    # -- the line --------------------------------------------------------------------------------------------------

    async def _wait_in_line(self, place: Place) -> Reservation | RateRefusal:
        with self.lock:
            answer: RateRefusal | tuple[Waiter, float] | None = self._line.enter(place, self._clock())
        try:
            while not isinstance(answer, RateRefusal):
                with self.lock:
                    if not self._enforces:  # not any more
                        self._line.leave(place)
                        return self._admit(place.requests, place.tokens)
                    answer = self._line.advance(place, self._clock())
                    if answer is None:
                        return Reservation(self, place.requests, place.tokens, taken=True)
                if not isinstance(answer, RateRefusal):
                    waiter, seconds = answer
                    await waiter.wait(seconds)
        finally:
            with self.lock:
                self._line.leave(place)
        return answer

    # -- what the provider says ------------------------------------------------------------------------------------

    def follow(self, headers: object, *, sent: float) -> bool:
        """
        Tighten the windows to what the provider says in the *headers* of a response.

        Understands ``x-ratelimit-*``, ``anthropic-ratelimit-*`` and ``RateLimit``; anything else changes nothing.
        It never makes room, except for what earlier headers took away. Quotas for input or output alone count only
        when they are spent, for the windows here count both together.

        Args:
            headers: Of any response, in any kind of collection.
            sent: When the request left, on the limit's clock: answers overtake one another, and old ones say nothing.

        Returns:
            Whether they say anything about limits.
        """
        if not self.settings.follow_headers or self.settings.mode == "disabled" or not self._names:
            return False
        news: list[Event] = []
        said = quotas(headers, self._wall_clock())
        for quota in said:
            with self.lock:
                news += self._heed(quota, sent)
        for event in news:
            self.bus.emit(event)
        return bool(said)

    def _heed(self, quota: Quota, sent: float) -> list[Event]:
        if quota.what in ("input_tokens", "output_tokens") and quota.remaining >= 1:
            return []
        bucket = nearest(self._buckets.requests if quota.what == "requests" else self._buckets.tokens, quota)
        if bucket is None:
            return []
        lost = bucket.tighten(self._clock(), quota.remaining, quota.pause, sent)
        if not lost:
            self._line.stir()  # it may have given back
        if lost < max(1.0, _WORTH_TELLING * bucket.burst):
            return []
        return [
            RateLimitTightened(
                provider=self.name,
                time=self._wall_clock(),
                window=self._names[bucket],
                remaining=quota.remaining,
                reset=quota.reset if quota.reset is not None else 0.0,
            )
        ]

    # -- life ------------------------------------------------------------------------------------------------------

    def start_anew(self) -> None:
        """Fill every window and forget who waited: in a forked child, none of it happened."""
        self._line.clear()
        self._buckets.reset()
        self.rejected = 0

    # -- using it alone --------------------------------------------------------------------------------------------

    async def call(self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Await ``func(*args, **kwargs)`` when its turn has come.

        Raises:
            RateLimited: That would take too long.
        """
        await self.acquire()
        return await func(*args, **kwargs)

    async def __aenter__(self) -> Reservation:
        return await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to do: what was used stays used, unless the reservation says otherwise."""
