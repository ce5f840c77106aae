"""Money in a sliding window: never more than the limit in any window, and no sum that drifts."""

from __future__ import annotations

from fractions import Fraction
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resilience._core.spend import Spend, checked

_WINDOW = 60.0  # slots of a second


class SpendMachine(RuleBasedStateMachine):
    """The model keeps every amount with the moment it was booked, in exact fractions (of cents)."""

    def __init__(self) -> None:
        super().__init__()
        self.spend = Spend(10.0, _WINDOW)
        self.now = 0.0
        self.limit, self.window, self.late = 1_000, _WINDOW, 1.0
        self.booked: list[list[float | int]] = []  # moment, cents
        self.doubtful: list[list[float | int]] = []  # those that a shorter window may have forgotten
        self.open: list[tuple[Spend, int, list[float | int]]] = []
        self.dearer = False

    @initialize(start=st.sampled_from([0.0, -500.25, 1e6]))
    def begin(self, start: float) -> None:
        self.now = start

    def within(self, width: float, *, doubtful: bool = False) -> int:
        known = self.booked + self.doubtful if doubtful else self.booked
        return sum(int(cents) for moment, cents in known if moment > self.now - width)

    @property
    def most(self) -> int:
        """How much counts at most: money leaves a slot late, and with each other window a slot of the one before."""
        return self.within(self.window + self.late, doubtful=True)

    @rule(limit=st.sampled_from([400, 1_000, 2_500]), window=st.sampled_from([_WINDOW, 15.0, 240.0]))
    def adopt(self, limit: int, window: float) -> None:
        oldest = self.now - self.window - self.late
        known = [entry for entry in self.booked if entry[0] > self.now - self.window]
        self.doubtful += [entry for entry in self.booked if entry not in known]
        self.doubtful = [entry for entry in self.doubtful if entry[0] > oldest]
        self.booked = known
        self.spend = self.spend.adopt(self.now, limit / 100, window)
        self.late += window / 60 if window != self.window else 0.0
        self.limit, self.window = limit, window

    @rule(seconds=st.integers(0, 200))
    def pass_some_time(self, seconds: int) -> None:
        self.now += seconds / 4

    @rule(cents=st.integers(0, 1_100))
    def reserve(self, cents: int) -> None:
        wait, slot = self.spend.reserve(self.now, cents / 100)
        if cents > self.limit:
            assert wait == inf
        elif wait == 0:
            self.booked.append([self.now, cents])
            self.open.append((self.spend, slot, self.booked[-1]))
            assert self.dearer or not cents or self.within(self.window) <= self.limit
        else:
            assert self.most + cents > self.limit  # it was right to refuse
            assert 0 < wait <= self.window + self.late

    @rule()
    def wait_until_there_is_room(self) -> None:
        wait, _ = self.spend.reserve(self.now, 4.0)
        self.now += wait
        if wait:
            assert self.spend.reserve(self.now, 4.0)[0] == 0
        self.booked.append([self.now, 400])

    @precondition(lambda self: self.open)
    @rule(data=st.data(), cents=st.integers(0, 1_500))
    def settle(self, data: st.DataObject, cents: int) -> None:
        spend, slot, entry = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        spend.settle(self.now, slot, entry[1] / 100, cents / 100)
        if cents > entry[1]:
            self.dearer = True
            self.booked.append([self.now, cents - entry[1]])
        else:
            entry[1] = cents

    @invariant()
    def counts_all_of_the_window_and_a_slot_more_at_most(self) -> None:
        used = round(self.spend.used(self.now) * 100, 6)
        assert self.within(self.window) <= used <= self.most

    @invariant()
    def remembers_little(self) -> None:
        assert len(self.spend._booked) <= 62


TestSpend = SpendMachine.TestCase
TestSpend.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)


