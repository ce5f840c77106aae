"""The defaults, and the environment variable of each."""

from __future__ import annotations

from functools import reduce

import pytest

from resilience.failure import FailureKind
from resilience.settings import RetryRule, Settings

DEFAULTS = {
    "enabled": True,
    "max_providers": 1024,
    "providers": {},
    "experiments": {},
    "health.host": "127.0.0.1",
    "health.port": 8080,
    "health.path": "/health",
    "health.interval": 10.0,
    "health.timeout": 1.0,
    "health.grace": 0.0,
    "health.minimum_healthy": None,
    "metrics.enabled": True,
    "metrics.path": "/metrics",
    "metrics.aliases": False,
    "metrics.directory": None,
    "metrics.interval": 5.0,
    "logging.format": "console",
    "logging.level": "INFO",
    "logging.tracebacks": True,
    "reload.watch": False,
    "reload.interval": 2.0,
    "shutdown.grace": 20.0,
    "shutdown.cancel": 5.0,
    "shutdown.close": 5.0,
    "defaults.enabled": True,
    "defaults.critical": False,
    "defaults.profile": None,
    "defaults.telemetry.spans": "sampled",
    "defaults.errors": "native",
    "defaults.operations": {},
    "defaults.retry.enabled": True,
    "defaults.retry.max_attempts": 3,
    "defaults.retry.base_delay": 1.0,
    "defaults.retry.max_delay": 60.0,
    "defaults.retry.exponential_base": 2.0,
    "defaults.retry.jitter": "full",
    "defaults.retry.per_kind": {
        FailureKind.CONNECTION_ERROR: RetryRule(delay_factor=0.5),
        FailureKind.DNS_ERROR: RetryRule(delay_factor=2.0),
        FailureKind.AUTHENTICATION_ERROR: RetryRule(max_attempts=2),
        FailureKind.CONFIGURATION_ERROR: RetryRule(max_attempts=1),
        FailureKind.CERTIFICATE_ERROR: RetryRule(max_attempts=1),
    },
    "defaults.breaker.enabled": True,
    "defaults.breaker.mode": "enforce",
    "defaults.breaker.enforced": 1.0,
    "defaults.breaker.failure_threshold": 5,
    "defaults.breaker.success_threshold": 2,
    "defaults.breaker.timeout": 60.0,
    "defaults.breaker.half_open_max_calls": 1,
    "defaults.breaker.failure_rate": 0.5,
    "defaults.breaker.slow_rate": 0.8,
    "defaults.breaker.minimum_calls": 20,
    "defaults.breaker.window": 30.0,
    "defaults.breaker.window_calls": None,
    "defaults.breaker.slow_after": None,
    "defaults.breaker.jitter": 0.1,
    "defaults.breaker.growth": 1.0,
    "defaults.breaker.max_timeout": 600.0,
    "defaults.breaker.probe_lease": None,
    "defaults.breaker.per_kind": {},
    "defaults.breaker.ignore": (),
    "defaults.timeout.attempt": 30.0,
    "defaults.timeout.total": 120.0,
    "defaults.gate.enabled": True,
    "defaults.gate.max_wait": 5.0,
    "defaults.gate.hint_cap": 120.0,
    "defaults.gate.base_delay": 1.0,
    "defaults.budget.enabled": True,
    "defaults.budget.ratio": 0.2,
    "defaults.budget.window": 10.0,
    "defaults.budget.floor_per_second": 1.0,
    "defaults.budget.floor_burst": 10,
    "defaults.rate_limit.requests_per_second": None,
    "defaults.rate_limit.requests_per_minute": None,
    "defaults.rate_limit.requests_per_day": None,
    "defaults.rate_limit.tokens_per_minute": None,
    "defaults.rate_limit.tokens_per_day": None,
    "defaults.rate_limit.burst": None,
    "defaults.rate_limit.token_estimate": 0,
    "defaults.rate_limit.oversized": "refuse",
    "defaults.rate_limit.max_wait": 5.0,
    "defaults.rate_limit.max_queue": 1024,
    "defaults.rate_limit.follow_headers": True,
    "defaults.rate_limit.mode": "enforce",
    "defaults.rate_limit.enforced": 1.0,
    "defaults.bulkhead.max_concurrent": None,
    "defaults.bulkhead.max_queue": 64,
    "defaults.bulkhead.max_wait": 5.0,
    "defaults.bulkhead.order": "fifo",
    "defaults.bulkhead.max_pending": None,
    "defaults.bulkhead.adaptive": "off",
    "defaults.bulkhead.min_limit": 1,
    "defaults.bulkhead.max_limit": 200,
    "defaults.bulkhead.initial_limit": 20,
    "defaults.bulkhead.latency": "attempt",
    "defaults.bulkhead.mode": "enforce",
    "defaults.bulkhead.enforced": 1.0,
    "defaults.throttle.enabled": False,
    "defaults.throttle.ratio": 2.0,
    "defaults.throttle.window": 120.0,
    "defaults.throttle.max_reject": 0.9,
    "defaults.throttle.minimum_calls": 10,
    "defaults.throttle.mode": "enforce",
    "defaults.throttle.enforced": 1.0,
    "defaults.cost.limit": None,
    "defaults.cost.window": 86400.0,
    "defaults.cost.mode": "enforce",
    "defaults.cost.enforced": 1.0,
    "defaults.hedge.enabled": False,
    "defaults.hedge.max_extra_load": 0.05,
    "defaults.hedge.min_delay": 0.0,
    "defaults.hedge.max_delay": None,
    "defaults.hedge.warm_up": 50,
    "defaults.hedge.latency_window": 60.0,
    "defaults.stream.connect": None,
    "defaults.stream.first_item": None,
    "defaults.stream.idle": 30.0,
    "defaults.stream.total": None,
    "defaults.stream.keep": 0,
}


