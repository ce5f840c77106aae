"""Faults below an HTTP client: what httpx, or httpx2, makes of them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Self

import anyio
import httpx
import httpx2
import pytest

from resilience import Delivery, FailureKind, classify
from resilience.testing import Fault, Faults, MisbehavingProvider, MisbehavingTransport

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])]


def body(library: ModuleType, closed: list[str]) -> object:
    """A body of four chunks."""

    class Body(library.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for chunk in (b"a", b"b", b"c", b"d"):
                yield chunk

        async def aclose(self) -> None:
            closed.append("closed")

    return Body()


class Wire:
    """A transport that counts what arrives."""

    def __init__(self, library: ModuleType) -> None:
        self.library = library
        self.arrived: list[str] = []
        self.closed: list[str] = []

    def client(self, faults: Faults, **options: object) -> object:
        """A client whose requests meet *faults* before they arrive."""

        def answer(request: object) -> object:
            self.arrived.append(request.method)
            return self.library.Response(200, stream=body(self.library, self.closed))

        inner = self.library.MockTransport(answer)
        return self.library.AsyncClient(transport=faults.transport(inner), base_url="http://provider", **options)


@pytest.mark.parametrize(
    "step, name, expected, seconds",
    [
        ("error", "ReadError", (FailureKind.CONNECTION_ERROR, Delivery.MAYBE), 0),
        ("timeout", "ReadTimeout", (FailureKind.TIMEOUT, Delivery.MAYBE), 0),
        ("hang", "ReadTimeout", (FailureKind.TIMEOUT, Delivery.MAYBE), 20),
        (25, "ReadTimeout", (FailureKind.TIMEOUT, Delivery.MAYBE), 20),
        ("partition", "ConnectTimeout", (FailureKind.TIMEOUT, Delivery.UNSENT), 10),
        ("exhausted_pool", "PoolTimeout", (FailureKind.TIMEOUT, Delivery.UNSENT), 40),
        ("lost_answer", "ReadError", (FailureKind.CONNECTION_ERROR, Delivery.MAYBE), 0),
    ],
)
async def test_errors_are_the_librarys_own(
    library: ModuleType, step: object, name: str, expected: tuple[FailureKind, Delivery], seconds: float
) -> None:
    """A client sees the exception that the real thing gives, after the time-out that it has set for this."""
    wire = Wire(library)
    timeout = library.Timeout(connect=10, read=20, write=30, pool=40)
    async with wire.client(Faults.script([step]), timeout=timeout) as client:
        with pytest.raises(getattr(library, name)) as caught:
            await client.post("/", content=b"hello")
    assert anyio.current_time() == seconds
    failure = classify(caught.value)
    assert (failure.kind, failure.delivery) == expected
    assert wire.arrived == (["POST"] if step == "lost_answer" else [])
    assert len(wire.closed) == len(wire.arrived)
    assert caught.value.request.method == "POST"


async def test_bad_statuses_are_responses(library: ModuleType) -> None:
    """A client gets a response with status, hint and a body in JSON; the next request arrives."""
    wire = Wire(library)
    faults = Faults.script(["rate_limit", Fault("server_error", status=503)])
    async with wire.client(faults) as client:
        limited = await client.put("/files/a", content=b"hello", params={"key": "secret"})
        assert (limited.status_code, limited.headers["retry-after-ms"]) == (429, "1000")
        assert "injected" in limited.json()["error"]["message"]
        with pytest.raises(library.HTTPStatusError) as caught:
            (await client.get("/")).raise_for_status()
        assert classify(caught.value).status == 503
        assert (await client.get("/")).text == "abcd"
    assert wire.arrived == ["GET"]
    assert [one.target for one in faults.injected] == ["PUT http://provider/files/a", "GET http://provider/"]


async def test_bodies_are_cut(library: ModuleType) -> None:
    """A response that breaks off does so after the chunks that it was given, as an incomplete body does."""
    wire = Wire(library)
    faults = Faults(cut_after=2)
    async with wire.client(faults) as client:
        seen: list[bytes] = []
        with pytest.raises(library.RemoteProtocolError, match="without sending complete message body"):
            async with client.stream("GET", "/") as response:
                seen += [chunk async for chunk in _noting(response, seen)]
        assert seen == [b"a", b"b"]
    assert wire.closed == ["closed"]
    assert faults.kinds == ["cut"]


async def _noting(response: object, seen: list[bytes]) -> AsyncIterator[bytes]:
    async for chunk in response.aiter_raw():
        seen.append(chunk)
        if False:
            yield chunk


async def test_bodies_stall(library: ModuleType) -> None:
    """A body that pauses for less than the read time-out goes on; one that pauses for longer ends with it."""
    wire = Wire(library)
    async with wire.client(Faults(stall_after=2, stall_for=4)) as client:
        assert (await client.get("/")).text == "abcd"
        assert anyio.current_time() == 4
    async with wire.client(Faults(stall_after=2)) as client:
        with pytest.raises(library.ReadTimeout):
            await client.get("/")
        assert anyio.current_time() == 9  # after httpx's five seconds


async def test_a_client_without_time_outs_waits_for_ever(library: ModuleType) -> None:
    """Whoever has switched the time-outs off is never told."""
    wire = Wire(library)
    for step in ("hang", "partition", "exhausted_pool"):
        async with wire.client(Faults.script([step]), timeout=None) as client:
            with anyio.move_on_after(3_600) as scope:
                await client.get("/")
            assert scope.cancelled_caught


async def test_own_errors_come_out_as_they_are(library: ModuleType) -> None:
    """An error of one's own is raised instead of the library's."""
    async with Wire(library).client(Faults.script([OSError("mine")])) as client:
        with pytest.raises(OSError, match="mine"):
            await client.get("/")


async def test_the_transport_behind_is_entered_and_closed(library: ModuleType) -> None:
    """The inner transport lives as long as the client."""
    steps: list[str] = []

    class Inner(library.AsyncBaseTransport):
        async def __aenter__(self) -> Self:
            steps.append("entered")
            return self

        async def __aexit__(self, *_: object) -> None:
            steps.append("left")

        async def aclose(self) -> None:
            steps.append("closed")

    async with library.AsyncClient(transport=Faults().transport(Inner())):
        assert steps == ["entered"]
    assert steps == ["entered", "left"]
    await Faults().transport(Inner()).aclose()
    assert steps[-1] == "closed"


async def test_it_goes_together_with_a_misbehaving_provider(library: ModuleType) -> None:
    """Faults on the way to a pretended provider: what it has stored tells what arrived."""
    if library is httpx2:
        return  # the pretended provider speaks httpx
    provider = MisbehavingProvider(clock=time.monotonic)
    faults = Faults.script(["error", "lost_answer"])
    transport = faults.transport(MisbehavingTransport(provider))
    async with httpx.AsyncClient(transport=transport, base_url="http://uploads") as client:
        for name in ("a", "b"):
            with pytest.raises(httpx.ReadError):
                await client.put(f"/files/{name}", content=b"hello")
    assert set(provider.files) == {"b"}
