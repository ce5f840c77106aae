"""
A call whose result comes in pieces.

======================  =========================  ===============================================================
phase                   limits                     what an error means
======================  =========================  ===============================================================
opening                 ``connect``                an attempt that failed: retried as any other
before the commit       ``first_item``             likewise; what was opened is closed first
after the commit        ``idle``, ``total``        `StreamInterrupted`: items are out, so nothing is repeated
======================  =========================  ===============================================================

The commit point is the first item, or the first one that the user's predicate says yes to. A stream is slow if it took
*slow_after* to come to its commit, or if it let us wait for a later item for *slow_after* or half the idle limit,
whichever is shorter; never because it is long.
"""

from __future__ import annotations

import copy
import math
from asyncio import Task
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import AsyncGeneratorType, TracebackType
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, cast, final

from resilience._core.words import Unset, Verdict
from resilience.call import Call
from resilience.classify import attach
from resilience.errors import CallTimeout, StreamInterrupted
from resilience.failure import Failure
from resilience.guard import here
from resilience.hedging import hedged
from resilience.hold import Hold
from resilience.plan import Plan
from resilience.runtime import ProviderRuntime
from resilience.streaming.items import Items, Pace
from resilience.streaming.source import Source, check_function, within
from resilience.streaming.steady import SteadyItems
from resilience.streaming.swift import SwiftItems
from resilience.telling import Teller

T = TypeVar("T")


Streamable: TypeAlias = (
    AsyncIterable[T]
    | AbstractAsyncContextManager[AsyncIterable[T]]
    | Awaitable[AsyncIterable[T]]
    | Awaitable[AbstractAsyncContextManager[AsyncIterable[T]]]
)
"""What a function may return that opens a stream."""


class Streamer(Protocol):
    """What a stream needs of its provider's handle."""

    def _current(self) -> ProviderRuntime: ...

    def _plan_of(self, runtime: ProviderRuntime) -> Plan: ...


class _Limits(NamedTuple):
    """How long the parts of a stream may take, in seconds."""

    connect: float
    first_item: float
    idle: float
    total: float
    callers: bool  # whether *total* is the caller's own limit, and not the settings'


class _Ending(NamedTuple):
    """What is left to do about the end of a stream."""

    cause: BaseException | None
    verdict: Verdict | None
    broke: bool


