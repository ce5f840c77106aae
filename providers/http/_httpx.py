"""The transport for httpx."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, final

import httpx

from providers.http._body import Covered, Joined
from providers.http._library import Library
from providers.http._transport import IDEMPOTENT, Protected
from resilience import ProviderRegistry, ResilientProvider

# Connections are kept for every request that may run at once, not httpx's 20: after a burst the next one must not
# pay for new handshakes. They are dropped before the 60 seconds after which common load balancers drop them.
LIMITS: Final = httpx.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=50.0)


@final
class _Covered(Covered, httpx.AsyncByteStream):
    """A body that holds a permit."""


@final
class _Joined(Joined, httpx.AsyncByteStream):
    """A body of which the beginning was read already."""


_LIBRARY: Final = Library(
    response=httpx.Response,
    status_error=httpx.HTTPStatusError,
    transport_error=httpx.TransportError,
    timeout=httpx.TimeoutException,
    read_timeout=httpx.ReadTimeout,
    pool=httpx.AsyncHTTPTransport,
    in_memory=httpx.ByteStream,
    covered=_Covered,
    joined=_Joined,
)


@final
class ResilientTransport(Protected, httpx.AsyncBaseTransport):
    """
    An httpx transport that sends each request as one call of a provider.

    ::

        AsyncClient(transport=ResilientTransport("openai"))

    Requests of idempotent methods, and those with an ``Idempotency-Key``, are tried again as the provider's settings
    have it; others only when they surely were not sent. After the last attempt the client gets the response as it is,
    whatever its status. The permit stays with the response until its body was read or closed.

    What we raise ourselves is an ``httpx.TransportError`` too (a timeout an ``httpx.TimeoutException``), so an SDK
    makes its own connection error of it. Turn off the retries of an SDK with ``max_retries=0``, or attempts multiply.

    A single request changes its options by ``extensions={"resilience": {"operation": "embeddings"}}``: the arguments
    of `with_options`.

    Args:
        provider: The provider, by name or as a handle whose options hold for all requests.
        inner: Who carries the requests. Default: a pool of at most 100 connections, kept alive for 50 s.
        per_host: Whether every host (with its port) is an endpoint of its own: own circuit, window and limits.
            Default: no.
        registry: Where the state of a provider lives that is given by name. Default: the registry of this process.
        methods: The methods whose requests may be sent again although they may have arrived. Default: the idempotent
            ones. Add ``"POST"`` where repeating one does no harm, as with an LLM's answers.
        idempotency_key: Whether each request gets an ``Idempotency-Key`` that is the same on each attempt, and may so
            be sent again. Default: no, as not every provider knows it.
        propagate: Whether the milliseconds that are left for the call go along in a header: True, in
            ``X-Request-Timeout-Ms``; a text, in the header of that name. Default: no.

    Raises:
        ConfigurationError: An argument makes no sense.
    """

    def __init__(
        self,
        provider: str | ResilientProvider,
        *,
        inner: httpx.AsyncBaseTransport | None = None,
        per_host: bool = False,
        registry: ProviderRegistry | None = None,
        methods: Collection[str] = IDEMPOTENT,
        idempotency_key: bool = False,
        propagate: bool | str = False,
    ) -> None:
        super().__init__(
            _LIBRARY,
            inner if inner is not None else httpx.AsyncHTTPTransport(limits=LIMITS),
            provider,
            registry=registry,
            per_host=per_host,
            methods=methods,
            idempotency_key=idempotency_key,
            propagate=propagate,
        )
