"""A process default of one's own, for the length of a test."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial

from resilience import registry as _registry
from resilience.eviction import Key
from resilience.experiment import is_second_arm
from resilience.registry import ProviderRegistry, default_registry
from resilience.runtime import ProviderRuntime
from resilience.settings import Settings


@contextmanager
def isolated_registry(
    settings: Settings | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
    rng: random.Random | None = None,
) -> Generator[ProviderRegistry]:
    """
    Put a fresh registry in the place of the process's default one while the ``with`` block runs.

    ``ResilientProvider("openai")`` then means a provider that nobody has called yet. So do handles that were made
    before, such as those at the top of the modules under test; afterwards they go back to where they were.

    Args:
        settings: What holds in it. Default: what the environment says, as for the default registry.
        clock: As for `ProviderRegistry`; on virtual time `anyio.current_time`.
        wall_clock: As for `ProviderRegistry`.
        rng: As for `ProviderRegistry`.

    Raises:
        ConfigurationError: The settings, or the environment, make no sense.
    """
    settings = settings if settings is not None else Settings.from_environment()
    fresh = ProviderRegistry(settings, clock=clock, wall_clock=wall_clock, rng=rng)
    known = _registry.known
    usual, runtimes = _registry._default, dict(known)
    if usual is not None:
        usual.runtimes = runtimes
    _replace(known, {})
    fresh.runtimes = known
    _registry._default = fresh
    _lead(runtimes, lambda: fresh)
    try:
        yield fresh
    finally:
        fresh.runtimes = dict(known)
        _replace(known, runtimes)
        if usual is not None:
            usual.runtimes = known
        _registry._default = usual
        _lead(runtimes, None)
        _lead(fresh.runtimes, default_registry)


def _replace(known: dict[Key, ProviderRuntime], runtimes: dict[Key, ProviderRuntime]) -> None:
    known.clear()
    known.update(runtimes)


def _lead(runtimes: dict[Key, ProviderRuntime], to: Callable[[], ProviderRegistry] | None) -> None:
    """Send every handle on one of *runtimes* to the runtime of that name in another registry, or nowhere else."""
    for key, runtime in runtimes.items():
        if is_second_arm(key):
            continue  # it is led to by the first
        name, endpoint = (key, None) if isinstance(key, str) else key
        with runtime.common.lock:
            runtime.successor = None if to is None else partial(_runtime, to, name, endpoint)
            runtime.refresh()


def _runtime(registry: Callable[[], ProviderRegistry], name: str, endpoint: str | None) -> ProviderRuntime:
    return registry().runtime(name, endpoint)
