"""All lanes of one provider: one for each event loop and length of attempt."""

from __future__ import annotations

from asyncio import _get_running_loop
from collections.abc import Callable
from typing import TypeAlias, final

from resilience.lane import Lane, get_ident

Key: TypeAlias = tuple[object, float]


@final
class Lanes:
    """
    The lanes of one provider, by event loop (or thread, where the loop is not asyncio's) and limit.

    Who looks at them gets a list, which is one step that no other thread can divide.
    """

    __slots__ = ("_by_key", "_old")

    def __init__(self) -> None:
        self._by_key: dict[Key, Lane] = {}
        self._old: tuple[Lane, ...] = ()

    def __len__(self) -> int:
        return len(self._by_key) + len(self._old)

    def values(self) -> list[Lane]:
        """Return them all, as they are at this moment."""
        return [*self._by_key.values(), *self._old]

    def get(self, key: Key) -> Lane | None:
        """Return the one of *key*, if there is one."""
        return self._by_key.get(key)

    def add(self, key: Key, make: Callable[[], Lane]) -> Lane:
        """Return the one of *key*, made if need be; forget those whose loops are closed. Called under the lock."""
        closed = [key for key, lane in self._by_key.items() if lane.loop is not None and lane.loop.is_closed()]
        for old in closed:
            del self._by_key[old]
        lane = self._by_key.get(key)
        if lane is None:
            lane = self._by_key[key] = make()
        return lane

    def retire(self) -> None:
        """Let the attempts that are running end where they are, and every other find a new lane. Under the lock."""
        for lane in self.values():
            lane.door = lane.passage = None  # handles that know it look closer
            lane.retired = True
        self._old = tuple(lane for lane in self.values() if _is_needed(lane))
        self._by_key = {}

    def resume(self, lane: Lane) -> None:
        """Know a retired lane again: a call that began there makes another attempt. Called under the lock."""
        if lane not in self._old:
            self._old = (*self._old, lane)

    @property
    def may_forget(self) -> bool:
        """Whether there are old lanes whose last attempt has ended."""
        return not all(_is_needed(lane) for lane in self._old)

    def forget_empty(self) -> None:
        """Forget the old lanes whose last attempt has ended. Called under the lock, with all successes taken."""
        self._old = tuple(lane for lane in self._old if _is_needed(lane))

    def take_successes(self) -> int:
        """Return how many attempts have succeeded since this was last asked. Called under the lock."""
        taken = 0
        for lane in self.values():
            counted = lane.successes
            taken += counted - lane.seen
            lane.seen = counted
        return taken

    @property
    def in_flight(self) -> int:
        """How many attempts are running."""
        return sum(lane.in_flight() for lane in self.values())

    @property
    def uncounted(self) -> int:
        """How many attempts are running that came by the fast path, where no limit counts them."""
        return sum(lane.uncounted for lane in self.values())

    def count_hanging(self, now: float) -> int:
        """Return how many running attempts are slow already."""
        return sum(lane.count_hanging(now) for lane in self.values())


def _is_needed(lane: Lane) -> bool:
    """Whether attempts run in an old lane or, as only its own thread can tell, are just beginning or ending there."""
    if lane.loop is None:
        return bool(lane.live)
    return not lane.loop.is_closed() and (bool(lane.live) or not _is_here(lane))


def _is_here(lane: Lane) -> bool:
    return lane.thread == get_ident() or lane.loop is _get_running_loop()
