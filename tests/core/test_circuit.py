"""Each row of the circuit's table of transitions, and each trap that other breakers fell into."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan, nextafter
from random import Random
from statistics import mean
from typing import Any

import pytest

from resilience._core.circuit import Circuit
from resilience._core.states import CircuitRules, CircuitState, Evidence, Permit, Refusal
from resilience._core.words import Reason, Verdict

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
FORCED_OPEN, DISABLED = CircuitState.FORCED_OPEN, CircuitState.DISABLED
SUCCESS, FAILURE, IGNORED = Verdict.SUCCESS, Verdict.FAILURE, Verdict.IGNORED

RNG = Random(7)
IN_A_ROW = CircuitRules(failure_rate=None, slow_rate=None)


class Half(Random):
    """A random source in the middle of everything."""

    def random(self) -> float:
        return 0.5


def let_in(circuit: Circuit, now: float = 0.0) -> Permit:
    answer = circuit.acquire(now)
    assert isinstance(answer, Permit)
    return answer


def call(circuit: Circuit, verdict: Verdict, now: float = 0.0, *, slow: bool = False, kind: str = "") -> None:
    circuit.release(let_in(circuit, now), verdict, now, RNG, slow=slow, kind=kind)


def opened(rules: CircuitRules = IN_A_ROW) -> Circuit:
    """A circuit that opened at time 0."""
    circuit = Circuit(rules, 0.0)
    for _ in range(rules.failure_threshold or 0):
        call(circuit, FAILURE)
    assert circuit.state is OPEN
    circuit.changes.clear()
    return circuit


def half_opened(rules: CircuitRules = IN_A_ROW) -> tuple[Circuit, Permit]:
    """A circuit with its first probe under way, at time 60."""
    circuit = opened(rules)
    return circuit, let_in(circuit, 60.0)


def told(circuit: Circuit) -> list[tuple[str, str, str]]:
    return [(change.before.value, change.after.value, str(change.evidence)) for change in circuit.changes]


def test_failures_in_a_row_open() -> None:
    """The fifth failure in a row opens the circuit, the fourth does not."""
    circuit = Circuit(IN_A_ROW, 0.0)
    for _ in range(4):
        call(circuit, FAILURE)
    assert circuit.state is CLOSED
    call(circuit, FAILURE)
    assert told(circuit) == [("closed", "open", "5 failures in a row")]


@pytest.mark.parametrize("between", [SUCCESS, IGNORED])
def test_only_a_success_breaks_the_row(between: Verdict) -> None:
    """A success starts the count of failures anew; something that is no evidence does not."""
    circuit = Circuit(IN_A_ROW, 0.0)
    for verdict in [FAILURE] * 4 + [between] + [FAILURE]:
        call(circuit, verdict)
    assert circuit.failures_in_a_row == (1 if between is SUCCESS else 5)
    assert circuit.state is (CLOSED if between is SUCCESS else OPEN)


def test_a_kind_has_a_threshold_of_its_own() -> None:
    """Two failures of one kind in a row open the circuit although five of any kind would be needed."""
    circuit = Circuit(replace(IN_A_ROW, per_kind={"certificate_error": 2}), 0.0)
    for kind in ("timeout", "certificate_error", "timeout", "certificate_error"):
        call(circuit, FAILURE, kind=kind)
    assert told(circuit) == [("closed", "open", "2 certificate_error failures in a row")]


def test_a_failure_rate_opens() -> None:
    """Half of at least twenty calls failing opens the circuit, at the twentieth call and not before."""
    circuit = Circuit(CircuitRules(failure_threshold=None), 0.0)
    for number in range(20):
        assert circuit.state is CLOSED
        call(circuit, FAILURE if number % 2 else SUCCESS, number / 10)
    assert told(circuit) == [("closed", "open", "10 of 20 calls failed in 30 s (threshold 50 %)")]


@pytest.mark.parametrize("rate, bad, calls", [(0.07, 7, 100), (0.14, 7, 50), (0.28, 7, 25), (0.56, 14, 25)])
@pytest.mark.parametrize("slow", [False, True])
def test_a_rate_that_is_just_reached_opens(rate: float, bad: int, calls: int, slow: bool) -> None:
    """7 of 100 calls are 7 %, whatever floats make of 100 times 0.07."""
    rules = CircuitRules(failure_threshold=None, failure_rate=rate, slow_rate=rate, minimum_calls=calls)
    circuit = Circuit(rules, 0.0)
    for _ in range(calls - bad):
        call(circuit, SUCCESS)
    for left in reversed(range(bad)):
        assert circuit.state is CLOSED
        call(circuit, SUCCESS if slow else FAILURE, slow=slow)
        assert circuit.state is (CLOSED if left else OPEN)


def test_slow_calls_open() -> None:
    """Four of five slow calls open the circuit, even if all of them succeed."""
    circuit = Circuit(CircuitRules(minimum_calls=5, window_calls=5), 0.0)
    for slow in (False, True, True, True, True):
        assert circuit.state is CLOSED
        call(circuit, SUCCESS, slow=slow)
    assert told(circuit) == [("closed", "open", "4 of 5 calls were slow in the last 5 (threshold 80 %)")]


def test_a_hang_opens_while_it_lasts() -> None:
    """Calls in flight that are slow already count with those that ended."""
    circuit = Circuit(CircuitRules(), 0.0)
    for _ in range(4):
        call(circuit, SUCCESS)
    circuit.judge_in_flight(15, 1.0, RNG)
    assert circuit.state is CLOSED
    circuit.judge_in_flight(16, 1.0, RNG)
    assert told(circuit) == [("closed", "open", "16 of 20 calls were slow in 30 s (threshold 80 %)")]


def test_calls_that_were_given_up_while_slow_are_slow_calls() -> None:
    """Callers that give up on a hanging provider open the circuit by the slow rule, and are no failures."""
    circuit = Circuit(CircuitRules(minimum_calls=3), 0.0)
    for _ in range(3):
        call(circuit, IGNORED, slow=True)
    assert circuit.state is OPEN
    assert circuit.failures == 0


def test_calls_that_were_given_up_do_not_dilute_the_failure_rate() -> None:
    """Nobody saw how they would have ended: four failures of four results are all of them."""
    circuit = Circuit(CircuitRules(failure_threshold=None, failure_rate=1.0, slow_rate=1.0, minimum_calls=4), 0.0)
    call(circuit, IGNORED, slow=True)
    for _ in range(4):
        call(circuit, FAILURE)
    assert told(circuit) == [("closed", "open", "4 of 4 calls failed in 30 s (threshold 100 %)")]


def test_old_failures_leave_the_window() -> None:
    """What happened more than the window's length ago is not held against the provider."""
    circuit = Circuit(CircuitRules(failure_threshold=None), 0.0)
    for _ in range(19):
        call(circuit, FAILURE, 0.0)
    call(circuit, FAILURE, 31.0)
    assert circuit.state is CLOSED
    assert circuit.counts(31.0) == (1, 1, 0)


