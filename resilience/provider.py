"""
The front door: `ResilientProvider`.

`ResilientProvider.execute` is written for the case that nothing is wrong. One test at the door (is the lane's door
open, and is this the lane's thread and loop?) and one at the exit (same period, same window bucket, not slow) are all
that a successful call pays for, beside its entry in the lane. Everything else is a `Call`, one frame further down.
"""

from __future__ import annotations

from asyncio import CancelledError, Task
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Never, ParamSpec, TypeVar, final, overload

from resilience._core.states import Period, Permit
from resilience._core.words import Verdict
from resilience.attempts import Attempts
from resilience.batch import Batch, Progress
from resilience.call import Call
from resilience.coalescing import coalesced
from resilience.errors import CircuitOpen
from resilience.followed import follow
from resilience.guard import late_error
from resilience.handle import Handle
from resilience.hedging import hedged
from resilience.hold import Hold, Light
from resilience.lane import Lane, get_ident, task_of
from resilience.outcome import Outcome
from resilience.registry import ProviderRegistry, key_of, known, runtime_of
from resilience.runtime import CIRCUIT_OPEN, ProviderRuntime
from resilience.streaming.stream import Stream, Streamable
from resilience.telling import Teller

if TYPE_CHECKING:
    from resilience.routing.fallback import FallbackChain
    from resilience.routing.tried import On

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


