"""What all policies have in common: how they are made, and what they decorate."""

from __future__ import annotations

from typing import Any

import pytest

from resilience.errors import ConfigurationError
from resilience.policies.bulkhead import Bulkhead
from resilience.policies.circuit_breaker import CircuitBreaker
from resilience.policies.coalesce import Coalescer
from resilience.policies.cost import CostLimit
from resilience.policies.hedge import Hedge
from resilience.policies.rate_limit import RateLimit
from resilience.policies.retry import RetryHandler
from resilience.policies.throttle import Throttle
from resilience.settings import CostSettings, ProviderSettings, RateLimitSettings

COST, RATE = CostSettings(), RateLimitSettings()
MADE: dict[str, Any] = {
    "breaker": CircuitBreaker,
    "bulkhead": Bulkhead,
    "cost": lambda settings=COST, name="cost": CostLimit(settings, name=name),
    "hedge": Hedge,
    "rate_limit": lambda settings=RATE, name="limit": RateLimit(settings, name=name),
    "retry": RetryHandler,
    "throttle": Throttle,
}


@pytest.mark.parametrize("field", MADE)
def test_settings_of_a_provider_say_where_the_policy_s_own_are(field: str) -> None:
    """Whoever passes all of them is told which part is meant."""
    with pytest.raises(ConfigurationError, match=rf"Settings.*, not ProviderSettings: .* hold them as \.{field}$"):
        MADE[field](settings=ProviderSettings())


@pytest.mark.parametrize("field", MADE)
def test_a_name_is_a_string(field: str) -> None:
    """Anything else would come out in errors and events much later."""
    with pytest.raises(ConfigurationError, match=r"name is a string, not 7$"):
        MADE[field](name=7)


@pytest.mark.parametrize("field", sorted({*MADE} - {"cost"}))
def test_what_cannot_be_called_is_not_decorated(field: str) -> None:
    """It is refused where the decorator stands, and not at the first call."""
    with pytest.raises(TypeError, match=r"^an? [a-z ]+ decorates an async function, not str$"):
        MADE[field]()("upload")


@pytest.mark.parametrize("made", [*MADE.values(), Coalescer])
def test_policies_have_no_room_for_slips(made: Any) -> None:
    """An attribute that does not exist cannot be set by mistake."""
    with pytest.raises(AttributeError):
        made().nmae = "s3"