def value(settings: object, key: str) -> object:
    return reduce(getattr, key.split("."), settings)


@pytest.mark.parametrize("key, default", DEFAULTS.items())
@pytest.mark.parametrize("settings", [Settings(), Settings.from_environment({})], ids=["code", "environment"])
def test_default(settings: Settings, key: str, default: object) -> None:
    """Every setting has its documented default, and says so."""
    assert value(settings, key) == default
    if not isinstance(default, dict):
        assert settings.origin(key).source == "default"


def test_all_defaults_are_known() -> None:
    """No setting comes without a documented default."""
    keys = set()
    pending = [("", Settings())]
    while pending:
        prefix, table = pending.pop()
        for name in type(table).model_fields:
            below = getattr(table, name)
            pending += [(f"{prefix}{name}.", below)] if hasattr(below, "model_fields_set") else []
            keys |= set() if hasattr(below, "model_fields_set") else {prefix + name}
    assert keys == set(DEFAULTS)


VARIABLES = [
    ("RESILIENCE_ENABLED", "false", "enabled", False),
    ("RESILIENCE_MAX_PROVIDERS", "10", "max_providers", 10),
    ("RESILIENCE_RETRY_ENABLED", "no", "defaults.retry.enabled", False),
    ("RETRY_MAX_ATTEMPTS", "5", "defaults.retry.max_attempts", 5),
    ("RETRY_BASE_DELAY", "0.5", "defaults.retry.base_delay", 0.5),
    ("RETRY_MAX_DELAY", "30s", "defaults.retry.max_delay", 30.0),
    ("RETRY_MAX_DELAY", "1h", "defaults.retry.max_delay", 3600.0),
    ("RETRY_BASE_DELAY", "1500 MS", "defaults.retry.base_delay", 1.5),
    ("RETRY_EXPONENTIAL_BASE", "3", "defaults.retry.exponential_base", 3.0),
    ("RETRY_JITTER", "false", "defaults.retry.jitter", "none"),
    ("RETRY_JITTER", "true", "defaults.retry.jitter", "full"),
    ("RETRY_JITTER", "Equal", "defaults.retry.jitter", "equal"),
    ("RETRY_JITTER", "decorrelated", "defaults.retry.jitter", "decorrelated"),
    ("RETRY_JITTER", "proportional", "defaults.retry.jitter", "proportional"),
    ("RETRY_JITTER", "constant", "defaults.retry.jitter", "constant"),
    ("RESILIENCE_CIRCUIT_BREAKER_ENABLED", "off", "defaults.breaker.enabled", False),
    ("CIRCUIT_BREAKER_FAILURE_THRESHOLD", "7", "defaults.breaker.failure_threshold", 7),
    ("CIRCUIT_BREAKER_FAILURE_THRESHOLD", "none", "defaults.breaker.failure_threshold", None),
    ("CIRCUIT_BREAKER_SUCCESS_THRESHOLD", "3", "defaults.breaker.success_threshold", 3),
    ("CIRCUIT_BREAKER_TIMEOUT", "2m", "defaults.breaker.timeout", 120.0),
    ("CIRCUIT_BREAKER_HALF_OPEN_MAX_CALLS", "4", "defaults.breaker.half_open_max_calls", 4),
    ("HTTP_TIMEOUT_SEC", "12.5", "defaults.timeout.attempt", 12.5),
    ("HTTP_RETRIES", "4", "defaults.retry.max_attempts", 5),
    ("HTTP_RETRIES", "0", "defaults.retry.max_attempts", 1),
    ("HTTP_BACKOFF_BASE_MS", "250", "defaults.retry.base_delay", 0.25),
    ("HTTP_BACKOFF_BASE_MS", "1", "defaults.retry.base_delay", 0.001),
    ("HTTP_BACKOFF_BASE_MS", "0", "defaults.retry.base_delay", 0.0),
    ("CB_FAIL_THRESHOLD", "9", "defaults.breaker.failure_threshold", 9),
    ("CB_RESET_SEC", "15", "defaults.breaker.timeout", 15.0),
    ("CIRCUIT_BREAKER_RECOVERY_TIMEOUT", "20", "defaults.breaker.timeout", 20.0),
    ("RESILIENCE_DEFAULTS__RETRY__MAX_ATTEMPTS", "6", "defaults.retry.max_attempts", 6),
    ("RESILIENCE_DEFAULTS__TIMEOUT__TOTAL", "none", "defaults.timeout.total", None),
    ("RESILIENCE_DEFAULTS__ERRORS", "Standard", "defaults.errors", "standard"),
    ("RESILIENCE_DEFAULTS__BREAKER__MODE", "shadow", "defaults.breaker.mode", "shadow"),
    ("RESILIENCE_DEFAULTS__BUDGET__RATIO", "0", "defaults.budget.ratio", 0.0),
    ("RESILIENCE_DEFAULTS__GATE__MAX_WAIT", "0", "defaults.gate.max_wait", 0.0),
    ("RESILIENCE_DEFAULTS__CRITICAL", "yes", "defaults.critical", True),
    ("RESILIENCE_DEFAULTS__PROFILE", "LLM", "defaults.profile", "llm"),
    ("RESILIENCE_DEFAULTS__TELEMETRY__SPANS", "Always", "defaults.telemetry.spans", "always"),
    ("RESILIENCE_DEFAULTS__BREAKER__ENFORCED", "0.25", "defaults.breaker.enforced", 0.25),
    ("RESILIENCE_HEALTH__HOST", "0.0.0.0", "health.host", "0.0.0.0"),
    ("RESILIENCE_HEALTH__PORT", "0", "health.port", 0),
    ("RESILIENCE_HEALTH__PATH", "/internal/status", "health.path", "/internal/status"),
    ("RESILIENCE_HEALTH__MINIMUM_HEALTHY", "0.5", "health.minimum_healthy", 0.5),
    ("RESILIENCE_METRICS__PATH", "/internal/metrics", "metrics.path", "/internal/metrics"),
    ("RESILIENCE_METRICS__DIRECTORY", "/run/metrics", "metrics.directory", "/run/metrics"),
    ("RESILIENCE_METRICS__DIRECTORY", "none", "metrics.directory", None),
    ("RESILIENCE_LOGGING__FORMAT", "JSON", "logging.format", "json"),
    ("RESILIENCE_LOGGING__LEVEL", "debug", "logging.level", "DEBUG"),
    ("RESILIENCE_LOGGING__TRACEBACKS", "false", "logging.tracebacks", False),
    ("RESILIENCE_RELOAD__WATCH", "true", "reload.watch", True),
    ("RESILIENCE_RELOAD__INTERVAL", "500ms", "reload.interval", 0.5),
    ("RESILIENCE_SHUTDOWN__GRACE", "25s", "shutdown.grace", 25.0),
    (
        "RESILIENCE_DEFAULTS__BREAKER__IGNORE",
        "not_found, Timeout",
        "defaults.breaker.ignore",
        (FailureKind.NOT_FOUND, FailureKind.TIMEOUT),
    ),
    (
        "RESILIENCE_DEFAULTS__BREAKER__PER_KIND__TIMEOUT",
        "3",
        "defaults.breaker.per_kind",
        {FailureKind.TIMEOUT: 3},
    ),
]


