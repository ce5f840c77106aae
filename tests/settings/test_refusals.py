"""What is refused, and what is said about it: the key, the value, where it came from and the likely slip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resilience.failure import FailureKind
from resilience.settings import (
    BreakerSettings,
    BudgetSettings,
    ExperimentSettings,
    GateSettings,
    HealthSettings,
    LoggingSettings,
    MetricsSettings,
    OperationSettings,
    ProviderSettings,
    ReloadSettings,
    RetryRule,
    RetrySettings,
    Settings,
    TelemetrySettings,
    TimeoutSettings,
)

Refusal = Callable[..., str]
NAN, INFINITY = float("nan"), float("inf")

ONE_ATTEMPT = "; the first attempt counts, so 1 means no retry"
ANY_DURATION = "must be a duration: a number of seconds, or text such as 500ms, 30s, 2m, 1h"
MILLISECONDS = "; durations are in seconds, and milliseconds are written 500ms"
PERCENTAGE = "; it is a share, not a percentage: 50 % is 0.5"
WITHOUT = "; write none to do without it"
NO_LIMIT = "; write none for no limit"
NO_HOST = "must be an address of this machine, such as 127.0.0.1, ::1 or 0.0.0.0, without a port"
KINDS = ", ".join(FailureKind)

VALUES: list[tuple[Any, str, Any, str, str]] = [
    (RetrySettings, "max_attempts", 0, "0", "must be at least 1" + ONE_ATTEMPT),
    (RetrySettings, "max_attempts", -3, "-3", "must be at least 1" + ONE_ATTEMPT),
    (RetrySettings, "max_attempts", True, "True", "must be a number, not true or false"),
    (RetrySettings, "max_attempts", 2.5, "2.5", "must be a whole number"),
    (RetrySettings, "max_attempts", "many", "'many'", "must be a whole number"),
    (RetrySettings, "max_attempts", None, "none", "must be a whole number; it cannot be none"),
    (RetrySettings, "max_attempts", {"a": 1}, "{...}", "must be a whole number"),
    (RetrySettings, "max_attempts", [1], "<list>", "must be a whole number"),
    (RetrySettings, "max_attempts", 10**9, "1000000000", "must be at most 1000000"),
    (RetrySettings, "max_attempts", 1 << 200, "a huge number", "must be at most 1000000"),
    (RetrySettings, "max_attempts", "9" * 200, f"'{'9' * 60}'...", "must be at most 1000000"),
    (RetrySettings, "enabled", "perhaps", "'perhaps'", "must be true or false"),
    (RetrySettings, "enabled", 2, "2", "must be true or false"),
    (RetrySettings, "base_delay", -1, "-1", "must be at least 0"),
    (RetrySettings, "base_delay", "-5ms", "'-5ms'", "must be at least 0"),
    (RetrySettings, "base_delay", NAN, "nan", "must be a finite number"),
    (RetrySettings, "base_delay", INFINITY, "inf", "must be a finite number"),
    (RetrySettings, "base_delay", "nan", "'nan'", ANY_DURATION),
    (RetrySettings, "base_delay", "soon", "'soon'", ANY_DURATION),
    (RetrySettings, "base_delay", "1e999", "'1e999'", "must be a finite number"),
    (RetrySettings, "base_delay", "none", "'none'", f"{ANY_DURATION}; it cannot be none"),
    (RetrySettings, "base_delay", False, "False", "must be a number, not true or false"),
    (RetrySettings, "base_delay", [], "<list>", "must be a number"),
    (RetrySettings, "base_delay", 10**9, "1000000000", "must be at most 366 days" + MILLISECONDS),
    (RetrySettings, "max_delay", "5 sec", "'5 sec'", "has the unknown unit 'sec'; write s"),
    (RetrySettings, "max_delay", "5 Minutes", "'5 Minutes'", "has the unknown unit 'Minutes'; write m"),
    (RetrySettings, "max_delay", "5hrs", "'5hrs'", "has the unknown unit 'hrs'; write h"),
    (RetrySettings, "max_delay", "1d", "'1d'", "has the unknown unit 'd'; write 24h for a day"),
    (RetrySettings, "max_delay", "1millis", "'1millis'", "has the unknown unit 'millis'; write ms"),
    (RetrySettings, "max_delay", "1us", "'1us'", "has the unknown unit 'us'; the units are ms, s, m and h"),
    (RetrySettings, "exponential_base", 0.5, "0.5", "must be at least 1"),
    (RetrySettings, "exponential_base", 1000, "1000", "must be at most 100"),
    (RetrySettings, "exponential_base", "two", "'two'", "must be a number"),
    (
        RetrySettings,
        "jitter",
        "ful",
        "'ful'",
        "must be one of full, none, equal, decorrelated, proportional, constant; did you mean 'full'?",
    ),
    (RetrySettings, "jitter", 0.1, "0.1", "must be one of full, none, equal, decorrelated, proportional, constant"),
    (RetrySettings, "per_kind", 3, "3", "must be a table of settings"),
    (RetryRule, "delay_factor", -1, "-1", "must be at least 0"),
    (RetryRule, "delay_factor", NAN, "nan", "must be a finite number"),
    (RetryRule, "delay_factor", 100.5, "100.5", "must be at most 100"),
    (BreakerSettings, "jitter", NAN, "nan", "must be a finite number"),
    (BreakerSettings, "growth", NAN, "nan", "must be a finite number"),
    (BudgetSettings, "ratio", NAN, "nan", "must be a finite number"),
    (BudgetSettings, "floor_per_second", INFINITY, "inf", "must be a finite number"),
    (RetryRule, "max_attempts", 0, "0", "must be at least 1" + ONE_ATTEMPT),
    (BreakerSettings, "failure_threshold", 0, "0", "must be at least 1" + WITHOUT),
    (BreakerSettings, "success_threshold", 0, "0", "must be at least 1"),
    (BreakerSettings, "half_open_max_calls", 0, "0", "must be at least 1"),
    (BreakerSettings, "half_open_max_calls", "none", "'none'", "must be a whole number; it cannot be none"),
    (BreakerSettings, "timeout", 0, "0", "must be more than 0"),
    (BreakerSettings, "timeout", 60_000_000, "60000000", "must be at most 366 days" + MILLISECONDS),
    (BreakerSettings, "failure_rate", 50, "50", "must be at most 1" + PERCENTAGE),
    (BreakerSettings, "failure_rate", 0, "0", "must be more than 0" + WITHOUT),
    (BreakerSettings, "slow_rate", "80%", "'80%'", "must be a number"),
    (BreakerSettings, "slow_rate", NAN, "nan", "must be a finite number" + WITHOUT),
    (BreakerSettings, "minimum_calls", 0, "0", "must be at least 1"),
    (BreakerSettings, "window", 0, "0", "must be more than 0"),
    (BreakerSettings, "window_calls", 0, "0", "must be at least 1" + WITHOUT),
    (BreakerSettings, "slow_after", 0, "0", "must be more than 0" + WITHOUT),
    (BreakerSettings, "jitter", 1, "1", "must be less than 1"),
    (BreakerSettings, "jitter", -0.1, "-0.1", "must be at least 0"),
    (BreakerSettings, "growth", 0.9, "0.9", "must be at least 1"),
    (BreakerSettings, "max_timeout", 0, "0", "must be more than 0"),
    (BreakerSettings, "probe_lease", -1, "-1", "must be more than 0" + WITHOUT),
    (
        BreakerSettings,
        "mode",
        "shadwo",
        "'shadwo'",
        "must be one of enforce, shadow, disabled, forced_open; did you mean 'shadow'?",
    ),
    (BreakerSettings, "ignore", 5, "5", "must be a list"),
    (BreakerSettings, "ignore", [5], "5", "must be failure kinds, exception types or predicates"),
    (BreakerSettings, "ignore", "not_fond", "'not_fond'", "'not_fond' is no failure kind; did you mean 'not_found'?"),
    (BreakerSettings, "ignore", ["x"], "'x'", f"'x' is no failure kind; known: {KINDS}"),
    (
        BreakerSettings,
        "ignore",
        [int],
        "<type>",
        "must be failure kinds, exception types or predicates; int is another kind of type",
    ),
    (TimeoutSettings, "attempt", 0, "0", "must be more than 0" + WITHOUT),
    (TimeoutSettings, "total", INFINITY, "inf", "must be a finite number" + WITHOUT),
    (GateSettings, "max_wait", -1, "-1", "must be at least 0"),
    (GateSettings, "hint_cap", None, "none", "must be a number; it cannot be none"),
    (BudgetSettings, "ratio", 20, "20", "must be at most 1" + PERCENTAGE),
    (BudgetSettings, "window", 0, "0", "must be more than 0"),
    (BudgetSettings, "floor_per_second", -1, "-1", "must be at least 0"),
    (BudgetSettings, "floor_burst", -1, "-1", "must be at least 0"),
    (BudgetSettings, "floor_burst", True, "True", "must be a number, not true or false"),
    (
        OperationSettings,
        "timeout",
        None,
        "none",
        "must be a table of settings; for no limit, write attempt = none and total = none in it",
    ),
    (
        OperationSettings,
        "retry",
        None,
        "none",
        "must be a table of settings; to switch it off, write enabled = false in it",
    ),
    (Settings, "defaults", 5, "5", "must be a table of settings"),
    (OperationSettings, "timeout", RetrySettings(), "RetrySettings(...)", "must be a table of settings"),
    (OperationSettings, "idempotent", "si", "'si'", "must be true or false"),
    (ProviderSettings, "errors", "nativ", "'nativ'", "must be one of native, standard; did you mean 'native'?"),
    (Settings, "max_providers", 0, "0", "must be at least 1"),
    (HealthSettings, "host", "", "''", NO_HOST),
    (HealthSettings, "host", "localhost/health", "'localhost/health'", NO_HOST),
    (HealthSettings, "port", 65536, "65536", "must be at most 65535"),
    (HealthSettings, "path", "health", "'health'", "must be the path of an address, such as /metrics"),
    (HealthSettings, "minimum_healthy", 1, "1", "must be less than 1"),
    (MetricsSettings, "path", "metrics", "'metrics'", "must be the path of an address, such as /metrics"),
    (MetricsSettings, "directory", "", "''", "must not be empty"),
    (
        LoggingSettings,
        "level",
        "warn",
        "'warn'",
        "must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL; did you mean 'WARNING'?",
    ),
    (TelemetrySettings, "spans", True, "True", "must be one of off, sampled, always"),
    (ReloadSettings, "interval", 0, "0", "must be more than 0"),
    (ExperimentSettings, "share", 20, "20", "must be at most 1" + PERCENTAGE),
    (Settings, "providers", ["s3"], "<list>", "must be a table of settings"),
]


@pytest.mark.parametrize("model, key, value, shown, why", VALUES)
def test_value(refusal: Refusal, model: Any, key: str, value: object, *, shown: str, why: str) -> None:
    """Nonsense is refused at construction, with the key, the value, what was expected and the likely slip."""
    assert refusal(lambda: model(**{key: value})) == f"{model.__name__} refused: {key} = {shown} (in code): {why}"


VARIABLES = [
    ("RETRY_MAX_ATTEMPTS", "0", "defaults.retry.max_attempts", "must be at least 1" + ONE_ATTEMPT),
    ("RETRY_MAX_ATTEMPTS", "3.5", "defaults.retry.max_attempts", "must be a whole number"),
    ("RETRY_BASE_DELAY", "inf", "defaults.retry.base_delay", ANY_DURATION),
    ("RETRY_BASE_DELAY", "500 msec", "defaults.retry.base_delay", "has the unknown unit 'msec'; write ms"),
    ("RESILIENCE_ENABLED", "disabled", "enabled", "must be true or false"),
    ("RESILIENCE_DEFAULTS__TIMEOUT__TOTAL", "0", "defaults.timeout.total", "must be more than 0" + NO_LIMIT),
    ("RESILIENCE_DEFAULTS__TIMEOUT__TOTAL", "-inf", "defaults.timeout.total", ANY_DURATION),
    ("RESILIENCE_DEFAULTS__TIMEOUT__ATTEMPT", "null", "defaults.timeout.attempt", ANY_DURATION),
    (
        "HTTP_RETRIES",
        "-1",
        "defaults.retry.max_attempts",
        "must be at least 0; HTTP_RETRIES counts retries, so there is one more attempt",
    ),
    (
        "HTTP_RETRIES",
        "3x",
        "defaults.retry.max_attempts",
        "must be a whole number; HTTP_RETRIES counts retries, so there is one more attempt",
    ),
    (
        "HTTP_RETRIES",
        "1000000",
        "defaults.retry.max_attempts",
        "must be at most 1000000; HTTP_RETRIES counts retries, so there is one more attempt",
    ),
    (
        "HTTP_BACKOFF_BASE_MS",
        "0.5",
        "defaults.retry.base_delay",
        "is less than a millisecond; HTTP_BACKOFF_BASE_MS is in milliseconds",
    ),
    (
        "HTTP_BACKOFF_BASE_MS",
        "1s",
        "defaults.retry.base_delay",
        "must be a number, without a unit; HTTP_BACKOFF_BASE_MS is in milliseconds",
    ),
    (
        "HTTP_BACKOFF_BASE_MS",
        "nan",
        "defaults.retry.base_delay",
        "must be a finite number; HTTP_BACKOFF_BASE_MS is in milliseconds",
    ),
    (
        "HTTP_BACKOFF_BASE_MS",
        "-5",
        "defaults.retry.base_delay",
        "must be at least 0; HTTP_BACKOFF_BASE_MS is in milliseconds",
    ),
    (
        "HTTP_TIMEOUT_SEC",
        "99999999",
        "defaults.timeout.attempt",
        "must be at most 366 days" + MILLISECONDS + "; no limit is none; HTTP_TIMEOUT_SEC is in seconds",
    ),
    ("CB_RESET_SEC", "0", "defaults.breaker.timeout", "must be more than 0; CB_RESET_SEC is in seconds"),
    ("CB_FAIL_THRESHOLD", "0", "defaults.breaker.failure_threshold", "must be at least 1" + WITHOUT),
    (
        "CIRCUIT_BREAKER_RECOVERY_TIMEOUT",
        "1 year",
        "defaults.breaker.timeout",
        "has the unknown unit 'year'; the units are ms, s, m and h",
    ),
]


@pytest.mark.parametrize("name, text, key, why", VARIABLES)
def test_variable(refusal: Refusal, name: str, text: str, key: str, why: str) -> None:
    """Nonsense in the environment is refused with the variable that holds it, even where a better one overrules it."""
    line = f"settings refused: {key} = '{text}' (environment variable {name}): {why}"
    assert refusal({name: text}) == line


SECRET = "sk-secret"
UNKNOWN = [
    (
        "RESILIENCE_FOO",
        (
            "unknown setting; known: CONFIG, ENV, CIRCUIT_BREAKER_ENABLED, RETRY_ENABLED, ENABLED, "
            "DEFAULTS__..., PROVIDERS__<NAME>__..., MAX_PROVIDERS, EXPERIMENTS__<NAME>__..., HEALTH__..., "
            "METRICS__..., LOGGING__..., RELOAD__..., SHUTDOWN__..."
        ),
    ),
    ("RESILIENCE_ENABLE", "unknown setting; did you mean 'ENABLED'?"),
    ("RESILIENCE_RETRY_MAX_ATTEMPTS", "unknown setting; did you mean 'RETRY_MAX_ATTEMPTS'?"),
    ("RESILIENCE_PROVIDERS_S3_RETRY_MAX_ATTEMPTS", "unknown setting; levels are separated by two underscores"),
    ("RESILIENCE_DEFAULTS_RETRY", "unknown setting; levels are separated by two underscores"),
    (
        "RESILIENCE_PROVIDERS__OPENAI__API_KEY",
        (
            "unknown setting; known: enabled, critical, profile, errors, retry, breaker, timeout, gate, budget, "
            "rate_limit, bulkhead, throttle, cost, hedge, stream, telemetry, operations"
        ),
    ),
    (
        "RESILIENCE_PROVIDERS__OPENAI__RETRIES",
        (
            "unknown setting; did you mean 'retry.max_attempts'? It counts the first "
            "attempt too: n retries are n + 1 attempts"
        ),
    ),
    ("RESILIENCE_PROVIDERS__OPENAI__MAX_ATTEMPTS", "unknown setting; did you mean 'retry.max_attempts'?"),
    ("RESILIENCE_PROVIDERS__OPENAI__CIRCUIT_BREAKER__TIMEOUT", "unknown setting; did you mean 'breaker'?"),
    (
        "RESILIENCE_DEFAULTS__RETRY__MAX_RETRIES",
        ("unknown setting; did you mean 'max_attempts'? It counts the first attempt too: n retries are n + 1 attempts"),
    ),
    ("RESILIENCE_DEFAULTS__BREAKER__RECOVERY_TIMEOUT", "unknown setting; did you mean 'timeout'?"),
    ("RESILIENCE_DEFAULTS__RETRY__MAX_ATTEMPTS__X", "unknown setting: what it stands under is a single value"),
    (
        "RESILIENCE_DEFAULTS__RETRY__PER_KIND__TIEMOUT__MAX_ATTEMPTS",
        ("'tiemout' is no failure kind; did you mean 'timeout'?"),
    ),
    (
        "RESILIENCE_DEFAULTS__RETRY",
        (
            "not a single setting; add two underscores and one of ENABLED, MAX_ATTEMPTS, "
            "BASE_DELAY, MAX_DELAY, EXPONENTIAL_BASE, JITTER, PER_KIND"
        ),
    ),
    ("RESILIENCE_PROVIDERS", "not a single setting; add two underscores and one of <NAME>__..."),
    ("RESILIENCE_PROVIDERS__", "unknown setting; a name is missing between the underscores"),
    (
        "RESILIENCE_",
        (
            "unknown setting; known: CONFIG, ENV, CIRCUIT_BREAKER_ENABLED, RETRY_ENABLED, ENABLED, "
            "DEFAULTS__..., PROVIDERS__<NAME>__..., MAX_PROVIDERS, EXPERIMENTS__<NAME>__..., HEALTH__..., "
            "METRICS__..., LOGGING__..., RELOAD__..., SHUTDOWN__..."
        ),
    ),
]


@pytest.mark.parametrize("text", [SECRET, ""])
@pytest.mark.parametrize("name, why", UNKNOWN)
def test_unknown_variable(refusal: Refusal, name: str, why: str, text: str) -> None:
    """An unknown RESILIENCE_ variable is refused by name; its value, which may be a secret, is never shown."""
    assert refusal({name: text}) == f"settings refused: {name} (environment variable): {why}"


def test_wrong_provider_names(refusal: Refusal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that no provider can have is refused with its origin, even where nothing is said about it."""
    monkeypatch.chdir(tmp_path)
    Path("r.toml").write_text("[providers.OpenAI]\n[providers.s3]\nenabled = true\n")
    environ = {"RESILIENCE_PROVIDERS__A+B__ENABLED": "1", "RESILIENCE_MAX_PROVIDERS": "5"}
    letters = "those are lower-case letters, digits, '_', '-' and '.'"
    assert refusal(environ, file="r.toml") == (
        "settings refused, 2 problems:"
        f"\n  - providers (file r.toml): 'OpenAI' is no provider name: {letters}; did you mean 'openai'?"
        "\n  - providers (environment variable RESILIENCE_PROVIDERS__A+B__ENABLED): 'a+b' is no provider name: "
        f"{letters}"
    )


