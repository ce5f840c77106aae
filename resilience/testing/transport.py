"""The misbehaving provider behind an httpx client, in this process: no socket, so virtual time works."""

from __future__ import annotations

import errno
from typing import final

import anyio
import httpx

from resilience.testing.provider import MisbehavingProvider


@final
class MisbehavingTransport(httpx.AsyncBaseTransport):
    """
    Carries requests to a `MisbehavingProvider` in this process, and trouble back as httpx's own exceptions.

    ::

        provider = MisbehavingProvider(Misbehaviour(errors=0.1), clock=anyio.current_time)
        async with httpx.AsyncClient(transport=MisbehavingTransport(provider), base_url="http://uploads") as client:
            await client.put("/files/a.txt", content=b"a")

    Args:
        provider: Who answers.
    """

    def __init__(self, provider: MisbehavingProvider) -> None:
        self._provider = provider

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Let the provider answer.

        Raises:
            httpx.ReadError: The provider reset the connection.
        """
        body = await request.aread()
        ticket = self._provider.receive(request.method, request.url.path)
        await anyio.sleep(ticket.action.latency)
        reply = self._provider.answer(ticket, body)
        if reply is None:
            reset = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
            raise httpx.ReadError(str(reset), request=request) from reset
        return httpx.Response(reply.status, headers=dict(reply.headers), content=reply.body, request=request)

    async def upload(self, name: str, body: bytes) -> httpx.Response:
        """
        Upload without the weight of a client, for tests that make very many calls.

        Raises:
            httpx.HTTPError: Whatever a client would have raised.
        """
        request = httpx.Request("PUT", f"http://provider/files/{name}", content=body)
        return (await self.handle_async_request(request)).raise_for_status()
