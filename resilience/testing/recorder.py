"""A listener that remembers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar, final

from resilience.events import CircuitChanged, Event, GateClosed, RetryScheduled

_E = TypeVar("_E", bound=Event)


@final
class EventRecorder:
    """
    Keeps every event it is told of, in order.

    ::

        events = EventRecorder()
        provider.subscribe(events)
        ...
        assert [change.after for change in events.transitions] == ["open"]
    """

    __slots__ = ("events",)

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        """Remember *event*."""
        self.events.append(event)

    def of(self, kind: type[_E]) -> list[_E]:
        """The events of one *kind*, subclasses included, in order."""
        return [event for event in self.events if isinstance(event, kind)]

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

    def clear(self) -> None:
        """Forget everything so far."""
        self.events.clear()

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __repr__(self) -> str:
        counts: dict[str, int] = {}
        for event in self.events:
            counts[type(event).__name__] = counts.get(type(event).__name__, 0) + 1
        return f"<EventRecorder [{', '.join(f'{name}: {count}' for name, count in counts.items()) or 'no events'}]>"
