"""Buckets decide as a bucket of tokens would, counted exactly; who waits as told is admitted; headers only tighten."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor, inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resilience._core.bucket import Bucket, Buckets

_GRAIN = 1 / 1024  # a time that floats hold exactly


class BucketMachine(RuleBasedStateMachine):
    """The model is a bucket of tokens in exact fractions, and what is still out of it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.adopted = False
        self.out: list[tuple[int, int, list[bool]]] = []

    @initialize(
        start=st.sampled_from([0.0, -4096.0, 12_345.5, 2.0**24]),
        rate=st.sampled_from([0.25, 1, 8, 64]),
        burst=st.sampled_from([1, 2, 5, 64]),
    )
    def begin(self, start: float, rate: float, burst: int) -> None:
        self.now = start
        self.rate = Fraction(rate)
        self.burst = burst
        self.level = Fraction(burst)
        self.bucket = Bucket(rate * 4, 4.0, burst)

    def charge(self, units: int) -> None:
        if self.level == self.burst:
            for *_, lapsed in self.out:
                lapsed[0] = True
        self.level -= units

    @rule(rate=st.sampled_from([0.25, 1, 8, 64]), burst=st.sampled_from([1, 2, 5, 64]))
    def adopt(self, rate: float, burst: int) -> None:
        """So many units as are out stay out, and may be put back."""
        self.bucket.adopt(self.now, rate * 2, 2.0, burst)
        self.level += burst - self.burst
        self.rate, self.burst, self.adopted = Fraction(rate), burst, True

    @rule(steps=st.one_of(st.integers(0, 3), st.integers(0, 20_000)))
    def pass_some_time(self, steps: int) -> None:
        self.now += steps * _GRAIN
        self.level = min(Fraction(self.burst), self.level + self.rate * Fraction(steps, 1024))

    @rule(units=st.integers(0, 6))
    def take(self, units: int) -> None:
        wait = self.bucket.try_take(self.now, units)
        if units > self.burst:
            assert wait == inf
        elif units <= self.level:
            assert wait == 0
            self.charge(units)
            self.out.append((units, self.bucket.spell, [False]))
        else:
            assert wait == (units - self.level) / self.rate

    @rule(units=st.integers(0, 100))
    def use_without_asking(self, units: int) -> None:
        self.bucket.charge(self.now, units)
        self.charge(units)
        self.out.append((units, self.bucket.spell, [False]))

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        units, spell, lapsed = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.bucket.put_back(units, spell)
        if not lapsed[0]:
            self.level = min(Fraction(self.burst), self.level + units)

    @precondition(lambda self: self.level < self.burst)
    @rule()
    def wait_for_one(self) -> None:
        wait = self.bucket.wait(self.now, 1)
        if self.adopted:  # times that float cannot hold would add up
            wait = ceil(wait / _GRAIN) * _GRAIN
        self.now += wait
        self.level = min(Fraction(self.burst), self.level + self.rate * Fraction(wait))
        assert self.bucket.try_take(self.now, 1) == 0
        self.charge(1)

    @invariant()
    def agrees_with_brute_force(self) -> None:
        assert self.bucket.remaining(self.now) == max(0, floor(self.level))
        assert self.bucket.full_in(self.now) == (self.burst - self.level) / self.rate


TestBucket = BucketMachine.TestCase
TestBucket.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)


def test_the_vectors_of_a_bucket_of_three() -> None:
    """Ten a second, three at once: three pass, the next comes a tenth later, and so on."""
    bucket = Bucket(10, 1, 3)
    assert [bucket.try_take(0.0, 1) for _ in range(5)] == pytest.approx([0, 0, 0, 0.1, 0.1])
    assert bucket.try_take(0.1, 1) == 0
    assert bucket.try_take(0.15, 1) == pytest.approx(0.05)


