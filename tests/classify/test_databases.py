"""redis-py, coredis and asyncpg."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import coredis
import pytest
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from resilience.classify import classify
from resilience.failure import Failure

Told = Callable[[Failure], tuple[str, str, str, str]]
Behaviour = Callable[[Any], None]

# coredis leaves its in-memory streams to the collector when it cannot connect.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <Memory:ResourceWarning")

REFUSED = ("connection_error", "retriable", "unsent", "failure")
LOST = ("connection_error", "retriable", "maybe", "failure")
UNKNOWN_HOST = ("dns_error", "retriable", "unsent", "failure")
CONNECT_TIMEOUT = ("timeout", "retriable", "unsent", "failure")
READ_TIMEOUT = ("timeout", "retriable", "maybe", "failure")
OVERLOADED = ("overloaded", "transient", "processed", "failure")
SERVER = ("server_error", "retriable", "processed", "failure")
AUTHENTICATION = ("authentication_error", "fatal", "processed", "success")
DENIED = ("permission_denied", "fatal", "processed", "success")
BAD_REQUEST = ("bad_request", "invalid_input", "processed", "success")
CONTENTION = ("server_error", "retriable", "processed", "success")

REDIS_ERRORS = [
    ("LOADING Redis is loading the dataset in memory", OVERLOADED),
    ("BUSY Redis is busy running a script", OVERLOADED),
    ("OOM command not allowed when used memory > 'maxmemory'", OVERLOADED),
    ("TRYAGAIN Multiple keys request during rehashing of slot", OVERLOADED),
    ("CLUSTERDOWN The cluster is down", OVERLOADED),
    ("MASTERDOWN Link with MASTER is down", OVERLOADED),
    ("READONLY You can't write against a read only replica", SERVER),
    ("MISCONF Redis is configured to save RDB snapshots", SERVER),
    ("NOREPLICAS Not enough good replicas to write", SERVER),
    ("NOAUTH Authentication required", AUTHENTICATION),
    ("WRONGPASS invalid username-password pair", AUTHENTICATION),
    ("NOPERM this user has no permissions", DENIED),
    ("WRONGTYPE Operation against a key holding the wrong kind of value", BAD_REQUEST),
    ("NOSCRIPT No matching script", BAD_REQUEST),
    ("ERR syntax error", BAD_REQUEST),
]


def redis_saying(error: str, *, then: Callable[[Any], None] | None = None) -> Behaviour:
    """Shake hands as Redis does and answer every other command with *error*, or do *then*."""
    hello = (
        b"%4\r\n$2\r\nid\r\n:7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.0\r\n$5\r\nproto\r\n:3\r\n"
    )

    def behave(peer: Any) -> None:
        while words := _command(peer):
            if words[0] == b"HELLO":
                peer.send(hello)
            elif words[0] in (b"CLIENT", b"SELECT", b"AUTH"):
                peer.send(b"+OK\r\n")
            elif then is not None:
                return then(peer)
            else:
                peer.send(f"-{error}\r\n".encode())
        return None

    return behave


def _command(peer: Any) -> list[bytes]:
    """Read one RESP array of strings; empty at the end."""
    if not (count := peer.line()):
        return []
    words = []
    for _ in range(int(count[1:])):
        peer.line()
        words.append(peer.line())
    return [words[0].upper(), *words[1:]]


def postgres_saying(sqlstate: str) -> Behaviour:
    """Answer the start-up message of PostgreSQL's protocol with an error."""
    fields = b"SFATAL\0VFATAL\0C" + sqlstate.encode() + b"\0Mmade up\0\0"

    def behave(peer: Any) -> None:
        peer.receive()
        peer.send(b"E" + struct.pack("!i", len(fields) + 4) + fields)

    return behave


