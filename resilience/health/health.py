"""How a process is: its providers, and whatever else somebody checks."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, final
from weakref import WeakSet

import anyio

from resilience.errors import ConfigurationError
from resilience.health.background import Ending, Host, host
from resilience.health.checks import Check, CheckFunction, Desk, Options, Run
from resilience.health.components import Component, Report, aggregate
from resilience.health.damping import Damper
from resilience.health.metrics import announce, join_workers
from resilience.health.providers import is_critical, look_at, name_of
from resilience.policies._waiter import Waiter
from resilience.registry import ProviderRegistry, default_registry
from resilience.runtime import ProviderRuntime
from resilience.settings import HealthSettings

if TYPE_CHECKING:
    from resilience.health.app import HealthApp

_log = logging.getLogger("resilience.health")

PATIENCE: Final = 0.03
"""A request waits so long for runs that have just begun, in seconds: enough for what is well, and no more."""
_SHORTEST_PAUSE: Final = 0.1
_FAREWELL: Final = 1.0

_healths: WeakSet[Health] = WeakSet()


def healths() -> tuple[Health, ...]:
    """Return every `Health` of this process."""
    return tuple(_healths)


def _reports() -> list[Callable[[], Report]]:
    return [health.report for health in healths()]


@final
class Health:
    """
    Tells how this process is.

    Every provider of the registry is a component by itself; others are added::

        from resilience.health import Health

        health = Health()
        health.add("database", lambda: fetch("select 1"), critical=True)
        app = health.app()

    Checks run beside the requests that ask: at most once per interval however many ask, one at a time each, and one
    that hangs holds up nobody. What follows from all of them is said in `resilience.health.components`.

    Args:
        registry: Whose providers. Default: the process's.
        settings: Intervals, limits and rules. Default: those of the registry, ``settings.health``.
        clock: A monotonic clock in seconds. Default: `time.monotonic`.
        wall_clock: Seconds since the Unix epoch. Default: `time.time`.
        version: The version of your service, for the answers. Default: none is told.
        service_id: What your service is called, for the answers. Default: nothing is told.

    Attributes:
        draining: Set it when this process begins to shut down: then it is alive, and not ready. The end of the
            registry, `ProviderRegistry.shutdown`, is noticed by itself.

    Raises:
        ConfigurationError: *registry* is no registry, or *settings* are not `HealthSettings`.
    """

    __slots__ = (
        "__weakref__",
        "_checks",
        "_dampers",
        "_desk",
        "_registry",
        "_settings",
        "draining",
        "service_id",
        "version",
    )

    draining: bool
    service_id: str
    version: str

    def __init__(
        self,
        registry: ProviderRegistry | None = None,
        *,
        settings: HealthSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        version: str = "",
        service_id: str = "",
    ) -> None:
        _check_input(registry, settings)
        self._registry = registry
        self._settings = settings
        self.version = version
        self.service_id = service_id
        self.draining = False
        self._checks: dict[str, Check] = {}
        self._dampers: dict[str, Damper] = {}
        self._desk = Desk(clock, wall_clock)
        _healths.add(self)
        announce(_reports)

    @property
    def registry(self) -> ProviderRegistry:
        """Whose providers it tells of."""
        return self._registry if self._registry is not None else default_registry()

    @property
    def settings(self) -> HealthSettings:
        """Intervals, limits and rules as they are now."""
        return self._settings if self._settings is not None else self.registry.settings.health

    def add(
        self,
        name: str,
        check: CheckFunction,
        *,
        critical: bool = False,
        component_id: str = "",
        component_type: str = "component",
        timeout: float | None = None,
        interval: float | None = None,
        grace: float | None = None,
        good_answers: int = 1,
    ) -> None:
        """
        Add a check.

        Args:
            name: What it is about, such as ``"database"``.
            check: A function without arguments; one that is not asynchronous runs in a thread. None or True: pass;
                False: fail; a `Status`; a text: pass, and it is told; ``(Status, text)``. An error is a failure, of
                which only the class is told.
            critical: Whether this process is not ready while it fails, and until it has answered once.
            component_id: What the component is called elsewhere. Default: nothing.
            component_type: ``component``, ``datastore`` or ``system``, or a URI. Default: ``component``.
            timeout: It may take so long, in seconds. Default: ``health.timeout``.
            interval: It runs at most once in so many seconds. Default: ``health.interval``.
            grace: Bad news counts once it has lasted so long, in seconds. Default: ``health.grace``.
            good_answers: So many good answers in a row end bad news. Default: 1.

        Raises:
            ConfigurationError: The name is taken, or a value makes no sense.
        """
        if not isinstance(name, str) or not name or ":" in name:
            raise ConfigurationError(f"a check's name is a text without ':', not {name!r}")
        if not callable(check):
            raise ConfigurationError(f"the check {name!r} is a function without arguments, not {check!r}")
        _positive(name, timeout=timeout, interval=interval)
        if grace is not None and not 0 <= grace < math.inf:
            raise ConfigurationError(f"check {name!r}: grace is seconds from 0 on, not {grace!r}")
        if good_answers < 1:
            raise ConfigurationError(f"check {name!r}: good_answers is a count from 1 on, not {good_answers!r}")
        options = Options(
            critical=critical,
            component_id=component_id,
            component_type=component_type,
            timeout=timeout,
            interval=interval,
            grace=grace,
            good_answers=good_answers,
        )
        with self._desk.lock:
            if name in self._checks:
                raise ConfigurationError(f"there is a check {name!r} already: remove({name!r}) comes first")
            self._checks[name] = Check(name, check, options, self._desk)

    def remove(self, name: str) -> None:
        """
        Take a check away.

        Raises:
            KeyError: There is none of that name.
        """
        with self._desk.lock:
            check = self._checks.pop(name)
            if check.run is not None and check.run.cancel is not None:
                check.run.cancel()

    def report(self) -> Report:
        """Return how everything was when it was last looked at. Runs no check, and waits for nothing."""
        registry, settings, now = self.registry, self.settings, self._desk.now()
        with self._desk.lock:
            components = (*self._providers(settings, now), *(one.look(settings, now) for one in self._checks.values()))
        return aggregate(
            components,
            minimum_healthy=settings.minimum_healthy,
            draining=self.draining or registry.stopping,
            time=self._desk.wall(),
        )

    async def refresh(self) -> Report:
        """
        Start what is due, and return how everything is.

        It waits for runs that have just begun, for thirty milliseconds at most; what takes longer is in a later report.
        """
        settings, now = self.settings, self._desk.now()
        begun = self._start_due(settings, now, host())
        if begun:
            await self._wait(begun, PATIENCE)
        return self.report()

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[Health]:
        """
        Run the checks again and again, whether anybody asks or not, while the ``async with`` block lasts.

        Without it they run when somebody asks. At its end those that are under way are interrupted. It also lets this
        process tell its metrics to other workers, if ``metrics.directory`` names where.

        Raises:
            ConfigurationError: That directory cannot be used.
        """
        join_workers(self.registry.settings.metrics)
        over = anyio.Event()

        def ended(ending: Ending) -> None:
            over.set()
            if ending.error is not None:
                text = "health checks run only when somebody asks from now on"
                _log.error(text, exc_info=ending.error, extra={"component": "health"})

        stop = host().start(self._keep_fresh, math.inf, ended)
        try:
            yield self
        finally:
            stop()
            with anyio.CancelScope(shield=True):
                await over.wait()
                await self._stop_runs()

    def app(self) -> HealthApp:
        """Return an ASGI app that tells all this over HTTP."""
        from resilience.health.app import HealthApp

        return HealthApp(self)

    def __repr__(self) -> str:
        report = self.report()
        return f"<Health {report.status}: {report.healthy} of {report.total} components healthy>"

    # -- providers -------------------------------------------------------------------------------------------------

    def _providers(self, settings: HealthSettings, now: float) -> list[Component]:
        """Look at every provider. Called under the lock."""
        dampers: dict[str, Damper] = {}
        found: list[Component] = []
        for runtime in tuple(self.registry.runtimes.values()):
            name = name_of(runtime)
            status, explanation = look_at(runtime)
            damper = dampers[name] = self._dampers.get(name) or Damper()
            damper.see(status, now)
            found.append(
                Component(
                    name=name,
                    kind="provider",
                    status=damper.status(now, settings.grace),
                    observed=status,
                    critical=is_critical(runtime),
                    output=explanation.text,
                    component_type="system",
                    value=explanation.state.value,
                    time=self._desk.wall(),
                    bad_for=self._unwell_for(runtime, damper.bad_for(now)),
                )
            )
        self._dampers = dampers  # those of providers that the registry has forgotten go
        return found

    def _unwell_for(self, runtime: ProviderRuntime, seen: float | None) -> float | None:
        """Return for how long a provider is unwell: its circuit knows it from before anybody looked."""
        since = runtime.breaker.unwell_since
        return seen if seen is None or since is None else max(seen, self._desk.wall() - since)

    # -- checks ----------------------------------------------------------------------------------------------------

    def _start_due(self, settings: HealthSettings, now: float, here: Host) -> list[Run]:
        """Start what is due; return what has been under way for so short a time that it is worth a wait."""
        with self._desk.lock:
            for check in self._checks.values():
                check.start_if_due(settings, now, here)
            runs = [check.run for check in self._checks.values() if check.run is not None]
        return [run for run in runs if now < run.began + PATIENCE]

    async def _wait(self, runs: list[Run], seconds: float) -> None:
        until = anyio.current_time() + seconds
        for run in runs:
            left = until - anyio.current_time()
            waiter = Waiter()
            with self._desk.lock:
                over = run.over
                run.waiters.append(waiter)
            if not over and left > 0:
                await waiter.wait(left)

    async def _keep_fresh(self) -> None:
        here = host()
        while True:
            settings, now = self.settings, self._desk.now()
            self._start_due(settings, now, here)
            self.report()  # providers are damped from the moment at which they are seen
            with self._desk.lock:
                pause = min([settings.interval, *(one.due_in(settings, now) for one in self._checks.values())])
            await anyio.sleep(max(pause, _SHORTEST_PAUSE))

    async def _stop_runs(self) -> None:
        with self._desk.lock:
            runs = [check.run for check in self._checks.values() if check.run is not None]
        stopped = [run for run in runs if run.cancel is not None]
        for run in stopped:
            if run.cancel is not None:
                run.cancel()
        await self._wait(stopped, _FAREWELL)


def _check_input(registry: object, settings: object) -> None:
    if registry is not None and not isinstance(registry, ProviderRegistry):
        raise ConfigurationError(f"Health takes a ProviderRegistry, not {type(registry).__name__}")
    if settings is not None and not isinstance(settings, HealthSettings):
        raise ConfigurationError(
            f"Health takes settings=HealthSettings(...), not {type(settings).__name__}: Settings hold them as .health"
        )


def _positive(name: str, **seconds: float | None) -> None:
    for key, value in seconds.items():
        if value is not None and not 0 < value < math.inf:
            raise ConfigurationError(f"check {name!r}: {key} is seconds above 0, not {value!r}")
