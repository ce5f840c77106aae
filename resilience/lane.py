"""
The live attempts of one provider on one event loop, and the one timer that watches over all of them.

Attempts with the same limit expire in the order in which they began, so an ordered dict and a single loop timer
serve any number of them: beginning an attempt is one dict entry, ending it removes the entry, and only the timer
looks at the head. The dict is also the number of calls in flight, and its head the oldest one, both for free.

======================  ===========================================================================================
value of an entry       meaning
======================  ===========================================================================================
a time                  the attempt began then; the entry belongs to whoever put it there, who alone removes it
`LATE`                  its limit has passed and the timer has cancelled its task, once
======================  ===========================================================================================

The key is the task itself on the fast path. Where a task already has an entry (a nested call of the same provider)
or where the attempt needs a limit of its own, the key is an `Entry`. On trio, whose own scopes interrupt, every key is
one, and as there is no timer, the next caller looks at what hangs.

Whose cancellation was it? The protocol of `asyncio.Timeout`: remember ``task.cancelling()`` before; afterwards, if the
timer marked the entry late, ``task.uncancel()`` must come back to no more than before. Then it was ours alone and
becomes a `CallTimeout`; otherwise the caller wanted it too, and it stays a cancellation.
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, final
from weakref import WeakKeyDictionary, WeakSet

from resilience._core.states import Period

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task, TimerHandle

LATE: Final = -math.inf
"""What stands in place of a start time once the attempt was cancelled for being late."""

# The loop may run a timer up to its own resolution early; `asyncio.timeout` works within the same slack.
SLACK: Final = 1e-9

# Attempts that cross the line to "slow" are noticed in steps of this share of the line, so that a storm of hanging
# calls costs a few scans and not one scan a call.
_SLOW_STEP: Final = 0.05

# An interrupted attempt that has not ended after this many seconds is reported as overdue.
_GRACE: Final = 1.0

# `asyncio.current_task` is Python code before 3.12 and costs as much as everything else here together. Its C
# replacement takes the same argument and gives the same answer: the task that *loop* is running, or None.
task_of: Callable[[AbstractEventLoop], Task[Any] | None]
if sys.version_info >= (3, 12):
    task_of = asyncio.current_task
else:
    task_of = cast("Any", asyncio.tasks)._current_tasks.get

get_ident: Callable[[], int] = threading.get_ident

_lanes: WeakKeyDictionary[AbstractEventLoop, WeakSet[Lane]] = WeakKeyDictionary()


class Watcher(Protocol):
    """What a lane tells its provider's runtime."""

    def hanging(self, count: int, now: float) -> None:
        """*count* attempts are slow already and still running."""

    def overdue(self, seconds: float) -> None:
        """An attempt has ignored its cancellation for *seconds*."""


def lanes_on(loop: AbstractEventLoop | None) -> list[Lane]:
    """Return the lanes of all providers on *loop*: asked only before somebody sleeps."""
    return list(_lanes.get(loop, ())) if loop is not None else []


@final
class Entry:
    """
    A key for an attempt that cannot use its task as the key.

    Args:
        task: The task on asyncio, None on trio.
        limit: How long the attempt may last, in seconds.
        slow_after: From what age on it is slow, in seconds.
    """

    __slots__ = ("limit", "scope", "slow_after", "task")

    limit: float
    scope: Any  # what interrupts it on trio
    slow_after: float
    task: Task[Any] | None

    def __init__(self, task: Task[Any] | None, *, limit: float, slow_after: float) -> None:
        self.task = task
        self.scope = None
        self.limit = limit
        self.slow_after = slow_after


