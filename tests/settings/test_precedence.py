"""Which source wins: arguments, then the environment, then the file, then the defaults."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from resilience.settings import BreakerSettings, OperationSettings, ProviderSettings, RetrySettings, Settings

Write = Callable[[str, str], str]


def test_each_source_overrules_the_next(write: Write) -> None:
    """Arguments win over the environment, the environment over the overlay, that over the file."""
    environ = {
        "RESILIENCE_CONFIG": write(
            "r.toml",
            """
            [defaults.retry]
            max_attempts = 4
            base_delay = 4
            max_delay = 44
            exponential_base = 4
            [environments.staging.defaults.retry]
            max_attempts = 5
            base_delay = 5
            max_delay = 55
            """,
        ),
        "RESILIENCE_ENV": "staging",
        "RETRY_MAX_ATTEMPTS": "6",
        "RETRY_BASE_DELAY": "6",
    }
    settings = Settings.from_environment(environ, defaults=ProviderSettings(retry=RetrySettings(max_attempts=7)))
    assert settings.defaults.retry == RetrySettings(max_attempts=7, base_delay=6, max_delay=55, exponential_base=4)
    written = ("max_attempts", "base_delay", "max_delay", "exponential_base")
    origins = [str(settings.origin(f"defaults.retry.{name}")) for name in ("enabled", *written, "jitter")]
    assert origins == [
        "default",
        "in code",
        "environment variable RETRY_BASE_DELAY",
        "file r.toml, environments.staging",
        "file r.toml",
        "default",
    ]


ORDERS = [
    (
        "defaults.breaker.timeout",
        "CB_RESET_SEC",
        "CIRCUIT_BREAKER_RECOVERY_TIMEOUT",
        "CIRCUIT_BREAKER_TIMEOUT",
        "RESILIENCE_DEFAULTS__BREAKER__TIMEOUT",
    ),
    (
        "defaults.breaker.failure_threshold",
        "CB_FAIL_THRESHOLD",
        "CIRCUIT_BREAKER_FAILURE_THRESHOLD",
        "RESILIENCE_DEFAULTS__BREAKER__FAILURE_THRESHOLD",
    ),
    ("defaults.retry.max_attempts", "HTTP_RETRIES", "RETRY_MAX_ATTEMPTS", "RESILIENCE_DEFAULTS__RETRY__MAX_ATTEMPTS"),
    ("defaults.retry.base_delay", "HTTP_BACKOFF_BASE_MS", "RETRY_BASE_DELAY", "RESILIENCE_DEFAULTS__RETRY__BASE_DELAY"),
    ("defaults.timeout.attempt", "HTTP_TIMEOUT_SEC", "RESILIENCE_DEFAULTS__TIMEOUT__ATTEMPT"),
    ("defaults.retry.enabled", "RESILIENCE_RETRY_ENABLED", "RESILIENCE_DEFAULTS__RETRY__ENABLED"),
    ("defaults.breaker.enabled", "RESILIENCE_CIRCUIT_BREAKER_ENABLED", "RESILIENCE_DEFAULTS__BREAKER__ENABLED"),
]
PAIRS = [(key, low, high) for key, *names in ORDERS for low, high in pairwise(names)]


@pytest.mark.parametrize("key, low, high", PAIRS)
@pytest.mark.parametrize("swapped", [False, True])
def test_names_overrule_each_other(key: str, low: str, high: str, swapped: bool) -> None:
    """Names that services already use come last, then our short names, then the full ones, in whatever order."""
    texts = {low: "0", high: "1"} if "enabled" in key else {low: "11", high: "12"}
    names = [high, low] if swapped else [low, high]
    settings = Settings.from_environment({name: texts[name] for name in names})
    assert settings.origin(key).name == high


def test_partial_tables_are_merged(write: Write) -> None:
    """Sources add to one another down to the single value; nothing is replaced as a whole."""
    settings = Settings.from_environment(
        {"RESILIENCE_PROVIDERS__S3__BREAKER__TIMEOUT": "7", "RESILIENCE_PROVIDERS__S3__RETRY__MAX_ATTEMPTS": "7"},
        file=write("r.json", '{"providers": {"s3": {"retry": {"base_delay": "2s", "max_attempts": 2}}, "x": {}}}'),
        providers={"s3": ProviderSettings(breaker=BreakerSettings(growth=2)), "y": {"enabled": False}},
    )
    assert settings.providers == {
        "s3": ProviderSettings(
            retry=RetrySettings(base_delay=2, max_attempts=7), breaker=BreakerSettings(timeout=7, growth=2)
        ),
        "x": ProviderSettings(),
        "y": ProviderSettings(enabled=False),
    }


def test_arguments_win_over_the_names_of_file_and_overlay(write: Write) -> None:
    """file= and environment= are used in place of RESILIENCE_CONFIG and RESILIENCE_ENV."""
    used = write("used.toml", "max_providers = 1\n[environments.dev]\nmax_providers = 2")
    environ = {"RESILIENCE_CONFIG": "there-is-none.toml", "RESILIENCE_ENV": "production"}
    assert Settings.from_environment(environ, file=used, environment="dev").max_providers == 2


def test_provider_names_with_dashes_and_dots(write: Write) -> None:
    """MY_API means the entry that the file or the code calls my-api or my.api."""
    settings = Settings.from_environment(
        {
            "RESILIENCE_PROVIDERS__MY_API__RETRY__MAX_ATTEMPTS": "5",
            "RESILIENCE_PROVIDERS__OTHER_API__RETRY__MAX_ATTEMPTS": "6",
        },
        file=write("r.toml", '[providers."my-api"]\nenabled = true'),
        providers={"other.api": ProviderSettings()},
    )
    assert {name: provider.retry.max_attempts for name, provider in settings.providers.items()} == {
        "my-api": 5,
        "other.api": 6,
    }


def test_operation_names() -> None:
    """Operations keep the spelling that the code gives them; the environment finds them in capitals."""
    settings = Settings.from_environment(
        {
            "RESILIENCE_PROVIDERS__S3__OPERATIONS__PUTOBJECT__IDEMPOTENT": "yes",
            "RESILIENCE_PROVIDERS__S3__OPERATIONS__GET_OBJECT__TIMEOUT__TOTAL": "5",
        },
        defaults=ProviderSettings(operations={"PutObject": OperationSettings()}),
    )
    found = settings.for_provider("s3")
    assert found.idempotent("PutObject") is True
    assert found.for_operation("get-object").timeout.total == 5.0


def test_capitals_do_not_matter_after_the_prefix() -> None:
    """Long names can be written in any case, as shells of all systems allow."""
    settings = Settings.from_environment({"RESILIENCE_PROVIDERS__openai__retry__Max_Attempts": "5"})
    assert settings.for_provider("openai").retry.max_attempts == 5


def test_other_peoples_variables_are_left_alone() -> None:
    """Variables that are not ours are not looked at, whatever they are called."""
    others = {"HTTP_PROXY": "x", "RETRY_COUNT": "x", "retry_max_attempts": "x", "CIRCUIT_BREAKER": "x", "PATH": "x"}
    assert Settings.from_environment(others) == Settings()