def postgres_then(act: Callable[[Any], None]) -> Behaviour:
    """Accept a PostgreSQL client, read its first query, then *act*."""

    def message(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("!i", len(body) + 4) + body

    def behave(peer: Any) -> None:
        peer.receive()
        peer.send(message(b"R", bytes(4)) + message(b"S", b"server_version\x0015.0\0"))
        peer.send(message(b"K", bytes(8)) + message(b"Z", b"I"))
        peer.receive()
        act(peer)

    return behave


async def ask_redis(host: str, port: int, *, timeout: float = 5.0) -> Failure:
    options: Any = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": Retry(NoBackoff(), 0)}
    async with redis.asyncio.Redis(host=host, port=port, **options) as client:
        with pytest.raises(Exception) as caught:
            await client.get("k")
    return classify(caught.value)


async def ask_coredis(host: str, port: int, *, timeout: float = 5.0) -> Failure:
    options: Any = {"stream_timeout": timeout, "connect_timeout": timeout, "pool_timeout": 30.0}
    with pytest.raises(Exception) as caught:
        async with coredis.Redis(host=host, port=port, **options) as client:
            await client.get("k")
    return classify(caught.value)


Ask = Callable[..., Awaitable[Failure]]


@pytest.mark.anyio
@pytest.mark.real_time
class RedisTrouble:
    """What goes wrong with any Redis client."""

    @pytest.fixture
    def ask(self) -> Ask:
        raise NotImplementedError

    async def test_refused(self, ask: Ask, loopback: Any, told: Told) -> None:
        """A server that is down got nothing."""
        endpoint = loopback.refused()
        assert told(await ask(endpoint.host, endpoint.port)) == REFUSED

    async def test_unknown_host(self, ask: Ask, no_such_host: str, told: Told) -> None:
        """A name that does not resolve is told apart."""
        assert told(await ask(no_such_host, 6379)) == UNKNOWN_HOST

    async def test_connect_timeout(self, ask: Ask, loopback: Any, told: Told) -> None:
        """A timeout while connecting sent nothing."""
        endpoint = loopback.unanswered()
        assert told(await ask(endpoint.host, endpoint.port, timeout=0.1)) == CONNECT_TIMEOUT

    async def test_read_timeout(self, ask: Ask, loopback: Any, told: Told) -> None:
        """A command that is not answered in time may have been carried out."""
        endpoint = loopback.serve(redis_saying("", then=loopback.hang))
        assert told(await ask(endpoint.host, endpoint.port, timeout=0.1)) == READ_TIMEOUT

    async def test_reset(self, ask: Ask, loopback: Any, told: Told) -> None:
        """A connection that is reset under a command leaves open what happened."""
        endpoint = loopback.serve(redis_saying("", then=lambda peer: peer.reset()))
        assert told(await ask(endpoint.host, endpoint.port)) == LOST

    async def test_closed(self, ask: Ask, loopback: Any, told: Told) -> None:
        """A connection that is closed under a command leaves open what happened."""
        endpoint = loopback.serve(redis_saying("", then=lambda peer: None))
        assert told(await ask(endpoint.host, endpoint.port)) == LOST

    async def test_garbage(self, ask: Ask, loopback: Any, told: Told) -> None:
        """A reply that is no Redis protocol is a broken reply."""
        endpoint = loopback.serve(redis_saying("", then=lambda peer: peer.send(b"?garbage\r\n")))
        assert told(await ask(endpoint.host, endpoint.port)) == ("interrupted", "retriable", "processed", "failure")

    @pytest.mark.parametrize("error, expected", REDIS_ERRORS, ids=[error.split()[0] for error, _ in REDIS_ERRORS])
    async def test_reply(self, ask: Ask, error: str, expected: tuple[str, ...], loopback: Any, told: Told) -> None:
        """Redis says what is wrong in the first word of its error, whatever class a client makes of it."""
        endpoint = loopback.serve(redis_saying(error))
        assert told(await ask(endpoint.host, endpoint.port)) == expected


class TestRedisPy(RedisTrouble):
    """redis-py runs on asyncio only."""

    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, object]]:
        return "asyncio", {}

    @pytest.fixture
    def ask(self) -> Ask:
        return ask_redis

    async def test_pool_exhausted(self, loopback: Any, told: Told) -> None:
        """A pool that has no connection left is ours, not the server's."""
        endpoint = loopback.serve(redis_saying("", then=loopback.hang))
        pool = redis.asyncio.ConnectionPool(host=endpoint.host, port=endpoint.port, max_connections=1)
        held = await pool.get_connection()
        async with redis.asyncio.Redis(connection_pool=pool) as client:
            with pytest.raises(redis.exceptions.MaxConnectionsError) as caught:
                await client.get("k")
        await held.disconnect()
        assert told(classify(caught.value)) == ("connection_error", "retriable", "unsent", "ignored")


