"""
A call that is hedged: at most two attempts, the second beside the first, each with its own permit, place and limit.

It takes the place of the retries. What the two share is the call's end and its bill: a second attempt is paid for in
the hedge's own budget, which has no floor, and in the provider's retry budget, because to the provider it is one more
request. There is none while the provider is not well: circuit not closed, gate closed, or anything to wait for.

======================================  ===========================================================================
what happens                            what follows
======================================  ===========================================================================
the first is not done after the delay   a second attempt, if nothing speaks against it
the first fails before that             the second at once, if the failure may be tried again, and is no refusal
                                        with a hint
the first fails for good                the second is cancelled: it would fail as well
both fail                               the first's error comes out, with a note about the second's
======================================  ===========================================================================
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final, Generic, TypeVar, final

from resilience._core.budget import Charge
from resilience._core.states import CircuitState
from resilience._core.words import Reason
from resilience.call import Call
from resilience.errors import UnacceptableResult, annotate
from resilience.failure import Failure, FailureKind
from resilience.guard import Guard
from resilience.plan import Plan
from resilience.policies._race import FIRST, SECOND, Attempt, Race
from resilience.policies.hedge import Hedge, second_note, worth_repeating
from resilience.policies.retry import attempts_note
from resilience.results import dispose, judge
from resilience.runtime import ProviderRuntime

T = TypeVar("T")

_WELL: Final = (CircuitState.CLOSED, CircuitState.DISABLED)


async def hedged(
    call: Call, func: Callable[..., Awaitable[T]], args: tuple[Any, ...], kwargs: dict[str, Any], *, hold: bool = False
) -> tuple[T, Call]:
    """
    Make a call that has made no attempt yet, and whose plan asks for hedging.

    Args:
        call: The call.
        func: What is called.
        args: Its arguments.
        kwargs: Its keyword arguments.
        hold: Whether the winner keeps its permit and its turn.

    Returns:
        The result, and the call that has it: *call* itself, or that of the second attempt.

    Raises:
        Exception: As `Call.run` does.
    """
    contest = _Contest(call, func, args, kwargs, hold=hold)
    try:
        if call.watch is None:
            return await contest.run()
        call.watch.enter()
        try:
            return await contest.run()
        finally:
            call.watch.leave()
    finally:
        contest.forget()


def hedge_for(runtime: ProviderRuntime, plan: Plan) -> Hedge:
    """Return what decides about calls under *plan*: one for each operation that has settings of its own."""
    operation = plan.operation if plan.operation in runtime.settings.operations else ""
    hedge = runtime.hedges.get(operation)
    if hedge is None:
        hedge = Hedge(
            plan.hedge, name=runtime.name, clock=runtime.clock, wall_clock=runtime.wall_clock, bus=runtime.bus
        )
        hedge = runtime.hedges.setdefault(operation, hedge)  # of two threads one has made it
    return hedge


def _decide_nothing(_failure: Failure, _nested: bool) -> Reason | None:
    """Leave it to the first attempt, or to the end, what the second one's failure means."""
    return None


