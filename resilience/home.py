"""Where a task lives, for those who want something done there from another event loop or thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, final

from resilience.guard import running_trio


@final
class Home:
    """
    An event loop, as other threads reach it: asyncio's *loop*, or, with None, the trio run that is running here.

    Args:
        loop: The asyncio loop. None: the one of trio, in one of whose tasks this is made.
    """

    __slots__ = ("_loop", "_token")

    _loop: Any
    _token: Any  # trio's handle of one run, None on asyncio

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._token = running_trio().lowlevel.current_trio_token() if loop is None else None

    @property
    def is_here(self) -> bool:
        """Whether this code runs there."""
        if self._loop is not None:
            return asyncio._get_running_loop() is self._loop
        running = running_trio()
        return running is not None and running.lowlevel.current_trio_token() is self._token

    def do(self, func: Callable[[], object]) -> bool:
        """Call *func* there: at once if this is there, else soon. Returns False if that loop is over."""
        if self.is_here:
            func()
            return True
        return self.do_soon(func)

    def do_soon(self, func: Callable[[], object]) -> bool:
        """Call *func* there, but not before the task that runs there now has come to a pause."""
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(func)
            else:
                self._token.run_sync_soon(func)
        except RuntimeError:  # asyncio's loop is closed; trio's error for a run that is over is one, too
            return False
        return True

    @property
    def answers(self) -> bool:
        """Whether something that is to be done there will be, as far as anybody can tell."""
        return self._loop is None or self._loop.is_running()
