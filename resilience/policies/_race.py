"""
Two attempts at one thing: the first that succeeds counts, and the other one is cancelled and waited for.

======================  ===========================================================================================
what happens            what follows
======================  ===========================================================================================
the first succeeds      it counts; the second is cancelled, or never starts
the second succeeds     it counts; the first is cancelled
one fails               the other decides; if the second was never started, it may start now
both fail               nobody wins; both errors are kept
an exit (SystemExit)    it ends the other one, and comes out
the caller cancels      both end, and nothing is returned
======================  ===========================================================================================

The first attempt runs in the caller's own task, so a call that is never hedged behaves as if it could not be. What a
loser returns all the same, and what the caller was not there to take, is closed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeAlias, TypeVar, cast, final

import anyio

from resilience.results import dispose

T = TypeVar("T")

FIRST: Final = 0
SECOND: Final = 1

Attempt: TypeAlias = Callable[[], Awaitable[T]]


@final
class Race(Generic[T]):
    """
    One race.

    Attributes:
        errors: What the attempts have failed with.
        launched: Whether the second attempt was started.
        winner: Which attempt succeeded first.
    """

    __slots__ = ("_over", "_scopes", "_value", "errors", "launched", "winner")

    errors: list[BaseException | None]
    launched: bool
    winner: int | None

    def __init__(self) -> None:
        self._scopes = (anyio.CancelScope(), anyio.CancelScope())
        self._over = False
        self._value: T | None = None
        self.errors = [None, None]
        self.launched = False
        self.winner = None

    @property
    def undecided(self) -> bool:
        """Whether a result would still win."""
        return self.winner is None and not self._over

    @property
    def value(self) -> T:
        """What the winner returned."""
        return cast("T", self._value)

    async def run(
        self, first: Attempt[T], launch: Callable[[], Awaitable[Attempt[T] | None]], delay: float | None
    ) -> None:
        """
        Run until an attempt has succeeded or none is left.

        Args:
            first: The first attempt.
            launch: Returns the second one, or None if there shall be none; it is asked after *delay*, or when the
                first has failed before that.
            delay: In seconds; None: only if the first fails.
        """
        if delay is None:
            await self._take(FIRST, first)
        else:
            await self._run_both(first, launch, delay)
        if isinstance(self.errors[FIRST], Exception) and not self.launched:
            await self._take_second(launch)
        self._raise_exit()

    async def abandon(self) -> None:
        """Close what the winner returned: the caller has gone while the loser was being waited for."""
        if self.winner is not None:
            await dispose(self._value)

    def stop(self) -> None:
        """Let no second attempt start, or end it: there is nothing left to win, whatever it returns."""
        self._over = True
        self._scopes[SECOND].cancel()

    def _raise_exit(self) -> None:
        for error in self.errors:
            if error is not None and not isinstance(error, Exception):
                raise error

    async def _run_both(
        self, first: Attempt[T], launch: Callable[[], Awaitable[Attempt[T] | None]], delay: float
    ) -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._wait, launch, delay)
                with self._scopes[FIRST]:
                    await self._take(FIRST, first)
                if not self.launched:
                    self._scopes[SECOND].cancel()
        except BaseExceptionGroup as broken:  # only of scopes: an attempt has left one of its own open
            raise broken.exceptions[0] from None

    async def _wait(self, launch: Callable[[], Awaitable[Attempt[T] | None]], delay: float) -> None:
        with self._scopes[SECOND]:
            await anyio.sleep(delay)
            if self.errors[FIRST] is None and self.winner is None:  # both can happen in one tick
                await self._take_second(launch)

    async def _take_second(self, launch: Callable[[], Awaitable[Attempt[T] | None]]) -> None:
        attempt = await launch()
        if attempt is not None:
            self.launched = True
            await self._take(SECOND, attempt)

    async def _take(self, number: int, attempt: Attempt[T]) -> None:
        try:
            value = await attempt()
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            raise
        except BaseException as error:
            self.errors[number] = error
            if not isinstance(error, Exception):  # an exit: it is the end of the other one, too
                self._scopes[1 - number].cancel()
            return
        if self.undecided:
            self.winner, self._value = number, value
            self._scopes[1 - number].cancel()
        elif value is not self._value:
            await dispose(value)

    def forget(self) -> None:
        """Drop the errors: they hold the frames that hold the race."""
        self.errors = [None, None]
        self._value = None