def test_a_ring_shorter_than_the_minimum_can_open() -> None:
    """With a window of ten calls, ten calls are enough."""
    circuit = Circuit(CircuitRules(failure_threshold=None, window_calls=10), 0.0)
    for number in range(10):
        call(circuit, FAILURE if number % 2 else SUCCESS)
    assert told(circuit) == [("closed", "open", "5 of 10 calls failed in the last 10 (threshold 50 %)")]


def test_an_open_circuit_refuses_with_the_time_left() -> None:
    """The refusal says in how many seconds the first probe may leave, and why."""
    circuit = opened()
    refusal = circuit.acquire(10.0)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.CIRCUIT_OPEN
    assert refusal.retry_after == circuit.until - 10.0
    assert str(refusal.evidence) == "5 failures in a row"


def test_the_first_call_after_the_open_time_is_a_probe() -> None:
    """From *until* on, and not a moment before."""
    circuit = opened()
    assert isinstance(circuit.acquire(nextafter(circuit.until, -inf)), Refusal)
    assert let_in(circuit, circuit.until).probe
    assert told(circuit) == [("open", "half_open", "open time is over")]


@pytest.mark.parametrize("probes", [1, 3])
def test_half_open_bounds_the_probes_that_are_under_way(probes: int) -> None:
    """Of fifty callers that come at once, exactly as many pass as the settings say."""
    circuit = opened(replace(IN_A_ROW, half_open_max_calls=probes))
    answers = [circuit.acquire(60.0) for _ in range(50)]
    assert sum(isinstance(answer, Permit) for answer in answers) == probes
    refusals = [answer for answer in answers if isinstance(answer, Refusal)]
    assert {(one.reason, one.retry_after) for one in refusals} == {(Reason.HALF_OPEN_SATURATED, 60.0)}


