"""The misbehaving provider: its script, its store, its server and its transport."""

from __future__ import annotations

import hashlib
import itertools
import logging
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest

from resilience.testing import Behaviour, MisbehavingProvider, MisbehavingTransport, Misbehaviour, serve

Trouble = tuple[object, ...]


def ticking() -> Callable[[], float]:
    """A clock that counts how often it was asked: windows then fall on the same requests in every run."""
    return itertools.count().__next__


@asynccontextmanager
async def served(provider: MisbehavingProvider) -> AsyncGenerator[httpx.AsyncClient]:
    with serve(provider) as url:
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            yield client


@asynccontextmanager
async def in_process(provider: MisbehavingProvider) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url="http://uploads", transport=MisbehavingTransport(provider)) as client:
        yield client


async def experience(client: httpx.AsyncClient, name: str, body: bytes) -> Trouble:
    """What a caller notices of one upload."""
    try:
        response = await client.put(f"/files/{name}", content=body)
    except httpx.HTTPError as error:
        return (type(error),)
    hints = {key: value for key, value in response.headers.items() if key.startswith("retry-after")}
    return (response.status_code, hints, response.json())


def test_the_same_seed_is_the_same_script() -> None:
    """Two providers with one seed treat request for request alike; another seed differs."""
    script = Misbehaviour(seed=3, errors=0.2, resets=0.1, rate_limits=0.1, tail=0.1)
    again = Misbehaviour(seed=3, errors=0.2, resets=0.1, rate_limits=0.1, tail=0.1)
    other = Misbehaviour(seed=4, errors=0.2, resets=0.1, rate_limits=0.1, tail=0.1)
    actions = [script.action(number, 0) for number in range(200)]
    assert actions == [again.action(number, 0) for number in range(200)]
    assert actions != [other.action(number, 0) for number in range(200)]


def test_shares_are_what_they_say() -> None:
    """Over many requests each kind of trouble takes the share it was given."""
    script = Misbehaviour(errors=0.2, resets=0.1, rate_limits=0.05)
    seen = Counter(script.action(number, 0).behaviour for number in range(10_000))
    assert seen[Behaviour.ERROR] == pytest.approx(2_000, rel=0.1)
    assert seen[Behaviour.RESET] == pytest.approx(1_000, rel=0.1)
    assert seen[Behaviour.RATE_LIMIT] == pytest.approx(500, rel=0.2)


def test_latencies_scatter_around_their_median() -> None:
    """Half of the answers are quicker than the median; the tail is as slow, and as rare, as asked for."""
    script = Misbehaviour(latency=0.1, spread=0.1, tail=0.02, tail_factor=20)
    latencies = sorted(script.action(number, 0).latency for number in range(10_000))
    assert latencies[5_000] == pytest.approx(0.1, rel=0.02)
    assert sum(latency > 1 for latency in latencies) == pytest.approx(200, rel=0.2)


def test_windows_begin_and_end_on_time() -> None:
    """An outage or a pause covers its begin and not its end, and an outage comes first."""
    script = Misbehaviour(outages=((10, 20),), pauses=((5, 15),))
    expected = {0: "answer", 5: "rate_limit", 9.9: "rate_limit", 10: "outage", 19.9: "outage", 20: "answer"}
    assert {now: script.action(0, now).behaviour for now in expected} == expected
    assert script.action(0, 7.5).retry_after == 7.5


