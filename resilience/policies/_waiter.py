"""One task that waits until somebody wakes it, from whatever loop or thread."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, final

from resilience.guard import here, running_trio

if TYPE_CHECKING:
    import trio


@final
class Waiter:
    """Parks the task that made it. Waking it twice, or after it was cancelled, is harmless."""

    __slots__ = ("_event", "_loop", "_token")

    _event: asyncio.Event | trio.Event
    _loop: Any  # the asyncio loop, None on trio
    _token: Any  # trio's handle of this run, None on asyncio

    def __init__(self) -> None:
        _, self._loop = here()
        if self._loop is not None:
            self._event = asyncio.Event()
            self._token = None
        else:
            trio_module = running_trio()
            self._event = trio_module.Event()
            self._token = trio_module.lowlevel.current_trio_token()

    async def wait(self, seconds: float) -> None:
        """Sleep until `wake` is called, or for *seconds*; it does not tell which."""
        if self._loop is None:
            import trio

            with trio.move_on_after(seconds):
                await self._event.wait()
            return
        # A timer that wakes us, not a cancel scope: a coroutine that the collector closes cannot leave one.
        timer = self._loop.call_later(seconds, self._event.set) if seconds < math.inf else None
        try:
            await self._event.wait()
        finally:
            if timer is not None:
                timer.cancel()

    def wake(self) -> bool:
        """Let the task go on, on its own loop. Returns False if that loop is gone, and with it the task."""
        return self._wake_asyncio() if self._loop is not None else self._wake_trio()

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

        running = running_trio()
        if running is not None and running.lowlevel.current_trio_token() is self._token:
            self._event.set()
            return True
        try:
            self._token.run_sync_soon(self._event.set)
        except trio.RunFinishedError:
            return False
        return True