def test_tokens_are_reserved_and_settled() -> None:
    """Of 60,000 a minute 50,000 are reserved; 20,000 more wait 10 s, unless the first call used far fewer."""
    buckets = Buckets([], [Bucket(60_000, 60)])
    assert buckets.try_take(0.0, 1, 50_000) == 0
    spells = buckets.spells()
    assert buckets.try_take(0.0, 1, 20_000) == pytest.approx(10)
    buckets.settle(0.0, spells, 8_000 - 50_000)
    assert buckets.try_take(0.0, 1, 20_000) == 0


def test_settling_upwards_leaves_a_debt() -> None:
    """Who used more than reserved makes the next ones wait, even a call that needs nothing."""
    buckets = Buckets([], [Bucket(60, 60)])
    assert buckets.try_take(0.0, 1, 10) == 0
    buckets.settle(5.0, buckets.spells(), 80)
    assert buckets.wait(5.0, 1, 0) == pytest.approx(25)
    assert buckets.try_take(30.0, 1, 0) == 0


def test_use_that_was_never_reserved_is_no_credit_of_idle_hours() -> None:
    """A bucket that has been full for hours holds no more than a full one."""
    buckets = Buckets([], [Bucket(60, 60)])
    assert buckets.try_take(0.0, 1, 0) == 0
    buckets.settle(36_000.0, buckets.spells(), 60)
    assert buckets.wait(36_000.0, 1, 1) == pytest.approx(1)


def test_windows_are_taken_together_or_not_at_all() -> None:
    """A call that does not fit one window takes nothing from the others, and waits for the slowest."""
    buckets = Buckets([Bucket(1, 1), Bucket(60, 60)], [Bucket(600, 60)])
    assert buckets.try_take(0.0, 1, 600) == 0
    assert [bucket.remaining(2.0) for bucket in buckets.all] == [1, 60, 20]
    assert buckets.try_take(2.0, 1, 100) == pytest.approx(8)
    assert [bucket.remaining(2.0) for bucket in buckets.all] == [1, 60, 20]
    assert buckets.try_take(2.0, 1, 20) == 0
    assert [bucket.remaining(2.0) for bucket in buckets.all] == [0, 59, 0]


def test_all_windows_get_back_what_they_gave() -> None:
    """A refund reaches each window that was charged."""
    buckets = Buckets([Bucket(5, 1)], [Bucket(600, 60), Bucket(9_000, 86_400)])
    assert buckets.try_take(0.0, 2, 300) == 0
    buckets.put_back(buckets.spells(), 2, 300)
    assert [bucket.full_in(0.0) for bucket in buckets.all] == [0, 0, 0]


def test_what_never_fits_is_said_at_once() -> None:
    """More than the burst is refused for ever, in whatever window."""
    buckets = Buckets([Bucket(10, 1)], [Bucket(600, 60), Bucket(100, 86_400)])
    assert (buckets.most_requests, buckets.most_tokens) == (10, 100)
    assert buckets.try_take(0.0, 1, 101) == inf
    assert buckets.try_take(0.0, 11, 1) == inf
    assert buckets.try_take(0.0, 10, 100) == 0


def test_no_window_means_no_limit() -> None:
    """Without windows everything passes."""
    buckets = Buckets([])
    assert buckets.try_take(0.0, 1e9, 1e9) == 0


def test_less_than_one_a_second_is_possible() -> None:
    """Half a request a second is one every two."""
    bucket = Bucket(0.5, 1)
    assert bucket.try_take(0.0, 1) == 0
    assert bucket.try_take(0.5, 1) == pytest.approx(1.5)
    assert bucket.try_take(2.0, 1) == 0


@settings(max_examples=200)
@given(
    start=st.one_of(st.sampled_from([0.0, 1e7, 1e8, 2e9, 1e15]), st.floats(-1e9, 1e12)),
    allowance=st.one_of(st.integers(1, 10**7), st.floats(1e-3, 1e12)),
    window=st.sampled_from([1.0, 60.0, 86_400.0]),
    burst=st.one_of(st.none(), st.integers(1, 1000)),
    wanted=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8),
)
def test_who_waits_as_told_is_admitted(
    start: float, allowance: float, window: float, burst: int | None, wanted: list[tuple[float, float]]
) -> None:
    """Whatever the rounding: after the wait there is room, and before half of it (and a slack) there was none."""
    bucket, now = Bucket(allowance, window, burst), start
    for share, pause in wanted:
        now += pause * bucket.interval
        units = share * bucket.burst
        wait = bucket.try_take(now, units)
        if wait:
            assert wait < inf
            if wait > 1e-5 and abs(now) < 1e9:
                assert bucket.wait(now + wait / 2, units) > 0
            now += wait
            assert bucket.try_take(now, units) == 0


