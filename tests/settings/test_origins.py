"""Where each value came from, and what differs from the defaults."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from resilience.failure import FailureKind
from resilience.settings import (
    BreakerSettings,
    OperationSettings,
    Origin,
    ProviderSettings,
    RetryRule,
    RetrySettings,
    Settings,
    TimeoutSettings,
)

Refusal = Callable[..., str]


def test_origin_of_an_inherited_value() -> None:
    """A provider's value comes from where it was really written: its own entry, or the defaults."""
    settings = Settings.from_environment(
        {"RETRY_MAX_ATTEMPTS": "5", "RESILIENCE_PROVIDERS__S3__RETRY__BASE_DELAY": "2"},
        providers={"s3": {"operations": {"put": {"timeout": {"total": 9}}}}},
    )
    assert settings.origin("providers.s3.retry.base_delay") == Origin(
        "env", "RESILIENCE_PROVIDERS__S3__RETRY__BASE_DELAY"
    )
    assert settings.origin("providers.s3.retry.max_attempts") == Origin("env", "RETRY_MAX_ATTEMPTS")
    assert settings.origin("providers.openai.retry.max_attempts") == Origin("env", "RETRY_MAX_ATTEMPTS")
    assert settings.origin("providers.s3.operations.put.retry.base_delay").name.endswith("S3__RETRY__BASE_DELAY")
    assert settings.origin("providers.s3.operations.put.timeout.total") == Origin("init")
    assert settings.origin("providers.s3.operations.get.retry.max_attempts") == Origin("env", "RETRY_MAX_ATTEMPTS")
    assert settings.origin("providers.s3.timeout.total") == Origin("default")


def test_origin_of_operations_of_the_defaults() -> None:
    """An operation of the defaults is found below every provider, before the provider's own general settings."""
    settings = Settings(
        defaults=ProviderSettings(operations={"put": OperationSettings(timeout=TimeoutSettings(total=9))}),
        providers={"s3": ProviderSettings(timeout=TimeoutSettings(attempt=8))},
    )
    for key in ("total", "attempt"):
        assert settings.origin(f"providers.s3.operations.put.timeout.{key}") == Origin("init")
    assert settings.origin("providers.x.operations.put.timeout.attempt") == Origin("default")
    assert settings.origin("defaults.operations.put.timeout.attempt") == Origin("default")


def test_names_with_dots() -> None:
    """Names of providers may hold dots: a key is read so that it leads somewhere."""
    settings = Settings(
        providers={
            "my.api": ProviderSettings(retry=RetrySettings(max_attempts=5)),
            "my.api.retry": ProviderSettings(enabled=False),
        }
    )
    assert settings.origin("providers.my.api.retry.max_attempts") == Origin("init")
    assert settings.origin("providers.my.api.retry.enabled") == Origin("init")
    assert settings.origin("providers.your.api.retry.max_attempts") == Origin("default")


def test_values_made_in_code() -> None:
    """Without any loading, values come from code or are defaults."""
    settings = Settings(enabled=True, providers={"s3": ProviderSettings(breaker=BreakerSettings(ignore=()))})
    assert settings.origin("enabled") == Origin("init")
    assert settings.origin("providers.s3.breaker.ignore") == Origin("init")
    assert settings.origin("max_providers") == Origin("default")


