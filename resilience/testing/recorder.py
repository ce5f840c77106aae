"""A listener that remembers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar, final

from resilience.events import Event

_E = TypeVar("_E", bound=Event)


@final
class EventRecorder:
    """
    Keeps every event it is told of, in order.

    ::

        events = EventRecorder()
        provider.subscribe(events)
        ...
        assert [change.after for change in events.of(CircuitChanged)] == ["open"]
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
