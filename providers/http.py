"""httpx, set up to be protected: what retries, waits and gives up is the resilience around it."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec, TypeAlias

import httpx

Client: TypeAlias = httpx.AsyncClient

_P = ParamSpec("_P")

# The attempt timeout around a call is what decides. These are for calls that nobody protects, except `connect`:
# a host that does not answer within seconds is not going to.
_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)

# Connections are kept for every request that may run at once, not httpx's 20: after a burst the next one must not
# pay for new handshakes. They are dropped before the 60 seconds after which common load balancers drop them.
_LIMITS: Final = httpx.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=50.0)


def client(
    base_url: str = "",
    *,
    timeout: httpx.Timeout | float | None = _TIMEOUT,
    limits: httpx.Limits = _LIMITS,
    transport: httpx.AsyncBaseTransport | None = None,
    trust_env: bool = True,
) -> Client:
    """
    Make an HTTP client for protected calls: it never retries by itself, so attempts do not multiply.

    Args:
        base_url: What relative URLs are relative to.
        timeout: Per phase, in seconds. Default: 5 s to connect, 30 s for everything else.
        limits: How many connections. Default: at most 100, all of them kept alive for 50 s.
        transport: Who carries the requests. Default: a connection pool.
        trust_env: Whether proxies and certificates are also taken from the environment. Default: yes.
    """
    return Client(base_url=base_url, timeout=timeout, limits=limits, transport=transport, trust_env=trust_env)


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