@final
class Stream(Generic[T]):
    """
    An ``async with`` block around one stream. Made by ``provider.stream``, used once.

    Args:
        provider: The handle, or the view, that makes it.
        func: Returns an async iterator, a context manager of one, or an awaitable of either.
        args: Its arguments.
        kwargs: Its keyword arguments.
        commit: Whether an item is the one from which on nothing can be repeated. Default: None, the first item is.
        complete: Whether an item is a proper last one. Default: None, any is.

    Raises:
        TypeError: *func* is no function.
    """

    __slots__ = (
        "_args",
        "_attempts",
        "_commit",
        "_complete",
        "_func",
        "_hold",
        "_items",
        "_kwargs",
        "_limits",
        "_plan",
        "_provider",
        "_runtime",
        "_source",
    )

    _hold: Hold[Source[T]]
    _items: Items[T]
    _limits: _Limits
    _plan: Plan
    _runtime: ProviderRuntime
    _source: Source[T]

    def __init__(
        self,
        provider: Streamer,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        commit: Callable[[T], object] | None = None,
        complete: Callable[[T], object] | None = None,
    ) -> None:
        check_function(func)
        self._provider = provider
        self._func = func
        self._args = args
        self._kwargs = kwargs
        self._commit = commit
        self._complete = complete
        self._attempts = -1

    async def __aenter__(self) -> Items[T]:
        if self._attempts >= 0:
            raise RuntimeError("a stream is entered once: call stream(...) again for another one")
        self._attempts = 0
        runtime = self._runtime = self._provider._current().drawn()
        plan = self._plan = self._provider._plan_of(runtime)
        limits = self._limits = self._find_limits()
        began = runtime.clock()
        if runtime.enabled:
            call = Call(runtime, _terms(plan, limits), began)
            if plan.hedge is not None:
                self._hold = Hold(*await hedged(call, self._open, (), {}, hold=True))
            else:
                self._hold = Hold(await call.run(self._open, (), {}, hold=True), call)
        else:
            self._hold = Hold(await self._open(), None)
        self._source = self._hold.value
        self._hold.renew()
        self._items = self._iterate(began)
        return self._items

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        interrupted: BaseException | None = None
        ending = self._judge(error)
        try:
            slow = self._source.seconds >= self._plan.slow_after or self._items.gap >= self._slow_gap
            failure: Failure | None = None
            if isinstance(error, GeneratorExit):  # closing may find nobody who waits for it
                self._hold.end(ending.cause, verdict=ending.verdict, slow=slow)
            try:
                await self._source.close(error)
            finally:
                failure = self._hold.end(ending.cause, verdict=ending.verdict, slow=slow)
            if ending.broke and failure is not None:
                interrupted = StreamInterrupted(*self._where, self._items.count, self._items.kept)
                attach(interrupted, failure)
                raise interrupted from ending.cause
        finally:
            del interrupted, ending, error  # they hold this frame

    @property
    def _where(self) -> tuple[str, str]:
        return self._runtime.name, self._plan.operation

    @property
    def _slow_gap(self) -> float:
        slow_after = self._plan.slow_after
        return min(slow_after, self._limits.idle / 2) if slow_after < math.inf else math.inf

    # -- before the commit -----------------------------------------------------------------------------------------

    def _find_limits(self) -> _Limits:
        plan = self._plan
        if not self._runtime.enabled:
            return _Limits(math.inf, math.inf, math.inf, math.inf, callers=False)
        stream = plan.stream
        timeout = plan.options.timeout
        own = math.inf if timeout is None or isinstance(timeout, Unset) else timeout
        if plan.options.deadline is not None:
            own = min(own, plan.options.deadline.remaining())
        total = _or_never(stream.total)
        return _Limits(
            connect=plan.limit if stream.connect is None else stream.connect,
            first_item=plan.limit if stream.first_item is None else stream.first_item,
            idle=_or_never(stream.idle),
            total=min(own, total),
            callers=own < total,
        )

    async def _open(self) -> Source[T]:
        """Make one attempt: open the source and read up to the commit point, or close it again."""
        self._attempts += 1
        began = self._runtime.clock()
        source: Source[T] = Source()
        try:
            func = self._runtime.disturbed(self._func)
            await self._phase("connect", self._limits.connect, source.open(func, self._args, self._kwargs))
            await self._phase("first_item", self._limits.first_item, source.read(self._commit))
            self._check_whole(source)
        except BaseException as error:
            await source.close(error)
            raise
        source.seconds = self._runtime.clock() - began
        return source

    async def _phase(self, scope: str, limit: float, work: Any) -> None:
        began = self._runtime.clock()

        def expired() -> CallTimeout:
            return self._timed_out(CallTimeout(*self._where, scope, limit, self._runtime.clock() - began))

        await within(limit, work, expired)

    def _timed_out(self, timeout: CallTimeout) -> CallTimeout:
        Teller(self._runtime, self._plan.operation).timed_out(timeout, self._attempts, timeout.elapsed)
        return timeout

    def _check_whole(self, source: Source[T]) -> None:
        """Refuse a stream that ended before the commit and is not complete: it can be tried again."""
        if not source.ended or self._complete is None:
            return
        if not source.buffer or not self._complete(source.buffer[-1]):
            raise StreamInterrupted(*self._where, 0, ())

    # -- after it --------------------------------------------------------------------------------------------------

    def _iterate(self, began: float) -> Items[T]:
        task, loop = here()
        limits, keep = self._limits, self._plan.stream.keep
        pace = Pace(
            where=self._where,
            clock=self._runtime.clock,
            idle=limits.idle,
            total=limits.total,
            ends=began + limits.total,
            began=began,
            slow_gap=self._slow_gap,
            lease=self._runtime.breaker.circuit.rules.probe_lease,
        )
        source, hold, complete = self._source, self._hold, self._complete
        mine = cast("Task[Any]", task) if loop is not None else None  # trio interrupts by scopes
        plain = not keep and complete is None and type(source.iterator) is AsyncGeneratorType
        if mine is not None and loop is not None and plain:
            return SwiftItems(source, hold, pace, task=mine, loop=loop)
        return SteadyItems(source, hold, pace, task=mine, loop=loop, keep=keep, complete=complete)

    def _judge(self, error: BaseException | None) -> _Ending:
        """Say what the end of the stream means: whose it is, and what comes out of the block."""
        timeout = self._items.stop(error)
        trouble = self._items.trouble(error)
        cause = timeout if timeout is not None else trouble.error
        if isinstance(cause, Exception):
            verdict = None
            if isinstance(cause, CallTimeout):
                self._timed_out(cause)
                verdict = Verdict.IGNORED if cause.scope == "total" and self._limits.callers else None
            raw = not self._runtime.enabled or isinstance(cause, StreamInterrupted)
            mine = timeout is not None or cause is error
            return _Ending(cause, verdict, broke=mine and not raw)
        if trouble.ended:
            return _Ending(None, Verdict.SUCCESS, broke=False)
        cancelled = None if isinstance(error, Exception) else error
        return _Ending(cancelled, Verdict.IGNORED, broke=False)


def _terms(plan: Plan, limits: _Limits) -> Plan:
    """Return the terms of the attempts to open a stream: they are limited in parts, and what they return is none."""
    terms = copy.copy(plan)
    terms.total = min(plan.total, limits.total)
    terms.limit = min(limits.connect + limits.first_item, terms.total)
    terms.own_limit = True
    terms.options = replace(plan.options, accept=None, usage=None, coalesce=None)
    return terms


def _or_never(limit: float | None) -> float:
    return limit if limit is not None else math.inf
