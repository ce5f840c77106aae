"""The items of any source on any loop: each request notes when it began, and something watches while it waits."""

from __future__ import annotations

import asyncio
import math
from asyncio import AbstractEventLoop, Task, TimerHandle
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Literal, TypeVar, final

from resilience.errors import CallTimeout, StreamInterrupted
from resilience.guard import running_trio
from resilience.hold import Hold
from resilience.lane import SLACK
from resilience.streaming.items import RENEWALS, Alarm, Items, Pace, Trouble
from resilience.streaming.source import Source

T = TypeVar("T")


@final
class _TrioWait(Generic[T]):
    """Asks for one item within a cancel scope of trio's own."""

    __slots__ = ("_ask", "_cut", "_pace", "_scope", "_trio")

    def __init__(self, trio: Any, ask: Callable[[], Awaitable[T]], pace: Pace) -> None:
        self._trio = trio
        self._ask = ask
        self._pace = pace
        self._scope: Any = None
        self._cut: CallTimeout | None = None

    def cut_off(self, timeout: CallTimeout) -> None:
        """Let this wait, or the next one, end in *timeout*."""
        self._cut = timeout
        if self._scope is not None:
            self._scope.cancel()

    async def __call__(self) -> T:
        pace = self._pace
        since = pace.clock()
        limit = min(pace.idle, pace.ends - since)
        if self._cut is not None:
            raise self._cut
        try:
            with self._trio.CancelScope(deadline=self._trio.current_time() + limit) as self._scope:
                return await self._ask()
        finally:
            self._scope = None
        if self._cut is not None:
            raise self._cut
        raise pace.expired("idle" if pace.idle <= limit else "total", since, pace.clock())