@pytest.mark.parametrize(
    "key, why",
    [
        ("defaults.retry.max_atempts", "unknown setting; did you mean 'max_attempts'?"),
        (
            "defaults.retry",
            (
                "not a single setting but a table of them: enabled, max_attempts, base_delay, max_delay, "
                "exponential_base, jitter, per_kind"
            ),
        ),
        (
            "providers.s3",
            (
                "not a single setting but a table of them: enabled, critical, profile, errors, retry, "
                "breaker, timeout, gate, budget, rate_limit, bulkhead, throttle, cost, hedge, "
                "stream, telemetry, operations"
            ),
        ),
        ("providers", "not a single setting but a table of them"),
        ("enabled.really", "unknown setting: what it stands under is a single value"),
        ("defaults.breaker.per_kind.tiemout", "'tiemout' is no failure kind; did you mean 'timeout'?"),
        (
            "",
            (
                "unknown setting; known: enabled, defaults, providers, max_providers, experiments, health, metrics, "
                "logging, reload, shutdown"
            ),
        ),
    ],
)
def test_no_such_setting(refusal: Refusal, key: str, why: str) -> None:
    """Asking for the origin of something that is no setting says what was probably meant."""
    assert refusal(lambda: Settings().origin(key)) == f"{key}: {why}"


def test_copies_keep_origins() -> None:
    """A copy knows where its values came from; what was changed came from code."""
    settings = Settings.from_environment({"RETRY_MAX_ATTEMPTS": "5", "RESILIENCE_MAX_PROVIDERS": "9"})
    copy = settings.model_copy(update={"max_providers": 8})
    assert copy.origin("defaults.retry.max_attempts") == Origin("env", "RETRY_MAX_ATTEMPTS")
    assert copy.origin("max_providers") == Origin("init")
    assert settings.model_copy().origin("max_providers") == Origin("env", "RESILIENCE_MAX_PROVIDERS")


def test_no_differences() -> None:
    """Settings that say nothing, or only what holds anyway, differ in nothing."""
    assert Settings().differences() == []
    same = ProviderSettings(retry=RetrySettings(max_attempts=3, per_kind={FailureKind.TIMEOUT: RetryRule()}))
    assert Settings(enabled=True, defaults=same, providers={"s3": same}).differences() == []


def test_differences() -> None:
    """Each value that differs is listed with what would hold without it and where it came from."""
    settings = Settings.from_environment(
        {
            "RETRY_MAX_ATTEMPTS": "5",
            "RESILIENCE_PROVIDERS__S3__RETRY__MAX_ATTEMPTS": "3",
            "RESILIENCE_DEFAULTS__TIMEOUT__TOTAL": "none",
        },
        enabled=False,
        defaults=ProviderSettings(
            breaker=BreakerSettings(ignore=(FailureKind.NOT_FOUND, KeyError), per_kind={FailureKind.TIMEOUT: 2}),
            retry=RetrySettings(
                per_kind={
                    FailureKind.DNS_ERROR: RetryRule(max_attempts=1),
                    FailureKind.TIMEOUT: RetryRule(delay_factor=3),
                }
            ),
        ),
        providers={"s3": {"operations": {"put": {"retry": {"max_attempts": 1}, "idempotent": True}}}},
    )
    assert sorted(map(str, settings.differences())) == [
        "defaults.breaker.ignore = not_found, KeyError (default none; in code)",
        "defaults.breaker.per_kind.timeout = 2 (default none; in code)",
        "defaults.retry.max_attempts = 5 (default 3; environment variable RETRY_MAX_ATTEMPTS)",
        "defaults.retry.per_kind.dns_error.max_attempts = 1 (default none; in code)",
        "defaults.retry.per_kind.timeout.delay_factor = 3 (default 1; in code)",
        "defaults.timeout.total = none (default 120; environment variable RESILIENCE_DEFAULTS__TIMEOUT__TOTAL)",
        "enabled = false (default true; in code)",
        "providers.s3.operations.put.idempotent = true (default none; in code)",
        "providers.s3.operations.put.retry.max_attempts = 1 (default 3; in code)",
        (
            "providers.s3.retry.max_attempts = 3 (default 5; environment variable "
            "RESILIENCE_PROVIDERS__S3__RETRY__MAX_ATTEMPTS)"
        ),
    ]
    (total,) = [item for item in settings.differences() if item.key == "defaults.timeout.total"]
    assert (total.value, total.default, total.origin.source) == (None, 120.0, "env")
