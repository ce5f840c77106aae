"""A scripted server behind real sockets, and the two libraries whose clients call it."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx
import httpx2
import pytest

from providers import http
from resilience import ProviderRegistry, ProviderSettings, ResilientProvider, RetrySettings, Settings
from resilience.testing import EventRecorder

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27  # Linux; Python has no names for them
_RESET = struct.pack("ii", 1, 0)

# The filter that drops packets is Linux's.
collect_ignore = [] if sys.platform == "linux" else ["test_partition.py"]

Step: TypeAlias = "Callable[[Exchange], Awaitable[None]]"


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass
class Exchange:
    """A request to answer."""

    seen: Seen
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    site: Site

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def close(self, *, reset: bool = False) -> None:
        sock = self.writer.get_extra_info("socket")
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.writer.transport.abort()
        self.writer.close()


def head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def reply(status: int = 200, body: bytes | object = b"ok", **headers: str) -> Step:
    """Answer; a body that is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named.setdefault("content-type", "text/plain" if isinstance(body, bytes) else "application/json")

    async def step(exchange: Exchange) -> None:
        bodiless = exchange.seen.method == "HEAD" or status in (204, 304)
        size = {} if status in (204, 304) else {"content-length": str(len(content))}
        await exchange.send(head(status, {**named, **size}) + (b"" if bodiless else content))

    return step


def stream(*parts: bytes, then: str = "end", status: int = 200, **headers: str) -> Step:
    """Answer with a body in pieces, and then *end* it, *cut* it, *reset* it, or *hang* in the middle of it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def step(exchange: Exchange) -> None:
        await exchange.send(head(status, {"transfer-encoding": "chunked", **named}))
        for part in parts:
            await exchange.send(b"%x\r\n%s\r\n" % (len(part), part))
        if then == "end":
            await exchange.send(b"0\r\n\r\n")
        elif then == "hang":
            await exchange.reader.read(1)  # until the client leaves
            exchange.close()
        else:
            exchange.close(reset=then == "reset")

    return step


async def hang(exchange: Exchange) -> None:
    """Never answer."""
    await exchange.reader.read(1)
    exchange.close()


async def reset(exchange: Exchange) -> None:
    """Close the connection as a crash would."""
    exchange.close(reset=True)


class Site:
    """A server that answers the nth request with the nth step, and all later ones with the last."""

    reply = staticmethod(reply)
    stream = staticmethod(stream)
    hang = staticmethod(hang)
    reset = staticmethod(reset)

    def __init__(self, *steps: Step) -> None:
        self.steps = steps or (reply(),)
        self.seen: list[Seen] = []
        self.open = 0
        self._accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[asyncio.StreamWriter] = []
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def requests(self) -> int:
        """How many requests have arrived."""
        return len(self.seen)

    def partition(self, parted: bool = True) -> None:
        """Let the kernel drop every packet that comes for this server; or no longer."""
        for sock in [self._listener, *(writer.get_extra_info("socket") for writer in self._connections)]:
            if not parted:
                sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
                continue
            nothing = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # a filter that returns 0 bytes
            program = struct.pack("HL", 1, ctypes.addressof(nothing))
            sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(5)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(self._converse(reader, writer))
            tasks.add(task)

        server = await asyncio.start_server(accept, sock=self._listener)
        await self._over.wait()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._accepted += 1
        number = self._accepted
        self._connections.append(writer)
        self.open += 1
        try:
            while not writer.is_closing():
                seen = await _read(reader, number)
                self.seen.append(seen)
                step = self.steps[min(len(self.seen), len(self.steps)) - 1]
                await step(Exchange(seen, reader, writer, self))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            self._connections.remove(writer)
            writer.close()


async def _read(reader: asyncio.StreamReader, connection: int) -> Seen:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, path, _ = lines[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    body = b""
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif "chunked" in headers.get("transfer-encoding", ""):
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    return Seen(method, path, headers, body, connection)


@pytest.fixture
def serve() -> Iterator[Callable[..., Site]]:
    """Start scripted servers; they end with the test."""
    sites: list[Site] = []

    def start(*steps: Step) -> Site:
        sites.append(Site(*steps))
        return sites[-1]

    yield start
    for site in sites:
        site.end()


@dataclass
class Library:
    """One of the two libraries, and what we have for it."""

    module: Any
    client: Callable[..., Any]
    transport: Callable[..., Any]


LIBRARIES = {
    "httpx": Library(httpx, http.client, http.ResilientTransport),
    "httpx2": Library(httpx2, http.client2, http.ResilientTransport2),
}


@pytest.fixture(params=list(LIBRARIES))
def library(request: pytest.FixtureRequest) -> Library:
    """Both libraries, one after the other."""
    return LIBRARIES[request.param]


@dataclass
class World:
    """A registry of its own and what it tells; retries follow at once."""

    Site = Site
    events: EventRecorder = field(default_factory=EventRecorder)

    def registry(self, **settings: Any) -> ProviderRegistry:
        settings.setdefault("retry", RetrySettings(base_delay=0.001))
        registry = ProviderRegistry(Settings(defaults=ProviderSettings(**settings)))
        registry.subscribe(self.events)
        return registry

    def provider(self, **settings: Any) -> ResilientProvider:
        return self.registry(**settings).provider("api")

    @staticmethod
    def pool(client: Any) -> Any:
        """The connection pool inside a protected client."""
        return client._transport._inner._pool

    @staticmethod
    def held(provider: ResilientProvider) -> int:
        """How many attempts are under way or held by a body."""
        return provider.snapshot().in_flight


@pytest.fixture
def world() -> World:
    """A registry of its own, and what it tells."""
    return World()


@pytest.fixture(autouse=True)
def no_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here speaks TLS, and loading the world's authorities takes longer than most of the tests."""
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    monkeypatch.setattr(ssl, "create_default_context", lambda *args, **kwargs: plain)


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """Bury what broken replies leave behind in httpx before the next module, which would be warned of it."""
    yield
    gc.collect()
