"""The HTTP client for protected calls."""

from __future__ import annotations

import anyio
import httpx
import pytest

from providers.http import checked, client
from resilience.testing import MisbehavingProvider, MisbehavingTransport, Misbehaviour, serve

pytestmark = pytest.mark.anyio


async def test_error_statuses_are_raised() -> None:
    """A checked call raises for an error status, so that it counts as a failed call."""
    site = MisbehavingProvider(Misbehaviour(errors=1), clock=anyio.current_time)
    async with client(base_url="http://uploads", transport=MisbehavingTransport(site)) as http:
        assert (await http.put("/files/a", content=b"a")).status_code == 500
        with pytest.raises(httpx.HTTPStatusError, match="500"):
            await checked(http.put)("/files/a", content=b"a")


async def test_good_answers_come_back() -> None:
    """A checked call returns the response of a success, and is called what the original is called."""
    site = MisbehavingProvider(clock=anyio.current_time)
    async with client(base_url="http://uploads", transport=MisbehavingTransport(site)) as http:
        put = checked(http.put)
        assert (await put("/files/a", content=b"a")).status_code == 201
        assert put.__name__ == "put"


@pytest.mark.real_time
async def test_the_client_never_retries() -> None:
    """One call is one request, however the connection ends: retries are made around it, and only there."""
    site = MisbehavingProvider(Misbehaviour(latency=0.0, resets=1))
    with serve(site) as url:
        async with client(base_url=url, trust_env=False) as http:
            with pytest.raises(httpx.ReadError):
                await http.put("/files/a", content=b"a")
    assert site.statistics().received == 1


@pytest.mark.real_time
async def test_connections_are_kept_for_the_next_burst() -> None:
    """After a burst of fifty, the next fifty requests need no new connection."""
    site = MisbehavingProvider(Misbehaviour(latency=0.05, spread=0.0))
    opened: list[str] = []

    async def note(event: str, _: object) -> None:
        if event == "connection.connect_tcp.complete":
            opened.append(event)

    with serve(site) as url:
        async with client(base_url=url, trust_env=False) as http:
            bursts: list[int] = []
            for _ in range(2):
                opened.clear()
                async with anyio.create_task_group() as group:
                    for number in range(50):
                        request = http.build_request("PUT", f"/files/{number}", content=b"", extensions={"trace": note})
                        group.start_soon(http.send, request)
                bursts.append(len(opened))
    assert bursts[0] > 20
    assert bursts[1] == 0
