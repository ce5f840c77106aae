"""What httpx and httpx2 have in common: nothing but names. Everything else here is written against these."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, MutableMapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol


class Url(Protocol):
    """Where a request goes."""

    @property
    def raw_host(self) -> bytes: ...
    @property
    def port(self) -> int | None: ...


class Request(Protocol):
    """A request of either library."""

    method: str
    url: Any
    headers: Any
    stream: Any
    extensions: Any


class Body(Protocol):
    """The body of a response."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class Response(Protocol):
    """A response of either library, as a transport returns it: its body is still a stream."""

    status_code: int
    headers: Any
    stream: Any
    extensions: MutableMapping[str, Any]


class Transport(Protocol):
    """Who carries requests."""

    async def handle_async_request(self, request: Any, /) -> Any: ...
    async def aclose(self) -> None: ...
    async def __aenter__(self) -> object: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> object: ...


@dataclass(frozen=True, slots=True)
class Library:
    """
    One of the two libraries.

    Args:
        response: Its class of responses.
        status_error: What `raise_for_status` raises, made from a text, a request and a response.
        transport_error: What its clients expect of a transport that fails.
        timeout: Likewise, of one that takes too long.
        read_timeout: Likewise, of one that waits for the other side for too long.
        pool: Its own transport, which reads the timeouts of a request as it goes.
        in_memory: A body that is already here.
        covered: A body that holds a permit, made from a body and a hold.
        joined: A body of which a part was read already, made from that part and the rest.
    """

    response: Callable[..., Any]
    status_error: Any
    transport_error: type[Exception]
    timeout: type[Exception]
    read_timeout: type[Exception]
    pool: type[Any]
    in_memory: type[Any]
    covered: Callable[..., Any]
    joined: Callable[..., Any]
