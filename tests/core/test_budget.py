"""The budget agrees with a list of calls and charges beside a plain token bucket."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor, inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resilience._core.budget import Charge, RetryBudget

_WINDOW = 10.0  # buckets of one second


class Bucket:
    """The floor as a token bucket that remembers whose tokens are still missing; all its numbers are exact."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate = Fraction(rate)
        self.burst = Fraction(burst if rate else 0)
        self.tokens = self.burst
        self.at = Fraction(0)
        self.missing: list[Charge] = []

    def refill(self, now: float) -> None:
        self.tokens = min(self.burst, self.tokens + (Fraction(now) - self.at) * self.rate)
        self.at = Fraction(now)
        if self.tokens == self.burst:
            self.missing.clear()  # all of them have been made good

    def give_back(self, charge: Charge, now: float) -> None:
        self.refill(now)
        if charge in self.missing:
            self.missing.remove(charge)
            self.tokens = min(self.burst, self.tokens + 1)

    def adopt(self, rate: float, burst: int, now: float) -> None:
        """What is missing stays missing, unless there is no floor."""
        self.refill(now)
        lacking = self.burst - self.tokens if rate and self.rate else Fraction(0)
        self.rate, self.burst = Fraction(rate), Fraction(burst if rate else 0)
        self.tokens = self.burst - lacking
        if not lacking:
            self.missing.clear()


@dataclass
class Spent:
    charge: Charge
    when: float  # when the bucket began that it counts in
    of_window: bool


