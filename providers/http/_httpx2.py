"""The transport and the client for httpx2, a fork of httpx without a common base."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, TypeAlias, Unpack, final

from providers.http._body import Covered, Joined
from providers.http._library import Library
from providers.http._setup import TransportOptions, checked_url, protect
from providers.http._transport import IDEMPOTENT, Protected
from resilience import ProviderRegistry, ResilientProvider

try:
    import httpx2
except ImportError as error:
    raise ImportError("httpx2 is not installed: pip install 'resilient-providers[httpx2]'") from error

# As for httpx, whose module tells why.
Client2: TypeAlias = httpx2.AsyncClient

_TIMEOUT: Final = httpx2.Timeout(30.0, connect=5.0)
_PROTECTED_TIMEOUT: Final = httpx2.Timeout(None, connect=5.0, pool=5.0)
_LIMITS: Final = httpx2.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=50.0)


@final
class _Covered(Covered, httpx2.AsyncByteStream):
    """A body that holds a permit."""


@final
class _Joined(Joined, httpx2.AsyncByteStream):
    """A body of which the beginning was read already."""


_LIBRARY: Final = Library(
    response=httpx2.Response,
    status_error=httpx2.HTTPStatusError,
    transport_error=httpx2.TransportError,
    timeout=httpx2.TimeoutException,
    read_timeout=httpx2.ReadTimeout,
    pool=httpx2.AsyncHTTPTransport,
    in_memory=httpx2.ByteStream,
    covered=_Covered,
    joined=_Joined,
)


@final
class ResilientTransport2(Protected, httpx2.AsyncBaseTransport):
    """
    An httpx2 transport that sends each request as one call of a provider: `ResilientTransport` for the other library.

    ::

        AsyncOpenAI(http_client=AsyncClient(transport=ResilientTransport2("openai")), max_retries=0)

    Args:
        provider: The provider, by name or as a handle whose options hold for all requests.
        inner: Who carries the requests. Default: a pool of at most 100 connections, kept alive for 50 s.
        per_host: Whether every host (with its port) is an endpoint of its own. Default: no.
        registry: Where the state of a provider lives that is given by name. Default: the registry of this process.
        methods: The methods whose requests may be sent again although they may have arrived. Default: the idempotent
            ones.
        idempotency_key: Whether each request gets an ``Idempotency-Key`` that is the same on each attempt. Default: no.
        propagate: Whether the time left goes along in ``X-Request-Timeout-Ms``, or in a header of another name.
            Default: no.

    Raises:
        ConfigurationError: An argument makes no sense.
    """

    def __init__(
        self,
        provider: str | ResilientProvider,
        *,
        inner: httpx2.AsyncBaseTransport | None = None,
        per_host: bool = False,
        registry: ProviderRegistry | None = None,
        methods: Collection[str] = IDEMPOTENT,
        idempotency_key: bool = False,
        propagate: bool | str = False,
    ) -> None:
        super().__init__(
            _LIBRARY,
            inner if inner is not None else httpx2.AsyncHTTPTransport(limits=_LIMITS),
            provider,
            registry=registry,
            per_host=per_host,
            methods=methods,
            idempotency_key=idempotency_key,
            propagate=propagate,
        )


def client2(
    provider: str | ResilientProvider | None = None,
    *,
    base_url: str = "",
    timeout: httpx2.Timeout | float | None = _TIMEOUT,
    limits: httpx2.Limits = _LIMITS,
    transport: httpx2.AsyncBaseTransport | None = None,
    trust_env: bool = True,
    **options: Unpack[TransportOptions],
) -> Client2:
    """
    Make an httpx2 client whose requests are calls of *provider*: `client` for the other library.

    Args:
        provider: The provider, by name or as a handle. Default: None, unprotected.
        base_url: What relative URLs are relative to.
        timeout: Per phase, in seconds. Default: 5 s to connect; beyond that the provider's own timeouts, or 30 s
            for everything else where there is no provider.
        limits: How many connections. Default: at most 100, all of them kept alive for 50 s.
        transport: Who carries the requests. Default: a connection pool.
        trust_env: Whether proxies and certificates are also taken from the environment. Default: yes.
        **options: What a `ResilientTransport2` takes: *per_host*, *registry*, *methods* and so on.

    Raises:
        ConfigurationError: An argument makes no sense.
    """
    checked_url(provider)
    made = Client2(
        base_url=base_url,
        timeout=_PROTECTED_TIMEOUT if timeout is _TIMEOUT and provider is not None else timeout,
        limits=limits,
        transport=transport,
        trust_env=trust_env,
    )
    return protect(made, ResilientTransport2, provider, options)
