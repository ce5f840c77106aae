"""
Deadlines, differentially: random programs run with ours, and with `asyncio.timeout` in their place.

A program nests calls of two providers with timeouts, cancel scopes, task groups, shields, `finally` clauses that await,
swallowed and repeated cancellations. Whatever happens in it has to happen at the same time, in the same order and with
the same counters as with `asyncio.timeout`, and nothing may be left behind. All times are multiples of a half, so that
results, timers and cancellations often meet in one tick.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
import trio
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from resilience import (
    BreakerSettings,
    Deadline,
    ProviderRegistry,
    ProviderSettings,
    ResilientProvider,
    RetrySettings,
    Settings,
    TimeoutSettings,
    testing,
)
from resilience import guard as guards
from resilience.guard import AsyncioGuard
from resilience.lane import Lane
from resilience.testing import VirtualTimeLoop

Node = tuple[Any, ...]

TIMES = (0.0, 0.5, 1.0, 1.0, 1.5, 2.0, 2.0, 2.5, 3.0)
LIMITS = (0.5, 1.0, 1.5, 2.0, 2.5)

# How a program can ask for a deadline, and how long it then is. Several share a lane, several have one of their own.
LANES = {"p": 2.0, "q": 3.0, "p.short": 1.0, "q.same": 2.0}
WAYS = ("execute", "execute", "execute", "blocks", "timeout", "attempt_timeout", "deadline", "wrapped")

LEAVES = ("sleep", "sleep", "sleep", "spin", "event", "raise", "cancel_self", "cancel", "uncancel_self", "look")
BRANCHES = (
    *("call", "call", "call", "call", "call", "timeout", "wait_for", "move_on", "fail_after", "group", "nursery"),
    *("shield", "finally", "finally", "swallow", "swallow", "uncancel", "convert", "catch", "seq", "seq"),
)


class Maker:
    """Makes a random program."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.left = 0

    def program(self) -> dict[str, Any]:
        rng = self.rng
        return {
            "bodies": [self.start() for _ in range(rng.choice((1, 1, 1, 2, 3)))],
            "cancels": [rng.choice(TIMES) for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 3)))],
            "at_entry": rng.random() < 0.05,
            "deadlines_first": rng.random() < 0.5,
            "rates": rng.random() < 0.5,
        }

    def start(self) -> tuple[float, Node]:
        self.left = self.rng.randint(3, 12)
        return self.rng.choice((0.0, 0.0, 0.5, 1.0)), self.node(0)

    def node(self, depth: int) -> Node:
        self.left -= 1
        if depth >= 6 or self.left <= 0 or (depth and self.rng.random() < 0.2):
            return self.leaf()
        kind = self.rng.choice(BRANCHES)
        return getattr(self, f"_{kind}", self._plain)(kind, depth + 1)

    def leaf(self) -> Node:
        rng = self.rng
        kind = rng.choice(LEAVES)
        if kind in ("sleep", "event"):
            return (kind, rng.choice(TIMES))
        if kind == "spin":
            return (kind, rng.randint(1, 3))
        if kind == "raise":
            return (kind, rng.choice((ValueError, CancelledError, TimeoutError)))
        return (kind, rng.randrange(4)) if kind == "cancel" else (kind,)

    def _plain(self, kind: str, depth: int) -> Node:
        return (kind, self.node(depth))

    def _call(self, kind: str, depth: int, body: Node | None = None) -> Node:
        way, lane = self.rng.choice(WAYS), self.rng.choice(tuple(LANES))
        own = way in ("timeout", "attempt_timeout", "deadline")
        limit = self.rng.choice(LIMITS) if own else LANES[lane]
        if way != "attempt_timeout":
            limit = min(limit, LANES[lane])
        return (kind, way, lane, limit, body or self.node(depth))

    def _timed(self, kind: str, depth: int) -> Node:
        return (kind, self.rng.choice(LIMITS), self.node(depth))

    _timeout = _wait_for = _timed

    def _scope(self, kind: str, depth: int) -> Node:
        return (kind, self.rng.choice(LIMITS), self.rng.random() < 0.3, self.node(depth))

    _move_on = _fail_after = _scope

    def _many(self, kind: str, depth: int) -> Node:
        return (kind, *(self.node(depth) for _ in range(self.rng.randint(1, 3))))

    _group = _nursery = _seq = _many

    def _two(self, kind: str, depth: int) -> Node:
        # What comes after a cancellation is most interesting when it is a call again, and one that takes too long.
        again = self.rng.random() < 0.5
        after = self._call("call", depth, ("sleep", self.rng.choice(TIMES))) if again else self.node(depth)
        return (kind, self.node(depth), after)

    _finally = _swallow = _two


