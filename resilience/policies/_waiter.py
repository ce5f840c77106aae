"""One task that waits until somebody wakes it, from whatever loop or thread."""

from __future__ import annotations

import asyncio
from typing import Any, final

import anyio

from resilience.guard import here, running_trio


@final
class Waiter:
    """Parks the task that made it. Waking it twice, or after it was cancelled, is harmless."""

    __slots__ = ("_event", "_loop", "_token")

    def __init__(self) -> None:
        _, self._loop = here()
        self._event = anyio.Event()
        self._token: Any = running_trio().lowlevel.current_trio_token() if self._loop is None else None

    async def wait(self) -> None:
        """Sleep until `wake` is called."""
        await self._event.wait()

    def wake(self) -> bool:
        """Let the task go on, on its own loop. Returns False if that loop is gone, and with it the task."""
        if self._loop is not None:
            return self._wake_asyncio()
        return self._wake_trio()

    def _wake_asyncio(self) -> bool:
        if asyncio._get_running_loop() is self._loop:
            self._event.set()
            return True
        try:
            self._loop.call_soon_threadsafe(self._event.set)
        except RuntimeError:  # it is closed
            return False
        return True

    def _wake_trio(self) -> bool:
        import trio

        here = running_trio()
        if here is not None and here.lowlevel.current_trio_token() is self._token:
            self._event.set()
            return True
        try:
            self._token.run_sync_soon(self._event.set)
        except trio.RunFinishedError:
            return False
        return True
