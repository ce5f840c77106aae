"""Cancellation at every point where a call can be cancelled."""

from __future__ import annotations

import asyncio
import itertools
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any, Literal, TypeAlias, final

import anyio

Way: TypeAlias = Literal["scope", "task", "close"]


@types.coroutine
def watched(body: Coroutine[Any, Any, Any], suspended: Callable[[], object]) -> Generator[Any, Any, Any]:
    """Await *body*, and tell of each suspension just before it happens."""
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            trap = body.send(value) if error is None else body.throw(error)
        except StopIteration as stop:
            return stop.value
        finally:
            error = None  # it may hold this frame
        suspended()
        value = None
        try:
            value = yield trap
        except BaseException as raised:
            error = raised


class _Closed(BaseException):
    """The call has come to where it is closed."""


def _close() -> None:
    raise _Closed


@final
class Ending:
    """
    One run of a call, in which it is ended at its n-th suspension: ``await ending(act)``.

    Attributes:
        way: ``"scope"``: a cancel scope around the call is cancelled. ``"task"``: its task is, with `Task.cancel`, as
            `asyncio.timeout` or a server does it. ``"close"``: its coroutine is closed, as the collector does it.
        suspension: At which suspension, counted from 1.
        reached: Whether the call came so far. If not, it has ended by itself.
        came_out: Whether the cancellation came out of the call, as it should unless the call had ended already.
    """

    __slots__ = ("_awaited", "_count", "_end", "came_out", "reached", "suspension", "way")

    came_out: bool
    reached: bool
    suspension: int
    way: Way

    def __init__(self, way: Way, suspension: int) -> None:
        self.way = way
        self.suspension = suspension
        self.reached = False
        self.came_out = False
        self._awaited = False
        self._count = 0
        self._end: Callable[[], object] = _close

    async def __call__(self, act: Callable[[], Coroutine[Any, Any, object]]) -> bool:
        """
        Await ``act()``, end it at its suspension, and return whether it came so far.

        Raises:
            Exception: What the call raised.
            AssertionError: Somebody else asked for the cancellation of its task, too.
        """
        self._awaited = True
        if self.way == "scope":
            await self._by_scope(act)
        elif self.way == "task":
            await self._by_task(act)
        else:
            await self._by_close(act())
        return self.reached

    def suspended(self) -> None:
        """Count a suspension. Call it for those of other tasks that belong to the call. Not if it is to be closed."""
        self._count += 1
        if self._count == self.suspension:
            self.reached = True
            self._end()

    def __str__(self) -> str:
        return f"by {self.way} at suspension {self.suspension}"

    async def _by_scope(self, act: Callable[[], Coroutine[Any, Any, object]]) -> None:
        with anyio.CancelScope() as scope:
            self._end = scope.cancel
            await watched(act(), self.suspended)
        self.came_out = scope.cancelled_caught

    async def _by_task(self, act: Callable[[], Coroutine[Any, Any, object]]) -> None:
        async def live() -> None:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101
            self._end = task.cancel
            await watched(act(), self.suspended)

        task = asyncio.create_task(live())
        await asyncio.wait([task])
        if task.cancelling() > self.reached:
            raise AssertionError(f"{self}: somebody else asked for a cancellation, too")
        self.came_out = task.cancelled()
        if not self.came_out:
            task.result()

    async def _by_close(self, body: Coroutine[Any, Any, object]) -> None:
        try:
            await watched(body, self.suspended)
        except _Closed:
            body.close()
            self.came_out = True


def cancelled_everywhere(*ways: Way) -> Iterator[Ending]:
    """
    Give the endings of a call: at its first suspension, at its second, and so on until it has ended by itself.

    ::

        for ending in cancelled_everywhere():
            pool = Pool(size=1)
            await ending(pool.use)
            assert pool.free == 1, ending

    Each turn runs the call once, and must run it anew: what is not deterministic is not found. On virtual time, a call
    that waits is as quick as any other.

    Args:
        ways: How the call is ended, see `Ending`; ``"task"`` is left out on trio, which knows scopes only. Default:
            ``"scope"`` and ``"task"``.

    Raises:
        AssertionError: The call never suspended, so nothing was tried.
        RuntimeError: A turn did not await its ending.
    """
    on_asyncio = anyio.get_cancelled_exc_class() is asyncio.CancelledError
    for way in ways or ("scope", "task"):
        if way == "task" and not on_asyncio:
            continue
        for suspension in itertools.count(1):
            ending = Ending(way, suspension)
            yield ending
            if not ending._awaited:
                raise RuntimeError("nothing was run: each turn takes `await ending(act)`")
            if not ending.reached:
                if suspension == 1:
                    raise AssertionError("the call never suspended, so it was cancelled nowhere")
                break