@pytest.mark.parametrize("wanted", [1, 2, 5])
def test_enough_successful_probes_close(wanted: int) -> None:
    """As many as *success_threshold*, not one fewer; the window starts empty."""
    circuit = opened(CircuitRules(success_threshold=wanted))
    for _ in range(wanted):
        assert circuit.state is not CLOSED
        call(circuit, SUCCESS, 61.0)
    assert told(circuit)[1:] == [("half_open", "closed", f"{wanted} of {wanted} probes succeeded")]
    assert circuit.counts(61.0) == (0, 0, 0)
    assert circuit.failures_in_a_row == 0


def test_one_failed_probe_opens_again() -> None:
    """Also after a success, and for a whole open time."""
    circuit = opened(replace(IN_A_ROW, success_threshold=2))
    call(circuit, SUCCESS, 60.0)
    call(circuit, FAILURE, 61.0, kind="timeout")
    assert told(circuit)[1:] == [("half_open", "open", "a probe failed (timeout)")]
    assert 61.0 + 54.0 <= circuit.until <= 61.0 + 60.0
    call(circuit, SUCCESS, 121.0)
    assert circuit.state is HALF_OPEN, "successes of an earlier half-open time do not count"


def test_a_slow_probe_opens_again() -> None:
    """A provider that answers too slowly has not recovered."""
    circuit, probe = half_opened(CircuitRules())
    circuit.release(probe, SUCCESS, 80.0, RNG, slow=True)
    assert told(circuit)[1:] == [("half_open", "open", "a probe was slow")]


def test_a_cancelled_probe_decides_nothing() -> None:
    """It neither closes nor opens the circuit, and its slot is free at once."""
    circuit, probe = half_opened(replace(IN_A_ROW, success_threshold=1))
    circuit.release(probe, IGNORED, 60.5, RNG)
    assert (circuit.state, circuit.probes) == (HALF_OPEN, 0)
    for _ in range(100):
        call(circuit, IGNORED, 61.0)
    assert circuit.state is HALF_OPEN
    call(circuit, SUCCESS, 61.0)
    assert circuit.state is CLOSED


@pytest.mark.parametrize("verdict", [SUCCESS, FAILURE])
def test_a_call_from_before_the_trip_has_no_vote(verdict: Verdict) -> None:
    """Neither on the open circuit, nor on the half-open one, nor on the one that closed again."""
    circuit = Circuit(replace(IN_A_ROW, failure_threshold=1, success_threshold=1), 0.0)
    early = [let_in(circuit) for _ in range(3)]
    call(circuit, FAILURE)
    circuit.release(early[0], verdict, 1.0, RNG)
    assert circuit.state is OPEN
    probe = let_in(circuit, 60.0)
    circuit.release(early[1], verdict, 61.0, RNG)
    assert (circuit.state, circuit.probes) == (HALF_OPEN, 1)
    circuit.release(probe, SUCCESS, 62.0, RNG)
    circuit.release(early[2], verdict, 63.0, RNG)
    assert (circuit.state, circuit.failures_in_a_row) == (CLOSED, 0)
    assert circuit.stale == 3


def test_a_probe_of_an_earlier_half_open_time_has_no_vote() -> None:
    """Two probes: the first fails and opens the circuit, the other one comes back in the next half-open time."""
    rules = replace(IN_A_ROW, half_open_max_calls=2, success_threshold=1)
    circuit, probe = half_opened(rules)
    straggler = let_in(circuit, 60.0)
    circuit.release(probe, FAILURE, 61.0, RNG)
    let_in(circuit, 130.0)
    circuit.release(straggler, SUCCESS, 131.0, RNG)
    assert (circuit.state, circuit.probes, circuit.stale) == (HALF_OPEN, 1, 1)


def test_a_hung_probe_loses_its_slot_with_its_lease() -> None:
    """After *probe_lease* seconds another caller may probe; the loss is counted once."""
    circuit, _ = half_opened(replace(IN_A_ROW, probe_lease=20.0))
    refusal = circuit.acquire(79.9)
    assert isinstance(refusal, Refusal)
    assert refusal.retry_after == pytest.approx(0.1)
    assert circuit.refusal(80.0) is None
    assert let_in(circuit, 80.0).probe
    assert (circuit.lost, circuit.probes) == (1, 1)


