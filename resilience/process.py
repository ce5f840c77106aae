"""What concerns every provider of this process: what is wanted of its calls, and what is left of it after a fork."""

from __future__ import annotations

import os

from resilience.guard import _outer
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


def every_runtime() -> list[ProviderRuntime]:
    """Return the runtimes of every registry of this process."""
    while True:
        try:
            return list(runtimes)
        except RuntimeError:  # another thread has made one meanwhile
            continue


def _tell_lanes() -> None:
    for runtime in every_runtime():
        with runtime.common.lock:
            runtime.refresh()


def watch_of(runtime: ProviderRuntime, operation: str) -> Watch | None:
    """Return what follows a call that begins now, if anything does."""
    watcher, spans = observed.watcher, runtime.settings.telemetry.spans
    if watcher is not None and (spans == "always" or (spans == "sampled" and watcher.recording())):
        return watcher.call(runtime.name, operation, variant=runtime.variant)
    return None


def _start_anew_after_fork() -> None:
    _outer.clear()
    commons = {id(runtime.common): runtime.common for runtime in runtimes}
    for common in sorted(commons.values(), key=lambda common: common.is_second):
        common.start_anew()
    for runtime in runtimes:
        runtime.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew_after_fork)
