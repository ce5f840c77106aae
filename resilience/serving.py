"""
Health and metrics over HTTP beside a program's own work, and a proper end when it is told to stop.

======================================  ===========================================================================
what happens                            what follows
======================================  ===========================================================================
SIGTERM, SIGINT, `Serving.stop`         not ready from that moment on, but alive; then the registry goes down in its
                                        cascade (`resilience.shutdown`); the server answers until the end
the cascade is over                     the block has ``shutdown.cancel`` seconds to come to its end by itself; then
                                        it is cancelled
the block ends                          the same, if nobody has told it to stop; then the server stops
a second signal                         does what it did before: as a rule it ends the process at once
======================================  ===========================================================================

asyncio only, as uvicorn is, which comes with the extra ``serve``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any, Final, final

import anyio

from resilience.errors import ConfigurationError
from resilience.health import Health
from resilience.registry import ProviderRegistry, default_registry
from resilience.reloading import Reloader
from resilience.settings import Settings
from resilience.shutdown import ShutdownReport

_log = logging.getLogger("resilience.serve")

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_FAREWELL: Final = 1
"""Answers that are being sent when the server stops may take so long, in seconds."""

CLEAN: Final = 0
BAD_NEWS: Final = 1


@final
class Serving:
    """
    A server at work. Made by `serving`.

    Attributes:
        health: What it tells of: add checks to it.
        host: The address that it listens on.
        port: The port, the one that was found where 0 was asked for.
        report: What became of the calls, once the registry is down.
    """

    __slots__ = (
        "_body",
        "_down",
        "_end",
        "_listener",
        "_server",
        "_stopped",
        "_task",
        "health",
        "host",
        "port",
        "report",
    )

    health: Health
    host: str
    port: int

    def __init__(self, health: Health, listener: socket.socket, end: Callable[[], Any]) -> None:
        self.health = health
        self.host, self.port = listener.getsockname()[:2]
        self.report: ShutdownReport | None = None
        self._listener = listener
        self._end = end
        self._server: Any = _made_server(health)
        self._stopped = asyncio.Event()
        self._body = anyio.CancelScope()
        self._task: asyncio.Task[None] | None = None
        self._down: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopped.is_set()

    async def wait(self) -> None:
        """Wait until it is told to stop."""
        await self._stopped.wait()

    def stop(self) -> None:
        """Stop, as a signal does: no call is admitted any more, and this process is not ready. It returns at once."""
        if self._down is None:
            self.health.draining = True
            self._stopped.set()
            self._down = asyncio.create_task(self._go_down(), name="shutdown")

    async def _go_down(self) -> None:
        self.report = await self._end()
        self._body.deadline = anyio.current_time() + self.health.registry.settings.shutdown.cancel

    # -- the server ------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]), name="health server")
        begun = asyncio.create_task(self._server.begun.wait())
        try:
            await asyncio.wait([self._task, begun], return_when=asyncio.FIRST_COMPLETED)
        finally:
            begun.cancel()

    async def _finish(self) -> None:
        """Bring everything to its end; if even that is cancelled, let go of it."""
        self.stop()
        try:
            await asyncio.wait([task for task in (self._down,) if task is not None])
            self._server.should_exit = True
            await asyncio.wait([task for task in (self._task,) if task is not None])
        finally:
            self._listener.close()
            for task in (self._down, self._task):
                if task is not None:
                    task.cancel()
        if self._down is not None:
            self._down.result()


@asynccontextmanager
async def serving(
    registry: ProviderRegistry | None = None,
    *,
    health: Health | None = None,
    host: str | None = None,
    port: int | None = None,
    signals: bool = True,
    grace: float | None = None,
    cancel: float | None = None,
    close: float | None = None,
) -> AsyncGenerator[Serving]:
    """
    Serve health and metrics while the ``async with`` block does its work, and end both in good order.

    ::

        from resilience.serving import serving

        async with serving(port=0) as server:
            server.health.add("database", lambda: fetch("select 1"), critical=True)
            await fetch("whatever your program does")

    Args:
        registry: Whose providers. Default: the registry of this process.
        health: What it tells of. Default: a new `Health` of *registry*.
        host: Where to listen. Default: ``health.host`` of the settings.
        port: Where to listen, 0 for any port that is free. Default: ``health.port``.
        signals: Whether SIGTERM and SIGINT mean `Serving.stop`; only in the main thread. Default: True.
        grace: As of `ProviderRegistry.shutdown`. Default: as in the settings.
        cancel: Likewise.
        close: Likewise.

    Raises:
        ConfigurationError: *health* is not that of *registry*, or this is not asyncio.
        ImportError: The extra ``serve`` is not installed.
        OSError: The address is taken, or is none of this machine's.
    """
    _check_loop()
    if health is None:
        health = Health(registry)
    elif registry is not None and health.registry is not registry:
        raise ConfigurationError("serving(registry, health=...): this is the health of another registry")
    registry = health.registry
    settings = registry.settings.health
    listener = _listen(settings.host if host is None else host, settings.port if port is None else port)
    end = partial(registry.shutdown, grace=grace, cancel=cancel, close=close)
    try:
        server = Serving(health, listener, end)
    except BaseException:
        listener.close()
        raise
    with _handled(server.stop) if signals else contextlib.nullcontext():
        try:
            await server._begin()
            with server._body:
                yield server
        finally:
            with anyio.CancelScope(shield=True):
                await server._finish()


def serve(
    source: ProviderRegistry | Settings | None = None,
    *,
    work: Callable[[], Awaitable[object]] | None = None,
    host: str | None = None,
    port: int | None = None,
    reloader: Reloader | None = None,
    tell: Callable[[str], object] | None = None,
) -> int:
    """
    Serve health and metrics until a signal comes: what ``resilience serve`` runs. SIGHUP means reading settings anew.

    Args:
        source: A registry, or the settings of a new one. Default: the registry of this process.
        work: The program whose health it is; with its end all ends. Default: nothing, only a signal ends it.
        host: Where to listen. Default: ``health.host`` of the settings.
        port: Where to listen, 0 for any port that is free. Default: ``health.port``.
        reloader: What reads the settings anew. Default: one that reads what the environment says; for a *source* that
            is from elsewhere, none.
        tell: Is told in one line where it listens. Default: print it.

    Returns:
        The exit code: 0, stopped as it was told to; 1, it could not listen, or something was interrupted or abandoned,
        or could not be closed.

    Raises:
        ImportError: The extra ``serve`` is not installed.
        KeyboardInterrupt: A second SIGINT came.
    """
    registry = source if isinstance(source, ProviderRegistry) else ProviderRegistry(source) if source else None
    if registry is None:
        registry = default_registry()
        reloader = reloader or Reloader(registry, on_hangup=hasattr(signal, "SIGHUP"))
    told = tell or partial(print, flush=True)
    return asyncio.run(_serve(registry, work=work, host=host, port=port, reloader=reloader, tell=told))


async def _serve(
    registry: ProviderRegistry,
    *,
    work: Callable[[], Awaitable[object]] | None,
    host: str | None,
    port: int | None,
    reloader: Reloader | None,
    tell: Callable[[str], object],
) -> int:
    with _told(registry.settings):
        async with AsyncExitStack() as stack:
            try:
                server = await stack.enter_async_context(serving(registry, host=host, port=port))
            except OSError as error:
                _log.error("cannot listen: %s", error, extra={"component": "serve"})
                return BAD_NEWS
            await stack.enter_async_context(reloader or contextlib.nullcontext())
            tell(f"resilience: health and metrics of process {os.getpid()} on {server.url}")
            await (work() if work is not None else server.wait())
    return CLEAN if server.report is not None and server.report.clean else BAD_NEWS


@contextlib.contextmanager
def _told(settings: Settings) -> Generator[None]:
    """Write logs, and collect metrics, as *settings* have it."""
    from resilience import logging as logs
    from resilience import telemetry

    how = settings.logging
    output = logs.configure(how.format, how.level, tracebacks=how.tracebacks)
    configured = None
    try:
        if settings.metrics.enabled:
            try:
                otlp = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
                configured = telemetry.configure(otlp=otlp or None, settings=settings)
            except ImportError as error:
                _log.warning("%s", error, extra={"component": "serve"})
        yield
    finally:
        if configured is not None:
            configured.shutdown()
        output.close()


# -- what it stands on -------------------------------------------------------------------------------------------------


def _listen(host: str, port: int) -> socket.socket:
    """
    Return a socket that listens.

    Raises:
        OSError: There is no such place, or somebody else is there; says where.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        raise type(error)(error.errno, f"{host}:{port}: {error.strerror}") from error


def _check_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "serving() runs on asyncio, as uvicorn does. On trio use registry.lifespan(), and let a server for trio, "
            "such as hypercorn, run Health().app()"
        ) from None


def _made_server(health: Health) -> Any:
    """
    Return uvicorn's server, as a part of a program that has signals and logs of its own.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        text = f"serving needs an extra: pip install 'resilient-providers[serve]' ({error})"
        raise ImportError(text, name=error.name) from error

    class Server(uvicorn.Server):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            self.begun = asyncio.Event()

        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None, None, None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            self.begun.set()

    config = uvicorn.Config(
        health.app(),
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=_FAREWELL,
    )
    return Server(config)


@contextlib.contextmanager
def _handled(stop: Callable[[], None]) -> Generator[None]:
    """Let signals call *stop*, the first time; after that they do again what they did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before: dict[int, Any] = {}

    def put_back() -> None:
        while before:
            number, handler = before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def told(number: int, _: FrameType | None) -> None:
        put_back()
        _log.info("%s: shutting down", signal.Signals(number).name, extra={"component": "serve"})
        loop.call_soon_threadsafe(stop)

    for number in _SIGNALS:
        before[number] = signal.signal(number, told)
    try:
        yield
    finally:
        with suppress(ValueError):
            put_back()
