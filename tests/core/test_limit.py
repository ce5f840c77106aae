"""Adaptive limits find what a provider can take, and agree with the published simulations of their kind."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience._core.limit import AimdLimit, Limit, VegasLimit

CAPACITY = 50
OFFERED = 200


def aimd(initial: float = 20, lowest: int = 1, highest: int = 200) -> AimdLimit:
    return AimdLimit(initial, lowest, highest, 0.0)


def vegas(initial: float = 20, lowest: int = 1, highest: int = 200) -> VegasLimit:
    return VegasLimit(initial, lowest, highest, 0.0, random.Random(1))


def served(limit: Limit, windows: int, *, timeout: float = math.inf, offered: int = OFFERED, start: int = 0) -> None:
    """Let a server answer *windows* rounds: 0.1 s, and in proportion longer when more than CAPACITY are with it."""
    for window in range(start, start + windows):
        busy = min(limit.allowed, offered)
        rtt = 0.1 * max(1.0, busy / CAPACITY)
        late = rtt > timeout
        limit.saw(
            window + 1.0,
            successes=0 if late else max(10, busy),
            drops=10 if late else 0,
            in_flight=busy,
            latency=None if late else rtt,
        )


# -- AIMD --------------------------------------------------------------------------------------------------------------


def test_aimd_grows_by_one_a_round_and_saws_below_the_timeout() -> None:
    """Against a server with room for 50 and a timeout of 0.25 s (125 at once): 70 after 50 rounds, then 112 to 126."""
    limit = aimd()
    served(limit, 50, timeout=0.25)
    assert 68 <= limit.allowed <= 70
    served(limit, 400, timeout=0.25, start=50)
    seen: list[int] = []
    for window in range(450, 550):
        served(limit, 1, timeout=0.25, start=window)
        seen.append(limit.allowed)
    assert (min(seen), max(seen)) == (113, 126)


def test_a_window_with_drops_costs_a_tenth_once() -> None:
    """Two hundred refusals in a second are one bad second: the limit falls from 100 to 90, and not to 1."""
    limit = aimd(100)
    assert limit.saw(1.0, successes=300, drops=200, in_flight=100) == "drops"
    assert limit.limit == pytest.approx(90)


@pytest.mark.parametrize("make", [aimd, vegas])
def test_nothing_moves_before_the_window_is_full(make: Callable[[], Limit]) -> None:
    """Nine samples in an hour, and a thousand in a tenth of a second, are too few to judge by."""
    limit = make()
    assert limit.saw(3600.0, drops=9, in_flight=20) == ""
    assert limit.limit == 20
    assert limit.saw(3600.0, drops=1, in_flight=20) == "drops"
    before = limit.limit
    assert limit.saw(3600.9, drops=1000, in_flight=20) == ""
    assert limit.limit == before
    assert limit.saw(3601.0, in_flight=20) == "drops"


@pytest.mark.parametrize("make", [aimd, vegas])
def test_a_limit_that_is_not_used_does_not_grow(make: Callable[[], Limit]) -> None:
    """Successes with less than half of the limit in flight say nothing about more."""
    limit = make()
    for second in range(1, 100):
        limit.saw(float(second), successes=1000, in_flight=9, latency=0.1)
    assert limit.limit == 20
    for second in range(100, 102):
        limit.saw(float(second), successes=1000, in_flight=11, latency=0.1)
    assert 20 < limit.limit <= 22


def test_the_greatest_number_in_flight_counts() -> None:
    """One busy moment in a window is enough."""
    limit = aimd()
    limit.saw(0.5, successes=20, in_flight=20)
    limit.saw(1.0, successes=1, in_flight=1)
    assert limit.limit == pytest.approx(math.sqrt(442))


@settings(max_examples=60)
@given(parts=st.lists(st.integers(1, 400), min_size=1, max_size=8), initial=st.integers(1, 100))
def test_successes_may_be_reported_in_any_portions(parts: list[int], initial: int) -> None:
    """How a window's successes are divided over reports changes nothing."""
    whole, divided = aimd(initial, highest=10_000), aimd(initial, highest=10_000)
    whole.saw(0.5, successes=sum(parts) + 10, in_flight=5_000)
    whole.saw(1.0)
    for part in parts:
        divided.saw(0.5, successes=part, in_flight=5_000)
    divided.saw(1.0, successes=10)
    assert divided.limit == whole.limit
    # As if each success had added 1 / L, one by one:
    step = float(initial)
    for _ in range(sum(parts) + 10):
        step += 1 / step
    assert whole.limit == pytest.approx(step, rel=0.02, abs=0.6)


