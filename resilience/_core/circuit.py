"""
The circuit breaker's state machine.

=============  ==========================================  ==============================================
state          event                                       next state
=============  ==========================================  ==============================================
closed         failure or slow call that breaks a rule     open (window kept for the figures)
closed         calls in flight older than *slow_after*     open, once the slow rule breaks
open           ``acquire`` before *until*                  open; refused with the time left
open           ``acquire`` from *until* on                 half-open, one probe
half-open      ``acquire``, fewer live probes than allowed half-open, one probe more
half-open      ``acquire``, all probe slots taken          half-open; refused
half-open      probe succeeds, *success_threshold* reached closed, empty window
half-open      probe fails or is slow                      open
half-open      probe ignored, or its lease runs out        half-open, its slot is free again
any            ``force_open`` / ``close`` / ``disable``    forced_open / closed / disabled
forced_open    ``acquire``                                 forced_open; refused until closed by hand
disabled       anything                                    disabled; admits and counts, never opens
=============  ==========================================  ==============================================

Every change of state begins a new `Period`. A permit remembers the period that issued it, and a result from an
earlier period is dropped: a call that left before the trip has no vote on what came after it.

Successes are only counted, in `Circuit.successes`. Whoever holds the present closed period may count them there
itself, provided that no window border has passed (``now < turn_at``) and the call was not slow; everything else
goes through the methods. A success can therefore never open the circuit: rules are judged on bad news only.

Calls must not overlap: whoever shares a circuit between threads holds a lock around each method.
"""

from __future__ import annotations

import math
import random
from typing import final

from resilience._core.recent import Recent, Totals
from resilience._core.states import Change, CircuitRules, CircuitState, Evidence, Period, Permit, Refusal
from resilience._core.window import Row
from resilience._core.words import Reason, Verdict


