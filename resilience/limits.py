"""
The limits of one provider, composed: what an attempt takes on its way and gives back when it is over.

::

    throttle      may refuse                  nothing is held
    cost          may refuse                  money, settled at the end
    rate limit    may wait or refuse          requests and tokens, settled at the end
    bulkhead      may wait or refuse          a place, until the end

What was taken goes back when a later one refuses. An inner call of the same provider in the same task borrows the place
of the outer one, which otherwise could wait for itself.

Where nobody waits and one event loop has the provider to itself, `Limits.admit` answers for the fast path, which takes
no lock: the places in use are then the entries of its lane, which are counted for free. It is a closure, because
looking up what it needs on `self` would take longer than what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, TypeAlias, final

from resilience._core.bucket import Bucket
from resilience._core.states import Period
from resilience._core.words import Usage, Verdict
from resilience.common import Tools
from resilience.errors import CallRejected
from resilience.events import EventBus
from resilience.failure import Failure, FailureKind
from resilience.lane import Lane
from resilience.plan import Plan
from resilience.policies.bulkhead import Bulkhead, BulkheadRefusal, Place
from resilience.policies.rate_limit import RateLimit, RateRefusal, Reservation
from resilience.settings import ProviderSettings

# What a provider answers when it has too much to do.
_TOO_MUCH: Final = frozenset({FailureKind.RATE_LIMIT, FailureKind.OVERLOADED})
_TOO_MUCH_STATUSES: Final = frozenset({429, 503, 529})


Admit: TypeAlias = Callable[[Lane, float], Period | None]


class Host(Protocol):
    """What limits know of their provider's runtime."""

    @property
    def successes(self) -> int:
        """How many attempts have succeeded."""
        ...

    def absorb(self) -> None:
        """Add up what the lanes have counted for themselves. Called under the lock."""

    def refresh(self) -> None:
        """Copy to the lanes what has changed. Called under the lock."""

    def each_lane(self) -> Iterable[Lane]:
        """Return its lanes."""
        ...


@final
class Turn:
    """What one attempt has taken. Giving it back a second time does nothing."""

    __slots__ = ("_money", "_parting", "_place", "_quota")

    def __init__(
        self,
        quota: Reservation | None = None,
        place: Place | None = None,
        parting: Callable[[], None] | None = None,
    ) -> None:
        self._quota = quota
        self._place = place
        self._parting = parting

    def settle(self, usage: Usage) -> None:
        """Take what was really used in place of what was reserved."""
        if self._quota is not None and usage.tokens is not None:
            self._quota.settle(tokens=usage.tokens)

    def refund(self) -> None:
        """Give everything back: the attempt never left, or surely never arrived."""
        if self._quota is not None:
            self._quota.refund()
        self.leave()

    def leave(self) -> None:
        """Give the place to the next; what was used stays used."""
        place, parting = self._place, self._parting
        self._quota = self._place = self._parting = None
        if parting is not None:
            parting()
        if place is not None:
            place.leave()


NO_TURN: Final = Turn()
"""The turn of those whose provider has no limits."""


