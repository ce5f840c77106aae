"""Closing many things at once, in so much time and no more, whatever any of them does."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, final

import anyio

from resilience.guard import here
from resilience.home import trio_scope
from resilience.policies._waiter import Waiter

_log = logging.getLogger("resilience.shutdown")

Close = Callable[[], Awaitable[object]]


async def close_all(closers: Sequence[Close], seconds: float) -> tuple[int, tuple[str, ...]]:
    """
    Await all of *closers* side by side, for *seconds*; those that are late are cancelled and not waited for.

    Returns:
        How many ended in time, and the names of those that did not, or that raised.
    """
    closing = [_Closing(close) for close in closers]
    try:
        for one in closing:
            one.start()
        ends = anyio.current_time() + seconds
        while any(one.running for one in closing) and (left := ends - anyio.current_time()) > 0:
            waiter = Waiter()
            for one in closing:
                one.over = waiter.wake
            await waiter.wait(left)
    finally:
        for one in closing:
            one.cancel()
    return sum(one.closed for one in closing), tuple(one.name for one in closing if not one.closed)


@final
class _Closing:
    """
    One of them, in a task of its own that nobody has to wait for.

    On asyncio that is any task; on trio only a system task may outlive the block that began it.
    """

    __slots__ = ("_close", "_task", "closed", "name", "over", "running")

    closed: bool
    name: str
    over: Callable[[], object] | None
    running: bool

    def __init__(self, close: Close) -> None:
        self._close = close
        self._task: Any = None  # or the cancel scope within it
        self.name: str = getattr(close, "__qualname__", None) or repr(close)
        self.closed = False
        self.running = False
        self.over = None

    def start(self) -> None:
        """Begin."""
        _, loop = here()
        self.running = True
        if loop is not None:
            self._task = asyncio.create_task(self._run(), name=f"close {self.name}")
            return
        import trio

        self._task = trio_scope()
        trio.lowlevel.spawn_system_task(self._run_in_scope, context=contextvars.copy_context())

    def cancel(self) -> None:
        """End it, if it has begun and not ended."""
        if self.running:
            _log.warning("%s took too long to close", self.name, extra={"component": "shutdown"})
            self.over = None
            self._task.cancel()

    async def _run_in_scope(self) -> None:
        with self._task:
            await self._run()

    async def _run(self) -> None:
        try:
            await self._close()
            self.closed = True
        except Exception:
            _log.exception("%s failed to close", self.name, extra={"component": "shutdown"})
        finally:
            self.running = False
            if self.over is not None:
                self.over()
