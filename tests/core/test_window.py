"""The windows agree with the naive thing: a list of everything that happened, counted anew each time."""

from __future__ import annotations

import tracemalloc
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from math import floor, inf, nan, nextafter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resilience._core.window import CountWindow, Row, TimeWindow

_SPANS = [10.0, 30.0, 0.3, 1 / 3, 7.7]
_START = 12_345.678
_GRAIN = Fraction(1e-9)


@dataclass(eq=False)
class Event:
    """Something that was counted, and where."""

    counter: int
    when: float
    latest: float  # the latest moment until then: time stands still when the clock goes backwards
    bucket: float
    counted_by: TimeWindow  # the window of that time
    epoch: int  # its bucket of that time
    moved: bool = False


class TimeWindowMachine(RuleBasedStateMachine):
    """Two counters; the model is a list of everything that was counted."""

    def __init__(self) -> None:
        super().__init__()
        self.window = TimeWindow(1.0, counters=2)
        self.width = Fraction(1)
        self.buckets = 1
        self.totals = [0, 0]
        self.events: list[Event] = []
        self.now = _START
        self.latest = _START  # the clock went backwards while now is below
        self.bucket = -(10**9)  # the newest bucket that anybody counted in or turned to

    @initialize(span=st.sampled_from(_SPANS), buckets=st.sampled_from([1, 2, 3, 10]))
    def choose(self, span: float, buckets: int) -> None:
        self.window = TimeWindow(span, counters=2, buckets=buckets)
        self.width = Fraction(span / buckets)
        self.buckets = buckets

    def bucket_of(self, now: float) -> int:
        return floor(Fraction(now) / self.width)

    def enter(self) -> None:
        """Keep the contract, as anybody who counts does."""
        if self.now >= self.window.turn_at:
            self.window.turn(self.now, (self.totals[0], self.totals[1]))
        self.bucket = max(self.bucket, self.bucket_of(self.now))

    def set_now(self, now: float) -> None:
        self.now = now
        self.latest = max(self.latest, now)

    @rule(share=st.floats(0, 1))
    def pass_some_time(self, share: float) -> None:
        self.set_now(self.now + share * float(self.width))

    @rule(buckets=st.integers(1, 25))
    def pass_whole_buckets(self, buckets: int) -> None:
        self.set_now(self.now + buckets * float(self.width))

    @precondition(lambda self: self.window.turn_at > self.now)
    @rule(side=st.sampled_from([-inf, 0.0, inf]))
    def go_to_the_border(self, side: float) -> None:
        border = self.window.turn_at
        self.set_now(nextafter(border, side) if side else border)

    @rule(share=st.floats(0, 3))
    def clock_goes_backwards(self, share: float) -> None:
        self.set_now(self.now - share * float(self.width))

    @rule(counter=st.integers(0, 1), times=st.integers(1, 3))
    def count(self, counter: int, times: int) -> None:
        self.enter()
        self.totals[counter] += times
        for _ in range(times):
            self.events.append(Event(counter, self.now, self.latest, self.bucket, self.window, self.bucket))

    @rule()
    def turn_without_need(self) -> None:
        """Turning more often than the contract asks, even with a clock that went backwards, is harmless."""
        self.window.turn(self.now, (self.totals[0], self.totals[1]))
        self.bucket = max(self.bucket, self.bucket_of(self.now))

    @precondition(lambda self: self.events)
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.events))
        lives = event.bucket > max(self.bucket, self.bucket_of(self.now)) - self.buckets
        assert event.counted_by.take_back(self.now, event.counter, event.epoch) is lives
        if lives:
            self.totals[event.counter] -= 1
            self.events.remove(event)

    @rule(span=st.sampled_from(_SPANS))
    def resize(self, span: float) -> None:
        """What lives counts as of the beginning of its bucket; what has died stays dead."""
        self.window = self.window.resized(span, self.now, (self.totals[0], self.totals[1]))
        newest, width = max(self.bucket, self.bucket_of(self.now)), float(self.width)
        self.width = Fraction(span / self.buckets)
        for event in self.events:
            lives = event.bucket > newest - self.buckets
            event.bucket = self.bucket_of(event.bucket * width) if lives else -inf
            event.moved = True
        self.bucket = max(self.bucket_of(newest * width), self.bucket_of(self.now))

    @rule()
    def look_at_each_bucket(self) -> None:
        """The buckets add up, in their order."""
        self.enter()
        found = self.window.by_bucket(self.now, (self.totals[0], self.totals[1]))
        oldest = self.bucket - self.buckets + 1
        expected = [(0, 0)] * self.buckets
        for event in self.events:
            if event.bucket >= oldest:
                zero, one = expected[int(event.bucket - oldest)]
                expected[int(event.bucket - oldest)] = (zero + (event.counter == 0), one + (event.counter == 1))
        assert found == expected

    @rule()
    def restart(self) -> None:
        self.window.restart(self.now, (self.totals[0], self.totals[1]))
        self.bucket = self.bucket_of(self.now)
        self.events.clear()
        self.latest = self.now

    def brute_force(self, now: float) -> tuple[int, int]:
        oldest = max(self.bucket, self.bucket_of(now)) - self.buckets + 1
        live = [event.counter for event in self.events if event.bucket >= oldest]
        return live.count(0), live.count(1)

    @invariant()
    def agrees_with_brute_force_now_and_later(self) -> None:
        totals = (self.totals[0], self.totals[1])
        for ahead in (0, 1, self.buckets - 1, self.buckets, 3 * self.buckets):
            later = self.now + ahead * float(self.width)
            assert self.window.counts(later, totals) == self.brute_force(later)

    @invariant()
    def covers_the_promised_span(self) -> None:
        if self.now < self.latest:
            return
        counted = sum(self.window.counts(self.now, (self.totals[0], self.totals[1])))
        span = self.width * self.buckets
        now = Fraction(self.now)
        least = [event for event in self.events if not event.moved and now - Fraction(event.when) < span - self.width]
        most = [event for event in self.events if now - Fraction(event.latest) <= span + _GRAIN]
        assert len(least) <= counted <= len(most)

    @invariant()
    def the_border_lies_ahead_of_the_bucket(self) -> None:
        assert self.window.turn_at == -inf or self.window.turn_at > float(self.bucket * self.width)


