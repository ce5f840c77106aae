"""The cost limit on its own: money is reserved, settled and refused, and every cent is accounted for."""

from __future__ import annotations

import dataclasses
import json
import pickle
import threading
from math import inf, nan
from typing import Any

import pytest

from resilience.errors import ConfigurationError, CostLimitReached, Reason
from resilience.events import CallWouldBeRejected
from resilience.policies import _forks
from resilience.policies.cost import CostLimit, CostRefusal, Spending
from resilience.settings import BreakerSettings, CostSettings
from resilience.testing import EventRecorder


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limit_of(clock: Clock, **settings: Any) -> CostLimit:
    """Five a minute, unless told otherwise."""
    return CostLimit(
        CostSettings(**{"limit": 5, "window": 60, **settings}), name="openai", clock=clock, wall_clock=lambda: 1e9
    )


def used(limit: CostLimit) -> float:
    return limit.snapshot().used


def test_the_limit_is_the_limit(clock: Clock) -> None:
    """Up to the last cent, and then not one more; the error says how much is spent and when to come back."""
    limit = limit_of(clock)
    for _ in range(50):
        limit.reserve(0.1)
    clock.now = 10
    with pytest.raises(CostLimitReached) as caught:
        limit.reserve(0.1)
    assert str(caught.value) == (
        "openai: cost limit reached, 0.1 wanted, 5 of 5 spent or reserved in 60 s, retry in 51.0 s"
    )
    assert (caught.value.reason, caught.value.retry_after) == (Reason.COST_EXHAUSTED, 51)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    clock.now = 61
    limit.reserve(5)
    assert limit.snapshot().rejected == 1


def test_more_than_the_limit_is_never_possible(clock: Clock) -> None:
    """There is no time to come back at."""
    with pytest.raises(CostLimitReached) as caught:
        limit_of(clock).reserve(5.01)
    assert caught.value.retry_after is None
    assert str(caught.value) == "openai: cost limit reached, 5.01 wanted, 0 of 5 spent or reserved in 60 s"


def test_a_refusal_as_a_value(clock: Clock) -> None:
    """For those who would rather choose a cheaper way than catch an exception."""
    limit = limit_of(clock)
    assert isinstance(limit.try_reserve(5), Spending)
    refusal = limit.try_reserve()
    assert isinstance(refusal, CostRefusal)
    assert (refusal.retry_after, refusal.used, refusal.limit) == (61, 5, 5)
    assert str(limit.refused(refusal)) == (
        "openai: cost limit reached, 5 of 5 spent or reserved in 60 s, retry in 61.0 s"
    )


def test_the_actual_price_counts(clock: Clock) -> None:
    """Cheaper makes room at once; dearer is booked, though it exceeds the limit."""
    limit = limit_of(clock)
    cheap, dear = limit.reserve(2), limit.reserve(3)
    cheap.settle(0.5)
    assert used(limit) == 3.5
    dear.settle(6)
    assert used(limit) == 6.5
    assert isinstance(limit.try_reserve(0.01), CostRefusal)


def test_a_price_that_nobody_knows_yet(clock: Clock) -> None:
    """It is booked when it is settled; until then a call passes while there is anything left."""
    limit = limit_of(clock)
    spending = limit.reserve()
    assert (spending.amount, used(limit)) == (0, 0)
    spending.settle(5)
    assert isinstance(limit.try_reserve(), CostRefusal)
    assert isinstance(limit.try_reserve(0), Spending)  # what is free is free


def test_a_refund_gives_everything_back_once(clock: Clock) -> None:
    """A second one, or a settlement after it, changes nothing."""
    limit = limit_of(clock)
    spending, other = limit.reserve(2), limit.reserve(1)
    assert repr(spending) == "<Spending 2, live>"
    spending.refund()
    spending.refund()
    spending.settle(4)
    assert repr(spending) == "<Spending 2, done>"
    assert used(limit) == 1
    other.settle()
    other.refund()
    assert used(limit) == 1