@pytest.mark.parametrize("verdict, state", [(SUCCESS, CLOSED), (FAILURE, OPEN)])
def test_the_late_result_of_a_lost_probe_counts(verdict: Verdict, state: CircuitState) -> None:
    """As long as the half-open time that sent it lasts."""
    circuit, probe = half_opened(replace(IN_A_ROW, probe_lease=20.0, success_threshold=1))
    let_in(circuit, 80.0)
    circuit.release(probe, verdict, 85.0, RNG)
    assert circuit.state is state


def test_a_probe_with_signs_of_life_keeps_its_slot() -> None:
    """A renewed lease runs from the renewal on; a lost one is not brought back."""
    circuit, probe = half_opened(replace(IN_A_ROW, probe_lease=20.0))
    circuit.renew(probe, 75.0)
    assert isinstance(circuit.acquire(94.0), Refusal)
    let_in(circuit, 95.0)
    circuit.renew(probe, 95.0)
    assert circuit.probes == 1


def test_releasing_twice_does_nothing() -> None:
    """The second release neither counts nor frees a slot."""
    circuit, probe = half_opened(replace(IN_A_ROW, success_threshold=2))
    for _ in range(3):
        circuit.release(probe, SUCCESS, 61.0, RNG)
    assert (circuit.state, circuit.successes) == (HALF_OPEN, 1)
    let_in(circuit, 61.0)
    circuit.release(probe, SUCCESS, 61.0, RNG)
    assert circuit.probes == 1


def test_the_open_time_is_drawn_from_54_to_60_seconds() -> None:
    """Never longer than promised, never much shorter, and spread evenly, so that processes do not probe in step."""
    seconds = [opened().until for _ in range(500)]
    assert 54.0 <= min(seconds) < 54.2
    assert 59.8 < max(seconds) <= 60.0
    assert mean(seconds) == pytest.approx(57.0, abs=0.4)


@pytest.mark.parametrize(
    "hint, seconds", [(None, 57.0), (nan, 57.0), (-5.0, 57.0), (10.0, 57.0), (90.0, 90.0), (1e9, 120.0)]
)
def test_a_hint_keeps_it_open_for_longer_up_to_the_cap(hint: float | None, seconds: float) -> None:
    """Never earlier than the provider asked, never later than *hint_cap*, never shorter than without a hint."""
    circuit = Circuit(replace(IN_A_ROW, failure_threshold=1), 0.0)
    circuit.release(let_in(circuit), FAILURE, 0.0, Half(), hint=hint)
    assert circuit.until == seconds


def test_a_hint_counts_whichever_rule_opens() -> None:
    """A failure that breaks only the slow rule brings its hint along."""
    circuit = Circuit(CircuitRules(failure_threshold=None, failure_rate=None, minimum_calls=1), 0.0)
    circuit.release(let_in(circuit), FAILURE, 0.0, RNG, slow=True, hint=100.0)
    assert (circuit.state, circuit.until) == (OPEN, 100.0)


def test_open_times_grow_up_to_a_limit_and_shrink_after_a_healthy_time() -> None:
    """Twice as long each time, at most *max_open_for*; a closed time of that length pays off the debt."""
    rules = replace(IN_A_ROW, failure_threshold=1, success_threshold=1, open_for=10.0, growth=2.0, max_open_for=50.0)
    circuit = Circuit(replace(rules, jitter=0.0), 0.0)
    lengths, now = [], 0.0
    for _ in range(5):
        call(circuit, FAILURE, now)
        lengths.append(circuit.until - now)
        now = circuit.until
    assert lengths == [10.0, 20.0, 40.0, 50.0, 50.0]
    call(circuit, SUCCESS, now)
    call(circuit, FAILURE, now + 49.0)
    assert circuit.until == now + 49.0 + 50.0
    now = circuit.until
    call(circuit, SUCCESS, now)
    call(circuit, FAILURE, now + 50.0)
    assert circuit.until == now + 50.0 + 10.0


def test_ten_thousand_trips_do_not_overflow() -> None:
    """The largest growth the settings allow is bounded by *max_open_for*."""
    circuit = Circuit(replace(IN_A_ROW, growth=100.0, jitter=0.0), 0.0)
    circuit.restore(OPEN, 0.0, remaining=0.0, trips=10_000)
    call(circuit, FAILURE, 0.0)
    assert circuit.until == 600.0


