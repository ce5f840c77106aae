"""
One attempt under its limit, away from the fast path: on asyncio by a lane's timer, on trio by its cancel scope.

A guard is a synchronous context manager, so the same one serves a coroutine that awaits the user's function and an
``async with`` block whose body is the attempt.
"""

from __future__ import annotations

import asyncio
import math
import sys
from asyncio import CancelledError, Task
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, final

from resilience.errors import CallTimeout
from resilience.lane import SLACK, Entry, Lane, lanes_on

if TYPE_CHECKING:
    from asyncio import TimerHandle

    import trio

# Deadlines of attempts that run under a guard, by task: what an inner call has to fit into. (The fast path's are in
# the lanes.) Only the owner adds and removes, so nothing stays behind.
_outer: dict[object, list[float]] = {}


def running_trio() -> Any:
    """Return the trio module if this code runs under trio, else None; never imports it."""
    trio_module = sys.modules.get("trio")
    if trio_module is not None and trio_module.lowlevel.in_trio_run() and trio_module.lowlevel.in_trio_task():
        return trio_module
    return None


def here() -> tuple[object, Any]:
    """
    Return the current task and its asyncio loop, or the current trio task and None.

    Raises:
        RuntimeError: There is no running asyncio or trio task.
    """
    loop = asyncio._get_running_loop()
    if loop is not None and (task := asyncio.current_task(loop)) is not None:
        return task, loop
    if trio_module := running_trio():
        return trio_module.lowlevel.current_task(), None
    raise RuntimeError("a provider's calls are awaited in an asyncio or trio task, and none is running here")


def somewhere(lane: Lane) -> tuple[object, Any]:
    """Like `here`, but where no task runs, such as in a callback, return None and the loop of *lane*."""
    try:
        return here()
    except RuntimeError:
        return None, lane.loop


class Guard(Protocol):
    """One attempt under its limit."""

    began: float
    limit: float
    expired: bool

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def guard(
    lane: Lane, *, began: float, limit: float, slow_after: float, what: tuple[str, str, str], task: object
) -> Guard:
    """
    Return a guard for one attempt.

    Args:
        lane: Where its entry is kept.
        began: When it begins, on the lane's clock.
        limit: How long it may last, in seconds.
        slow_after: From what age on it is slow, in seconds.
        what: The provider's name, the operation's and the limit's, for the error.
        task: The task that makes it.
    """
    kind = AsyncioGuard if lane.loop is not None else TrioGuard
    return kind(lane, began=began, limit=limit, slow_after=slow_after, what=what, task=task)


def late_error(
    provider: str, operation: str, scope: str, limit: float, elapsed: float, *, cut: float | None
) -> CallTimeout:
    """Return the error of an interrupted attempt: by its limit, or after a shutdown's grace of *cut* seconds."""
    if cut is not None:
        return CallTimeout(provider, operation, "shutdown", cut, elapsed)
    return CallTimeout(provider, operation, scope, limit, elapsed)


def is_inside(task: object, lanes: Iterable[Lane]) -> bool:
    """Whether *task* is within an attempt: of anybody, or on the fast path of one of *lanes*."""
    return task in _outer or (is_asyncios(task) and any(task in lane.live for lane in list(lanes)))


def outer_deadline(task: object, loop: asyncio.AbstractEventLoop | None) -> float:
    """Return the earliest moment at which an attempt that *task* is already in will be interrupted."""
    earliest = min(_outer.get(task, ()), default=math.inf)
    if is_asyncios(task):
        for lane in lanes_on(loop):
            earliest = min(earliest, lane.live.get(task, math.inf) + lane.limit)
    return earliest


def forget_closed_loops() -> None:
    """Forget the deadlines of tasks that will never run again, because their loop was closed over them."""
    for task in list(_outer):
        if is_asyncios(task) and task.get_loop().is_closed():
            _outer.pop(task, None)


def is_asyncios(task: object) -> TypeGuard[Task[Any]]:
    """Whether *task* is one of asyncio's."""
    return isinstance(task, Task)


class _Base:
    """What both guards do: keep the attempt's entry in its lane and its deadline with its task."""

    __slots__ = ("_cut", "_entry", "_lane", "_task", "_what", "began", "expired", "limit")

    began: float
    expired: bool
    limit: float

    def __init__(
        self, lane: Lane, *, began: float, limit: float, slow_after: float, what: tuple[str, str, str], task: object
    ) -> None:
        self._lane = lane
        self._what = what
        self._task = task
        self.began = began
        self.limit = limit
        self.expired = False
        self._cut: float | None = None
        self._entry = Entry(task if is_asyncios(task) else None, limit=limit, slow_after=slow_after)

    def _begin(self) -> None:
        self._lane.begin(self._entry, self.began)
        _outer.setdefault(self._task, []).append(self.began + self.limit)

    def _end(self) -> bool:
        deadlines = _outer.get(self._task)
        if deadlines is not None:  # else its loop was closed, and the collector ends it now
            deadlines.remove(self.began + self.limit)  # not always the last: blocks may be left in any order
            if not deadlines:
                del _outer[self._task]
        late = self._lane.end(self._entry)
        if late:
            self._cut = self._lane.cut
        return late

    def _timeout(self) -> CallTimeout:
        self.expired = True
        return late_error(*self._what, self.limit, self._lane.clock() - self.began, cut=self._cut)


@final
class AsyncioGuard(_Base):
    """Interrupts an attempt exactly as `asyncio.timeout` would."""

    __slots__ = ("_cancelling", "_timer")

    def __enter__(self) -> None:
        task = self._entry.task
        assert task is not None  # noqa: S101  # asyncio's guard is made for asyncio's tasks
        self._cancelling = task.cancelling()
        self._timer: TimerHandle | None = None
        self._begin()
        if self.limit != self._lane.limit and self.limit < math.inf:
            self._timer = self._lane.loop.call_later(max(0.0, self.limit), self._expire)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        task = self._entry.task
        late = self._end()
        if late and task is not None and task.uncancel() <= self._cancelling and isinstance(error, CancelledError):
            raise self._timeout() from error

    def _expire(self) -> None:
        lane = self._lane
        now = lane.clock()
        left = self.began + self.limit - now
        if left > SLACK:  # the loop's clock runs ahead of ours
            self._timer = lane.loop.call_later(left, self._expire)
        else:
            lane.interrupt(self._entry, now)


@final
class TrioGuard(_Base):
    """Interrupts an attempt through a cancel scope of trio's own."""

    __slots__ = ("_scope",)

    def __enter__(self) -> None:
        import trio

        self._scope: trio.CancelScope = trio.CancelScope()
        self._entry.scope = self._scope
        if self.limit < math.inf:
            self._scope.deadline = trio.current_time() + self.limit
        self._begin()
        self._scope.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._scope.__exit__(kind, error, traceback)
        finally:
            self._end()
        if self._scope.cancelled_caught:
            raise self._timeout() from error
