"""
What users write: frozen models, and where their values come from.

Nothing here runs anything. A registry binds settings once; changing them means making new ones.
"""

from __future__ import annotations

from resilience.settings._models import (
    BreakerSettings,
    BudgetSettings,
    GateSettings,
    OperationSettings,
    ProviderSettings,
    RetryRule,
    RetrySettings,
    TimeoutSettings,
)
from resilience.settings._origins import Difference, Origin
from resilience.settings._root import Settings
from resilience.settings._types import Duration

__all__ = [
    "BreakerSettings",
    "BudgetSettings",
    "Difference",
    "Duration",
    "GateSettings",
    "OperationSettings",
    "Origin",
    "ProviderSettings",
    "RetryRule",
    "RetrySettings",
    "Settings",
    "TimeoutSettings",
]
