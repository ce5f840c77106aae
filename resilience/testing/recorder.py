"""A listener that remembers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeVar, cast, final

import anyio

from resilience.events import CircuitChanged, Event, GateClosed, RetryScheduled
from resilience.policies._waiter import Waiter

_E = TypeVar("_E", bound=Event)

_PATIENCE = 10.0


@final
class EventRecorder:
    """
    Keeps every event it is told of, in order.

    ::

        events = EventRecorder()
        provider.subscribe(events)
        with Faults.script(["error", "ok"]).inject(provider):
            await provider.execute(fetch)
        assert events.kinds == ["AttemptFailed", "RetryScheduled", "CallRecovered"]
        assert events.only(RetryScheduled).attempt == 2
        assert not events.transitions

    Attributes:
        events: The events themselves.
    """

    __slots__ = ("_waiting", "events")

    events: list[Event]

    def __init__(self) -> None:
        self.events = []
        self._waiting: list[tuple[type[Event], Waiter]] = []

    def __call__(self, event: Event) -> None:
        """Remember *event*."""
        self.events.append(event)
        for kind, waiter in tuple(self._waiting):
            if isinstance(event, kind):
                waiter.wake()

    # -- asking ----------------------------------------------------------------------------------------------------

    def of(self, kind: type[_E]) -> list[_E]:
        """The events of one *kind*, subclasses included, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    def last(self, kind: type[_E]) -> _E:
        """
        The last event of one *kind*.

        Raises:
            LookupError: There is none; the message tells what there is.
        """
        return self._some(kind)[-1]

    def only(self, kind: type[_E]) -> _E:
        """
        The one event of its *kind*.

        Raises:
            LookupError: There is none, or more than one; the message tells what there is.
        """
        found = self._some(kind)
        if len(found) > 1:
            raise LookupError(f"{len(found)} times {kind.__name__} instead of once: {found!r}")
        return found[0]

    @property
    def kinds(self) -> list[str]:
        """What the events are called, in order: ``["RetryScheduled", "CallRecovered"]``."""
        return [type(event).__name__ for event in self.events]

    @property
    def transitions(self) -> list[CircuitChanged]:
        """The state changes of circuit breakers, in order."""
        return self.of(CircuitChanged)

    @property
    def retries(self) -> list[RetryScheduled]:
        """The retries that were scheduled, in order."""
        return self.of(RetryScheduled)

    @property
    def pauses(self) -> list[GateClosed]:
        """The pauses that providers asked for, in order."""
        return self.of(GateClosed)

    # -- waiting ---------------------------------------------------------------------------------------------------

    async def wait_for(self, kind: type[_E], *, count: int = 1, timeout: float | None = _PATIENCE) -> _E:
        """
        Wait until there are *count* events of one *kind*, those so far included, and return the last of these.

        Args:
            kind: The class of the events.
            count: How many there have to be. Default: 1.
            timeout: For how many seconds to wait. Default: 10. None: for ever.

        Raises:
            TimeoutError: They did not come; the message tells what did.
            ValueError: *count* is not at least 1.
        """
        if count < 1:
            raise ValueError(f"count={count!r}: expected 1 or more")
        seconds = math.inf if timeout is None else timeout
        with anyio.move_on_after(seconds):
            while not await self._came(kind, count):
                pass
        found = self.of(kind)
        if len(found) < count:
            came = f"{len(found)} of {count} {kind.__name__} came within {seconds:g} s"
            raise TimeoutError(f"{came}: {self!r}")
        return found[count - 1]

    async def _came(self, kind: type[Event], count: int) -> bool:
        """Whether there are enough; if not, return when there is one more."""
        entry = (kind, Waiter())
        self._waiting.append(entry)  # before looking: another thread may be about to tell
        try:
            if len(self.of(kind)) >= count:
                return True
            await entry[1].wait(math.inf)
            return False
        finally:
            self._waiting.remove(entry)

    # -- the rest --------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget everything so far."""
        self.events.clear()

    def _some(self, kind: type[_E]) -> list[_E]:
        found = self.of(kind)
        if not found:
            raise LookupError(f"no {kind.__name__} so far: {self!r}")
        return found

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __contains__(self, thing: Any) -> bool:
        """Whether an event, or one of a kind, was recorded: ``CallRecovered in events``."""
        return bool(self.of(cast("type[Event]", thing))) if isinstance(thing, type) else thing in self.events

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}: {count}" for name, count in Counter(self.kinds).items())
        return f"<EventRecorder [{counts or 'no events'}]>"
