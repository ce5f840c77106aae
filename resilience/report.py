"""What a provider says about itself: figures for dashboards, sentences for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from resilience._core.histogram import summed
from resilience._core.states import CircuitState
from resilience._core.words import Reason, many
from resilience.plan import Plan
from resilience.policies.bulkhead import BulkheadSnapshot
from resilience.policies.circuit_breaker import CircuitBreakerSnapshot
from resilience.policies.coalesce import CoalescerSnapshot
from resilience.policies.cost import CostLimitSnapshot, CostRefusal
from resilience.policies.hedge import HedgeSnapshot
from resilience.policies.rate_limit import RateLimitSnapshot, RateRefusal
from resilience.policies.throttle import ThrottleSnapshot
from resilience.runtime import CIRCUIT_OPEN, ProviderRuntime
from resilience.settings._types import FrozenDict
from resilience.tally import Tally


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySnapshot:
    """
    How long calls took that reached the provider, retries and waits included, since somebody began to measure.

    Args:
        count: How many calls.
        p50: Half of them took no longer than this, in seconds; estimated within the bucket of a histogram.
        p99: All but a hundredth took no longer than this, in seconds, likewise.
    """

    count: int
    p50: float
    p99: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSnapshot:
    """
    One look at a provider. JSON-ready through `dataclasses.asdict`.

    Args:
        provider: Its name, with ``/endpoint`` where there is one.
        breaker: Its circuit breaker.
        in_flight: Attempts that are running.
        gate_closed_for: In how many seconds its gate opens; 0 when it is open.
        retries_available: How many retries its budget allows at this moment.
        calls: Calls so far that left, of all endpoints of the provider.
        retries: Retries scheduled so far.
        recovered: Calls that succeeded after a retry.
        exhausted: Calls that gave up although their last error was worth a retry.
        timeouts: Attempts that our own deadline interrupted.
        rejected: Calls refused before they left.
        waiting: Callers that wait in any way, asleep in back-off included.
        rate_limit: Its rate limit; None if it has none.
        bulkhead: Its bulkhead; None if it has none.
        throttle: Its throttle; None if it has none.
        cost: Its cost limit; None if it has none.
        hedges: Its hedges, by operation.
        coalescing: Its calls that are made once for several; None if there were none yet.
        succeeded: Calls that succeeded, those that *recovered* among them.
        failed: Calls whose last error went to the caller.
        cancelled: Calls that their callers cancelled.
        failures: The failed ones, by kind.
        rejections: The rejected ones, by reason.
        latency: How long calls took; None if nobody measures.
        last_reason: The last thing that went wrong: a kind of failure, or the reason of a refusal.
        last_at: When that was, in seconds since the Unix epoch.
        variant: Which arm of an experiment this is, ``a`` or ``b``; empty without one.
    """

    provider: str
    breaker: CircuitBreakerSnapshot
    in_flight: int
    gate_closed_for: float
    retries_available: float
    calls: int
    retries: int
    recovered: int
    exhausted: int
    timeouts: int
    rejected: int
    waiting: int
    rate_limit: RateLimitSnapshot | None
    bulkhead: BulkheadSnapshot | None
    throttle: ThrottleSnapshot | None
    cost: CostLimitSnapshot | None
    hedges: Mapping[str, HedgeSnapshot]
    coalescing: CoalescerSnapshot | None
    succeeded: int
    failed: int
    cancelled: int
    failures: Mapping[str, int]
    rejections: Mapping[str, int]
    latency: LatencySnapshot | None
    last_reason: str | None
    last_at: float | None
    variant: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """
    What would happen to a call now, and why.

    Args:
        admitted: Whether it would be let through (at once, or after a short wait for the gate).
        reason: Why not; None if it would be.
        retry_after: In how many seconds it may be; None if nobody knows or it is admitted at once.
        state: The circuit's state.
        text: The same in one sentence, with figures.
    """

    admitted: bool
    reason: Reason | None
    retry_after: float | None
    state: CircuitState
    text: str

    def __str__(self) -> str:
        return self.text


def take_snapshot(runtime: ProviderRuntime) -> ProviderSnapshot:
    """Return the figures of *runtime* as they are now."""
    now = runtime.clock()
    with runtime.common.lock:
        runtime.absorb()
    tally = runtime.tally
    failures = _failures(tally)
    return ProviderSnapshot(
        provider=runtime.name,
        breaker=runtime.breaker.snapshot(),
        in_flight=runtime.in_flight,
        gate_closed_for=runtime.common.gate_left(now),
        retries_available=runtime.common.retries_available(now),
        calls=runtime.common.calls,
        retries=runtime.retries,
        recovered=runtime.recovered,
        exhausted=runtime.exhausted,
        timeouts=runtime.timeouts,
        rejected=runtime.rejected,
        waiting=len(runtime.waiting),
        rate_limit=_look(runtime, "rate"),
        bulkhead=_look(runtime, "bulkhead"),
        throttle=_look(runtime, "throttle"),
        cost=_look(runtime, "cost"),
        hedges=FrozenDict({operation: hedge.snapshot() for operation, hedge in list(runtime.hedges.items())}),
        coalescing=runtime.coalescer.snapshot() if runtime.coalescer is not None else None,
        succeeded=runtime.succeeded,
        failed=sum(failures.values()),
        cancelled=tally.cancelled,
        failures=failures,
        rejections=_rejections(runtime),
        latency=_latency(tally),
        last_reason=tally.last.reason if tally.last is not None else None,
        last_at=tally.last.time if tally.last is not None else None,
        variant=runtime.variant,
    )


def _failures(tally: Tally) -> Mapping[str, int]:
    by_kind: Counter[str] = Counter()
    for (kind, _), count in list(tally.failures.items()):
        by_kind[kind] += count
    return FrozenDict(by_kind)


def _rejections(runtime: ProviderRuntime) -> Mapping[str, int]:
    by_reason = Counter(runtime.tally.rejections)
    by_reason[CIRCUIT_OPEN.value] += runtime.refused
    return FrozenDict(+by_reason)


def _latency(tally: Tally) -> LatencySnapshot | None:
    taken = summed(tally.calls().values())
    p50, p99 = taken.quantile(0.5), taken.quantile(0.99)
    return LatencySnapshot(count=taken.count, p50=p50, p99=p99) if p50 is not None and p99 is not None else None


def _look(runtime: ProviderRuntime, limit: str) -> Any:
    found = getattr(runtime.limits, limit, None)
    return found.snapshot() if found is not None else None


def explain(runtime: ProviderRuntime, plan: Plan) -> Explanation:
    """Return what would happen to a call under *plan* now."""
    now = runtime.clock()
    breaker = runtime.breaker
    state = breaker.state
    if not runtime.enabled:
        return Explanation(
            admitted=True, reason=None, retry_after=None, state=state, text="admits: resilience is switched off here"
        )
    refusal = runtime.peek(now)
    if refusal is not None:
        when = f", next probe in {refusal.retry_after:.1f} s" if refusal.retry_after is not None else ""
        text = f"refuses: {refusal.reason}, {refusal.evidence}{when}"
        return Explanation(
            admitted=False, reason=refusal.reason, retry_after=refusal.retry_after, state=state, text=text
        )
    left = runtime.common.gate_left(now)
    longest = runtime.settings.gate.max_wait
    if left > longest:
        text = f"refuses: the provider asked for a pause, {left:.1f} s are left (a call waits {longest:g} s at most)"
        return Explanation(admitted=False, reason=Reason.PROVIDER_GATED, retry_after=left, state=state, text=text)
    if runtime.limits is not None and (full := runtime.limits.outlook(plan.options)) is not None:
        after = full.retry_after if isinstance(full, CostRefusal | RateRefusal) else None
        text = f"refuses: {full.reason}, {full}"
        return Explanation(admitted=False, reason=full.reason, retry_after=after, state=state, text=text)
    text = f"waits {left:.1f} s: the provider asked for a pause" if left else _admits(runtime, plan, now)
    return Explanation(admitted=True, reason=None, retry_after=left or None, state=state, text=text)


def _admits(runtime: ProviderRuntime, plan: Plan, now: float) -> str:
    figures = runtime.breaker.snapshot()
    settings = plan.retry.settings
    spared = runtime.breaker.circuit.refusal(now)
    if spared is not None:  # nothing but shadow mode or the lot lets such a call through
        rules = runtime.breaker.circuit.rules
        mode = "shadow mode" if rules.shadow else f"all but {rules.enforced * 100:g} % by lot"
        what = f"{mode}, else {spared.reason}, {spared.evidence}"
    elif figures.state is CircuitState.DISABLED:
        what = "breaker disabled"
    elif figures.state is CircuitState.CLOSED:
        row, lately = many(figures.failures_in_a_row, "failure"), f"{figures.failed} of {figures.calls} calls"
        what = f"circuit closed, {row} in a row, {lately} failed lately"
    else:
        what = "the next call is a probe"
    return f"admits: {what}; up to {many(settings.max_attempts if settings.enabled else 1, 'attempt')}"
