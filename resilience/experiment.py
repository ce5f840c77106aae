"""
Two arms of one provider: a share of its calls runs under other settings, side by side with the rest.

======================================  ===========================================================================
the arms have of their own              breaker and window, retry budget, bulkhead, throttle, cost limit, hedging,
                                        numbers
they share                              the gate and the rate limit: to the provider they are one caller
======================================  ===========================================================================

The usual arm is called ``a`` and the other one ``b``, in metrics, events and snapshots. Each call is drawn by lot; a
call inside a call is drawn for itself, but what one arm has retried the other does not retry again. Listeners and rules
of the provider serve both arms. Calls of a provider with an experiment do not take the fast path.
"""

from __future__ import annotations

from resilience.adoption import adopt
from resilience.eviction import Key
from resilience.runtime import ProviderRuntime
from resilience.settings import ProviderSettings

_SECOND = "b"


def second_arm_of(key: Key) -> Key:
    """Return the key under which a registry knows the other arm of a provider."""
    name, endpoint = (key, "") if isinstance(key, str) else key[:2]
    return name, endpoint, _SECOND


def is_second_arm(key: Key) -> bool:
    """Whether *key* is that of another arm, which nobody asks for by name."""
    return len(key) == len(second_arm_of(key)) and not isinstance(key, str)


def second_settings(usual: ProviderRuntime, settings: ProviderSettings) -> ProviderSettings:
    """Return what holds for the other arm of *usual* where *settings* are asked for: some of it holds for both."""
    return settings.model_copy(update={"gate": usual.settings.gate, "rate_limit": usual.settings.rate_limit})


def pair(usual: ProviderRuntime, rival: ProviderRuntime, settings: ProviderSettings, share: float) -> None:
    """Let *rival* make *share* of the calls of *usual*, under *settings*."""
    adopt(rival, second_settings(usual, settings))
    _share_rate(rival, usual)
    if rival is not usual.rival:
        rival.rules, rival.chaos = usual.rules, usual.chaos
    _take_turns(usual, rival, share)


def part(usual: ProviderRuntime) -> None:
    """Let *usual* make all calls again; those under way in the other arm end there."""
    _take_turns(usual, None, 0.0)


def _take_turns(usual: ProviderRuntime, rival: ProviderRuntime | None, share: float) -> None:
    usual.rival, usual.share = rival, share
    usual.bus.variant = "a" if rival is not None else ""
    if rival is not None:
        rival.bus.variant = _SECOND
    with usual.common.lock:
        usual.refresh()


def _share_rate(runtime: ProviderRuntime, other: ProviderRuntime) -> None:
    if runtime.limits is not None and other.limits is not None and other.limits.rate is not None:
        with runtime.common.lock:
            runtime.limits.take_rate(other.limits.rate)
            runtime.refresh()