@final
class Lane:
    """
    One provider's attempts on one event loop, for one length of attempt.

    A lane is used by its loop's thread alone. Other threads only read it, and set *door*, *passage* and *turn_at*,
    copies of what the circuit says, kept here because the fast path reads them on every call. The passage is what a
    call that is under way compares itself with; the door is the same, or shut where *admit* has a word in who enters.
    Where calls are *metered*, they tell how long they took.

    Args:
        watcher: Whom to tell of hanging and overdue attempts.
        loop: The asyncio loop; None on any other, where attempts are only counted.
        clock: The provider's monotonic clock.
        limit: How long each attempt may last, in seconds.
        slow_after: From what age on an attempt is slow, in seconds.
    """

    __slots__ = (
        "__weakref__",
        "_cut_off",
        "_idle",
        "_late",
        "_look_at",
        "_slow_due",
        "admit",
        "clock",
        "cut",
        "door",
        "edition",
        "entries",
        "home",
        "host",
        "limit",
        "live",
        "loop",
        "metered",
        "passage",
        "retired",
        "seen",
        "slow_after",
        "successes",
        "thread",
        "timer",
        "turn_at",
    )

    admit: Callable[[Lane, float], Period | None]  # there where there are limits
    clock: Callable[[], float]
    cut: float | None  # of the attempt that ended last, if it was late: the grace it had before it was cut off
    edition: Any  # which version of the settings its attempts began under; known above
    entries: int
    home: Any  # how other threads reach a trio run; an asyncio loop is reached by itself
    host: Any  # the watcher; known above as the provider's runtime
    limit: float
    metered: bool
    retired: bool  # it only sees the attempts of calls that began there end
    seen: int
    slow_after: float
    successes: int
    thread: int
    turn_at: float

    def __init__(
        self,
        watcher: Watcher,
        loop: AbstractEventLoop | None,
        clock: Callable[[], float],
        *,
        limit: float,
        slow_after: float,
    ) -> None:
        self.door: Period | None = None
        self.passage: Period | None = None
        self.turn_at = -math.inf
        self.thread = get_ident()
        self.loop: Any = loop  # Any: the fast path compares it before it uses it
        self.clock = clock
        self.limit = limit
        self.slow_after = slow_after
        self.live: dict[Task[Any] | Entry, float] = {}
        self.entries = 0
        self.successes = 0
        self.metered = False
        self.edition = None
        self.retired = False
        self.seen = 0
        self._idle = None if loop is not None and min(limit, slow_after) < math.inf else True
        self.timer: TimerHandle | bool | None = self._idle  # None: the next attempt has to arm it
        self.host = watcher
        self._late: dict[Task[Any] | Entry, float] = {}
        self._cut_off: dict[Task[Any] | Entry, float] | None = None
        self.cut = None
        self.home = None
        self._slow_due = math.inf
        self._look_at = -math.inf
        if loop is not None:
            _lanes.setdefault(loop, WeakSet()).add(self)

    # -- entries ---------------------------------------------------------------------------------------------------

    def begin(self, key: Task[Any] | Entry, began: float) -> None:
        """Enter an attempt that begins at *began*; the fast path does the same by hand."""
        self.live[key] = began
        self.entries += isinstance(key, Entry)
        if self.timer is None:
            self.arm(began)
        if self.retired:  # while its call waited or slept: whoever looks for what is under way has to find it
            self.host.resumed(self)

    def end(self, key: Task[Any] | Entry) -> bool:
        """Remove an attempt; return whether it was late."""
        self.entries -= isinstance(key, Entry)
        if self.live.pop(key) != LATE:
            return False
        self.forget_late(key)
        return True

    def forget_late(self, key: Task[Any] | Entry) -> None:
        """Drop what was kept of a late attempt that its owner has taken out."""
        self._late.pop(key, None)
        self.cut = self._cut_off.pop(key, None) if self._cut_off is not None else None

    def interrupt(self, entry: Entry, now: float) -> None:
        """Cancel the task of an attempt whose own limit has passed."""
        self._mark_late(entry, now)
        self._look_soon()

    def cut_off(self, grace: float) -> None:
        """Interrupt all attempts: no more are wanted, and *grace* seconds were not enough for these."""
        now, self._cut_off = self.clock(), {}
        for key, began in list(self.live.items()):
            scope = key.scope if isinstance(key, Entry) else None
            if began != LATE and not (scope is not None and scope.cancel_called):
                self._cut_off[key] = grace
                self._mark_late(key, now)
        if self.loop is not None and self._late:
            self._look_soon()

    def _look_soon(self) -> None:
        """See to it that the timer looks at what has just been interrupted."""
        if self.timer is None or isinstance(self.timer, bool):
            self._schedule(_GRACE)
        elif self.timer.when() > self.loop.time() + _GRACE:
            # One that is due sooner stays: it may be part of this very tick, and would be late for it.
            self.timer.cancel()
            self._schedule(_GRACE)

    @property
    def uncounted(self) -> int:
        """How many attempts are running that came by the fast path, where no limit counts them."""
        return len(self.live) - self.entries

    def in_flight(self) -> int:
        """Return how many attempts are running."""
        return len(self.live)

    def count_hanging(self, now: float) -> int:
        """Return how many running attempts are slow already."""
        return sum(due <= now + SLACK for due in self._slow_dues())

    def _slow_dues(self) -> list[float]:
        """Return when each running attempt becomes slow, or became so."""
        # A list of the items is one step that no other thread can divide.
        return [
            began + (max(self.slow_after, key.slow_after) if isinstance(key, Entry) else self.slow_after)
            for key, began in list(self.live.items())
        ]

    # -- the timer -------------------------------------------------------------------------------------------------

    def arm(self, now: float) -> None:
        """Start the timer for the first attempt. While anything is in flight a timer is always running."""
        self._slow_due = now + self.slow_after
        self._schedule(min(self.limit, self.slow_after))

    def _schedule(self, seconds: float) -> None:
        self.timer = self.loop.call_later(max(0.0, seconds), self._wake)

    def _wake(self) -> None:
        """Cancel what is late, report what hangs, and sleep until the next thing can be due."""
        now = self.clock()
        try:
            self._expire(now)
            self._report_overdue(now)
            if now >= self._slow_due - SLACK:
                self._report_hanging(now)
        finally:
            self._sleep(now)

    def _sleep(self, now: float) -> None:
        """Set the timer for the next thing that can be due, if anything is in flight."""
        self.timer = self._idle
        if self.live and (due := self._next_due()) < math.inf:
            self._schedule(due - now)

    def _shares_timer(self, key: Task[Any] | Entry) -> bool:
        return not isinstance(key, Entry) or key.limit == self.limit

    def _expire(self, now: float) -> None:
        # Cancelling runs foreign code, which may enter and end attempts: collect first.
        line = now - self.limit + SLACK
        expired: list[Task[Any] | Entry] = []
        for key, began in self.live.items():
            if began > line:
                break
            if began != LATE and self._shares_timer(key):
                expired.append(key)
        for key in expired:
            self._mark_late(key, now)

    def _mark_late(self, key: Task[Any] | Entry, now: float) -> None:
        if self.live.get(key, LATE) == LATE:
            return
        self.live[key] = LATE
        self._late[key] = now
        target: Any = (key.task or key.scope) if isinstance(key, Entry) else key
        target.cancel()

    def _report_overdue(self, now: float) -> None:
        overdue = [key for key, since in self._late.items() if now - since >= _GRACE - SLACK]
        for key in overdue:
            self.host.overdue(now - self._late.pop(key))

    def _report_hanging(self, now: float) -> None:
        dues = self._slow_dues()
        hanging = sum(due <= now + SLACK for due in dues)
        crossing = min([due for due in dues if due > now + SLACK] + [now + self.slow_after])
        self._slow_due = max(crossing, now + self.slow_after * _SLOW_STEP)
        if hanging:
            self.host.hanging(hanging, now)

    def _next_due(self) -> float:
        """Return when the timer has something to do, while something is in flight."""
        due = self._slow_due
        for key, began in self.live.items():
            if began != LATE and self._shares_timer(key):
                due = min(due, began + self.limit)
                break
        for since in self._late.values():
            due = min(due, since + _GRACE)
            break
        return due

    # -- without a timer -------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Report what is overdue and what hangs where no timer does: on trio the next caller asks for it."""
        if now < self._look_at or not self.live:
            return
        self._look_at = now + min(_GRACE, self.slow_after * _SLOW_STEP)
        if self.thread == get_ident():
            self._find_overdue(now)
        hanging = self.count_hanging(now)
        if hanging:
            self.host.hanging(hanging, now)

    def _find_overdue(self, now: float) -> None:
        for key, began in list(self.live.items()):
            overdue = now - began - key.limit if isinstance(key, Entry) and began != LATE else 0.0
            if overdue >= _GRACE - SLACK:
                self.live[key] = LATE
                self.host.overdue(overdue)


@final
class _Nobody:
    """Watches over the lane that no attempt ever enters."""

    def hanging(self, count: int, now: float) -> None:
        """Nothing hangs there."""

    def overdue(self, seconds: float) -> None:
        """Nothing is overdue there."""


NO_LANE = Lane(_Nobody(), None, lambda: 0.0, limit=math.inf, slow_after=math.inf)
"""The lane of a handle that has not met its loop yet: its door is always shut, so the first call looks closer."""
