"""httpx, set up to be protected: what retries, waits and gives up is the resilience around it."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec, TypeAlias, Unpack

import httpx

from providers.http._httpx import LIMITS, ResilientTransport
from providers.http._setup import TransportOptions, checked_url, protect
from resilience import ResilientProvider

Client: TypeAlias = httpx.AsyncClient

_P = ParamSpec("_P")

# For calls that nobody protects, except `connect`: a host that does not answer within seconds is not going to.
_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)
# The attempt timeout is what decides, then. It must not find a request that still waits for a connection of ours.
_PROTECTED_TIMEOUT: Final = httpx.Timeout(None, connect=5.0, pool=5.0)


def client(
    provider: str | ResilientProvider | None = None,
    *,
    base_url: str = "",
    timeout: httpx.Timeout | float | None = _TIMEOUT,
    limits: httpx.Limits = LIMITS,
    transport: httpx.AsyncBaseTransport | None = None,
    trust_env: bool = True,
    **options: Unpack[TransportOptions],
) -> Client:
    """
    Make an HTTP client whose requests are calls of *provider*, each with all of its resilience.

    Without a provider it is a client for calls that are protected around it: it never retries by itself, so attempts
    do not multiply.

    Args:
        provider: The provider, by name or as a handle. Default: None, unprotected.
        base_url: What relative URLs are relative to.
        timeout: Per phase, in seconds. Default: 5 s to connect; beyond that the provider's own timeouts, or 30 s
            for everything else where there is no provider.
        limits: How many connections. Default: at most 100, all of them kept alive for 50 s.
        transport: Who carries the requests. Default: a connection pool.
        trust_env: Whether proxies and certificates are also taken from the environment. Default: yes.
        **options: What a `ResilientTransport` takes: *per_host*, *registry*, *methods* and so on.

    Raises:
        ConfigurationError: An argument makes no sense.
    """
    checked_url(provider)
    made = Client(
        base_url=base_url,
        timeout=_PROTECTED_TIMEOUT if timeout is _TIMEOUT and provider is not None else timeout,
        limits=limits,
        transport=transport,
        trust_env=trust_env,
    )
    return protect(made, ResilientTransport, provider, options)


def checked(send: Callable[_P, Awaitable[httpx.Response]]) -> Callable[_P, Awaitable[httpx.Response]]:
    """
    Make *send* raise where it would return an error status, so that a failed call looks like one.

    ::

        await provider.execute(checked(client.put), "/files/report.pdf", content=body)

    Args:
        send: ``client.get``, ``client.put`` or alike.

    Raises:
        httpx.HTTPStatusError: From the returned function: the status was not a success.
    """

    @functools.wraps(send)
    async def checked_send(*args: _P.args, **kwargs: _P.kwargs) -> httpx.Response:
        return (await send(*args, **kwargs)).raise_for_status()

    return checked_send
