"""The app over real sockets, by a real server, alone and within somebody else's application."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from resilience import ProviderRegistry, Settings
from resilience.health import Health

pytestmark = pytest.mark.real_time


@contextmanager
def served(app: Any) -> Iterator[httpx.Client]:
    """Serve an app in a thread, and give a client of it."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", lifespan="auto", timeout_keep_alive=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
    assert not thread.is_alive()


@pytest.fixture
def health() -> Health:
    health = Health(ProviderRegistry(Settings()))
    health.registry.provider("openai", endpoint="eu")
    return health


async def hanging() -> None:
    import anyio

    await anyio.sleep_forever()


def test_a_server_serves_it(health: Health) -> None:
    """GET, HEAD, names with a slash, written as they are or encoded, and what does not exist."""
    with served(health.app()) as client:
        for path in ("/health", "/livez", "/readyz", "/health/providers", "/health/providers/openai/eu"):
            get, head = client.get(path), client.head(path)
            assert (get.status_code, get.json()["status"]) == (200, "pass")
            assert get.headers["content-type"].endswith("json")
            assert get.headers["cache-control"] == "no-store"
            assert (head.status_code, head.content) == (200, b"")
            assert int(head.headers["content-length"]) > 0
        assert client.get("/health/providers/openai%2Feu").json()["snapshot"]["provider"] == "openai/eu"
        assert client.get("/nothing").status_code == 404
        assert client.post("/health", content=b"x" * 100_000).status_code == 405
        assert client.get("/livez").status_code == 200  # the connection is in order after that


def test_a_server_answers_while_checks_hang(health: Health) -> None:
    """In its loop and in a thread; when it stops nothing keeps it from ending."""
    release = threading.Event()
    health.add("database", hanging, critical=True)
    health.add("disk", lambda: release.wait(60))
    try:
        with served(health.app()) as client:
            for _ in range(20):
                assert client.get("/livez").status_code == 200
                reply = client.get("/readyz")
                assert reply.status_code == 503
                assert list(reply.json()["checks"]) == ["database:responseTime", "disk:responseTime"]
    finally:
        release.set()


def test_it_can_be_mounted_in_starlette(health: Health) -> None:
    """Below a path of one's own, beside other routes, and with the checks running from start to end."""
    threads = set()

    async def check() -> None:
        threads.add(threading.get_ident())

    health.add("database", check, critical=True)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> Any:
        async with health.lifespan():
            yield

    async def shop(_: Any) -> PlainTextResponse:
        return PlainTextResponse("open")

    app = Starlette(routes=[Route("/", shop), Mount("/internal", health.app())], lifespan=lifespan)
    with served(app) as client:
        assert client.get("/").text == "open"
        assert client.get("/internal/readyz").json()["summary"]["healthy"] == 2
        assert client.get("/internal/health/providers/openai/eu").json()["status"] == "pass"
        assert client.get("/internal/nothing").json()["error"]
        assert client.get("/health").status_code == 404
    assert len(threads) == 1


def test_it_can_be_mounted_where_nobody_tells_it_of_the_lifespan(health: Health) -> None:
    """At the root, behind routes of one's own; the checks run when somebody asks."""
    health.add("database", hanging)
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("open")), Mount("/", health.app())])
    with served(app) as client:
        assert client.get("/").text == "open"
        assert client.get("/readyz").json()["status"] == "warn"
        assert client.get("/health/live").json() == {"status": "pass"}


def test_mounted_at_health_it_has_the_usual_paths(health: Health) -> None:
    """``/health/live`` is not ``/health/health/live``."""
    with served(Starlette(routes=[Mount("/health", health.app())])) as client:
        for path in ("/health/", "/health/live", "/health/ready", "/health/providers/openai/eu"):
            assert client.get(path).json()["status"] == "pass"
