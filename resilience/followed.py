"""
A call that is followed and has nothing to wait for: its first attempt goes the quick way, as if nobody looked.

Tracing makes its spans around calls that are otherwise usual. To be led past every stage of admission would cost them
about as much as the spans do.
"""

from __future__ import annotations

from asyncio import CancelledError, Task
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from resilience._core.states import Period, Permit
from resilience.call import Call
from resilience.guard import is_asyncios, late_error
from resilience.watching import End, Watch

T = TypeVar("T")


def way_for(call: Call) -> Period | None:
    """Return the closed period that admits *call* at once, if there is nothing else to ask."""
    lane = call.lane
    if lane.loop is None or not call.plan.fast or call.runtime.limits is not None or call._task in lane.live:
        return None
    return lane.passage


async def followed(
    call: Call,
    period: Period,
    func: Callable[..., Awaitable[T]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> T:
    """
    Make a call that has made no attempt yet, on asyncio.

    Args:
        call: The call; it is watched.
        period: What `way_for` has returned for it.
        func: What is called.
        args: Its arguments.
        kwargs: Its keyword arguments.

    Raises:
        Exception: As `Call.run` does.
    """
    task, lane, watch = call._task, call.lane, call.watch
    assert is_asyncios(task)  # noqa: S101 - it runs on one of its loops
    assert watch is not None  # noqa: S101
    watch.enter()
    try:
        call.attempt, call._seen = 1, (seen := watch.attempt(1))
        cancelling = task.cancelling()
        lane.begin(task, call.began)
        seen.enter()
        try:
            try:
                result = await func(*args, **kwargs)
            finally:
                seen.leave()
        except BaseException as error:
            expired = lane.end(task) and task.uncancel() <= cancelling and isinstance(error, CancelledError)
            if not _failed(call, period, error, func, expired=expired):
                raise
        else:
            _succeeded(call, watch, period, task)
            return result
    finally:
        watch.leave()
    return await call.resume(func, args, kwargs)


def _failed(call: Call, period: Period, error: BaseException, func: object, *, expired: bool) -> bool:
    """Settle the first attempt; return whether another follows, or raise what stands for the error, if anything."""
    runtime, lane, raised = call.runtime, call.lane, error
    try:
        if expired:
            plan, elapsed = call.plan, lane.clock() - call.began
            raised = late_error(runtime.name, plan.operation, plan.scope, lane.limit, elapsed, cut=lane.cut)
            raised.__cause__ = error
        runtime.common.count_call()
        if call.failed(raised, call.began, lane.limit, expired=expired, permit=Permit(period)):
            return True
        call.raise_as_asked(raised, func)
        if expired:
            raise raised
        return False
    finally:
        del raised, error  # they hold this frame


def _succeeded(call: Call, watch: Watch, period: Period, task: Task[Any]) -> None:
    lane, began, now = call.lane, call.began, call.lane.clock()
    mark = lane.live.pop(task)
    if mark is began and lane.passage is period and now < lane.turn_at and now - began < lane.slow_after:
        lane.successes += 1
        if lane.metered:
            call.runtime.counting().swift(call.plan.operation, now - began)
        if call._seen is not None:
            call._seen.ended(End.SUCCESS, failure=None, error=None)
        watch.ended(End.SUCCESS, attempts=1, failure=None, reason=None, error=None)
        return
    if mark is not began:  # we had asked for its end, and it came to one all the same
        lane.forget_late(task)
        task.uncancel()
    call.runtime.common.count_call()
    call.adopt(Permit(period))
    call.succeeded(began)
