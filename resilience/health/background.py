"""
Work beside the request that asked for it, on asyncio and on trio.

A mounted app has no place of its own where tasks could live: nobody tells it when the loop begins and ends. So each
piece of work is a task of the loop, with a limit, that ends by itself; whoever closes the loop in the usual way ends
it, too. Functions that are not asynchronous run in threads that do not keep the process alive.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, final

from resilience.guard import here, running_trio


class Ending(NamedTuple):
    """How a piece of work ended: with a value, an error, at its limit, or because somebody ended it."""

    value: object = None
    error: BaseException | None = None
    expired: bool = False
    cancelled: bool = False


EXPIRED: Final = Ending(expired=True)
CANCELLED: Final = Ending(cancelled=True)

Work: TypeAlias = Callable[[], Awaitable[object]]
Done: TypeAlias = Callable[[Ending], None]


class Host(Protocol):
    """A running loop, where work can be started."""

    def start(self, work: Work, limit: float, done: Done) -> Callable[[], object]:
        """
        Start *work* in a task of its own.

        Args:
            work: What to do.
            limit: It is interrupted after so many seconds.
            done: Called once in the loop, when it has ended, with how it ended; in a task, unless it was interrupted
                before it began.

        Returns:
            A function that interrupts it.
        """
        ...

    def post(self, func: Callable[[], object]) -> bool:
        """Call *func* in the loop, from any thread. Returns False if the loop is gone."""
        ...

    @property
    def gone(self) -> bool:
        """Whether the loop was closed."""
        ...


def host() -> Host:
    """
    Return the loop that runs here.

    Raises:
        RuntimeError: There is no running asyncio or trio task.
    """
    _, loop = here()
    return _Asyncio(loop) if loop is not None else _Trio(running_trio())


async def _contained(work: Work) -> Ending:
    """Do it, and let nothing out that would end the whole loop."""
    try:
        return Ending(await work())
    except (Exception, SystemExit) as error:
        return Ending(error=error)


@final
class _Asyncio:
    __slots__ = ("_loop",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def start(self, work: Work, limit: float, done: Done) -> Callable[[], object]:
        job = _Job(work, done)
        # A context of its own: the request's trace and variables end with the request.
        job.task = self._loop.create_task(job.main(), context=Context())
        job.task.add_done_callback(job.ended)
        if limit < math.inf:
            # One cancellation: a cancel scope of anyio's would keep the loop busy with what does not heed it.
            job.timer = self._loop.call_later(limit, job.expire)
        return job.task.cancel

    def post(self, func: Callable[[], object]) -> bool:
        try:
            self._loop.call_soon_threadsafe(func)
        except RuntimeError:  # it is closed
            return False
        return True

    @property
    def gone(self) -> bool:
        return self._loop.is_closed()


@final
class _Job:
    """One piece of work in a task of asyncio's."""

    __slots__ = ("_done", "_ending", "_expired", "_work", "task", "timer")

    def __init__(self, work: Work, done: Done) -> None:
        self._work = work
        self._done = done
        self._ending: Ending | None = None
        self._expired = False
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    async def main(self) -> None:
        ending = CANCELLED
        try:
            ending = await _contained(self._work)
        except asyncio.CancelledError as error:
            ending = self._interrupted(error)
            if ending is CANCELLED:
                raise
        finally:
            self._tell(ending)

    def _interrupted(self, error: asyncio.CancelledError) -> Ending:
        if self._expired:
            return EXPIRED
        # If nobody has asked for it, the work has met the cancellation of something that it waited for.
        asked = self.task is None or self.task.cancelling()
        return CANCELLED if asked else Ending(error=error)

    def expire(self) -> None:
        self._expired = True
        if self.task is not None:
            self.task.cancel()

    def ended(self, _: object) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self._tell(CANCELLED)  # unless it has told: a task may be cancelled before its first step

    def _tell(self, ending: Ending) -> None:
        if self._ending is None:
            self._ending = ending
            self._done(ending)


@final
class _Trio:
    __slots__ = ("_token", "_trio")

    def __init__(self, trio_module: Any) -> None:
        self._trio = trio_module
        self._token = trio_module.lowlevel.current_trio_token()

    def start(self, work: Work, limit: float, done: Done) -> Callable[[], object]:
        scope = self._trio.CancelScope(deadline=self._trio.current_time() + limit)
        asked: list[bool] = []

        async def main() -> None:
            ending = CANCELLED
            try:
                with scope:
                    ending = await _contained(work)
                if scope.cancelled_caught and not asked:
                    ending = EXPIRED
            finally:
                done(ending)

        def cancel() -> None:
            asked.append(True)
            scope.cancel()

        self._trio.lowlevel.spawn_system_task(main, name="resilience.health")
        return cancel

    def post(self, func: Callable[[], object]) -> bool:
        try:
            self._token.run_sync_soon(func)
        except self._trio.RunFinishedError:
            return False
        return True

    @property
    def gone(self) -> bool:
        return False  # whoever ends a run of trio ends all its tasks first, and waits for them
