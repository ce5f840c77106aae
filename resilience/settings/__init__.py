"""
What users write: frozen models, and where their values come from.

Nothing here runs anything. Settings never change: changing what runs means making new ones, which a registry takes as
a whole (`ProviderRegistry.reload`, `resilience.reloading`).

`Settings.from_environment` collects them; arguments win over environment variables, those over a file, that over a
profile, that over the defaults. Every setting can be written in each of these, as the same path::

    Settings(defaults=ProviderSettings(retry=RetrySettings(max_attempts=5)))     in code
    RESILIENCE_DEFAULTS__RETRY__MAX_ATTEMPTS=5                                   for every provider
    RESILIENCE_PROVIDERS__OPENAI__RETRY__MAX_ATTEMPTS=5                          for one
    [providers.openai.retry]                                                     in the file that RESILIENCE_CONFIG
    max_attempts = 5                                                             names (.toml, .yaml, .yml, .json)
    [environments.production.providers.openai.retry]                             in its overlay that RESILIENCE_ENV
    max_attempts = 5                                                             chooses

The common ones have short names, such as ``RETRY_MAX_ATTEMPTS``. Durations are seconds, or text such as ``500ms``,
``30s``, ``2m``, ``1h``; ``none`` is None. In variables, ``MY_API`` is the provider ``my_api``, ``my-api`` or
``my.api``. An unknown key, and an unknown variable that begins with ``RESILIENCE_``, is refused.
"""

from __future__ import annotations

from resilience.settings._changes import Change, Effective, changes
from resilience.settings._limits import (
    BulkheadSettings,
    CostSettings,
    HedgeSettings,
    RateLimitSettings,
    StreamSettings,
    ThrottleSettings,
)
from resilience.settings._models import (
    BreakerSettings,
    BudgetSettings,
    ExperimentSettings,
    GateSettings,
    OperationSettings,
    ProviderSettings,
    RetryRule,
    RetrySettings,
    TimeoutSettings,
)
from resilience.settings._operations import (
    HealthSettings,
    LoggingSettings,
    MetricsSettings,
    ReloadSettings,
    ShutdownSettings,
    TelemetrySettings,
)
from resilience.settings._origins import Difference, Origin
from resilience.settings._profiles import Profile, profiles
from resilience.settings._root import Settings
from resilience.settings._types import Duration

__all__ = [
    "BreakerSettings",
    "BudgetSettings",
    "BulkheadSettings",
    "Change",
    "CostSettings",
    "Difference",
    "Duration",
    "Effective",
    "ExperimentSettings",
    "GateSettings",
    "HealthSettings",
    "HedgeSettings",
    "LoggingSettings",
    "MetricsSettings",
    "OperationSettings",
    "Origin",
    "Profile",
    "ProviderSettings",
    "RateLimitSettings",
    "ReloadSettings",
    "RetryRule",
    "RetrySettings",
    "Settings",
    "ShutdownSettings",
    "StreamSettings",
    "TelemetrySettings",
    "ThrottleSettings",
    "TimeoutSettings",
    "changes",
    "profiles",
]