def test_forced_open_refuses_until_closed_by_hand() -> None:
    """No time ends it, nobody knows when it ends, and a call that left before has no vote."""
    circuit = Circuit(IN_A_ROW, 0.0)
    early = let_in(circuit)
    circuit.force_open()
    for now in (0.0, 1e9):
        refusal = circuit.acquire(now)
        assert isinstance(refusal, Refusal)
        assert (refusal.reason, refusal.retry_after) == (Reason.FORCED_OPEN, None)
    circuit.release(early, SUCCESS, 1.0, RNG)
    circuit.close(1e9)
    call(circuit, SUCCESS, 1e9)
    assert told(circuit) == [("closed", "forced_open", "by hand"), ("forced_open", "closed", "by hand")]


def test_disabled_admits_and_counts_and_never_opens() -> None:
    """Figures are kept; no rule is enforced, neither by results nor by calls that hang."""
    circuit = Circuit(CircuitRules(), 0.0)
    circuit.disable()
    for _ in range(100):
        call(circuit, FAILURE, slow=True)
    circuit.judge_in_flight(100, 0.0, RNG)
    assert (circuit.state, circuit.failures, circuit.counts(0.0)) == (DISABLED, 100, (100, 100, 100))


@pytest.mark.parametrize("ring", [None, 5])
def test_closing_by_hand_forgets_what_would_open(ring: int | None) -> None:
    """An operator's close is not undone by the first failure after it."""
    circuit = opened(CircuitRules(minimum_calls=5, window_calls=ring))
    circuit.close(1.0)
    call(circuit, FAILURE, 1.0)
    assert circuit.state is CLOSED


def test_reset_forgets_everything() -> None:
    """A circuit that was reset is as new: no totals, no evidence, no debt."""
    circuit = opened(CircuitRules())
    circuit.reset(1.0, CLOSED)
    assert (circuit.state, circuit.failures, circuit.trips, circuit.counts(1.0)) == (CLOSED, 0, 0, (0, 0, 0))
    assert str(circuit.evidence) == ""


def test_shadow_mode_admits_and_says_what_it_would_have_refused() -> None:
    """Only what would have been admitted is evidence."""
    circuit = opened(replace(IN_A_ROW, shadow=True, success_threshold=1))
    permit = let_in(circuit, 1.0)
    assert circuit.spared is Reason.CIRCUIT_OPEN
    circuit.release(permit, FAILURE, 1.0, RNG)
    assert (circuit.state, circuit.failures, circuit.stale) == (OPEN, 5, 0)
    call(circuit, SUCCESS, 60.0)
    assert circuit.state is CLOSED


@pytest.mark.parametrize(
    "remaining, left", [(12.5, 12.5), (0.0, 0.0), (-1e12, 0.0), (nan, 0.0), (1e12, 600.0), (inf, 600.0)]
)
def test_restoring_an_open_circuit_does_not_trust_the_wall_clock(remaining: float, left: float) -> None:
    """The time left is never negative, and never longer than the circuit could have chosen itself."""
    circuit = Circuit(IN_A_ROW, 1000.0)
    circuit.restore(OPEN, 1000.0, remaining=remaining, trips=3)
    assert (circuit.state, circuit.until, circuit.trips) == (OPEN, 1000.0 + left, 3)
    assert circuit.changes[0].retry_after == left


def test_restoring_a_half_open_circuit_probes_at_once() -> None:
    """Its probes died with their process, so the next call is one."""
    circuit = Circuit(IN_A_ROW, 0.0)
    circuit.restore(HALF_OPEN, 0.0, remaining=50.0, trips=1)
    assert told(circuit) == [("closed", "open", "restored from a snapshot")]
    assert let_in(circuit, 0.0).probe


def test_restoring_forgets_what_was_counted_before() -> None:
    """Failures from before do not add up with failures from after."""
    circuit = Circuit(IN_A_ROW, 0.0)
    for _ in range(4):
        call(circuit, FAILURE)
    circuit.restore(CLOSED, 0.0, remaining=0.0, trips=0)
    call(circuit, FAILURE)
    assert circuit.state is CLOSED


def test_probes_are_counted_in_the_window() -> None:
    """The figures of a circuit that opened again speak of the probes too, and these grow old like other calls."""
    circuit = opened(CircuitRules())
    call(circuit, SUCCESS, 60.0)
    call(circuit, FAILURE, 61.0)
    assert circuit.counts(61.0) == (2, 1, 0)
    assert circuit.counts(95.0) == (0, 0, 0)
    assert circuit.failures_in_a_row == 1


