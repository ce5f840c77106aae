"""The gate agrees with a list of everything the provider said; waiters leave late and spread out."""

from __future__ import annotations

from math import inf, nan
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from resilience._core.gate import Gate

_BASE, _CAP = 1.0, 120.0


class GateMachine(RuleBasedStateMachine):
    """The model keeps every pause asked for, and the moments at which an open gate closed since the last success."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate(_BASE, _CAP)
        self.base, self.cap, self.longest = _BASE, _CAP, _CAP
        self.rng = Random(1)
        self.now = 0.0
        self.successes = 0
        self.ends: list[float] = []
        self.closings: list[float] = []

    @initialize(start=st.sampled_from([0.0, 12_345.678, 1e8]))
    def begin(self, start: float) -> None:
        self.now = start

    @rule(base=st.sampled_from([_BASE, 0.0, 7.0]), cap=st.sampled_from([_CAP, 0.0, 5.0, 1e4]))
    def adopt(self, base: float, cap: float) -> None:
        """A pause that runs ends when it was going to."""
        self.gate.adopt(base, cap)
        self.base, self.cap, self.longest = base, cap, max(self.longest, cap)

    def closes(self) -> float:
        return max(self.ends, default=-inf)

    def close(self, hint: float | None, pause: float) -> None:
        self.ends.append(self.now + pause)
        left = self.gate.close(self.now, hint, self.successes)
        assert left == max(0.0, self.closes() - self.now)

    def note_closing(self) -> bool:
        """Return whether the gate was open."""
        was_open = self.now >= self.closes()
        if was_open:
            self.closings.append(self.now)
        return was_open

    @rule(seconds=st.floats(0, 3))
    def pass_some_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def go_to_the_opening(self) -> None:
        self.now = max(self.now, self.closes())

    @rule(hint=st.one_of(st.floats(1e-3, 10), st.floats(1e-3, 1e6), st.just(inf)))
    def close_with_a_hint(self, hint: float) -> None:
        self.note_closing()
        self.close(hint, min(hint, self.cap))

    @rule(hint=st.sampled_from([None, nan, -1.0, -inf, 0.0]), times=st.integers(1, 5))
    def close_without_a_hint(self, hint: float | None, times: int) -> None:
        """Several at once are a burst: one signal."""
        for _ in range(times):
            self.note_closing()
            before_this = max(0, len(self.closings) - 1)
            self.close(hint, min(self.base * 2.0**before_this, self.cap))

    @rule(times=st.integers(1, 3))
    def succeed(self, times: int) -> None:
        self.successes += times
        self.closings.clear()

    @rule()
    def reset(self) -> None:
        self.gate.reset()
        self.ends.clear()
        self.closings.clear()

    @rule()
    def wait(self) -> None:
        wait = self.gate.wait(self.now, self.rng)
        if self.now >= self.closes():
            assert wait == 0
        else:
            assert self.now + wait >= self.closes()
            assert wait <= self.gate.remaining(self.now) + 1

    @invariant()
    def agrees_with_brute_force(self) -> None:
        assert self.gate.until == self.closes()
        assert self.gate.remaining(self.now) == max(0.0, self.closes() - self.now)

    @invariant()
    def never_closed_for_longer_than_the_cap(self) -> None:
        assert self.gate.remaining(self.now) <= self.longest + 1e-6


TestGate = GateMachine.TestCase
TestGate.settings = settings(deadline=None, max_examples=200, stateful_step_count=40)


def test_a_new_gate_is_open() -> None:
    """Nobody waits before the provider has said anything."""
    gate = Gate()
    assert gate.remaining(0.0) == 0
    assert gate.wait(-1e9, Random(1)) == 0


def test_the_longer_of_two_hints_counts() -> None:
    """A shorter hint never opens the gate early; a longer one keeps it closed."""
    gate = Gate()
    assert gate.close(0, 10, 0) == 10
    assert gate.close(4, 2, 0) == 6
    assert gate.close(4, 20, 0) == 20
    assert gate.remaining(23.5) == 0.5
    assert gate.remaining(24) == 0


@pytest.mark.parametrize("hint", [1e9, inf])
def test_a_hostile_hint_is_capped(hint: float) -> None:
    """A provider that says "come back next month" is asked again after the cap."""
    gate = Gate(hint_cap=30)
    assert gate.close(5, hint, 0) == 30
    assert gate.remaining(35) == 0


@pytest.mark.parametrize("hint", [None, nan, -5.0, -inf, 0.0])
def test_no_usable_hint_gives_a_growing_pause(hint: float | None) -> None:
    """Without a hint each pause is twice the last, up to the cap."""
    gate = Gate(base_delay=1, hint_cap=10)
    now, pauses = 0.0, []
    for _ in range(6):
        pauses.append(gate.close(now, hint, 0))
        now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 10, 10]


def test_the_pause_never_overflows() -> None:
    """A provider that throttles ten thousand times in a row still closes the gate for the cap."""
    gate = Gate(base_delay=1e-3, hint_cap=120)
    now = 0.0
    for _ in range(10_000):
        now += gate.close(now, None, 0)
    assert gate.close(now, None, 0) == 120


def test_a_success_starts_the_growth_anew() -> None:
    """After a success the next pause is the first one again."""
    gate = Gate(base_delay=1)
    assert gate.close(0, None, 7) == 1
    assert gate.close(10, None, 7) == 2
    assert gate.close(20, None, 8) == 1
    assert gate.close(30, None, 8) == 2


def test_pauses_with_a_hint_make_the_next_one_without_grow() -> None:
    """Being throttled again after a pause that the provider chose itself is also being throttled again."""
    gate = Gate(base_delay=1)
    assert gate.close(0, 5, 0) == 5
    assert gate.close(10, None, 0) == 2


def test_a_burst_is_one_signal() -> None:
    """Twenty calls throttled at once close the gate once; the next pause is twice as long, not a million times."""
    gate = Gate(base_delay=1)
    assert [gate.close(0, None, 0) for _ in range(20)] == [1] * 20
    assert gate.close(5, None, 0) == 2


def test_a_burst_after_growth_keeps_the_grown_pause() -> None:
    """Late answers of one burst prolong the pause at its own length."""
    gate = Gate(base_delay=1)
    gate.close(0, None, 0)
    assert gate.close(5, None, 0) == 2
    assert gate.close(6, None, 0) == 2
    assert gate.until == 8


def test_waiters_leave_evenly_over_a_tenth_of_the_pause() -> None:
    """Waiters leave after the opening, spread over a tenth of the pause, however late they began to wait."""
    rng = Random(3)
    moments = []
    for _ in range(2_000):
        gate = Gate()
        gate.close(0, 8, 0)
        moments.append(7.5 + gate.wait(7.5, rng) - 8)
    moments.sort()
    assert 0 < moments[0] < 0.01
    assert 0.79 < moments[-1] <= 0.8
    assert max(abs((at + 0.5) / 2_000 - moment / 0.8) for at, moment in enumerate(moments)) < 1.95 / 2_000**0.5


@pytest.mark.parametrize("pause, most", [(0.1, 0.05), (2, 0.2), (120, 1.0)])
def test_the_spread_is_bounded(pause: float, most: float) -> None:
    """Few waiters spread over at least 0.05 s and never over more than a second."""
    rng = Random(4)
    late = []
    for _ in range(500):
        gate = Gate()
        gate.close(0, pause, 0)
        late.append(gate.wait(0, rng) - pause)
    assert 0.9 * most < max(late) <= most + 1e-6


def test_a_crowd_spreads_wider_than_a_few() -> None:
    """A thousand waiters of a short pause do not leave within a twentieth of a second."""
    gate, rng = Gate(), Random(5)
    gate.close(0, 0.2, 0)
    late = [gate.wait(0, rng) - 0.2 for _ in range(1_000)]
    assert max(late) <= 1
    assert max(sum(start <= moment < start + 0.05 for moment in late) for start in late) < 150


def test_the_crowd_is_forgotten_when_the_gate_closes_anew() -> None:
    """One waiter of the next pause is not spread as widely as the crowd before."""
    gate, rng = Gate(), Random(6)
    gate.close(0, 0.2, 0)
    for _ in range(1_000):
        gate.wait(0, rng)
    late = []
    for second in range(1, 200):
        gate.close(second, 0.2, second)
        late.append(gate.wait(second, rng) - 0.2)
    assert max(late) <= 0.05 + 1e-6


def test_even_the_smallest_draw_is_not_early() -> None:
    """A waiter that draws nothing still wakes after the opening, rounding included."""

    class Zero(Random):
        def random(self) -> float:
            return 0.0

    rng = Random(8)
    for _ in range(500):
        gate = Gate()
        now = rng.uniform(0, 1e7)
        gate.close(now, rng.uniform(0.01, 120), 0)
        later = now + rng.uniform(0, 0.01)
        assert later + gate.wait(later, Zero()) > gate.until


def test_reset_opens_and_forgets() -> None:
    """After a reset the gate is open and the next pause is the first."""
    gate = Gate(base_delay=1)
    gate.close(0, None, 0)
    gate.close(5, 60, 0)
    gate.reset()
    assert gate.remaining(5) == 0
    assert gate.close(6, None, 0) == 1


def test_a_clock_that_goes_backwards_does_no_harm() -> None:
    """The gate stays closed until its moment, and closing again never shortens it."""
    gate = Gate()
    gate.close(100, 10, 0)
    assert gate.remaining(95) == 15
    gate.close(90, 5, 0)
    assert gate.until == 110


@pytest.mark.parametrize("field", ["base_delay", "hint_cap"])
@pytest.mark.parametrize("value", [-1, nan, inf])
def test_nonsense_seconds_are_refused(field: str, value: float) -> None:
    """A number that cannot be meant is named, with its field, when the gate is built."""
    with pytest.raises(ValueError, match=rf"{field} {value!r}"):
        Gate(**{field: value})
