"""
Every order in which three callers can acquire, succeed, fail, be cancelled, hang and let time pass.

All paths to depth eight are taken twice: once with states told apart by everything there is to see, and once with
states taken for one when they must behave alike, which ends only when no step leads to a new one: then paths of any
length are covered. What must hold is checked after each step, and from each state the circuit must be able to close.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from random import Random
from typing import Protocol

import pytest

from resilience import (
    BreakerSettings,
    ProviderRegistry,
    ProviderSettings,
    Settings,
)
from resilience._core.circuit import Circuit
from resilience._core.states import CircuitRules, CircuitState, Permit, Refusal
from resilience._core.words import Reason, Verdict

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN

DEPTH = 8
CALLERS = 3
STEP = 5.0  # seconds: half an open time and half a lease, so that their ends are met exactly

IN_A_ROW = CircuitRules(
    failure_threshold=2,
    success_threshold=2,
    half_open_max_calls=1,
    open_for=2 * STEP,
    probe_lease=2 * STEP,
    failure_rate=None,
    slow_rate=None,
    jitter=0.0,
)
TWO_PROBES = CircuitRules(
    failure_threshold=2,
    success_threshold=2,
    half_open_max_calls=2,
    open_for=2 * STEP,
    probe_lease=STEP,
    failure_rate=None,
    slow_rate=None,
    jitter=0.0,
)
HALF_OF_THREE = CircuitRules(
    failure_threshold=None,
    success_threshold=1,
    half_open_max_calls=1,
    open_for=STEP,
    probe_lease=2 * STEP,
    failure_rate=0.5,
    slow_rate=None,
    minimum_calls=3,
    window_calls=3,
    jitter=0.0,
)

RESULTS = {"succeed": Verdict.SUCCESS, "fail": Verdict.FAILURE, "cancel": Verdict.IGNORED}


# -- what is explored --------------------------------------------------------------------------------------------------


class Door(Protocol):
    """What callers knock at."""

    circuit: Circuit

    def acquire(self, caller: str, now: float) -> Permit | Refusal: ...

    def release(self, caller: str, permit: Permit, verdict: Verdict, now: float) -> None: ...

    def check(self, holders: dict[str, Permit]) -> None:
        """Assert what must hold beside the circuit."""


class Bare:
    """The circuit alone."""

    def __init__(self, rules: CircuitRules) -> None:
        self.circuit = Circuit(rules, 0.0)
        self._rng = Random(0)

    def acquire(self, caller: str, now: float) -> Permit | Refusal:
        return self.circuit.acquire(now)

    def release(self, caller: str, permit: Permit, verdict: Verdict, now: float) -> None:
        self.circuit.release(permit, verdict, now, self._rng)

    def check(self, holders: dict[str, Permit]) -> None:
        pass


class Composed:
    """The circuit inside a provider's runtime, with a lane that keeps a copy of its door."""

    def __init__(self, rules: CircuitRules) -> None:
        breaker = BreakerSettings(
            failure_threshold=rules.failure_threshold,
            success_threshold=rules.success_threshold,
            half_open_max_calls=rules.half_open_max_calls,
            timeout=rules.open_for,
            probe_lease=rules.probe_lease,
            failure_rate=rules.failure_rate,
            slow_rate=rules.slow_rate,
            minimum_calls=rules.minimum_calls,
            window_calls=rules.window_calls,
            jitter=0,
        )
        registry = ProviderRegistry(Settings(defaults=ProviderSettings(breaker=breaker)), clock=lambda: 0.0)
        self.runtime = registry.runtime("s3")
        self.circuit = self.runtime.breaker.circuit
        self.lane = self.runtime.lane_for(self.runtime.plan, None)
        assert self.circuit.rules == CircuitRules(**{**_fields(rules), "slow_after": 15.0})
        self.told: list[tuple[CircuitState, CircuitState]] = []

    def acquire(self, caller: str, now: float) -> Permit | Refusal:
        return self.runtime.acquire(caller, now)

    def release(self, caller: str, permit: Permit, verdict: Verdict, now: float) -> None:
        self.runtime.settle(permit, verdict, now, slow=False, task=caller)

    def check(self, holders: dict[str, Permit]) -> None:
        circuit = self.circuit
        assert self.lane.door is circuit.door
        assert self.runtime.refused_until == (circuit.until if circuit.state is OPEN else -inf)
        assert set(self.runtime.probing) == {caller for caller, permit in holders.items() if permit.probe}


