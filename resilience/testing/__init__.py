"""
Tools to test against trouble: virtual time, faults, a provider that misbehaves on purpose, and a record of events.

pytest users get fixtures from the plugin that is installed with this package: see ``docs/testing.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilience.testing.behaviour import Action as Action
from resilience.testing.behaviour import Behaviour as Behaviour
from resilience.testing.behaviour import Misbehaviour as Misbehaviour
from resilience.testing.clock import DeadlockError as DeadlockError
from resilience.testing.clock import VirtualTimeLoop as VirtualTimeLoop
from resilience.testing.endings import Ending as Ending
from resilience.testing.endings import cancelled_everywhere as cancelled_everywhere
from resilience.testing.fault import Fault as Fault
from resilience.testing.fault import FaultKind as FaultKind
from resilience.testing.fault import InjectedStatus as InjectedStatus
from resilience.testing.faults import Faults as Faults
from resilience.testing.faults import Injection as Injection
from resilience.testing.isolation import isolated_registry as isolated_registry
from resilience.testing.provider import MisbehavingProvider as MisbehavingProvider
from resilience.testing.provider import ProviderStatistics as ProviderStatistics
from resilience.testing.recorder import EventRecorder as EventRecorder
from resilience.testing.run import VirtualClock as VirtualClock
from resilience.testing.run import guarded as guarded
from resilience.testing.run import run as run
from resilience.testing.run import virtual_backend as virtual_backend
from resilience.testing.server import serve as serve
from resilience.testing.waits import no_waits as no_waits

if TYPE_CHECKING:
    from resilience.testing.transport import MisbehavingTransport as MisbehavingTransport

__all__ = [
    "Action",
    "Behaviour",
    "DeadlockError",
    "Ending",
    "EventRecorder",
    "Fault",
    "FaultKind",
    "Faults",
    "InjectedStatus",
    "Injection",
    "MisbehavingProvider",
    "MisbehavingTransport",
    "Misbehaviour",
    "ProviderStatistics",
    "VirtualClock",
    "VirtualTimeLoop",
    "cancelled_everywhere",
    "guarded",
    "isolated_registry",
    "no_waits",
    "run",
    "serve",
    "virtual_backend",
]


def __getattr__(name: str) -> object:
    # httpx is loaded only by those who ask for the transport.
    if name == "MisbehavingTransport":
        from resilience.testing.transport import MisbehavingTransport

        return MisbehavingTransport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
