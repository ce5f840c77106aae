"""
One call away from the fast path: waiting, probing, retrying, giving up.

A `Call` is born when a call has to look closer (circuit not closed, gate not open, nested, a limit of its own, not on
asyncio) or when its first attempt has failed, and it dies with it. Nothing in it is shared between calls. What follows
an attempt is decided in `resilience.attempted`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, final

import anyio

from resilience._core.states import Permit
from resilience.attempted import Attempted
from resilience.context import CallContext, RemainingTime, make_key, within
from resilience.errors import (
    CallRejected,
    UnacceptableResult,
)
from resilience.guard import Guard, guard
from resilience.lane import SLACK
from resilience.results import dispose, judge
from resilience.waiting import wait
from resilience.watching import End

T = TypeVar("T")


@final
class Call(Attempted):
    """The attempts of one call, made one after the other."""

    __slots__ = ()

    attempt: int
    key: str | None

    # -- the loop --------------------------------------------------------------------------------------------------

    async def run(  # noqa: C901, PLR0912 - one frame for every kind of attempt
        self, func: Callable[..., Awaitable[T]], args: tuple[Any, ...], kwargs: dict[str, Any], *, hold: bool = False
    ) -> T:
        """
        Make attempts until one succeeds or the last error is final.

        With *hold* an attempt that has a result is not over: its permit and its turn stay with the call.
        """
        watch = self.watch
        if watch is not None:
            watch.enter()
        try:
            while True:
                attempt = await self.enter()
                seen = self._seen
                try:
                    if seen is not None:
                        seen.enter()
                    try:
                        with attempt:
                            result = await self.reached(func, attempt)(*args, **kwargs)
                    finally:
                        if seen is not None:
                            seen.leave()
                    if self.plan.options.accept is not None:
                        judge(result, self.plan.options.accept, self.runtime.name, self.plan.operation)
                except BaseException as error:
                    if not self.failed(error, attempt.began, attempt.limit, expired=attempt.expired):
                        self.raise_as_asked(error, func)
                        raise
                else:
                    self._began = attempt.began
                    if self.runtime.limits is not None:
                        self.runtime.limits.heed(result, attempt.began)
                    if not hold:
                        self.succeeded(attempt.began, result)
                    return result
                if isinstance(self._error, UnacceptableResult):
                    await dispose(self._error.result)
                await self.pause()
        except BaseException:
            self.abandoned()  # in a pause, or in a line
            raise
        finally:
            if watch is not None:
                watch.leave()
            self.forget()

    def reached(self, func: Callable[..., Awaitable[T]], attempt: Guard) -> Callable[..., Awaitable[T]]:
        """Return *func* inside what tests put around it, and where it can read what the call has to tell."""
        if self.runtime.chaos:
            func = self.runtime.disturbed(func)
        if self.plan.tells:
            func = within(self.told(attempt), func)
        return func

    def told(self, attempt: Guard) -> CallContext:
        """Return what the code inside *attempt* can read of the call."""
        if self.key is None:
            self.key = make_key(self.plan.options.idempotency_key)
        left = RemainingTime(attempt.began + attempt.limit, self.runtime.clock)
        known = self.plan.options.propagate and attempt.limit < math.inf
        return CallContext(key=self.key, deadline=left if known else None)

    async def resume(
        self, func: Callable[..., Awaitable[T]], args: tuple[Any, ...], kwargs: dict[str, Any], *, hold: bool = False
    ) -> T:
        """Go on after a first attempt on the fast path that failed and is tried again."""
        try:
            await self.pause()
        except BaseException:
            self.abandoned()
            self.forget()
            raise
        return await self.run(func, args, kwargs, hold=hold)

    # -- admission -------------------------------------------------------------------------------------------------

    async def enter(self) -> Guard:
        """
        Take a permit and return the guard for the next attempt.

        Raises:
            CallRejected: No attempt was made and none may be.
            BaseException: A further attempt is refused: the last error of the provider.
        """
        try:
            answer = await self._way.permit(again=bool(self.attempt))
        except BaseException:
            self.charge_back()
            raise
        if isinstance(answer, CallRejected):
            try:
                raise self._refused(answer)
            finally:
                del answer  # it holds this frame
        return self._leave(answer)

    async def enter_at_once(self) -> Guard | None:
        """Like `enter`, but return None where that would be refused or would have to wait; nobody is told."""
        with anyio.CancelScope() as scope:
            scope.cancel()  # it takes effect where something waits
            answer = await self._way.permit(again=True)
            return self._leave(answer) if isinstance(answer, Permit) else None
        return None

    def _leave(self, permit: Permit) -> Guard:
        self._permit = permit
        self._charge = None  # the retry leaves: what it cost stays spent
        if not self.attempt:
            self.runtime.common.count_call()
        self.attempt += 1
        if self.watch is not None:
            self._seen = self.watch.attempt(self.attempt)
        return self._guard()

    def _refused(self, rejection: CallRejected) -> BaseException:
        """Return what to raise when the next attempt is refused: the last error, if there was one."""
        if self._error is None or self._failure is None:
            self.over(End.REJECTED, self.runtime.clock(), reason=rejection.reason, error=rejection)
            return self._tell.rejected(rejection)
        self.charge_back()
        return self._given_up(self._error, self._failure, rejection.reason)

    def _guard(self) -> Guard:
        plan = self.plan
        now = self.runtime.clock()
        limit = min(plan.limit, self._way.ends - now)
        return guard(
            self.lane,
            began=now,
            limit=limit if limit < plan.limit - SLACK else plan.limit,
            slow_after=plan.slow_after,
            what=(self.runtime.name, plan.operation, plan.scope if limit >= plan.limit - SLACK else "total"),
            task=self._task,
        )

    async def pause(self) -> None:
        """Sleep until the next attempt, and renew credentials if they were refused."""
        refresh = self.plan.options.refresh
        try:
            with self._way.pending():
                if refresh is not None and self._failure is not None and self._failure.kind == "authentication_error":
                    with anyio.move_on_after(self._way.ends - self.runtime.clock()):
                        await refresh()
                self._way.ends -= await wait(self._delay)
        except BaseException:
            self.charge_back()
            raise
