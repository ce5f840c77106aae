"""
How a provider is, by its own circuit breaker and gate.

A circuit that refuses calls is no reason to stop sending requests here: most of what the process does may not need
that provider. So it is ``warn``, unless the provider is marked ``critical``. Even then it is ``fail`` only while no
call would be let through: when the open time is over somebody has to come, for the circuit to find out whether the
provider is back.
"""

from __future__ import annotations

from typing import Final

from resilience._core.states import CircuitState
from resilience._core.words import Reason
from resilience.health.components import Status
from resilience.report import Explanation, explain
from resilience.runtime import ProviderRuntime

_DOWN: Final = (Reason.CIRCUIT_OPEN, Reason.FORCED_OPEN)
_WELL: Final = (CircuitState.CLOSED, CircuitState.DISABLED)
_ALTERNATIVE: Final = "b"


def name_of(runtime: ProviderRuntime) -> str:
    """Return what a provider is called here: the alternative of an experiment is told apart from the usual one."""
    return f"{runtime.name}~{runtime.variant}" if is_alternative(runtime) else runtime.name


def is_alternative(runtime: ProviderRuntime) -> bool:
    """Whether only a share of the provider's calls runs here."""
    return runtime.variant == _ALTERNATIVE


def is_critical(runtime: ProviderRuntime) -> bool:
    """Whether the whole process fails with it."""
    return runtime.settings.critical and not is_alternative(runtime)


def look_at(runtime: ProviderRuntime) -> tuple[Status, Explanation]:
    """Return how a provider is now, and what would happen to a call."""
    explanation = explain(runtime, runtime.plan)
    if not runtime.enabled:
        return Status.PASS, explanation
    if explanation.reason in _DOWN and is_critical(runtime):
        return Status.FAIL, explanation
    gated = runtime.common.gate_left(runtime.clock()) > 0
    well = explanation.state in _WELL and not gated and explanation.reason is not Reason.COST_EXHAUSTED
    return Status.PASS if well else Status.WARN, explanation
