"""
Batches: one function over many items, so many at a time, and an `Outcome` for each.

Workers take items from the source as they get free, so a source of a million items is never held in memory, and a call
costs no task of its own. What a call leaves behind in its task, the next one must not find: a worker whose context
variables were changed is replaced.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import warnings
from collections import OrderedDict, deque
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Generator, Iterable, Sized
from contextvars import copy_context
from types import TracebackType
from typing import Any, Generic, NamedTuple, NoReturn, TypeAlias, TypeVar, final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from resilience._supply import Feed, Shelf, check_function, check_items, check_progress, is_cancelled
from resilience.errors import ConfigurationError
from resilience.outcome import Outcome

S = TypeVar("S")
T = TypeVar("T")

_log = logging.getLogger("resilience.batch")

_BREATH = 100
"""After how many items a worker lets others run although none of its calls has waited: a row of refusals does not."""

Progress: TypeAlias = Callable[[int, int | None, Outcome[T]], object]
"""Told after each call: how many are done, of how many (None: nobody knows), and how this one ended."""


TryExecute: TypeAlias = Callable[..., Coroutine[Any, Any, Outcome[Any]]]
"""What makes one call, such as `ResilientProvider.try_execute`: awaits a function with one item."""


@final
class _Terms(NamedTuple, Generic[T]):
    """What a batch was asked for."""

    execute: TryExecute
    func: Callable[[Any], Awaitable[T]]
    items: Iterable[Any] | AsyncIterable[Any]
    name: str
    concurrency: int
    ordered: bool
    fail_fast: bool
    buffer: int
    progress: Progress[T] | None


@final
class Batch(Generic[T]):
    """
    One function over many items. Made by `ResilientProvider.map`, used once.

    Awaited, it returns the outcomes as a list::

        outcomes = await provider.map(embed, texts, concurrency=8)

    Entered, it gives them one by one, with their items' numbers, and makes no more calls than are asked for::

        async with provider.map(embed, texts, concurrency=8) as outcomes:
            async for number, outcome in outcomes:
                ...

    Leaving early, by whatever way, ends the calls under way and closes the source. An error of the source itself comes
    out when the calls that had been started are done.

    Args:
        execute: Makes one call and returns its outcome.
        func: An async function of one item.
        items: An iterable or an async iterable, taken from as calls get free. A generator is closed in the end.
        name: Whose calls they are; it stands in errors and logs.
        concurrency: How many calls run at the same time. Default: 10.
        ordered: Whether the outcomes come in the order of their items, or as calls end. Default: in order.
        fail_fast: Whether the first call that does not succeed ends the batch with its error. Default: no.
        buffer: How many calls may be done and not yet taken, when outcomes are taken one by one. Default:
            *concurrency*.
        progress: Called after each call with the number of calls done, the number of items or None, and the outcome.

    Raises:
        ConfigurationError: A number makes no sense.
        TypeError: *func*, *items* or *progress* are not what they should be.
    """

    __slots__ = ("_entered", "_group", "_terms", "_used")

    def __init__(
        self,
        execute: TryExecute,
        func: Callable[[S], Awaitable[T]],
        items: Iterable[S] | AsyncIterable[S],
        *,
        name: str = "batch",
        concurrency: int = 10,
        ordered: bool = True,
        fail_fast: bool = False,
        buffer: int | None = None,
        progress: Progress[T] | None = None,
    ) -> None:
        self._used = True  # until it could be: what is refused here, nobody has forgotten
        check_function(func)
        check_items(items)
        _check_number("concurrency", concurrency, 1)
        buffer = concurrency if buffer is None else buffer
        _check_number("buffer", buffer, 0)
        check_progress(progress)
        self._terms = _Terms(execute, func, items, name, concurrency, ordered, fail_fast, buffer, progress)
        self._used = False

    def _run(self, *, bounded: bool) -> Outcomes[T]:
        if self._used:
            raise RuntimeError("a batch is used once: make a new one with map(...)")
        self._used = True
        return Outcomes(self._terms, bounded=bounded)

    def __await__(self) -> Generator[Any, Any, list[Outcome[T]]]:
        return self._run(bounded=False).collect().__await__()

    async def __aenter__(self) -> Outcomes[T]:
        self._entered = outcomes = self._run(bounded=True)
        self._group: TaskGroup = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(outcomes.drive)
        return outcomes

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The body's error is not told to the group, which would come out as a group of errors.
        self._group.cancel_scope.cancel()
        try:
            await self._group.__aexit__(None, None, None)
        finally:
            self._entered.end()

    def __aiter__(self) -> NoReturn:
        raise TypeError("write `async with provider.map(...) as outcomes:` and iterate over the outcomes inside")

    def __del__(self) -> None:
        if not self._used:
            warnings.warn("a batch was made and never awaited: no call was made", RuntimeWarning, stacklevel=2)


@final
class Outcomes(Generic[T]):
    """The outcomes of a batch under way: iterates over the number and the `Outcome` of each item."""

    __slots__ = (
        "_done",
        "_ended",
        "_failure",
        "_func",
        "_idle",
        "_pristine",
        "_ready",
        "_reserved",
        "_room",
        "_slip",
        "_source",
        "_stopping",
        "_taken",
        "_taker",
        "_tasks",
        "_terms",
        "_total",
        "_workers",
    )

    def __init__(self, terms: _Terms[T], *, bounded: bool) -> None:
        items = terms.items
        self._terms = terms
        self._func: Callable[[Any], Awaitable[T]] = self._first_call
        self._source: Feed | Shelf = Feed(aiter(items)) if isinstance(items, AsyncIterable) else Shelf(iter(items))
        self._room = terms.concurrency + terms.buffer if bounded else math.inf
        self._total = len(items) if isinstance(items, Sized) else None
        self._pristine = copy_context()
        self._tasks: TaskGroup = anyio.create_task_group()
        self._ready: OrderedDict[int, Outcome[T]] = OrderedDict()
        self._idle: deque[anyio.Event] = deque()
        self._taker: anyio.Event | None = None
        self._failure: BaseException | None = None
        self._slip = ""
        self._ended = False
        self._stopping = False
        self._workers = self._reserved = self._taken = self._done = 0

    # -- taking ----------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Outcomes[T]:
        return self

    async def __anext__(self) -> tuple[int, Outcome[T]]:
        while True:
            self._raise_failure()
            if self._ready and (not self._terms.ordered or self._taken in self._ready):
                return self._take()
            if self._ended:
                await self._check_end()
                raise StopAsyncIteration
            await self._wait()

    def _take(self) -> tuple[int, Outcome[T]]:
        number = self._taken if self._terms.ordered else next(iter(self._ready))
        outcome = self._ready.pop(number)
        self._taken += 1
        if self._idle:
            self._idle.popleft().set()
        return number, outcome

    async def _wait(self) -> None:
        if self._taker is not None:
            raise RuntimeError("the outcomes of one batch are taken by one task")
        self._taker = anyio.Event()
        try:
            await self._taker.wait()
        finally:
            self._taker = None

    async def collect(self) -> list[Outcome[T]]:
        """Make all calls and return their outcomes."""
        try:
            await self.drive()
            self._raise_failure()
            await self._check_end()
            if self._terms.ordered:
                return [self._ready[number] for number in range(len(self._ready))]
            return list(self._ready.values())
        finally:
            self.end()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        try:
            if failure is not None:
                raise failure
        finally:
            del failure  # it holds this frame

    async def _check_end(self) -> None:
        """Raise what the source has raised, or say that calls are missing."""
        source = self._source
        self._failure, source.error = source.error, None
        self._raise_failure()
        if self._done < source.count and not self._stopping:
            await anyio.lowlevel.checkpoint()  # we are cancelled, most likely
            lost = source.count - self._done
            raise RuntimeError(f"{self._terms.name}: {lost} of the calls of a batch cancelled the tasks they ran in")

    # -- working ---------------------------------------------------------------------------------------------------

    async def drive(self) -> None:
        """Make the calls, in tasks that end with this one."""
        try:
            async with self._tasks:
                if isinstance(self._source, Feed):
                    self._tasks.start_soon(self._source.run)
                self._start_worker()
        finally:
            self._ended = True
            self._tell_taker()

    def end(self) -> None:
        """Close the source, and drop what nobody has taken: errors hold frames, and those hold this object."""
        if isinstance(self._source, Shelf):  # a feed ends with its task
            self._source.close()
        self._failure = self._source.error = None
        self._func = self._terms.func
        self._ready = OrderedDict()

    def _start_worker(self) -> None:
        self._workers += 1
        self._pristine.run(self._tasks.start_soon, self._work)

    async def _work(self) -> None:
        """Take one item after the other until there are no more."""
        try:
            while (found := await self._next()) is not None:
                number, item = found
                if self._workers < self._terms.concurrency:
                    self._start_worker()
                try:
                    outcome = await self._terms.execute(self._func, item)
                except asyncio.CancelledError as error:
                    if is_cancelled():
                        raise
                    outcome = self._lost(number, error)
                self._finish(number, outcome)
                del outcome  # its error's traceback may lead back to this frame
                if not number % _BREATH:
                    await anyio.lowlevel.checkpoint()
                if self._is_soiled():
                    self._start_worker()
                    return
        finally:
            self._workers -= 1

    async def _next(self) -> tuple[int, Any] | None:
        """Wait until there is room for one more outcome, and take an item; None if there is none."""
        # Fewer workers wait than outcomes are to be taken, and each that is taken wakes one: nobody waits for ever.
        while self._reserved - self._taken >= self._room:
            self._idle.append(event := anyio.Event())
            await event.wait()
        self._reserved += 1
        return None if self._stopping else await self._source.take()

    def _is_soiled(self) -> bool:
        """Whether a call has left something behind in this task's context."""
        try:
            return copy_context() != self._pristine
        except Exception:  # values may compare as they like
            return True

    def _finish(self, number: int, outcome: Outcome[T]) -> None:
        self._ready[number] = outcome
        self._done += 1
        if self._terms.progress is not None:
            try:
                self._terms.progress(self._done, self._total, outcome)
            except Exception:
                _log.exception("a progress callback failed", extra={"component": "batch", "provider": self._terms.name})
        if self._slip:
            self._fail(TypeError(self._slip))
        elif self._terms.fail_fast and (error := outcome.error) is not None:
            self._fail(error)
        elif not self._terms.ordered or number == self._taken:
            self._tell_taker()

    def _fail(self, error: Exception) -> None:
        """End the batch with *error*, the first of them."""
        if not self._stopping:
            self._stopping = True
            self._failure = error
            self._tasks.cancel_scope.cancel()
            self._tell_taker()

    def _tell_taker(self) -> None:
        if self._taker is not None:
            self._taker.set()

    def _lost(self, number: int, error: BaseException) -> Outcome[T]:
        """Return the outcome of a call that came out as cancelled although nobody has cancelled it."""
        told = RuntimeError(f"{self._terms.name}: the call of item {number} waited for something that was cancelled")
        told.__cause__ = error.with_traceback(None)
        return Outcome(None, told)

    def _first_call(self, item: Any) -> Awaitable[T]:
        """Call the function, and see whether it is one that can be awaited; then it need not be looked at again."""
        awaitable = self._terms.func(item)
        if not inspect.isawaitable(awaitable):
            name = getattr(self._terms.func, "__qualname__", None) or type(self._terms.func).__name__
            self._slip = (
                f"map() awaits what {name} returns, and {type(awaitable).__name__} cannot be awaited. If {name} is a "
                f"synchronous function, write map(partial(anyio.to_thread.run_sync, {name}), ...)"
            )
            raise TypeError(self._slip)
        self._func = self._terms.func
        return awaitable


def _check_number(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"map({name}={value!r}): expected a whole number, {least} or more")