@final
class ResilientProvider(Handle):
    """
    A handle on one provider: calls made through it are protected.

    A handle is cheap, so make one where you need it. All handles of one name in one registry share one state; two
    names share nothing.

    Args:
        name: The provider's name: ``a-z``, ``0-9``, ``_``, ``.`` and ``-``.
        endpoint: Narrows it to a region, host or key: own breaker and window, the provider's gate and retry budget.
        registry: Where its state lives. Default: the registry of this process, built from the environment.

    Raises:
        ConfigurationError: The name is not one, or the environment holds something that makes no sense.
    """

    __slots__ = ()

    def __new__(
        cls, name: str, *, endpoint: str | None = None, registry: ProviderRegistry | None = None
    ) -> ResilientProvider:
        """Return the provider's handle."""
        # A handle has no state of its own, so one serves all who ask for it: asking again costs a look-up.
        try:
            runtimes = known if registry is None else registry.runtimes
            return runtimes[name if endpoint is None else key_of(name, endpoint)].handle  # type: ignore[no-any-return]
        except (KeyError, TypeError, AttributeError):  # new, or not what it should be
            runtime = runtime_of(name, endpoint, registry)
        runtime.handle = handle = cls._made(runtime, None)
        return handle

    async def execute(  # noqa: C901, PLR0912 - one frame: a helper of any kind would cost every call a fifth more
        self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """
        Return what ``await func(*args, **kwargs)`` does, under the provider's breaker, retries, deadlines and gate.

        Args:
            func: An async function, or anything that returns an awaitable when called.
            *args: Its arguments.
            **kwargs: Its keyword arguments, all of them: options for us go into `with_options`.

        Raises:
            Exception: The provider's own error, unchanged, when it is final; a note counts the attempts.
            CallRejected: The call was refused before it left, for example as `CircuitOpen`.
            CallTimeout: Our own deadline interrupted it.
            TypeError: *func* is a synchronous function or a coroutine.
        """
        lane = self._lane
        period = lane.door
        if period is None and lane.passage is None:
            runtime = self._runtime
            if (left := runtime.refused_until - runtime.clock()) > 0:
                runtime.refused += 1
                raise CircuitOpen(runtime.name, CIRCUIT_OPEN, left, runtime.refused_because)
            return await self._look_closer(func, args, kwargs)
        if get_ident() != lane.thread or (task := task_of(lane.loop)) is None:
            return await self._look_closer(func, args, kwargs)
        live = lane.live
        if task in live:  # a call inside a call
            return await self._look_closer(func, args, kwargs)
        clock = lane.clock
        began = clock()
        if period is None and (period := lane.admit(lane, began)) is None:
            return await self._look_closer(func, args, kwargs)
        live[task] = began
        if lane.timer is None:
            lane.arm(began)
        cancelling = task.cancelling()
        try:
            if kwargs:
                result = await func(*args, **kwargs)
            else:
                result = await func(*args)  # type: ignore[call-arg]  # an empty dict of keywords costs too
        except BaseException as error:
            expired = lane.end(task) and task.uncancel() <= cancelling and isinstance(error, CancelledError)
            call = self._failed(error, func, lane=lane, period=period, began=began, expired=expired)
            if call is None:
                raise
        else:
            now = clock()
            mark = live.pop(task)
            if mark is began and lane.passage is period and now < lane.turn_at and now - began < lane.slow_after:
                lane.successes += 1
                if lane.metered:
                    lane.host.counting().swift(self._plan().operation, now - began)
                return result
            self._ended(lane, task, period, began, now, late=mark is not began)
            return result
        return await call.resume(func, args, kwargs)

    async def try_execute(self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Outcome[T]:
        """
        Like `execute`, but return how the call ended as a value.

        Never raises, but for cancellation and its like (`BaseException`). A rejection costs no raised exception.
        """
        runtime = self._runtime
        if (left := runtime.refused_until - runtime.clock()) > 0:
            runtime.refused += 1
            return Outcome(None, None, (runtime.name, CIRCUIT_OPEN, left, runtime.refused_because))
        try:
            if kwargs:
                return Outcome(await self.execute(func, *args, **kwargs))
            return Outcome(await self.execute(func, *args))  # type: ignore[call-arg]  # as in execute
        except Exception as error:
            return Outcome(None, error)  # not by a name of its own, which would be a cycle through this frame

    async def hold(self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Hold[T]:
        """
        Like `execute`, but keep the attempt open after *func* has returned, until `Hold.end`.

        For work whose outcome is known later, such as a response whose body is still to be read: the permit, the
        place and the reservations stay with it. No limit of ours interrupts it any more.

        Raises:
            Exception: As `execute` does.
        """
        lane = self._lane
        period = lane.door
        if (
            period is None
            or get_ident() != lane.thread
            or (task := task_of(lane.loop)) is None
            or task in lane.live  # a call inside a call
        ):
            return await self._hold_closer(func, args, kwargs)
        lane.live[task] = began = lane.clock()
        if lane.timer is None:
            lane.arm(began)
        cancelling = task.cancelling()
        try:
            result = await func(*args, **kwargs)
        except BaseException as error:
            expired = lane.end(task) and task.uncancel() <= cancelling and isinstance(error, CancelledError)
            call = self._failed(error, func, lane=lane, period=period, began=began, expired=expired)
            if call is None:
                raise
        else:
            if lane.live.pop(task) is not began:
                self._won(lane, task)
            return Hold(result, Light(lane.host, self._plan_in(lane), lane, period, began))
        return Hold(await call.resume(func, args, kwargs, hold=True), call)

    def stream(self, func: Callable[P, Streamable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Stream[T]:
        """
        Open a stream and hold its attempt until it ends.

        ::

            async with provider.stream(client.chat.completions.create, model=..., stream=True) as items:
                async for item in items:
                    ...

        Opening it and waiting for the first item are an attempt like any other, which is retried. After that nothing
        is repeated: what breaks then comes out of the block as `StreamInterrupted`. Settings: ``stream``; options:
        ``commit`` and ``complete`` of `with_options`.

        Args:
            func: Returns an async iterator, an async context manager of one, or an awaitable of either.
            *args: Its arguments.
            **kwargs: Its keyword arguments.

        Raises:
            TypeError: *func* is no function.
        """
        plan = self._plan()
        return Stream(self, func, args, kwargs, commit=plan.options.commit, complete=plan.options.complete)

    def map(
        self,
        func: Callable[[S], Awaitable[T]],
        items: Iterable[S] | AsyncIterable[S],
        *,
        concurrency: int = 10,
        ordered: bool = True,
        fail_fast: bool = False,
        buffer: int | None = None,
        progress: Progress[T] | None = None,
    ) -> Batch[T]:
        """
        Call *func* with each of *items*, several at a time, each call as by `try_execute`.

        Await it for the list of all outcomes, or enter it and iterate to take them one by one.

        Args:
            func: An async function of one item.
            items: Any iterable, also an asynchronous one; it is read no faster than calls get free.
            concurrency: How many calls run at the same time. Default: 10.
            ordered: Whether outcomes come in the order of their items, or as calls end. Default: in order.
            fail_fast: Whether the first call that does not succeed ends the batch with its error. Default: no.
            buffer: How many finished outcomes may wait to be taken. Default: *concurrency*.
            progress: Called after each call with the number of calls done, that of items or None, and the outcome.

        Raises:
            ConfigurationError: A number makes no sense.
            TypeError: *func*, *items* or *progress* are not what they should be.
        """
        return Batch(
            self.try_execute,
            func,
            items,
            name=self.name,
            concurrency=concurrency,
            ordered=ordered,
            fail_fast=fail_fast,
            buffer=buffer,
            progress=progress,
        )

    @overload
    def fallback_to(
        self, provider: str | ResilientProvider, func: None = None, *, on: On = None
    ) -> FallbackChain[Never]: ...

    @overload
    def fallback_to(
        self, provider: str | ResilientProvider, func: Callable[..., Awaitable[T]], *, on: On = None
    ) -> FallbackChain[T]: ...

    def fallback_to(
        self, provider: str | ResilientProvider, func: Callable[..., Awaitable[Any]] | None = None, *, on: On = None
    ) -> FallbackChain[Any]:
        """
        Return a chain that asks this provider first, and *provider* when this one refuses or fails.

        Args:
            provider: Another provider, or its name.
            func: What to await there, with the same arguments. Default: the same function.
            on: Which errors lead there. Default: all that may be different elsewhere.

        Raises:
            ConfigurationError: A name is not one, or *on* makes no sense.
            TypeError: *provider* or *func* is something else.
        """
        from resilience.routing.fallback import FallbackChain

        return FallbackChain(self).fallback_to(provider, func, on=on)

    def wrap(self, func: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """
        Decorate *func* so that each call of it goes through `execute`; its signature stays.

        Raises:
            TypeError: *func* cannot be called.
        """
        if not callable(func):
            raise TypeError(f"wrap() takes an async function, not {type(func).__name__}")

        @wraps(func)
        async def protected(*args: P.args, **kwargs: P.kwargs) -> T:
            return await self.execute(func, *args, **kwargs)

        return protected

    def attempts(self) -> Attempts:
        """
        Iterate over the attempts of one call whose body is a block instead of a function.

        ::

            async for attempt in provider.attempts():
                async with attempt:
                    reply = await client.get(url)

        A failure that is worth another attempt is swallowed by the block and the iteration goes on; the last one
        comes out. Nothing is held between iterations, so leaving by ``break`` or ``return`` leaks nothing.
        """
        runtime = self._current().drawn()
        return Attempts(runtime, self._plan_of(runtime))

    # -- behind the fast path --------------------------------------------------------------------------------------

    async def _look_closer(
        self,
        func: Callable[..., Awaitable[T]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        arm: ProviderRuntime | None = None,
        began: float | None = None,
    ) -> T:
        """Make a call of any kind; *arm*, *began*: by whom and since when, if it is made for all those of its key."""
        runtime = self._current().drawn() if arm is None else arm
        if not runtime.enabled:
            return await runtime.disturbed(func)(*args, **kwargs)  # type: ignore[no-any-return]
        plan = self._plan_of(runtime)
        if plan.options.coalesce is not None and began is None:
            lead = partial(self._look_closer, func, args, kwargs, arm=runtime, began=runtime.clock())
            return await coalesced(runtime, plan, lead)
        if runtime is self._runtime and (quick := follow(runtime, plan, self._lane)) is not None:
            return await quick.run(func, args, kwargs)
        call = Call(runtime, plan, runtime.clock() if began is None else began)
        if plan.hedge is not None:
            return (await hedged(call, func, args, kwargs))[0]
        if plan.fast and call.lane.loop is not None and runtime is self._runtime:
            self._lane = call.lane  # from the next call on the fast path
        return await call.run(func, args, kwargs)

    async def _hold_closer(
        self, func: Callable[..., Awaitable[T]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Hold[T]:
        runtime = self._current().drawn()
        if not runtime.enabled:
            return Hold(await runtime.disturbed(func)(*args, **kwargs), None)
        call = Call(runtime, self._plan_of(runtime), runtime.clock())
        if call.plan.hedge is not None:
            return Hold(*await hedged(call, func, args, kwargs, hold=True))
        if call.plan.fast and call.lane.loop is not None and runtime is self._runtime:
            self._lane = call.lane  # from the next call on the fast path
        return Hold(await call.run(func, args, kwargs, hold=True), call)

    def _failed(
        self, error: BaseException, func: object, *, lane: Lane, period: Period, began: float, expired: bool
    ) -> Call | None:
        """Settle a first attempt that failed on the fast path; return its call if another attempt follows."""
        if not isinstance(error, Exception) and not expired:
            # Nobody's failure. There may be no running task any more: a coroutine can be closed by the collector.
            self._settle(lane, period, began, lane.clock(), Verdict.IGNORED)
            return None
        plan = self._plan_in(lane)
        call = Call(lane.host, plan, began, attempt=1, lane=lane)
        raised = error
        try:
            if expired:
                elapsed = lane.clock() - began
                raised = late_error(self.name, plan.operation, plan.scope, lane.limit, elapsed, cut=lane.cut)
                raised.__cause__ = error
            if call.failed(raised, began, lane.limit, expired=expired, permit=Permit(period)):
                return call
            call.raise_as_asked(raised, func)
            if expired:
                raise raised
            return None
        finally:
            del raised, error  # they hold this frame

    def _ended(self, lane: Lane, task: Task[Any], period: Period, began: float, now: float, *, late: bool) -> None:
        """Settle a success that is more than a number: slow, late, in a new bucket, or from an earlier period."""
        if late:
            self._won(lane, task)
        self._settle(lane, period, began, now, Verdict.SUCCESS)

    def _won(self, lane: Lane, task: Task[Any]) -> None:
        """Take back what we asked of a task whose result came all the same."""
        lane.forget_late(task)
        task.uncancel()

    def _settle(self, lane: Lane, period: Period, began: float, now: float, verdict: Verdict) -> None:
        runtime: ProviderRuntime = lane.host
        runtime.common.count_call()
        runtime.settle(Permit(period), verdict, now, slow=now - began >= lane.slow_after)
        Teller(runtime, self._plan().operation).ended_swiftly(verdict, now - began)
        if runtime.limits is not None:
            runtime.limits.left(verdict)
