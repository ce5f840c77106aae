"""
A call that is followed and has nothing to wait for: its first attempt goes the quick way, as if nobody looked.

Tracing makes its spans around calls that are otherwise usual. To be led past every stage of admission would cost them
about as much as the spans do.
"""

from __future__ import annotations

from asyncio import CancelledError, Task
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, final

from resilience._core.states import Period, Permit
from resilience.call import Call
from resilience.guard import late_error
from resilience.lane import Lane, get_ident, task_of
from resilience.plan import Plan
from resilience.process import watch_of
from resilience.runtime import ProviderRuntime
from resilience.watching import AttemptWatch, End, Watch, observed

T = TypeVar("T")


@final
class Followed:
    """A call that a lane admits at once, and that somebody follows. Made by `follow`."""

    __slots__ = ("_began", "_lane", "_period", "_plan", "_runtime", "_seen", "_task", "_watch")

    _seen: AttemptWatch

    def __init__(
        self, runtime: ProviderRuntime, plan: Plan, lane: Lane, *, task: Task[Any], period: Period, watch: Watch
    ) -> None:
        self._runtime = runtime
        self._plan = plan
        self._lane = lane
        self._task = task
        self._period = period
        self._watch = watch
        self._began = lane.clock()

    async def run(self, func: Callable[..., Awaitable[T]], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        """
        Make it.

        Raises:
            Exception: As `Call.run` does.
        """
        task, lane = self._task, self._lane
        self._seen = seen = self._watch.attempt(1)
        cancelling = task.cancelling()
        lane.begin(task, self._began)
        seen.enter()
        try:
            try:
                result = await func(*args, **kwargs)
            finally:
                seen.leave()
        except BaseException as error:
            expired = lane.end(task) and task.uncancel() <= cancelling and isinstance(error, CancelledError)
            call = self._failed(error, func, expired=expired)
            if call is None:
                raise
        else:
            self._succeeded()
            return result
        return await call.resume(func, args, kwargs)

    def _succeeded(self) -> None:
        lane, began, now = self._lane, self._began, self._lane.clock()
        mark = lane.live.pop(self._task)
        if mark is began and lane.passage is self._period and now < lane.turn_at and now - began < lane.slow_after:
            lane.successes += 1
            if lane.metered:
                self._runtime.counting().swift(self._plan.operation, now - began)
            self._seen.ended(End.SUCCESS, failure=None, error=None)
            self._watch.ended(End.SUCCESS, attempts=1, failure=None, reason=None, error=None)
            return
        if mark is not began:  # we had asked for its end, and it came to one all the same
            lane.forget_late(self._task)
            self._task.uncancel()
        call = self._call()
        call.adopt(Permit(self._period))
        self._watch.enter()
        try:
            call.succeeded(began)
        finally:
            self._watch.leave()

    def _failed(self, error: BaseException, func: object, *, expired: bool) -> Call | None:
        """Settle the first attempt. Return the call if another follows, or raise what stands for the error, if any."""
        lane, plan, raised = self._lane, self._plan, error
        self._watch.enter()
        try:
            if expired:
                elapsed = lane.clock() - self._began
                raised = late_error(self._runtime.name, plan.operation, plan.scope, lane.limit, elapsed, cut=lane.cut)
                raised.__cause__ = error
            call = self._call()
            if call.failed(raised, self._began, lane.limit, expired=expired, permit=Permit(self._period)):
                return call
            call.raise_as_asked(raised, func)
            if expired:
                raise raised
            return None
        finally:
            self._watch.leave()
            del raised, error  # they hold this frame

    def _call(self) -> Call:
        """Return the call that it turns out to be, after one attempt."""
        call = Call(self._runtime, self._plan, self._began, attempt=1, lane=self._lane)
        call.watch, call._seen = self._watch, self._seen
        return call


def follow(runtime: ProviderRuntime, plan: Plan, lane: Lane) -> Followed | None:
    """Return a call under *plan* on *lane*, if somebody follows it and there is nothing else to ask."""
    period = lane.passage
    if period is None or observed.watcher is None or not plan.fast or runtime.limits is not None:
        return None
    task = task_of(lane.loop) if lane.loop is not None and get_ident() == lane.thread else None
    if task is None or task in lane.live:  # or a call inside a call
        return None
    watch = watch_of(runtime, plan.operation)
    return Followed(runtime, plan, lane, task=task, period=period, watch=watch) if watch is not None else None
