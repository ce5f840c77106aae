"""The line agrees with a plain list of waiters that is searched from end to end."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resilience._core.queue import Joined, Line, Spot
from resilience._core.words import Priority, Reason

CRITICAL, DEFAULT, SHEDDABLE = Priority.CRITICAL, Priority.DEFAULT, Priority.SHEDDABLE
HIGHEST_FIRST = [CRITICAL, DEFAULT, SHEDDABLE]
priorities = st.sampled_from(HIGHEST_FIRST)


class LineMachine(RuleBasedStateMachine):
    """The model knows one list of spots in the order in which they joined, and since when it has not been empty."""

    def __init__(self) -> None:
        super().__init__()
        self.line: Line[int] = Line(4)
        self.size = 4
        self.lifo = False
        self.now = 0.0
        self.model: list[Spot[int]] = []
        self.gone: list[Spot[int]] = []
        self.busy_since = 0.0
        self.number = 0

    @initialize(size=st.integers(0, 9), lifo=st.booleans())
    def choose(self, size: int, lifo: bool) -> None:
        self.line = Line(size, lifo_when_overloaded=lifo)
        self.size, self.lifo = size, lifo

    @rule(size=st.integers(0, 9), lifo=st.booleans())
    def adopt(self, size: int, lifo: bool) -> None:
        """Nobody is sent away for it."""
        self.line.adopt(size, lifo_when_overloaded=lifo)
        self.size, self.lifo = size, lifo

    def overloaded(self) -> bool:
        return bool(self.model) and self.now - self.busy_since >= 0.1

    def take_out(self, spot: Spot[int]) -> None:
        self.model.remove(spot)
        self.gone.append(spot)

    @rule(hundredths=st.integers(1, 8))
    def pass_time(self, hundredths: int) -> None:
        self.now += hundredths / 64

    @rule(priority=priorities)
    def join(self, priority: Priority) -> None:
        self.number += 1
        refused = self.line.refuses(priority)
        answer = self.line.join(self.number, priority, self.now)
        lower = [spot for spot in self.model if HIGHEST_FIRST.index(spot.priority) > HIGHEST_FIRST.index(priority)]
        displaced = None
        if self.size == 0:
            expected = Reason.BULKHEAD_FULL
        elif priority is SHEDDABLE and len(self.model) * 2 >= self.size:
            expected = Reason.SHED
        elif len(self.model) < self.size:
            expected = None
        elif lower:
            expected = None
            lowest = max(HIGHEST_FIRST.index(spot.priority) for spot in lower)
            displaced = [spot for spot in lower if HIGHEST_FIRST.index(spot.priority) == lowest][-1]
        else:
            expected = Reason.BULKHEAD_FULL
        assert refused is expected
        if expected is not None:
            assert answer is expected
            return
        assert isinstance(answer, Joined)
        assert answer.displaced is displaced
        if not self.model:
            self.busy_since = self.now
        if displaced is not None:
            self.take_out(displaced)
        assert (answer.spot.waiter, answer.spot.priority, answer.spot.joined) == (self.number, priority, self.now)
        self.model.append(answer.spot)

    @rule()
    def pop(self) -> None:
        expected = None
        for priority in HIGHEST_FIRST:
            row = [spot for spot in self.model if spot.priority is priority]
            if row:
                expected = row[-1 if self.lifo and self.overloaded() else 0]
                break
        assert self.line.pop(self.now) is expected
        if expected is not None:
            self.take_out(expected)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        spot = data.draw(st.sampled_from(self.model))
        assert self.line.leave(spot)
        self.take_out(spot)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def leave_twice(self, data: st.DataObject) -> None:
        assert not self.line.leave(data.draw(st.sampled_from(self.gone)))

    @rule(hundredths=st.integers(0, 20))
    def drop_the_expired(self, hundredths: int) -> None:
        before = self.now - hundredths / 64
        while (spot := self.line.pop_expired(before)) is not None:
            assert spot.joined <= before
            self.take_out(spot)
        assert all(spot.joined > before for spot in self.model)

    @invariant()
    def they_agree(self) -> None:
        assert len(self.line) == len(self.model)
        assert self.line.overloaded(self.now) is self.overloaded()
        assert self.line.spots() == sorted(self.model, key=lambda spot: HIGHEST_FIRST.index(spot.priority))
        for rank, priority in enumerate(HIGHEST_FIRST):
            assert self.line.waiting(priority) == sum(spot.priority is priority for spot in self.model)
            ahead = [spot for spot in self.model if HIGHEST_FIRST.index(spot.priority) <= rank]
            assert self.line.blocks(priority) is bool(ahead)


LineMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40)
TestLine = LineMachine.TestCase


def joined(line: Line[str], waiter: str, priority: Priority = DEFAULT, now: float = 0.0) -> Spot[str]:
    answer = line.join(waiter, priority, now)
    assert isinstance(answer, Joined)
    return answer.spot


def test_the_first_to_come_is_the_first_to_go() -> None:
    """Among equals the oldest is served, and the critical before all others."""
    line: Line[str] = Line(9)
    for waiter, priority in (("a", DEFAULT), ("b", SHEDDABLE), ("c", DEFAULT), ("d", CRITICAL)):
        joined(line, waiter, priority)
    served = [spot.waiter for _ in range(5) if (spot := line.pop(9.0)) is not None]
    assert served == ["d", "a", "c", "b"]


def test_the_newest_goes_first_while_the_line_does_not_empty() -> None:
    """An adaptive line serves in order until it has been busy for an interval, and again after it was empty."""
    line: Line[str] = Line(9, lifo_when_overloaded=True)
    for waiter in "abcd":
        joined(line, waiter, now=1.0)
    order = [spot.waiter for now in (1.05, 1.1, 1.2, 1.3) if (spot := line.pop(now)) is not None]
    assert order == ["a", "d", "c", "b"]
    for waiter in "ef":
        joined(line, waiter, now=1.4)
    spot = line.pop(1.45)
    assert spot is not None
    assert spot.waiter == "e"


def test_who_matters_more_takes_the_place_of_the_newest_who_matters_least() -> None:
    """In a full line a critical waiter displaces a sheddable one, even if default ones wait too."""
    line: Line[str] = Line(4)
    joined(line, "old", SHEDDABLE)
    joined(line, "new", SHEDDABLE)
    joined(line, "a")
    joined(line, "b")
    for priority, waiter, expected in ((CRITICAL, "c", "new"), (DEFAULT, "d", "old"), (CRITICAL, "e", "d")):
        answer = line.join(waiter, priority, 0.0)
        assert isinstance(answer, Joined)
        assert answer.displaced is not None
        assert answer.displaced.waiter == expected
    assert line.join("f", DEFAULT, 0.0) is Reason.BULKHEAD_FULL


def test_a_displaced_waiter_does_not_make_the_line_empty() -> None:
    """A line of one that goes from hand to hand is as overloaded as any."""
    line: Line[str] = Line(1)
    joined(line, "a", SHEDDABLE, now=1.0)
    joined(line, "b", CRITICAL, now=1.2)
    assert line.overloaded(1.2)


def test_waiters_that_left_are_forgotten() -> None:
    """Whoever leaves a line is not kept alive by it, whichever way it left."""

    class Waiter:
        pass

    line: Line[Waiter] = Line(6)
    refs: list[weakref.ref[Waiter]] = []
    for way in range(6):
        waiter = Waiter()
        refs.append(weakref.ref(waiter))
        answer = line.join(waiter, DEFAULT if way else SHEDDABLE, 0.0)
        assert isinstance(answer, Joined)
        if way % 2:
            line.leave(answer.spot)
    line.join(Waiter(), CRITICAL, 0.0)
    while line.pop(0.0) is not None:
        pass
    del waiter, answer
    gc.collect()
    assert [ref() for ref in refs] == [None] * 6
    assert len(line) == 0


@pytest.mark.parametrize("size, interval", [(-1, 0.1), (1, 0.0), (1, float("nan"))])
def test_nonsense_is_refused(size: int, interval: float) -> None:
    """A line has room for 0 or more, and an interval has a length."""
    with pytest.raises(ValueError, match="expected"):
        Line(size, interval=interval)


def test_a_word_that_is_no_priority_is_named() -> None:
    """Whoever mistypes one is told which there are."""
    with pytest.raises(ValueError, match="priority 'urgent': expected one of critical, default, sheddable"):
        Line(1).refuses("urgent")  # type: ignore[arg-type]


def test_borders_belong_to_what_begins_there() -> None:
    """Half of a line is too full for the sheddable; a whole interval is overload; a wait that is just over is over."""
    line: Line[str] = Line(4, interval=0.5)
    joined(line, "a", now=1.0)
    assert line.refuses(SHEDDABLE) is None
    joined(line, "b", now=1.25)
    assert line.refuses(SHEDDABLE) is Reason.SHED
    assert not line.overloaded(1.25)
    assert line.overloaded(1.5)
    expired = line.pop_expired(1.0)
    assert expired is not None
    assert expired.waiter == "a"
    assert line.pop_expired(1.0) is None
    assert len(line) == 1
