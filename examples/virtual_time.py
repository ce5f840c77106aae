"""
See what an outage of an hour does to your callers, within milliseconds.

Run it with ``python examples/virtual_time.py``. The same lines work inside a test.
"""

from __future__ import annotations

import random

import anyio

from resilience import ProviderRegistry, ResilientProvider, Settings
from resilience.testing import EventRecorder, MisbehavingProvider, MisbehavingTransport, Misbehaviour, run

HOUR = 3600.0


async def live_through_an_outage() -> EventRecorder:
    """Call once a second for two hours; in the middle the service is down for one."""
    clock = anyio.current_time
    service = MisbehavingProvider(Misbehaviour(outages=((0.5 * HOUR, 1.5 * HOUR),)), clock=clock)
    upload = MisbehavingTransport(service).upload
    registry = ProviderRegistry(Settings(), clock=clock, wall_clock=clock, rng=random.Random(1))
    events = EventRecorder()
    registry.subscribe(events)
    provider = ResilientProvider("uploads", registry=registry)
    while service.now() < 2 * HOUR:
        await provider.try_execute(upload, "report.pdf", b"content")
        await anyio.sleep(1.0)
    print(service)
    return events


def main() -> None:
    """Run it on virtual time and tell what the circuit breaker did."""
    events = run(live_through_an_outage)
    first, last = events.transitions[0], events.transitions[-1]
    print(f"{first.time / HOUR:.4f} h: {first.before} -> {first.after} ({first.figures})")
    print(f"{last.time / HOUR:.4f} h: {last.before} -> {last.after} ({last.figures})")
    print(events)


if __name__ == "__main__":
    main()
