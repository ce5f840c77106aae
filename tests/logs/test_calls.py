"""The log lines of real calls, word for word."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Awaitable, Callable

import anyio
import pytest

from resilience import (
    CircuitOpen,
    ProviderRegistry,
    ProviderSettings,
    ResilientProvider,
    RetrySettings,
    Settings,
    TimeoutSettings,
)
from resilience.logging import configure, correlation_id

pytestmark = pytest.mark.anyio


def make(name: str, **settings: object) -> ResilientProvider:
    """A provider on the virtual clock whose pauses are all of half a second."""
    own = ProviderSettings(retry=RetrySettings(base_delay=0.5, exponential_base=1.0, jitter="none"), **settings)  # type: ignore[arg-type]
    registry = ProviderRegistry(Settings(defaults=own), clock=anyio.current_time)
    return ResilientProvider(name, registry=registry)


def failing(times: int, error: Callable[[], Exception] = ConnectionResetError) -> Callable[[], Awaitable[str]]:
    """A function that fails *times* times and then succeeds."""
    left = times

    async def upload() -> str:
        nonlocal left
        if left:
            left -= 1
            raise error()
        return "stored"

    return upload


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.fixture(autouse=True)
def _from_debug_on(caplog: pytest.LogCaptureFixture) -> object:
    caplog.set_level(logging.DEBUG, logger="resilience")
    yield
    caplog.set_level(logging.NOTSET, logger="resilience")


async def test_a_call_that_recovers(caplog: pytest.LogCaptureFixture) -> None:
    """A call that needed one retry says so twice: before the pause, and when it was worth it."""
    provider = make("s3").with_options(operation="upload")
    assert await provider.execute(failing(1)) == "stored"
    assert said(caplog) == [
        ("INFO", "[RETRY] attempt 2/3 of upload to s3 in 0.25 s (connection_error)"),
        ("INFO", "[RECOVERED] upload to s3 after 2 attempts in 0.25 s"),
    ]


async def test_a_call_that_gives_up(caplog: pytest.LogCaptureFixture) -> None:
    """A call that gave up ends with one ERROR and the traceback of its last error down to the user's line."""
    provider = make("s3").with_options(operation="upload")
    with pytest.raises(ConnectionResetError):
        await provider.execute(failing(9))
    assert said(caplog) == [
        ("INFO", "[RETRY] attempt 2/3 of upload to s3 in 0.25 s (connection_error)"),
        ("INFO", "[RETRY] attempt 3/3 of upload to s3 in 0.25 s (connection_error)"),
        ("ERROR", "[FAILED] upload to s3 after 3 attempts in 0.50 s (connection_error, attempts spent)"),
    ]
    assert caplog.text.count("Traceback (most recent call last)") == 1
    assert "raise error()" in caplog.text


async def test_an_open_circuit_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """A circuit that opens is one line, and 10,000 calls that it refuses add none; nor does the recovery flood."""
    provider = make("openai")
    with pytest.raises(ConnectionResetError):
        await provider.execute(failing(9))
    with pytest.raises(ConnectionResetError):
        await provider.execute(failing(9))
    for _ in range(10_000):
        assert (await provider.try_execute(failing(0))).rejected
    with pytest.raises(CircuitOpen):
        await provider.execute(failing(0))
    await anyio.sleep(60)
    for _ in range(3):
        await provider.execute(failing(0))
    assert said(caplog) == [
        ("INFO", "[RETRY] attempt 2/3 of a call to openai in 0.25 s (connection_error)"),
        ("INFO", "[RETRY] attempt 3/3 of a call to openai in 0.25 s (connection_error)"),
        ("ERROR", "[FAILED] a call to openai after 3 attempts in 0.50 s (connection_error, attempts spent)"),
        ("INFO", "[RETRY] attempt 2/3 of a call to openai in 0.25 s (connection_error)"),
        ("WARNING", "[CIRCUIT] openai: closed -> open (5 failures in a row)"),
        ("ERROR", "[FAILED] a call to openai after 2 attempts in 0.25 s (connection_error, circuit open)"),
        ("INFO", "[CIRCUIT] openai: open -> half_open (open time is over)"),
        ("INFO", "[CIRCUIT] openai: half_open -> closed (2 of 2 probes succeeded)"),
    ]


async def test_a_timeout_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """An attempt that our deadline interrupted is a WARNING with the limit and the time it took."""
    provider = make("s3", timeout=TimeoutSettings(attempt=2.0, total=5.0)).with_options(operation="upload")
    with pytest.raises(TimeoutError):
        await provider.execute(anyio.sleep, 60)
    assert [line for line in said(caplog) if line[1].startswith("[TIMEOUT]")] == [
        ("WARNING", "[TIMEOUT] attempt 1 of upload to s3 after 2.0 s (limit 2 s)"),
        ("WARNING", "[TIMEOUT] attempt 2 of upload to s3 after 2.0 s (limit 2 s)"),
    ]


async def test_a_gate_that_is_kept_closed_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Twenty calls that are told to stay away at once are one pause and one line."""

    class TooMany(Exception):
        status_code = 429
        headers = {"retry-after": "60"}  # noqa: RUF012 - as an SDK's error would have it

    provider = make("openai").with_options(retry=False)

    async def refused(after: float) -> None:
        await anyio.sleep(after)
        raise TooMany

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(provider.try_execute, refused, 0.1)
    assert [line for line in said(caplog) if line[1].startswith("[GATE]")] == [
        ("WARNING", "[GATE] openai: closed for 60.0 s (asked by the provider)")
    ]


async def test_the_callers_own_mistake_is_no_alarm(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in the function that was passed is its caller's to report: no WARNING, no traceback from us."""
    with pytest.raises(TypeError):
        await make("s3").execute(failing(1, lambda: TypeError("unsupported operand")))
    assert all(record.levelno <= logging.INFO for record in caplog.records)


async def test_a_cancelled_call_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A caller who leaves is no trouble of the provider's."""
    with anyio.move_on_after(1):
        await make("s3").execute(anyio.sleep, 20)
    assert said(caplog) == []


async def test_json_of_a_call() -> None:
    """With JSON output each line of a call carries the id of the request that made it."""
    stream = io.StringIO()
    log = configure("json", output=stream)
    token = correlation_id.set("req-7")
    await make("s3").with_options(operation="upload").execute(failing(1))
    correlation_id.reset(token)
    log.close()
    retry, recovered = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (retry["component"], retry["attempt"], retry["delay"]) == ("retry", 2, 0.25)
    assert (recovered["component"], recovered["attempt"], recovered["duration_ms"]) == ("call", 2, pytest.approx(250))
    assert retry["correlation_id"] == recovered["correlation_id"] == "req-7"