@settings(max_examples=100)
@given(
    start=st.one_of(st.sampled_from([0.0, 1e8, 1.7e9]), st.floats(-1e9, 1e10)),
    window=st.one_of(st.sampled_from([1.0, 60.0, 86_400.0, 7.3]), st.floats(1e-3, 1e8)),
    limit=st.floats(1e-3, 1e9),
    calls=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.5)), max_size=20),
)
def test_who_waits_as_told_finds_room(
    start: float, window: float, limit: float, calls: list[tuple[float, float]]
) -> None:
    """Whatever the rounding, and the window is never overspent on the way."""
    spend, now = Spend(limit, window), start
    passed: list[tuple[float, Fraction]] = []
    for share, pause in calls:
        now += window * pause
        wait, _ = spend.reserve(now, share * limit)
        if wait:
            now += wait
            assert spend.reserve(now, share * limit)[0] == 0
        passed.append((now, Fraction(share * limit)))
        grain = 1e-6 * window + 1e-6  # what times of this size can be off by
        spent = sum(amount for moment, amount in passed if moment > now - window + grain)
        assert spent <= Fraction(limit) * (1 + Fraction(1, 10**9)) + Fraction(len(passed), 10**9)


def test_a_wait_is_not_rounded_down() -> None:
    """Here the difference of two floats, added to the first, is a grain less than the second."""
    spend = Spend(1.0, 3779.6889654672464)
    spend.reserve(90.08129952123804, 1.0)
    now = 1401.37213568237
    wait, _ = spend.reserve(now, 1.0)
    assert spend.reserve(now + wait, 1.0)[0] == 0


def test_sums_do_not_drift() -> None:
    """Ten dimes are a dollar: the tenth passes, and after it nothing does."""
    spend = Spend(1.0, 60)
    assert [spend.reserve(0.0, 0.1)[0] for _ in range(10)] == [0] * 10
    assert spend.used(0.0) == 1.0
    assert spend.reserve(0.0, 1e-9)[0] > 0
    more = Spend(0.67, 60)
    assert [more.reserve(0.0, 0.067)[0] for _ in range(10)] == [0] * 10
    third = Spend(0.3, 60)
    assert [third.reserve(0.0, 0.1)[0] for _ in range(3)] == [0, 0, 0]


def test_a_refusal_says_when_enough_is_gone() -> None:
    """The oldest money leaves first; a small amount waits for less than a large one."""
    spend = Spend(10.0, 60)
    spend.reserve(0.0, 4.0)
    spend.reserve(20.0, 6.0)
    assert spend.reserve(30.0, 4.0) == (31.0, 30)
    assert spend.reserve(30.0, 5.0) == (51.0, 30)
    assert spend.reserve(61.0, 4.0)[0] == 0


def test_more_than_the_limit_never_fits() -> None:
    """And takes nothing."""
    spend = Spend(10.0, 60)
    assert spend.reserve(0.0, 10.01)[0] == inf
    assert spend.used(0.0) == 0


def test_what_is_free_always_passes() -> None:
    """A call that costs nothing is never refused; one that may cost something is, when nothing is left."""
    spend = Spend(1.0, 60)
    assert spend.reserve(0.0, None)[0] == 0
    spend.reserve(0.0, 1.0)
    assert spend.reserve(0.0, 0.0)[0] == 0
    assert spend.reserve(0.0, None)[0] == 61


def test_a_price_that_was_too_low_is_booked_when_it_is_known() -> None:
    """The excess counts from the settlement on, and what was reserved from when it was."""
    spend = Spend(10.0, 60)
    _, slot = spend.reserve(0.0, 1.0)
    spend.settle(30.0, slot, 1.0, 12.0)
    assert spend.used(30.0) == 12.0
    assert spend.reserve(30.0, 1.0)[0] == 61
    assert spend.used(61.0) == 11.0
    assert spend.used(91.0) == 0


def test_a_price_that_was_too_high_makes_room_at_once() -> None:
    """What a call did not cost is there for others."""
    spend = Spend(10.0, 60)
    _, slot = spend.reserve(0.0, 9.0)
    spend.settle(5.0, slot, 9.0, 0.5)
    assert spend.reserve(5.0, 9.5)[0] == 0