class BudgetMachine(RuleBasedStateMachine):
    """Times, ratios and rates are sums of powers of two, so that the model and the budget round alike: not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.ratio = 0.25
        self.budget = RetryBudget()
        self.bucket = Bucket(1, 10)
        self.now = 64.0
        self.width = 1.0
        self.calls: list[float] = []  # when the bucket began that each original call counts in
        self.spent: list[Spent] = []

    @initialize(
        ratio=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
        rate=st.sampled_from([0.0, 0.5, 1.0, 4.0]),
        burst=st.sampled_from([0, 1, 3, 10]),
    )
    def choose(self, ratio: float, rate: float, burst: int) -> None:
        self.ratio = ratio
        self.budget = RetryBudget(ratio, _WINDOW, rate, burst)
        self.bucket = Bucket(rate, burst)

    @rule(
        ratio=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
        window=st.sampled_from([_WINDOW, _WINDOW, 2.5, 5.0, 20.0, 80.0]),
        rate=st.sampled_from([0.0, 0.5, 1.0, 4.0]),
        burst=st.sampled_from([0, 1, 3, 10]),
    )
    def adopt(self, ratio: float, window: float, rate: float, burst: int) -> None:
        """Everything that is in the window stays, as of when its bucket began; what has left stays away."""
        figures = {"ratio": ratio, "window": window, "floor_per_second": rate, "floor_burst": burst}
        self.budget.adopt(self.now, len(self.calls), **figures)  # type: ignore[arg-type]
        oldest, self.width = self.began(self.now) - 9 * self.width, window / 10
        self.calls = [self.began(when) if when >= oldest else -inf for when in self.calls]
        for spent in self.spent:
            spent.when = self.began(spent.when) if spent.when >= oldest else -inf
        self.ratio = ratio
        self.bucket.adopt(rate, burst, self.now)

    def began(self, when: float) -> float:
        return floor(when / self.width) * self.width

    def balance(self) -> Fraction:
        oldest = self.began(self.now) - 9 * self.width
        deposits = sum(when >= oldest for when in self.calls)
        withdrawals = sum(spent.of_window and spent.charge.live and spent.when >= oldest for spent in self.spent)
        return Fraction(self.ratio) * deposits - withdrawals

    @rule(sixteenths=st.integers(0, 40))
    def pass_some_time(self, sixteenths: int) -> None:
        self.now += sixteenths / 16

    @rule(seconds=st.integers(5, 30))
    def pass_much_time(self, seconds: int) -> None:
        self.now += seconds

    @rule(times=st.integers(1, 20))
    def call(self, times: int) -> None:
        if self.now >= self.budget.turn_at:
            self.budget.turn(self.now, len(self.calls))
        self.calls += [self.began(self.now)] * times

    @rule(times=st.integers(1, 6))
    def spend(self, times: int) -> None:
        for _ in range(times):
            self.bucket.refill(self.now)
            of_window = self.balance() >= 1
            expected = of_window or self.bucket.tokens >= 1
            charge = self.budget.try_spend(self.now, len(self.calls))
            assert (charge is not None) is expected
            if charge is None:
                continue
            self.spent.append(Spent(charge, self.began(self.now), of_window))
            if not of_window:
                self.bucket.tokens -= 1
                self.bucket.missing.append(charge)

    @precondition(lambda self: self.spent)
    @rule(data=st.data())
    def refund(self, data: st.DataObject) -> None:
        """Any charge: old or new, for the first time or again."""
        spent = data.draw(st.sampled_from(self.spent))
        if spent.charge.live and not spent.of_window:
            self.bucket.give_back(spent.charge, self.now)
        self.budget.refund(spent.charge, self.now)
        assert not spent.charge.live

    @invariant()
    def agrees_with_brute_force(self) -> None:
        self.bucket.refill(self.now)
        expected = floor(max(Fraction(0), self.balance())) + max(0, floor(self.bucket.tokens))
        assert self.budget.available(self.now, len(self.calls)) == expected


TestBudget = BudgetMachine.TestCase
TestBudget.settings = settings(deadline=None, max_examples=200, stateful_step_count=40)


def spend_all(budget: RetryBudget, now: float, originals: int) -> list[Charge]:
    charges: list[Charge] = []
    while charge := budget.try_spend(now, originals):
        charges.append(charge)
    return charges


def without_floor(ratio: float = 0.2) -> RetryBudget:
    return RetryBudget(ratio, _WINDOW, floor_per_second=0)


def test_retries_are_a_share_of_the_calls() -> None:
    """A hundred calls vouch for twenty retries and no more."""
    budget = without_floor()
    budget.turn(0, 0)
    assert len(spend_all(budget, 0, 100)) == 20
    assert budget.try_spend(5, 100) is None


@pytest.mark.parametrize(
    "ratio, calls, retries", [(0.1, 30, 3), (0.29, 100, 29), (0.7, 10, 7), (0.2, 4, 0), (0, 99, 0)]
)
def test_no_deposit_is_lost_in_rounding(ratio: float, calls: int, retries: int) -> None:
    """The share is exact where floating point numbers are not."""
    budget = without_floor(ratio)
    budget.turn(0, 0)
    assert len(spend_all(budget, 0, calls)) == retries


def test_old_calls_stop_vouching() -> None:
    """When the calls have left the window, so has the budget they gave."""
    budget = without_floor()
    budget.turn(0, 0)
    assert budget.available(9.9, 100) == 20
    assert budget.available(10, 100) == 0
    assert budget.try_spend(10, 100) is None


def test_old_retries_stop_counting() -> None:
    """Retries leave the window as the calls do, so a steady load has a steady budget."""
    budget = without_floor()
    originals = retries = 0
    for second in range(100):
        budget.turn(second, originals)
        originals += 10
        retries += len(spend_all(budget, second, originals))
    assert retries == 200


def test_a_quiet_client_may_retry() -> None:
    """Without a single call to vouch for them, ten retries may be made at once and one a second after that."""
    budget = RetryBudget()
    assert len(spend_all(budget, 0, 0)) == 10
    assert [len(spend_all(budget, second, 0)) for second in (0.5, 1, 1.5, 2, 5)] == [0, 1, 0, 1, 3]
    assert len(spend_all(budget, 1_000, 0)) == 10


@given(
    start=st.floats(0, 1e6),
    rate=st.floats(0.1, 200),
    burst=st.integers(1, 50),
)
@settings(deadline=None, max_examples=150)
def test_the_floor_gives_its_burst_in_full(start: float, rate: float, burst: int) -> None:
    """No rounding of rates or clocks takes the last retry of a burst away, or adds one."""
    budget = RetryBudget(0, _WINDOW, rate, burst)
    assert budget.available(start, 0) == burst
    assert len(spend_all(budget, start, 0)) == burst


def test_an_outage_costs_no_more_than_promised() -> None:
    """100 calls a second that all fail, each asking for retries: a fifth more load plus one a second, and evenly."""
    budget = RetryBudget()
    originals, per_second = 0, []
    for tick in range(60 * 100):
        now = tick / 100
        if now >= budget.turn_at:
            budget.turn(now, originals)
        originals += 1
        if now == int(now):
            per_second.append(0)
        per_second[-1] += sum(budget.try_spend(now, originals) is not None for _ in range(2))
    assert sum(per_second) <= 0.2 * originals + 60 + 10
    assert sum(per_second) >= 0.2 * originals
    assert max(per_second[1:]) <= 25
    assert min(per_second) >= 15


def test_a_refund_makes_room() -> None:
    """A retry that never left can be made by another call."""
    budget = without_floor()
    budget.turn(0, 0)
    charges = spend_all(budget, 0, 10)
    assert len(charges) == 2
    budget.refund(charges[0], 3)
    assert budget.available(3, 10) == 1
    assert budget.try_spend(3, 10) is not None
    assert budget.try_spend(3, 10) is None


@pytest.mark.parametrize("budget, originals", [(without_floor(), 10), (RetryBudget(0, _WINDOW, 0.01, 2), 0)])
def test_a_refund_counts_once(budget: RetryBudget, originals: int) -> None:
    """A charge refunded twice, as by two finally clauses, gives one retry back: of the window or of the floor."""
    budget.turn(0, 0)
    charges = spend_all(budget, 0, originals)
    assert len(charges) == 2
    assert charges[1].live
    budget.refund(charges[1], 1)
    budget.refund(charges[1], 1)
    assert not charges[1].live
    assert charges[0].live
    assert budget.available(1, originals) == 1


def test_a_late_refund_of_the_window_gives_nothing() -> None:
    """A sleeper cancelled after its charge has left the window creates no budget, now or later."""
    budget = without_floor()
    budget.turn(0, 0)
    charge = budget.try_spend(0, 5)
    assert charge is not None
    budget.turn(12, 5)
    budget.refund(charge, 12)
    assert [budget.available(now, 14) for now in (12, 15, 21)] == [1, 1, 1]  # nine new calls, not ten
    assert budget.available(22, 14) == 0


def test_an_early_refund_leaves_no_credit_behind() -> None:
    """A charge refunded within the window is gone, and not once more when its bucket leaves the window."""
    budget = without_floor()
    budget.turn(0, 0)
    charge = budget.try_spend(0, 5)
    assert charge is not None
    budget.turn(5, 5)
    budget.refund(charge, 5)
    assert budget.available(5, 5) == 1
    assert budget.available(11, 9) == 0  # four calls since: no whole retry


def test_a_late_refund_of_the_floor_gives_nothing() -> None:
    """What time has already refilled is not refunded on top."""
    budget = RetryBudget(0, _WINDOW, floor_per_second=1, floor_burst=3)
    early = budget.try_spend(0, 0)
    assert early is not None
    assert len(spend_all(budget, 100, 0)) == 3
    budget.refund(early, 100)
    assert budget.available(100, 0) == 0


def test_a_charge_of_another_budget_gives_nothing() -> None:
    """A budget that replaced another, after a change of settings, does not refund what it never charged."""
    old, new = RetryBudget(), RetryBudget(floor_per_second=0)
    old.turn(0, 0)
    new.turn(0, 0)
    charge = old.try_spend(0, 10)
    assert charge is not None
    assert len(spend_all(new, 0, 10)) == 2
    new.refund(charge, 1)
    assert new.available(1, 10) == 0
    assert charge.live


def test_asking_changes_nothing() -> None:
    """The figure in a report is the number of retries that can really be paid for, and reading it costs none."""
    budget = RetryBudget()
    budget.turn(0, 0)
    assert [budget.available(now, 25) for now in (0, 50, 0)] == [15, 10, 15]
    assert len(spend_all(budget, 0, 25)) == 15


def test_a_clock_that_goes_backwards_creates_no_budget() -> None:
    """Nothing is paid back when the clock jumps, and the budget recovers when it has caught up."""
    budget = RetryBudget()
    budget.turn(100, 0)
    assert len(spend_all(budget, 100, 50)) == 20
    assert spend_all(budget, 40, 50) == []
    assert budget.available(40, 50) == 0
    assert budget.available(120, 50) == 10


@pytest.mark.parametrize("field", ["ratio", "window", "floor_per_second", "floor_burst"])
@pytest.mark.parametrize("value", [-1, nan, inf])
def test_nonsense_numbers_are_refused(field: str, value: float) -> None:
    """A number that cannot be meant is named when the budget is built."""
    with pytest.raises(ValueError, match=rf"{value!r}"):
        RetryBudget(**{field: value})  # type: ignore[arg-type]


def test_a_floor_comes_back_even_when_the_clock_goes_backwards() -> None:
    """It was taken away and is there again, and the clock has jumped back meanwhile: the floor is full, or soon."""
    budget = RetryBudget(0, _WINDOW, 1.0, 10)
    spend_all(budget, 10.0, 0)
    budget.adopt(10.0, 0, ratio=0, window=_WINDOW, floor_per_second=0.0, floor_burst=0)
    assert budget.available(10.0, 0) == 0
    budget.adopt(9.0, 0, ratio=0, window=_WINDOW, floor_per_second=1.0, floor_burst=10)
    assert budget.available(9.0, 0) == 9
    assert budget.available(10.0, 0) == 10