def test_lists_are_shown_as_they_were_written(refusal: Refusal) -> None:
    """A list in a variable is shown as a whole, one in code by the item that is wrong."""
    name = "RESILIENCE_DEFAULTS__BREAKER__IGNORE"
    why = "'not_fond' is no failure kind; did you mean 'not_found'?"
    key = "defaults.breaker.ignore"
    assert refusal({name: "timeout,not_fond"}) == (
        f"settings refused: {key} = 'timeout,not_fond' (environment variable {name}): {why}"
    )
    tree = {"breaker": {"ignore": ["timeout", "not_fond"]}}
    assert refusal({}, defaults=tree) == f"settings refused: {key} = 'not_fond' (in code): {why}"


def test_ambiguous_variable(refusal: Refusal) -> None:
    """A variable that may mean one of two providers is refused."""
    providers = {"my-api": ProviderSettings(), "my.api": ProviderSettings()}
    assert refusal({"RESILIENCE_PROVIDERS__MY_API__ENABLED": "no"}, providers=providers) == (
        "settings refused: RESILIENCE_PROVIDERS__MY_API__ENABLED (environment variable): "
        "it may mean any of my-api, my.api; use the file"
    )


def test_a_variable_in_two_spellings(refusal: Refusal) -> None:
    """Two variables that differ only in case, and in what they say, are refused."""
    environ = {"RESILIENCE_PROVIDERS__S3__ENABLED": "no", "RESILIENCE_PROVIDERS__s3__ENABLED": "yes"}
    assert refusal(environ) == (
        "settings refused: RESILIENCE_PROVIDERS__s3__ENABLED (environment variable): "
        "it says something else than RESILIENCE_PROVIDERS__S3__ENABLED"
    )


