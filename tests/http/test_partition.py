"""A network that swallows packets: the kernel drops what comes for the server, and nobody is told."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from resilience import CircuitOpen, CircuitState, FailureKind, RetrySettings, failure_of

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_time,
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
]

SETTINGS = {
    "timeout": {"attempt": 0.1},
    "retry": RetrySettings(max_attempts=2, base_delay=0.001),
    "breaker": {"failure_threshold": 2, "success_threshold": 1, "timeout": 0.1},
    "stream": {"idle": 0.1},
}


async def test_a_partition_and_its_end(serve: Any, world: Any, library: Any) -> None:
    """Each attempt ends in time, the circuit opens and spares the next calls the wait, and a probe closes it again."""
    site = serve()
    registry = world.registry(**SETTINGS)
    provider = registry.provider("api")
    async with library.client("api", base_url=site.url, registry=registry, trust_env=False) as http:
        assert (await http.get("/")).status_code == 200
        site.partition()
        with pytest.raises(library.module.TimeoutException) as caught:
            await http.get("/")  # over a connection that stood, and then over none
        failure = failure_of(caught.value)
        assert failure is not None
        assert (failure.kind, failure.attempts) == (FailureKind.TIMEOUT, 2)
        assert provider.breaker.state is CircuitState.OPEN
        with pytest.raises(CircuitOpen):
            await http.get("/")
        assert site.requests == 1
        assert provider.snapshot().in_flight == 0
        site.partition(False)
        await anyio.sleep(0.11)
        assert (await http.get("/")).status_code == 200
        assert provider.breaker.state is CircuitState.CLOSED
        assert [connection.is_idle() for connection in world.pool(http).connections] == [True]


async def test_nobody_to_connect_to(serve: Any, world: Any, library: Any) -> None:
    """While connecting nothing was sent, so that even a POST is tried again when its connection does not come about."""
    site = serve()
    site.partition()
    registry = world.registry(**{**SETTINGS, "timeout": {"attempt": 5.0}})
    timeout = library.module.Timeout(5, connect=0.05)
    options = {"base_url": site.url, "registry": registry, "trust_env": False, "timeout": timeout}
    async with library.client("api", **options) as http:
        with pytest.raises(library.module.ConnectTimeout):
            await http.post("/", content=b"order")
    assert registry.provider("api").snapshot().retries == 1
    assert site.requests == 0