def test_a_clock_that_goes_backwards_harms_nobody() -> None:
    """An open circuit stays open until its time, a half-open one keeps its bound; nothing breaks."""
    circuit = opened(CircuitRules())
    refusal = circuit.acquire(-100.0)
    assert isinstance(refusal, Refusal)
    assert refusal.retry_after == circuit.until + 100.0
    call(circuit, SUCCESS, circuit.until)
    let_in(circuit, 0.0)
    assert isinstance(circuit.acquire(-100.0), Refusal)


@pytest.mark.parametrize("rules", [IN_A_ROW, CircuitRules(window_calls=10), CircuitRules()])
def test_a_success_may_be_counted_without_asking_only_when_no_order_matters(rules: CircuitRules) -> None:
    """A ring of calls has to see each success in its turn; a bucket of time sees a sum; a row sees a change."""
    circuit = Circuit(rules, 0.0)
    assert (circuit.turn_at > 0.0) == (rules.window_calls is None)
    assert (circuit.turn_at == inf) == (rules.failure_rate is None)


EVIDENCE = [
    (Evidence("in_a_row", bad=5), "5 failures in a row"),
    (Evidence("in_a_row", bad=1), "1 failure in a row"),
    (Evidence("in_a_row", bad=2, kind="dns_error"), "2 dns_error failures in a row"),
    (
        Evidence("failure_rate", bad=57, calls=100, span="30 s", threshold=0.5),
        "57 of 100 calls failed in 30 s (threshold 50 %)",
    ),
    (
        Evidence("slow_rate", bad=17, calls=20, span="the last 20", threshold=0.825),
        "17 of 20 calls were slow in the last 20 (threshold 82.5 %)",
    ),
    (Evidence("probe_failed"), "a probe failed"),
    (Evidence("probe_failed", kind="timeout"), "a probe failed (timeout)"),
    (Evidence("probe_slow"), "a probe was slow"),
    (Evidence("probes_succeeded", bad=2, calls=2), "2 of 2 probes succeeded"),
    (Evidence("open_time_over"), "open time is over"),
    (Evidence("by_hand"), "by hand"),
    (Evidence("by_settings"), "by the settings"),
    (Evidence("restored"), "restored from a snapshot"),
    (Evidence(""), ""),
]


@pytest.mark.parametrize("facts, text", EVIDENCE)
def test_evidence_reads_as_a_sentence(facts: Evidence, text: str) -> None:
    """These are the texts in errors, logs and spans: people search for them."""
    assert str(facts) == text


def test_time_that_settings_kept_it_shut_is_no_healthy_time() -> None:
    """A long healthy time pays off former trips; an hour in which the settings forced it open does not."""
    rng = Random(1)
    circuit = Circuit(CircuitRules(failure_threshold=1, growth=2.0, jitter=0.0, max_open_for=600.0), 0.0)

    def trip(now: float) -> None:
        permit = circuit.acquire(now)
        assert isinstance(permit, Permit)
        circuit.release(permit, Verdict.FAILURE, now, rng)

    trip(0.0)
    circuit.enter_by_settings(CircuitState.FORCED_OPEN, 1.0)
    circuit.enter_by_settings(CircuitState.CLOSED, 3600.0)
    trip(3601.0)
    assert circuit.trips == 2
    assert circuit.until == 3601.0 + 120.0


@pytest.mark.parametrize(
    "rules, by_hand, certain",
    [
        ({}, False, True),
        ({}, True, True),
        ({"enforced": 0.5}, False, False),
        ({"enforced": 0.5}, True, True),
        ({"shadow": True}, False, False),
        ({"shadow": True}, True, False),
    ],
)
def test_only_what_is_certain_is_foreseen(rules: dict[str, Any], by_hand: bool, certain: bool) -> None:
    """Shadow mode refuses nobody, and the lot not everybody, except at a door that was shut by hand."""
    circuit = Circuit(CircuitRules(failure_threshold=1, **rules), 0.0)
    assert circuit.outlook(0.0) is None
    permit = circuit.acquire(0.0)
    assert isinstance(permit, Permit)
    circuit.release(permit, Verdict.FAILURE, 0.0, Random(1))
    if by_hand:
        circuit.force_open()
    assert (circuit.outlook(0.0) is not None) is certain
