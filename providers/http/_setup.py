"""What making a protected client takes, whichever library it is of."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypedDict, TypeVar

from resilience import ConfigurationError, ProviderRegistry, ResilientProvider

_C = TypeVar("_C")


class TransportOptions(TypedDict, total=False):
    """What a transport takes beside its provider."""

    per_host: bool
    registry: ProviderRegistry | None
    methods: Collection[str]
    idempotency_key: bool
    propagate: bool | str


def checked_url(provider: object) -> None:
    """
    Refuse a URL where a provider belongs.

    Raises:
        ConfigurationError: It is one.
    """
    if isinstance(provider, str) and "://" in provider:
        raise ConfigurationError(f"client({provider!r}): expected a provider's name; a URL goes into base_url=")


def protect(
    client: _C, transport: Callable[..., Any], provider: str | ResilientProvider | None, options: TransportOptions
) -> _C:
    """
    Put a transport for *provider* around each one that *client* has made for itself.

    Around them instead of in their place: a client that is given a transport would not ask the environment for
    proxies any more.

    Raises:
        ConfigurationError: There are options for a transport, but no provider.
    """
    if provider is None:
        if options:
            raise ConfigurationError(f"client({', '.join(options)}=...) does nothing without a provider's name")
        return client
    inside: Any = client
    inside._transport = transport(provider, inner=inside._transport, **options)
    for pattern, mounted in inside._mounts.items():
        if mounted is not None:  # such hosts take the client's own transport
            inside._mounts[pattern] = transport(provider, inner=mounted, **options)
    return client
