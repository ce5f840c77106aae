"""
The cost limit: so much money in a time.

A call reserves what it may cost before it leaves, and settles what it did cost when that is known. Nobody waits for
money: windows are long, and a caller that is refused can choose a cheaper way.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import inf
from typing import Any, final

from resilience._core.spend import Spend, checked
from resilience._core.words import Reason
from resilience.errors import CostLimitReached
from resilience.events import CallWouldBeRejected, EventBus, process_bus
from resilience.policies._checks import checked_input
from resilience.policies._forks import survives
from resilience.policies._lots import by_lot
from resilience.settings import CostSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLimitSnapshot:
    """
    One look at a cost limit. JSON-ready through `dataclasses.asdict`.

    Args:
        name: The limit's name.
        mode: ``enforce``, ``shadow`` or ``disabled``.
        limit: So much may be spent in each window; None: no limit.
        window: How long money counts as spent, in seconds.
        used: How much is spent or reserved in the window that ends now.
        rejected: How many calls were refused so far.
    """

    name: str
    mode: str
    limit: float | None
    window: float
    used: float
    rejected: int


@final
@dataclass(frozen=True, slots=True)
class CostRefusal:
    """
    Why there is no money now. Its text is the figures.

    Args:
        reason: Why.
        retry_after: In how many seconds enough will have left the window, as things stand; None: never.
        wanted: How much was asked for; None if that was not known.
        used: How much is spent or reserved.
        limit: Of how much.
        window: In how many seconds.
    """

    reason: Reason
    retry_after: float | None
    wanted: float | None
    used: float
    limit: float
    window: float

    def __str__(self) -> str:
        wanted = f"{self.wanted:g} wanted, " if self.wanted is not None else ""
        return f"{wanted}{self.used:g} of {self.limit:g} spent or reserved in {self.window:g} s"


@final
class Spending:
    """
    What one call reserved of the money. Settle it, refund it, or leave it: then what was reserved counts as spent.

    Attributes:
        amount: How much was reserved.
    """

    __slots__ = ("_limit", "_live", "_slot", "_spend", "amount")

    amount: float

    def __init__(self, limit: CostLimit, spend: Spend | None, slot: int, amount: float) -> None:
        self._limit = limit
        self._spend = spend
        self._slot = slot
        self._live = spend is not None
        self.amount = amount

    def settle(self, amount: float | None = None) -> None:
        """
        Replace what was reserved by what the call really cost. Only the first `settle` or `refund` counts.

        Args:
            amount: What it cost. None: as reserved.

        Raises:
            ValueError: *amount* is negative or not finite.
        """
        actual = self.amount if amount is None else checked(amount)
        limit = self._limit
        with limit.lock:
            if self._live and self._spend is not None:
                self._live = False
                self._spend.settle(limit._clock(), self._slot, self.amount, actual)

    def refund(self) -> None:
        """Give everything back, because the call never left. Only the first `settle` or `refund` counts."""
        self.settle(0.0)

    def __repr__(self) -> str:
        return f"<Spending {self.amount:g}, {'live' if self._live else 'done'}>"


@final
class CostLimit:
    """
    Lets so much money be spent in a sliding window.

    ::

        spending = limit.reserve(0.02)
        reply = await client.ask(...)
        spending.settle(price_of(reply))

    What is reserved in any window adds up to no more than the limit, at its actual price once that is known. Only what
    turns out dearer than reserved can exceed it; then nothing more passes until there is room. Money leaves the window
    up to a sixtieth of its length late, never early.

    Args:
        settings: How much, and in what time.
        name: What it protects; it stands in errors and events. Default: ``"cost"``.
        clock: A monotonic clock in seconds. Default: `time.monotonic`.
        wall_clock: Seconds since the Unix epoch, for events. Default: `time.time`.
        rng: Draws which refusals hold, where not all of them do. Default: a fresh `random.Random`.
        bus: Where to tell events. Default: a bus of its own below the process-wide one.

    Raises:
        ConfigurationError: *settings* are not `CostSettings`, or *name* is not a string.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_rng",
        "_spend",
        "_wall_clock",
        "bus",
        "lock",
        "name",
        "rejected",
        "settings",
    )

    bus: EventBus
    name: str
    rejected: int
    settings: CostSettings

    def __init__(
        self,
        settings: CostSettings,
        *,
        name: str = "cost",
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        bus: EventBus | None = None,
    ) -> None:
        checked_input("a cost limit", name, settings, CostSettings)
        self.name = name
        self.settings = settings
        self.bus = bus if bus is not None else EventBus(process_bus)
        self.lock: AbstractContextManager[Any] = threading.RLock()
        self.rejected = 0
        self._clock = clock
        self._wall_clock = wall_clock
        self._rng = rng if rng is not None else random.Random()
        self._spend = Spend(settings.limit, settings.window) if settings.limit is not None else None
        survives(self)

    def adopt(self, settings: CostSettings) -> None:
        """
        Work by other *settings* from now on. What is spent stays spent, and what is reserved settles as before.

        What was spent while there was no limit is not known.

        Raises:
            ConfigurationError: *settings* are not `CostSettings`.
        """
        checked_input("a cost limit", self.name, settings, CostSettings)
        with self.lock:
            self.settings = settings
            if settings.limit is None:
                self._spend = None
            elif self._spend is None:
                self._spend = Spend(settings.limit, settings.window)
            else:
                self._spend = self._spend.adopt(self._clock(), settings.limit, settings.window)

    def try_reserve(self, amount: float | None = None) -> Spending | CostRefusal:
        """
        Reserve *amount*, or say why not.

        Args:
            amount: What the call may cost. Default: None, not known: it passes while there is anything left.

        Raises:
            ValueError: *amount* is negative or not finite.
        """
        reserved = checked(amount) if amount is not None else 0.0
        spend = self._spend
        if spend is None or self.settings.mode == "disabled":
            return Spending(self, None, 0, reserved)
        with self.lock:
            now = self._clock()
            wait, slot = spend.reserve(now, amount)
            if not wait:
                return Spending(self, spend, slot, reserved)
            used = spend.used(now)
            spared = self.settings.mode == "shadow" or not by_lot(self.settings.enforced, self._rng)
            self.rejected += not spared
        if spared:  # who would have been refused spends nothing, as if it were not there
            event = CallWouldBeRejected(provider=self.name, time=self._wall_clock(), reason=Reason.COST_EXHAUSTED)
            self.bus.emit(event)
            return Spending(self, None, slot, reserved)
        after = wait if wait < inf else None
        return CostRefusal(Reason.COST_EXHAUSTED, after, amount, used, spend.limit, spend.window)

    def outlook(self, amount: float | None = None) -> CostRefusal | None:
        """Return why `reserve` would surely refuse a call at this moment, None if it might not; takes nothing."""
        if self.settings.mode != "enforce" or self.settings.enforced < 1:
            return None
        with self.lock:
            rejected = self.rejected
            answer = self.try_reserve(amount)
            self.rejected = rejected  # nobody was
            if isinstance(answer, CostRefusal):
                return answer
            answer.refund()
        return None

    def reserve(self, amount: float | None = None) -> Spending:
        """
        Reserve *amount*.

        Args:
            amount: What the call may cost. Default: None, not known: it passes while there is anything left.

        Raises:
            CostLimitReached: There is not so much left.
            ValueError: *amount* is negative or not finite.
        """
        answer = self.try_reserve(amount)
        if isinstance(answer, CostRefusal):
            raise self.refused(answer)
        return answer

    def refused(self, refusal: CostRefusal) -> CostLimitReached:
        """Return the exception that tells of *refusal*."""
        return CostLimitReached(self.name, refusal.reason, refusal.retry_after, refusal)

    def snapshot(self) -> CostLimitSnapshot:
        """Return the figures as they are now."""
        with self.lock:
            return CostLimitSnapshot(
                name=self.name,
                mode=self.settings.mode,
                limit=self.settings.limit,
                window=self.settings.window,
                used=self._spend.used(self._clock()) if self._spend is not None else 0.0,
                rejected=self.rejected,
            )

    def __repr__(self) -> str:
        now = self.snapshot()
        mode = f" {now.mode.upper()}" if now.mode != "enforce" else ""
        figures = f"{now.used:g} of {now.limit:g} in {now.window:g} s" if now.limit is not None else "no limit"
        return f"<CostLimit {self.name!r}{mode} {figures}>"

    def start_anew(self) -> None:
        """Forget what was spent: in a forked child, none of it happened."""
        if self._spend is not None:
            self._spend = Spend(self._spend.limit, self._spend.window)
        self.rejected = 0
