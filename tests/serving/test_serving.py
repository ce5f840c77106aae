"""Serving health beside one's own work, in the same event loop."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio

from resilience import CallTimeout, ConfigurationError, ProviderRegistry, Settings, ShuttingDown
from resilience.health import Health
from resilience.serving import Serving, serving

pytestmark = [pytest.mark.real_time, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Only asyncio: that is what the server knows."""
    return "asyncio", {}


@pytest.fixture
def registry() -> ProviderRegistry:
    """One that gives up soon."""
    return ProviderRegistry(Settings.model_validate({"shutdown": {"grace": 20, "cancel": 0.2, "close": 1}}))


@asynccontextmanager
async def client_of(server: Serving) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        yield client


async def test_it_answers_while_the_block_works(registry: ProviderRegistry) -> None:
    """On a port of its own, from the moment on in which the block begins, and not any more when it has ended."""
    async with serving(registry, port=0) as server, client_of(server) as client:
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert (await client.get("/readyz")).json()["status"] == "pass"
        server.health.add("queue", lambda: False, critical=True)
        assert (await client.get("/health")).status_code == 503
        assert not server.stopping
    assert registry.stopping
    assert server.report is not None
    assert server.report.clean
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


def test_on_trio_it_says_what_to_do_instead(registry: ProviderRegistry) -> None:
    """Not an error out of the depths of a server."""

    async def main() -> None:
        async with serving(registry, port=0):
            raise AssertionError("it serves")

    with pytest.raises(ConfigurationError, match=r"On trio use registry.lifespan\(\)"):
        trio.run(main)


async def test_readiness_fails_first(registry: ProviderRegistry) -> None:
    """From the signal on it is not ready, but alive, and calls in flight finish; the server is the last to go."""
    provider, free = registry.provider("s3"), asyncio.Event()
    calls = [asyncio.create_task(provider.execute(free.wait)) for _ in range(3)]
    async with serving(registry, port=0) as server, client_of(server) as client:
        server.stop()
        server.stop()
        assert [(await client.get(path)).status_code for path in ("/livez", "/readyz", "/health")] == [200, 503, 503]
        with pytest.raises(ShuttingDown):
            await provider.execute(free.wait)
        assert server.report is None
        free.set()
        assert await asyncio.gather(*calls) == [True, True, True]
        assert (await client.get("/readyz")).json()["summary"]["draining"] is True
    assert server.report is not None
    assert (server.report.finished, server.report.refused) == (3, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it(registry: ProviderRegistry, number: signal.Signals) -> None:
    """The block is told, and what the signal did before is in place again afterwards."""
    before = signal.getsignal(number)
    async with serving(registry, port=0) as server:
        signal.raise_signal(number)
        await server.wait()
        assert server.stopping
        assert signal.getsignal(number) is before  # a second one does what it always did
    assert signal.getsignal(number) is before


async def test_signals_are_left_alone_if_asked(registry: ProviderRegistry) -> None:
    """A program that handles its signals itself calls `stop`."""
    before = signal.getsignal(signal.SIGTERM)
    async with serving(registry, port=0, signals=False):
        assert signal.getsignal(signal.SIGTERM) is before


async def test_a_block_that_does_not_end(registry: ProviderRegistry) -> None:
    """It has a while to end by itself after the cascade; then it is cancelled."""
    cancelled = False
    async with serving(registry, port=0) as server:
        server.stop()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise
    assert cancelled
    assert server.report is not None


async def test_a_block_that_ends_in_its_own_time(registry: ProviderRegistry) -> None:
    """What it does with the result of its last call is not interrupted."""
    provider, free, saved = registry.provider("s3"), asyncio.Event(), []

    async def work() -> None:
        saved.append(await provider.execute(free.wait))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        saved.append("stored")

    async with serving(registry, port=0) as server:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        server.stop()
        free.set()
        await task
    assert saved == [True, "stored"]


async def test_a_block_that_fails(registry: ProviderRegistry) -> None:
    """Its own error comes out, after everything has come to its end."""
    with pytest.raises(KeyError):
        async with serving(registry, port=0) as server:
            raise KeyError
    assert server.report is not None
    assert registry.stopping


async def test_what_is_left_is_interrupted(registry: ProviderRegistry) -> None:
    """The times of the shutdown can be given."""
    call = asyncio.create_task(registry.provider("s3").try_execute(asyncio.sleep, 3600))
    async with serving(registry, port=0, grace=0) as server:
        await asyncio.sleep(0)
    outcome = await call
    assert isinstance(outcome.error, CallTimeout)
    assert outcome.error.scope == "shutdown"
    assert server.report is not None
    assert server.report.interrupted == 1


async def test_a_task_that_is_cancelled_while_it_ends(registry: ProviderRegistry) -> None:
    """Whoever has no patience for the cascade can cancel it: the server goes, and the registry keeps refusing."""
    begun = asyncio.Event()

    async def program() -> None:
        async with serving(registry, port=0):
            begun.set()

    call = asyncio.create_task(registry.provider("s3").try_execute(asyncio.sleep, 3600))
    await asyncio.sleep(0)
    task = asyncio.create_task(program())
    await begun.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert registry.stopping
    call.cancel()


async def test_beside_another_server_in_a_thread(registry: ProviderRegistry) -> None:
    """In a thread there are no signals to handle, and none is needed."""
    ended = []

    async def program() -> None:
        async with serving(registry, port=0) as server, client_of(server) as client:
            ended.append((await client.get("/livez")).status_code)

    thread = threading.Thread(target=asyncio.run, args=(program(),))
    thread.start()
    await asyncio.to_thread(thread.join, 30)
    assert ended == [200]


async def test_an_address_that_is_taken(registry: ProviderRegistry) -> None:
    """It says where, and nothing was begun."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port}: Address already in use"):
            async with serving(registry, port=port):
                pass
    assert not registry.stopping


async def test_an_address_that_is_nowhere(registry: ProviderRegistry) -> None:
    """Likewise."""
    with pytest.raises(OSError, match=r"192\.0\.2\.1:0"):
        async with serving(registry, host="192.0.2.1", port=0):
            pass


async def test_the_health_of_another_registry(registry: ProviderRegistry) -> None:
    """A mix-up is refused."""
    with pytest.raises(ConfigurationError, match="another registry"):
        async with serving(registry, health=Health(ProviderRegistry())):
            pass


async def test_without_the_extra(registry: ProviderRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install, and the port is free again."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ImportError, match=r"pip install 'resilient-providers\[serve\]'"):
        async with serving(registry, port=0):
            pass


async def test_where_it_listens_by_default(registry: ProviderRegistry) -> None:
    """Where the settings say; a health of one's own is served as it is."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    settings = Settings.model_validate({"health": {"port": port}})
    health = Health(ProviderRegistry(settings), service_id="mine")
    async with serving(health=health) as server, client_of(server) as client:
        assert server.port == port
        assert (await client.get("/livez")).json()["serviceId"] == "mine"


async def test_an_ipv6_address(registry: ProviderRegistry) -> None:
    """Its URL is written as URLs of such addresses are."""

    class Listener:
        def getsockname(self) -> tuple[str, int, int, int]:
            return "::1", 8080, 0, 0

    listener: Any = Listener()
    assert Serving(Health(registry), listener, registry.shutdown).url == "http://[::1]:8080"


def test_no_task_and_no_socket_stays(registry: ProviderRegistry) -> None:
    """When the block has ended nothing of it is left in the loop."""

    async def program() -> set[Any]:
        async with serving(registry, port=0) as server, client_of(server) as client:
            await client.get("/livez")
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(program()) == set()
