"""
A provider that misbehaves on purpose, to test against: an upload store that keeps count.

`MisbehavingProvider` is the provider itself, without any transport. `serve` puts it behind a real socket,
`MisbehavingTransport` behind an httpx client on virtual time; both only carry what it decides.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, final

from resilience.testing.behaviour import Action, Behaviour, Misbehaviour
from resilience.testing.fault import hint_headers

_FILES: Final = "/files"


@final
@dataclass(frozen=True, slots=True)
class Reply:
    """An answer over HTTP."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@final
@dataclass(frozen=True, slots=True)
class Ticket:
    """A request that has arrived: what will happen to it, and when it came (seconds after the start)."""

    method: str
    path: str
    number: int
    time: float
    action: Action


@final
@dataclass(frozen=True, slots=True)
class ProviderStatistics:
    """
    What reached a provider so far.

    Args:
        received: Uploads that arrived.
        received_in_outage: Those that arrived while the provider was down.
        stored: Files it holds.
        behaviours: How it treated the uploads it has dealt with.
    """

    received: int
    received_in_outage: int
    stored: int
    behaviours: Mapping[Behaviour, int]


@final
class MisbehavingProvider:
    """
    An upload store that follows a script of trouble.

    ``PUT /files/<name>`` stores the body if, and only if, it is answered with status 201; its answer tells the
    SHA-256 of what arrived. ``GET /files`` lists the checksums and ``GET /files/<name>`` returns a file; those two
    always work and are not counted.

    Args:
        behaviour: The script. Default: a quick and faultless provider.
        clock: What the script's times are measured with. Default: `time.monotonic`; on virtual time
            `anyio.current_time`.
    """

    def __init__(self, behaviour: Misbehaviour | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.behaviour: Final = behaviour or Misbehaviour()
        self.files: Final[dict[str, bytes]] = {}
        self.arrivals: Final[list[float]] = []
        self._clock = clock
        self._origin: float | None = None
        self._behaviours: Counter[Behaviour] = Counter()

    def start(self) -> None:
        """Let the script begin now; otherwise it begins when the clock is first asked."""
        self._origin = self._clock()

    def now(self) -> float:
        """How many seconds the script has been running."""
        if self._origin is None:
            self.start()
        return self._clock() - (self._origin or 0.0)

    def checksum(self, name: str) -> str | None:
        """The SHA-256 of a stored file, in hexadecimal digits, or None."""
        body = self.files.get(name)
        return None if body is None else hashlib.sha256(body).hexdigest()

    def statistics(self) -> ProviderStatistics:
        """What reached the provider so far."""
        return ProviderStatistics(
            received=len(self.arrivals),
            received_in_outage=sum(map(self.behaviour.down, self.arrivals)),
            stored=len(self.files),
            behaviours=dict(self._behaviours),
        )

    def __repr__(self) -> str:
        seen = self.statistics()
        figures = f"received: {seen.received}, in an outage: {seen.received_in_outage}, stored: {seen.stored}"
        return f"<MisbehavingProvider [{figures}]>"

    def receive(self, method: str, path: str) -> Ticket:
        """Take in a request as it arrives. The transport waits for the action's latency and calls `answer`."""
        now = self.now()
        if method != "PUT":
            return Ticket(method, path, -1, now, Action(Behaviour.ANSWER))
        number = len(self.arrivals)
        self.arrivals.append(now)
        return Ticket(method, path, number, now, self.behaviour.action(number, now))

    def answer(self, ticket: Ticket, body: bytes) -> Reply | None:
        """Give the answer to a request, or None: then its connection is reset."""
        name = ticket.path.removeprefix(f"{_FILES}/")
        if ticket.method == "GET":
            return self._read(ticket.path, name)
        if ticket.method != "PUT" or name == ticket.path or not name:
            return _error(404 if ticket.method == "PUT" else 405, "this is an upload store: PUT /files/<name>")
        behaviour = Behaviour.OUTAGE if self.behaviour.down(self.now()) else ticket.action.behaviour
        self._behaviours[behaviour] += 1
        return self._write(behaviour, name, body, ticket.action.retry_after or 0.0)

    def _write(self, behaviour: Behaviour, name: str, body: bytes, retry_after: float) -> Reply | None:
        if behaviour in (Behaviour.OUTAGE, Behaviour.RESET):
            return None
        if behaviour is Behaviour.ERROR:
            return _error(500, "internal error")
        if behaviour is Behaviour.RATE_LIMIT:
            return _error(429, "too many requests", hint_headers(retry_after))
        self.files[name] = body
        return _json(201, {"name": name, "size": len(body), "sha256": self.checksum(name)})

    def _read(self, path: str, name: str) -> Reply:
        if path == _FILES:
            return _json(200, {stored: self.checksum(stored) for stored in self.files})
        body = self.files.get(name)
        return _error(404, "no such file") if body is None else Reply(200, body)


def _json(status: int, content: object, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(content).encode(), {"content-type": "application/json", **(headers or {})})


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    return _json(status, {"error": {"message": message}}, headers)