@pytest.mark.parametrize("amount", [-1, nan, inf, True])
def test_amounts_that_are_none(clock: Clock, amount: float) -> None:
    """They are refused where they come in, whether there is a limit or not; a spending stays as it is."""
    for limit in (limit_of(clock), limit_of(clock, limit=None)):
        with pytest.raises(ValueError, match="an amount is a finite number, 0 or more"):
            limit.reserve(amount)
    limit = limit_of(clock)
    spending = limit.reserve(1)
    with pytest.raises(ValueError, match="an amount"):
        spending.settle(amount)
    assert used(limit) == 1
    spending.refund()
    assert used(limit) == 0


def test_shadow_admits_and_tells(clock: Clock) -> None:
    """Who would have been refused is told of and spends nothing, as if it were not there."""
    limit, events = limit_of(clock, mode="shadow"), EventRecorder()
    limit.bus.subscribe(events)
    limit.reserve(4)
    extra = limit.reserve(2)
    extra.settle(3)
    assert used(limit) == 4
    assert [(event.provider, event.reason) for event in events.of(CallWouldBeRejected)] == [
        ("openai", Reason.COST_EXHAUSTED)
    ]
    assert limit.snapshot().rejected == 0


@pytest.mark.parametrize("settings", [{"mode": "disabled"}, {"limit": None}])
def test_disabled_and_unlimited(clock: Clock, settings: dict[str, object]) -> None:
    """Both let everything pass and count nothing."""
    limit = limit_of(clock, **settings)
    limit.reserve(1e9).settle(2e9)
    limit.reserve().refund()
    assert used(limit) == 0


def test_a_snapshot_is_json(clock: Clock) -> None:
    """Every figure is there, and plain."""
    limit = limit_of(clock)
    limit.reserve(1.25)
    assert json.loads(json.dumps(dataclasses.asdict(limit.snapshot()))) == {
        "name": "openai",
        "mode": "enforce",
        "limit": 5,
        "window": 60,
        "used": 1.25,
        "rejected": 0,
    }


def test_a_limit_describes_itself(clock: Clock) -> None:
    """In one line."""
    limit = limit_of(clock)
    limit.reserve(1.25)
    assert repr(limit) == "<CostLimit 'openai' 1.25 of 5 in 60 s>"
    assert repr(limit_of(clock, mode="shadow")) == "<CostLimit 'openai' SHADOW 0 of 5 in 60 s>"
    assert repr(limit_of(clock, limit=None)) == "<CostLimit 'openai' no limit>"


def test_mistakes_are_explained() -> None:
    """Other settings, or a name that is none."""
    with pytest.raises(ConfigurationError, match=r"^a cost limit takes CostSettings.*, not 'openai': the name is"):
        CostLimit("openai")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="takes CostSettings"):
        CostLimit(BreakerSettings())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="name is a string, not 7"):
        CostLimit(CostSettings(), name=7)  # type: ignore[arg-type]


def test_threads_share_it(clock: Clock) -> None:
    """However they interleave, exactly the limit passes."""
    limit, passed = limit_of(clock, limit=100), []

    def spend() -> None:
        for _ in range(200):
            answer = limit.try_reserve(1)
            if isinstance(answer, Spending):
                passed.append(answer)

    threads = [threading.Thread(target=spend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(passed), used(limit), limit.rejected) == (100, 100, 700)


def test_a_forked_child_starts_anew(clock: Clock) -> None:
    """Nothing is spent, and what the parent reserved cannot be given back here."""
    limit, unlimited = limit_of(clock), limit_of(clock, limit=None)
    spending = limit.reserve(5)
    old = limit.lock
    _forks.start_anew()
    assert limit.lock is not old
    assert (used(limit), used(unlimited)) == (0, 0)
    limit.reserve(5)
    spending.refund()
    assert used(limit) == 5
