"""The misbehaving provider as a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import http
import socket
import struct
import threading
from collections.abc import Generator, Mapping
from typing import Final, final
from urllib.parse import unquote

from resilience.testing.provider import MisbehavingProvider, Reply

_MAX_HEAD: Final = 64 * 1024
_MAX_BODY: Final = 64 * 1024 * 1024
_SETTLING_TURNS: Final = 5  # what was accepted just before the end gets its task
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER with no patience: closing sends RST, not FIN


@contextlib.contextmanager
def serve(provider: MisbehavingProvider, *, host: str = "127.0.0.1", port: int = 0) -> Generator[str]:
    """
    Serve *provider* over real HTTP/1.1 while the ``with`` block runs, and give its URL.

    It lives in a thread of its own, so clients may use any event loop, or none.

    Args:
        provider: Who answers. Its clock must be a real one, as is the default.
        host: Where to listen. Default: loopback.
        port: Where to listen. Default: 0, any free port.

    Raises:
        OSError: The port is taken.
    """
    listener = socket.create_server((host, port), backlog=1024)
    server = _Server(provider, listener)
    thread = threading.Thread(target=server.run, name="misbehaving-provider", daemon=True)
    thread.start()
    try:
        address = listener.getsockname()
        provider.start()
        yield f"http://{address[0]}:{address[1]}"
    finally:
        server.stop()
        thread.join()


@final
class _Server:
    def __init__(self, provider: MisbehavingProvider, listener: socket.socket) -> None:
        self._provider = provider
        self._listener = listener
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()

    def run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)

    async def _main(self) -> None:
        server = await asyncio.start_server(self._accept, sock=self._listener, limit=_MAX_HEAD)
        await self._stopped.wait()
        server.close()
        for _ in range(_SETTLING_TURNS):
            await asyncio.sleep(0)
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Tasks of our own: those that asyncio makes for a coroutine complain in its log when they are cancelled.
        task = self._loop.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
            writer.close()
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            _reset(writer)  # the client left, or does not speak HTTP
        except asyncio.CancelledError:
            _reset(writer)
            raise

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; tell whether the connection may carry another."""
        head = await reader.readuntil(b"\r\n\r\n")
        request, headers = _parse(head)
        method, target = request
        body = await _read_body(reader, headers)
        ticket = self._provider.receive(method, unquote(target.partition("?")[0]))
        if await _left(reader, ticket.action.latency):
            return False
        reply = self._provider.answer(ticket, body)
        if reply is None:
            _reset(writer)
            return False
        writer.write(_render(reply))
        await writer.drain()
        return headers.get("connection", "").lower() != "close"


def _parse(head: bytes) -> tuple[tuple[str, str], dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    fields = (line.partition(":") for line in lines if line)
    return (method, target), {name.strip().lower(): value.strip() for name, _, value in fields}


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if "chunked" not in headers.get("transfer-encoding", "").lower():
        return await reader.readexactly(_size(headers.get("content-length", "0"), 10))
    body = b""
    while size := _size((await reader.readuntil(b"\r\n")).partition(b";")[0].decode("ascii"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
        _size(str(len(body)), 10)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return body


def _size(text: str, base: int) -> int:
    size = int(text, base)
    if not 0 <= size <= _MAX_BODY:
        raise ValueError(f"a body of {size} bytes is beyond the limit of {_MAX_BODY}")
    return size


async def _left(reader: asyncio.StreamReader, seconds: float) -> bool:
    """Wait for *seconds*, or until the client leaves: a request nobody waits for must not be stored."""
    try:
        async with asyncio.timeout(seconds):
            await reader.read(1)
    except TimeoutError:
        return False
    return True


def _render(reply: Reply) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} {http.HTTPStatus(reply.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    lines += [f"content-length: {len(reply.body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + reply.body


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close the connection as a crashed server would."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and not writer.is_closing():
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
