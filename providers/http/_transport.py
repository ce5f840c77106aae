"""
What both transports do: each request is one call of a provider.

==============================  ===================================================================================
a request                       is tried again after
==============================  ===================================================================================
of an idempotent method, or     every failure that is worth it: errors of the network, timeouts, statuses such as
with an ``Idempotency-Key``     429 and 503
any other, or with a body that  only what was surely not sent, such as a refused connection
can be read but once
==============================  ===================================================================================

An error status is a failed attempt, but after the last one the response itself goes back to the client, as without us.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any, Final, NamedTuple, cast

import resilience
from providers.http._ahead import read_ahead
from providers.http._errors import as_transport_error
from providers.http._library import Library, Request, Response, Transport, Url
from resilience import ConfigurationError, ProviderRegistry, ResilienceError, ResilientProvider, failure_of

_log = logging.getLogger("resilience.http")

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})

_KEY: Final = "Idempotency-Key"
_DEADLINE: Final = "X-Request-Timeout-Ms"
_EXTENSION: Final = "resilience"
_RETRY_COUNT: Final = "x-stainless-retry-count"
_FIRST_ERROR: Final = 400
_BODILESS: Final = frozenset({204, 304})
_MOST_HOSTS: Final = 1024
_LOOKS: Final = 100  # after a failure so many requests are looked at for signs of an SDK's own retries

# A client that waits for a connection of its own pool says nothing about the provider, and httpx's PoolTimeout tells
# so. It has to come before our own timeout, which is evidence.
_POOL_SHARE: Final = 0.9
_COVERED: Final = ("read", "write")  # what lies within an attempt anyway

_ANSWER: Final = "__resilience_answer__"  # on an error: the response that it stands for
_OPEN: Final = "__resilience_open__"  # on a request: responses that still have to be closed


class _Views(NamedTuple):
    """One provider's handles, for requests that may be sent again and for those that may not."""

    again: ResilientProvider
    once: ResilientProvider


