"""Probes, sent to an app by hand."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest

from resilience import ProviderRegistry, Settings
from resilience.health import Health
from resilience.settings import HealthSettings
from resilience.testing import VirtualClock

Ask: TypeAlias = Callable[..., Awaitable["Reply"]]


@dataclass
class Reply:
    """What a probe gets."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@pytest.fixture
def ask() -> Ask:
    """Send one request to an app, as a server would; nothing in it may look at what the client sends."""

    async def ask(
        app: Any, path: str, method: str = "GET", *, root: str = "", query: bytes = b"", accept: str = ""
    ) -> Reply:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            raise AssertionError("a probe has no body")

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"accept", accept.encode())]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "root_path": root,
            "headers": headers,
        }
        await app(scope, receive, send)
        start, *bodies = sent
        assert start["type"] == "http.response.start"
        assert [message["type"] for message in bodies] == ["http.response.body"]
        fields = {name.decode(): value.decode() for name, value in start["headers"]}
        return Reply(start["status"], fields, bodies[0]["body"])

    return ask


@pytest.fixture
def make() -> Callable[..., Health]:
    """Make a `Health` with no providers, on the loop's own clock."""

    def make(**settings: Any) -> Health:
        clock = VirtualClock()
        registry = ProviderRegistry(Settings(), clock=clock)
        return Health(registry, settings=HealthSettings(**settings), clock=clock, wall_clock=lambda: 1e9)

    return make