KEYS = [
    (
        {"colour": 3},
        (
            "colour (in code): unknown setting; known: enabled, defaults, providers, max_providers, experiments, "
            "health, metrics, logging, reload, shutdown"
        ),
    ),
    ({"enable": 1}, "enable (in code): unknown setting; did you mean 'enabled'?"),
    ({"timeout": 1}, "timeout (in code): unknown setting; did you mean 'defaults.timeout'?"),
    (
        {"defaults": {"retry": {"retries": SECRET}}},
        (
            "defaults.retry.retries (in code): unknown setting; did you mean "
            "'max_attempts'? It counts the first attempt too: n retries are n + 1 attempts"
        ),
    ),
    (
        {"defaults": {"retry": {"per_kind": {"tiemout": {}}}}},
        ("defaults.retry.per_kind (in code): 'tiemout' is no failure kind; did you mean 'timeout'?"),
    ),
    (
        {"defaults": {"breaker": {"per_kind": {"timeout": 0}}}},
        ("defaults.breaker.per_kind.timeout = 0 (in code): must be at least 1"),
    ),
    (
        {"providers": {"OpenAI": {}}},
        (
            "providers (in code): 'OpenAI' is no provider name: those are lower-case letters, "
            "digits, '_', '-' and '.'; did you mean 'openai'?"
        ),
    ),
    (
        {"providers": {"Open AI": {}}},
        (
            "providers (in code): 'Open AI' is no provider name: those are lower-case "
            "letters, digits, '_', '-' and '.'; did you mean 'open-ai'?"
        ),
    ),
    (
        {"providers": {"é": {}}},
        ("providers (in code): 'é' is no provider name: those are lower-case letters, digits, '_', '-' and '.'"),
    ),
    ({"defaults": {"retry": 5}}, "defaults.retry = 5 (in code): must be a table of settings"),
]