@settings(max_examples=60)
@given(
    reports=st.lists(
        st.tuples(st.integers(0, 500), st.integers(0, 50), st.integers(0, 300), st.floats(0, 10)), max_size=30
    ),
    kind=st.sampled_from(["aimd", "vegas"]),
    bounds=st.tuples(st.integers(1, 20), st.integers(20, 40)),
)
def test_a_limit_stays_between_its_bounds(
    reports: list[tuple[int, int, int, float]], kind: str, bounds: tuple[int, int]
) -> None:
    """Whatever is reported, at least *lowest* and at most *highest* may run."""
    limit = aimd(20, *bounds) if kind == "aimd" else vegas(20, *bounds)
    for second, (successes, drops, in_flight, latency) in enumerate(reports):
        limit.saw(float(second), successes=successes, drops=drops, in_flight=in_flight, latency=latency)
        assert bounds[0] <= limit.allowed <= bounds[1]
        assert bounds[0] <= limit.limit <= bounds[1]


# -- Vegas -------------------------------------------------------------------------------------------------------------


def test_vegas_finds_the_capacity_and_stays_there() -> None:
    """A server with room for 50 gets 50 and a short queue, after 50 rounds, after 500, and after 3,000 with probes."""
    limit = vegas()
    seen: list[int] = []
    for at, rounds in ((0, 50), (50, 450), (500, 2500)):
        served(limit, rounds, start=at)
        seen.append(int(limit.limit))
    assert all(50 <= one <= 57 for one in seen), seen


def test_vegas_makes_room_to_measure_without_a_queue() -> None:
    """A probe halves what may run for two rounds; the latency of the second is the new standard."""
    limit = vegas()
    served(limit, 100)
    halved: list[int] = []
    for window in range(100, 100 + 60 * CAPACITY):
        served(limit, 1, start=window)
        if limit.allowed < limit.limit - 1:
            halved.append(window)
    assert len(halved) % 2 == 0
    assert 2 <= len(halved) <= 8
    assert limit.fastest == pytest.approx(0.1)


def test_a_probe_does_not_measure_the_queue_that_it_drains() -> None:
    """The first round of a probe still holds calls that began before it; only the second one counts."""
    limit = vegas()
    second = 0.0
    while limit.allowed == int(limit.limit):
        second += 1
        limit.saw(second, successes=10, in_flight=5, latency=0.2)
    assert limit.allowed == 10
    limit.saw(second + 1, successes=10, in_flight=10, latency=0.4)
    assert limit.allowed == 10
    limit.saw(second + 2, successes=10, in_flight=10, latency=0.3)
    assert (limit.allowed, limit.fastest) == (20, 0.3)


def test_vegas_accepts_a_provider_that_has_become_slower() -> None:
    """After a probe a latency that is slower for good is no queue any more."""
    limit = vegas()
    served(limit, 100)
    for window in range(100, 4000):
        busy = limit.allowed
        limit.saw(window + 1.0, successes=50, in_flight=busy, latency=0.3 * max(1.0, busy / CAPACITY))
    assert 50 <= limit.limit <= 57
    assert limit.fastest == pytest.approx(0.3)


def test_vegas_steps_by_the_size_of_the_limit() -> None:
    """Steps are the whole digits of the limit: 2 at 100 and above, six times that while there is no queue."""
    limit = vegas(100)
    assert limit.saw(1.0, successes=10, in_flight=100, latency=0.1) == "room"
    assert limit.limit == 112
    assert limit.saw(2.0, drops=10, in_flight=100) == "drops"
    assert limit.limit == 110
    assert limit.saw(3.0, successes=10, in_flight=100, latency=0.103) == "room"  # a queue of 4
    assert limit.limit == 112
    assert limit.saw(4.0, successes=10, in_flight=100, latency=0.108) == "room"  # of 9: as it should be
    assert limit.limit == 112
    assert limit.saw(5.0, successes=10, in_flight=100, latency=0.2) == "queueing"
    assert limit.limit == 110


def test_vegas_does_not_fall_for_what_a_few_calls_meet() -> None:
    """A latency that rises while hardly anything runs is not our doing."""
    limit = vegas()
    limit.saw(1.0, successes=10, in_flight=5, latency=0.1)
    assert limit.saw(2.0, successes=10, in_flight=5, latency=0.5) == ""
    assert limit.limit == 20


def test_vegas_needs_latencies() -> None:
    """Successes of unknown length leave the limit where it is."""
    limit = vegas()
    assert limit.saw(1.0, successes=100, in_flight=20) == ""
    assert limit.limit == 20