@final
class SteadyItems(Items[T]):
    """
    Items that are asked for in Python: from any kind of source, on any loop.

    Args:
        source: Where they come from.
        hold: What lives as long as they do.
        pace: How long they may take.
        task: Whom to interrupt, on asyncio.
        loop: Its loop.
        keep: So many of the last ones are kept.
        complete: Says of the last one whether the stream was whole.
    """

    __slots__ = (
        "_alarm",
        "_aside",
        "_ask",
        "_buffer",
        "_clean",
        "_clock",
        "_complete",
        "_count",
        "_ends",
        "_error",
        "_keep",
        "_kept",
        "_look_at",
        "_loop",
        "_scoped",
        "_since",
        "_timer",
    )

    gap: float

    def __init__(
        self,
        source: Source[T],
        hold: Hold[Any],
        pace: Pace,
        *,
        task: Task[Any] | None,
        loop: AbstractEventLoop | None,
        keep: int,
        complete: Callable[[T], object] | None,
    ) -> None:
        super().__init__(hold, pace, loop)
        trio = running_trio()
        ask = source.iterator.__anext__
        self._scoped = _TrioWait(trio, ask, pace) if trio is not None else None
        self._ask: Callable[[], Awaitable[T]] = ask if self._scoped is None else self._scoped
        self._alarm = Alarm(task) if task is not None else None
        self._loop: Any = loop  # Any: on trio there is none, and nothing to arm
        watched = loop is not None and min(pace.idle, pace.ends) < math.inf
        self._timer: TimerHandle | Literal[False] | None = (
            None if watched else False
        )  # None: the next wait has to arm it
        self._buffer = deque(source.buffer)
        self._clean = source.ended
        self._aside = bool(source.buffer) or source.ended
        self._clock = pace.clock
        self._ends = pace.ends - SLACK
        self._look_at = pace.clock()
        self._complete = complete
        self._keep = keep
        self._kept: deque[T] | None = None
        if keep or complete is not None:
            self._kept = deque(maxlen=keep or 1)
        self._count = 0
        self._error: BaseException | None = None
        self._since: float | None = None

    @property
    def count(self) -> int:
        """How many items have come."""
        return self._count

    @property
    def kept(self) -> tuple[T, ...]:
        """The last items, as many as ``stream.keep`` asks for."""
        return tuple(self._kept) if self._keep and self._kept is not None else ()

    async def __anext__(self) -> T:
        # One frame: each helper would cost every item a fifth more.
        if self._aside:
            return self._from_aside()
        self._since = since = self._clock()
        if self._timer is None or since >= self._ends:
            self._watch(since)
        try:
            item = await self._ask()
        except StopAsyncIteration:
            self._finish(since)
            raise
        except BaseException as error:
            self._broke(error, since)
            raise
        self._since = None
        now = self._clock()
        if now - since > self.gap:  # noqa: PLR1730 - a call of max() per item
            self.gap = now - since
        if now >= self._look_at:
            self._look_closer(now)
        self._count += 1
        if self._kept is not None:
            self._kept.append(item)
        return item

    def _from_aside(self) -> T:
        """Return an item that was read before the commit."""
        if not self._buffer:
            raise StopAsyncIteration
        item = self._buffer.popleft()
        self._aside = bool(self._buffer) or self._clean
        self._count += 1
        if self._kept is not None:
            self._kept.append(item)
        return item

    def _watch(self, since: float) -> None:
        """
        See to it that somebody watches over a wait that begins.

        Raises:
            CallTimeout: The time for all of it is over.
        """
        pace = self._pace
        if since >= self._ends:
            self._since = None
            self._error = pace.expired("total", since, since)
            raise self._error
        self._arm(min(pace.idle, pace.ends - since))

    def _look_closer(self, now: float) -> None:
        """Do what is not done for every item: an item has come."""
        if self._alarm is not None:
            self._alarm.silence()
        self._hold.renew()
        self._look_at = now + self._pace.lease / RENEWALS

    def _waited(self, since: float) -> None:
        """Note that a wait is over without an item."""
        self._since = None
        self.gap = max(self.gap, self._clock() - since)

    def _finish(self, since: float) -> None:
        """
        Note a clean end.

        Raises:
            StreamInterrupted: It came too early.
        """
        self._waited(since)
        self._aside = self._clean = True
        if self._alarm is not None:
            self._alarm.silence()
        if self._complete is not None and not (self._kept and self._complete(self._kept[-1])):
            self._error = StreamInterrupted(*self._pace.where, self._count, self.kept)
            raise self._error from None

    def _broke(self, error: BaseException, since: float) -> None:
        """
        Note that the source has failed.

        Raises:
            CallTimeout: We have interrupted it.
        """
        self._waited(since)
        alarm = self._alarm
        if alarm is not None and alarm.rung is not None and asyncio.current_task() is alarm.task:
            self._error = alarm.answer(error)
            if self._error is not None:
                raise self._error from error
        if isinstance(error, Exception):  # a consumer that has cancelled its request may make another
            self._error = error

    def _arm(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Interrupt a wait that takes too long, or look again when it will."""
        self._timer = None
        since, pace, alarm = self._since, self._pace, self._alarm
        if since is None or alarm is None or alarm.rung is not None:
            return
        now = pace.clock()
        left = min(since + pace.idle, pace.ends) - now
        if left > SLACK:
            self._arm(left)
        else:
            self._look_at = -math.inf
            alarm.ring(pace.expired("idle" if since + pace.idle <= pace.ends else "total", since, now))

    def _cut_off(self, timeout: CallTimeout) -> None:
        if self._scoped is not None:
            self._scoped.cut_off(timeout)
        elif self._alarm is not None and self._alarm.rung is None:
            self._alarm.ring(timeout, for_good=True)

    def stop(self, error: BaseException | None) -> CallTimeout | None:
        """End the watch. Return our own timeout, if that is what *error*, which left the block, came from."""
        if self._timer:
            self._timer.cancel()
        self._timer = False
        self._over = self._aside = True
        self._buffer.clear()
        return self._alarm.answer(error) if self._alarm is not None else None

    def trouble(self, error: BaseException | None) -> Trouble:
        """Say how the source has ended, as far as *error*, which left the block, and we ourselves know."""
        mine, self._error = self._error, None  # it holds the frames that hold us
        try:
            return Trouble(ended=self._clean and mine is None, error=mine)
        finally:
            del mine, error
