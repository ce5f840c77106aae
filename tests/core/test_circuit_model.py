"""The circuit agrees with the naive thing: a list of everything that happened, judged anew each time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import floor, inf, nan, nextafter
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resilience._core.circuit import Circuit
from resilience._core.states import CircuitRules, CircuitState, Permit, Refusal
from resilience._core.words import Reason, Verdict

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
FORCED_OPEN, DISABLED = CircuitState.FORCED_OPEN, CircuitState.DISABLED
SUCCESS, FAILURE, IGNORED = Verdict.SUCCESS, Verdict.FAILURE, Verdict.IGNORED


class Draw(Random):
    """A random source that says what it is told to say."""

    value = 0.0

    def random(self) -> float:
        return self.value


# -- the model ---------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Pass:
    """A permit as the model sees it."""

    generation: int | None
    lease: float | None = None
    released: bool = False


@dataclass
class Result:
    """One counted result."""

    bucket: int
    verdict: Verdict
    slow: bool
    kind: str


@dataclass
class Model:
    """The specification, without any of the circuit's short cuts: every figure is counted from the log."""

    rules: CircuitRules
    now: float
    state: CircuitState = CLOSED
    generation: int = 0
    until: float = -inf
    closed_at: float = 0.0
    trips: int = 0
    bucket: int = 0
    ignored: int = 0
    stale: int = 0
    lost: int = 0
    probe_successes: int = 0
    totals: dict[str, int] = field(default_factory=lambda: {"success": 0, "failure": 0, "slow": 0})
    most_probes: int = 0  # of the rules in force since this state began
    log: list[Result] = field(default_factory=list)
    recent: list[Result] = field(default_factory=list)  # those of the log that the window may know
    passes: list[Pass] = field(default_factory=list)
    changes: list[tuple[CircuitState, CircuitState, str, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.closed_at = self.now
        self.bucket = self.bucket_of(self.now)
        self.most_probes = self.rules.half_open_max_calls

    # windows

    def bucket_of(self, now: float) -> int:
        return floor(Fraction(now) / Fraction(self.rules.window / 10))

    def lately(self) -> list[Result]:
        if self.rules.failure_rate is None and self.rules.slow_rate is None:
            return []
        if self.rules.window_calls is not None:
            return self.recent[-self.rules.window_calls :]
        oldest = max(self.bucket, self.bucket_of(self.now)) - 9
        return [result for result in self.recent if result.bucket >= oldest]

    def adopt(self, rules: CircuitRules) -> None:
        before, live, known = shape(self.rules), self.lately(), max(self.bucket, self.bucket_of(self.now))
        width = self.rules.window / 10
        self.rules = rules
        self.most_probes = max(self.most_probes, rules.half_open_max_calls)
        if shape(rules) == before:
            return
        self.bucket = self.bucket_of(self.now)
        match before, shape(rules):
            case ("seconds", _), ("seconds", _):
                self.recent = [Result(self.bucket_of(one.bucket * width), one.verdict, one.slow, "") for one in live]
                self.bucket = max(self.bucket, self.bucket_of(known * width))
            case ("calls", _), ("calls", _):
                self.recent = live
            case ("seconds", _), ("calls", _):
                self.recent = bad_ones_first(live)
            case _:
                self.recent = []

    def counts(self) -> tuple[int, int, int]:
        window = self.lately()
        return len(window), sum(one.verdict is FAILURE for one in window), sum(one.slow for one in window)

    def row(self) -> list[Result]:
        failures: list[Result] = []
        for result in reversed(self.log):
            if result.verdict is SUCCESS:
                break
            if result.verdict is FAILURE:
                failures.append(result)
        return failures

    # probes

    def leases(self) -> list[Pass]:
        mine = [one for one in self.passes if one.generation == self.generation and not one.released]
        return [one for one in mine if one.lease is not None] if self.state is HALF_OPEN else []

    def refusal(self) -> tuple[Reason, float | None] | None:
        if self.state is OPEN and self.now < self.until:
            return Reason.CIRCUIT_OPEN, self.until - self.now
        if self.state is FORCED_OPEN:
            return Reason.FORCED_OPEN, None
        ends = [one.lease for one in self.leases() if one.lease is not None and one.lease > self.now]
        if self.state is HALF_OPEN and len(ends) >= self.rules.half_open_max_calls:
            return Reason.HALF_OPEN_SATURATED, min(ends) - self.now
        return None

    def acquire(self) -> tuple[Reason, float | None] | Pass:
        if self.state is OPEN and self.now >= self.until:
            self.enter(HALF_OPEN, "open_time_over")
        for one in self.leases():
            if one.lease is not None and one.lease <= self.now:
                one.lease = None
                self.lost += 1
        refusal = self.refusal()
        if refusal is not None and not self.rules.shadow:
            return refusal
        mine = Pass(self.generation if refusal is None else None)
        if refusal is None and self.state is HALF_OPEN:
            mine.lease = self.now + self.rules.probe_lease
        self.passes.append(mine)
        return mine

    # results

    def count(self, verdict: Verdict, *, slow: bool, kind: str) -> None:
        self.bucket = max(self.bucket, self.bucket_of(self.now))
        self.log.append(Result(self.bucket, verdict, slow, kind))
        self.recent.append(self.log[-1])
        self.totals["slow"] += slow
        if verdict is not IGNORED:
            self.totals[verdict.value] += 1

    def release(self, one: Pass, verdict: Verdict, draw: float, *, slow: bool, kind: str, hint: float | None) -> None:
        if one.released:
            return
        one.released = True
        slow = slow and self.rules.slow_rate is not None
        if one.generation != self.generation:
            self.stale += one.generation is not None
        elif verdict is IGNORED and not slow:
            self.ignored += 1
        elif self.state is HALF_OPEN:
            self.count(verdict, slow=slow, kind=kind)
            if verdict is FAILURE:
                self.trip("probe_failed", 0, 0, draw, hint)
            elif slow:
                self.trip("probe_slow", 0, 0, draw, hint)
            else:
                self.probe_successes += 1
                if self.probe_successes >= self.rules.success_threshold:
                    self.forget()
                    self.enter(CLOSED, "probes_succeeded", self.probe_successes, self.probe_successes)
        else:
            self.count(verdict, slow=slow, kind=kind)
            if self.state is CLOSED:
                self.judge(verdict, draw, slow=slow, kind=kind, hint=hint)

    def judge(self, verdict: Verdict, draw: float, *, slow: bool, kind: str, hint: float | None) -> None:
        rules = self.rules
        if verdict is FAILURE:
            row, window = self.row(), self.lately()
            alike = [one for one in row if one.kind == kind]
            if rules.window_calls is None:
                window = [one for one in window if one.verdict is not IGNORED]
            failed = sum(one.verdict is FAILURE for one in window)
            if rules.failure_threshold is not None and len(row) >= rules.failure_threshold:
                return self.trip("in_a_row", len(row), 0, draw, hint)
            if len(alike) >= rules.per_kind.get(kind, inf):
                return self.trip("in_a_row", len(alike), 0, draw, hint)
            if self.breaks(rules.failure_rate, failed, len(window)):
                return self.trip("failure_rate", failed, len(window), draw, hint)
        if slow:
            self.judge_slow(0, draw, hint)
        return None

    def judge_slow(self, hanging: int, draw: float, hint: float | None) -> None:
        calls, _, slow = self.counts()
        if self.state is CLOSED and self.breaks(self.rules.slow_rate, slow + hanging, calls + hanging):
            self.trip("slow_rate", slow + hanging, calls + hanging, draw, hint)

    def breaks(self, rate: float | None, bad: int, calls: int) -> bool:
        least = min(self.rules.minimum_calls, self.rules.window_calls or self.rules.minimum_calls)
        return rate is not None and calls >= least and Fraction(bad, calls) >= Fraction(str(rate))

    # states

    def trip(self, rule: str, bad: int, calls: int, draw: float, hint: float | None) -> None:
        rules = self.rules
        if self.state is CLOSED and self.now - self.closed_at >= rules.max_open_for:
            self.trips = 0
        seconds = rules.open_for
        for _ in range(self.trips):
            seconds = min(seconds * rules.growth, max(rules.open_for, rules.max_open_for))
        seconds *= 1 - rules.jitter * draw
        if hint is not None and hint > 0:
            seconds = max(seconds, min(hint, rules.hint_cap))
        self.until = self.now + seconds
        self.trips += 1
        self.enter(OPEN, rule, bad, calls)

    def forget(self) -> None:
        self.log.clear()
        self.recent.clear()
        self.closed_at = self.now
        self.bucket = self.bucket_of(self.now)

    def enter(self, state: CircuitState, rule: str, bad: int = 0, calls: int = 0) -> None:
        if state is not self.state:
            self.changes.append((self.state, state, rule, bad, calls))
        self.state = state
        self.generation += 1
        self.probe_successes = 0
        self.most_probes = self.rules.half_open_max_calls


def shape(rules: CircuitRules) -> tuple[str, float]:
    if rules.failure_rate is None and rules.slow_rate is None:
        return "none", 0
    return ("seconds", rules.window) if rules.window_calls is None else ("calls", rules.window_calls)


def bad_ones_first(results: list[Result]) -> list[Result]:
    """How a window of calls takes over one of seconds, in which results have no order within a bucket."""
    ordered: list[Result] = []
    for bucket in sorted({one.bucket for one in results}):
        alike = [one for one in results if one.bucket == bucket]
        failed, slow = sum(one.verdict is FAILURE for one in alike), sum(one.slow for one in alike)
        ordered += [Result(0, FAILURE if nth < failed else SUCCESS, nth < slow, "") for nth in range(len(alike))]
    return ordered


# -- the machine -------------------------------------------------------------------------------------------------------

ALL_RULES = st.builds(
    CircuitRules,
    failure_threshold=st.sampled_from([None, 1, 2, 3, 5]),
    success_threshold=st.integers(1, 3),
    open_for=st.sampled_from([4.0, 64.0]),
    half_open_max_calls=st.integers(1, 3),
    failure_rate=st.sampled_from([None, 0.3, 0.5, 0.7, 1.0]),
    slow_rate=st.sampled_from([None, 0.4, 0.8, 1.0]),
    minimum_calls=st.integers(1, 6),
    window=st.sampled_from([10.0, 7.7, 1 / 3]),
    window_calls=st.sampled_from([None, None, 1, 4, 8]),
    jitter=st.sampled_from([0.0, 0.25]),
    growth=st.sampled_from([1.0, 2.0]),
    max_open_for=st.sampled_from([2.0, 32.0, 256.0]),
    hint_cap=st.sampled_from([0.0, 8.0, 128.0]),
    probe_lease=st.sampled_from([1.0, 8.0, inf]),
    per_kind=st.sampled_from([{}, {"dns_error": 1}, {"dns_error": 2, "timeout": 3}]),
    shadow=st.sampled_from([False, False, False, True]),
)


class CircuitMachine(RuleBasedStateMachine):
    """Everything that can be done to a circuit, in any order, at any time."""

    @initialize(rules=ALL_RULES, now=st.sampled_from([0.0, -5.5, 12_345.678]))
    def begin(self, rules: CircuitRules, now: float) -> None:
        self.circuit = Circuit(rules, now)
        self.model = Model(rules, now)
        self.issued: list[tuple[Permit, Pass]] = []
        self.draw = Draw()

    @property
    def now(self) -> float:
        return self.model.now

    # time

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.5, 1.0, 4.0, 10.0, 70.0, 300.0, -0.1, -2.0, -20.0]))
    def pass_time(self, seconds: float) -> None:
        """Sometimes the clock goes backwards."""
        self.model.now += seconds

    @precondition(lambda self: self.model.state is OPEN and self.model.until > self.model.now)
    @rule(side=st.sampled_from([-inf, 0.0, inf]))
    def go_to_the_end_of_the_open_time(self, side: float) -> None:
        until = self.model.until
        self.model.now = nextafter(until, side) if side else until

    @precondition(lambda self: self.model.leases())
    @rule(side=st.sampled_from([-inf, 0.0]))
    def go_to_the_end_of_a_lease(self, side: float) -> None:
        ends = [one.lease for one in self.model.leases() if one.lease not in (None, inf)]
        if ends:
            end = min(ends)
            self.model.now = max(self.now, nextafter(end, side) if side else end)

    # calls

    @rule()
    def acquire(self) -> None:
        expected = self.model.acquire()
        answer = self.circuit.acquire(self.now)
        if isinstance(expected, Pass):
            assert isinstance(answer, Permit)
            assert answer.probe == (expected.lease is not None)
            self.issued.append((answer, expected))
        else:
            assert isinstance(answer, Refusal)
            assert (answer.reason, answer.retry_after) == expected

    def give_back(
        self, index: int, verdict: Verdict, draw: float, *, slow: bool, kind: str, hint: float | None
    ) -> None:
        permit, mine = self.issued[index % len(self.issued)]
        self.draw.value = draw
        self.model.release(mine, verdict, draw, slow=slow, kind=kind, hint=hint)
        self.circuit.release(permit, verdict, self.now, self.draw, slow=slow, kind=kind, hint=hint)
        assert not permit.live

    @precondition(lambda self: self.issued)
    @rule(back=st.integers(1, 4), verdict=st.sampled_from([SUCCESS, IGNORED]), slow=st.booleans())
    def succeed_or_cancel(self, back: int, verdict: Verdict, slow: bool) -> None:
        self.give_back(-back, verdict, 0.0, slow=slow, kind="", hint=None)

    @precondition(lambda self: self.issued)
    @rule(
        back=st.integers(1, 4),
        slow=st.booleans(),
        kind=st.sampled_from(["", "dns_error", "timeout"]),
        hint=st.sampled_from([None, None, nan, -1.0, 0.0, 5.0, 100.0, inf]),
        draw=st.sampled_from([0.0, 0.5, 0.75]),
    )
    def fail(self, back: int, slow: bool, kind: str, hint: float | None, draw: float) -> None:
        self.give_back(-back, FAILURE, draw, slow=slow, kind=kind, hint=hint)

    @precondition(lambda self: self.issued)
    @rule(index=st.integers(0, 99), verdict=st.sampled_from(Verdict))
    def give_back_any(self, index: int, verdict: Verdict) -> None:
        """Old ones, and those that were given back before."""
        self.give_back(index, verdict, 0.0, slow=False, kind="", hint=None)

    @rule(verdicts=st.lists(st.tuples(st.sampled_from(Verdict), st.booleans()), min_size=2, max_size=6))
    def make_several_calls(self, verdicts: list[tuple[Verdict, bool]]) -> None:
        for verdict, slow in verdicts:
            before = len(self.issued)
            self.acquire()
            if len(self.issued) > before:
                self.give_back(-1, verdict, 0.5, slow=slow, kind="timeout", hint=None)

    @precondition(lambda self: self.issued)
    @rule(back=st.integers(1, 4))
    def renew(self, back: int) -> None:
        permit, mine = self.issued[-back % len(self.issued)]
        if mine in self.model.leases():
            mine.lease = self.now + self.model.rules.probe_lease
        self.circuit.renew(permit, self.now)

    @precondition(lambda self: self.model.state is CLOSED and self.now < self.circuit.turn_at)
    @rule(times=st.integers(1, 3))
    def count_a_success_without_asking(self, times: int) -> None:
        """What the fast path does."""
        for _ in range(times):
            self.model.count(SUCCESS, slow=False, kind="")
        self.circuit.successes += times

    @rule(hanging=st.integers(0, 6))
    def judge_in_flight(self, hanging: int) -> None:
        self.draw.value = 0.5
        if hanging:
            self.model.judge_slow(hanging, 0.5, None)
        self.circuit.judge_in_flight(hanging, self.now, self.draw)

    @rule()
    def turn_without_need(self) -> None:
        self.circuit.turn(self.now)
        self.model.bucket = max(self.model.bucket, self.model.bucket_of(self.now))

    @precondition(lambda self: self.model.state in (OPEN, HALF_OPEN))
    @rule(times=st.integers(1, 3))
    def send_probes(self, times: int) -> None:
        if self.model.state is OPEN:
            self.model.now = max(self.now, self.model.until)
        for _ in range(times):
            self.acquire()

    @precondition(lambda self: self.model.leases())
    @rule(
        index=st.integers(0, 2),
        verdict=st.sampled_from([SUCCESS, SUCCESS, FAILURE, IGNORED]),
        slow=st.sampled_from([False, False, False, True]),
    )
    def probe_returns(self, index: int, verdict: Verdict, slow: bool) -> None:
        live = self.model.leases()
        at = [mine for _, mine in self.issued].index(live[index % len(live)])
        self.give_back(at, verdict, 0.5, slow=slow, kind="timeout", hint=5.0)

    # by hand

    @rule(rules=ALL_RULES)
    def adopt(self, rules: CircuitRules) -> None:
        """Other rules, all of them or all but the window's."""
        self.circuit.adopt(rules, self.now)
        self.model.adopt(rules)

    @rule(window=st.sampled_from([10.0, 7.7, 1 / 3, 100.0]), window_calls=st.sampled_from([None, None, 1, 4, 8]))
    def adopt_another_window(self, window: float, window_calls: int | None) -> None:
        self.adopt(replace(self.model.rules, window=window, window_calls=window_calls))

    @rule(what=st.sampled_from(["force_open", "close", "disable", "reset", "restore", "by_settings"]), data=st.data())
    def by_hand(self, what: str, data: st.DataObject) -> None:
        """One rule for all of them, so that they do not drown what calls do."""
        getattr(self, what)(data)

    def force_open(self, _: st.DataObject) -> None:
        self.circuit.force_open()
        self.model.enter(FORCED_OPEN, "by_hand")

    def close(self, _: st.DataObject) -> None:
        self.circuit.close(self.now)
        self.model.forget()
        self.model.enter(CLOSED, "by_hand")

    def disable(self, _: st.DataObject) -> None:
        self.circuit.disable()
        self.model.enter(DISABLED, "by_hand")

    def by_settings(self, data: st.DataObject) -> None:
        state = data.draw(st.sampled_from([CLOSED, FORCED_OPEN, DISABLED]))
        self.circuit.enter_by_settings(state, self.now)
        self.model.closed_at = self.now
        self.model.enter(state, "by_settings")

    def reset(self, data: st.DataObject) -> None:
        state = data.draw(st.sampled_from([CLOSED, CLOSED, FORCED_OPEN, DISABLED]))
        self.circuit.reset(self.now, state)
        model = self.model
        model.totals = {"success": 0, "failure": 0, "slow": 0}
        model.ignored = model.stale = model.trips = 0
        model.forget()
        model.enter(state, "by_hand")

    def restore(self, data: st.DataObject) -> None:
        state = data.draw(st.sampled_from([OPEN, OPEN, *CircuitState]))
        remaining = data.draw(st.sampled_from([-1e9, -0.5, 0.0, 3.0, 1e9, inf, nan]))
        trips = data.draw(st.sampled_from([-1, 0, 3]))
        self.circuit.restore(state, self.now, remaining=remaining, trips=trips)
        model, rules = self.model, self.model.rules
        if state is HALF_OPEN:
            state, remaining = OPEN, 0.0
        if state is OPEN:
            seconds = remaining if remaining > 0 else 0.0
            model.until = self.now + min(seconds, max(rules.open_for, rules.max_open_for, rules.hint_cap))
        model.trips = max(0, trips)
        model.forget()
        model.enter(state, "restored")

    # what holds after each step

    @invariant()
    def the_states_agree(self) -> None:
        circuit, model = self.circuit, self.model
        assert (circuit.state, circuit.period.number) == (model.state, model.generation)
        assert circuit.trips == model.trips
        assert circuit.until == model.until
        assert (circuit.door is circuit.period) == (model.state in (CLOSED, DISABLED))

    @invariant()
    def the_figures_agree(self) -> None:
        circuit, model = self.circuit, self.model
        totals = {"success": circuit.successes, "failure": circuit.failures, "slow": circuit.slow}
        assert totals == model.totals
        assert (circuit.ignored, circuit.stale, circuit.lost) == (model.ignored, model.stale, model.lost)
        assert circuit.failures_in_a_row == len(model.row())
        assert circuit.counts(self.now) == model.counts()
        assert circuit.probes == len(model.leases())

    @invariant()
    def a_look_agrees_and_changes_nothing(self) -> None:
        refusal = self.circuit.refusal(self.now)
        assert (refusal and (refusal.reason, refusal.retry_after)) == self.model.refusal()

    @invariant()
    def each_change_is_told_once(self) -> None:
        told = [
            (change.before, change.after, change.evidence.rule, change.evidence.bad, change.evidence.calls)
            for change in self.circuit.changes
        ]
        assert told == self.model.changes
        for change in self.circuit.changes:
            if change.after is OPEN:
                assert change.retry_after == pytest.approx(self.circuit.until - self.now)
        self.circuit.changes.clear()
        self.model.changes.clear()

    @invariant()
    def probes_stay_below_their_number(self) -> None:
        held = [one for one in self.model.leases() if one.lease is not None and one.lease > self.now]
        assert len(held) <= self.model.most_probes


TestCircuit = CircuitMachine.TestCase
TestCircuit.settings = settings(max_examples=200, stateful_step_count=40)
