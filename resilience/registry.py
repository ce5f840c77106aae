"""
Which providers there are: a name leads to its runtime, and to nobody else's.

Registries are independent of each other. The process has one default registry, built from the environment when it
is first needed.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, final
from weakref import WeakSet

import anyio

from resilience.adoption import adopt
from resilience.common import Common, Tools
from resilience.errors import ConfigurationError
from resilience.events import Event, EventBus, Listener, SettingsReloaded, process_bus
from resilience.eviction import Key, is_idle, least_used, tell_forgotten
from resilience.experiment import is_second_arm, pair, part, second_arm_of, second_settings
from resilience.naming import check_names, check_settings, name_in
from resilience.runtime import ProviderRuntime
from resilience.settings import Change, ProviderSettings, Settings, ShutdownSettings, changes
from resilience.shutdown import Shutdown, ShutdownReport

if TYPE_CHECKING:
    from resilience.provider import ResilientProvider

_log = logging.getLogger("resilience.registry")

_registries: WeakSet[ProviderRegistry] = WeakSet()


@final
class ProviderRegistry:
    """
    Holds one runtime for each provider name.

    The number of providers is bounded: beyond ``settings.max_providers`` idle ones are forgotten, the longest unused
    first, and at last those whose open time is over while nobody comes to probe. One with an open circuit, a closed
    gate or a call under way is never forgotten; if all are busy the bound gives way.

    Args:
        settings: What holds for which provider. Default: `Settings()`.
        clock: A monotonic clock in seconds. Default: `time.monotonic`.
        wall_clock: Seconds since the Unix epoch. Default: `time.time`.
        rng: Draws all jitter. Default: a fresh `random.Random`.

    Raises:
        ConfigurationError: *settings* is not a `Settings`.
    """

    __slots__ = (
        "__weakref__",
        "_commons",
        "_end",
        "_lock",
        "_reloading",
        "_tools",
        "_warned",
        "bus",
        "runtimes",
        "settings",
    )

    bus: EventBus
    settings: Settings

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        settings = settings if settings is not None else Settings()
        check_settings(settings, "ProviderRegistry")
        self.settings = settings
        self.bus = EventBus(process_bus)
        self.runtimes: dict[Key, ProviderRuntime] = {}
        self._commons: dict[str, Common] = {}
        self._lock = threading.RLock()  # what is told under it may ask for a provider
        self._reloading = threading.RLock()  # a listener may read them anew as well
        self._warned = False
        _registries.add(self)
        self._tools = Tools(
            clock=clock,
            wall_clock=wall_clock,
            rng=rng if rng is not None else random.Random(),
            bus=self.bus,
            neighbour=self.provider,
        )
        self._end = Shutdown(self._tools.life, self.bus, wall_clock)

    def runtime(self, name: str, endpoint: str | None = None) -> ProviderRuntime:
        """
        Return the runtime of a provider, making it when the name is new.

        Raises:
            ConfigurationError: A name is not one.
        """
        check_names(name, endpoint)
        key = name if endpoint is None else key_of(name, endpoint)
        with self._lock:
            runtime = self.runtimes.get(key)
            if runtime is None:
                self._make_room()
                settings = self.settings.for_provider(name)
                common = self._commons.get(name)
                if common is None:
                    common = self._commons[name] = Common(settings, self._tools)
                full_name = name if endpoint is None else f"{name}/{endpoint}"
                runtime = self.runtimes[key] = ProviderRuntime(full_name, settings, self._tools, common)
                self._pair(key, runtime)
            return runtime

    def reload(self, settings: Settings, *, source: str = "code") -> tuple[Change, ...]:
        """
        Go on under other *settings*: no call fails because of it, and nothing that is known is forgotten.

        Calls under way end under the settings they began with. Windows, circuits, permits, places, budgets and what
        was spent stay.

        Args:
            settings: All of them, as for a new registry.
            source: Where they came from, for the record. Default: ``"code"``.

        Returns:
            What holds now in place of what.

        Raises:
            ConfigurationError: *settings* is not a `Settings`.
        """
        check_settings(settings, "reload")
        with self._reloading:
            with self._lock:
                found = changes(self.settings, settings)
                self.settings = settings
                runtimes = tuple(self.runtimes.items())
            for key, runtime in runtimes:
                if not is_second_arm(key):
                    # A listener may have read others meanwhile: those hold for all.
                    adopt(runtime, self.settings.for_provider(name_in(key)))
                    self._pair(key, runtime)
        if found:
            moment = self._tools.wall_clock()
            self.bus.emit(SettingsReloaded(provider="", time=moment, source=source, changes=found))
        return found

    def _pair(self, key: Key, runtime: ProviderRuntime) -> None:
        """Give *runtime* the other arm that the settings ask for, or take it away."""
        name = name_in(key)
        with self._lock:
            if self.runtimes.get(key) is not runtime:
                return  # forgotten meanwhile
            experiment, settings = self.settings.experiment(name), self.settings.alternative(name)
            if experiment is None or settings is None or not experiment.share:
                if runtime.rival is not None:
                    self._part(key, runtime)
                return
            rival = runtime.rival
            if rival is None:
                rival = self._second_arm(key, runtime, second_settings(runtime, settings))
        pair(runtime, rival, settings, experiment.share)  # not under the lock: it tells its listeners

    def _part(self, key: Key, runtime: ProviderRuntime) -> None:
        """End the experiment of *runtime*; calls under way in its other arm end there. Called under the lock."""
        part(runtime)
        self._forget(second_arm_of(key), f"{name_in(key)} b", lambda: runtime)

    def _second_arm(self, key: Key, runtime: ProviderRuntime, settings: ProviderSettings) -> ProviderRuntime:
        """Make the other arm of *runtime*. Called under the lock."""
        name = f"{name_in(key)} b"
        common = self._commons.get(name)
        if common is None:
            common = self._commons[name] = Common(settings, self._tools, twin=runtime.common)
        rival = ProviderRuntime(runtime.name, settings, self._tools, common, above=runtime.bus)
        rival.bus.variant = "b"  # from the beginning: nobody must take it for a provider that can be forgotten alone
        self.runtimes[second_arm_of(key)] = rival
        return rival

    def provider(self, name: str, *, endpoint: str | None = None) -> ResilientProvider:
        """
        Return a handle on a provider: ``ResilientProvider(name, endpoint=endpoint, registry=self)``.

        Raises:
            ConfigurationError: A name is not one.
        """
        from resilience.provider import ResilientProvider

        return ResilientProvider(name, endpoint=endpoint, registry=self)

    def subscribe(self, listener: Listener, *kinds: type[Event]) -> Callable[[], None]:
        """
        Call *listener* with every event of every provider here, or with those of *kinds*.

        Returns:
            A function that ends the subscription.

        Raises:
            TypeError: *listener* cannot be called, or a kind is not a class of events.
        """
        return self.bus.subscribe(listener, *kinds)

    # -- the end ---------------------------------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        """Whether a shutdown has begun: no call is admitted any more."""
        return self._tools.life.stopping

    def on_close(self, close: Callable[[], Awaitable[object]]) -> Callable[[], None]:
        """
        Await *close* when this registry is shut down, after the last call.

        Args:
            close: An async function without arguments, such as a client's ``aclose``. It runs in a task of its own.

        Returns:
            A function that takes it back.

        Raises:
            RuntimeError: The registry is shut down already.
            TypeError: *close* cannot be called.
        """
        return self._end.on_close(close)

    async def shutdown(
        self, *, grace: float | None = None, cancel: float | None = None, close: float | None = None
    ) -> ShutdownReport:
        """
        Admit no call any more, let those under way finish, interrupt what is left, and close the adapters.

        Once it has begun there is no way back, also if it is cancelled. Who calls it again, or while it is under way,
        gets the same report.

        Args:
            grace: How long calls under way may take to finish, in seconds. Default: ``settings.shutdown.grace``.
            cancel: How long those that were interrupted may take to clean up, in seconds. Default: as in the settings.
            close: How long closing the adapters may take, in seconds. Default: as in the settings.

        Raises:
            ConfigurationError: A number makes no sense.
        """
        given = {"grace": grace, "cancel": cancel, "close": close}
        usual = self.settings.shutdown.model_dump()
        return await self._end.run(
            ShutdownSettings(**usual | {name: value for name, value in given.items() if value is not None})
        )

    @asynccontextmanager
    async def lifespan(
        self,
        _app: object = None,
        /,
        *,
        grace: float | None = None,
        cancel: float | None = None,
        close: float | None = None,
    ) -> AsyncGenerator[None]:
        """
        Shut down at the end of an ``async with`` block, as `shutdown` does, also when the block is cancelled.

        As it is, it is what Starlette and FastAPI take as ``lifespan=``.

        Raises:
            ConfigurationError: A number makes no sense.
        """
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await self.shutdown(grace=grace, cancel=cancel, close=close)

    # -- which there are -------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names that are known, endpoints included as ``name/endpoint``."""
        return iter([runtime.name for key, runtime in tuple(self.runtimes.items()) if not is_second_arm(key)])

    def __len__(self) -> int:
        """Return how many providers are known, endpoints counted."""
        return sum(not is_second_arm(key) for key in tuple(self.runtimes))

    def __contains__(self, name: object) -> bool:
        """Whether a provider of that name is known, ``name/endpoint`` for an endpoint."""
        key = tuple(name.split("/", 1)) if isinstance(name, str) and "/" in name else name
        return key in self.runtimes

    def __repr__(self) -> str:
        busy = sum(not is_idle(runtime) for runtime in tuple(self.runtimes.values()))
        return f"<ProviderRegistry {len(self)} of at most {self.settings.max_providers} providers, {busy} busy>"

    def _make_room(self) -> None:
        """Forget idle providers until there is room for one more, as far as possible. Called under the lock."""
        while len(self.runtimes) >= self.settings.max_providers:
            victim = least_used(self.runtimes)
            if victim is None:
                self._warn()
                return
            name, endpoint = (victim, None) if isinstance(victim, str) else victim[:2]
            self._forget(victim, name, partial(self.runtime, name, endpoint))
            if second_arm_of(victim) in self.runtimes:
                self._forget(second_arm_of(victim), f"{name} b", partial(self.runtime, name, endpoint))

    def _forget(self, key: Key, name: str, successor: Callable[[], ProviderRuntime]) -> None:
        runtime = self.runtimes.pop(key)
        runtime.retire(successor)
        if not runtime.common.members:
            self._commons.pop(name).leave_circle()
        tell_forgotten(runtime)

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "all %d providers are busy: the registry grows beyond its bound. Are names made from request data?",
                len(self.runtimes),
                extra={"component": "registry"},
            )


