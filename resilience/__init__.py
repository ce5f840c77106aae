"""
Resilience for asynchronous Python: one line protects a call to somebody else's service.

::

    reply = await ResilientProvider("openai").execute(client.chat.completions.create, model=..., messages=...)
"""

from __future__ import annotations

from resilience import logging as _logging
from resilience import telemetry as _telemetry
from resilience._core.states import CircuitState as CircuitState
from resilience._core.words import Priority as Priority
from resilience._core.words import Reason as Reason
from resilience._core.words import Usage as Usage
from resilience.batch import Batch as Batch
from resilience.batch import Outcomes as Outcomes
from resilience.classify import classify as classify
from resilience.classify import failure_of as failure_of
from resilience.context import deadline as deadline
from resilience.context import idempotency_key as idempotency_key
from resilience.errors import AllProvidersFailed as AllProvidersFailed
from resilience.errors import BulkheadFull as BulkheadFull
from resilience.errors import CallRejected as CallRejected
from resilience.errors import CallTimeout as CallTimeout
from resilience.errors import CircuitOpen as CircuitOpen
from resilience.errors import ConfigurationError as ConfigurationError
from resilience.errors import CostLimitReached as CostLimitReached
from resilience.errors import DeadlineExceeded as DeadlineExceeded
from resilience.errors import ProviderError as ProviderError
from resilience.errors import ProviderGated as ProviderGated
from resilience.errors import RateLimited as RateLimited
from resilience.errors import ResilienceError as ResilienceError
from resilience.errors import ShuttingDown as ShuttingDown
from resilience.errors import StreamInterrupted as StreamInterrupted
from resilience.errors import Throttled as Throttled
from resilience.errors import UnacceptableResult as UnacceptableResult
from resilience.events import subscribe as subscribe
from resilience.failure import Category as Category
from resilience.failure import Delivery as Delivery
from resilience.failure import Failure as Failure
from resilience.failure import FailureKind as FailureKind
from resilience.hold import Hold as Hold
from resilience.outcome import Outcome as Outcome
from resilience.policies.bulkhead import Bulkhead as Bulkhead
from resilience.policies.circuit_breaker import CircuitBreaker as CircuitBreaker
from resilience.policies.coalesce import Coalescer as Coalescer
from resilience.policies.cost import CostLimit as CostLimit
from resilience.policies.deadline import Deadline as Deadline
from resilience.policies.hedge import Hedge as Hedge
from resilience.policies.rate_limit import RateLimit as RateLimit
from resilience.policies.retry import RetryHandler as RetryHandler
from resilience.policies.throttle import Throttle as Throttle
from resilience.provider import ResilientProvider as ResilientProvider
from resilience.registry import ProviderRegistry as ProviderRegistry
from resilience.registry import default_registry as default_registry
from resilience.reloading import Reloader as Reloader
from resilience.routing.fallback import FallbackChain as FallbackChain
from resilience.routing.pool import Ejection as Ejection
from resilience.routing.pool import Member as Member
from resilience.routing.pool import ProviderPool as ProviderPool
from resilience.settings import BreakerSettings as BreakerSettings
from resilience.settings import BudgetSettings as BudgetSettings
from resilience.settings import BulkheadSettings as BulkheadSettings
from resilience.settings import CostSettings as CostSettings
from resilience.settings import ExperimentSettings as ExperimentSettings
from resilience.settings import GateSettings as GateSettings
from resilience.settings import HealthSettings as HealthSettings
from resilience.settings import HedgeSettings as HedgeSettings
from resilience.settings import LoggingSettings as LoggingSettings
from resilience.settings import MetricsSettings as MetricsSettings
from resilience.settings import OperationSettings as OperationSettings
from resilience.settings import ProviderSettings as ProviderSettings
from resilience.settings import RateLimitSettings as RateLimitSettings
from resilience.settings import ReloadSettings as ReloadSettings
from resilience.settings import RetryRule as RetryRule
from resilience.settings import RetrySettings as RetrySettings
from resilience.settings import Settings as Settings
from resilience.settings import ShutdownSettings as ShutdownSettings
from resilience.settings import StreamSettings as StreamSettings
from resilience.settings import TelemetrySettings as TelemetrySettings
from resilience.settings import ThrottleSettings as ThrottleSettings
from resilience.settings import TimeoutSettings as TimeoutSettings
from resilience.settings import profiles as profiles
from resilience.shutdown import ShutdownReport as ShutdownReport
from resilience.streaming.items import Items as Items
from resilience.streaming.stream import Stream as Stream

__all__ = [
    "AllProvidersFailed",
    "Batch",
    "BreakerSettings",
    "BudgetSettings",
    "Bulkhead",
    "BulkheadFull",
    "BulkheadSettings",
    "CallRejected",
    "CallTimeout",
    "Category",
    "CircuitBreaker",
    "CircuitOpen",
    "CircuitState",
    "Coalescer",
    "ConfigurationError",
    "CostLimit",
    "CostLimitReached",
    "CostSettings",
    "Deadline",
    "DeadlineExceeded",
    "Delivery",
    "Ejection",
    "ExperimentSettings",
    "Failure",
    "FailureKind",
    "FallbackChain",
    "GateSettings",
    "HealthSettings",
    "Hedge",
    "HedgeSettings",
    "Hold",
    "Items",
    "LoggingSettings",
    "Member",
    "MetricsSettings",
    "OperationSettings",
    "Outcome",
    "Outcomes",
    "Priority",
    "ProviderError",
    "ProviderGated",
    "ProviderPool",
    "ProviderRegistry",
    "ProviderSettings",
    "RateLimit",
    "RateLimitSettings",
    "RateLimited",
    "Reason",
    "ReloadSettings",
    "Reloader",
    "ResilienceError",
    "ResilientProvider",
    "RetryHandler",
    "RetryRule",
    "RetrySettings",
    "Settings",
    "ShutdownReport",
    "ShutdownSettings",
    "ShuttingDown",
    "Stream",
    "StreamInterrupted",
    "StreamSettings",
    "TelemetrySettings",
    "Throttle",
    "ThrottleSettings",
    "Throttled",
    "TimeoutSettings",
    "UnacceptableResult",
    "Usage",
    "classify",
    "deadline",
    "default_registry",
    "failure_of",
    "idempotency_key",
    "profiles",
    "subscribe",
]

_logging.install(trace_id=_telemetry.current_trace_id)
_telemetry.install()
