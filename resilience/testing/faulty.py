"""Faults between an HTTP client and its transport: they arrive as the library's own errors, and as responses."""

from __future__ import annotations

import errno
import functools
import json
import math
import sys
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any, Protocol, TypeAlias, final

import anyio
import httpx

from resilience.testing._around import Turn
from resilience.testing.fault import FaultKind, system_error


class _Transport(Protocol):
    """A transport of httpx, or of httpx2."""

    async def handle_async_request(self, request: Any, /) -> Any: ...
    async def aclose(self) -> None: ...


AnyTransport: TypeAlias = _Transport


@final
class FaultyTransport(httpx.AsyncBaseTransport):
    """
    Lets requests through to *inner*, or not. Made by `Faults.transport`.

    Whether a request came from httpx or from httpx2 is seen from the request itself.
    """

    def __init__(self, inner: AnyTransport, turn: Any) -> None:
        if not hasattr(inner, "handle_async_request"):
            raise TypeError(f"transport() goes around an async transport of httpx, not {type(inner).__name__}")
        self._inner = inner
        self._turn = turn

    async def handle_async_request(self, request: Any) -> Any:
        """
        Let the request meet its fault.

        Raises:
            httpx.TransportError: What the fault looks like to a client.
        """
        exchange = _Exchange(request, self._turn(f"{request.method} {request.url.copy_with(query=None)}"))
        response = await exchange.instead()
        if response is not None:
            return response
        return await exchange.answered(await self._inner.handle_async_request(request))

    async def aclose(self) -> None:
        """Close the transport behind."""
        await self._inner.aclose()

    async def __aenter__(self) -> FaultyTransport:
        enter = getattr(self._inner, "__aenter__", None)
        if enter is not None:
            await enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        leave = getattr(self._inner, "__aexit__", None)
        await (self.aclose() if leave is None else leave(kind, error, traceback))


@final
class _Exchange:
    """One request, and what happens to it."""

    def __init__(self, request: Any, turn: Turn) -> None:
        self._request = request
        self._turn = turn
        self._library: Any = sys.modules[type(request).__module__.partition(".")[0]]
        self._timeouts: dict[str, float | None] = request.extensions.get("timeout", {})

    async def instead(self) -> Any:
        """Return the response that comes in place of the provider's; None if the request gets through."""
        fault = self._turn.fault
        self._turn.announce()
        await self._hold_up(fault.latency)
        if fault.kind is FaultKind.HANG:
            await self._hold_up(math.inf)
        elif fault.kind is FaultKind.PARTITION:
            await self._in_vain("connect", "ConnectTimeout")
        elif fault.kind is FaultKind.EXHAUSTED_POOL:
            await self._in_vain("pool", "PoolTimeout")
        elif fault.kind is FaultKind.TIMEOUT:
            raise self._error("ReadTimeout", "")
        elif fault.kind is FaultKind.ERROR:
            raise self._broken("ReadError")
        elif fault.answer is not None:
            return await self._refusal(*fault.answer)
        return None

    async def answered(self, response: Any) -> Any:
        """Do what happens to the provider's response."""
        fault = self._turn.fault
        if fault.kind is FaultKind.LOST_ANSWER:
            await response.aclose()
            raise self._broken("ReadError")
        if not fault.of_streams:
            return response
        body = _body_class(self._library)(response.stream, self)
        return self._library.Response(
            response.status_code, headers=response.headers, stream=body, extensions=response.extensions
        )

    async def before_chunk(self, number: int) -> None:
        """Do what happens to the body before its chunk *number*, counted from 0."""
        fault = self._turn.fault
        if number != fault.items:
            return
        self._turn.record(fault.kind)
        if fault.kind is FaultKind.CUT:
            raise self._broken("RemoteProtocolError", "peer closed connection without sending complete message body")
        await self._hold_up(fault.lasts)

    async def _hold_up(self, seconds: float) -> None:
        """Answer *seconds* late, which is too late for those who wait for less."""
        patience = self._timeouts.get("read")
        if patience is not None and seconds > patience:
            await anyio.sleep(patience)
            raise self._error("ReadTimeout", "")
        if seconds:
            await (anyio.sleep_forever() if seconds == math.inf else anyio.sleep(seconds))

    async def _in_vain(self, timeout: str, name: str) -> None:
        patience = self._timeouts.get(timeout)
        fault = self._turn.fault
        if patience is None and self._timeouts:
            await anyio.sleep_forever()  # the client has switched this time-out off
        await anyio.sleep(fault.lasts if patience is None else patience)
        raise self._error(name, "")

    async def _refusal(self, status: int, headers: dict[str, str]) -> Any:
        await self._request.aread()  # a server has read what it answers
        body = json.dumps({"error": {"message": f"injected into call {self._turn.call}"}}).encode()
        headers = {"content-type": "application/json", **headers}
        return self._library.Response(status, headers=headers, content=body, request=self._request)

    def _broken(self, name: str, text: str = "") -> BaseException:
        """Return the error of a connection that broke, or the one that was asked for."""
        call = self._turn.call
        reset = system_error(errno.ECONNRESET, "Connection reset by peer", call)
        error = self._turn.fault.made(lambda: self._error(name, text or str(reset)))
        if error.__cause__ is None and isinstance(error, self._library.ReadError):
            error.__cause__ = reset
        return error

    def _error(self, name: str, text: str) -> BaseException:
        kind = getattr(self._library, name)
        error: BaseException = kind(text or f"injected into call {self._turn.call}", request=self._request)
        return error


@functools.cache
def _body_class(library: Any) -> Any:
    """Make the class of bodies for one library: its client insists on a base class of its own."""

    class FaultyBody(library.AsyncByteStream):  # type: ignore[misc]  # httpx's or httpx2's
        def __init__(self, source: Any, exchange: _Exchange) -> None:
            self._source = source
            self._exchange = exchange

        async def __aiter__(self) -> Any:
            chunks = aiter(self._source)
            try:
                number = 0
                async for chunk in chunks:
                    await self._exchange.before_chunk(number)
                    yield chunk
                    number += 1
                await self._exchange.before_chunk(number)
            finally:
                if isinstance(chunks, AsyncGenerator):
                    await chunks.aclose()

        async def aclose(self) -> None:
            await self._source.aclose()

    return FaultyBody
