"""What this process wants to know of its calls: set here, where every lane is told."""

from __future__ import annotations

from resilience.runtime import ProviderRuntime, runtimes
from resilience.watching import Watch, Watcher, observed


def meter_calls(on: bool) -> None:
    """Count how long calls and attempts take, of every provider of this process, from now on or no longer."""
    observed.metered = on
    _tell_lanes()


def watch_calls(watcher: Watcher | None) -> None:
    """Let *watcher* follow the calls of every provider of this process, in place of whoever did; None: nobody."""
    observed.watcher = watcher
    _tell_lanes()


def _tell_lanes() -> None:
    for runtime in list(runtimes):
        with runtime.common.lock:
            runtime.refresh()


def watch_of(runtime: ProviderRuntime, operation: str) -> Watch | None:
    """Return what follows a call that begins now, if anything does."""
    watcher = runtime.watcher
    if watcher is None or not (runtime.settings.telemetry.spans == "always" or watcher.recording()):
        return None
    return watcher.call(runtime.name, operation, variant=runtime.variant)
