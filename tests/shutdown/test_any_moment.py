"""Whatever is going on, and whenever the shutdown comes: no call is lost or falsely claimed, and none begins."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience import (
    CallTimeout,
    ProviderRegistry,
    ResilientProvider,
    Settings,
    ShutdownReport,
    ShuttingDown,
    StreamInterrupted,
)
from resilience.testing import VirtualClock, run


@dataclass
class Plan:
    """One call: when it begins, how long each attempt takes, how many of them fail, and how it is made."""

    begins: float
    seconds: float
    failures: int
    way: Literal["execute", "own limit", "stream", "attempts"]
    begun: int = 0
    completed: int = 0
    begun_last: float = -1.0
    outcome: str = ""


MOMENTS = st.integers(0, 40).map(lambda half: half / 2)
PLANS = st.builds(
    Plan,
    begins=MOMENTS,
    seconds=st.sampled_from([0.0, 0.5, 2.0, 7.0, 25.0]),
    failures=st.integers(0, 2),
    way=st.sampled_from(["execute", "own limit", "stream", "attempts"]),
)


async def work(plan: Plan) -> str:
    plan.begun += 1
    plan.begun_last = anyio.current_time()
    await anyio.sleep(plan.seconds)
    if plan.begun <= plan.failures:
        raise ConnectionResetError
    plan.completed += 1
    return "done"


async def call(provider: ResilientProvider, plan: Plan) -> None:
    if plan.way == "stream":

        async def items() -> object:
            yield "opened"
            yield await work(plan)

        async with provider.stream(items) as stream:
            async for _ in stream:
                pass
    elif plan.way == "attempts":
        async for attempt in provider.attempts():
            async with attempt:
                await work(plan)
    else:
        view = provider.with_options(attempt_timeout=20) if plan.way == "own limit" else provider
        await view.execute(work, plan)


async def made(provider: ResilientProvider, plan: Plan) -> None:
    await anyio.sleep(plan.begins)
    try:
        await call(provider, plan)
    except ShuttingDown:
        plan.outcome += "refused"
    except CallTimeout as error:
        plan.outcome += "interrupted" if error.scope == "shutdown" else "failed"
    except StreamInterrupted as error:
        scope = getattr(error.__cause__, "scope", "")
        plan.outcome += "interrupted" if scope == "shutdown" else "failed"
    except ConnectionResetError:
        plan.outcome += "failed"
    else:
        plan.outcome += "done"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=60)
@given(
    plans=st.lists(PLANS, min_size=1, max_size=8),
    moment=MOMENTS,
    grace=st.sampled_from([0.0, 1.0, 5.0, 30.0]),
    places=st.sampled_from([None, 1, 3]),
    seed=st.integers(0, 3),
)
def test_at_any_moment(
    *,
    backend: Literal["asyncio", "trio"],
    plans: list[Plan],
    moment: float,
    grace: float,
    places: int | None,
    seed: int,
) -> None:
    """Each call ends in one way that is true, and the report counts what was in flight."""
    for plan in plans:
        plan.begun = plan.completed = 0
        plan.outcome = ""

    async def main() -> tuple[ShutdownReport, int, ResilientProvider]:
        registry = ProviderRegistry(
            Settings.model_validate(
                {
                    "defaults": {
                        "bulkhead": {"max_concurrent": places, "max_queue": 99, "max_wait": 60},
                        "breaker": {"enabled": False},
                        "budget": {"enabled": False},
                        "stream": {"idle": 60},
                    }
                }
            ),
            clock=VirtualClock(),
            rng=random.Random(seed),
        )
        provider = registry.provider("s3")
        calls: list[Callable[[], Awaitable[None]]] = [lambda plan=plan: made(provider, plan) for plan in plans]
        async with anyio.create_task_group() as group:
            for one in calls:
                group.start_soon(one)
            await anyio.sleep(moment + 0.25)
            in_flight = provider.snapshot().in_flight
            report = await registry.shutdown(grace=grace, cancel=2)
        return report, in_flight, provider

    report, in_flight, provider = run(main, backend=backend, seed=seed)
    for plan in plans:
        assert plan.outcome in ("done", "refused", "interrupted", "failed"), plan
        assert plan.completed == (plan.outcome == "done"), plan
        assert plan.begun_last <= moment + 0.25, plan
        assert not (plan.outcome == "refused" and plan.begun), plan
    assert report.finished + report.interrupted == in_flight
    assert report.interrupted == [plan.outcome for plan in plans].count("interrupted")
    assert (report.abandoned, report.seconds <= grace + 2) == (0, True)
    now = provider.snapshot()
    assert (now.in_flight, now.waiting) == (0, 0)
