"""
Where the items of a batch come from, one by one and no earlier than somebody has use for them.

An async source is iterated, and closed, in one task of its own: a generator may hold cancel scopes and context
variables across its ``yield``, and may not be asked by two at once.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from typing import Any, TypeGuard, final

import anyio

_log = logging.getLogger("resilience.batch")

_CLOSING = 10.0
"""How long a source's own clean-up may take, in seconds."""


@final
class Shelf:
    """
    A synchronous source.

    Attributes:
        count: How many items were taken.
        error: What the source has raised.
        over: Whether nothing more comes.
    """

    __slots__ = ("_iterator", "count", "error", "over")

    count: int
    error: Exception | None
    over: bool

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self.count = 0
        self.error = None
        self.over = False

    async def take(self) -> tuple[int, Any] | None:
        """Return the next item and its number; None if there is none."""
        if self.over:
            return None
        try:
            item = next(self._iterator)
        except StopIteration:
            self.over = True
            return None
        except Exception as error:
            self.over, self.error = True, error
            return None
        number = self.count
        self.count += 1
        return number, item

    def close(self) -> None:
        """Close a generator; other iterators are not ours to close."""
        self.over = True
        if _is_generator(self._iterator):
            try:
                self._iterator.close()
            except Exception:
                _complain()


@final
class _Ask:
    """Somebody who waits for an item."""

    __slots__ = ("event", "found")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.found: tuple[int, Any] | None = None


@final
class Feed:
    """
    An asynchronous source.

    Attributes:
        count: How many items were taken.
        error: What the source has raised.
        over: Whether nothing more comes.
    """

    __slots__ = ("_asked", "_asks", "_iterator", "count", "error", "over")

    count: int
    error: Exception | None
    over: bool

    def __init__(self, iterator: AsyncIterator[Any]) -> None:
        self._iterator = iterator
        self._asks: deque[_Ask] = deque()
        self._asked = anyio.Event()
        self.count = 0
        self.error = None
        self.over = False

    async def take(self) -> tuple[int, Any] | None:
        """Wait for the next item and return it with its number; None if there is none."""
        if self.over:
            return None
        ask = _Ask()
        self._asks.append(ask)
        self._asked.set()
        await ask.event.wait()
        return ask.found

    async def run(self) -> None:
        """Ask the source for as many items as somebody waits for, until it ends or this is cancelled; then close it."""
        try:
            while True:
                while not self._asks:
                    self._asked = anyio.Event()
                    await self._asked.wait()
                item = await anext(self._iterator)
                ask = self._asks.popleft()
                ask.found = self.count, item
                self.count += 1
                ask.event.set()
        except StopAsyncIteration:
            pass
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            self.error = RuntimeError("the source of a batch waited for something that was cancelled")
        except Exception as error:
            self.error = error
        finally:
            self.over = True
            while self._asks:
                self._asks.popleft().event.set()
            await self._close()

    async def _close(self) -> None:
        if _is_async_generator(self._iterator):
            with anyio.move_on_after(_CLOSING, shield=True):
                try:
                    await self._iterator.aclose()
                except Exception:
                    _complain()


def _is_generator(iterator: object) -> TypeGuard[Generator[Any, Any, Any]]:
    return isinstance(iterator, Generator)


def _is_async_generator(iterator: object) -> TypeGuard[AsyncGenerator[Any, Any]]:
    return isinstance(iterator, AsyncGenerator)


def _complain() -> None:
    _log.exception("the source of a batch failed to close", extra={"component": "batch"})


def is_cancelled() -> bool:
    """Whether somebody has asked the running asyncio task to end."""
    loop = asyncio._get_running_loop()
    task = asyncio.current_task(loop) if loop is not None else None
    return task is not None and task.cancelling() > 0


# -- slips -------------------------------------------------------------------------------------------------------------


def check_function(func: object) -> None:
    """Refuse what is no async function of one item."""
    if inspect.iscoroutine(func):
        func.close()
        raise TypeError(f"map() takes a function, not a coroutine: write map({func.__name__}, items), without a call")
    if not callable(func):
        raise TypeError(f"map() takes an async function of one item first, not {type(func).__name__}")
    if inspect.isasyncgenfunction(func) or inspect.isgeneratorfunction(func):
        raise TypeError(
            "map() takes an async function that returns a result, and "
            f"{getattr(func, '__qualname__', 'this')} is a generator, which returns none"
        )


def check_items(items: object) -> None:
    """Refuse what is no source of items."""
    if isinstance(items, str | bytes | bytearray):
        raise TypeError(f"map() takes many items, and this is one {type(items).__name__}: write [item] if it is meant")
    if inspect.iscoroutine(items):
        items.close()
        raise TypeError("map() takes items, not a coroutine that brings them: await it first")
    if not isinstance(items, Iterable | AsyncIterable):
        slip = ": were they called for? write items()" if callable(items) else ""
        raise TypeError(f"map() takes an iterable or an async iterable of items, not {type(items).__name__}{slip}")


def check_progress(progress: object) -> None:
    """Refuse what is no callback."""
    if progress is not None and not callable(progress):
        raise TypeError(f"map(progress=...) takes a function of (done, total, outcome), not {type(progress).__name__}")
    if inspect.iscoroutinefunction(progress):
        raise TypeError(
            "map(progress=...) takes a synchronous function: it is called between two calls and not awaited"
        )
