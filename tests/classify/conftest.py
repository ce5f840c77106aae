"""A scripted server on loopback: the source of every fault that these tests classify."""

from __future__ import annotations

import contextlib
import gc
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import pytest
import trustme

from resilience.failure import Failure

Behaviour: TypeAlias = Callable[["Peer"], None]
Headers: TypeAlias = Mapping[str, str] | Sequence[tuple[str, str]]


class Peer:
    """One accepted connection."""

    def __init__(self, sock: socket.socket, over: threading.Event) -> None:
        self.sock = sock
        self.over = over
        self._rest = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def receive(self) -> bytes:
        """Whatever comes next, or nothing at the end."""
        data, self._rest = (self._rest, b"") if self._rest else (self.sock.recv(65536), b"")
        return data

    def line(self) -> bytes:
        """The next line of a protocol made of lines, or nothing at the end."""
        data = self._rest
        while b"\r\n" not in data:
            if not (more := self.sock.recv(65536)):
                return b""
            data += more
        line, _, self._rest = data.partition(b"\r\n")
        return line

    def head(self) -> bytes:
        """Read the head of one request and nothing after it."""
        data = self.receive()
        while b"\r\n\r\n" not in data:
            more = self.receive()
            if not more:
                raise ConnectionError("the client went away")
            data += more
        head, _, self._rest = data.partition(b"\r\n\r\n")
        return head.lower()

    def request(self) -> bytes:
        """Read one whole request, so that closing afterwards is orderly; return its head in lower case."""
        head = self.head()
        if b"expect: 100-continue" in head:
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if b"transfer-encoding: chunked" in head:
            body = b""
            while not body.endswith(b"0\r\n\r\n"):
                body += self.receive()
        elif b"content-length:" in head:
            left = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            while left > 0:
                left -= len(self.receive())
        return head

    def reset(self) -> None:
        """Close with a RST instead of a FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def http(status: int, headers: Headers = (), body: bytes | str | object = b"", *, close: bool = True) -> bytes:
    """The bytes of one HTTP/1.1 reply; a body that is no text is sent as JSON."""
    pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
    if not isinstance(body, (bytes, str)):
        body, pairs = json.dumps(body), [*pairs, ("content-type", "application/json")]
    payload = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in pairs)]
    lines += [f"content-length: {len(payload)}"] * (status != 304) + ["connection: close"] * close
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


def reply(status: int, headers: Headers = (), body: bytes | str | object = b"") -> Behaviour:
    """Answer every request like this."""

    def behave(peer: Peer) -> None:
        head = peer.request()
        data = http(status, headers, body)
        peer.send(data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if head.startswith(b"head ") else data)

    return behave


def raw(data: bytes, *, then: Callable[[Peer], None] = lambda peer: None) -> Behaviour:
    """Read one request, send exactly *data*, then do *then* and close."""

    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(data)
        then(peer)

    return behave


def hang(peer: Peer) -> None:
    """Accept, and never answer."""
    peer.over.wait(30)


def hang_up(peer: Peer) -> None:
    """Read the request and close without an answer."""
    peer.request()


def reset(peer: Peer) -> None:
    """Read the request and reset the connection."""
    peer.request()
    peer.reset()


def cut_body(peer: Peer) -> None:
    """Promise 1000 bytes, send 10, close."""
    peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1000\r\n\r\n0123456789")


def cut_chunks(peer: Peer) -> None:
    """Send one chunk and close before the last one."""
    peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")


def garbage(peer: Peer) -> None:
    """Answer something that is no HTTP."""
    peer.request()
    peer.send(b"\x00\x01garbage\r\n\r\n")


def stale(peer: Peer) -> None:
    """Answer the first request with keep-alive, reset upon the second."""
    peer.request()
    peer.send(http(200, close=False))
    peer.request()
    peer.reset()


def refuse_early(peer: Peer) -> None:
    """Answer 429 after the head, without reading the body, and close: the client is still sending."""
    peer.head()
    peer.send(http(429, {"retry-after": "3"}))


def events(*lines: str, cut: bool = False) -> Behaviour:
    """Answer with server-sent events; *cut* closes before the stream has properly ended."""
    body = "".join(lines).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return raw(head + b"%x\r\n%s\r\n" % (len(body), body) + b"0\r\n\r\n" * (not cut))


@dataclass(frozen=True)
class Endpoint:
    """Where a scripted server listens."""

    host: str
    port: int
    tls: bool = False

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"


def _shake_hands(sock: ssl.SSLSocket) -> None:
    try:
        sock.do_handshake()
    except ssl.SSLError:
        while socket.socket.recv(sock, 65536):  # closing with unread data would reset, and overtake the alert
            pass
        raise


class Loopback:
    """Scripted servers of one test, and the ways they can behave: tests cannot import from a conftest."""

    http = staticmethod(http)
    reply = staticmethod(reply)
    raw = staticmethod(raw)
    events = staticmethod(events)
    hang = staticmethod(hang)
    hang_up = staticmethod(hang_up)
    reset = staticmethod(reset)
    cut_body = staticmethod(cut_body)
    cut_chunks = staticmethod(cut_chunks)
    garbage = staticmethod(garbage)
    stale = staticmethod(stale)
    refuse_early = staticmethod(refuse_early)

    def __init__(self, authority: trustme.CA) -> None:
        self._authority = authority
        self._over = threading.Event()
        self._listeners: list[socket.socket] = []
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def serve(self, *behaviours: Behaviour, tls: ssl.SSLContext | None = None) -> Endpoint:
        """Listen; the nth connection meets the nth behaviour, all later ones the last."""
        listener = socket.create_server(("127.0.0.1", 0))
        self._listeners.append(listener)
        self._start(self._accept, listener, behaviours, tls)
        return Endpoint("127.0.0.1", listener.getsockname()[1], tls is not None)

    def refused(self) -> Endpoint:
        """A port that nobody listens on."""
        keeper = socket.socket()  # bound but not listening: nobody else can get the port, and it refuses
        keeper.bind(("127.0.0.1", 0))
        self._open.append(keeper)
        return Endpoint("127.0.0.1", keeper.getsockname()[1])

    def unanswered(self) -> Endpoint:
        """A port whose connections never come about: the queue of its listener is full."""
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        self._open.append(listener)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            self._open.append(filler)
        return Endpoint("127.0.0.1", listener.getsockname()[1])

    def certificate(self, name: str = "127.0.0.1", **validity: datetime) -> ssl.SSLContext:
        """A server context with a certificate for *name* from the authority."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._authority.issue_cert(name, **validity).configure_cert(context)
        return context

    def expired(self) -> ssl.SSLContext:
        """A server context whose certificate ran out yesterday."""
        today = datetime.now(UTC)
        return self.certificate(not_before=today - timedelta(days=9), not_after=today - timedelta(days=1))

    def trust(self) -> ssl.SSLContext:
        """A client context that trusts the authority."""
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        return context

    def end(self) -> None:
        """Close everything and wait for the threads."""
        self._over.set()
        for sock in (*self._listeners, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that is blocked on it
            sock.close()
        for thread in self._threads:
            thread.join(5)

    def _start(self, function: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket, behaviours: Sequence[Behaviour], tls: ssl.SSLContext | None) -> None:
        met = 0
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self._open.append(sock)
            behaviour = behaviours[min(met, len(behaviours) - 1)]
            met += 1
            self._start(self._converse, sock, behaviour, tls)

    def _converse(self, sock: socket.socket, behaviour: Behaviour, tls: ssl.SSLContext | None) -> None:
        with contextlib.suppress(OSError, ValueError):
            sock.settimeout(30)
            if tls is not None:
                sock = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                self._open.append(sock)
                _shake_hands(sock)
            behaviour(Peer(sock, self._over))
        with contextlib.suppress(OSError):
            sock.close()


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """
    Bury a module's dead before the next one begins.

    The HTTP libraries leave async generators behind when a reply breaks off, which trio warns of whenever they are
    found; the modules that cause it ignore that warning, and others must not get it.
    """
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine needs to reach the world, nothing here leaves it."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority nobody trusts by default."""
    return trustme.CA()


@pytest.fixture
def loopback(authority: trustme.CA) -> Iterator[Loopback]:
    """Scripted servers, ended after the test."""
    servers = Loopback(authority)
    yield servers
    servers.end()


@pytest.fixture
def no_such_host(monkeypatch: pytest.MonkeyPatch) -> str:
    """A host name that fails to resolve at once, whatever the machine's resolver would do with it."""
    resolve = socket.getaddrinfo

    def lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host in ("nowhere.invalid", b"nowhere.invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return "nowhere.invalid"


@pytest.fixture
def overlong_host() -> str:
    """A host name that every resolver refuses without asking anybody: for clients that bring their own."""
    return "x" * 64 + ".invalid"


@pytest.fixture
def told() -> Callable[[Failure], tuple[str, str, str, str]]:
    """What a failure says: kind, category, delivery and whose fault it is."""

    def told(failure: Failure) -> tuple[str, str, str, str]:
        return (failure.kind.value, failure.category.value, failure.delivery.value, failure.verdict.value)

    return told
