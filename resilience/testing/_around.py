"""
Faults around what a function returns, whatever shape it has: a coroutine, a stream, a context manager.

The shape stays: what could be awaited can be awaited, what could be iterated over can be iterated over.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Generator
from functools import wraps
from types import TracebackType
from typing import Any, Self, TypeVar, final

import anyio

from resilience.results import dispose
from resilience.testing.fault import Fault, FaultKind, error_for

_T = TypeVar("_T")


@final
class Turn:
    """
    What is to happen to one call.

    Args:
        fault: What.
        call: The call's number.
        record: Notes that it has happened.
    """

    __slots__ = ("call", "fault", "record")

    def __init__(self, fault: Fault, call: int, record: Callable[[FaultKind], None]) -> None:
        self.fault = fault
        self.call = call
        self.record = record

    async def strike(self) -> None:
        """Do what happens to the call before it reaches its target."""
        fault = self.fault
        self.announce()
        if fault.latency:
            await anyio.sleep(fault.latency)
        if fault.kind is FaultKind.HANG:
            await anyio.sleep_forever()
        if fault.kind in (FaultKind.PARTITION, FaultKind.EXHAUSTED_POOL):
            await pause(fault.lasts)
        if fault.kind not in (FaultKind.OK, FaultKind.LATENCY, FaultKind.LOST_ANSWER) and not fault.of_streams:
            raise error_for(fault, self.call)

    def announce(self) -> None:
        """Note what is about to happen; what happens to a stream is noted when it comes to that."""
        kind = self.fault.kind
        if kind in (FaultKind.OK, FaultKind.LATENCY) or self.fault.of_streams:
            if self.fault.latency:
                self.record(FaultKind.LATENCY)
        else:
            self.record(kind)

    async def answered(self, result: Any) -> Any:
        """Do what happens to the target's result."""
        if self.fault.kind is FaultKind.LOST_ANSWER:
            await dispose(result)
            raise error_for(self.fault, self.call)
        return self.around(result)

    def around(self, result: Any) -> Any:
        """Return a stream with the fault in it; everything else as it is."""
        return Items(result, self) if self.fault.of_streams and hasattr(result, "__aiter__") else result


async def pause(seconds: float) -> None:
    """Sleep, for ever if need be."""
    await (anyio.sleep_forever() if seconds == math.inf else anyio.sleep(seconds))


def wrap(func: Callable[..., Any], turn: Callable[[str], Turn]) -> Callable[..., Any]:
    """Put a turn around each call of *func*."""
    name = getattr(func, "__qualname__", None) or type(func).__qualname__

    if inspect.iscoroutinefunction(func):

        @wraps(func)
        async def faulty(*args: Any, **kwargs: Any) -> Any:
            mine = turn(name)
            await mine.strike()
            return await mine.answered(await func(*args, **kwargs))

        return faulty

    def shaped(*args: Any, **kwargs: Any) -> Any:
        return _shaped(func(*args, **kwargs), turn(name), name)

    # Not everything that can be called has a name and a docstring to take over: `wraps` takes what there is.
    return wraps(func)(shaped)


def items(source: AsyncIterable[_T], turn: Turn) -> AsyncIterator[_T]:
    """Put a turn around a stream."""
    if not hasattr(source, "__aiter__"):
        raise TypeError(f"items() takes an async iterator, not {type(source).__name__}")
    return Items(source, turn, begins=True)


def _shaped(made: Any, turn: Turn, name: str) -> Any:
    awaitable = inspect.isawaitable(made)
    if hasattr(made, "__aiter__") and not awaitable:
        return Items(made, turn, begins=True)
    if hasattr(made, "__aenter__"):
        return AwaitableContext(made, turn) if awaitable else Context(made, turn)
    if awaitable:
        return Awaited(made, turn)
    raise TypeError(f"faults go around async functions: {name} returned {type(made).__name__}, which cannot be awaited")


async def _awaited(made: Awaitable[Any], turn: Turn) -> Any:
    try:
        await turn.strike()
    except BaseException:
        _drop(made)
        raise
    return await turn.answered(await made)


def _drop(made: object) -> None:
    """Close a coroutine that did not begin, or Python would complain that it was never awaited."""
    if isinstance(made, Coroutine):
        made.close()


@final
class Awaited(Coroutine[Any, Any, Any]):
    """A coroutine around one that was made already, which it takes with it if it is closed before it began."""

    def __init__(self, made: Awaitable[Any], turn: Turn) -> None:
        self._made = made
        self._outer = _awaited(made, turn)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._outer.__await__()

    def send(self, value: Any, /) -> Any:
        """Go on, as the event loop asks for it."""
        return self._outer.send(value)

    def throw(self, *args: Any) -> Any:
        """Raise something inside, as the event loop asks for it."""
        return self._outer.throw(*args)

    def close(self) -> None:
        """End it."""
        self._outer.close()
        _drop(self._made)


@final
class Items(AsyncIterator[_T]):
    """
    A stream with a fault in it; everything but the iteration is the stream's own.

    Args:
        source: The stream.
        turn: What happens to it.
        begins: Whether the call begins with the first item. Default: no, it was made already.
    """

    def __init__(self, source: AsyncIterable[_T], turn: Turn, *, begins: bool = False) -> None:
        self._source: Any = source
        self._iterator: AsyncIterator[_T] | None = None
        self._turn = turn
        self._waits = begins
        self._left = turn.fault.items
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        if self._over:
            raise StopAsyncIteration
        try:
            await self._before()
        except BaseException:
            self._over = True  # as an async generator that has raised
            raise
        if self._iterator is None:
            self._iterator = aiter(self._source)
        item = await anext(self._iterator)
        self._left -= 1
        return item

    async def _before(self) -> None:
        turn = self._turn
        if self._waits:
            self._waits = False
            await turn.strike()
            if turn.fault.kind is FaultKind.LOST_ANSWER:
                raise error_for(turn.fault, turn.call)
        if self._left == 0 and turn.fault.of_streams:
            self._left -= 1
            turn.record(turn.fault.kind)
            if turn.fault.kind is FaultKind.CUT:
                await self._end()  # one that raised by itself would be over, too
                raise error_for(turn.fault, turn.call)
            await pause(turn.fault.lasts)

    async def __aenter__(self) -> Items[_T]:
        if hasattr(self._source, "__aenter__"):
            await self._source.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> object:
        if hasattr(self._source, "__aexit__"):
            return await self._source.__aexit__(kind, error, traceback)
        await self.aclose()
        return None

    async def aclose(self) -> None:
        """Close the stream, as far as it can be closed."""
        await self._end()
        if hasattr(self._source, "aclose"):
            await self._source.aclose()

    async def _end(self) -> None:
        self._over = True
        iterator: object = self._iterator
        if inspect.isasyncgen(iterator):
            await dispose(iterator)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)  # among others `close`, `response`


class Context:
    """An async context manager that is entered through a turn."""

    def __init__(self, inner: Any, turn: Turn) -> None:
        self._inner = inner
        self._turn = turn

    async def __aenter__(self) -> Any:
        await self._turn.strike()
        if self._turn.fault.kind is FaultKind.LOST_ANSWER:
            raise error_for(self._turn.fault, self._turn.call)
        return self._turn.around(await self._inner.__aenter__())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Any:
        return await self._inner.__aexit__(kind, error, traceback)


@final
class AwaitableContext(Context):
    """One that may be awaited instead."""

    def __await__(self) -> Generator[Any, Any, Any]:
        return _awaited(self._inner, self._turn).__await__()
