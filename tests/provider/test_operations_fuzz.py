"""Random calls while settings change, experiments come and go, somebody traces, and at last all is shut down."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import anyio
import pytest

from resilience import (
    CallRejected,
    CallTimeout,
    ExperimentSettings,
    ProviderRegistry,
    ProviderSettings,
    ResilientProvider,
    Settings,
)
from resilience.errors import StreamInterrupted
from resilience.eviction import when_forgotten
from resilience.process import meter_calls, watch_calls
from resilience.runtime import ProviderRuntime
from resilience.watching import End

pytestmark = pytest.mark.anyio

PROGRAMS = 28
EXPECTED = (ConnectionResetError, CallTimeout, StreamInterrupted)
COUNTED = ("succeeded", "failed", "cancelled", "rejected", "retries", "recovered", "exhausted", "timeouts")


class Followed:
    """A watch or the watch of an attempt: ended once, and left as often as entered."""

    def __init__(self, all_: list[Followed], *, parent: bool = True) -> None:
        self.all, self.inside, self.ends = all_, 0, 0
        self.attempts = 0
        self.parent = parent
        all_.append(self)

    def enter(self) -> None:
        self.inside += 1

    def leave(self) -> None:
        self.inside -= 1

    def attempt(self, number: int) -> Followed:
        self.attempts += 1
        assert number == self.attempts
        return Followed(self.all, parent=False)

    def ended(self, end: End, **_: Any) -> None:
        assert not self.ends, f"ended again, by {end}"
        self.ends += 1


class Following:
    """Follows every call, or about half of them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.all: list[Followed] = []

    def recording(self) -> bool:
        return self.rng.random() < 0.5

    def call(self, provider: str, operation: str, *, variant: str) -> Followed | None:
        assert variant in ("", "a", "b")
        return Followed(self.all) if self.rng.random() < 0.9 else None