@pytest.mark.parametrize("now", [1e10, 1e12, 1e14, 1e15])
def test_a_clock_whose_grain_is_coarser_than_the_slack(now: float) -> None:
    """Even then the told wait is enough."""
    bucket = Bucket(7, 1.0, 3)
    for _ in range(20):
        wait = bucket.try_take(now, 1)
        if wait:
            now += wait
            assert bucket.try_take(now, 1) == 0


@settings(max_examples=100)
@given(
    start=st.sampled_from([0.0, 1e6, 1e8, 2e9]),
    allowance=st.sampled_from([1, 3, 7, 10, 60, 499, 10_000]),
    burst=st.sampled_from([1, 2, 3, 7]),
    pauses=st.lists(st.floats(0, 3), max_size=40),
)
def test_never_more_than_an_exact_bucket_would_allow(
    start: float, allowance: int, burst: int, pauses: list[float]
) -> None:
    """Floats let nobody pass more than some microseconds early, however long it goes on."""
    bucket, now, level = Bucket(allowance, 1.0, burst), start, Fraction(burst)
    for pause in pauses:
        then, now = now, now + pause / allowance
        level = min(Fraction(burst), level + allowance * (Fraction(now) - Fraction(then)))
        if bucket.try_take(now, 1) == 0:
            level -= 1
            assert level >= -allowance * Fraction(1, 10**5)
        else:
            assert level < 1 + allowance * Fraction(1, 10**5)


def test_a_clock_that_stands_still() -> None:
    """Without time nothing flows in, and the whole burst is there, however long the numbers are."""
    for now in (0.0, 1e8 + 0.1, 1.7e9 + 0.3):
        bucket = Bucket(7, 1.0, 100)
        assert [bucket.try_take(now, 1) for _ in range(100)] == [0] * 100
        assert all(bucket.try_take(now, 1) > 0 for _ in range(10))


def test_a_clock_that_goes_backwards() -> None:
    """Nothing is given twice; the wait is longer by the step."""
    bucket = Bucket(1, 1.0, 2)
    assert bucket.try_take(10.0, 2) == 0
    assert bucket.try_take(7.0, 1) == pytest.approx(4)
    assert bucket.remaining(7.0) == 0


def test_the_quick_way_is_the_slow_way() -> None:
    """Who takes by the attributes gets the same answers as who asks."""
    quick, slow = Bucket(10, 1, 3), Bucket(10, 1, 3)
    now = 0.0
    for step in range(200):
        now += (step * 37 % 11) / 100
        new = max(quick.tat, now) + quick.interval
        taken = new - now <= quick.tolerance
        if taken:
            quick.tat = new
        assert taken == (slow.try_take(now, 1) == 0)


def test_the_quick_way_can_be_barred() -> None:
    """While a line waits, nobody jumps it by the quick way; the head of the line still may take."""
    buckets = Buckets([Bucket(10, 1)], [Bucket(10, 1)])
    buckets.bar(True)
    assert {bucket.tolerance for bucket in buckets.all} == {-inf}
    assert buckets.try_take(0.0, 1, 1) == 0
    buckets.bar(False)
    assert all(0.99 < bucket.tolerance < 1.01 for bucket in buckets.all)


