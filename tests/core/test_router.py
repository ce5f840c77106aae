"""Calls are shared out as the weights say, and the outliers are those that a list of all calls shows."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from resilience._core.router import Ejected, Ejection, Outliers, Returned, Weights

RULES = Ejection(interval=10, minimum_calls=4, minimum_members=3, factor=1.2, base=20, longest=50, jitter=0)


# -- weights -----------------------------------------------------------------------------------------------------------


def test_a_heavier_member_gets_more_spread_evenly() -> None:
    """3 to 1 is one in four, in turn, and never four in a row to one."""
    weights = Weights([3, 1])
    assert [weights.pick([0, 1]) for _ in range(8)] == [0, 0, 1, 0, 0, 0, 1, 0]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_over_one_round_each_gets_exactly_its_weight(shares: list[int]) -> None:
    """After as many calls as the weights sum up to, each member has had its weight, whatever the weights."""
    weights = Weights(shares)
    everybody = range(len(shares))
    for _ in range(2):
        had = Counter(weights.pick(everybody) for _ in range(sum(shares)))
        assert [had[member] for member in everybody] == shares


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=5), st.data())
def test_only_candidates_are_chosen(shares: list[float], data: st.DataObject) -> None:
    """Who cannot take a call is never chosen, and comes back without a burst to catch up."""
    weights = Weights(shares)
    everybody = range(len(shares))
    away = data.draw(st.sampled_from(everybody))
    others = [member for member in everybody if member != away]
    assert away not in {weights.pick(others) for _ in range(50)}
    rounds = 200
    had = Counter(weights.pick(everybody) for _ in range(rounds))
    assert abs(had[away] - rounds * shares[away] / sum(shares)) <= len(shares)


@pytest.mark.parametrize("wrong", [[], [0], [1, -1], [math.inf], [math.nan]])
def test_weights_that_make_no_sense_are_refused(wrong: list[float]) -> None:
    """No members, and weights that are not positive and finite, are a mistake."""
    with pytest.raises(ValueError, match="positive"):
        Weights(wrong)


# -- outliers against a model ------------------------------------------------------------------------------------------


class Call(NamedTuple):
    time: float
    member: int
    ok: bool


class OutliersMachine(RuleBasedStateMachine):
    """The model keeps all calls and all ejections, and works everything out from these lists with `statistics`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.rng = Random(1)

    @initialize(count=st.integers(1, 6), share=st.sampled_from([0.1, 0.5, 1.0]))
    def begin(self, count: int, share: float) -> None:
        self.rules = Ejection(
            interval=10, minimum_calls=4, minimum_members=3, factor=1.2, base=20, longest=50, jitter=0, share=share
        )
        self.count = count
        self.outliers = Outliers(self.rules, count, self.now)
        self.calls: list[Call] = []
        self.out: dict[int, float] = {}
        self.times = dict.fromkeys(range(count), 0)
        self.begun = self.now
        self.back: set[int] = set()

    @rule(member=st.integers(0, 5), good=st.integers(0, 12), bad=st.integers(0, 12))
    def call(self, member: int, good: int, bad: int) -> None:
        member %= self.count
        for ok in (True,) * good + (False,) * bad:
            self.outliers.record(member, ok=ok)
            if member not in self.out:
                self.calls.append(Call(self.now, member, ok))

    @rule(seconds=st.one_of(st.floats(0, 12), st.sampled_from([10, 20, 60, 300])))
    def advance(self, seconds: float) -> None:
        self.now += seconds
        expected: list[Ejected | Returned] = [
            Returned(member) for member in range(self.count) if self.out.get(member, math.inf) <= self.now
        ]
        self.back |= {change.member for change in expected}
        self.out = {member: until for member, until in self.out.items() if until > self.now}
        if self.now >= self.begun + self.rules.interval:
            expected += self.judged()
            self.begun, self.calls, self.back = self.now, [], set()
        changes = self.outliers.advance(self.now, self.rng)
        assert [change[:2] for change in changes] == [change[:2] for change in expected]

    def judged(self) -> list[Ejected]:
        results = {
            member: [call.ok for call in self.calls if call.member == member]
            for member in range(self.count)
            if member not in self.out
        }
        rates = {one: statistics.fmean(oks) for one, oks in results.items() if len(oks) >= self.rules.minimum_calls}
        line = -math.inf
        if len(rates) >= self.rules.minimum_members:
            line = statistics.fmean(rates.values()) - max(
                self.rules.factor * statistics.pstdev(rates.values()), self.rules.tolerance
            )
        outliers = [
            member
            for member, rate in rates.items()
            if rate < line - 1e-12 or results[member].count(False) >= self.rules.failure_share * len(results[member])
        ]
        outliers.sort(key=rates.__getitem__)
        for member in results:
            if member not in {*outliers, *self.back}:
                healthy = math.floor((self.now - self.begun) / self.rules.interval)
                self.times[member] = max(0, self.times[member] - healthy)
        ejected = []
        for member in outliers:
            if len(self.out) < min(max(1, math.floor(self.count * self.rules.share)), self.count - 1):
                self.times[member] += 1
                seconds = min(self.rules.base * self.times[member], self.rules.longest)
                self.out[member] = self.now + seconds
                ejected.append(Ejected(member, seconds, ""))
        return ejected

    @invariant()
    def the_same_are_left_out_for_as_long(self) -> None:
        if hasattr(self, "outliers"):
            left = {member: self.outliers.ejected_for(member, self.now) for member in range(self.count)}
            assert {member: seconds for member, seconds in left.items() if seconds} == {
                member: until - self.now for member, until in self.out.items() if until > self.now
            }

    @invariant()
    def somebody_is_always_left(self) -> None:
        if hasattr(self, "outliers"):
            assert sum(until == -math.inf for until in self.outliers.until) >= 1


OutliersMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=25)
test_outliers_agree_with_a_list_of_all_calls = OutliersMachine.TestCase


# -- outliers by hand --------------------------------------------------------------------------------------------------


def told(outliers: Outliers, *results: tuple[int, int]) -> None:
    """Record so many good and bad calls of each member."""
    for member, (good, bad) in enumerate(results):
        for ok in (True,) * good + (False,) * bad:
            outliers.record(member, ok=ok)


def test_one_much_worse_than_the_others_is_left_out_and_comes_back() -> None:
    """An outlier is told with its figures, and returns when its time is over."""
    outliers = Outliers(Ejection(jitter=0), 5, 0.0)
    told(outliers, (20, 0), (20, 0), (19, 1), (20, 0), (10, 10))
    assert outliers.advance(9.9, Random(1)) == []
    assert outliers.advance(10, Random(1)) == [Ejected(4, 30, "10 of 20 calls failed in 10 s, 1% of the others'")]
    assert outliers.ejected_for(4, 25) == 15
    assert outliers.advance(39.9, Random(1)) == []
    assert outliers.advance(40, Random(1)) == [Returned(4)]


def test_a_small_difference_is_no_outlier() -> None:
    """Among members that do nearly the same nobody is left out, however many deviations 1 % may be."""
    outliers = Outliers(Ejection(), 5, 0.0)
    told(outliers, *[(100, 0)] * 4, (97, 3))
    assert outliers.advance(10, Random(1)) == []


def test_two_members_are_compared_by_their_failures_alone() -> None:
    """In a small pool one that fails nearly always is left out; one that fails half the time is not."""
    for bad, out in ((17, 1), (16, 0)):
        outliers = Outliers(Ejection(), 2, 0.0)
        told(outliers, (20, 0), (20 - bad, bad))
        assert len(outliers.advance(10, Random(1))) == out


def test_few_calls_are_no_evidence() -> None:
    """Who had fewer calls than the minimum is not judged."""
    outliers = Outliers(Ejection(minimum_calls=10), 2, 0.0)
    told(outliers, (20, 0), (0, 9))
    assert outliers.advance(10, Random(1)) == []


@pytest.mark.parametrize("count", [1, 2, 10])
def test_when_all_fail_only_few_are_left_out(count: int) -> None:
    """A whole outage ejects one at most, and never the only one."""
    outliers = Outliers(Ejection(), count, 0.0)
    told(outliers, *[(0, 20)] * count)
    outliers.advance(10, Random(1))
    assert sum(outliers.ejected_for(member, 10) > 0 for member in range(count)) == min(1, count - 1)


def test_the_worst_goes_first() -> None:
    """Where there is room for one, it is the worst."""
    outliers = Outliers(Ejection(), 3, 0.0)
    told(outliers, (20, 0), (2, 18), (0, 20))
    assert [change.member for change in outliers.advance(10, Random(1))] == [2]


