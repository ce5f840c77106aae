"""
Other settings for a provider that is at work.

======================================  ===========================================================================
what                                    becomes of it
======================================  ===========================================================================
calls under way                         end under the settings they began with, each attempt of them
breaker, window, gate, retry budget     stay as they are and go by other rules
limits                                  keep what is taken and spent; who waits for one that is gone is let through
permits, places, reservations           go back to where they came from
======================================  ===========================================================================
"""

from __future__ import annotations

import math

from resilience.limits import Limits, limited
from resilience.plan import USUAL, Edition
from resilience.runtime import ProviderRuntime
from resilience.settings import ProviderSettings


def adopt(runtime: ProviderRuntime, settings: ProviderSettings) -> None:
    """Let *runtime* go on under *settings*, if they are others than it has."""
    if runtime.settings == settings:
        return
    with runtime.common.lock:
        runtime.absorb()
        runtime.settings, runtime.enabled = settings, settings.enabled
        runtime.edition = Edition(settings, runtime)
        runtime.plan = runtime.plan_for(USUAL)
        runtime.lanes.retire()
        runtime.common.adopt(settings)
        _adopt_limits(runtime, settings)
        for operation, hedge in list(runtime.hedges.items()):
            hedge.adopt(settings.for_operation(operation).hedge)
    # Not under the lock: it tells its listeners.
    attempt = runtime.plan.limit if runtime.plan.limit < math.inf else None
    runtime.breaker.adopt(settings.breaker, attempt_timeout=attempt, hint_cap=settings.gate.hint_cap)
    with runtime.common.lock:
        runtime.refresh()


def _adopt_limits(runtime: ProviderRuntime, settings: ProviderSettings) -> None:
    if runtime.limits is not None:
        runtime.limits.adopt(settings)
        runtime.limits = runtime.limits if limited(settings) else None
    elif limited(settings):
        runtime.limits = Limits(runtime.name, settings, runtime.tools, runtime.bus, runtime, seen=runtime.successes)
        runtime.limits.share(runtime.common.lock)
