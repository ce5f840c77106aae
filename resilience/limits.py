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
no lock (see `resilience.fast_limits`).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol, final

from resilience._core.words import Verdict
from resilience.classify._foreign import safely
from resilience.common import Common, Tools
from resilience.errors import CallRejected
from resilience.events import EventBus
from resilience.failure import Failure
from resilience.fast_limits import Admit, admission
from resilience.guard import is_asyncios
from resilience.lanes import Lanes
from resilience.plan import Options
from resilience.policies._bulkhead import DROPS
from resilience.policies.bulkhead import Bulkhead, BulkheadRefusal, Place
from resilience.policies.cost import CostLimit, CostRefusal, Spending
from resilience.policies.rate_limit import RateLimit, RateRefusal, Reservation
from resilience.policies.throttle import Throttle, accepted
from resilience.settings import ProviderSettings
from resilience.turn import NO_TURN, Turn


class Host(Protocol):
    """What limits know of their provider's runtime."""

    common: Common
    lanes: Lanes

    @property
    def successes(self) -> int:
        """How many attempts have succeeded."""
        ...

    def absorb(self) -> None:
        """Add up what the lanes have counted for themselves. Called under the lock."""

    def refresh(self) -> None:
        """Copy to the lanes what has changed. Called under the lock."""


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
        seen: Successes from before there were limits, which say nothing about them. Default: 0.
    """

    __slots__ = (
        "_bucket",
        "_clock",
        "_host",
        "_placed",
        "_seen",
        "_usual",
        "admit",
        "bulkhead",
        "cost",
        "rate",
        "throttle",
    )

    admit: Admit
    bulkhead: Bulkhead | None
    cost: CostLimit | None
    rate: RateLimit | None
    throttle: Throttle | None

    def __init__(
        self, name: str, settings: ProviderSettings, tools: Tools, bus: EventBus, host: Host, *, seen: int = 0
    ) -> None:
        self._host = host
        clocks = {"clock": tools.clock, "wall_clock": tools.wall_clock}
        self._usual: dict[str, Any] = {"name": name, "rng": tools.rng, "bus": bus, **clocks}
        self.throttle = self.cost = self.rate = self.bulkhead = None
        self._make_missing(settings, heeds=False)
        self._clock = tools.clock
        self._placed: dict[object, Place] = {}
        self._seen = seen

    def _make_missing(self, settings: ProviderSettings, *, heeds: bool) -> None:
        usual = self._usual
        if self.throttle is None and settings.throttle.limits:
            self.throttle = Throttle(settings.throttle, **usual)
        if self.cost is None and settings.cost.limits:
            self.cost = CostLimit(settings.cost, **usual)
        if self.rate is None and settings.rate_limit.limits:
            self.rate = RateLimit(settings.rate_limit, **usual)
        if self.bulkhead is None and settings.bulkhead.limits:
            crowded = self._host.refresh
            self.bulkhead = Bulkhead(settings.bulkhead, elsewhere=self._uncounted, crowded=crowded, **usual)
        self._bucket = self.rate.fast if self.rate is not None and not heeds else None
        self.admit = admission(self.bulkhead, self._bucket)

    def adopt(self, settings: ProviderSettings) -> None:
        """
        Hold those limits from now on that *settings* ask for, with all that is taken.

        Called under the lock, by a host that calls its `refresh` afterwards. A limit that is no longer asked for lets
        everybody through who waits for it, and is forgotten; should it be asked for again, it begins anew.
        """
        heeds = self._bucket is None and self.rate is not None and self.rate.fast is not None
        if not self._learns:
            self._host.absorb()
            self._seen = self._host.successes
        if self.throttle is not None:
            self.throttle.adopt(settings.throttle)
            self.throttle = self.throttle if settings.throttle.limits else None
        if self.cost is not None:
            self.cost.adopt(settings.cost)
            self.cost = self.cost if settings.cost.limits else None
        if self.rate is not None:
            self.rate.adopt(settings.rate_limit)
            self.rate = self.rate if settings.rate_limit.limits else None
        if self.bulkhead is not None:
            self.bulkhead.adopt(settings.bulkhead)
            self.bulkhead = self.bulkhead if settings.bulkhead.limits else None
        self._make_missing(settings, heeds=heeds)
        self.share(self._host.common.lock)

    def take_rate(self, rate: RateLimit) -> None:
        """Spend from another's *rate* limit. The fast path leaves it alone: it may be used on two event loops."""
        self.rate, self._bucket = rate, None
        self.admit = admission(self.bulkhead, None)

    def _all(self) -> list[Bulkhead | CostLimit | RateLimit | Throttle]:
        every = (self.throttle, self.cost, self.rate, self.bulkhead)
        return [limit for limit in every if limit is not None]

    def share(self, lock: AbstractContextManager[Any]) -> None:
        """Put *lock* around every decision."""
        for limit in self._all():
            limit.lock = lock

    def start_anew(self) -> None:
        """Forget everything: in a forked child none of it happened."""
        self._placed = {}
        self._seen = 0
        for limit in self._all():
            limit.start_anew()

    # -- the fast path ---------------------------------------------------------------------------------------------

    @property
    def quick(self) -> bool:
        """Whether `admit` may answer: nobody waits, no shadow, nothing held back, no look at latencies or results."""
        bulkhead, rate = self.bulkhead, self.rate
        if bulkhead is not None:
            settings = bulkhead.settings
            if bulkhead.waiting or settings.mode != "enforce" or settings.adaptive == "vegas":
                return False
        held_back = self.throttle is not None and self.throttle.active
        return self.cost is None and not held_back and (rate is None or self._bucket is not None)

    def _uncounted(self) -> int:
        return self._host.lanes.uncounted

    # -- taking a turn ---------------------------------------------------------------------------------------------

    def try_enter(self, options: Options, task: object) -> Turn | CallRejected | None:
        """Take a turn at once, or say why there will be none; None if `enter` has to find out."""
        throttle, cost, rate = self.throttle, self.cost, self.rate  # another thread may read settings anew meanwhile
        if throttle is not None and (held_back := throttle.try_admit(options.priority)) is not None:
            return throttle.refused(held_back)
        money: Spending | None = None
        quota: Reservation | RateRefusal | None = None
        if cost is not None:
            reserved = cost.try_reserve(options.reserve.cost)
            if isinstance(reserved, CostRefusal):
                return cost.refused(reserved)
            money = reserved
        if rate is not None:
            quota = rate.at_once(tokens=options.reserve.tokens)
        place = self._try_place(options, task) if not isinstance(quota, RateRefusal) else None
        if isinstance(quota, RateRefusal) or isinstance(place, BulkheadRefusal):
            Turn(money, quota if isinstance(quota, Reservation) else None).refund()
            return None
        return self._turn(money, quota, place, task)

    async def enter(self, options: Options, task: object, *, remaining: float, patience: float) -> Turn:
        """
        Take a turn, and wait for it if need be.

        Args:
            options: What the call asks for.
            task: The task that makes it.
            remaining: A wait that is known to be longer than this is refused at once, in seconds.
            patience: A wait of unknown length ends after this, in seconds.

        Raises:
            CallRejected: There was none.
        """
        self._learn()  # what succeeded on the fast path may have raised the limit
        ends = self._clock() + patience
        cost, rate = self.cost, self.rate
        money = cost.reserve(options.reserve.cost) if cost is not None else None
        quota, place = None, None
        try:
            if rate is not None:
                wait = min(remaining, rate.settings.max_wait)
                quota = await rate.acquire(tokens=options.reserve.tokens, max_wait=wait, priority=options.priority)
            bulkhead = self.bulkhead
            if bulkhead is not None and not self._has_place(task):
                self._reclaim()
                wait = min(ends - self._clock(), bulkhead.settings.max_wait)
                place = await bulkhead.acquire(priority=options.priority, max_wait=wait)
        except BaseException:
            Turn(money, quota).refund()
            raise
        return self._turn(money, quota, place, task)

    def _try_place(self, options: Options, task: object) -> Place | BulkheadRefusal | None:
        """Return a place, None where none is needed."""
        bulkhead = self.bulkhead
        if bulkhead is None or self._has_place(task):
            return None
        return bulkhead.at_once(priority=options.priority)

    def _reclaim(self) -> None:
        """Take back the places of tasks whose event loop was closed before they had ended."""
        for task, place in list(self._placed.items()):
            if is_asyncios(task) and task.get_loop().is_closed():
                self._placed.pop(task, place).leave()

    def _has_place(self, task: object) -> bool:
        return task in self._placed or any(task in lane.live for lane in self._host.lanes.values())

    def _turn(self, money: Spending | None, quota: Reservation | None, place: Place | None, task: object) -> Turn:
        if place is not None:
            self._placed[task] = place
        if (shared := self._placed.get(task)) is None:
            return Turn(money, quota)
        shared.users += 1
        return Turn(money, quota, partial(self._part, task, shared))

    def _part(self, task: object, place: Place) -> None:
        place.users -= 1
        if not place.users:  # of attempts that are held open the first may end first
            if self._placed.get(task) is place:
                del self._placed[task]
            place.leave()

    def outlook(self, options: Options) -> BulkheadRefusal | CostRefusal | RateRefusal | None:
        """Return why a call under *options* would be refused at this moment; takes nothing."""
        refusal: CostRefusal | RateRefusal | None = None
        cost, rate, bulkhead = self.cost, self.rate, self.bulkhead
        if cost is not None:
            refusal = cost.outlook(options.reserve.cost)
        if refusal is None and rate is not None:
            refusal = rate.outlook(tokens=options.reserve.tokens)
        if refusal is None and bulkhead is not None:
            return bulkhead.outlook(priority=options.priority)
        return refusal

    def quick_turn(self, began: float) -> Turn:
        """Return what `admit` took for an attempt at *began*, if that can still be given back."""
        rate, bucket = self.rate, self._bucket
        if rate is None or bucket is None or self._clock() - began >= bucket.interval:
            return NO_TURN  # its place was its entry, and what time may have made good is not given back once more
        return Turn(quota=rate.taken())

    # -- giving it back --------------------------------------------------------------------------------------------

    def left(
        self,
        verdict: Verdict,
        failure: Failure | None = None,
        *,
        whole: float | None = None,
        first: float | None = None,
    ) -> None:
        """
        An attempt is over, and what it has taken given back.

        Args:
            verdict: What it says about the provider.
            failure: Why it failed, if it did.
            whole: How long it took, in seconds, where that is known.
            first: How long it took until it was held open: for a stream, until its first item.
        """
        bulkhead = self.bulkhead
        if self._learns:
            latency = None
            if bulkhead is not None and verdict is Verdict.SUCCESS:
                # A stream is as long as it is: how long says nothing about how busy its provider is.
                latency = first if bulkhead.settings.latency == "first_item" else whole if first is None else None
            self._learn(failure, latency)
        if bulkhead is not None and bulkhead.waiting:
            bulkhead.freed()

    @property
    def _learns(self) -> bool:
        """Whether a limit depends on what becomes of attempts."""
        return self.throttle is not None or (self.bulkhead is not None and self.bulkhead.settings.adaptive != "off")

    def heed(self, thing: object, sent: float) -> None:
        """Let the headers of a response, or of an error that carries one, tighten the rate limit."""
        rate = self.rate
        if rate is not None and rate.settings.follow_headers:
            headers = safely(thing, "headers")
            if headers is None:
                headers = safely(safely(thing, "response"), "headers")
            told = headers is not None and rate.follow(headers, sent=sent)
            if told and self._bucket is not None and not isinstance(thing, BaseException):
                self._bucket = None  # results tell of limits, so each of them has to be looked at
                with self._host.common.lock:
                    self._host.refresh()

    def _learn(self, failure: Failure | None = None, latency: float | None = None) -> None:
        """Tell those limits that learn what has become of attempts since the last time, those on the fast path too."""
        host, now = self._host, self._clock()
        with host.common.lock:
            host.absorb()
            successes, self._seen = host.successes - self._seen, host.successes
        bulkhead, throttle = self.bulkhead, self.throttle
        if bulkhead is not None:
            dropped = failure is not None and failure.kind in DROPS
            bulkhead.saw(now, successes=successes, drops=int(dropped), latency=latency)
        if throttle is not None:
            self._count_accepted(throttle, successes, failure, now)

    def _count_accepted(self, throttle: Throttle, successes: int, failure: Failure | None, now: float) -> None:
        was_active = throttle.active
        if successes:
            throttle.record(True, successes, now=now)
        if failure is not None and failure.verdict is not Verdict.SUCCESS:  # those are among the successes
            taken = accepted(failure)
            if taken is not None:
                throttle.record(taken, now=now)
        if throttle.active is not was_active:
            with throttle.lock:
                self._host.refresh()


def limited(settings: ProviderSettings) -> bool:
    """Whether *settings* ask for any limit."""
    every = (settings.throttle, settings.cost, settings.rate_limit, settings.bulkhead)
    return any(part.limits for part in every)