class Program:
    """One of them."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.hedges = False
        self.registry = ProviderRegistry(
            self.settings(), clock=anyio.current_time, wall_clock=anyio.current_time, rng=random.Random(seed)
        )
        self.handles = [self.registry.provider("s3"), self.registry.provider("s3", endpoint="eu")]
        self.ends: Counter[str] = Counter()
        self.refusals: list[CallRejected] = []
        self.forgotten: list[ProviderRuntime] = []
        self.following = Following(rng)
        self.peak: dict[ProviderRuntime, list[int]] = {}

    # -- what is asked for -----------------------------------------------------------------------------------------

    def usual(self) -> dict[str, Any]:
        rng, found = self.rng, {}
        found["retry"] = {"max_attempts": rng.choice([1, 2, 3]), "base_delay": rng.choice([0.5, 2]), "jitter": "none"}
        found["timeout"] = {"attempt": rng.choice([2, 3, 9]), "total": rng.choice([10, 60])}
        found["breaker"] = {"mode": rng.choice(["enforce", "shadow", "disabled"]), "timeout": 2}
        found["telemetry"] = {"spans": rng.choice(["off", "sampled", "always"])}
        if rng.random() < 0.4:
            found["bulkhead"] = {"max_concurrent": rng.randint(1, 4), "max_wait": rng.choice([0, 3])}
            found["bulkhead"] |= {"mode": rng.choice(["enforce", "enforce", "shadow"])}
        if rng.random() < 0.4:
            found["rate_limit"] = {"requests_per_second": rng.choice([2, 50]), "max_wait": rng.choice([0, 3])}
        if rng.random() < 0.2:
            found["throttle"] = {"enabled": True, "minimum_calls": 5}
        if rng.random() < 0.3:
            self.hedges = True
            found["hedge"] = {"enabled": True, "warm_up": 1, "min_delay": 0.5, "max_delay": 1, "max_extra_load": 0.5}
        return found

    def settings(self) -> Settings:
        experiments = {}
        if self.rng.random() < 0.5:
            other = ProviderSettings(**self.usual())
            experiments["s3"] = ExperimentSettings(share=self.rng.choice([0.5, 1.0]), settings=other)
        return Settings(defaults=ProviderSettings(**self.usual()), experiments=experiments, max_providers=6)

    # -- calls -----------------------------------------------------------------------------------------------------

    async def work(self) -> str:
        await anyio.sleep(self.rng.choice([0, 0.1, 1, 2.5, 5]))
        if self.rng.random() < 0.35:
            raise ConnectionResetError
        return "fine"

    async def items(self) -> AsyncGenerator[str]:
        for _ in range(2):
            yield await self.work()

    async def nested(self, provider: ResilientProvider) -> object:
        return await self.counted(lambda: provider.execute(self.work))

    async def hold(self, provider: ResilientProvider) -> None:
        held = await provider.hold(self.work)
        try:
            await anyio.sleep(self.rng.choice([0, 3]))
            if self.rng.random() < 0.3:
                raise ConnectionResetError
        except BaseException as error:
            held.end(error)
            raise
        held.end()

    async def held(self, provider: ResilientProvider) -> None:
        async with await provider.hold(self.work):
            await self.work()

    async def streamed(self, provider: ResilientProvider) -> None:
        async with provider.stream(self.items) as stream:
            async for _ in stream:
                pass

    async def iterated(self, provider: ResilientProvider) -> None:
        async for attempt in provider.attempts():
            async with attempt:
                await self.work()

    async def tried(self, provider: ResilientProvider) -> None:
        (await provider.try_execute(self.work)).unwrap()

    async def counted(self, call: Callable[[], Awaitable[object]]) -> object:
        """Make one call and count how it ended, as its caller sees it."""
        try:
            result = await call()
        except anyio.get_cancelled_exc_class():
            self.ends["cancelled"] += 1
            raise
        except CallRejected as error:
            # To the outer one of two calls it is an error like any other.
            self.ends["failed" if error in self.refusals else "rejected"] += 1
            self.refusals.append(error)
            raise
        except EXPECTED:
            self.ends["failed"] += 1
            raise
        self.ends["succeeded"] += 1
        return result

    async def call(self) -> None:
        provider = self.rng.choice(self.handles)
        if self.rng.random() < 0.5:
            provider = provider.with_options(operation="chat", idempotent=True)
        elif self.rng.random() < 0.2:
            provider = provider.with_options(timeout=self.rng.choice([1, 20]))
        elif self.rng.random() < 0.2:
            provider = provider.alternative or provider
        way = self.rng.choice(
            [
                lambda: provider.execute(self.work),
                lambda: provider.execute(self.work),
                lambda: self.tried(provider),
                lambda: self.hold(provider),
                lambda: self.held(provider),
                lambda: self.streamed(provider),
                lambda: self.iterated(provider),
                lambda: provider.execute(self.nested, provider),
            ]
        )
        try:
            await self.counted(way)
        except (CallRejected, *EXPECTED):
            pass

    async def caller(self) -> None:
        for _ in range(6):
            await anyio.sleep(self.rng.choice([0, 0, 0.3, 2]))
            if self.rng.random() < 0.2:
                async with anyio.create_task_group() as group:
                    group.start_soon(self.call)
                    await anyio.sleep(self.rng.choice([0, 0.5, 1, 2.7]))
                    group.cancel_scope.cancel()
            else:
                await self.call()

    # -- operating -------------------------------------------------------------------------------------------------

    async def operator(self, *, stops: bool) -> None:
        for number in range(12):
            await anyio.sleep(self.rng.choice([0, 0.2, 1, 3]))
            what = self.rng.choice(["reload"] * 4 + ["watch", "meter", "breaker", "name"])
            if what == "reload":
                self.registry.reload(self.settings())
            elif what == "watch":
                watch_calls(self.rng.choice([self.following, None]))
            elif what == "meter":
                meter_calls(self.rng.random() < 0.5)
            elif what == "breaker":
                getattr(self.rng.choice(self.handles).breaker, self.rng.choice(["close", "reset", "open"]))()
            else:
                self.registry.provider(f"other{number}")
            self.look()
        if stops:
            await self.registry.shutdown(grace=self.rng.choice([0, 1, 10]), cancel=5)

    def look(self) -> None:
        """Nothing that is counted ever becomes less."""
        for handle in self.handles:
            for one in (handle, handle.alternative):
                if one is None:
                    continue
                snapshot = one.snapshot()
                now = [getattr(snapshot, name) for name in COUNTED]
                runtime = one._runtime
                before = self.peak.get(runtime, now)
                assert all(one >= other for one, other in zip(now, before, strict=True)), (before, now)
                self.peak[runtime] = now

    async def run(self) -> None:
        stop = when_forgotten(self.forgotten.append)
        stops = self.rng.random() < 0.3
        try:
            async with anyio.create_task_group() as group:
                for _ in range(8):
                    group.start_soon(self.caller)
                group.start_soon(lambda: self.operator(stops=stops))
        finally:
            stop()
            watch_calls(None)
            meter_calls(False)
        self.check()
        if not stops:
            await self.recover()

    # -- the end ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Every call is counted once, and nothing is left behind."""
        self.look()
        totals: Counter[str] = Counter()
        for runtime in {*self.registry.runtimes.values(), *self.forgotten}:
            with runtime.common.lock:
                runtime.absorb()
            tally = runtime.tally
            totals["succeeded"] += runtime.succeeded
            totals["failed"] += sum(tally.failures.values())
            totals["cancelled"] += tally.cancelled
            totals["rejected"] += runtime.rejected
            assert (runtime.in_flight, runtime.waiting, runtime.probing, runtime.held) == (0, {}, {}, {})
            if runtime.limits is not None and runtime.limits.bulkhead is not None:
                assert (runtime.limits.bulkhead.in_use, runtime.limits.bulkhead.waiting) == (0, 0), (
                    runtime.limits.bulkhead
                )
                assert not runtime.limits._placed
            if runtime.limits is not None and runtime.limits.rate is not None:
                assert runtime.limits.rate.waiting == 0
        assert totals["rejected"] == self.ends["rejected"]
        assert totals.total() == self.ends.total(), (totals, self.ends)
        # A hedged call is decided, although its caller goes while the loser is being waited for.
        assert totals["succeeded"] >= self.ends["succeeded"]
        assert totals["failed"] >= self.ends["failed"]
        if not self.hedges:
            assert +totals == +self.ends
        for one in self.following.all:
            assert (one.ends, one.inside) == (1, 0)

    async def recover(self) -> None:
        """With usual settings again, calls take the fast path again."""
        self.registry.reload(Settings())
        await anyio.sleep(1000)
        for handle in self.handles:
            handle.breaker.reset()
            for _ in range(2):
                assert await handle.execute(fine) == "fine"
            runtime = handle._current()
            assert len(runtime.lanes) == 1
            assert (handle._lane.door is not None) is (asyncio._get_running_loop() is not None)


async def fine() -> str:
    return "fine"


@pytest.mark.parametrize("seeds", [range(start, start + PROGRAMS // 4) for start in range(0, PROGRAMS, PROGRAMS // 4)])
async def test_every_call_is_counted_once_and_nothing_is_left_behind(seeds: range) -> None:
    """Whatever changes while it is under way: settings, arms, tracing, the breaker by hand, or the end of it all."""
    for seed in seeds:
        try:
            await Program(seed).run()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