def test_reset_fills_the_bucket_and_forgets_who_took() -> None:
    """What was taken before cannot be put back into the new one."""
    buckets = Buckets([Bucket(10, 1)])
    buckets.charge(0.0, 10, 0)
    spells = buckets.spells()
    buckets.all[0].tighten(0.0, 0, 50, sent=1.0)
    buckets.reset()
    assert buckets.try_take(0.0, 10, 0) == 0
    buckets.put_back(spells, 10, 0)
    assert buckets.wait(0.0, 1, 0) == pytest.approx(0.1)


# -- what the provider says --------------------------------------------------------------------------------------------


def test_a_header_that_sees_less_left_is_believed() -> None:
    """Somebody else uses the same key: what they took is gone for us too."""
    bucket = Bucket(60, 60)
    assert bucket.tighten(0.0, 10, 0, sent=0.0) == 50
    assert bucket.remaining(0.0) == 10
    assert bucket.tighten(5.0, 10, 0, sent=5.0) == 5
    assert bucket.remaining(5.0) == 10


def test_a_header_makes_no_room() -> None:
    """Our own count stands, however much the provider sees left, and how often it says so."""
    bucket = Bucket(60, 60)
    bucket.charge(0.0, 50)
    for second in range(10):
        assert bucket.tighten(float(second), 1_000, 0, sent=float(second)) == 0
        assert bucket.remaining(float(second)) == 10 + second


def test_when_nothing_is_left_it_is_shut_until_there_is() -> None:
    """Nothing left for 30 s means nothing for 30 s, even if our own windows would allow some; also the quick way."""
    bucket = Bucket(60, 1)
    assert bucket.tighten(0.0, 0, 30, sent=0.0) == pytest.approx(60)
    assert (bucket.remaining(10.0), bucket.tolerance, bucket.full_in(0.0)) == (0, -inf, 30)
    assert bucket.try_take(10.0, 1) == 20
    assert bucket.try_take(30.0, 1) == 0
    assert 0.99 < bucket.tolerance < 1.01


def test_a_longer_shut_counts() -> None:
    """A second answer may prolong the time, a shorter one does not end it."""
    bucket = Bucket(60, 1)
    bucket.tighten(0.0, 0, 30, sent=0.0)
    assert bucket.tighten(1.0, 0, 5, sent=1.0) == 0
    assert bucket.wait(1.0, 1) == 29
    bucket.tighten(2.0, 0, 40, sent=2.0)
    assert bucket.wait(2.0, 1) == 40


def test_an_old_answer_says_nothing() -> None:
    """Answers overtake one another: what left before the newest one answered is ignored."""
    bucket = Bucket(60, 60)
    bucket.tighten(1.0, 40, 0, sent=1.0)
    assert bucket.tighten(2.0, 0, 60, sent=0.5) == 0
    assert bucket.remaining(1.0) == 40


def test_three_answers_that_agree_undo_what_a_header_took() -> None:
    """A single wrong header does not last: three newer ones that see more left give it back, but no more than that."""
    bucket = Bucket(60, 60)
    bucket.charge(0.0, 20)
    bucket.tighten(0.0, 0, 0, sent=0.0)
    assert [bucket.remaining(0.0)] == [0]
    for sent in (1.0, 2.0):
        bucket.tighten(0.0, 50, 0, sent=sent)
        assert bucket.remaining(0.0) == 0
    bucket.tighten(0.0, 30, 0, sent=3.0)
    assert bucket.remaining(0.0) == 30
    for sent in (4.0, 5.0, 6.0, 7.0):
        bucket.tighten(0.0, 1_000, 0, sent=sent)
    assert bucket.remaining(0.0) == 30


def test_what_a_header_took_comes_back_only_up_to_our_own_count() -> None:
    """Three answers that see everything left undo the headers, not the calls that were counted."""
    bucket = Bucket(60, 60)
    bucket.charge(0.0, 20)
    bucket.tighten(0.0, 0, 20, sent=0.0)
    for sent in (1.0, 2.0, 3.0):
        bucket.tighten(0.0, 60, 0, sent=sent)
    assert bucket.remaining(0.0) == 40
    assert bucket.tolerance > 0