class CountWindowMachine(RuleBasedStateMachine):
    """The model is a deque of the last results."""

    def __init__(self) -> None:
        super().__init__()
        self.window = CountWindow(1)
        self.model: deque[tuple[bool, bool]] = deque(maxlen=1)

    @initialize(size=st.integers(1, 7))
    def choose(self, size: int) -> None:
        self.window = CountWindow(size)
        self.model = deque(maxlen=size)

    @rule(failed=st.booleans(), slow=st.booleans())
    def record(self, failed: bool, slow: bool) -> None:
        self.window.record(failed=failed, slow=slow)
        self.model.append((failed, slow))

    @rule(size=st.integers(1, 7))
    def resize(self, size: int) -> None:
        self.window = self.window.resized(size)
        self.model = deque(self.model, maxlen=size)

    @rule()
    def restart(self) -> None:
        self.window.restart()
        self.model.clear()

    @invariant()
    def agrees_with_brute_force(self) -> None:
        assert self.window.calls == len(self.model)
        assert self.window.failed == sum(failed for failed, _ in self.model)
        assert self.window.slow == sum(slow for _, slow in self.model)


class RowMachine(RuleBasedStateMachine):
    """The model is the list of results since the last success."""

    def __init__(self) -> None:
        super().__init__()
        self.row = Row()
        self.successes = 0
        self.since: list[str] = []

    @rule(times=st.integers(1, 3))
    def succeed(self, times: int) -> None:
        self.successes += times
        self.since.clear()

    @rule(kind=st.sampled_from(["timeout", "server_error", "dns_error"]))
    def fail(self, kind: str) -> None:
        self.since.append(kind)
        assert self.row.fail(self.successes, kind) == (len(self.since), self.since.count(kind))

    @rule()
    def restart(self) -> None:
        self.row.restart()
        self.since.clear()

    @invariant()
    def agrees_with_brute_force(self) -> None:
        assert self.row.length(self.successes) == len(self.since)


TestTimeWindow = TimeWindowMachine.TestCase
TestTimeWindow.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)


def test_what_had_died_is_not_taken_back_from_a_longer_window() -> None:
    """It was not carried over, so there is nothing to undo, although its moment lies within the longer window."""
    window = TimeWindow(10.0, counters=1)
    window.turn(0.0, (0,))
    longer = window.resized(100.0, 20.0, (3,))
    assert longer.counts(20.0, (3,)) == (0,)
    assert not window.take_back(20.0, 0, 0)
    assert longer.counts(20.0, (3,)) == (0,)


