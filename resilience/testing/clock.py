"""
asyncio on a virtual clock: an hour of sleeping takes milliseconds, and every run takes the same course.

The clock moves only when nothing else can: as soon as no callback is ready, it jumps to the next timer. Real
sockets cannot take part, because the clock would not wait for them; neither would it for a worker thread while
a timer is set.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import Context
from types import FrameType
from typing import TYPE_CHECKING, Final, TypeVarTuple, Unpack, final

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

_Ts = TypeVarTuple("_Ts")

_THREAD_GRACE: Final = 5.0
"""How many real seconds a worker thread may take to wake a loop that has nothing else to wait for."""

# asyncio runs a timer once it lies less than this in the past of what it calls now. After a hundred days the
# clock's floats are coarser than that: then it creeps on by one float a turn, or the timer would never be due.
_RESOLUTION: Final = 1e-9

# A loop that is always busy would stop the clock for good. Above all, anyio delivers a cancellation anew in every
# turn while a task does not let itself be cancelled, and such a task may well be waiting for time to pass. So
# after many turns in a row without a pause, turns take time: a little at first, then more and more, but never
# past the next timer. (A timer that is set anew in each turn may therefore be a tenth late.) A turn that only an
# unheeded cancellation keeps busy weighs as much as a thousand others.
_PATIENCE: Final = 100_000
_REDELIVERY_WEIGHT: Final = 1_000
_FIRST_TICK: Final = 1e-6
_TICKS_PER_DOUBLING: Final = 8
_LONGEST_TICK: Final = 3_600.0
_ENDLESS: Final = 100_000_000

_LIBRARIES: Final = frozenset({"asyncio", "anyio", "trio"})


class DeadlockError(BaseException):
    """
    Nothing can happen any more: no task is ready, no timer is set, and no other thread is there to help.

    Not an `Exception`, for it ends a whole run, as `KeyboardInterrupt` does: no handler for errors may take it for
    one, and a test runner must not go on with the task that is stuck.
    """


@final
class _VirtualSelector(selectors.BaseSelector):
    """Polls like a real selector, but instead of waiting it moves the clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.loop: VirtualTimeLoop | None = None
        self.weight = 0
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = self._real.select(0)
        if timeout is None and not events:
            events = self._wait_for_threads()
        elif timeout is not None and timeout > 0 and not events:
            self.now += timeout
            self.weight = 0
        else:
            self._stay_busy()
        if self.now + _RESOLUTION == self.now:
            self.now = math.nextafter(self.now, math.inf)
        return events

    def _stay_busy(self) -> None:
        loop = self.loop
        if loop is None:
            return
        self.weight += _REDELIVERY_WEIGHT if loop.redelivered else 1
        loop.redelivered = False
        if self.weight > _PATIENCE:
            step = (self.weight - _PATIENCE) / _REDELIVERY_WEIGHT
            tick = min(_FIRST_TICK * 2.0 ** min(step / _TICKS_PER_DOUBLING, 64), _LONGEST_TICK)
            timer = loop.next_timer()
            if timer is not None and timer <= self.now + tick:
                self.now = max(self.now, timer)
                self.weight = 0
            elif self.weight > _ENDLESS:
                self.weight = 0
                raise DeadlockError(loop.describe("the tasks keep each other busy for ever"))
            else:
                self.now += tick

    def _wait_for_threads(self) -> list[tuple[selectors.SelectorKey, int]]:
        until = time.monotonic() + _THREAD_GRACE
        while threading.active_count() > 1 and (left := until - time.monotonic()) > 0:
            if events := self._real.select(min(left, 0.05)):
                return events
        loop = self.loop
        raise DeadlockError(loop.describe("nothing is ready and no timer is set") if loop else "the loop is closed")

    def register(self, fileobj: FileDescriptorLike, events: int, data: object = None) -> selectors.SelectorKey:
        if self.loop is not None:
            raise RuntimeError(
                "virtual time cannot wait for real sockets, pipes or processes: run this on the real clock "
                "(for instance on asyncio's own loop), or replace the network by an in-process transport"
            )
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: FileDescriptorLike, events: int, data: object = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self.loop = None
        self._real.close()


@final
class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """
    An asyncio event loop whose clock starts at 0 and jumps to the next timer whenever nothing is ready.

    Give it to ``asyncio.Runner(loop_factory=VirtualTimeLoop)``, or see `resilience.testing.run`. It raises
    `DeadlockError` where a real loop would hang for ever, naming the tasks that wait.
    """

    def __init__(self) -> None:
        self._clock = _VirtualSelector()
        self.redelivered: bool = False
        super().__init__(self._clock)
        self._clock.loop = self

    def time(self) -> float:
        """The virtual time, in seconds since the loop was made."""
        return self._clock.now

    def call_soon(
        self,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Arrange for *callback* to be called in the next turn."""
        if getattr(callback, "__name__", "") == "_deliver_cancellation":
            self.redelivered = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Arrange for *callback* to be called at virtual time *when*; infinity is never."""
        if when == math.inf:
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)

    def next_timer(self) -> float | None:
        """When the next timer is due, or None."""
        timers: Iterable[asyncio.TimerHandle] = getattr(self, "_scheduled", ())
        return min((timer.when() for timer in timers if not timer.cancelled()), default=None)

    def describe(self, problem: str) -> str:
        """Say what is wrong, at what time, and where the tasks wait."""
        waiting = sorted(f"{task.get_name()} at {innermost(_awaited(task))}" for task in asyncio.all_tasks(self))
        return "\n  ".join([f"deadlock at virtual time {self.time():.6g} s: {problem}; these tasks wait:", *waiting])


def innermost(frames: Iterable[tuple[FrameType, int]]) -> str:
    """Name the innermost of *frames* that belongs to no async library: the line somebody wrote and looks for."""
    place = "an unknown place"
    for frame, line in frames:
        path = frame.f_code.co_filename
        if not _LIBRARIES.intersection(path.replace("\\", "/").split("/")):
            place = f"{path}:{line}, in {frame.f_code.co_name}"
    return place


def _awaited(task: asyncio.Task[object]) -> Iterator[tuple[FrameType, int]]:
    waiter: object = task.get_coro()
    while waiter is not None:
        frame = getattr(waiter, "cr_frame", None) or getattr(waiter, "gi_frame", None)
        if isinstance(frame, FrameType):
            yield frame, frame.f_lineno
        waiter = getattr(waiter, "cr_await", None) or getattr(waiter, "gi_yieldfrom", None)