@final
class Limits:
    """
    The limits of one provider.

    Args:
        name: The provider's name.
        settings: What holds for it.
        tools: Clocks and randomness.
        bus: Where to tell events.
        host: The provider's runtime.
    """

    __slots__ = ("_bucket", "_host", "_learns", "_placed", "_seen", "admit", "bulkhead", "rate")

    admit: Admit
    bulkhead: Bulkhead | None
    rate: RateLimit | None

    def __init__(self, name: str, settings: ProviderSettings, tools: Tools, bus: EventBus, host: Host) -> None:
        self._host = host
        common: dict[str, Any] = {"name": name, "clock": tools.clock, "wall_clock": tools.wall_clock, "bus": bus}
        self.bulkhead = self.rate = None
        if settings.rate_limit.limits:
            self.rate = RateLimit(settings.rate_limit, **common)
        if settings.bulkhead.limits:
            self.bulkhead = Bulkhead(
                settings.bulkhead, rng=tools.rng, elsewhere=self._uncounted, crowded=host.refresh, **common
            )
        self._bucket = self.rate.fast if self.rate is not None else None
        self.admit = _admission(self.bulkhead, self._bucket)
        self._learns = settings.bulkhead.adaptive != "off"
        self._placed: set[object] = set()
        self._seen = 0

    def _all(self) -> list[Bulkhead | RateLimit]:
        every = (self.rate, self.bulkhead)
        return [limit for limit in every if limit is not None]

    def share(self, lock: AbstractContextManager[Any]) -> None:
        """Put *lock* around every decision."""
        for limit in self._all():
            limit.lock = lock

    def start_anew(self) -> None:
        """Forget everything: in a forked child none of it happened."""
        self._placed = set()
        self._seen = 0
        for limit in self._all():
            limit.start_anew()

    # -- the fast path ---------------------------------------------------------------------------------------------

    @property
    def quick(self) -> bool:
        """Whether `admit` may answer: nobody waits, nothing is in shadow mode or held back, no latency is asked for."""
        bulkhead, rate = self.bulkhead, self.rate
        if bulkhead is not None:
            settings = bulkhead.settings
            if bulkhead.waiting or settings.mode != "enforce" or settings.adaptive == "vegas":
                return False
        return rate is None or self._bucket is not None

    def _uncounted(self) -> int:
        return sum(lane.uncounted for lane in self._host.each_lane())

    # -- taking a turn ---------------------------------------------------------------------------------------------

    def try_enter(self, plan: Plan, task: object) -> Turn | CallRejected | None:
        """Take a turn at once, or say why there will be none; None if `enter` has to find out."""
        self._learn(None)
        quota: Reservation | None = None
        if self.rate is not None:
            answer = self.rate.try_acquire(tokens=plan.reserve.tokens)
            if isinstance(answer, RateRefusal):
                return None
            quota = answer
        place = self._try_place(plan, task)
        if not isinstance(place, BulkheadRefusal):
            return self._turn(quota, place, task)
        if quota is not None:
            quota.refund()
        return None

    async def enter(self, plan: Plan, task: object, patience: float) -> Turn:
        """
        Take a turn, and wait for it up to *patience* seconds.

        Raises:
            CallRejected: There was none.
        """
        quota: Reservation | None = None
        if self.rate is not None:
            wait = min(patience, self.rate.settings.max_wait)
            quota = await self.rate.acquire(tokens=plan.reserve.tokens, max_wait=wait, priority=plan.priority)
        try:
            place = self._try_place(plan, task)
            if isinstance(place, BulkheadRefusal) and self.bulkhead is not None:
                wait = min(patience, self.bulkhead.settings.max_wait)
                place = await self.bulkhead.acquire(priority=plan.priority, max_wait=wait)
        except BaseException:
            if quota is not None:
                quota.refund()
            raise
        assert not isinstance(place, BulkheadRefusal)  # noqa: S101 - whoever refuses is a bulkhead
        return self._turn(quota, place, task)

    def _try_place(self, plan: Plan, task: object) -> Place | BulkheadRefusal | None:
        """Return a place, None where none is needed."""
        if self.bulkhead is None or self._has_place(task):
            return None
        return self.bulkhead.try_acquire(priority=plan.priority)

    def _has_place(self, task: object) -> bool:
        return task in self._placed or any(task in lane.live for lane in self._host.each_lane())

    def _turn(self, quota: Reservation | None, place: Place | None, task: object) -> Turn:
        if place is None:
            return Turn(quota)
        self._placed.add(task)
        return Turn(quota, place, lambda: self._placed.discard(task))

    # -- giving it back --------------------------------------------------------------------------------------------

    def left(self, verdict: Verdict, failure: Failure | None = None, latency: float | None = None) -> None:
        """
        An attempt is over, and what it has taken given back.

        Args:
            verdict: What it says about the provider.
            failure: Why it failed, if it did.
            latency: How long it took, in seconds, if that tells how busy the provider is.
        """
        if self._learns and verdict is not Verdict.IGNORED:
            self._learn(failure, latency)
        if self.bulkhead is not None and self.bulkhead.waiting:
            self.bulkhead.freed()

    def _learn(self, failure: Failure | None, latency: float | None = None) -> None:
        """Tell those limits that adapt themselves what has become of attempts since the last time."""
        bulkhead, host = self.bulkhead, self._host
        if not self._learns or bulkhead is None:
            return
        with bulkhead.lock:
            host.absorb()
            successes, self._seen = host.successes - self._seen, host.successes
        dropped = failure is not None and (failure.kind is FailureKind.TIMEOUT or _has_too_much(failure))
        bulkhead.saw(bulkhead._clock(), successes=successes, drops=int(dropped), latency=latency)


def _admission(bulkhead: Bulkhead | None, bucket: Bucket | None) -> Admit:
    """Return what admits one attempt that asks for nothing special by its entry in its only lane; None: look closer."""
    if bulkhead is not None and bucket is not None:
        return _by_both(bulkhead, bucket)
    if bulkhead is not None:
        return _by_place(bulkhead)
    return _by_quota(bucket) if bucket is not None else lambda lane, _: lane.passage


def _by_place(bulkhead: Bulkhead) -> Admit:
    def admit(lane: Lane, _: float) -> Period | None:
        return lane.passage if bulkhead.granted + len(lane.live) - lane.entries < bulkhead.limit else None

    return admit


def _by_quota(bucket: Bucket) -> Admit:
    interval = bucket.interval

    def admit(lane: Lane, now: float) -> Period | None:
        tat = bucket.tat
        if tat < now:  # noqa: PLR1730 - max() costs as much as the rest
            tat = now
        tat += interval
        if tat - now > bucket.tolerance:
            return None
        bucket.tat = tat
        return lane.passage

    return admit


def _by_both(bulkhead: Bulkhead, bucket: Bucket) -> Admit:
    interval = bucket.interval

    def admit(lane: Lane, now: float) -> Period | None:
        if bulkhead.granted + len(lane.live) - lane.entries >= bulkhead.limit:
            return None
        tat = bucket.tat
        if tat < now:  # noqa: PLR1730 - max() costs as much as the rest
            tat = now
        tat += interval
        if tat - now > bucket.tolerance:
            return None
        bucket.tat = tat
        return lane.passage

    return admit


def _has_too_much(failure: Failure) -> bool:
    return failure.kind in _TOO_MUCH or failure.status in _TOO_MUCH_STATUSES
