"""Tools to test against trouble: virtual time, a provider that misbehaves on purpose, and a record of events."""

from __future__ import annotations

from resilience.testing.clock import DeadlockError as DeadlockError
from resilience.testing.clock import VirtualTimeLoop as VirtualTimeLoop
from resilience.testing.recorder import EventRecorder as EventRecorder
from resilience.testing.run import deadlock_in as deadlock_in
from resilience.testing.run import run as run
from resilience.testing.run import virtual_backend as virtual_backend

__all__ = ["DeadlockError", "EventRecorder", "VirtualTimeLoop", "deadlock_in", "run", "virtual_backend"]
