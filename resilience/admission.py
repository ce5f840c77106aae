"""
The way of one attempt to its permit: gate, limits, circuit, in this order, and waiting where waiting can help.

Whoever waits holds no permit, so that no probe sits in a line; a breaker that opens meanwhile is noticed at its end.
"""

from __future__ import annotations

from typing import Any, final

import anyio

from resilience._core.states import Permit, Refusal
from resilience._core.words import Reason
from resilience.errors import CallRejected, DeadlineExceeded, ProviderGated
from resilience.guard import outer_deadline
from resilience.lane import SLACK
from resilience.limits import NO_TURN, Turn
from resilience.plan import Plan
from resilience.runtime import ProviderRuntime
from resilience.waiting import wait as rest


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
        if plan.deadline is not None:  # its clock may be another one than ours
            self.ends = min(ends, runtime.clock() + plan.deadline.remaining())

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
        return self._runtime.settings.gate.max_wait if self._plan.may_wait else 0.0

    async def permit(self) -> Permit | CallRejected:
        """Wait where it helps, and take a permit and a turn; or say why not."""
        runtime, waited = self._runtime, 0.0
        while True:
            now = runtime.clock()
            if now >= self.ends - SLACK:
                overdue = f"it passed {now - self.ends:.3g} s ago"
                return DeadlineExceeded(runtime.name, Reason.DEADLINE_WOULD_PASS, None, overdue)
            if (refusal := runtime.peek(now)) is not None and not self.borrows:
                return runtime.breaker.refused(refusal)
            left = runtime.common.gate_left(now)
            if left and waited + left > self._patience + SLACK:
                return self._gated(now)
            if wait := runtime.common.gate_wait(now):
                if wait >= self.remaining(now):
                    return self._gated(now, "its end lies behind the caller's deadline")
                waited += wait
                if skipped := await rest(wait):
                    self.ends -= skipped
                    runtime.common.gate_wait(now + skipped)  # it was waited out, so it opens
                continue
            answer = runtime.acquire(self._task, now)
            return runtime.breaker.refused(answer) if isinstance(answer, Refusal) else answer

    def _gated(self, now: float, deadline: str = "") -> CallRejected:
        name, left = self._runtime.name, self._runtime.common.gate_left(now)
        if deadline:
            return ProviderGated(name, Reason.DEADLINE_WOULD_PASS, left, deadline)
        return ProviderGated(name, Reason.PROVIDER_GATED, left, f"a call waits {self._patience:g} s at most")
