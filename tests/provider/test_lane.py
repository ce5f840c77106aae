"""A lane on its own: what its timer does to attempts that end, or belong elsewhere, while it looks."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from typing import Any

from resilience.lane import Entry, Lane
from resilience.testing import run


class Watching:
    """Keeps what a lane reports."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.seconds: list[float] = []

    def hanging(self, count: int, now: float) -> None:
        self.counts.append(count)

    def overdue(self, seconds: float) -> None:
        self.seconds.append(seconds)


class Cancellable:
    """A task as far as a lane knows one."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.cancelled = 0
        self.then = then

    def cancel(self) -> None:
        self.cancelled += 1
        self.then()


def test_an_attempt_that_ends_while_others_are_cancelled() -> None:
    """Cancelling one late attempt may end another one; that one is not cancelled any more."""

    async def scenario() -> tuple[int, int, int]:
        loop = asyncio.get_running_loop()
        lane = Lane(Watching(), loop, loop.time, limit=1.0, slow_after=math.inf)
        second: Any = Cancellable()
        later = Entry(second, limit=1.0, slow_after=math.inf)
        first: Any = Cancellable(lambda: lane.end(later))
        lane.begin(Entry(first, limit=1.0, slow_after=math.inf), loop.time())
        lane.begin(later, loop.time())
        await asyncio.sleep(2)
        return first.cancelled, second.cancelled, lane.in_flight()

    assert run(scenario) == (1, 0, 1)


def test_a_lane_of_another_thread() -> None:
    """Any thread may notice that another's attempts hang; only its own thread marks them as overdue."""
    now = 0.0
    watching = Watching()
    lane = Lane(watching, None, lambda: now, limit=1.0, slow_after=1.0)
    lane.begin(Entry(None, limit=1.0, slow_after=1.0), now)
    now = 10.0
    elsewhere = threading.Thread(target=lane.look, args=(now,))
    elsewhere.start()
    elsewhere.join()
    assert (watching.counts, watching.seconds) == ([1], [])
    lane.look(now + 10)
    assert (watching.counts, watching.seconds) == ([1, 1], [19.0])
