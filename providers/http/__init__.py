"""
HTTP, protected: transports for httpx and httpx2, and the clients that carry them.

::

    client("openai", base_url="https://api.openai.com/v1")       # httpx, every request protected
    AsyncClient(transport=ResilientTransport("openai"))          # the same, for a client of your own
    AsyncOpenAI(http_client=client2("openai"), max_retries=0)    # an SDK that sits on httpx2

httpx2 is a fork with the same class names and no common base; ``ResilientTransport2`` and ``client2`` are for it, and
it is imported only by those who ask for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from providers.http._client import Client as Client
from providers.http._client import checked as checked
from providers.http._client import client as client
from providers.http._httpx import ResilientTransport as ResilientTransport

if TYPE_CHECKING:
    from providers.http._httpx2 import Client2 as Client2
    from providers.http._httpx2 import ResilientTransport2 as ResilientTransport2
    from providers.http._httpx2 import client2 as client2

__all__ = ["Client", "Client2", "ResilientTransport", "ResilientTransport2", "checked", "client", "client2"]


def __getattr__(name: str) -> object:
    if name in ("Client2", "ResilientTransport2", "client2"):
        from providers.http import _httpx2

        return getattr(_httpx2, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