def test_what_has_left_the_window_cannot_come_back() -> None:
    """A call that outlasts the window has nothing to give back."""
    spend = Spend(10.0, 60)
    _, slot = spend.reserve(0.0, 9.0)
    spend.settle(100.0, slot, 9.0, 0.0)
    assert spend.used(100.0) == 0


def test_a_clock_that_goes_backwards_forgets_nothing() -> None:
    """What was booked stays booked, and what comes then counts at least as long."""
    spend = Spend(10.0, 60)
    spend.reserve(50.0, 1.0)
    spend.reserve(100.0, 5.0)
    spend.reserve(50.0, 4.0)
    assert spend.used(111.0) == 9.0
    spend.reserve(111.0, 1.0)
    assert spend.used(160.0) == 10.0
    assert spend.used(161.0) == 1.0


def test_reset_forgets() -> None:
    """After it everything is there, and time may start anew."""
    spend = Spend(10.0, 60)
    spend.reserve(1e6, 10.0)
    spend.reset()
    assert spend.reserve(0.0, 10.0) == (0.0, 0)


@pytest.mark.parametrize("limit, window", [(0, 60), (-1, 60), (nan, 60), (inf, 60), (1, 0), (1, nan), (1, inf)])
def test_nonsense_is_refused(limit: float, window: float) -> None:
    """A limit that could not be meant is refused when it is built."""
    with pytest.raises(ValueError, match="expected a finite number above 0"):
        Spend(limit, window)


@pytest.mark.parametrize("amount", [-0.01, nan, inf, True])
def test_only_amounts_are_amounts(amount: float) -> None:
    """Negative money would be a hole in the limit; so would NaN."""
    with pytest.raises(ValueError, match="an amount is a finite number, 0 or more"):
        checked(amount)
    spend = Spend(1.0, 60)
    with pytest.raises(ValueError, match="an amount"):
        spend.reserve(0.0, amount)
    with pytest.raises(ValueError, match="an amount"):
        spend.settle(0.0, 0, 0.0, amount)
    assert spend.used(0.0) == 0


def test_money_does_not_leave_early_because_the_clock_went_backwards() -> None:
    """Booked at 100 s, it stays for the whole of a longer window that begins when the clock says 10 s again."""
    spend = Spend(10.0, 60.0)
    spend.reserve(100.0, 5.0)
    longer = spend.adopt(10.0, 10.0, 600.0)
    assert longer.used(699.0) == 5
    assert longer.used(711.0) == 0


def test_the_least_amounts_are_counted_in_full() -> None:
    """A part of a billionth is a billionth, and while one is left, what is not known yet may pass."""
    spend = Spend(5e-9, 60.0)
    assert spend.reserve(0.0, 1.4e-9) == (0.0, 0)
    assert spend.used(0.0) == 2e-9
    spend.reserve(0.0, 2e-9)
    assert spend.reserve(0.0, None)[0] == 0
    spend.reserve(0.0, 1e-9)
    assert spend.reserve(0.0, None)[0] > 0


def test_what_is_refunded_in_another_window_is_there_again() -> None:
    """A reservation finds its money wherever it was moved to, also before the clock's zero, and only its own."""
    spend = Spend(10.0, 60.0)
    _, slot = spend.reserve(-100.1, 5.0)
    shorter = spend.adopt(-100.1, 8.0, 15.0)
    assert (shorter.limit, shorter.window) == (8.0, 15.0)
    spend.settle(-100.1, slot, 5.0, 3.0)
    assert shorter.used(-100.1) == 3
    assert shorter.used(-85.01) == 3
    assert shorter.used(-84.99) == 0
    spend.settle(-80.0, slot, 3.0, 1.0)
    assert shorter.used(-80.0) == 0
    assert shorter.adopt(-80.0, 20.0, 15.0) is shorter
    assert shorter.limit == 20.0
