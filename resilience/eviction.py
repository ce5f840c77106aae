"""
Whom a full registry forgets: idle providers, the longest unused first.

One whose circuit is open, whose gate is closed or who has a call under way is never forgotten, with one exception: a
circuit whose open time is over and which nobody comes to probe. Otherwise names made from request data, failing, would
grow for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import TypeAlias

from resilience._core.states import CircuitState
from resilience.policies._breaker import initial_state
from resilience.runtime import ProviderRuntime

Key: TypeAlias = str | tuple[str, ...]
"""A provider's name, with its endpoint's where there is one, and the arm of its experiment if it is the other one."""


def least_used(runtimes: dict[Key, ProviderRuntime]) -> Key | None:
    """
    Return the provider to forget, None if there is none.

    A second chance in place of an exact order of use, which would cost every call a little: whoever made calls
    since the last sweep moves to the end.
    """
    fallback = None
    for key, runtime in tuple(runtimes.items()):
        if not is_idle(runtime):
            continue
        calls = used(runtime)
        if calls == runtime.swept:
            return key
        fallback = fallback if fallback is not None else key
        runtime.swept = calls
        runtimes[key] = runtimes.pop(key)
    return fallback if fallback is not None else _abandoned(runtimes)


def is_idle(runtime: ProviderRuntime) -> bool:
    """Whether forgetting a provider would lose nothing: circuit as when new, gate open, no call under way."""
    if runtime.variant and runtime.rival is None:
        return False  # the other arm of an experiment goes with the usual one
    return all(_rests(arm) for arm in runtime.arms)


def _rests(runtime: ProviderRuntime) -> bool:
    return runtime.breaker.state is initial_state(runtime.settings.breaker) and _is_quiet(runtime)


def _abandoned(runtimes: dict[Key, ProviderRuntime]) -> Key | None:
    """Return the provider whose open time is over for longest while nobody came to probe it."""
    found = [(one.breaker.circuit.until, key) for key, one in tuple(runtimes.items()) if _is_abandoned(one)]
    return min(found, key=itemgetter(0))[1] if found else None


def _is_abandoned(runtime: ProviderRuntime) -> bool:
    if runtime.variant and runtime.rival is None:
        return False
    alone = [_is_unattended(arm) for arm in runtime.arms]
    return any(alone) and all(one or _rests(arm) for one, arm in zip(alone, runtime.arms, strict=True))


def _is_unattended(runtime: ProviderRuntime) -> bool:
    circuit = runtime.breaker.circuit
    open_time_over = circuit.state is CircuitState.OPEN and circuit.until <= runtime.clock()
    return (open_time_over or circuit.state is CircuitState.HALF_OPEN) and _is_quiet(runtime)


def _is_quiet(runtime: ProviderRuntime) -> bool:
    return not (runtime.common.gate_left(runtime.clock()) or runtime.in_flight or runtime.waiting)


def used(runtime: ProviderRuntime) -> int:
    """Return a number that moves with each attempt, to tell whether there were any."""
    count = 0
    with runtime.common.lock:
        for arm in runtime.arms:
            arm.absorb()
            circuit = arm.breaker.circuit
            count += circuit.successes + circuit.failures + circuit.ignored
    return count


_listeners: list[Callable[[ProviderRuntime], None]] = []


def when_forgotten(told: Callable[[ProviderRuntime], None]) -> Callable[[], None]:
    """
    Tell *told* of each runtime that a registry forgets: nobody will ask it again for what it has counted.

    It is told under the registry's lock, so it must not ask for a provider.

    Returns:
        A function that ends this; calling it twice is harmless.
    """
    _listeners.append(told)

    def remove() -> None:
        if told in _listeners:
            _listeners.remove(told)

    return remove


def tell_forgotten(runtime: ProviderRuntime) -> None:
    """Tell whom `when_forgotten` was told of that *runtime* is forgotten."""
    for told in tuple(_listeners):
        told(runtime)