class TestCoredis(RedisTrouble):
    """coredis runs on both, and wraps its errors in groups of one."""

    @pytest.fixture
    def ask(self) -> Ask:
        return ask_coredis


def ask_postgres(host: str, port: int, *, timeout: float = 5.0) -> BaseException:
    async def main() -> BaseException:
        with pytest.raises(Exception) as caught:
            connection = await asyncpg.connect(
                host=host, port=port, user="u", database="d", password="p", ssl=False, timeout=timeout
            )
            try:
                await connection.execute("select 1")
            finally:
                connection.terminate()
        return caught.value

    return asyncio.run(main())


class TestAsyncpg:
    """asyncpg tells by SQLSTATE, or lets the operating system's errors through."""

    @pytest.mark.parametrize(
        "state, expected",
        [
            ("08001", REFUSED),
            ("08006", LOST),
            ("28P01", AUTHENTICATION),
            ("3D000", ("configuration_error", "fatal", "processed", "ignored")),
            ("22001", BAD_REQUEST),
            ("23505", BAD_REQUEST),
            ("40001", CONTENTION),
            ("40P01", CONTENTION),
            ("40003", LOST),
            ("42501", DENIED),
            ("42601", BAD_REQUEST),
            ("53300", OVERLOADED),
            ("55P03", CONTENTION),
            ("57014", ("timeout", "retriable", "processed", "failure")),
            ("57P01", LOST),
            ("57P03", REFUSED),
            ("58030", SERVER),
            ("XX000", SERVER),
        ],
    )
    def test_sqlstate(self, state: str, expected: tuple[str, ...], loopback: Any, told: Told) -> None:
        """The SQLSTATE says whether to try again and whose trouble it is."""
        endpoint = loopback.serve(postgres_saying(state))
        failure = classify(ask_postgres(endpoint.host, endpoint.port))
        assert told(failure) == expected
        assert failure.code == state

    def test_refused(self, loopback: Any, told: Told) -> None:
        """A server that is down got nothing."""
        endpoint = loopback.refused()
        assert told(classify(ask_postgres(endpoint.host, endpoint.port))) == REFUSED

    def test_unknown_host(self, no_such_host: str, told: Told) -> None:
        """A name that does not resolve is told apart."""
        assert told(classify(ask_postgres(no_such_host, 5432))) == UNKNOWN_HOST

    def test_timeout(self, loopback: Any, told: Told) -> None:
        """Its plain TimeoutError does not say what timed out; the cancellation it comes from is not the caller's."""
        endpoint = loopback.serve(loopback.hang)
        assert told(classify(ask_postgres(endpoint.host, endpoint.port, timeout=0.1))) == READ_TIMEOUT

    @pytest.mark.parametrize("how", ["close", "reset"])
    def test_lost_under_a_query(self, how: str, loopback: Any, told: Told) -> None:
        """A connection that goes away under a query leaves open what happened."""
        act = (lambda peer: peer.reset()) if how == "reset" else (lambda peer: None)
        endpoint = loopback.serve(postgres_then(act))
        failure = classify(ask_postgres(endpoint.host, endpoint.port))
        assert told(failure) == LOST
        assert failure.error_type == "asyncpg.ConnectionDoesNotExistError"

    def test_connection_that_had_died(self, loopback: Any, told: Told) -> None:
        """A query on a dead connection was not sent; other misuse is the caller's."""

        async def main() -> tuple[BaseException, BaseException]:
            endpoint = loopback.serve(postgres_then(loopback.hang))
            connection = await asyncpg.connect(
                host=endpoint.host, port=endpoint.port, user="u", database="d", password="p", ssl=False
            )
            first = asyncio.ensure_future(connection.execute("select 1"))
            await asyncio.sleep(0)
            with pytest.raises(asyncpg.InterfaceError) as busy:
                await connection.execute("select 1")
            connection.terminate()
            with pytest.raises(asyncpg.PostgresConnectionError):
                await first
            with pytest.raises(asyncpg.InterfaceError) as dead:
                await connection.execute("select 1")
            return busy.value, dead.value

        busy, dead = asyncio.run(main())
        assert told(classify(dead)) == REFUSED
        assert told(classify(busy)) == ("bad_request", "invalid_input", "maybe", "ignored")
