"""
The places of a bulkhead, and who gets one: all that is decided under its lock.

A place that gets free is handed to the next in line in the same step, so nobody can slip in between.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import Enum
from types import TracebackType
from typing import Any, Self, final

from resilience._core.queue import Line, Spot
from resilience._core.words import Priority, Reason
from resilience.events import CallWouldBeRejected, Event
from resilience.policies._bulkhead import BulkheadRefusal
from resilience.policies._waiter import Waiter
from resilience.settings import BulkheadSettings


class State(Enum):
    """Where a place stands."""

    TAKEN = "taken"
    WAITING = "waiting"  # in the line; in shadow mode the call runs all the same
    REFUSED = "refused"  # put out of the line; in shadow mode the call runs all the same
    LEFT = "left"


@final
class Place:
    """
    One of the places of a bulkhead. Leave it once the attempt is over, or use it in a ``with`` statement.

    Leaving twice is harmless, and any thread may do it.
    """

    __slots__ = ("_host", "line", "spot", "state", "users", "waiter")

    line: Line[Place]
    spot: Spot[Place] | None
    state: State
    users: int  # how many attempts of one task share it
    waiter: Waiter | None

    def __init__(self, host: Places, line: Line[Place], state: State, waiter: Waiter | None = None) -> None:
        self._host = host
        self.line = line  # that of the time it was made: what came before a fork does not count after it
        self.state = state
        self.waiter = waiter
        self.spot = None
        self.users = 0

    def leave(self) -> None:
        """Give the place back."""
        self._host.leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()


class Places(ABC):
    """What a bulkhead keeps count of. Every method but `leave` is called under the lock."""

    __slots__ = (
        "__weakref__",
        "_clock",
        "_crowd",
        "_crowded",
        "_elsewhere",
        "_news",
        "_over",
        "_shadow",
        "granted",
        "limit",
        "line",
        "lock",
        "name",
        "settings",
    )

    granted: int
    """Places that are taken, not counting those *elsewhere*."""
    limit: int
    """How many places there are at present."""
    line: Line[Place]
    lock: AbstractContextManager[Any]
    name: str
    settings: BulkheadSettings
    _clock: Callable[[], float]
    _crowd: bool  # whether somebody waited, as far as the others know
    _crowded: Callable[[], None]
    _elsewhere: Callable[[], int]
    _news: tuple[Callable[[float], Event], ...]  # what to tell, once the lock is left
    _over: int  # calls that run although no place was free, in shadow mode
    _shadow: bool

    @abstractmethod
    def leave(self, place: Place) -> None:
        """Take *place* back and hand it on; the same as ``place.leave()``."""

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self.line)

    @property
    def in_use(self) -> int:
        """How many attempts run."""
        return self.granted + self._over + self._elsewhere()

    def _has_room(self, priority: Priority) -> bool:
        """Whether a newcomer of *priority* gets a place at once."""
        return self.granted + self._elsewhere() < self.limit and not self.line.blocks(priority)

    def _take(self, priority: Priority, now: float | None) -> Place | None:
        """Return a place that can be had at once; in shadow mode there always is one."""
        if self._has_room(priority):
            self.granted += 1
            return Place(self, self.line, State.TAKEN)
        if not self._shadow:
            return None
        return self._take_shadow(priority, self._clock() if now is None else now)

    def _line_up(self, place: Place, priority: Priority, now: float) -> Reason | None:
        """Let *place* wait, perhaps instead of another; return why if it cannot."""
        joined = self.line.join(place, priority, now)
        if isinstance(joined, Reason):
            return joined
        place.spot = joined.spot
        if joined.displaced is not None:
            self._shed(joined.displaced.waiter)
        return None

    def _vacate(self, place: Place) -> None:
        """Take *place* back, wherever it stands, and hand on what got free."""
        if self._shadow:
            self._give_up_shadows(self._clock())
        state, place.state = place.state, State.LEFT
        if state is State.TAKEN:
            self.granted -= 1
        else:
            if place.spot is not None:
                self.line.leave(place.spot)
            if place.waiter is None:
                self._over -= 1
        self._hand_on()

    def _hand_on(self) -> None:
        """Give what is free to those who wait, in their order."""
        while len(self.line) and self.granted + self._elsewhere() < self.limit and (place := self._next()) is not None:
            if place.waiter is None:
                self._over -= 1
            elif not place.waiter.wake():  # its loop is gone
                place.state = State.LEFT
                continue
            place.state = State.TAKEN
            self.granted += 1

    def _next(self) -> Place | None:
        now = self._clock()
        self._give_up_shadows(now)
        spot = self.line.pop(now)
        return spot.waiter if spot is not None else None

    def _shed(self, place: Place) -> None:
        place.state = State.REFUSED
        if place.waiter is not None:
            place.waiter.wake()
        else:
            self._spare(Reason.SHED)

    def _take_beyond(self, reason: Reason) -> Place:
        """Return a place beyond the limit, for a call that is admitted although it was refused for this *reason*."""
        self._over += 1
        self._spare(reason)
        return Place(self, self.line, State.REFUSED)

    def _refusal(self, reason: Reason, waited: float = 0.0) -> BulkheadRefusal:
        return BulkheadRefusal(reason, self.in_use, self.limit, len(self.line), self.line.size, waited)

    def _settle(self) -> tuple[Callable[[float], Event], ...]:
        """Let the others know whether somebody waits, and collect what is to be told."""
        crowd = len(self.line) > 0
        if crowd is not self._crowd:
            self._crowd = crowd
            self._crowded()
        news, self._news = self._news, ()
        return news

    def _note(self, event: Callable[[float], Event]) -> None:
        """Keep an event for when the lock is left."""
        self._news = (*self._news, event)

    def _switch(self, shadow: bool) -> None:
        """
        Begin or end shadow mode.

        Who waits runs from now on, and stays in the line for as long as it would have waited. Who runs and stands in
        the line leaves it: it runs on beyond the limit, and is not waited for.
        """
        self._shadow = shadow
        for spot in self.line.spots():
            place = spot.waiter
            if place.waiter is None:
                self.line.leave(spot)
                place.state = State.REFUSED
            elif place.waiter.wake():
                place.waiter = None
                self._over += 1
            else:  # its loop is gone
                self.line.leave(spot)
                place.state = State.LEFT

    # -- shadow mode: the line holds calls that run all the same, for as long as they would have waited --------------

    def _take_shadow(self, priority: Priority, now: float) -> Place:
        self._give_up_shadows(now)
        place = Place(self, self.line, State.WAITING)
        self._over += 1
        reason = self._line_up(place, priority, now)
        if reason is not None:
            place.state = State.REFUSED
            self._spare(reason)
        return place

    def _give_up_shadows(self, now: float) -> None:
        """Take those out of the line who would have waited for too long."""
        while self._shadow and (spot := self.line.pop_expired(now - self.settings.max_wait)) is not None:
            spot.waiter.state = State.REFUSED
            self._spare(Reason.BULKHEAD_TIMEOUT)

    def _spare(self, reason: Reason) -> None:
        name = self.name
        self._note(lambda time_: CallWouldBeRejected(provider=name, time=time_, reason=reason))