@pytest.mark.parametrize("tree, line", KEYS)
def test_key(refusal: Refusal, tree: dict[str, Any], line: str) -> None:
    """Unknown keys are refused with what was probably meant, in models and in trees; their values are not shown."""
    assert refusal(lambda: Settings(**tree)) == f"Settings refused: {line}"
    assert refusal({}, **tree) == f"settings refused: {line}"


def test_keys_that_are_no_text(refusal: Refusal) -> None:
    """YAML and Python know keys that are no text; names are."""
    tree: Any = {1: {}}
    assert (
        refusal({}, providers=tree) == "settings refused: providers.1 (in code): names are text, so write it in quotes"
    )


def test_everything_at_once(refusal: Refusal) -> None:
    """All problems come in one error, so that nobody has to start a service five times."""
    environ = {"RETRY_MAX_ATTEMPTS": "0", "RESILIENCE_FOO": SECRET, "RESILIENCE_CONFIG": "x.toml", "HTTP_RETRIES": "x"}
    text = refusal(environ, defaults={"timeout": {"attempt": 5, "total": 1}}, max_providers=0)
    assert text == (
        "settings refused, 6 problems:"
        "\n  - file x.toml, named by RESILIENCE_CONFIG: cannot be read: No such file or directory"
        "\n  - defaults.retry.max_attempts = 'x' (environment variable HTTP_RETRIES): must be a whole number; "
        "HTTP_RETRIES counts retries, so there is one more attempt"
        "\n  - RESILIENCE_FOO (environment variable): unknown setting; known: CONFIG, ENV, CIRCUIT_BREAKER_ENABLED, "
        "RETRY_ENABLED, ENABLED, DEFAULTS__..., PROVIDERS__<NAME>__..., MAX_PROVIDERS, EXPERIMENTS__<NAME>__..., "
        "HEALTH__..., METRICS__..., LOGGING__..., RELOAD__..., SHUTDOWN__..."
        "\n  - defaults.retry.max_attempts = '0' (environment variable RETRY_MAX_ATTEMPTS): must be at least 1"
        "; the first attempt counts, so 1 means no retry"
        "\n  - defaults.timeout.attempt = 5 (in code): must not be more than defaults.timeout.total = 1 (in code): "
        "one attempt cannot outlast the whole call"
        "\n  - max_providers = 0 (in code): must be at least 1"
    )
