"""
Every name that telemetry backends see, once.

They are a public interface: dashboards and alerts are built on them.
"""

from __future__ import annotations

from typing import Final

SCOPE: Final = "resilience"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

TRANSITION_SPAN: Final = "circuit_breaker.transition"

PROVIDER: Final = "resilience.provider"
OPERATION: Final = "resilience.operation"
REASON: Final = "resilience.reason"
FROM: Final = "resilience.circuit_breaker.from"
TO: Final = "resilience.circuit_breaker.to"
FIGURES: Final = "resilience.circuit_breaker.figures"
RETRY_AFTER: Final = "resilience.circuit_breaker.retry_after"