class Protected:
    """
    A transport whose requests go through a provider.

    Args:
        library: httpx or httpx2.
        inner: Who carries the requests.
        provider: The provider, by name or as a handle, whose options then hold for all requests.
        registry: Where the state of a provider lives that is given by name. Default: the registry of this process.
        per_host: Whether every host (with its port) is an endpoint of its own: own circuit, window and limits.
        methods: The methods whose requests may be sent again although they may have arrived.
        idempotency_key: Whether each request gets an ``Idempotency-Key`` that stays the same on each attempt.
        propagate: Whether the time that is left goes along: True, in ``X-Request-Timeout-Ms``; or the header's name.
    """

    def __init__(
        self,
        library: Library,
        inner: Transport,
        provider: str | ResilientProvider,
        *,
        registry: ProviderRegistry | None,
        per_host: bool,
        methods: Collection[str],
        idempotency_key: bool,
        propagate: bool | str,
    ) -> None:
        self._library = library
        self._inner = inner
        self._by_name = isinstance(provider, str)  # a handle may have an attempt timeout of its own
        self._native = isinstance(inner, library.pool)
        self._in_memory = library.in_memory
        self._covered = library.covered
        self._per_host = per_host
        self._registry = registry
        self._methods = _checked_methods(methods)
        self._makes_keys = idempotency_key
        self._deadline_header = _DEADLINE if propagate is True else propagate or None
        self._options: dict[str, Any] = {}
        if idempotency_key:
            self._options["idempotency_key"] = True
        if self._deadline_header:
            self._options["propagate"] = True
        self._handle = _handle_on(provider, registry, per_host=per_host)
        self._views = self._views_of(self._handle)
        self._again = self._views.again
        self._hosts: dict[str, _Views] = {}
        self._warned = False
        self._suspicions = 0

    async def handle_async_request(self, request: Any) -> Any:
        """Send *request* as one call of the provider, and return the answer, whatever its status."""
        extensions = request.extensions
        settings = self._handle.settings
        given = extensions.get("timeout", {})
        read, gap = given.get("read"), settings.stream.idle
        if read is not None and gap is not None and read <= gap:
            gap = None
        # A copy, for inside only: the request stays as it was for whoever made it.
        timeouts = dict(given)
        if (attempt := settings.timeout.attempt) is not None and settings.enabled:
            exact = self._by_name and _EXTENSION not in extensions
            _reconcile(timeouts, attempt, phases=_COVERED if exact else ())
        request.extensions = {**extensions, "timeout": timeouts}
        try:
            usual = not (self._per_host or self._suspicions or _EXTENSION in extensions)
            if usual and request.method in self._methods and isinstance(request.stream, self._in_memory):
                hold: Any = await self._again.hold(self._send, request)
            else:
                hold = await self._view(request).hold(self._send, request)
        except Exception as error:
            refusal = await self._answer_for(request, error)
            if refusal is not None:
                return refusal
            if isinstance(error, ResilienceError):
                raise as_transport_error(error, self._library) from error.__cause__
            raise
        finally:
            request.extensions = extensions
            if _OPEN in vars(request):
                await _discard(request, None)
        answer: Any = hold.value
        timeouts["read"] = read if gap is None else gap  # httpx looks at it again when the body is read
        body = answer.stream
        if answer.status_code in _BODILESS or request.method == "HEAD" or isinstance(body, self._in_memory):
            hold.end(slow=hold.slow)
        else:
            hold.value = None  # or the response would hold itself, and one that is forgotten would stay
            answer.stream = self._covered(body, hold, gap, self._library, by_us=not self._native)
        return answer

    async def _answer_for(self, request: Request, error: Exception) -> Response | None:
        """Return the response that *error* stands for, if there is one."""
        self._suspicions = _LOOKS
        answer = _answer_in(error)
        await _discard(request, answer)
        return answer

    async def aclose(self) -> None:
        """Close the transport inside."""
        await self._inner.aclose()

    async def __aenter__(self) -> Any:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._inner.__aexit__(kind, error, traceback)

    # -- what a request is entitled to -----------------------------------------------------------------------------

    def _view(self, request: Request) -> ResilientProvider:
        views = self._views_for_host(request.url) if self._per_host else self._views
        if self._suspicions:
            self._look_for_retries(request)
        again = self._may_be_repeated(request)
        given = request.extensions.get(_EXTENSION)
        if given is None:
            return views.again if again else views.once
        if not isinstance(given, Mapping):
            raise ConfigurationError(
                f"extensions={{'resilience': {given!r}}}: expected the arguments of with_options, as a dict"
            )
        return (views.again if again else views.once).with_options(**cast("Mapping[str, Any]", given))

    def _may_be_repeated(self, request: Request) -> bool:
        harmless = request.method in self._methods or self._makes_keys or _KEY in request.headers
        return harmless and self._is_replayable(request.stream)

    def _is_replayable(self, body: object) -> bool:
        """Whether *body* can be read again: it is in memory, or a form whose files can be rewound."""
        if isinstance(body, self._library.in_memory):
            return True
        fields: Any = getattr(body, "fields", None)
        return isinstance(fields, list) and all(_rewinds(getattr(field, "file", b"")) for field in cast("Any", fields))

    def _views_for_host(self, url: Url) -> _Views:
        host = endpoint_of(url)
        views = self._hosts.get(host)
        if views is None:
            if len(self._hosts) >= _MOST_HOSTS:  # the state is the registry's, which bounds it by what it is worth
                del self._hosts[next(iter(self._hosts))]
            handle = ResilientProvider(self._handle.name, endpoint=host, registry=self._registry)
            views = self._hosts[host] = self._views_of(handle)
        return views

    def _views_of(self, handle: ResilientProvider) -> _Views:
        return _Views(
            handle.with_options(idempotent=True, **self._options),
            handle.with_options(idempotent=False, **self._options),
        )

    def _look_for_retries(self, request: Request) -> None:
        """Warn of an SDK that sends again what has failed here. Reading headers is dear, so only after a failure."""
        self._suspicions -= 1
        if not self._warned and request.headers.get(_RETRY_COUNT, "0") != "0":
            self._warned = True
            _log.warning(
                "%s: the SDK retries by itself, so that attempts multiply: give it max_retries=0",
                self._handle.name,
                extra={"component": "http", "provider": self._handle.name},
            )

    # -- one attempt -----------------------------------------------------------------------------------------------

    def _prepare(self, request: Request) -> None:
        """Write into the headers what belongs to this attempt."""
        if self._makes_keys and _KEY not in request.headers and (key := resilience.idempotency_key()) is not None:
            request.headers[_KEY] = key
        if self._deadline_header is not None and (deadline := resilience.deadline()) is not None:
            request.headers[self._deadline_header] = str(max(0, math.floor(deadline.remaining() * 1000)))

    async def _send(self, request: Request) -> Response:
        if _OPEN in vars(request):
            await _discard(request, None)  # its connection may be the one that this attempt needs
        if self._options:
            self._prepare(request)
        response: Response = await self._inner.handle_async_request(request)
        if response.status_code < _FIRST_ERROR:
            return response
        raise await self._refused(request, response)

    async def _refused(self, request: Request, response: Response) -> Exception:
        """Return an error that holds *response*, with as much of its body as it takes to judge it."""
        library = self._library
        judged = await read_ahead(response, library)
        if not isinstance(response.stream, library.in_memory):
            vars(request).setdefault(_OPEN, []).append(response)
        error: Exception = library.status_error(f"status {response.status_code}", request=request, response=judged)
        vars(error)[_ANSWER] = response
        return error