def test_vegas_takes_the_mean_of_what_was_timed() -> None:
    """A window's latency is the mean over the successes that had one."""
    limit = vegas()
    limit.saw(0.1, successes=10, in_flight=1, latency=0.1)
    limit.saw(0.2, successes=30, in_flight=1, latency=0.3)
    limit.saw(1.0, successes=60, in_flight=1)
    assert limit.fastest == pytest.approx(0.25)


def test_an_llms_latency_is_not_load() -> None:
    """What latencies that do not depend on load do to Vegas, and why it is to be given the time to the first item."""
    rng = random.Random(3)
    limit, other = vegas(100), aimd(100)
    for second in range(1, 400):
        mean = sum(rng.lognormvariate(0, 0.8) for _ in range(10)) / 10
        for one in (limit, other):
            one.saw(float(second), successes=10, in_flight=one.allowed, latency=mean)
    assert limit.limit < 20
    assert other.limit > 100


@pytest.mark.parametrize("figures", [(0, 1, 10), (11, 1, 10), (5, 0, 10), (5, 6, 10)])
def test_nonsense_is_refused(figures: tuple[int, int, int]) -> None:
    """A limit starts between its bounds, and one attempt may always run."""
    with pytest.raises(ValueError, match="expected"):
        aimd(*figures)
    with pytest.raises(ValueError, match="expected"):
        vegas(*figures)


@pytest.mark.parametrize("make", [aimd, vegas])
def test_other_bounds_hold_from_now_on(make: Callable[[], Limit]) -> None:
    """The limit goes to the nearest bound at once, and whatever happens it stays between them."""
    limit = make()
    limit.adopt(10, 15)
    assert limit.limit == 15
    for second in range(1, 40):
        limit.saw(float(second), successes=100, in_flight=100, latency=0.1)
        assert 10 <= limit.limit <= 15
    for second in range(40, 80):
        limit.saw(float(second), drops=100, in_flight=100)
        assert 10 <= limit.limit <= 15
    limit.adopt(30, 40)
    assert limit.limit == 30
    with pytest.raises(ValueError, match="lowest <= it <= highest"):
        limit.adopt(5, 4)


@pytest.mark.parametrize(
    "queue, in_flight, moves, why",
    [
        (0, 20, 6, "room"),
        (1, 20, 6, "room"),
        (2, 20, 1, "room"),
        (3, 20, 0, "room"),
        (6, 20, 0, "room"),
        (7, 20, -1, "queueing"),
        (0, 9, 0, ""),
        (7, 9, 0, ""),
        (0, 10, 0, "room"),
        (2, 10, 0, "room"),
        (0, 11, 2, "room"),
        (2, 11, 1, "room"),
    ],
)
def test_vegas_moves_by_the_table(queue: int, in_flight: int, moves: int, why: str) -> None:
    """At a limit of 20: what a queue of so many means while so many are in flight."""
    limit = vegas()
    limit.fastest = 0.1
    rtt = 0.1 / (1 - (queue - 0.5) / 20) if queue else 0.1
    assert limit.saw(1.0, successes=10, in_flight=in_flight, latency=rtt) == why
    assert limit.limit == 20 + moves


def test_vegas_survives_a_latency_of_nothing() -> None:
    """A clock too coarse to see a call means that there is no queue."""
    limit = vegas()
    assert limit.saw(1.0, successes=10, in_flight=20, latency=0.0) == "room"
    assert limit.limit == 26


class Fixed(random.Random):
    """It always draws the same."""

    value = 0.0

    def random(self) -> float:
        return self.value


@pytest.mark.parametrize("draw, windows", [(0.0, 15), (math.nextafter(1, 0), 30)])
def test_vegas_probes_when_it_was_drawn(draw: float, windows: int) -> None:
    """After 15 to 30 windows for each attempt that the limit allows it probes, for two windows."""
    rng = Fixed()
    rng.value = draw
    limit = VegasLimit(1, 1, 1, 0.0, rng)
    told = [limit.saw(second, successes=10, in_flight=1, latency=0.1) for second in range(1, windows + 4)]
    assert told == ["room"] * (windows - 1) + ["probe"] * 3 + ["room"]


def test_aimd_says_why() -> None:
    """A full window without drops means room, and one with drops means drops."""
    limit = aimd()
    assert limit.saw(1.0, successes=10, in_flight=20) == "room"
    assert limit.saw(2.0, successes=10, drops=1) == "drops"
