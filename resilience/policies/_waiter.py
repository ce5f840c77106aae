"""One task that waits until somebody wakes it, from whatever loop or thread."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, final

from resilience.guard import here, running_trio
from resilience.home import Home

if TYPE_CHECKING:
    import trio


@final
class Waiter:
    """Parks the task that made it. Waking it twice, or after it was cancelled, is harmless."""

    __slots__ = ("_event", "_home", "_loop")

    _event: asyncio.Event | trio.Event
    _loop: Any  # the asyncio loop, None on trio

    def __init__(self) -> None:
        _, self._loop = here()
        self._home = Home(self._loop)
        self._event = asyncio.Event() if self._loop is not None else running_trio().Event()

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
        return self._home.do(self._event.set)