def _reconcile(timeouts: dict[str, float | None], attempt: float, *, phases: Collection[str]) -> None:
    """
    Fit a client's *timeouts* to the attempt's, in place.

    One that is not shorter would never fire; without it there is one timer less, and no question whose it was.
    """
    pool = timeouts.get("pool")
    if pool is None or pool >= attempt:
        timeouts["pool"] = attempt * _POOL_SHARE
    for phase in phases:
        limit = timeouts.get(phase)
        if limit is not None and limit >= attempt:
            timeouts[phase] = None


async def _discard(request: Request, answer: Response | None) -> None:
    """Close the responses of earlier attempts whose bodies were too long to be read ahead, but for the *answer*."""
    for response in vars(request).pop(_OPEN, ()):
        if response is not answer:
            await response.stream.aclose()


def endpoint_of(url: Url) -> str:
    """Return the host and the port of *url* in the letters of an endpoint's name."""
    host = url.raw_host.decode("ascii", "replace")
    return re.sub(r"[^A-Za-z0-9_.:-]", "-", host if url.port is None else f"{host}:{url.port}")


def _answer_in(error: BaseException) -> Response | None:
    """Return the response that *error* stands for, with what it was taken for."""
    for one in (error, error.__cause__):  # ours, if errors="standard" has replaced it
        answer: Response | None = vars(one).get(_ANSWER) if one is not None else None
        if answer is not None:
            answer.extensions[_EXTENSION] = failure_of(error)
            return answer
    return None


def _rewinds(file: Any) -> bool:
    return isinstance(file, (str, bytes)) or (callable(getattr(file, "seekable", None)) and bool(file.seekable()))


def _checked_methods(methods: Collection[str]) -> frozenset[str]:
    given: object = methods
    if isinstance(given, str) or not all(isinstance(method, str) and method.isupper() for method in methods):
        raise ConfigurationError(f"methods={methods!r}: expected names in capitals, such as {{'GET', 'POST'}}")
    return frozenset(methods)


def _handle_on(
    provider: str | ResilientProvider, registry: ProviderRegistry | None, *, per_host: bool
) -> ResilientProvider:
    if isinstance(provider, ResilientProvider):
        if per_host or registry is not None:
            raise ConfigurationError(
                f"{provider!r} is a handle already: per_host=True and registry= go with the provider's name"
            )
        return provider
    return ResilientProvider(provider, registry=registry)