def _fields(rules: CircuitRules) -> dict[str, object]:
    return {name: getattr(rules, name) for name in CircuitRules.__dataclass_fields__}


# -- the world ---------------------------------------------------------------------------------------------------------


class World:
    """Three callers, the permits of callers that hang for ever, and the time."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.now = 0.0
        self.held: list[Permit | None] = [None] * CALLERS
        self.names = [f"caller {number}" for number in range(CALLERS)]
        self.hung: dict[str, Permit] = {}

    def actions(self) -> Iterator[tuple[str, int]]:
        yield "wait", 0
        for caller, permit in enumerate(self.held):
            if permit is None:
                yield "acquire", caller
            else:
                for result in (*RESULTS, "hang"):
                    yield result, caller

    def do(self, action: str, caller: int) -> None:
        before = self.glance()
        if action == "wait":
            self.now += STEP
        elif action == "acquire":
            self.acquire(caller, before)
        else:
            self.end(action, caller, before)
        self.check(before)

    def acquire(self, caller: int, before: Glance) -> None:
        circuit = self.door.circuit
        expected = circuit.refusal(self.now)
        answer = self.door.acquire(self.names[caller], self.now)
        assert isinstance(answer, Refusal) == (expected is not None), "a look tells what an acquire will answer"
        if isinstance(answer, Permit):
            self.held[caller] = answer
            assert answer.period is circuit.period
        else:
            assert self.glance().state is before.state
            assert answer.reason is (Reason.CIRCUIT_OPEN if before.state is OPEN else Reason.HALF_OPEN_SATURATED)
            assert answer.retry_after is not None
            assert answer.retry_after > 0

    def end(self, action: str, caller: int, before: Glance) -> None:
        permit = self.held[caller]
        assert permit is not None
        self.held[caller] = None
        if action == "hang":
            self.hung[self.names[caller]] = permit
            self.names[caller] = f"heir of {self.names[caller]}"
            return
        had_a_vote = permit.period is self.door.circuit.period
        verdict = RESULTS[action]
        self.door.release(self.names[caller], permit, verdict, self.now)
        after = self.glance()
        for again in Verdict:
            self.door.release(self.names[caller], permit, again, self.now)
        assert self.glance() == after, "a second release does nothing"
        if not had_a_vote or verdict is Verdict.IGNORED:
            assert (after.generation, after.row, after.good) == (before.generation, before.row, before.good)
            assert after.probes <= before.probes
        elif before.state is HALF_OPEN:
            assert after.state is (OPEN if verdict is Verdict.FAILURE else after.state)
            assert verdict is Verdict.FAILURE or after.state in (HALF_OPEN, CLOSED)
        else:
            assert after.state is CLOSED or verdict is Verdict.FAILURE

    def glance(self) -> Glance:
        circuit = self.door.circuit
        return Glance(
            circuit.state,
            circuit.period.number,
            circuit.failures_in_a_row,
            circuit._probe_successes,
            circuit.probes,
            circuit.successes + circuit.failures,
        )

    def check(self, before: Glance) -> None:
        """What must hold after each step."""
        circuit = self.door.circuit
        now = self.glance()
        assert now.generation >= before.generation
        assert (now.generation > before.generation) == (now.state is not before.state)
        assert (circuit.door is circuit.period) == (now.state is CLOSED)
        assert now.state in (CLOSED, OPEN, HALF_OPEN)
        live = [permit for permit in self.permits().values() if permit.probe and permit.period is circuit.period]
        held = [permit for permit in live if circuit._leases.get(permit, -1.0) > self.now]
        assert len(held) <= circuit.rules.half_open_max_calls
        assert set(circuit._leases) <= set(live)
        self.door.check(self.permits())

    def permits(self) -> dict[str, Permit]:
        held = {name: permit for name, permit in zip(self.names, self.held, strict=True) if permit is not None}
        return held | self.hung

    def key(self) -> object:
        """Everything that decides what can happen from here on; times are relative, callers interchangeable."""
        circuit = self.door.circuit
        window = circuit._recent._ring
        ring: list[int] = []
        if window is not None and circuit.state is CLOSED:
            ring = [window._ring[(window._next - back) % len(window._ring)] for back in range(1, window.calls + 1)]
        counts_rows = circuit.rules.failure_threshold is not None and circuit.state is CLOSED
        return (
            circuit.state,
            max(0.0, circuit.until - self.now) if circuit.state is OPEN else None,
            circuit.failures_in_a_row if counts_rows else None,
            circuit._probe_successes,
            tuple(ring),
            tuple(sorted(self.standing(permit) for permit in self.held)),
            # A hung permit can only ever matter by its lease.
            tuple(sorted(place for permit in self.hung.values() if (place := self.standing(permit))[0] == "probe")),
        )

    def fingerprint(self) -> object:
        """Everything there is to see, at absolute times; callers are interchangeable."""
        circuit = self.door.circuit
        return (
            self.now,
            self.glance(),
            circuit.until,
            circuit.stale,
            circuit.ignored,
            circuit.counts(self.now),
            tuple(sorted(self.standing(permit) for permit in self.held)),
            tuple(sorted(self.standing(permit) for permit in self.hung.values())),
        )

    def standing(self, permit: Permit | None) -> tuple[str, float]:
        circuit = self.door.circuit
        if permit is None:
            return "idle", 0.0
        if permit.period is not circuit.period:
            return "stale", 0.0
        if permit in circuit._leases:
            return "probe", max(0.0, circuit._leases[permit] - self.now)
        return "lost" if permit.probe else "call", 0.0

    def recovers(self) -> bool:
        """Whether waiting long enough and succeeding closes the circuit, whatever hangs."""
        rules = self.door.circuit.rules
        self.now += rules.open_for + rules.probe_lease
        for number in range(rules.success_threshold):
            if self.door.circuit.state is CLOSED:
                break
            name = f"rescuer {number}"
            permit = self.door.acquire(name, self.now)
            if not isinstance(permit, Permit):
                return False
            self.door.release(name, permit, Verdict.SUCCESS, self.now)
        return self.door.circuit.state is CLOSED


@dataclass(frozen=True)
class Glance:
    """The circuit at one moment."""

    state: CircuitState
    generation: int
    row: int
    good: int
    probes: int
    counted: int


# -- the exploration ---------------------------------------------------------------------------------------------------


@dataclass
class Explored:
    """How much was seen."""

    states: set[object]
    paths: int
    reached: set[CircuitState]


def explore(make: Callable[[], Door], key: Callable[[World], object], depth: float) -> Explored:
    """Visit every state that at most *depth* steps lead to, each by its shortest path."""

    def at(path: tuple[tuple[str, int], ...]) -> World:
        world = World(make())
        for step in path:
            world.do(*step)
        return world

    start = key(at(()))
    known: dict[object, tuple[tuple[str, int], ...]] = {start: ()}
    leads_to: dict[object, list[object]] = {}
    reached = {CLOSED}
    frontier = [start]
    while frontier and len(known[frontier[0]]) < depth:
        found = []
        for state in frontier:
            leads_to[state] = []
            for action in at(known[state]).actions():
                path = (*known[state], action)
                world = at(path)
                after = key(world)
                leads_to[state].append(after)
                if after not in known:
                    known[after] = path
                    reached.add(world.door.circuit.state)
                    found.append(after)
                    assert world.recovers(), f"wedged after {path}"
        frontier = found
    return Explored(set(known), count_paths(start, leads_to), reached)


def count_paths(start: object, leads_to: dict[object, list[object]]) -> int:
    """Return how many sequences of `DEPTH` steps there are."""
    paths = {start: 1}
    for _ in range(DEPTH):
        onwards: dict[object, int] = {}
        for state, count in paths.items():
            for after in leads_to[state]:
                onwards[after] = onwards.get(after, 0) + count
        paths = onwards
    return sum(paths.values())


@pytest.mark.parametrize("rules", [IN_A_ROW, TWO_PROBES, HALF_OF_THREE], ids=["in a row", "two probes", "half of 3"])
@pytest.mark.parametrize("door", [Bare, Composed])
@pytest.mark.parametrize("key, depth, states", [(World.fingerprint, DEPTH, 400), (World.key, inf, 100)])
def test_no_order_of_events_breaks_the_circuit(
    door: Callable[[CircuitRules], Door],
    rules: CircuitRules,
    key: Callable[[World], object],
    depth: float,
    states: int,
) -> None:
    """Probes stay bounded, stale results have no vote, and every state finds its way back to closed."""
    explored = explore(lambda: door(rules), key, depth)
    assert explored.reached == {CLOSED, OPEN, HALF_OPEN}
    assert len(explored.states) >= states
    assert explored.paths > 2_000_000
