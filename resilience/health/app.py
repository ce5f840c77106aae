"""
Health over HTTP: an ASGI app without a framework, for any server, and to be mounted in any other app.

===============================  ==========================================================================
``/health``                      the whole with every component; 503 if it fails
``/health/ready``, ``/readyz``   the same with those that are unwell only
``/health/live``, ``/livez``     200 as long as there is somebody to answer, whatever the checks say
``/health/providers``            every provider with its figures; always 200
``/health/providers/{name}``     one of them; 503 if it fails
``/metrics``                     metrics as Prometheus reads them, ``?name[]=`` picks some
===============================  ==========================================================================

``/health`` and ``/metrics`` are settings, ``health.path`` and ``metrics.path``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final, NamedTuple, TypeAlias, final
from urllib.parse import parse_qs

import anyio.to_thread

from resilience.errors import ConfigurationError
from resilience.health import documents
from resilience.health.documents import Json
from resilience.health.health import Health

_log = logging.getLogger("resilience.health")

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

HEALTH_JSON: Final = "application/health+json"
LIVE: Final = "/livez"
READY: Final = "/readyz"
PROVIDERS: Final = "/providers"

_JSON: Final = "application/json"
_TEXT: Final = "text/plain; charset=utf-8"
_METHODS: Final = ("GET", "HEAD")


class _Answer(NamedTuple):
    status: HTTPStatus
    body: bytes
    media_type: str = HEALTH_JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


_Responder: TypeAlias = Callable[[Scope], Awaitable[_Answer]]
_Page: TypeAlias = Callable[["HealthApp", Scope], Awaitable[_Answer]]


@final
class HealthApp:
    """
    Answers probes.

    Args:
        health: What it tells of.
        metrics: Whether it tells metrics, too. Default: as the settings have it, ``metrics.enabled``.
    """

    __slots__ = ("_health", "_metrics")

    def __init__(self, health: Health, *, metrics: bool | None = None) -> None:
        self._health = health
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Serve one connection, as ASGI has it.

        Raises:
            ValueError: It is of a kind that has nothing to do with HTTP.
        """
        match scope["type"]:
            case "http":
                await _send(send, await self._answer(scope), with_body=scope["method"] != "HEAD")
            case "lifespan":
                await self._live(receive, send)
            case "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1000})
            case other:
                raise ValueError(f"this app speaks HTTP, not {other!r}")

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self._health.lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope) -> _Answer:
        for path in _paths(scope):
            responder = self._responder(path)
            if responder is not None:
                return await responder(scope) if scope["method"] in _METHODS else _refused()
        return _not_found({"error": "there is nothing here", "paths": [*self._known()]})

    def _responder(self, path: str) -> _Responder | None:
        base = self._base
        below = path[len(base) :] if path == base or path.startswith(f"{base}/") else None
        found = _PROBES.get(path) or (None if below is None else _PAGES.get(below))
        if found is not None:
            return partial(found, self)
        if below is not None and below.startswith(f"{PROVIDERS}/"):
            return partial(self._provider, below[len(PROVIDERS) + 1 :])
        metrics = self._health.registry.settings.metrics
        return self._exposition if self._tells_metrics and path == metrics.path.rstrip("/") else None

    def _known(self) -> Iterator[str]:
        """Return every path that there is."""
        pages = (*_PAGES, f"{PROVIDERS}/{{name}}")
        yield from (f"{self._base}{page}" or "/" for page in pages)
        yield from _PROBES
        if self._tells_metrics:
            yield self._health.registry.settings.metrics.path

    @property
    def _base(self) -> str:
        return self._health.settings.path.rstrip("/")

    @property
    def _tells_metrics(self) -> bool:
        return self._health.registry.settings.metrics.enabled if self._metrics is None else self._metrics

    async def _whole(self, _: Scope) -> _Answer:
        return await self._verdict(everything=True)

    async def _ready(self, _: Scope) -> _Answer:
        return await self._verdict(everything=False)

    async def _verdict(self, *, everything: bool) -> _Answer:
        report = await self._health.refresh()
        document = documents.whole(self._health, report, everything=everything)
        status = HTTPStatus.OK if report.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return _Answer(status, documents.dumped(document))

    async def _alive(self, _: Scope) -> _Answer:
        return _Answer(HTTPStatus.OK, documents.dumped(documents.live(self._health)))

    async def _providers(self, _: Scope) -> _Answer:
        # Data, not a verdict: the health format would have its code follow the status.
        return _Answer(HTTPStatus.OK, documents.dumped(documents.providers(self._health)), _JSON)

    async def _provider(self, name: str, _: Scope) -> _Answer:
        found = documents.provider(self._health, name)
        if found is None:
            return _not_found(
                {"error": "no provider of that name has been used here", "providers": f"{self._base}{PROVIDERS}"}
            )
        status = HTTPStatus.SERVICE_UNAVAILABLE if found["status"] == "fail" else HTTPStatus.OK
        return _Answer(status, documents.dumped(found))

    async def _exposition(self, scope: Scope) -> _Answer:
        names = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("name[]", [])
        accept = next((value.decode("latin-1") for key, value in scope["headers"] if key == b"accept"), "")
        try:
            from resilience.telemetry.prometheus import begin, exposition

            begin(self._health.registry.settings.metrics)
            # In a thread: to collect the figures of a thousand providers takes a while.
            body, media_type = await anyio.to_thread.run_sync(exposition, names, accept)
        except ImportError:
            line = b"metrics need an extra: pip install 'resilient-providers[prometheus]'\n"
            return _Answer(HTTPStatus.NOT_IMPLEMENTED, line, _TEXT)
        except ConfigurationError as error:
            _log.error("no metrics: %s", error, extra={"component": "health"})
            return _Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"metrics are set up wrongly; the log says how\n", _TEXT)
        return _Answer(HTTPStatus.OK, body, media_type)


_PROBES: Final[dict[str, _Page]] = {LIVE: HealthApp._alive, READY: HealthApp._ready}
_PAGES: Final[dict[str, _Page]] = {
    "": HealthApp._whole,
    "/live": HealthApp._alive,
    "/ready": HealthApp._ready,
    PROVIDERS: HealthApp._providers,
}


def _paths(scope: Scope) -> tuple[str, ...]:
    """
    Return under which paths this may be meant: below the place where we are mounted, or in full.

    Servers and frameworks differ in whether ``path`` begins with ``root_path``; and who mounts us at ``/health`` means
    ``/health/live`` by ``/live``.
    """
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    below = path[len(root) :] if root and (path == root or path.startswith(f"{root}/")) else path
    return tuple(dict.fromkeys(found.rstrip("/") for found in (below, path, f"{root}{path}")))


def _refused() -> _Answer:
    allowed = ", ".join(_METHODS)
    body = documents.dumped({"error": f"only {allowed} are answered here"})
    return _Answer(HTTPStatus.METHOD_NOT_ALLOWED, body, _JSON, ((b"allow", allowed.encode()),))


def _not_found(document: Json) -> _Answer:
    return _Answer(HTTPStatus.NOT_FOUND, documents.dumped(document), _JSON)


async def _send(send: Send, answer: _Answer, *, with_body: bool) -> None:
    headers = [
        (b"content-type", answer.media_type.encode("latin-1")),
        (b"content-length", str(len(answer.body)).encode()),
        (b"cache-control", b"no-store"),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": int(answer.status), "headers": headers})
    await send({"type": "http.response.body", "body": answer.body if with_body else b""})