@pytest.mark.parametrize("name, text, key, expected", VARIABLES)
def test_variable(name: str, text: str, key: str, expected: object) -> None:
    """Every environment variable sets its setting, and nothing else."""
    settings = Settings.from_environment({name: text})
    assert value(settings, key) == expected
    leaf = f"{key}.timeout" if key.endswith("breaker.per_kind") else key
    assert [difference.key for difference in settings.differences()] in ([leaf], [])
    assert str(settings.origin(leaf)) == f"environment variable {name}"


@pytest.mark.parametrize(
    "text, expected",
    [
        (text, text in ("true", "1", "yes", "on", "TRUE", " Yes "))
        for text in ("true", "1", "yes", "on", "TRUE", " Yes ", "false", "0", "no", "off", "False", "NO")
    ],
)
def test_booleans(text: str, expected: bool) -> None:
    """Booleans are read in every usual spelling."""
    assert Settings.from_environment({"RESILIENCE_ENABLED": text}).enabled is expected


@pytest.mark.parametrize("name", [name for name, *_ in VARIABLES] + ["RESILIENCE_CONFIG", "RESILIENCE_ENV"])
def test_empty_variable(name: str) -> None:
    """A variable that is empty counts as not set: that is what compose files make of one that is missing."""
    assert Settings.from_environment({name: " "}) == Settings()


def test_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments the variables of the process are read."""
    monkeypatch.setenv("RETRY_MAX_ATTEMPTS", "8")
    assert Settings.from_environment().defaults.retry.max_attempts == 8