def test_each_further_time_lasts_longer_up_to_the_longest() -> None:
    """One that comes back no better is left out for longer; one that is well for a while starts anew."""
    outliers = Outliers(RULES, 2, 0.0)
    now, lasted = 0.0, []
    for _ in range(4):
        told(outliers, (10, 0), (0, 10))
        now += 10
        (change,) = outliers.advance(now, Random(1))
        assert isinstance(change, Ejected)
        lasted.append(change.seconds)
        now += change.seconds
        outliers.advance(now, Random(1))
    assert lasted == [20, 40, 50, 50]
    for _ in range(4):
        told(outliers, (10, 0), (10, 0))
        now += 10
        outliers.advance(now, Random(1))
    told(outliers, (10, 0), (0, 10))
    (change,) = outliers.advance(now + 10, Random(1))
    assert isinstance(change, Ejected)
    assert change.seconds == 20


def test_a_long_quiet_time_is_many_healthy_intervals() -> None:
    """Whoever was left out often starts anew after as many healthy intervals, whether anybody looked or not."""
    outliers = Outliers(RULES, 2, 0.0)
    now = 0.0
    for _ in range(3):
        told(outliers, (10, 0), (0, 10))
        now += 10
        outliers.advance(now, Random(1))
        now = outliers.until[1]
        outliers.advance(now, Random(1))
    assert outliers.times[1] == 3
    outliers.advance(now + 20, Random(1))
    assert outliers.times[1] == 1


def test_equals_are_no_outliers_of_each_other() -> None:
    """Without a tolerance, too, members that do the same are at the mean, not below it."""
    outliers = Outliers(Ejection(tolerance=0, minimum_members=2), 5, 0.0)
    told(outliers, *[(15, 5)] * 5)
    assert outliers.advance(10, Random(1)) == []


def test_who_is_out_already_counts_in_the_share() -> None:
    """While one is left out, no second one is, however badly it does."""
    outliers = Outliers(Ejection(base=60, longest=60, jitter=0), 3, 0.0)
    told(outliers, (20, 0), (20, 0), (0, 20))
    assert [change.member for change in outliers.advance(10, Random(1))] == [2]
    told(outliers, (20, 0), (0, 20))
    assert outliers.advance(20, Random(1)) == []


def test_jitter_only_prolongs() -> None:
    """Members do not come back as a herd, and none before its time."""
    lasted = set()
    for seed in range(20):
        outliers = Outliers(Ejection(base=30, jitter=0.1), 2, 0.0)
        told(outliers, (20, 0), (0, 20))
        (change,) = outliers.advance(10, Random(seed))
        assert isinstance(change, Ejected)
        lasted.add(change.seconds)
    assert len(lasted) == 20
    assert min(lasted) >= 30
    assert max(lasted) <= 33


def test_calls_of_one_that_is_left_out_do_not_count() -> None:
    """Late results, and calls made for want of others, do not eject a member again as soon as it is back."""
    outliers = Outliers(RULES, 2, 0.0)
    told(outliers, (10, 0), (0, 10))
    outliers.advance(10, Random(1))
    told(outliers, (10, 0), (0, 10))
    assert outliers.calls == [10, 0]
    assert outliers.advance(30, Random(1)) == [Returned(1)]


def test_forgetting_takes_everybody_back() -> None:
    """In a forked child none of it happened."""
    outliers = Outliers(RULES, 2, 0.0)
    told(outliers, (10, 0), (0, 10))
    outliers.advance(10, Random(1))
    outliers.forget()
    assert outliers.advance(1000, Random(1)) == []
    assert (outliers.times, outliers.calls, outliers.failed) == ([0, 0], [0, 0], [0, 0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"interval": 0},
        {"base": math.inf},
        {"longest": math.nan},
        {"base": 10, "longest": 5},
        {"minimum_calls": 0},
        {"minimum_members": 0},
        {"failure_share": 0},
        {"share": 1.5},
        {"tolerance": -0.1},
        {"jitter": 2},
        {"factor": 0},
    ],
    ids=str,
)
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    """The text names the argument and what was expected."""
    with pytest.raises(ValueError, match=rf"Ejection\({list(wrong)[-1]}=.*expected"):
        Ejection(**wrong)  # type: ignore[arg-type]


@given(st.integers(2, 40), st.floats(0.01, 1))
@example(2, 1.0)
def test_the_share_holds_for_every_size(count: int, share: float) -> None:
    """However many fail, the share that is left out is kept, but for the one that always may be."""
    outliers = Outliers(Ejection(share=share), count, 0.0)
    told(outliers, *[(0, 10)] * count)
    out = len(outliers.advance(10, Random(1)))
    assert 1 <= out <= max(1, count * share)
    assert out < count