def registries() -> tuple[ProviderRegistry, ...]:
    """Return every registry of this process that is in use."""
    return tuple(_registries)


def key_of(name: str, endpoint: str) -> Key:
    """Return the key under which an endpoint of a provider is known. No name of a provider can look like it."""
    return name, endpoint


known: dict[Key, ProviderRuntime] = {}
"""The runtimes of the process's registry, by name. One dict for ever, so that a new handle finds it at once."""

_default: ProviderRegistry | None = None
_default_lock = threading.Lock()


def default_registry() -> ProviderRegistry:
    """
    Return the registry of this process, built from the environment when it is first needed.

    Raises:
        ConfigurationError: The environment or the settings file holds something that makes no sense.
    """
    global _default  # noqa: PLW0603 - one default for each process, made when it is first needed
    with _default_lock:
        if _default is None:
            _default = ProviderRegistry(Settings.from_environment())
            _default.runtimes = known
        return _default


def runtime_of(name: str, endpoint: str | None, registry: ProviderRegistry | None) -> ProviderRuntime:
    """
    Return the runtime of a provider in *registry*, or in the default one.

    Raises:
        ConfigurationError: A name is not one, or *registry* is no registry.
    """
    if registry is None:
        registry = default_registry()
    elif not isinstance(registry, ProviderRegistry):
        raise ConfigurationError(
            f"registry= takes a ProviderRegistry, not {type(registry).__name__}: "
            "settings go into ProviderRegistry(settings)"
        )
    return registry.runtime(name, endpoint)


def _unlock_after_fork() -> None:
    global _default_lock  # noqa: PLW0603 - the parent's may have been held by a thread that does not exist here
    _default_lock = threading.Lock()
    for registry in _registries:
        registry._lock = threading.RLock()
        registry._reloading = threading.RLock()
        registry._tools.life.start_anew()
        registry._end.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_after_fork)
