"""
The items of an async generator on asyncio, at (nearly) the generator's own pace.

A Python function round each item would cost as much as the generator. So an ``async for`` over `SwiftItems` meets no
Python at all: the class has a *slot* named ``__anext__``, and in it lies a function in C that asks the generator for
its next item and counts the requests. What there is to notice, a timer notices from time to time: whether the generator
is waiting, and since which request. So its limits are kept to within a twentieth.

How it ended is read from its last instruction: a return, or something that raised. An error that the body of the block
has caught and dropped is not known here.
"""

from __future__ import annotations

import opcode
from asyncio import AbstractEventLoop, CancelledError, Task, TimerHandle
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from itertools import chain, repeat, starmap
from operator import length_hint
from types import AsyncGeneratorType, FrameType
from typing import Any, Final, NoReturn, TypeVar, cast, final

from resilience.errors import CallTimeout
from resilience.hold import Hold
from resilience.lane import SLACK
from resilience.streaming.items import RENEWALS, Alarm, Items, Pace, Trouble
from resilience.streaming.source import Source

T = TypeVar("T")

# A wait is noticed, and so is its end, in steps of this share of the limit it runs into.
_STEP: Final = 0.05
_SHORTEST_STEP: Final = 0.001  # seconds

_PLENTY: Final = 1 << 60
_RETURNS: Final = frozenset({"RETURN_VALUE", "RETURN_CONST"})


@final
class SwiftItems(Items[T]):
    """
    Items straight from an async generator.

    Args:
        source: Where they come from: an async generator.
        hold: What lives as long as they do.
        pace: How long they may take.
        task: Whom to interrupt.
        loop: Its loop.
    """

    __slots__ = (
        "__anext__",
        "_ahead",
        "_alarm",
        "_asked",
        "_buffered",
        "_count",
        "_dropped",
        "_frame",
        "_generator",
        "_late",
        "_loop",
        "_seen",
        "_since",
        "_step",
        "_timer",
    )

    gap: float

    _timer: TimerHandle

    __anext__: Callable[[], Awaitable[T]]  # pyright: ignore[reportIncompatibleMethodOverride]

    def __init__(
        self, source: Source[T], hold: Hold[Any], pace: Pace, *, task: Task[Any], loop: AbstractEventLoop
    ) -> None:
        super().__init__(hold, pace, loop)
        generator = cast("AsyncGeneratorType[T, None]", source.iterator)
        self._generator = generator
        self._frame: FrameType | None = generator.ag_frame  # none is left of one that has ended already
        self._ahead = len(source.buffer)
        self._buffered = iter(source.buffer)
        self._asked = repeat((), _PLENTY)
        asking = starmap(generator.__anext__, self._asked)
        self.__anext__ = cast("Callable[[], Awaitable[T]]", chain(map(_at_once, self._buffered), asking).__next__)
        self._alarm = Alarm(task)
        self._loop = loop
        self._count: int | None = None
        self._dropped: CallTimeout | None = None
        self._late: CallTimeout | None = None
        self._seen = -1
        self._since: float | None = None
        limit = min(pace.idle, pace.slow_gap)
        self._step = max(min(limit * _STEP, pace.lease / RENEWALS), _SHORTEST_STEP)
        self._sleep(pace.clock())

    @property
    def count(self) -> int:
        """How many items have come."""
        if self._count is not None:
            return self._count
        asked = self._requests()
        generator = self._generator
        unanswered = asked > 0 and (generator.ag_frame is None or generator.ag_running)
        return self._ahead - length_hint(self._buffered) + asked - unanswered

    def _requests(self) -> int:
        return _PLENTY - length_hint(self._asked)

    # -- the watch -------------------------------------------------------------------------------------------------

    def _sleep(self, now: float) -> None:
        left = self._pace.ends - now
        self._timer = self._loop.call_later(min(self._step, left) if left > SLACK else self._step, self._look)

    def _look(self) -> None:
        """See whether the generator is waiting, and whether it was already when we looked last."""
        now, requests = self._pace.clock(), self._requests()
        waiting = self._generator.ag_running
        if waiting and requests == self._seen and self._since is not None:
            self.gap = max(self.gap, now - self._since)
        else:
            self._since = now if waiting else None
            self._alarm.silence()  # if it rang: an item has come all the same
            if requests != self._seen:
                self._hold.renew()
        self._seen = requests
        self._judge(now, waiting=waiting)
        self._sleep(now)

    def _judge(self, now: float, *, waiting: bool) -> None:
        pace, alarm = self._pace, self._alarm
        if now >= pace.ends - SLACK and not waiting:
            if self._late is None:
                self._late = pace.expired("total", now, now)
                self.__anext__ = partial(_refuse, self._late)
        elif alarm.rung is None and waiting:
            since = now if self._since is None else self._since
            if now - since >= pace.idle - SLACK:
                alarm.ring(pace.expired("idle", since, now))
            elif now >= pace.ends - SLACK:
                alarm.ring(pace.expired("total", since, now))

    def _cut_off(self, timeout: CallTimeout) -> None:
        if self._alarm.rung is None:
            self._alarm.ring(timeout, for_good=True)

    def stop(self, error: BaseException | None) -> CallTimeout | None:
        """End the watch. Return our own timeout, if that is what *error*, which left the block, came from."""
        self._timer.cancel()
        self._over = True
        self._count = self.count
        late, self._late = self._late, None
        self.__anext__ = self._generator.__anext__  # which is about to be closed
        if late is not None and error is late:
            return late
        rung = self._alarm.rung
        answer = self._alarm.answer(error)
        if answer is None and not isinstance(error, CancelledError):
            self._dropped = rung  # the body has caught our cancellation, but not undone its reason
        return answer

    # -- how it ended ----------------------------------------------------------------------------------------------

    def trouble(self, error: BaseException | None) -> Trouble:
        """Say how the source has ended, as far as *error*, which left the block, and we ourselves know."""
        frame, self._frame = self._frame, None
        if frame is None:
            return Trouble(ended=True)
        if self._generator.ag_frame is not None:
            return Trouble()
        if opcode.opname[frame.f_code.co_code[frame.f_lasti]] in _RETURNS:
            return Trouble(ended=True)
        dropped, self._dropped = self._dropped, None
        return Trouble(error=_passed_through(frame, error, set()) or dropped)


def _passed_through(frame: FrameType, error: BaseException | None, seen: set[int]) -> BaseException | None:
    """Return *error* or the one behind it that has left *frame*."""
    if error is None or id(error) in seen:
        return None
    seen.add(id(error))
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame is frame:
            return error
        traceback = traceback.tb_next
    behind: Iterable[BaseException | None] = (error.__cause__, error.__context__)
    if isinstance(error, BaseExceptionGroup):
        behind = (*behind, *cast("BaseExceptionGroup[BaseException]", error).exceptions)
    return next((found for one in behind if (found := _passed_through(frame, one, seen)) is not None), None)


async def _at_once(item: T) -> T:
    return item


async def _refuse(error: BaseException) -> NoReturn:
    try:
        raise error
    finally:
        del error  # it holds this frame
