"""Where a task lives, for those who want something done there from another event loop or thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, final

from resilience.guard import running_trio


def trio_scope() -> Any:
    """Return a cancel scope of trio's own."""
    import trio

    return trio.CancelScope()


@final
class Home:
    """
    An event loop, as other threads reach it: asyncio's *loop*, or, with None, the trio run that is running here.

    Args:
        loop: The asyncio loop. None: the one of trio, in one of whose tasks this is made.
    """

    __slots__ = ("_loop", "_token")

    _loop: Any
    _token: Any  # trio's handle of one run

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._token = _trio_token() if loop is None else None

    @property
    def is_here(self) -> bool:
        """Whether this code runs there."""
        if self._loop is not None:
            return asyncio._get_running_loop() is self._loop
        return self._token is not None and self._token is _trio_token()

    @property
    def answers(self) -> bool:
        """Whether what is to be done there will be done, as far as anybody can tell."""
        return self._loop.is_running() if self._loop is not None else self._token is not None

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
            elif self._token is not None:
                self._token.run_sync_soon(func)
        except RuntimeError:  # asyncio's loop is closed; trio's error for a run that is over is one, too
            return False
        return self._loop is not None or self._token is not None


def _trio_token() -> Any:
    running = running_trio()
    return running.lowlevel.current_trio_token() if running is not None else None
