"""
What runs for one provider: its policies, composed, and its lanes.

A `ProviderRuntime` is made once from settings and shared by every handle of that name. It answers the questions a
call asks on its way (`rejection`, `admit`, `settle`), each synchronously and under one short lock, and it keeps the
lanes' copies of the circuit's door up to date, which is what lets a successful call take no lock at all.

The door of a lane is open (the present closed period) when nothing unusual holds: circuit closed, gate open, provider
enabled, runtime not retired. In every other case it is None, and a call looks closer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, final
from weakref import WeakSet

from resilience._core.states import CircuitState, Evidence, Permit, Refusal
from resilience._core.words import Reason, Verdict
from resilience.classify import Rule, classify
from resilience.common import Clock, Common, Tools
from resilience.doors import set_doors
from resilience.events import AttemptOverdue, EventBus, GateClosed
from resilience.failure import Failure, FailureKind
from resilience.guard import forget_closed_loops
from resilience.home import Home
from resilience.lane import Lane, get_ident
from resilience.lanes import Lanes
from resilience.life import Interrupt, Life
from resilience.limits import Limits, limited
from resilience.plan import USUAL, Edition, Options, Plan
from resilience.policies.circuit_breaker import CircuitBreaker
from resilience.policies.coalesce import Coalescer
from resilience.policies.hedge import Hedge
from resilience.policies.retry import RetryHandler
from resilience.settings import ProviderSettings, RetrySettings
from resilience.tally import NO_TALLY, Numbers, Tally
from resilience.watching import Watcher, observed

# Looking up a member of an enum costs as much as making the exception it goes into.
CIRCUIT_OPEN = Reason.CIRCUIT_OPEN

runtimes: WeakSet[ProviderRuntime] = WeakSet()
"""Those of every registry of this process."""


@final
class ProviderRuntime(Numbers):
    """
    The policies of one provider (or one endpoint of it), composed.

    Args:
        name: The provider's name, with ``/endpoint`` where there is one.
        settings: What holds for it.
        tools: Clocks, randomness and the bus above.
        common: What it shares with the other endpoints of its provider.
        above: The bus that hears of it. Default: the registry's.
    """

    __slots__ = (
        "__weakref__",
        "_rng",
        "breaker",
        "bus",
        "chaos",
        "clock",
        "coalescer",
        "common",
        "edition",
        "enabled",
        "handle",
        "hedges",
        "held",
        "lanes",
        "life",
        "limits",
        "name",
        "plan",
        "probing",
        "refused_because",
        "refused_until",
        "rival",
        "rules",
        "settings",
        "share",
        "successor",
        "swept",
        "tools",
        "waiting",
        "wall_clock",
    )

    breaker: CircuitBreaker
    bus: EventBus
    clock: Clock
    common: Common
    edition: Edition
    enabled: bool
    lanes: Lanes
    life: Life
    held: dict[int, Interrupt | None]  # the attempts that are held open, by identity, and how to interrupt them
    name: str
    plan: Plan
    refused_until: float
    settings: ProviderSettings
    succeeded: int
    swept: int
    tally: Tally
    tools: Tools
    wall_clock: Clock
    limits: Limits | None
    rival: ProviderRuntime | None  # the other arm, if there is an experiment
    share: float
    handle: Any  # the provider's handle, which stands above us; unset until somebody asks for one

    def __init__(
        self, name: str, settings: ProviderSettings, tools: Tools, common: Common, *, above: EventBus | None = None
    ) -> None:
        self.name = name
        self.settings = settings
        self.enabled = settings.enabled
        self.common = common
        self.clock = tools.clock
        self.wall_clock = tools.wall_clock
        self.life = tools.life
        self._rng = tools.rng
        self.tools = tools
        self.bus = EventBus(above if above is not None else tools.bus, rerouted=self._listeners_changed)
        self.rival = None
        self.share = 0.0
        self.rules: tuple[Rule, ...] = ()
        self.lanes = Lanes()
        self.probing: dict[object, None] = {}  # a set would weigh three times as much
        self.waiting: dict[object, None] = {}
        self.held = {}
        self.coalescer: Coalescer | None = None  # made when it is first needed
        self.hedges: dict[str, Hedge] = {}  # by operation, made when they are first needed
        self.limits = Limits(name, settings, tools, self.bus, self) if limited(settings) else None
        if self.limits is not None:
            self.limits.share(common.lock)
        self.chaos: tuple[Callable[[Any], Any], ...] = ()  # what tests put around every attempt
        self.successor: Callable[[], ProviderRuntime] | None = None
        self.swept = -1
        self.refused_until = -math.inf
        self.refused_because: Evidence | None = None
        self.zero()
        self.edition = Edition(settings, self)
        self.plan = self.plan_for(USUAL)
        self.breaker = CircuitBreaker(
            name,
            settings.breaker,
            attempt_timeout=self.plan.limit if self.plan.limit < math.inf else None,
            hint_cap=settings.gate.hint_cap,
            clock=tools.clock,
            wall_clock=tools.wall_clock,
            rng=tools.rng,
            bus=self.bus,
            absorb=self.absorb,
            refresh=self.refresh,
        )
        self.breaker.lock = common.lock
        common.members.append(self)
        runtimes.add(self)

    def plan_for(self, options: Options) -> Plan:
        """Return what a call under *options* is entitled to."""
        return self.edition.plan_for(options)

    def retry_handler(self, settings: RetrySettings, hint_cap: float) -> RetryHandler:
        """Return what decides about retries by *settings*, and obeys hints of up to *hint_cap* seconds."""
        return RetryHandler(
            settings,
            name=self.name,
            hint_cap=hint_cap,
            clock=self.clock,
            wall_clock=self.wall_clock,
            rng=self._rng,
            bus=self.bus,
        )

    # -- lanes -----------------------------------------------------------------------------------------------------

    def lane_for(self, plan: Plan, loop: Any) -> Lane:
        """
        Return the lane for calls under *plan* on *loop*, None for any that is not asyncio's; make it if need be.

        If the settings were read anew since *plan* was worked out, that is a lane for this call alone.
        """
        limit = self.plan.limit if plan.own_limit else plan.limit
        slow_after = self.plan.slow_after if plan.own_limit else plan.slow_after
        key = (loop if loop is not None else get_ident(), limit)
        lane = self.lanes.get(key)
        if lane is None or lane.edition is not plan.edition or self.lanes.may_forget:
            with self.common.lock:
                self.absorb()
                forget_closed_loops()
                self.lanes.forget_empty()
                make = partial(Lane, self, loop, self.clock, limit=limit, slow_after=slow_after)
                is_old = plan.edition is not self.edition
                lane = make() if is_old else self.lanes.add(key, make)
                lane.edition, lane.retired = plan.edition, is_old
                self.refresh()
        lane.thread = get_ident()  # loops can be handed from thread to thread
        if loop is None:
            lane.home = Home(None)
        return lane

    def resumed(self, lane: Lane) -> None:
        """An attempt begins in a lane that was retired: its call began before the settings were read anew."""
        with self.common.lock:
            self.lanes.resume(lane)
            self.refresh()

    def absorb(self) -> None:
        """Add up what the lanes have counted for themselves. Called under the lock."""
        succeeded = self.lanes.take_successes()
        self.breaker.circuit.successes += succeeded
        self.common.calls += succeeded
        self.succeeded += succeeded

    def counting(self) -> Tally:
        """Return the tally to write into."""
        if self.tally is NO_TALLY:
            with self.common.lock:
                if self.tally is NO_TALLY:
                    self.tally = Tally()
        return self.tally

    def refresh(self) -> None:
        """Copy the door and the next window border into the lanes. Called under the lock."""
        circuit = self.breaker.circuit
        admits = self.enabled and self.successor is None and not self.life.stopping
        usual = admits and not self.common.gate_was_closed and not self.chaos and self.rival is None
        passage = circuit.door if usual else None
        # Where somebody wants to know of each refusal, the fast path leaves them to those who tell.
        asked = self.bus.hears_rejections or self.watcher is not None or self.rival is not None
        refuses = circuit.state is CircuitState.OPEN and not circuit.rules.lenient and admits and not asked
        self.refused_because = circuit.evidence
        self.refused_until = circuit.until if refuses else -math.inf
        set_doors(
            self.lanes,
            passage,
            turn_at=min(circuit.turn_at, self.common.budget.turn_at),
            limits=self.limits,
            watcher=self.watcher,
            always=self.settings.telemetry.spans == "always",
        )

    @property
    def watcher(self) -> Watcher | None:
        """Who follows calls of this provider, if anybody does."""
        return observed.watcher if self.settings.telemetry.spans != "off" else None

    @property
    def variant(self) -> str:
        """Which arm of an experiment this is: a or b; empty without one."""
        return self.bus.variant

    @property
    def arms(self) -> tuple[ProviderRuntime, ...]:
        """Who makes the calls: this runtime, and the other arm of its experiment if there is one."""
        rival = self.rival
        return (self,) if rival is None else (self, rival)

    def drawn(self) -> ProviderRuntime:
        """Draw who makes the next call: this runtime, or the other arm of its experiment."""
        rival = self.rival  # another thread may end the experiment at any moment
        return rival if rival is not None and self._rng.random() < self.share else self

    def disturb(self, chaos: tuple[Callable[[Any], Any], ...]) -> None:
        """Put *chaos* around every attempt from now on, in place of what was there."""
        with self.common.lock:
            for arm in self.arms:
                arm.chaos = chaos
                arm.refresh()

    def disturbed(self, func: Any) -> Any:
        """Return *func* as an attempt reaches it."""
        for layer in self.chaos:
            func = layer(func)
        return func

    def _listeners_changed(self) -> None:
        with self.common.lock:
            self.refresh()

    @property
    def successes(self) -> int:
        """How many attempts have succeeded."""
        return self.breaker.circuit.successes

    @property
    def in_flight(self) -> int:
        """How many attempts are running, in all loops, those held open included."""
        return len(self.held) + self.lanes.in_flight

    def hanging(self, count: int, now: float) -> None:
        """A lane's timer found *count* attempts slow already."""
        if len(self.lanes) > 1:
            count = self.lanes.count_hanging(now)
        self.breaker.judge_in_flight(count, now)

    def overdue(self, seconds: float) -> None:
        """A lane's timer found an attempt that ignores its cancellation."""
        self.bus.emit(AttemptOverdue(provider=self.name, time=self.wall_clock(), overdue=seconds))

    def peek(self, now: float) -> Refusal | None:
        """Return why the breaker would surely refuse a call at *now*; takes nothing. None in shadow mode."""
        with self.common.lock:
            return self.breaker.circuit.outlook(now)

    def acquire(self, task: object, now: float) -> Permit | Refusal:
        """
        Take a permit for an attempt of *task*, just before it leaves.

        A task whose outer call is a probe borrows that probe: its inner attempt needs no slot and has no vote.
        """
        self._judge_hanging(now)
        if task in self.probing:
            return Permit(None)
        answer = self.breaker.acquire(now)
        if isinstance(answer, Permit) and answer.probe:
            self.probing[task] = None
        return answer

    def _judge_hanging(self, now: float) -> None:
        # On asyncio the lanes' timers do this; elsewhere the next caller does.
        for lane in self.lanes.values():
            if lane.loop is None:
                lane.look(now)

    @property
    def pending_full(self) -> bool:
        """Whether as many callers wait, in whatever way, as may."""
        most = self.settings.bulkhead.max_pending
        return most is not None and len(self.waiting) >= most

    def settle(
        self,
        permit: Permit,
        verdict: Verdict,
        now: float,
        *,
        slow: bool,
        failure: Failure | None = None,
        task: object = None,
    ) -> None:
        """Return a permit with what the attempt showed."""
        if task is not None and permit.period is not None:
            self.probing.pop(task, None)
        self.breaker.release(permit, verdict, now, slow=slow, failure=failure)
        if self.life.stopping:
            self.life.attempt_ended(well=verdict is Verdict.SUCCESS and failure is None)

    def renew(self, permit: Permit) -> None:
        """Give a probe that shows signs of life as long again."""
        with self.common.lock:
            self.breaker.circuit.renew(permit, self.clock())

    def classify(self, error: BaseException) -> Failure:
        """Classify *error* by the provider's own rules first."""
        return classify(error, rules=self.rules)

    def obey(self, failure: Failure, now: float) -> None:
        """Close the gate if the provider asked for a pause: a rate limit always, anything else with a hint."""
        hint = failure.retry_after or None  # "now" names no pause
        asks = failure.kind is FailureKind.RATE_LIMIT or (failure.retryable and hint is not None)
        if not asks or not self.settings.gate.enabled:
            return
        seconds = self.common.close_gate(now, hint)
        if seconds is not None:
            hinted = hint is not None
            self.bus.emit(GateClosed(provider=self.name, time=self.wall_clock(), seconds=seconds, hinted=hinted))

    def retire(self, successor: Callable[[], ProviderRuntime]) -> None:
        """Send every handle that still knows this runtime to its *successor*."""
        with self.common.lock:
            self.successor = successor
            self.refresh()
            self.common.members.remove(self)

    def start_anew(self) -> None:
        """Forget everything: in a forked child, none of the calls and loops exist."""
        self.breaker.lock = self.common.lock
        for lane in self.lanes.values():
            lane.door = lane.passage = None  # handles that know it look closer and find a new one
        self.lanes = Lanes()
        if self.limits is not None:
            self.limits.share(self.common.lock)
            self.limits.start_anew()
        self.probing = {}
        self.waiting = {}
        self.held = {}
        self.zero()
        self.plan = self.plan_for(USUAL)
        self.breaker.start_anew()
        self.refresh()
