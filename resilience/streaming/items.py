"""
The items of one stream, and the watch over the time they take.

================================  =================================================================================
kind                              how it waits
================================  =================================================================================
`SwiftItems`                      an async generator on asyncio: each item goes straight from the generator to the
                                  ``async for``, through C alone; a timer looks from time to time whether it waits
`SteadyItems`                     anything else: each request notes when it began, and a timer that is armed while
                                  something waits (asyncio) or a cancel scope round it (trio) interrupts it
================================  =================================================================================

Whose cancellation was it? As in a `Lane`: ``task.cancelling()`` before, ``task.uncancel()`` after.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop, CancelledError, Task
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar, final
from weakref import ReferenceType, ref

from resilience._core.words import Usage
from resilience.errors import CallTimeout
from resilience.hold import Hold
from resilience.home import Home

T = TypeVar("T")

RENEWALS: Final = 10
"""How often in a lease a probe that delivers has it renewed."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """
    How long a stream may take.

    Args:
        where: The provider's name and the operation's.
        clock: The provider's monotonic clock.
        idle: Between two items, in seconds.
        total: The whole stream, in seconds.
        ends: When *total* is over, on the clock.
        began: When it began, on the clock.
        slow_gap: From what length on a wait between two items is slow, in seconds.
        lease: How long a probe may give no sign of life, in seconds.
    """

    where: tuple[str, str]
    clock: Callable[[], float]
    idle: float
    total: float
    ends: float
    began: float
    slow_gap: float
    lease: float

    def expired(self, scope: str, since: float, now: float) -> CallTimeout:
        """Return the error of a limit that was exceeded by what began at *since*."""
        if scope == "idle":
            return CallTimeout(*self.where, scope, self.idle, now - since)
        return CallTimeout(*self.where, scope, self.total, now - (self.ends - self.total))

    def cut_off(self, grace: float) -> CallTimeout:
        """Return the error of a stream that a shutdown has waited for *grace* seconds for."""
        return CallTimeout(*self.where, "shutdown", grace, self.clock() - self.began)


class Trouble(NamedTuple):
    """How a source ended: cleanly; with an error, if it is known; or not at all, as far as anybody knows."""

    ended: bool = False
    error: BaseException | None = None


class Items(ABC, Generic[T]):
    """
    The items of one stream, to be iterated over once.

    Made by ``provider.stream``, and good for as long as its block.
    """

    __slots__ = ("__weakref__", "_hold", "_home", "_over", "_pace", "gap")

    gap: float  # the longest wait for an item so far, in seconds

    def __init__(self, hold: Hold[Any], pace: Pace, loop: AbstractEventLoop | None) -> None:
        self._hold = hold
        self._pace = pace
        self._home = Home(loop)
        self._over = False
        self.gap = 0.0
        hold.interruptible(partial(_interrupt, ref(self)))  # whoever drops us without an end must be free to

    if TYPE_CHECKING:

        def __anext__(self) -> Awaitable[T]: ...

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    @property
    @abstractmethod
    def count(self) -> int:
        """How many items have come."""
        ...

    @property
    def kept(self) -> tuple[T, ...]:
        """The last items, as many as ``stream.keep`` asks for."""
        return ()

    def settle(self, usage: Usage) -> None:
        """
        Tell what the stream has really used up; the difference to what was reserved is given back, or taken.

        Args:
            usage: Tokens and money.
        """
        self._hold.settle(usage)

    def interrupt(self, grace: float) -> None:
        """End it, from any thread: a shutdown has waited for *grace* seconds."""
        self._home.do(partial(self._end_soon, grace))

    def _end_soon(self, grace: float) -> None:
        if not self._over:
            self._cut_off(self._pace.cut_off(grace))

    @abstractmethod
    def _cut_off(self, timeout: CallTimeout) -> None:
        """Interrupt whoever uses it because of *timeout*."""
        ...

    @abstractmethod
    def stop(self, error: BaseException | None) -> CallTimeout | None:
        """End the watch. Return our own timeout, if that is what *error*, which left the block, came from."""
        ...

    @abstractmethod
    def trouble(self, error: BaseException | None) -> Trouble:
        """Say how the source has ended, as far as *error*, which left the block, and we ourselves know."""
        ...


def _interrupt(items: ReferenceType[Items[Any]], grace: float) -> None:
    if (found := items()) is not None:
        found.interrupt(grace)


@final
class Alarm:
    """Interrupts a task as `asyncio.timeout` does, and takes it back."""

    __slots__ = ("_cancelling", "_for_good", "rung", "task")

    rung: CallTimeout | None
    task: Task[Any]

    def __init__(self, task: Task[Any]) -> None:
        self.task = task
        self.rung = None
        self._for_good = False
        self._cancelling = task.cancelling()

    def ring(self, timeout: CallTimeout, *, for_good: bool = False) -> None:
        """Interrupt the task because of *timeout*; *for_good*: nothing that comes all the same silences it."""
        self.rung, self._for_good = timeout, for_good
        self.task.cancel()

    def silence(self) -> None:
        """Take it back: what it was for has come all the same."""
        if self.rung is not None and not self._for_good:
            self.rung = None
            self.task.uncancel()

    def answer(self, error: BaseException | None) -> CallTimeout | None:
        """Take it back, and return its reason if *error* came of it alone."""
        rung, self.rung = self.rung, None
        alone = rung is not None and self.task.uncancel() <= self._cancelling
        return rung if alone and isinstance(error, CancelledError) else None
