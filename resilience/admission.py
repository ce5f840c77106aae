"""
The way of one attempt to its permit: gate, limits, circuit, in this order, and waiting where waiting can help.

Whoever waits holds no permit, so that no probe sits in a line; a breaker that opens meanwhile is noticed at its end.
"""

from __future__ import annotations

from asyncio import CancelledError
from types import TracebackType
from typing import Any, final
from weakref import ref

import anyio

from resilience._core.states import Permit, Refusal
from resilience._core.words import Reason, many
from resilience.errors import BulkheadFull, CallRejected, DeadlineExceeded, ProviderGated, ShuttingDown
from resilience.guard import is_inside, outer_deadline
from resilience.home import Home, trio_scope
from resilience.lane import SLACK, lanes_on
from resilience.limits import Limits
from resilience.plan import Plan
from resilience.runtime import ProviderRuntime
from resilience.turn import NO_TURN, Turn
from resilience.waiting import wait as rest


@final
class Pending:
    """
    One caller more who waits, in whatever way, for as long as the block lasts, or until a shutdown ends it.

    Args:
        runtime: The provider's runtime.
        task: The task that waits.
        loop: Its asyncio loop, or None.

    Attributes:
        sent_away: Whether a shutdown has ended the wait.
    """

    __slots__ = ("__weakref__", "_cancelling", "_home", "_runtime", "_scope", "_task", "_ticket", "sent_away")

    sent_away: bool

    def __init__(self, runtime: ProviderRuntime, task: object, loop: Any) -> None:
        self._runtime = runtime
        self._home = Home(loop)
        self._task: Any = task
        self._scope: Any = trio_scope() if loop is None else None
        self._cancelling = 0
        self._ticket = ref(self)  # not itself: that would keep its task alive
        self.sent_away = False

    def __enter__(self) -> Pending:
        self._runtime.waiting[self._ticket] = None
        if self._scope is not None:
            self._scope.__enter__()
        else:
            self._cancelling = self._task.cancelling()
        if self._runtime.life.stopping:  # since a moment ago; or we belong to an attempt, which may not wait any more
            self._home.do_soon(self._end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._runtime.waiting.pop(self._ticket, None)
        self._runtime.life.stir()
        if self._scope is not None:
            return bool(self._scope.__exit__(kind, error, traceback))
        alone = self.sent_away and self._task.uncancel() <= self._cancelling
        return alone and isinstance(error, CancelledError)

    def send_away(self) -> None:
        """End the wait, from any thread."""
        self._home.do(self._end)

    def _end(self) -> None:
        if self._ticket in self._runtime.waiting and not self.sent_away:
            self.sent_away = True
            (self._scope or self._task).cancel()


@final
class Admission:
    """
    Admits the attempts of one call.

    Args:
        runtime: The provider's runtime.
        plan: What the call is entitled to.
        task: The task that makes it.
        loop: Its asyncio loop, or None.
        ends: When the call has to be over, on the runtime's clock.
    """

    __slots__ = ("_loop", "_plan", "_runtime", "_task", "ends", "turn")

    ends: float
    turn: Turn

    def __init__(self, runtime: ProviderRuntime, plan: Plan, task: object, loop: Any, ends: float) -> None:
        self._runtime = runtime
        self._plan = plan
        self._task = task
        self._loop = loop
        self.ends = ends
        self.turn = NO_TURN
        if plan.options.deadline is not None:  # its clock may be another one than ours
            self.ends = min(ends, runtime.clock() + plan.options.deadline.remaining())

    def remaining(self, now: float) -> float:
        """Return the seconds until the earliest deadline anybody set around this call."""
        ends = min(self.ends, outer_deadline(self._task, self._loop))
        return min(ends - now, anyio.current_effective_deadline() - anyio.current_time())

    @property
    def borrows(self) -> bool:
        """Whether an outer call of the same task is a probe, which then covers this one."""
        return self._task in self._runtime.probing

    @property
    def _patience(self) -> float:
        return self._runtime.settings.gate.max_wait if self._plan.options.may_wait else 0.0

    async def permit(self, *, again: bool = False) -> Permit | CallRejected:
        """Wait where it helps, and take a permit and a turn; or say why not. *again*: it is not the first attempt."""
        runtime, waited = self._runtime, 0.0
        while True:
            now = runtime.clock()
            if (late := self._too_late(now, again=again)) is not None:
                return late
            if (refusal := runtime.peek(now)) is not None and not self.borrows:
                self._give_back()
                return runtime.breaker.refused(refusal)
            if left := runtime.common.gate_left(now):
                self._give_back()  # it closed while we stood in a line
                if waited + left > self._patience + SLACK:
                    return self._gated(now)
            if wait := runtime.common.gate_wait(now):
                if (refused := await self._wait_at_gate(now, wait)) is not None:
                    return refused
                waited += wait
            elif runtime.limits is None or self.turn is not NO_TURN:
                return self._acquired(now)
            elif isinstance(turn := await self._take_turn(runtime.limits, now), CallRejected):
                return turn
            else:
                self.turn = turn

    def _too_late(self, now: float, *, again: bool) -> CallRejected | None:
        """Return why no call, whatever its provider says, may leave at *now*."""
        if self._runtime.life.stopping and (again or not self._is_under_way):
            return self._shut_out()
        if now >= self.ends - SLACK:
            self._give_back()
            overdue = f"it passed {now - self.ends:.3g} s ago"
            return DeadlineExceeded(self._runtime.name, Reason.DEADLINE_WOULD_PASS, None, overdue)
        return None

    async def _wait_at_gate(self, now: float, seconds: float) -> CallRejected | None:
        runtime = self._runtime
        if seconds >= self.remaining(now):
            return self._gated(now, "its end lies behind the caller's deadline")
        if runtime.pending_full:
            return self._too_many()
        skipped = 0.0
        with self.pending() as pending:
            skipped = await rest(seconds)
        if pending.sent_away:
            return self._shut_out()
        if skipped:
            self.ends -= skipped
            runtime.common.gate_wait(now + skipped)  # it was waited out, so it opens
        return None

    def _acquired(self, now: float) -> Permit | CallRejected:
        answer = self._runtime.acquire(self._task, now)
        if isinstance(answer, Refusal):
            self._give_back()
            return self._runtime.breaker.refused(answer)
        return answer

    async def _take_turn(self, limits: Limits, now: float) -> Turn | CallRejected:
        turn = limits.try_enter(self._plan.options, self._task)
        if turn is not None:
            return turn
        if self._runtime.pending_full:
            return self._too_many()
        # Whoever set a deadline around the call ends the wait himself, and is told in his own words.
        patience = self.ends - now if self._plan.options.may_wait else 0.0
        remaining = min(patience, self.remaining(now))
        try:
            with self.pending():
                return await limits.enter(self._plan.options, self._task, remaining=remaining, patience=patience)
        except CallRejected as refusal:
            return refusal.with_traceback(None)
        return self._shut_out()

    def pending(self) -> Pending:
        """Return what stands for the call while it waits."""
        return Pending(self._runtime, self._task, self._loop)

    @property
    def _is_under_way(self) -> bool:
        """Whether this is a part of an attempt that is under way and may still finish."""
        return not self._runtime.life.interrupting and is_inside(self._task, lanes_on(self._loop))

    def _shut_out(self) -> CallRejected:
        self._give_back()
        return ShuttingDown(self._runtime.name, Reason.SHUTTING_DOWN, None, "")

    def _give_back(self) -> None:
        turn, self.turn = self.turn, NO_TURN
        turn.refund()

    def _too_many(self) -> CallRejected:
        waiting = many(len(self._runtime.waiting), "caller")
        return BulkheadFull(self._runtime.name, Reason.PENDING_FULL, None, f"{waiting} waiting already")

    def _gated(self, now: float, deadline: str = "") -> CallRejected:
        name, left = self._runtime.name, self._runtime.common.gate_left(now)
        if deadline:
            return ProviderGated(name, Reason.DEADLINE_WOULD_PASS, left, deadline)
        return ProviderGated(name, Reason.PROVIDER_GATED, left, f"a call waits {self._patience:g} s at most")