@final
class Circuit:
    """
    One breaker: rules, state, evidence and live probes.

    Side effects that remain to be performed are left for the caller to collect: state changes in `changes`,
    probes whose lease ran out in `lost`, refusals that shadow mode did not enforce in `spared`.
    """

    __slots__ = (
        "_abandoned",
        "_closed_at",
        "_leases",
        "_probe_successes",
        "_recent",
        "_row",
        "changes",
        "evidence",
        "failures",
        "ignored",
        "lost",
        "period",
        "rules",
        "slow",
        "spared",
        "stale",
        "successes",
        "trips",
        "until",
    )

    evidence: Evidence
    failures: int
    ignored: int
    lost: int
    period: Period
    rules: CircuitRules
    slow: int
    stale: int
    successes: int
    trips: int
    until: float

    def __init__(self, rules: CircuitRules, now: float, *, state: CircuitState = CircuitState.CLOSED) -> None:
        self.rules = rules
        self.period = Period(state, 0)
        self.successes = 0
        self.failures = 0
        self.slow = 0
        self.ignored = 0
        self.stale = 0
        self.trips = 0
        self.until = -math.inf
        self.evidence = Evidence("by_settings" if state is CircuitState.FORCED_OPEN else "")
        self.changes: list[Change] = []
        self.lost = 0
        self.spared: Reason | None = None
        self._abandoned = 0
        self._closed_at = now
        self._leases: dict[Permit, float] = {}
        self._probe_successes = 0
        self._row = Row()
        self._recent = Recent(rules, now, self._totals())

    @property
    def state(self) -> CircuitState:
        """The present state. An open circuit stays open until somebody asks to be admitted."""
        return self.period.state

    @property
    def door(self) -> Period | None:
        """The present period if it admits without looking closer, else None."""
        period = self.period
        return period if period.state is CircuitState.CLOSED or period.state is CircuitState.DISABLED else None

    @property
    def turn_at(self) -> float:
        """When `turn` is due before anything is counted."""
        return self._recent.turn_at

    @property
    def probes(self) -> int:
        """How many probes hold a slot."""
        return len(self._leases)

    @property
    def failures_in_a_row(self) -> int:
        """How many failures were counted since the last success."""
        return self._row.length(self.successes)

    def counts(self, now: float) -> tuple[int, int, int]:
        """Return calls, failed and slow calls in the window at *now*; zeros when no rule needs a window."""
        return self._recent.counts(now, self._totals())

    def refusal(self, now: float) -> Refusal | None:
        """Return why a call would be refused at *now*, taking nothing; None if it would be admitted."""
        state = self.period.state
        if state is CircuitState.CLOSED or state is CircuitState.DISABLED:
            return None
        if state is CircuitState.OPEN:
            if now >= self.until:
                return None
            return Refusal(Reason.CIRCUIT_OPEN, self.until - now, self.evidence)
        if state is CircuitState.FORCED_OPEN:
            return Refusal(Reason.FORCED_OPEN, None, self.evidence)
        live = [end for end in self._leases.values() if end > now]
        if len(live) < self.rules.half_open_max_calls:
            return None
        return Refusal(Reason.HALF_OPEN_SATURATED, min(live) - now, self.evidence)

    def outlook(self, now: float) -> Refusal | None:
        """Return why a call would surely be refused at *now*; None where shadow mode or the lot may let it through."""
        refusal = self.refusal(now)
        if refusal is None or not self.rules.lenient:
            return refusal
        by_hand = refusal.reason is Reason.FORCED_OPEN and not self.rules.shadow
        return refusal if by_hand else None

    def acquire(self, now: float) -> Permit | Refusal:
        """Admit one attempt, or say why not. In shadow mode everybody is admitted."""
        if self.period.state is CircuitState.OPEN and now >= self.until:
            self._enter(CircuitState.HALF_OPEN, Evidence("open_time_over"))
        if self._leases:
            self._expire_leases(now)
        refusal = self.refusal(now)
        if refusal is None:
            permit = Permit(self.period)
            if self.period.state is CircuitState.HALF_OPEN:
                self._leases[permit] = now + self.rules.probe_lease
            return permit
        return self.spare(refusal) if self.rules.shadow else refusal

    def spare(self, refusal: Refusal) -> Permit:
        """Admit an attempt in spite of a *refusal*."""
        self.spared = refusal.reason
        return Permit(None)  # it should not have left, so its result is nobody's evidence

    def renew(self, permit: Permit, now: float) -> None:
        """Give a probe that shows signs of life a fresh lease."""
        if permit in self._leases:
            self._leases[permit] = now + self.rules.probe_lease

    def release(
        self,
        permit: Permit,
        verdict: Verdict,
        now: float,
        rng: random.Random,
        *,
        slow: bool = False,
        kind: str = "",
        hint: float | None = None,
    ) -> None:
        """
        Return *permit* with what the attempt showed. Idempotent; a stale permit has no vote.

        Args:
            permit: What `acquire` returned.
            verdict: The outcome. An ignored one that was slow is evidence for the slow rule alone.
            now: The time on the monotonic clock.
            rng: Draws the open time if this opens the circuit.
            slow: Whether the attempt lasted longer than ``slow_after``.
            kind: The kind of failure, for thresholds per kind.
            hint: How long the provider asked us to stay away, in seconds.
        """
        if not permit.live:
            return
        permit.live = False
        self._leases.pop(permit, None)
        if permit.period is not self.period:
            self.stale += permit.period is not None
            return
        slow = slow and self.rules.slow_rate is not None
        if verdict is Verdict.IGNORED and not slow:
            self.ignored += 1
        elif self.period.state is CircuitState.HALF_OPEN:
            self._judge_probe(verdict, now, rng, slow=slow, kind=kind, hint=hint)
        else:
            self._record(verdict, now, rng, slow=slow, kind=kind, hint=hint)

    def judge_in_flight(self, hanging: int, now: float, rng: random.Random) -> None:
        """Count *hanging* live calls, each older than ``slow_after``, as slow already: a hang opens during the hang."""
        if hanging and self.period.state is CircuitState.CLOSED:
            self._judge_slow_rate(hanging, now, rng, None)

    def turn(self, now: float) -> None:
        """Close the window's buckets that have ended. Due before anything is counted from `turn_at` on."""
        self._recent.turn(now, self._totals())

    def force_open(self) -> None:
        """Refuse every call until `close` is called."""
        self._enter(CircuitState.FORCED_OPEN, Evidence("by_hand"))

    def close(self, now: float) -> None:
        """Admit calls again, with an empty window."""
        self._close(now, Evidence("by_hand"))

    def disable(self) -> None:
        """Admit every call and never open; results are still counted."""
        self._enter(CircuitState.DISABLED, Evidence("by_hand"))

    def reset(self, now: float, state: CircuitState) -> None:
        """Return to *state* and forget all evidence, the totals included."""
        self.successes = self.failures = self.slow = self.ignored = self.stale = self.trips = self._abandoned = 0
        self.evidence = Evidence("")
        self._row.restart()
        self._recent = Recent(self.rules, now, self._totals())
        self._closed_at = now
        self._enter(state, Evidence("by_hand"))

    def restore(self, state: CircuitState, now: float, *, remaining: float, trips: int) -> None:
        """
        Continue where a former process stopped.

        A half-open circuit comes back open with no time left: its probes died with their process. *remaining* is
        bounded by the longest time we could have chosen ourselves, since it was measured on a wall clock. The window
        starts empty.
        """
        if state is CircuitState.HALF_OPEN:
            state, remaining = CircuitState.OPEN, 0.0
        self._forget_window(now)
        self._closed_at = now
        self.trips = max(0, trips)
        left: float | None = None
        if state is CircuitState.OPEN:
            longest = max(self.rules.open_for, self.rules.max_open_for, self.rules.hint_cap)
            left = min(max(0.0, remaining), longest)
            self.until = now + left
        self._enter(state, Evidence("restored"), retry_after=left)

    def adopt(self, rules: CircuitRules, now: float) -> None:
        """
        Work by other *rules* from now on.

        What was decided under the former ones stays: the state, when it ends, leases, trips and the evidence. The
        window stays as far as it can (`Recent` tells how). What is known is judged anew with the next bad news.
        """
        self._recent.adopt(rules, now, self._totals())
        self.rules = rules

    def enter_by_settings(self, state: CircuitState, now: float) -> None:
        """Enter the *state* that the settings now ask for, with all evidence that there is."""
        self._closed_at = now
        self._enter(state, Evidence("by_settings"))

    def _totals(self) -> Totals:
        return self.successes, self.failures, self.slow, self._abandoned

    def _record(
        self, verdict: Verdict, now: float, rng: random.Random, *, slow: bool, kind: str, hint: float | None
    ) -> None:
        row = self._count(verdict, now, slow=slow, kind=kind)
        if verdict is Verdict.FAILURE:
            self._judge_failure(row, now, rng, kind=kind, hint=hint)
        if slow:
            self._judge_slow_rate(0, now, rng, hint)

    def _count(self, verdict: Verdict, now: float, *, slow: bool, kind: str) -> tuple[int, int]:
        """Count a result; return the failures in a row, and those of this *kind* among them, if it is one."""
        if now >= self.turn_at:
            self.turn(now)
        failed = verdict is Verdict.FAILURE
        self.slow += slow
        if verdict is Verdict.SUCCESS:
            self.successes += 1
        elif failed:
            self.failures += 1
        else:
            self._abandoned += 1
        self._recent.record(failed=failed, slow=slow)
        return self._row.fail(self.successes, kind) if failed else (0, 0)

    def _judge_failure(
        self, row: tuple[int, int], now: float, rng: random.Random, *, kind: str, hint: float | None
    ) -> None:
        rules = self.rules
        in_a_row, of_kind = row
        limit = rules.per_kind.get(kind)
        if rules.failure_threshold is not None and in_a_row >= rules.failure_threshold:
            self._trip(Evidence("in_a_row", bad=in_a_row), now, rng, hint)
        elif limit is not None and of_kind >= limit:
            self._trip(Evidence("in_a_row", bad=of_kind, kind=kind), now, rng, hint)
        elif rules.failure_rate is not None:
            calls, failed = self._recent.outcomes(now, self._totals())
            # Divided, not multiplied: 7 of 100 are 7 %, but 100 * 0.07 is more than 7 in floats.
            if calls >= self.rules.least_calls and failed / calls >= rules.failure_rate:
                self._trip(self.rules.rate_evidence("failure_rate", failed, calls, rules.failure_rate), now, rng, hint)

    def _judge_slow_rate(self, hanging: int, now: float, rng: random.Random, hint: float | None) -> None:
        threshold = self.rules.slow_rate
        if threshold is None or self.period.state is not CircuitState.CLOSED:
            return
        calls, _, slow = self.counts(now)
        calls, slow = calls + hanging, slow + hanging
        if calls >= self.rules.least_calls and slow / calls >= threshold:
            self._trip(self.rules.rate_evidence("slow_rate", slow, calls, threshold), now, rng, hint)

    def _judge_probe(
        self, verdict: Verdict, now: float, rng: random.Random, *, slow: bool, kind: str, hint: float | None
    ) -> None:
        self._count(verdict, now, slow=slow, kind=kind)
        if verdict is Verdict.FAILURE:
            self._trip(Evidence("probe_failed", kind=kind), now, rng, hint)
        elif slow:
            self._trip(Evidence("probe_slow"), now, rng, hint)
        else:
            self._probe_successes += 1
            enough = self._probe_successes  # perhaps more: the rules may have asked for so many until now
            if enough >= self.rules.success_threshold:
                self._close(now, Evidence("probes_succeeded", bad=enough, calls=enough))

    def _trip(self, evidence: Evidence, now: float, rng: random.Random, hint: float | None) -> None:
        rules = self.rules
        if self.period.state is CircuitState.DISABLED:
            return
        if self.period.state is CircuitState.CLOSED and now - self._closed_at >= rules.max_open_for:
            self.trips = 0  # a long healthy time pays off the debt
        self.until = now + rules.draw_open_time(self.trips, rng, hint)
        self.trips += 1
        self._enter(CircuitState.OPEN, evidence, retry_after=self.until - now)

    def _close(self, now: float, evidence: Evidence) -> None:
        self._forget_window(now)
        self._closed_at = now
        self._enter(CircuitState.CLOSED, evidence)

    def _forget_window(self, now: float) -> None:
        self._row.restart()
        self._recent.restart(now, self._totals())

    def _enter(self, state: CircuitState, evidence: Evidence, *, retry_after: float | None = None) -> None:
        before = self.period.state
        self.period = Period(state, self.period.number + 1)
        self._leases.clear()
        self._probe_successes = 0
        if state is CircuitState.OPEN or state is CircuitState.FORCED_OPEN:
            self.evidence = evidence
        if before is not state:
            self.changes.append(Change(before, state, evidence, retry_after))

    def _expire_leases(self, now: float) -> None:
        expired = [permit for permit, end in self._leases.items() if end <= now]
        for permit in expired:
            del self._leases[permit]  # the permit stays live: a late result of this period still counts
        self.lost += len(expired)
