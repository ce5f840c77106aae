"""The misbehaving provider behind an httpx client, in this process: no socket, so virtual time works."""

from __future__ import annotations

import errno
import http
from typing import final

import anyio
import httpx

from resilience.testing.provider import MisbehavingProvider, Reply


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
        reply = await self._exchange(request.method, request.url.path, await request.aread())
        return _response(reply, request)

    async def upload(self, name: str, body: bytes) -> None:
        """
        Upload without a client, for tests that make very many calls: no httpx object is made unless it fails.

        Raises:
            httpx.HTTPError: Whatever a client would have raised, with its `raise_for_status`.
        """
        reply = await self._exchange("PUT", f"/files/{name}", body)
        if reply is None or reply.status >= http.HTTPStatus.BAD_REQUEST:
            request = httpx.Request("PUT", f"http://provider/files/{name}", content=body)
            _response(reply, request).raise_for_status()

    async def _exchange(self, method: str, path: str, body: bytes) -> Reply | None:
        ticket = self._provider.receive(method, path)
        await anyio.sleep(ticket.action.latency)
        return self._provider.answer(ticket, body)


def _response(reply: Reply | None, request: httpx.Request) -> httpx.Response:
    if reply is None:
        reset = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        raise httpx.ReadError(str(reset), request=request) from reset
    return httpx.Response(reply.status, headers=dict(reply.headers), content=reply.body, request=request)
