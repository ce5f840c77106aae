"""
A call whose function has returned while its outcome is still open: a stream, a response whose body is being read.

======================  ===========================================================================================
state                   what leads out of it
======================  ===========================================================================================
held                    `Hold.end`, once: with nothing (success), an error (what it is classified as) or a verdict
ended                   nothing: everything was given back, and ending again changes nothing
======================  ===========================================================================================
"""

from __future__ import annotations

import warnings
from types import TracebackType
from typing import Generic, TypeVar, final

from resilience._core.states import Period, Permit
from resilience._core.words import Usage, Verdict
from resilience.call import Call
from resilience.failure import Failure
from resilience.lane import Lane, get_ident
from resilience.life import Interrupt
from resilience.plan import Plan
from resilience.runtime import ProviderRuntime
from resilience.telling import Teller

T = TypeVar("T")


@final
class Light:
    """
    What is held of an attempt on the fast path: it needs no `Call` unless it ends in an error.

    Args:
        runtime: The provider's runtime.
        plan: What the call is entitled to.
        lane: Where the attempt ran.
        period: The closed period of the circuit that admitted it.
        began: When it began, on the lane's clock.
    """

    __slots__ = ("_began", "_lane", "_period", "_plan", "_runtime")

    def __init__(self, runtime: ProviderRuntime, plan: Plan, lane: Lane, period: Period, began: float) -> None:
        self._runtime = runtime
        self._plan = plan
        self._lane = lane
        self._period = period
        self._began = began

    def hold(self) -> bool:
        """Keep it; return whether it was slow up to now."""
        self._runtime.held[id(self)] = None
        return self._lane.clock() - self._began >= self._plan.slow_after

    def interruptible(self, interrupt: Interrupt) -> None:
        """Let a shutdown whose grace is over call *interrupt* while the attempt is held."""
        self._runtime.held[id(self)] = interrupt

    def renew(self) -> None:
        """Nothing: no probe takes the fast path."""

    def used(self, usage: Usage) -> None:
        """Nothing: no reservation takes the fast path."""

    def let_go(self, error: BaseException | None, verdict: Verdict | None, *, slow: bool) -> Failure | None:
        """End it with what came of it."""
        runtime, lane, period = self._runtime, self._lane, self._period
        now = lane.clock()
        runtime.held.pop(id(self), None)
        if isinstance(error, Exception):
            call = Call(runtime, self._plan, self._began, attempt=1, lane=lane)
            call.adopt(Permit(period))
            return call.let_go(error, verdict, slow=slow)
        verdict = verdict or (Verdict.SUCCESS if error is None else Verdict.IGNORED)
        usual = verdict is Verdict.SUCCESS and not slow and lane.door is period and now < lane.turn_at
        if usual and get_ident() == lane.thread:
            lane.successes += 1
            if lane.metered:
                runtime.counting().swift(self._plan.operation, now - self._began)
            return None
        runtime.common.count_call()
        runtime.settle(Permit(period), verdict, now, slow=slow)
        Teller(runtime, self._plan.operation).ended_swiftly(verdict, now - self._began)
        return None


@final
class Hold(Generic[T]):
    """
    What `ResilientProvider.hold` returns: the value, and the attempt's permit, place and reservations until `end`.

    Use it as an ``async with`` block, or call `end` exactly once, wherever the work with the value is over.

    Attributes:
        value: What the function returned.
        slow: Whether the function took so long that the attempt was slow up to then: for `end`, if that decides.
    """

    __slots__ = ("__weakref__", "_call", "slow", "value")

    slow: bool
    value: T

    def __init__(self, value: T, call: Call | Light | None) -> None:
        self.value = value
        self._call = call
        self.slow = call is not None and call.hold()

    def interruptible(self, interrupt: Interrupt) -> None:
        """
        Let a shutdown that has waited for long enough call *interrupt*, with the seconds that it has waited.

        Without, it can only wait for this a little longer, and then leave it as it is. It may call from any thread.
        """
        if self._call is not None:
            self._call.interruptible(interrupt)

    def renew(self) -> None:
        """Show a sign of life: a half-open circuit's probe may take as long again."""
        if self._call is not None:
            self._call.renew()

    def settle(self, usage: Usage) -> None:
        """Tell what the call has really used up; the difference to what was reserved is given back, or taken."""
        if self._call is not None:
            self._call.used(usage)

    def end(
        self, error: BaseException | None = None, *, verdict: Verdict | None = None, slow: bool = False
    ) -> Failure | None:
        """
        Give back everything that is held. Only the first time counts.

        Args:
            error: What went wrong; None if all went well.
            verdict: What this says about the provider. Default: None, what *error* is classified as.
            slow: Whether it was slow, whatever else it was.

        Returns:
            The classified *error*; None if there is none, or if it is nobody's failure, such as a cancellation.
        """
        call, self._call = self._call, None
        return call.let_go(error, verdict, slow=slow) if call is not None else None

    async def __aenter__(self) -> T:
        return self.value

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(error)

    def __del__(self) -> None:
        if self._call is not None:
            warnings.warn("a Hold was dropped without end(): its permit was kept until now", ResourceWarning, 2)
            self.end(verdict=Verdict.IGNORED)