@pytest.mark.parametrize(
    "wrong",
    [
        {"errors": 5},
        {"resets": -0.1},
        {"tail": float("nan")},
        {"errors": 0.6, "resets": 0.6},
        {"latency": -1},
        {"outages": ((3, 2),)},
        {"pauses": ((-1, 2),)},
    ],
    ids=str,
)
def test_nonsense_is_refused(wrong: dict[str, object]) -> None:
    """A script that cannot be followed is refused, and the field is named."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Misbehaviour(**wrong)


@pytest.mark.anyio
async def test_latency_is_virtual() -> None:
    """In process, a slow provider is slow on the virtual clock only."""
    provider = MisbehavingProvider(Misbehaviour(latency=300, spread=0), clock=anyio.current_time)
    async with in_process(provider) as client:
        await client.put("/files/a", content=b"a", timeout=None)
    assert anyio.current_time() == 300


@pytest.mark.anyio
async def test_requests_in_flight_are_lost_when_an_outage_begins() -> None:
    """A request that the outage catches is neither answered nor stored."""
    provider = MisbehavingProvider(Misbehaviour(latency=10, spread=0, outages=((5, 60),)), clock=anyio.current_time)
    with pytest.raises(httpx.ReadError):
        await MisbehavingTransport(provider).upload("a", b"a")
    assert provider.statistics().stored == 0
    assert provider.statistics().received_in_outage == 0


@pytest.mark.anyio
async def test_the_store_counts_what_reaches_it() -> None:
    """Uploads are counted, those in an outage apart; only answered ones are stored; reading is not counted."""
    provider = MisbehavingProvider(Misbehaviour(latency=1, spread=0, outages=((10, 20),)), clock=anyio.current_time)
    transport = MisbehavingTransport(provider)
    provider.start()
    await transport.upload("kept", b"content")
    await anyio.sleep(11)
    with pytest.raises(httpx.ReadError):
        await transport.upload("lost", b"content")
    async with in_process(provider) as client:
        listed = (await client.get("/files")).json()
        fetched = (await client.get("/files/kept")).content
        missing = (await client.get("/files/lost")).status_code
    assert listed == {"kept": hashlib.sha256(b"content").hexdigest()}
    assert (fetched, missing) == (b"content", 404)
    assert provider.checksum("lost") is None
    statistics = provider.statistics()
    assert (statistics.received, statistics.received_in_outage, statistics.stored) == (2, 1, 1)
    assert statistics.behaviours == {Behaviour.ANSWER: 1, Behaviour.OUTAGE: 1}


@pytest.mark.anyio
async def test_a_client_that_gives_up_leaves_nothing_behind() -> None:
    """An upload that was cancelled before its answer is not stored."""
    provider = MisbehavingProvider(Misbehaviour(latency=10, spread=0), clock=anyio.current_time)
    with anyio.move_on_after(5):
        await MisbehavingTransport(provider).upload("a", b"a")
    await anyio.sleep(60)
    assert provider.files == {}


@pytest.mark.anyio
async def test_status_errors_are_httpx_errors() -> None:
    """The light-weight upload raises what a client's ``raise_for_status`` raises."""
    provider = MisbehavingProvider(Misbehaviour(rate_limits=1, retry_after=2.5), clock=anyio.current_time)
    with pytest.raises(httpx.HTTPStatusError) as caught:
        await MisbehavingTransport(provider).upload("a", b"a")
    response = caught.value.response
    assert response.status_code == 429
    assert (response.headers["retry-after"], response.headers["retry-after-ms"]) == ("3", "2500")


@pytest.mark.anyio
@pytest.mark.real_time
async def test_server_and_transport_behave_alike() -> None:
    """The same seed gives the same experience, request for request, over a real socket and in process."""
    script = Misbehaviour(
        seed=11, latency=0.0, errors=0.2, resets=0.2, rate_limits=0.1, outages=((60, 80),), pauses=((81, 100),)
    )
    experiences: list[list[Trouble]] = []
    stored: list[dict[str, bytes]] = []
    for through in (served, in_process):
        provider = MisbehavingProvider(script, clock=ticking())
        async with through(provider) as client:
            experiences.append([await experience(client, f"file {k}", b"%d" % k) for k in range(80)])
        stored.append(provider.files)
    assert experiences[0] == experiences[1]
    assert stored[0] == stored[1]
    confirmed = {f"file {k}": b"%d" % k for k, trouble in enumerate(experiences[0]) if trouble[0] == 201}
    assert stored[0] == confirmed
    assert {trouble[0] for trouble in experiences[0]} == {201, 429, 500, httpx.ReadError}


