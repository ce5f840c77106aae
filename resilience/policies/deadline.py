"""
Deadlines: a point in time after which nobody waits any more.

A `Deadline` is a fixed moment, so one can be made early and handed to several calls. Entered, it interrupts what
runs inside it; handed to ``with_options(deadline=...)``, it bounds the call, its waiting and its retries.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, final

import anyio

from resilience.errors import CallTimeout, ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlineSnapshot:
    """
    One look at a deadline. JSON-ready through `dataclasses.asdict`.

    Args:
        name: What it bounds.
        limit: How long it was given, in seconds.
        remaining: How much of that is left, in seconds; 0 when it has passed.
        expired: Whether it has passed.
    """

    name: str
    limit: float
    remaining: float
    expired: bool


@final
class Deadline:
    """
    A moment *seconds* from now that no work inside may pass.

    Use it as ``async with Deadline(5):``, as ``await Deadline(5).call(fn, ...)``, or hand it to
    ``with_options(deadline=...)``. The decorator `Deadline.limit` starts a new deadline for each call.

    Deadlines nest: inside another one, or inside any anyio or trio cancel scope, the earlier moment holds.

    Args:
        seconds: How long from now.
        name: What it bounds; it stands in the error. Default: ``"deadline"``.
        clock: A monotonic clock in seconds. Default: `time.monotonic`.

    Raises:
        ConfigurationError: *seconds* is no positive, finite number.
    """

    __slots__ = ("_clock", "_scopes", "at", "limit_seconds", "name")

    at: float
    limit_seconds: float
    name: str

    def __init__(self, seconds: float, *, name: str = "deadline", clock: Callable[[], float] = time.monotonic) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            raise ConfigurationError(
                f"a deadline is a positive, finite number of seconds from now, not {seconds!r}: "
                "use no deadline at all to wait without limit"
            )
        self.name = name
        self.limit_seconds = float(seconds)
        self.at = clock() + seconds
        self._clock = clock
        self._scopes: dict[int, list[anyio.CancelScope]] = {}  # by task: several may share one deadline

    def remaining(self) -> float:
        """Return the seconds that are left; 0 when it has passed."""
        return max(0.0, self.at - self._clock())

    @property
    def expired(self) -> bool:
        """Whether it has passed."""
        return self._clock() >= self.at

    def snapshot(self) -> DeadlineSnapshot:
        """Return the figures as they are now."""
        left = self.remaining()
        return DeadlineSnapshot(name=self.name, limit=self.limit_seconds, remaining=left, expired=left <= 0)

    def __repr__(self) -> str:
        left = self.remaining()
        when = f"{left:.3g} s left" if left > 0 else "EXPIRED"
        return f"<Deadline {self.name!r} {when} of {self.limit_seconds:g} s>"

    async def __aenter__(self) -> Deadline:
        scope = anyio.CancelScope(deadline=anyio.current_time() + self.at - self._clock())
        scope.__enter__()
        self._scopes.setdefault(anyio.get_current_task().id, []).append(scope)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task = anyio.get_current_task().id
        scopes = self._scopes[task]
        scope = scopes.pop()
        if not scopes:
            del self._scopes[task]
        scope.__exit__(kind, error, traceback)
        if scope.cancelled_caught:
            elapsed = self.limit_seconds + self._clock() - self.at
            raise CallTimeout(self.name, "", "total", self.limit_seconds, elapsed) from error

    async def call(self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Await ``func(*args, **kwargs)`` and interrupt it when the deadline passes.

        Raises:
            CallTimeout: The deadline has passed.
        """
        async with self:
            return await func(*args, **kwargs)

    @staticmethod
    def limit(
        seconds: float, *, name: str = "deadline", clock: Callable[[], float] = time.monotonic
    ) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]:
        """Return a decorator that gives each call of a function its own deadline of *seconds*."""
        Deadline(seconds, clock=clock)  # refuse nonsense where it is written

        def decorate(func: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
            @wraps(func)
            async def bounded(*args: P.args, **kwargs: P.kwargs) -> T:
                return await Deadline(seconds, name=name, clock=clock).call(func, *args, **kwargs)

            return bounded

        return decorate