TestCountWindow = CountWindowMachine.TestCase
TestCountWindow.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
TestRow = RowMachine.TestCase
TestRow.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)


def test_old_counts_die_on_read() -> None:
    """A gauge read after a quiet time shows nothing, although nobody turned the window since."""
    window = TimeWindow(10, counters=1)
    window.turn(0.5, (0,))
    assert window.counts(9.9, (7,)) == (7,)
    assert window.counts(10.0, (7,)) == (0,)


def test_a_read_changes_nothing() -> None:
    """Reading far ahead leaves every earlier answer as it was."""
    window = TimeWindow(10, counters=2)
    window.turn(0, (0, 0))
    assert window.counts(1_000, (5, 1)) == (0, 0)
    assert window.counts(3, (5, 1)) == (5, 1)
    assert window.turn_at == 1.0


def test_buckets_leave_one_by_one() -> None:
    """Ten counts in ten buckets leave one after the other, the oldest first."""
    window = TimeWindow(10, counters=1)
    for second in range(10):
        window.turn(second, (second,))
    assert [window.counts(10 + ahead, (10,))[0] for ahead in range(-1, 11)] == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0]


def test_first_use_counts_from_there() -> None:
    """A window that starts late does not count what the totals held before."""
    window = TimeWindow(10, counters=1)
    assert window.counts(100, (41,)) == (0,)
    assert window.turn_at == -inf
    window.turn(100, (41,))
    assert window.counts(100, (42,)) == (1,)


def test_what_was_taken_back_leaves_no_hole() -> None:
    """A count undone in a later bucket is not missing from that later bucket when its own has died."""
    window = TimeWindow(10, counters=2)
    window.turn(0, (0, 0))
    window.turn(5, (0, 1))
    assert window.take_back(5, 1, 0)
    assert [window.counts(now, (3, 0)) for now in (5, 9, 10, 14, 15)] == [(3, 0), (3, 0), (3, 0), (3, 0), (0, 0)]


@given(
    span=st.floats(1e-3, 1e5),
    buckets=st.integers(1, 50),
    now=st.floats(0, 1e9),
)
@settings(deadline=None, max_examples=300)
def test_one_turn_takes_the_border_past_now(span: float, buckets: int, now: float) -> None:
    """After a turn the next border lies ahead, so that a record stays cheap, and never more than a bucket ahead."""
    window = TimeWindow(span, counters=1, buckets=buckets)
    window.turn(now, (0,))
    assert window.turn_at >= now
    assert window.turn_at - now <= span / buckets * (1 + 1e-9) + 1e-6


@pytest.mark.parametrize("span", [0, -1, nan, inf])
def test_a_window_without_length_is_refused(span: float) -> None:
    """A span that cannot be meant is named when the window is built."""
    with pytest.raises(ValueError, match=r"positive, finite"):
        TimeWindow(span, counters=1)


@pytest.mark.parametrize("counters, buckets", [(0, 10), (1, 0)])
def test_a_window_without_counters_or_buckets_is_refused(counters: int, buckets: int) -> None:
    """An empty window is named when it is built."""
    with pytest.raises(ValueError, match=r"at least 1"):
        TimeWindow(10, counters=counters, buckets=buckets)


def test_a_count_window_without_room_is_refused() -> None:
    """A ring of nothing could never show anything."""
    with pytest.raises(ValueError, match=r"0 calls"):
        CountWindow(0)


def test_a_kind_stops_counting_when_another_call_succeeded() -> None:
    """Failures of one kind before a success do not add to those after it."""
    row = Row()
    assert row.fail(0, "timeout") == (1, 1)
    assert row.fail(0, "dns_error") == (2, 1)
    assert row.fail(0, "timeout") == (3, 2)
    assert row.fail(1, "timeout") == (1, 1)
    assert row.length(1) == 1
    assert row.length(2) == 0


def test_endless_kinds_do_not_fill_the_memory() -> None:
    """A caller who makes kinds up pays with a forgotten count, not with memory; the row itself stays exact."""
    row = Row()
    tracemalloc.start()
    try:
        for number in range(5_000):
            assert row.fail(0, f"kind {number}") == (number + 1, 1)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 32_768
    assert row.fail(0, "kind 4999") == (5_001, 2)
