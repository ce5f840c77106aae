"""A call goes the same way whether somebody follows it or not, and whoever does is told everything once."""

from __future__ import annotations

import asyncio
import dataclasses
from asyncio import CancelledError
from collections.abc import Callable, Generator
from typing import Any

import anyio
import pytest

from resilience import CircuitState, ProviderRegistry, ProviderSettings, ResilientProvider, Settings
from resilience.errors import Reason
from resilience.events import Event
from resilience.failure import Failure
from resilience.process import watch_calls
from resilience.testing import virtual_backend
from resilience.watching import End

pytestmark = pytest.mark.anyio


class Log:
    """A watcher that writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def recording(self) -> bool:
        return True

    def call(self, provider: str, operation: str, *, variant: str) -> Followed:
        self.lines.append(f"call {provider}")
        return Followed(self.lines)


@dataclasses.dataclass
class Followed:
    lines: list[str]
    inside: int = 0

    def enter(self) -> None:
        self.inside += 1

    def leave(self) -> None:
        self.inside -= 1
        assert not self.inside

    def attempt(self, number: int) -> Attempt:
        self.lines.append(f"attempt {number}")
        return Attempt(self.lines)

    def ended(
        self, end: End, *, attempts: int, failure: Failure | None, reason: Reason | None, error: BaseException | None
    ) -> None:
        self.lines.append(f"over: {end} after {attempts}" + (f" ({reason})" if reason else ""))


@dataclasses.dataclass
class Attempt:
    lines: list[str]
    state: str = "new"

    def enter(self) -> None:
        assert self.state == "new"
        self.state = "entered"

    def leave(self) -> None:
        assert self.state == "entered"
        self.state = "left"

    def ended(self, end: End, *, failure: Failure | None, error: BaseException | None) -> None:
        assert self.state == "left"
        self.state = "over"
        self.lines.append(f"attempt over: {end}")


@pytest.fixture
def log() -> Generator[Log, None, None]:
    """Follows all calls, once it is asked to."""
    yield Log()
    watch_calls(None)


def provider(mode: str = "sampled", **more: Any) -> ResilientProvider:
    settings = ProviderSettings.model_validate(
        {
            "telemetry": {"spans": mode},
            "retry": {"max_attempts": 2, "base_delay": 1, "jitter": "none"},
            "breaker": {"failure_threshold": 3},
            "timeout": {"attempt": 4},
            "budget": {"enabled": False},
            **more,
        }
    )
    return ResilientProvider("s3", registry=ProviderRegistry(Settings(defaults=settings), clock=anyio.current_time))


def script(*steps: Any) -> Callable[[], Any]:
    """A function that sleeps for a number, raises an error, and else returns what comes next."""
    left = list(steps)

    async def act() -> Any:
        await anyio.sleep(0.1)
        step = left.pop(0)
        if isinstance(step, float):
            await anyio.sleep(step)
        elif isinstance(step, BaseException):
            raise step
        return step

    return act


async def swallow() -> str:
    """Answers although it was interrupted."""
    try:
        await anyio.sleep(9)
    except CancelledError:
        return "late"
    return "never"


LOST = ConnectionResetError

CASES: dict[str, tuple[Callable[[], Callable[[], Any]], list[str]]] = {
    "success": (lambda: script("x"), ["attempt 1", "attempt over: success", "over: success after 1"]),
    "slow": (lambda: script(3.0), ["attempt 1", "attempt over: success", "over: success after 1"]),
    "retried": (
        lambda: script(LOST(), "x"),
        [
            "attempt 1",
            "attempt over: failure",
            "attempt 2",
            "attempt over: success",
            "over: success_after_retry after 2",
        ],
    ),
    "failed": (
        lambda: script(LOST(), LOST()),
        [
            *("attempt 1", "attempt over: failure", "attempt 2", "attempt over: failure"),
            "over: failure after 2 (attempts_spent)",
        ],
    ),
    "for good": (
        lambda: script(ValueError()),
        ["attempt 1", "attempt over: failure", "over: failure after 1 (not_retryable)"],
    ),
    "late": (
        lambda: script(9.0, 9.0),
        [
            *("attempt 1", "attempt over: failure", "attempt 2", "attempt over: failure"),
            "over: failure after 2 (attempts_spent)",
        ],
    ),
}


async def outcome(openai: ResilientProvider, act: Callable[[], Any]) -> tuple[Any, ...]:
    """Everything that can be known of a call."""
    events: list[Event] = []
    unsubscribe = openai.subscribe(events.append)
    result = await openai.try_execute(act)
    unsubscribe()
    notes = getattr(result.error, "__notes__", None)
    told = [(type(event).__name__, getattr(event, "reason", None)) for event in events]
    snapshot = dataclasses.replace(openai.snapshot(), latency=None, last_at=None)
    cause = type(result.error.__cause__) if result.error is not None else None
    return result.ok, type(result.error), cause, notes, str(result.error), told, snapshot, openai.breaker.snapshot()


@pytest.mark.parametrize("mode", ["sampled", "always"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case)
async def test_the_same_whether_it_is_followed_or_not(log: Log, case: str, mode: str) -> None:
    """Results, errors, events and figures of a call are the same when somebody follows it, who hears of all of it."""
    make, lines = CASES[case]
    plain, watched = provider(mode), provider(mode)
    for one in (plain, watched):
        await one.execute(script("warm"))  # the next one takes the quick way
    alone = await outcome(plain, make())
    watch_calls(log)
    assert await outcome(watched, make()) == alone
    assert log.lines == ["call s3", *lines]


async def test_a_trip(log: Log) -> None:
    """Failures of followed calls open the circuit, and their successes count in its window."""
    watch_calls(log)
    s3 = provider()
    for _ in range(5):
        assert (await s3.try_execute(script("x"))).ok
    assert s3.snapshot().succeeded == 5
    while s3.breaker.state is CircuitState.CLOSED:
        assert not (await s3.try_execute(script(LOST(), LOST()))).ok
    log.lines.clear()
    assert (await s3.try_execute(script("x"))).rejected
    assert log.lines == ["call s3", "over: rejected after 0 (circuit_open)"]


async def test_slow_answers_count(log: Log) -> None:
    """Followed calls that are slow open the circuit like others."""
    s3 = provider(breaker={"minimum_calls": 3})
    await s3.execute(script("warm"))
    watch_calls(log)
    for _ in range(4):
        await s3.execute(script(3.0))
    assert s3.breaker.state is CircuitState.OPEN


async def test_a_limit_of_ours_has_its_cause(log: Log) -> None:
    """The error of an attempt that we have interrupted leads to the cancellation that ended it."""
    plain, watched = provider(retry={"enabled": False}), provider(retry={"enabled": False})
    for s3 in (plain, watched):
        await s3.execute(script("warm"))
    alone = await outcome(plain, script(9.0))
    watch_calls(log)
    assert await outcome(watched, script(9.0)) == alone


@pytest.mark.parametrize("anyio_backend", [virtual_backend("asyncio")], ids=["asyncio"])
async def test_an_answer_in_spite_of_its_interruption(log: Log) -> None:
    """A function that answers although its limit has passed has answered, also to whoever follows it."""
    s3 = provider()
    await s3.execute(script("warm"))
    watch_calls(log)
    assert await s3.execute(swallow) == "late"
    assert log.lines[-1] == "over: success after 1"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_call_inside_a_call(log: Log) -> None:
    """A call of the same provider inside another one is followed on its own, and both come out well."""
    s3 = provider()
    await s3.execute(script("warm"))
    watch_calls(log)

    async def outer() -> Any:
        return await s3.execute(script("x"))

    assert await s3.execute(outer) == "x"
    assert log.lines == [
        *("call s3", "attempt 1", "call s3", "attempt 1"),
        *("attempt over: success", "over: success after 1", "attempt over: success", "over: success after 1"),
    ]
    assert s3.snapshot().in_flight == 0


async def test_misuse_is_explained(log: Log) -> None:
    """What is said of a function that is none does not depend on who looks."""
    s3 = provider()
    await s3.execute(script("warm"))
    watch_calls(log)
    with pytest.raises(TypeError, match=r"write execute\(anyio\.to_thread\.run_sync, bytes"):
        await s3.execute(bytes)  # type: ignore[arg-type]
