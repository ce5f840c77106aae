"""
What all endpoints of one provider have in common: the gate, the retry budget, and the lock around every decision.

An endpoint has a breaker and a window of its own, but a provider that asks for a pause means all of them, and extra
load from retries adds up wherever it goes.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias, final

from resilience._core.budget import Charge, RetryBudget
from resilience._core.gate import Gate
from resilience.events import EventBus
from resilience.life import Life
from resilience.settings import ProviderSettings

Clock: TypeAlias = Callable[[], float]


_WORTH_TELLING = 1.0  # seconds


@final
class Tools:
    """What a runtime gets from its registry: clocks, randomness, the bus above it, its life, its neighbours."""

    __slots__ = ("bus", "clock", "life", "neighbour", "rng", "wall_clock")

    bus: EventBus
    clock: Clock
    life: Life
    neighbour: Callable[[str], Any]  # what it returns, a handle, stands above us
    rng: random.Random
    wall_clock: Clock

    def __init__(
        self,
        *,
        clock: Clock,
        wall_clock: Clock,
        rng: random.Random,
        bus: EventBus,
        neighbour: Callable[[str], Any],
    ) -> None:
        self.clock = clock
        self.wall_clock = wall_clock
        self.rng = rng
        self.bus = bus
        self.life = Life()
        self.neighbour = neighbour


class Member(Protocol):
    """An endpoint's runtime, as far as the common part knows it."""

    def absorb(self) -> None:
        """Add up what the lanes have counted for themselves. Called under the lock."""

    def refresh(self) -> None:
        """Copy the state of the gate and the circuit into the lanes. Called under the lock."""

    @property
    def successes(self) -> int:
        """How many attempts have succeeded."""
        ...


@final
class Common:
    """
    The gate and the retry budget of one provider.

    Args:
        settings: What holds for the provider.
        tools: Clocks and randomness.
        twin: The other arm's, if this is for one arm of an experiment: the provider's gate is the same for both, and so
            is the lock. Default: None.
    """

    __slots__ = ("_circle", "_refunds", "_settings", "_tools", "_twin", "budget", "calls", "gate", "lock", "members")

    budget: RetryBudget
    calls: int
    gate: Gate
    lock: AbstractContextManager[object]

    def __init__(self, settings: ProviderSettings, tools: Tools, *, twin: Common | None = None) -> None:
        self.members: list[Member] = []
        self._settings = settings
        self._tools = tools
        self._twin = twin
        self._circle: tuple[Common, ...] = (self,)  # whose members the gate is for
        if twin is not None:
            twin._circle = self._circle = (*twin._circle, self)
        self.start_anew()

    def leave_circle(self) -> None:
        """Go by the other arm's gate no longer: nobody is left here who does."""
        circle = tuple(common for common in self._circle if common is not self)
        for common in circle:
            common._circle = circle

    @property
    def is_second(self) -> bool:
        """Whether it goes by another's gate and lock."""
        return self._twin is not None

    def start_anew(self) -> None:
        """Open the gate and forget every call."""
        gate, budget = self._settings.gate, self._settings.budget
        if self._twin is None:
            # Reentrant: the collector may close an abandoned call in the middle of a decision about another one.
            self.lock = threading.RLock()
            self.gate = Gate(gate.base_delay, gate.hint_cap)
        else:
            self.lock, self.gate = self._twin.lock, self._twin.gate
        self.budget = RetryBudget(budget.ratio, budget.window, budget.floor_per_second, budget.floor_burst)
        self.calls = 0
        self._refunds: list[Charge] = []

    def adopt(self, settings: ProviderSettings) -> None:
        """Go on by other *settings* with what is closed and spent. Called under the lock."""
        self._settings = settings
        self._absorb()
        gate, budget = settings.gate, settings.budget
        if self._twin is None:
            self.gate.adopt(gate.base_delay, gate.hint_cap)
        self.budget.adopt(
            self._tools.clock(),
            self.calls,
            ratio=budget.ratio,
            window=budget.window,
            floor_per_second=budget.floor_per_second,
            floor_burst=budget.floor_burst,
        )

    def count_call(self) -> None:
        """Count a call that no lane counts for itself."""
        now = self._tools.clock()
        with self.lock:
            if now >= self.budget.turn_at:
                self._absorb()
                self.budget.turn(now, self.calls)
            self.calls += 1

    # -- the gate --------------------------------------------------------------------------------------------------

    def gate_left(self, now: float) -> float:
        """Return in how many seconds the gate opens; 0 when it is open."""
        return self.gate.remaining(now)

    def gate_wait(self, now: float) -> float:
        """Return how long one caller should wait for the gate, with its own spread; 0 when it is open."""
        with self.lock:
            wait = self.gate.wait(now, self._tools.rng)
            if not wait and self.gate_was_closed:
                self.gate.until = self.gate.since  # its time is over: open the doors again
                self._refresh()
            return wait

    @property
    def gate_was_closed(self) -> bool:
        """Whether the gate is closed, or nobody has noticed yet that it opened."""
        return self.gate.until > self.gate.since

    def close_gate(self, now: float, hint: float | None) -> float | None:
        """Close the gate for *hint* seconds, or for a growing back-off; return for how long if that is news."""
        with self.lock:
            self._absorb()
            before = self.gate.until
            seconds = self.gate.close(now, hint, sum(member.successes for member in self._everybody))
            self._refresh()
            # A burst of refusals is one pause: only one that begins, or grows by something worth telling, is news.
            return seconds if now >= before or self.gate.until - before >= _WORTH_TELLING else None

    # -- the retry budget ------------------------------------------------------------------------------------------

    def charge(self, now: float) -> Charge | None:
        """Pay for a retry that is about to be scheduled; None if the budget is spent."""
        with self.lock:
            self._absorb()
            self._take_refunds(now)
            charge = self.budget.try_spend(now, self.calls)
            self._refresh()
            return charge

    def refund(self, charge: Charge) -> None:
        """
        Give back what was paid for a retry that never left.

        Takes no lock, because it may run while an abandoned iteration is being collected: whoever asks next does it.
        """
        self._refunds.append(charge)

    def retries_available(self, now: float) -> float:
        """Return how many retries the budget allows at this moment."""
        with self.lock:
            self._absorb()
            self._take_refunds(now)
            return self.budget.available(now, self.calls)

    def _take_refunds(self, now: float) -> None:
        while self._refunds:
            self.budget.refund(self._refunds.pop(), now)

    @property
    def _everybody(self) -> list[Member]:
        return [member for common in self._circle for member in common.members]

    def _absorb(self) -> None:
        for member in self._everybody:
            member.absorb()

    def _refresh(self) -> None:
        for member in self._everybody:
            member.refresh()