def test_answers_that_agree_must_follow_one_another() -> None:
    """One that sees nothing left in between starts the count anew."""
    bucket = Bucket(60, 60)
    bucket.tighten(0.0, 0, 0, sent=0.0)
    for sent, left in enumerate((50, 50, 0, 50, 50)):
        bucket.tighten(0.0, left, 0, sent=float(sent))
    assert bucket.remaining(0.0) == 0


def test_time_makes_good_what_a_header_took() -> None:
    """What has flowed in again is not given back a second time."""
    bucket = Bucket(60, 60)
    bucket.tighten(0.0, 0, 0, sent=0.0)
    bucket.charge(100.0, 60)
    for sent in (100.0, 101.0, 102.0):
        bucket.tighten(100.0, 60, 0, sent=sent)
    assert bucket.remaining(100.0) == 0
    bucket.tighten(400.0, 0, 0, sent=400.0)
    bucket.tighten(600.0, 50, 0, sent=600.0)
    bucket.charge(600.0, 20)
    for sent in (601.0, 602.0, 603.0):
        bucket.tighten(600.0, 60, 0, sent=sent)
    assert bucket.remaining(600.0) == 40


@settings(max_examples=100)
@given(
    window=st.sampled_from([1.0, 60.0, 86_400.0]),
    said=st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.5, 1.0, 59.0, 1e15, inf, nan, -5.0]),
            st.sampled_from([0.0, 1.0, 1e9, inf, nan, -1.0]),
            st.floats(0, 200),
        ),
        max_size=12,
    ),
)
def test_no_header_shuts_it_for_longer_than_the_cap(window: float, said: list[tuple[float, float, float]]) -> None:
    """Whatever the provider says, two minutes after its last word the whole burst is there again."""
    bucket, now = Bucket(60, window), 0.0
    for sent, (remaining, pause, passes) in enumerate(said):
        bucket.tighten(now, remaining, pause, sent=float(sent))
        assert 0 <= bucket.wait(now, 60) <= 120 + 1e-9
        now += passes
    assert bucket.try_take(now + 120 + 1e-9, 60) == 0


@pytest.mark.parametrize(
    "arguments", [(0, 1), (-1, 1), (nan, 1), (inf, 1), (1, 0), (1, -1), (1, nan), (1, inf), (1, 1, 0), (1, 1, nan)]
)
def test_nonsense_is_refused(arguments: tuple[float, ...]) -> None:
    """A bucket that could not be meant is refused when it is built."""
    with pytest.raises(ValueError, match="expected a finite number above 0"):
        Bucket(*arguments)


@pytest.mark.parametrize("arguments", [(5e-324, 86_400.0), (1e300, 1e-300)])
def test_what_cannot_be_counted_is_refused(arguments: tuple[float, float]) -> None:
    """Numbers whose quotient is no float are refused as well."""
    with pytest.raises(ValueError, match="too extreme"):
        Bucket(*arguments)


def test_what_headers_took_away_is_given_back_in_units_whatever_their_pace() -> None:
    """We count twenty, the provider fifty. At ten times the pace thirty units come back, and our own twenty stay."""
    bucket = Bucket(60, 60.0)
    bucket.charge(0.0, 20)
    assert bucket.tighten(0.0, 10, 0.0, 1.0) == 30
    bucket.adopt(0.0, 600, 60.0)
    assert bucket.remaining(0.0) == 550
    for sent in (2.0, 3.0, 4.0):
        bucket.tighten(0.0, 600, 0.0, sent)
    assert bucket.remaining(0.0) == 580


def test_the_quick_way_counts_by_the_new_figures() -> None:
    """Whoever takes without a call gets as many as the bucket holds now, no more and no fewer."""
    bucket = Bucket(60, 60.0, 2)
    for burst, most in ((5, 5), (1, 1)):
        bucket.reset()
        bucket.adopt(0.0, 120, 60.0, burst)
        taken = 0
        while (tat := max(bucket.tat, 0.0) + bucket.interval) <= bucket.tolerance:
            bucket.tat = tat
            taken += 1
        assert taken == most
        assert bucket.remaining(0.0) == 0