@pytest.mark.anyio
@pytest.mark.real_time
async def test_the_server_serves_many_at_once() -> None:
    """Concurrent uploads over real sockets all arrive whole."""
    provider = MisbehavingProvider(Misbehaviour(latency=0.001))
    bodies = {f"file-{k}": bytes([k]) * 10_000 * k for k in range(60)}
    async with served(provider) as client, anyio.create_task_group() as group:
        for name, body in bodies.items():
            group.start_soon(experience, client, name, body)
    assert provider.files == bodies


@pytest.mark.anyio
@pytest.mark.real_time
async def test_the_server_understands_streams() -> None:
    """A body of unknown length, sent in chunks, arrives whole."""

    async def chunks() -> AsyncGenerator[bytes]:
        for part in (b"one ", b"two ", b"three"):
            yield part

    provider = MisbehavingProvider(Misbehaviour(latency=0))
    async with served(provider) as client:
        response = await client.put("/files/stream", content=chunks(), headers={"connection": "close"})
    assert response.json()["sha256"] == hashlib.sha256(b"one two three").hexdigest()
    assert provider.files == {"stream": b"one two three"}


@pytest.mark.anyio
@pytest.mark.real_time
async def test_the_server_forgets_a_client_that_left() -> None:
    """An upload whose client hangs up before the answer is not stored."""
    provider = MisbehavingProvider(Misbehaviour(latency=0.2, spread=0))
    async with served(provider) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.put("/files/a", content=b"a", timeout=0.05)
        await client.put("/files/b", content=b"b")
    assert provider.files == {"b": b"b"}


@pytest.mark.parametrize("rubbish", [b"hello\r\n\r\n", b"PUT /files/a HTTP/1.1\r\ncontent-length: -5\r\n\r\n"])
def test_rubbish_is_hung_up_on(rubbish: bytes) -> None:
    """What is no HTTP request ends that connection and harms nobody else."""
    with serve(MisbehavingProvider()) as url:
        address = ("127.0.0.1", httpx.URL(url).port or 0)
        with socket.create_connection(address, timeout=5) as connection:
            connection.sendall(rubbish)
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
        assert httpx.get(f"{url}/files", trust_env=False).json() == {}


@pytest.mark.parametrize("method, path, status", [("PUT", "/elsewhere", 404), ("DELETE", "/files/a", 405)])
def test_only_uploads_are_understood(method: str, path: str, status: int) -> None:
    """Another path or method is answered with what is wrong."""
    with serve(MisbehavingProvider(Misbehaviour(latency=0))) as url:
        response = httpx.request(method, f"{url}{path}", trust_env=False)
    assert response.status_code == status
    assert "PUT /files/<name>" in response.text


def test_a_taken_port_is_an_error() -> None:
    """Serving where somebody else listens raises at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(OSError):
        serve(MisbehavingProvider(), port=listener.getsockname()[1]).__enter__()


def test_httpx_is_loaded_for_the_transport_only() -> None:
    """The testing tools do not load httpx until the transport is asked for; a slip is an AttributeError."""
    program = (
        "import sys, resilience.testing as testing; early = 'httpx' in sys.modules; "
        "testing.MisbehavingTransport; print(early, 'httpx' in sys.modules, hasattr(testing, 'Misbehaving'))"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["False", "True", "False"]


@pytest.mark.anyio
@pytest.mark.real_time
async def test_the_server_stops_while_it_is_busy(caplog: pytest.LogCaptureFixture) -> None:
    """Leaving the block with requests in flight ends them at once, and leaves nothing in any log."""
    provider = MisbehavingProvider(Misbehaviour(latency=3600.0))
    async with served(provider) as client, anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(experience, client, f"file-{number}", b"")
        while len(provider.arrivals) < 10:
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert provider.files == {}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
