"""Where a stream's items come from: opening it, whatever shape it has, and closing it, however it ends."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import sys
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Generic, TypeVar, cast, final

import anyio

from resilience.errors import CallTimeout
from resilience.guard import running_trio

T = TypeVar("T")

_log = logging.getLogger("resilience.stream")

PATIENCE: Final = 5.0
"""Closing a source takes no longer than this, in seconds."""


def check_function(func: object) -> None:
    """
    Refuse what is not a function, with what was probably meant.

    Raises:
        TypeError: *func* cannot be called.
    """
    if callable(func):
        return
    name, what = getattr(func, "__qualname__", type(func).__name__), _with_article(func)
    if inspect.iscoroutine(func):
        func.close()
    called = inspect.iscoroutine(func) or inspect.isasyncgen(func)
    slip = f": write stream({name}, ...) instead of stream({name}(...))" if called else ""
    raise TypeError(f"stream() takes a function and its arguments, not {what}{slip}")


def _has(thing: object, *methods: str) -> bool:
    return all(hasattr(type(thing), name) for name in methods)


def _with_article(thing: object) -> str:
    name = type(thing).__name__
    return f"an {name}" if name[:1] in "aeiou" else f"a {name}"


async def within(limit: float, waiting: Awaitable[T], expired: Callable[[], CallTimeout]) -> T:
    """
    Await *waiting* for at most *limit* seconds.

    Raises:
        CallTimeout: What *expired* makes, if it took longer.
    """
    if trio := running_trio():
        with trio.CancelScope(deadline=trio.current_time() + limit):
            return await waiting
        raise expired()
    scope = asyncio.timeout(limit if limit < math.inf else None)
    try:
        async with scope:
            return await waiting
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise expired() from error


@final
class Source(Generic[T]):
    """
    What one attempt has opened.

    Attributes:
        buffer: The items read up to the commit point.
        ended: Whether it ended before there was one.
        iterator: Where further items come from.
        seconds: How long it took to come so far.
    """

    __slots__ = ("_manager", "_scoped", "buffer", "ended", "iterator", "seconds")

    buffer: list[T]
    ended: bool
    iterator: AsyncIterator[T]
    seconds: float

    def __init__(self) -> None:
        self.buffer = []
        self.ended = False
        self.seconds = 0.0
        self._manager: AbstractAsyncContextManager[object] | None = None
        self._scoped = False

    async def open(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """
        Call *func* and open what it returns.

        Raises:
            TypeError: It returns nothing that could be a stream.
        """
        opened: object = func(*args, **kwargs)
        if inspect.isawaitable(opened):
            opened = await opened
        target = opened
        if _has(opened, "__aenter__", "__aexit__"):
            manager = cast("AbstractAsyncContextManager[object]", opened)
            before = _innermost_scope()
            target = await type(manager).__aenter__(manager)
            self._manager = manager
            self._scoped = _innermost_scope() is not before
        if not _has(target, "__aiter__"):
            name = getattr(func, "__qualname__", type(func).__name__)
            raise TypeError(
                f"stream() iterates over what {name} returns, and {_with_article(target)} is no asynchronous iterable: "
                f"it takes an async generator, an asynchronous iterator, a context manager of one, or an awaitable of "
                f"either" + (". For a single result write execute()" if target is opened else "")
            )
        self.iterator = aiter(cast("AsyncIterable[T]", target))

    async def read(self, commit: Callable[[T], object] | None) -> None:
        """Read up to the commit point: the first item, or the first one that *commit* says yes to."""
        while True:
            try:
                item = await anext(self.iterator)
            except StopAsyncIteration:
                self.ended = True
                return
            self.buffer.append(item)
            if commit is None or commit(item):
                return

    async def aclose(self) -> None:
        """Close it: nobody wants it any more."""
        await self.close(None)

    async def close(self, error: BaseException | None) -> None:
        """
        Close what was opened, for at most `PATIENCE` seconds, shielded from the cancellation around us.

        What closing raises is logged: it never takes the place of what the stream ended with.

        Args:
            error: What the stream ended with, for the context manager it came from.
        """
        if self._is_closed:
            return
        try:
            if isinstance(error, GeneratorExit):  # nothing runs us: there may be no loop, and no time to wait
                await self._close(error)
            elif self._scoped and running_trio() is None:  # its own scope is still open inside: none may cross it
                async with asyncio.timeout(PATIENCE):
                    await self._close(error)
            else:
                with anyio.move_on_after(PATIENCE, shield=True):
                    await self._close(error)
        except Exception:
            _log.warning("a source could not be closed", exc_info=True, extra={"component": "stream"})

    @property
    def _is_closed(self) -> bool:
        """Whether there is nothing to do: the usual end of a generator."""
        iterator: object = getattr(self, "iterator", None)
        return self._manager is None and inspect.isasyncgen(iterator) and iterator.ag_frame is None

    async def _close(self, error: BaseException | None) -> None:
        iterator: object = getattr(self, "iterator", None)
        manager, self._manager = self._manager, None
        try:
            if manager is None or inspect.isasyncgen(iterator):  # else the manager closes what it gave us
                await _close_iterator(iterator)
        finally:
            if manager is not None:
                kind, traceback = (type(error), error.__traceback__) if error is not None else (None, None)
                await type(manager).__aexit__(manager, kind, error, traceback)


async def _close_iterator(iterator: object) -> None:
    close = getattr(iterator, "aclose", None) or getattr(iterator, "close", None)
    if callable(close):
        closing = close()
        if inspect.isawaitable(closing):
            await closing


def _innermost_scope() -> object:
    """Return anyio's innermost scope of this task on asyncio: a context manager may leave one of its own open."""
    backend: Any = sys.modules.get("anyio._backends._asyncio")
    if backend is None or asyncio._get_running_loop() is None:
        return None
    states = getattr(backend, "_task_states", {})
    return getattr(states.get(asyncio.current_task()), "cancel_scope", None)
