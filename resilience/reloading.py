"""
Settings that are read anew while the process runs: on a change of the file, on SIGHUP, and by call.

They are read and validated as a whole, compared with those that run, and taken by the registry at once; calls under
way end under the settings that they began with. What makes no sense changes nothing, and says why. Every reload is an
event (`SettingsReloaded`, `SettingsRefused`), which is also its audit record: what changed, from where, and when.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from os import PathLike
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, final
from weakref import WeakKeyDictionary, WeakSet

import anyio
from anyio.abc import TaskGroup, TaskStatus

from resilience.errors import ConfigurationError
from resilience.events import Event, SettingsRefused, SettingsReloaded
from resilience.registry import ProviderRegistry, default_registry
from resilience.settings import Change, Settings, changes

_log = logging.getLogger("resilience.settings")

File: TypeAlias = str | PathLike[str]

KEPT: Final = 100
"""So many audit records are kept for each registry."""

_trails: WeakKeyDictionary[ProviderRegistry, deque[Event]] = WeakKeyDictionary()
_reloaders: WeakSet[Reloader] = WeakSet()


def reload(
    registry: ProviderRegistry | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    file: File | None = None,
    environment: str | None = None,
    **init: Any,
) -> tuple[Change, ...]:
    """
    Read settings anew, as `Settings.from_environment` does, and let *registry* take them.

    Args:
        registry: Whose settings. Default: the default registry.
        environ: The environment variables. Default: those of the process.
        file: A settings file. Default: what ``RESILIENCE_CONFIG`` names, if anything.
        environment: Which of the file's overlays holds. Default: what ``RESILIENCE_ENV`` names, if anything.
        **init: Settings that win over all of these.

    Returns:
        What has changed.

    Raises:
        ConfigurationError: Something makes no sense. Nothing has changed.
    """
    read = partial(Settings.from_environment, environ, file=file, environment=environment, **init)
    return _take(registry if registry is not None else default_registry(), _outcome(read), "code")


def drift(
    registry: ProviderRegistry | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    file: File | None = None,
    environment: str | None = None,
    **init: Any,
) -> tuple[Change, ...]:
    """
    Return what a `reload` with the same arguments would change, and change nothing.

    Raises:
        ConfigurationError: Something makes no sense.
    """
    settings = Settings.from_environment(environ, file=file, environment=environment, **init)
    return changes((registry if registry is not None else default_registry()).settings, settings)


def audit(registry: ProviderRegistry | None = None) -> tuple[SettingsReloaded | SettingsRefused, ...]:
    """
    Return the last reloads of *registry*, the newest last.

    They are kept from the moment when this function, `reload` or a `Reloader` first had to do with the registry.
    """
    trail = _trail(registry if registry is not None else default_registry())
    return tuple(event for event in trail if isinstance(event, SettingsReloaded | SettingsRefused))


def drifting() -> int | None:
    """Return how many settings differ between what the reloaders at work read and what runs; None if there are none."""
    reloaders = tuple(_reloaders)
    return sum(reloader.drifted for reloader in reloaders) if reloaders else None


@final
class Reloader:
    """
    Reads settings anew for as long as its ``async with`` block lasts.

    The file is looked at every ``reload.interval`` (2 s) if ``reload.watch`` says so, which may itself be reloaded. A
    change counts when two looks in a row find the same content, so a file that is half written is not taken; links
    are followed, so a directory that is swapped as a whole is noticed too.

    Args:
        registry: Whose settings. Default: the default registry.
        environ: The environment variables. Default: those of the process.
        file: A settings file. Default: what ``RESILIENCE_CONFIG`` names, if anything.
        environment: Which of the file's overlays holds. Default: what ``RESILIENCE_ENV`` names, if anything.
        watch: Whether the file is looked at, whatever ``reload.watch`` says. Default: None, as that says.
        on_hangup: Whether SIGHUP means reading anew. Default: False.
        **init: Settings that win over all of these: those that the registry's own were made with.

    Raises:
        ConfigurationError: There is no file to watch, or this is no place to wait for a signal.
    """

    __slots__ = ("__weakref__", "_known", "_on_hangup", "_path", "_read", "_registry", "_seen", "_tasks", "_watch")

    def __init__(
        self,
        registry: ProviderRegistry | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        file: File | None = None,
        environment: str | None = None,
        watch: bool | None = None,
        on_hangup: bool = False,
        **init: Any,
    ) -> None:
        from resilience.settings._sources import settings_file  # with its parsers, as late as the reading itself

        self._registry = registry if registry is not None else default_registry()
        self._read = partial(Settings.from_environment, environ, file=file, environment=environment, **init)
        self._path = settings_file(environ, file)
        self._watch = watch
        self._on_hangup = on_hangup
        if watch and self._path is None:
            raise ConfigurationError("there is no file to watch: name it with file=, or in RESILIENCE_CONFIG")
        self._known = self._seen = self._content()
        self._tasks: TaskGroup | None = None
        _trail(self._registry)

    def reload(self) -> tuple[Change, ...]:
        """
        Read settings anew, now.

        Returns:
            What has changed.

        Raises:
            ConfigurationError: Something makes no sense. Nothing has changed.
        """
        return _take(self._registry, self._ask(), "code")

    def drift(self) -> tuple[Change, ...]:
        """
        Return what `reload` would change, and change nothing.

        Raises:
            ConfigurationError: Something makes no sense.
        """
        return changes(self._registry.settings, self._read())

    @property
    def drifted(self) -> int:
        """How many settings `drift` finds; 1 if what there is makes no sense."""
        try:
            return len(self.drift())
        except ConfigurationError:
            return 1

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise RuntimeError("this Reloader is at work already")
        if self._on_hangup:
            _check_signals()
        if self._path is None and self._registry.settings.reload.watch:
            _log.warning("reload.watch is on, and there is no file to watch", extra={"component": "settings"})
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        _reloaders.add(self)
        try:
            if self._on_hangup:
                await self._tasks.start(self._listen)
        except BaseException:
            await self.__aexit__(*sys.exc_info())
            raise
        self._tasks.start_soon(self._look_again)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, None
        _reloaders.discard(self)
        if tasks is not None:
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)  # an error of the block is no business of ours: it goes on as it is

    async def _listen(self, *, task_status: TaskStatus[None]) -> None:
        before = signal.getsignal(signal.SIGHUP)
        try:
            with anyio.open_signal_receiver(signal.SIGHUP) as received:
                task_status.started()
                async for _ in received:
                    self._try(self._ask(), "signal SIGHUP")
        finally:
            if before is not None:  # asyncio would leave the default in its place, which ends the process
                signal.signal(signal.SIGHUP, before)

    async def _look_again(self) -> None:
        while True:
            wanted = self._registry.settings.reload
            await anyio.sleep(wanted.interval)
            if self._path is not None and (wanted.watch if self._watch is None else self._watch):
                self._look()

    def _look(self) -> None:
        """Take what is in the file if it is news, and was the same when it was looked at before."""
        before, content = self._seen, self._content()
        self._seen = content
        if content != before or content == self._known:
            return
        found = _outcome(self._read)
        if self._content() == content:  # else somebody is writing it right now
            self._known = content
            self._try(found, f"file {self._path}")

    def _content(self) -> bytes | None:
        """Return what is in the file; None if it cannot be read."""
        try:
            return self._path.read_bytes() if self._path is not None else None
        except OSError:
            return None

    def _ask(self) -> Settings | ConfigurationError:
        """Read settings at once, whatever the file was before."""
        self._known = self._seen = self._content()
        return _outcome(self._read)

    def _try(self, found: Settings | ConfigurationError, source: str) -> None:
        try:
            _take(self._registry, found, source)
        except ConfigurationError:
            pass  # it has been told
        except Exception:
            _log.exception("settings could not be reloaded", extra={"component": "settings"})


def _outcome(read: Callable[[], Settings]) -> Settings | ConfigurationError:
    try:
        return read()
    except ConfigurationError as error:
        return error


def _take(registry: ProviderRegistry, found: Settings | ConfigurationError, source: str) -> tuple[Change, ...]:
    """Let *registry* take what was *found*, and tell what came of it."""
    _trail(registry)
    time = registry._tools.wall_clock()
    if isinstance(found, ConfigurationError):
        registry.bus.emit(SettingsRefused(provider="", time=time, source=source, problem=str(found)))
        raise found
    taken = registry.reload(found, source=source)
    if not taken:
        registry.bus.emit(SettingsReloaded(provider="", time=time, source=source, changes=()))
    return taken


def _trail(registry: ProviderRegistry) -> deque[Event]:
    trail = _trails.get(registry)
    if trail is None:
        trail = _trails[registry] = deque(maxlen=KEPT)
        registry.subscribe(trail.append, SettingsReloaded, SettingsRefused)
    return trail


def _check_signals() -> None:
    if not hasattr(signal, "SIGHUP"):
        raise ConfigurationError("on_hangup: there is no SIGHUP on this system; watch the file instead")
    if threading.current_thread() is not threading.main_thread():
        raise ConfigurationError("on_hangup: signals reach the main thread only; watch the file instead")