@final
class _Contest(Generic[T]):
    """The two attempts of one call."""

    __slots__ = ("_args", "_calls", "_ends", "_func", "_hedge", "_hold", "_kwargs", "_left", "_race")

    def __init__(
        self,
        call: Call,
        func: Callable[..., Awaitable[T]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        hold: bool,
    ) -> None:
        self._calls = [call]
        self._hedge = hedge_for(call.runtime, call.plan)
        self._func = func
        self._args = args
        self._kwargs = kwargs
        self._hold = hold
        self._race: Race[T] = Race()
        self._left = self._ends = call.began

    async def run(self) -> tuple[T, Call]:
        """Make the attempts."""
        first, race = self._calls[FIRST], self._race
        first.follow = self._after_first
        try:
            attempt = await first.enter()
            self._left = attempt.began
            self._ends = attempt.began + first._way.remaining(attempt.began)  # before its own limit is added to these
            self._hedge.begin(attempt.began)
            await race.run(lambda: self._attempt(first, attempt), self._launch, self._hedge.delay(attempt.began))
            await self._clear_up()
            if race.winner is None:
                raise self._final_error()
            return race.value, self._calls[race.winner]
        except BaseException:
            self._let_go()
            await race.abandon()
            raise

    def forget(self) -> None:
        """Drop the errors: they hold the frames of this call, and they hold the call."""
        self._race.forget()
        for call in self._calls:
            call.follow = None
            call.forget()

    # -- one attempt -----------------------------------------------------------------------------------------------

    async def _attempt(self, call: Call, attempt: Guard) -> T:
        alone = self._race.errors[FIRST] is not None
        seen = call._seen
        try:
            if seen is not None:
                seen.enter()
            try:
                with attempt:
                    result = await call.reached(self._func, attempt)(*self._args, **self._kwargs)
            finally:
                if seen is not None:
                    seen.leave()
            if call.plan.options.accept is not None:
                judge(result, call.plan.options.accept, call.runtime.name, call.plan.operation)
        except BaseException as error:
            follows = call.failed(error, attempt.began, attempt.limit, expired=attempt.expired)
            if self._tells(error, call):
                self._learn(call, attempt, alone=alone)
            if not follows:
                call.raise_as_asked(error, self._func)
            raise
        self._learn(call, attempt, alone=alone)
        self._succeeded(call, attempt, result)
        return result

    def _succeeded(self, call: Call, attempt: Guard, result: T) -> None:
        wins, first = self._race.undecided, self._calls[FIRST]
        if self._race.errors[FIRST] is None:
            call.attempt = 1  # nothing had failed, so nothing has recovered
        if wins and call is not first:
            call._is_over, first._is_over = first._is_over, True  # it ends with its winner
            self._hedge.tell_won(call.runtime.clock() - call.began, call.plan.operation)
        if wins and self._hold:
            call._began = attempt.began
        else:
            call.succeeded(attempt.began, result)

    def _tells(self, error: BaseException, call: Call) -> bool:
        """Whether the time until *error* tells how long such an attempt takes."""
        if isinstance(error, Exception):
            return call._failure is not None and call._failure.kind is FailureKind.TIMEOUT
        return self._race.winner == SECOND

    def _learn(self, call: Call, attempt: Guard, *, alone: bool) -> None:
        if alone or call is self._calls[FIRST]:
            now = call.runtime.clock()
            self._hedge.record(now, now - attempt.began)

    # -- the second attempt ----------------------------------------------------------------------------------------

    def _after_first(self, failure: Failure, nested: bool) -> Reason | None:
        """Decide what follows when the first attempt has failed."""
        if not failure.retryable:
            self._race.stop()
            return Reason.NOT_RETRYABLE
        if self._race.launched:
            return None
        if self._calls[FIRST].runtime.life.stopping:
            return Reason.SHUTTING_DOWN
        return Reason.ALREADY_RETRIED if nested else None

    async def _launch(self) -> Attempt[T] | None:
        first, now = self._calls[FIRST], self._calls[FIRST].runtime.clock()
        if not self._may_launch(first) or (charges := self._pay(first, now)) is None:
            return None
        second = Call(first.runtime, first.plan, first.began, watched=False)
        second.attempt, second.key = first.attempt, first.key  # it is the same call, counted once
        second.watch, second._is_over = first.watch, True
        second.follow = _decide_nothing
        attempt: Guard | None = None
        try:
            attempt = await second.enter_at_once()
        finally:
            if attempt is None:
                self._refund(charges, now)
        if attempt is None:
            return None
        self._calls.append(second)
        self._hedge.tell_launched(now - self._left, first.plan.operation)
        guard = attempt
        return lambda: self._attempt(second, guard)

    def _may_launch(self, first: Call) -> bool:
        if self._race.errors[FIRST] is not None and (
            first._error is None or first._failure is None or not worth_repeating(first._failure)
        ):
            return False
        return first.runtime.breaker.state in _WELL

    def _pay(self, first: Call, now: float) -> tuple[Charge, Charge | None] | None:
        runtime = first.runtime
        charge = self._hedge.charge(now, self._ends - now)
        if charge is None or not runtime.settings.budget.enabled:
            return (charge, None) if charge is not None else None
        shared = runtime.common.charge(now)
        if shared is None:
            self._hedge.refund(charge, now)
            return None
        return charge, shared

    def _refund(self, charges: tuple[Charge, Charge | None], now: float) -> None:
        own, shared = charges
        self._hedge.refund(own, now)
        if shared is not None:
            self._calls[FIRST].runtime.common.refund(shared)

    # -- the end ---------------------------------------------------------------------------------------------------

    def _let_go(self) -> None:
        """Give back what a winner holds whose result nobody takes: the caller has gone."""
        winner = self._race.winner
        for call in self._calls:
            call.abandoned()
        if winner is not None and self._hold:
            self._calls[winner].succeeded(self._calls[winner]._began)

    async def _clear_up(self) -> None:
        """Close the results that were not good enough, except for one that comes out with its error."""
        for number, error in enumerate(self._race.errors):
            comes_out = self._race.winner is None and number == FIRST
            if isinstance(error, UnacceptableResult) and not comes_out:
                await dispose(error.result)

    def _final_error(self) -> BaseException:
        first, (error, other) = self._calls[FIRST], self._race.errors
        assert error is not None  # noqa: S101 - nobody has won, so the first has failed
        failure = first._failure
        if first._error is None or failure is None:
            return error  # it has said so itself
        tried = len(self._calls)
        first.attempt = tried
        failure = replace(failure, attempts=tried)
        raised = first._given_up(error, failure, Reason.HEDGED)
        if other is not None and other is not error:
            note = attempts_note(failure, tried, Reason.HEDGED)
            annotate(error, first.runtime.name, f"{note}; {second_note(other, first.runtime.classify(other))}")
        return raised