class World:
    """Runs one program, with our deadlines or with asyncio's, and remembers what happened in each of its tasks."""

    def __init__(self, program: dict[str, Any], *, ours: bool) -> None:
        self.ours = ours
        self.program = program
        self.log: dict[str, list[tuple[Any, ...]]] = {}
        self.tasks: list[asyncio.Task[Any]] = []
        self.calls = 0
        self.children: dict[str, Iterator[int]] = {}

    async def main(self) -> None:
        self.loop = asyncio.get_running_loop()
        # In a timer there is no task, and anyio would not know which loop's time it is asked for.
        self.registry = ProviderRegistry(settings(rates=self.program["rates"]), clock=self.loop.time)
        self.providers = {lane: await self.warm(lane) for lane in LANES} if self.ours else {}
        for start, body in self.program["bodies"]:
            self.spawn(("late", start, body), f"root{len(self.tasks)}")
        if self.program["at_entry"]:
            self.tasks[0].cancel()
        for time in self.program["cancels"]:
            self.loop.call_at(time, self.tasks[0].cancel)
        while left := [task for task in self.tasks if not task.done()]:
            await asyncio.wait(left)
        for task in self.tasks:
            self.log[task.get_name()].append(("end", requests(task), *outcome(task)))
        self.log["left"] = [(what,) for what in self.leftovers()]

    async def warm(self, lane: str) -> ResilientProvider:
        """Make a handle and its first call: later ones go the fast way."""
        name, _, operation = lane.partition(".")
        provider = ResilientProvider(name, registry=self.registry)
        if operation:
            provider = provider.with_options(operation=operation)
        await provider.execute(self.do_look)
        self.calls += 1
        return provider

    def spawn(self, body: Node, name: str) -> asyncio.Task[Any]:
        task = self.loop.create_task(self.live(body), name=name)
        self.tasks.append(task)
        self.log[name] = []
        return task

    def child(self) -> str:
        parent = self.me().get_name()
        return f"{parent}.{next(self.children.setdefault(parent, itertools.count()))}"

    def me(self) -> asyncio.Task[Any]:
        task = asyncio.current_task()
        assert task is not None
        return task

    def say(self, *what: object) -> None:
        task = self.me()
        self.log.setdefault(task.get_name(), []).append((self.loop.time(), requests(task), *what))

    async def live(self, body: Node) -> object:
        return await self.do(body)

    async def do(self, node: Node) -> object:
        kind, *rest = node
        try:
            result = await getattr(self, f"do_{kind}")(*rest)
        except BaseException as error:
            self.say(kind, name_of(error))
            raise
        self.say(kind)
        return result

    # -- leaves ----------------------------------------------------------------------------------------------------

    async def do_sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def do_spin(self, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    async def do_event(self, time: float) -> None:
        future = self.loop.create_future()
        self.loop.call_at(time, lambda: future.done() or future.set_result(None))
        await future

    async def do_raise(self, kind: type[BaseException]) -> None:
        raise kind

    async def do_cancel_self(self) -> None:
        self.me().cancel()

    async def do_cancel(self, number: int) -> None:
        # By a timer of its own: tasks of one turn run in no order that anybody promised.
        task = self.tasks[number % len(self.tasks)]
        self.loop.call_at(self.loop.time() + 0.25, task.cancel)

    async def do_uncancel_self(self) -> None:
        self.me().uncancel()

    async def do_look(self) -> None:
        pass

    # -- branches --------------------------------------------------------------------------------------------------

    async def do_late(self, seconds: float, body: Node) -> None:
        await asyncio.sleep(seconds)
        await self.do(body)

    async def do_seq(self, *bodies: Node) -> None:
        for body in bodies:
            await self.do(body)

    async def do_timeout(self, seconds: float, body: Node) -> None:
        async with asyncio.timeout(seconds):
            await self.do(body)

    async def do_wait_for(self, seconds: float, body: Node) -> None:
        self.log[name := self.child()] = []
        task = asyncio.create_task(self.live(body), name=name)
        self.tasks.append(task)
        await asyncio.wait_for(task, seconds)

    async def do_move_on(self, seconds: float, shield: bool, body: Node) -> None:
        with anyio.move_on_after(seconds, shield=shield):
            await self.do(body)

    async def do_fail_after(self, seconds: float, shield: bool, body: Node) -> None:
        with anyio.fail_after(seconds, shield=shield):
            await self.do(body)

    async def do_group(self, *bodies: Node) -> None:
        async with asyncio.TaskGroup() as group:
            for body in bodies[1:]:
                self.log[name := self.child()] = []
                self.tasks.append(group.create_task(self.live(body), name=name))
            await self.do(bodies[0])

    async def do_nursery(self, *bodies: Node) -> None:
        async with anyio.create_task_group() as group:
            for body in bodies[1:]:
                name = self.child()
                group.start_soon(self.live, body, name=name)
            await self.do(bodies[0])

    async def do_shield(self, body: Node) -> None:
        await asyncio.shield(self.spawn(body, self.child()))

    async def do_finally(self, body: Node, cleanup: Node) -> None:
        try:
            await self.do(body)
        finally:
            await self.do(cleanup)

    async def do_swallow(self, body: Node, after: Node) -> None:
        with suppress(CancelledError):
            await self.do(body)
        await self.do(after)

    async def do_uncancel(self, body: Node) -> None:
        try:
            await self.do(body)
        except CancelledError:
            self.me().uncancel()

    async def do_convert(self, body: Node) -> None:
        try:
            await self.do(body)
        except CancelledError as error:
            raise ValueError from error

    async def do_catch(self, body: Node) -> None:
        with suppress(Exception):
            await self.do(body)

    async def do_call(self, way: str, lane: str, limit: float, body: Node) -> None:
        if not self.ours:
            async with self.other_deadline(way, lane, limit):
                await self.do(body)
            return
        self.calls += 1
        provider = self.provider(way, lane, limit)
        if way == "blocks":
            async for attempt in provider.attempts():
                async with attempt:
                    await self.do(body)
        elif way == "wrapped":
            await provider.wrap(self.do)(body)
        else:
            await provider.execute(self.do, body)

    def other_deadline(self, way: str, lane: str, limit: float) -> AbstractAsyncContextManager[object]:
        """Return what the call is compared with."""
        return in_lane(asyncio.timeout(limit), way, lane, limit)

    def provider(self, way: str, lane: str, limit: float) -> ResilientProvider:
        provider = self.providers[lane]
        if way == "deadline":
            return provider.with_options(deadline=Deadline(limit, clock=anyio.current_time))
        return provider.with_options(**{way: limit}) if way.endswith("timeout") else provider

    # -- afterwards ------------------------------------------------------------------------------------------------

    def leftovers(self) -> list[str]:
        """Name everything that our deadlines left behind: of the others' nothing is known."""
        if not self.ours:
            return []
        found = [f"outer deadline of {task}" for task in guards._outer]
        settled = 0
        for runtime in self.registry.runtimes.values():
            lanes = list(runtime.lanes.values())
            runtime.breaker.snapshot()  # counts what the lanes have counted
            found += [f"entry {key}" for lane in lanes for key in (*lane.live, *lane._late)]
            found += [f"probe {task}" for task in runtime.probing]
            circuit = runtime.breaker.circuit
            settled += circuit.successes + circuit.failures + circuit.ignored + circuit._abandoned
        if settled != self.calls:
            found.append(f"{settled} permits returned of {self.calls} taken")
        return found + self.timers()

    def timers(self) -> list[str]:
        """Name the timers that nobody needs any more; one of each lane may be left, since stopping it costs more."""
        timers = [handle._callback for handle in self.loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
        ours = [who for callback in timers if (who := owner(callback)) is not None]
        return [f"timer of {who}" for who in ours if not isinstance(who, Lane) or ours.count(who) > 1]


class TrioWorld(World):
    """The same on trio, with `trio.fail_after` in the place of our deadlines."""

    async def main(self) -> None:
        self.registry = ProviderRegistry(settings(rates=self.program["rates"]), clock=trio.current_time)
        self.scopes: list[trio.CancelScope] = []
        self.providers = {lane: await self.warm(lane) for lane in LANES} if self.ours else {}
        async with trio.open_nursery() as self.nursery:
            for start, body in self.program["bodies"]:
                self.scopes.append(trio.CancelScope())
                name = f"root{len(self.scopes)}"
                self.nursery.start_soon(self.root, self.scopes[-1], ("late", start, body), name=name)
            if self.program["at_entry"]:
                self.scopes[0].cancel()
            for time in self.program["cancels"]:
                self.nursery.start_soon(self.cancel_at, time, self.scopes[0])
        self.log["left"] = [(what,) for what in self.leftovers()]

    async def root(self, scope: trio.CancelScope, body: Node) -> None:
        with suppress(Exception), scope:
            await self.do(body)
        self.say("end", scope.cancelled_caught)

    async def cancel_at(self, time: float, scope: trio.CancelScope) -> None:
        await trio.sleep_until(time)
        scope.cancel()

    def say(self, *what: object) -> None:
        name = trio.lowlevel.current_task().name
        self.log.setdefault(name, []).append((trio.current_time(), *what))

    def child(self) -> str:
        parent = trio.lowlevel.current_task().name
        return f"{parent}.{next(self.children.setdefault(parent, itertools.count()))}"

    async def do_sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def do_late(self, seconds: float, body: Node) -> None:
        await trio.sleep(seconds)
        await self.do(body)

    async def do_spin(self, turns: int) -> None:
        for _ in range(turns):
            await trio.lowlevel.checkpoint()

    async def do_event(self, time: float) -> None:
        await trio.sleep_until(time)

    async def do_raise(self, kind: type[BaseException]) -> None:
        raise ValueError if kind is CancelledError else kind

    async def do_cancel_self(self) -> None:
        self.scopes[0].cancel()

    async def do_cancel(self, number: int) -> None:
        scope = self.scopes[number % len(self.scopes)]
        self.nursery.start_soon(self.cancel_at, trio.current_time() + 0.25, scope)

    async def do_uncancel_self(self) -> None:
        pass

    async def do_timeout(self, seconds: float, body: Node) -> None:
        with trio.fail_after(seconds):
            await self.do(body)

    do_wait_for = do_timeout

    async def do_group(self, *bodies: Node) -> None:
        await self.do_nursery(*bodies)

    async def do_shield(self, body: Node) -> None:
        with trio.CancelScope(shield=True):
            await self.do(body)

    async def do_finally(self, body: Node, cleanup: Node) -> None:
        try:
            await self.do(body)
        finally:
            await self.do_shield(cleanup)

    async def do_swallow(self, body: Node, after: Node) -> None:
        with suppress(trio.Cancelled):
            await self.do(body)
        await self.do(after)

    async def do_uncancel(self, body: Node) -> None:
        with trio.CancelScope() as scope:
            await self.do(body)
            scope.cancel()

    async def do_convert(self, body: Node) -> None:
        try:
            await self.do(body)
        except trio.Cancelled as error:
            raise ValueError from error

    def other_deadline(self, way: str, lane: str, limit: float) -> AbstractAsyncContextManager[object]:
        return failing_after(limit)

    def timers(self) -> list[str]:
        return []


@asynccontextmanager
async def failing_after(seconds: float) -> AsyncIterator[None]:
    with trio.fail_after(seconds):
        yield


def settings(*, rates: bool) -> Settings:
    """Our deadlines, and nothing else that could interfere; with *rates* the timers also look for slow calls."""
    breaker = BreakerSettings(
        failure_threshold=None,
        failure_rate=0.5 if rates else None,
        slow_rate=0.8 if rates else None,
        minimum_calls=1_000_000,
    )
    common = ProviderSettings(retry=RetrySettings(enabled=False), breaker=breaker)

    def limits(attempt: float, **operations: float) -> ProviderSettings:
        entries = {name: {"timeout": {"attempt": limit}} for name, limit in operations.items()}
        return ProviderSettings(timeout=TimeoutSettings(attempt=attempt), operations=entries)  # type: ignore[arg-type]

    providers = {"p": limits(LANES["p"], short=LANES["p.short"]), "q": limits(LANES["q"], same=LANES["q.same"])}
    return Settings(defaults=common, providers=providers)


def name_of(error: BaseException) -> object:
    """Name an error in the same way whichever deadline raised it."""
    if isinstance(error, BaseExceptionGroup):
        return type(error).__name__, sorted(str(name_of(one)) for one in error.exceptions)
    return "TimeoutError" if isinstance(error, TimeoutError | trio.TooSlowError) else type(error).__name__


def requests(task: asyncio.Task[Any]) -> int:
    """
    Count the requests to cancel *task*.

    anyio repeats its own in every turn, and how many turns the virtual clock grants depends on what timers there are.
    """
    return min(task.cancelling(), 50)


def outcome(task: asyncio.Task[Any]) -> tuple[Any, ...]:
    if task.cancelled():
        return ("cancelled",)
    error = task.exception()
    return ("returned",) if error is None else ("raised", name_of(error))


def owner(callback: object) -> object:
    """Return whose deadline a timer is, or None."""
    who = getattr(callback, "__self__", None)
    return who if isinstance(who, Lane | AsyncioGuard | asyncio.Timeout) else None


def in_lane(timeout: asyncio.Timeout, way: str, lane: str, limit: float) -> asyncio.Timeout:
    """Remember in which lane our own deadline would be."""
    name = lane.partition(".")[0]
    if not way.endswith(("timeout", "deadline")) or limit == LANES[name]:
        vars(timeout)["lane"] = f"{name} {limit}"
    return timeout


def lane_of(deadline: object) -> str:
    if isinstance(deadline, Lane):
        return f"{deadline.host.name} {deadline.limit}"
    return getattr(deadline, "lane", "alone")


def numbered_tasks() -> Callable[..., asyncio.Task[Any]]:
    """
    Tasks whose sets have one order, run after run.

    anyio cancels the tasks of a scope in the order of a set, and that is the order of their addresses.
    """
    numbers = itertools.count()

    class Numbered(asyncio.Task[Any]):
        def __init__(self, loop: asyncio.AbstractEventLoop, coro: Any, **rest: Any) -> None:
            self.number = next(numbers)
            super().__init__(coro, loop=loop, **rest)

        def __hash__(self) -> int:
            return self.number

    return Numbered


def ordered_timers(*, deadlines_first: bool) -> type[asyncio.TimerHandle]:
    """
    Timers of one moment, in an order that both runs share.

    asyncio's own order is that of a heap, which changes with every timer that the other run does not have. Deadlines go
    lane by lane: where a task and its child are late in one tick it matters who hears of it first, and either is right.
    """
    numbers = itertools.count()

    class Ordered(asyncio.TimerHandle):
        def __init__(self, when: float, callback: Callable[..., object], *rest: Any) -> None:
            super().__init__(when, callback, *rest)
            deadline = owner(callback)
            self.order = (when, (deadline is None) is deadlines_first, lane_of(deadline), next(numbers))

        def __lt__(self, other: object) -> bool:
            assert isinstance(other, Ordered)
            return self.order < other.order

    return Ordered


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Generator[None]:
    """Thousands of tracebacks take longer to write than to make."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def run(program: dict[str, Any], *, ours: bool) -> World:
    world = World(program, ours=ours)
    with pytest.MonkeyPatch.context() as patch:
        timers = ordered_timers(deadlines_first=program["deadlines_first"])
        patch.setattr(asyncio.events, "TimerHandle", timers)
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.get_loop().set_task_factory(numbered_tasks())
            runner.get_loop().set_exception_handler(lambda loop, context: None)  # a task's error may be nobody's
            runner.run(world.main())
    return world


def run_on_trio(program: dict[str, Any], *, ours: bool) -> World:
    world = TrioWorld(program, ours=ours)
    testing.run(world.main, backend="trio")
    return world


def compare(rng: random.Random, run: Callable[..., World] = run) -> None:
    """Run one program both ways, and again where they differ: anyio cancels in the order of sets of addresses."""
    program = Maker(rng).program()
    for _ in range(10):
        expected = run(program, ours=False).log
        actual = run(program, ours=True).log
        if actual == expected:
            return
    assert actual == expected, program


@pytest.mark.parametrize("block", range(8))
def test_programs_go_as_with_asyncio_timeout(block: int) -> None:
    """Our deadlines interrupt what `asyncio.timeout` would interrupt, then, and in no other way."""
    for seed in range(block * 200, (block + 1) * 200):
        compare(random.Random(seed))


@given(rng=st.randoms(use_true_random=False))
@hypothesis_settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_new_programs_go_as_with_asyncio_timeout(rng: random.Random) -> None:
    """The same for programs that nobody has seen yet; a failing one is made as small as possible."""
    compare(rng)


@pytest.mark.parametrize("block", range(3))
def test_programs_go_as_with_trio_scopes(block: int) -> None:
    """On trio our deadlines do what `trio.fail_after` does."""
    for seed in range(block * 100, (block + 1) * 100):
        compare(random.Random(seed), run_on_trio)
