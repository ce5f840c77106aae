"""The throttle sends an overloaded provider what it can answer, and forgets quickly."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable

import pytest

from resilience._core.throttle import AdaptiveThrottle
from resilience._core.words import Priority


def recorded(throttle: AdaptiveThrottle, accepted: int, refused: int, now: float = 0.0) -> AdaptiveThrottle:
    throttle.record(now, accepted=True, n=accepted)
    throttle.record(now, accepted=False, n=refused)
    return throttle


def test_the_formula() -> None:
    """(n - K a) / (n + 1), never below 0 and never above the greatest share."""
    assert recorded(AdaptiveThrottle(), 20, 79).share(0.0) == pytest.approx((99 - 40) / 100)
    assert recorded(AdaptiveThrottle(), 60, 40).share(0.0) == 0.0
    assert recorded(AdaptiveThrottle(), 0, 999).share(0.0) == 0.9
    assert recorded(AdaptiveThrottle(ratio=1.5), 20, 79).share(0.0) == pytest.approx(0.69)


def test_few_calls_hold_nothing_back() -> None:
    """Below the minimum nothing is held back, however bad they were."""
    throttle = recorded(AdaptiveThrottle(minimum_calls=10), 0, 9)
    assert throttle.share(0.0) == 0.0
    throttle.record(0.0, accepted=False)
    assert throttle.share(0.0) == 0.9


def test_old_calls_are_forgotten() -> None:
    """The window looks back so far, and no further."""
    throttle = recorded(AdaptiveThrottle(window=120), 0, 100)
    assert throttle.share(113.9) == 0.9
    assert throttle.counts(120.0) == (0, 0)
    assert throttle.share(120.0) == 0.0


@pytest.mark.parametrize(
    "refused, critical, default, sheddable",
    [(49, 0.0, 0.0, 0.0), (80, 0.3721, 0.61, 0.95), (63, 0.0729, 0.27, 0.54), (999, 0.81, 0.9, 0.95)],
)
def test_who_matters_less_is_held_back_more(refused: int, critical: float, default: float, sheddable: float) -> None:
    """P squared for the critical, twice P for the sheddable, of whom a few still get through."""
    throttle = recorded(AdaptiveThrottle(), 0 if refused == 999 else 99 - refused, refused)
    shares = [throttle.share(0.0, priority) for priority in (Priority.CRITICAL, Priority.DEFAULT, Priority.SHEDDABLE)]
    assert shares == pytest.approx([critical, default, sheddable])


def test_the_lot_decides() -> None:
    """Calls are held back in proportion, and the given source of randomness draws."""
    throttle = recorded(AdaptiveThrottle(), 20, 79)
    held = sum(throttle.holds_back(0.0, Priority.DEFAULT, rng) for rng in [random.Random(1)] for _ in range(10_000))
    assert held == pytest.approx(5900, rel=0.03)
    assert not recorded(AdaptiveThrottle(), 99, 0).holds_back(0.0, Priority.DEFAULT, random.Random(1))


def simulate(
    throttle: AdaptiveThrottle,
    *,
    demand: int,
    seconds: int,
    capacity: Callable[[float], float],
    takes: float = 0.0,
    refuse: Callable[[random.Random], bool] | None = None,
) -> list[int]:
    """Return how many calls of *demand* a second were sent in each second to a provider with so much *capacity*."""
    rng = random.Random(5)
    sent = [0] * seconds
    under_way: list[tuple[float, bool]] = []
    for second in range(seconds):
        room = capacity(second)
        for number in range(demand):
            now = second + number / demand
            while under_way and under_way[0][0] <= now:
                end, accepted = heapq.heappop(under_way)
                throttle.record(end, accepted=accepted)
            if throttle.holds_back(now, Priority.DEFAULT, rng):
                continue
            sent[second] += 1
            accepted = sent[second] <= room if refuse is None else not refuse(rng)
            heapq.heappush(under_way, (now + takes, accepted))
    return sent


def test_an_overloaded_provider_is_relieved() -> None:
    """With room for 20 of 200 calls a second it is sent about sqrt(K C D) = 89 of them."""
    sent = simulate(AdaptiveThrottle(window=20), demand=200, seconds=120, capacity=lambda _: 20.0)
    assert sum(sent[60:]) / 60 == pytest.approx(math.sqrt(2 * 20 * 200), rel=0.1)


def test_a_healthy_provider_is_left_alone_however_slow_it_is() -> None:
    """Calls that take a minute are not held back for being under way."""
    sent = simulate(AdaptiveThrottle(), demand=2, seconds=400, capacity=lambda _: math.inf, takes=60.0)
    assert sum(sent) == 800


def test_recovery_is_noticed_within_half_a_minute() -> None:
    """After an outage of five minutes nine of ten calls go out again in 30 s, with a window of two minutes."""
    sent = simulate(
        AdaptiveThrottle(), demand=100, seconds=360, capacity=lambda second: 0.0 if second < 300 else math.inf
    )
    assert sum(sent[250:300]) / 50 == pytest.approx(10, rel=0.2)  # one in ten goes on asking
    assert sum(sent[330:340]) / 10 >= 90


def test_refusals_that_do_not_depend_on_load_do_not_stop_everything() -> None:
    """With 60 % refused whatever is sent, most calls still go out."""
    sent = simulate(
        AdaptiveThrottle(window=20),
        demand=100,
        seconds=80,
        capacity=lambda _: 0.0,
        refuse=lambda rng: rng.random() < 0.6,
    )
    assert sum(sent[40:]) / 40 == pytest.approx(80, rel=0.1)


@pytest.mark.parametrize("figures", [{"ratio": 0.9}, {"max_reject": 1.1}, {"window": 0.0}, {"ratio": math.nan}])
def test_nonsense_is_refused(figures: dict[str, float]) -> None:
    """A ratio is at least 1, a share at most, and a window has a length."""
    with pytest.raises(ValueError, match="expected"):
        AdaptiveThrottle(**figures)  # type: ignore[arg-type]


def test_the_bounds_of_its_figures_are_allowed() -> None:
    """A ratio of 1 and shares of 0 and 1 mean something."""
    assert recorded(AdaptiveThrottle(ratio=1), 50, 49).share(0.0) == pytest.approx(0.49)
    assert recorded(AdaptiveThrottle(max_reject=0.0), 0, 99).share(0.0) == 0.0
    assert recorded(AdaptiveThrottle(max_reject=1.0), 0, 99).share(0.0) == pytest.approx(0.99)


def test_what_is_not_said_is_as_documented() -> None:
    """Ten calls are enough to go by, and two minutes are looked back, in steps of six seconds."""
    throttle = recorded(AdaptiveThrottle(), 0, 10, now=5.0)
    assert throttle.share(5.0) == 0.9
    throttle.record(6.0, accepted=False)
    assert throttle.counts(119.9) == (11, 0)
    assert throttle.counts(120.0) == (1, 0)
    assert throttle.counts(125.9) == (1, 0)
    assert throttle.counts(126.0) == (0, 0)


class Draw(random.Random):
    """A draw that was fixed beforehand; a second one fails."""

    def __init__(self, *draws: float) -> None:
        self.draws = list(draws)
        super().__init__()

    def random(self) -> float:
        return self.draws.pop()


@pytest.mark.parametrize("priority", Priority)
def test_each_priority_draws_against_its_own_share(priority: Priority) -> None:
    """Below its share it is held back, at it and above it leaves."""
    throttle = recorded(AdaptiveThrottle(), 19, 80)
    share = throttle.share(0.0, priority)
    assert throttle.holds_back(0.0, priority, Draw(math.nextafter(share, 0)))
    assert not throttle.holds_back(0.0, priority, Draw(share))


def test_nothing_is_drawn_where_nothing_is_held_back() -> None:
    """A healthy provider's calls leave the source of randomness alone."""
    assert not recorded(AdaptiveThrottle(), 99, 0).holds_back(0.0, Priority.DEFAULT, Draw())


def test_other_figures_judge_the_same_calls() -> None:
    """Each figure takes effect at once, and the calls of a window of another length are those that are known."""
    throttle = recorded(AdaptiveThrottle(), 20, 79)
    throttle.adopt(1.0, ratio=1.5, window=120.0, max_reject=0.9, minimum_calls=10)
    assert throttle.share(1.0) == pytest.approx(0.69)
    throttle.adopt(1.0, ratio=1.5, window=120.0, max_reject=0.5, minimum_calls=10)
    assert throttle.share(1.0) == 0.5
    throttle.adopt(1.0, ratio=1.5, window=120.0, max_reject=0.5, minimum_calls=100)
    assert throttle.share(1.0) == 0.0
    throttle.adopt(1.0, ratio=2.0, window=600.0, max_reject=0.9, minimum_calls=10)
    assert throttle.counts(599.0) == (99, 20)
    throttle.adopt(300.0, ratio=2.0, window=20.0, max_reject=0.9, minimum_calls=10)
    assert throttle.counts(300.0) == (0, 0)
    with pytest.raises(ValueError, match="ratio"):
        throttle.adopt(300.0, ratio=0.5, window=20.0, max_reject=0.9, minimum_calls=10)
