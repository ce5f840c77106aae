"""
The front door: `ResilientProvider`.

`ResilientProvider.execute` is written for the case that nothing is wrong. One test at the door (is the lane's door
open, and is this the lane's thread and loop?) and one at the exit (same period, same window bucket, not slow) are all
that a successful call pays for, beside its entry in the lane. Everything else is a `Call`, one frame further down.
"""

from __future__ import annotations

from asyncio import CancelledError, Task
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar, final

from resilience._core.states import Period, Permit
from resilience._core.words import UNSET, Priority, Unset, Usage, Verdict
from resilience.attempts import Attempts
from resilience.call import Call
from resilience.errors import CallTimeout, CircuitOpen, ConfigurationError
from resilience.handle import Handle
from resilience.hold import Hold, Light
from resilience.lane import NO_LANE, Lane, get_ident, task_of
from resilience.options import Options, View
from resilience.outcome import Outcome
from resilience.plan import Accept
from resilience.policies.deadline import Deadline
from resilience.registry import ProviderRegistry, default_registry, key_of, known
from resilience.runtime import CIRCUIT_OPEN, ProviderRuntime
from resilience.settings import RetrySettings

P = ParamSpec("P")
T = TypeVar("T")

PriorityName: TypeAlias = Literal["critical", "default", "sheddable"]


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
            runtime = _runtime_of(name, endpoint, registry)
        runtime.handle = handle = _handle(runtime, None)
        return handle

    # -- calling ---------------------------------------------------------------------------------------------------

    async def execute(  # noqa: C901 - one frame: a helper of any kind would cost every call a fifth more
        self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """
        Await ``func(*args, **kwargs)`` under the provider's breaker, retries, deadlines and gate.

        Args:
            func: An async function, or anything that returns an awaitable when called.
            *args: Its arguments.
            **kwargs: Its keyword arguments, all of them: options for us go into `with_options`.

        Returns:
            What *func* returned.

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
                runtime.rejected += 1
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
            runtime.rejected += 1
            return Outcome(None, None, (runtime.name, CIRCUIT_OPEN, left, runtime.refused_because))
        try:
            return Outcome(await self.execute(func, *args, **kwargs))
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
            return Hold(result, Light(self._runtime, self._plan(), lane, period, began))
        return Hold(await call.resume(func, args, kwargs, hold=True), call)

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
        return Attempts(self._current(), self._plan())

    # -- options ---------------------------------------------------------------------------------------------------

    def with_options(
        self,
        *,
        timeout: float | Unset | None = UNSET,
        attempt_timeout: float | Unset | None = UNSET,
        deadline: Deadline | Unset | None = UNSET,
        operation: str | Unset = UNSET,
        idempotent: bool | Unset | None = UNSET,
        retry: RetrySettings | bool | Unset = UNSET,
        refresh: Callable[[], Awaitable[object]] | Unset | None = UNSET,
        priority: Priority | PriorityName | Unset = UNSET,
        reserve: Usage | Unset = UNSET,
        usage: Callable[[Any], Usage] | Unset | None = UNSET,
        accept: Accept | Unset | None = UNSET,
        coalesce: str | Unset | None = UNSET,
        idempotency_key: str | bool | Unset = UNSET,
        propagate: bool | Unset = UNSET,
    ) -> ResilientProvider:
        """
        Return a view of this provider: the same state, other options. What is not given stays as it is.

        Args:
            timeout: The whole call, retries and waits included, in seconds. None: no limit.
            attempt_timeout: One attempt, in seconds. None: no limit.
            deadline: A `Deadline` that no attempt, wait or retry may pass. None: none.
            operation: What is being called, such as ``"embeddings"``: picks its settings, and names it in events.
            idempotent: Whether repeating the call is harmless. False: only what was surely not sent is sent again.
                None: every failure that is worth it is retried.
            retry: Other retry settings; False: none; True: as the settings have it.
            refresh: Renews credentials; awaited once before the one retry that an authentication error gets.
            priority: ``"critical"``, ``"default"`` or ``"sheddable"``: who is refused first when there is no room.
            reserve: What a call is expected to use up: tokens of the rate limit, money of the cost limit.
            usage: Reads from a result what it has really used up; the difference to *reserve* is settled.
            accept: Judges a result: True if it is one; False, a `FailureKind` or a `Failure` if it is a failure.
                It is then retried and counts against the provider, and the last one is raised as
                `UnacceptableResult`. Discarded results are closed.
            coalesce: Calls with the same text that are under way at the same time are made once.
            idempotency_key: True: make one key per call, the same on each attempt, for `idempotency_key` inside the
                function. A text: use that.
            propagate: Whether `deadline` tells the remaining time inside the function.

        Raises:
            ConfigurationError: A value makes no sense.
        """
        options = (self._view.options if self._view is not None else Options()).changed(
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            deadline=deadline,
            operation=operation,
            idempotent=idempotent,
            retry=retry,
            refresh=refresh,
            priority=priority,
            reserve=reserve,
            usage=usage,
            accept=accept,
            coalesce=coalesce,
            idempotency_key=idempotency_key,
            propagate=propagate,
        )
        runtime = self._current()
        return _handle(runtime, View(options, options.plan(runtime)))

    # -- behind the fast path --------------------------------------------------------------------------------------

    async def _look_closer(self, func: Callable[..., Awaitable[T]], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        runtime = self._current()
        if not runtime.enabled:
            return await func(*args, **kwargs)
        call = Call(runtime, self._plan(), runtime.clock())
        if call.lane.loop is not None and call.plan.fast:
            self._lane = call.lane  # from the next call on the fast path
        return await call.run(func, args, kwargs)

    async def _hold_closer(
        self, func: Callable[..., Awaitable[T]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Hold[T]:
        runtime = self._current()
        if not runtime.enabled:
            return Hold(await func(*args, **kwargs), None)
        call = Call(runtime, self._plan(), runtime.clock())
        if call.lane.loop is not None and call.plan.fast:
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
        call = Call(self._runtime, self._plan(), began, attempt=1)
        raised = error
        try:
            if expired:
                plan = call.plan
                raised = CallTimeout(self.name, plan.operation, plan.scope, lane.limit, lane.clock() - began)
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
        self._runtime.common.count_call()
        runtime = self._runtime
        runtime.settle(Permit(period), verdict, now, slow=now - began >= lane.slow_after)
        if runtime.limits is not None:
            runtime.limits.left(verdict)


def _handle(runtime: ProviderRuntime, view: View | None) -> ResilientProvider:
    handle = object.__new__(ResilientProvider)
    handle._runtime = runtime
    handle._lane = NO_LANE
    handle._view = view
    return handle


def _runtime_of(name: str, endpoint: str | None, registry: ProviderRegistry | None) -> ProviderRuntime:
    if registry is None:
        registry = default_registry()
    elif not isinstance(registry, ProviderRegistry):
        raise ConfigurationError(
            f"registry= takes a ProviderRegistry, not {type(registry).__name__}: "
            "settings go into ProviderRegistry(settings)"
        )
    return registry.runtime(name, endpoint)
