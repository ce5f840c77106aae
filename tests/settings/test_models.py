"""Settings as values: frozen, comparable, printable, and merged by what was written."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from resilience.errors import ConfigurationError, ResilienceError
from resilience.failure import FailureKind
from resilience.settings import (
    BreakerSettings,
    OperationSettings,
    ProviderSettings,
    RetryRule,
    RetrySettings,
    Settings,
    TimeoutSettings,
)

EXAMPLE = Settings(
    defaults=ProviderSettings(retry=RetrySettings(base_delay=0.1)),
    providers={"s3": ProviderSettings(breaker=BreakerSettings(timeout=5, ignore=(KeyError,)))},
)


def test_a_provider_inherits_what_it_does_not_say() -> None:
    """An entry needs only what differs; the rest comes from the defaults, and from nowhere else."""
    found = EXAMPLE.for_provider("s3")
    assert found == ProviderSettings(
        retry=RetrySettings(base_delay=0.1), breaker=BreakerSettings(timeout=5, ignore=(KeyError,))
    )


def test_a_provider_without_an_entry_has_the_defaults() -> None:
    """A name that nobody wrote an entry for is served by the defaults."""
    assert EXAMPLE.for_provider("openai") == EXAMPLE.defaults


def test_writing_the_default_overrides_too() -> None:
    """What counts is that something was written, not that it differs from the built-in default."""
    settings = Settings(
        defaults=ProviderSettings(retry=RetrySettings(max_attempts=9), timeout=TimeoutSettings(attempt=10)),
        providers={"s3": ProviderSettings(retry=RetrySettings(max_attempts=3), timeout=TimeoutSettings(attempt=None))},
    )
    found = settings.for_provider("s3")
    assert (found.retry.max_attempts, found.timeout.attempt, found.timeout.total) == (3, None, 120.0)


def test_dashes_and_dots_find_the_spelling_of_the_environment() -> None:
    """An entry that only an environment variable could write serves names with dashes and dots."""
    settings = Settings.from_environment({"RESILIENCE_PROVIDERS__MY_API_V1__RETRY__MAX_ATTEMPTS": "7"})
    for name in ("my_api_v1", "my-api-v1", "my-api.v1"):
        assert settings.for_provider(name).retry.max_attempts == 7
    assert settings.for_provider("my-api").retry.max_attempts == 3


def test_an_exact_entry_comes_first() -> None:
    """A name's own entry is never hidden by one that is only spelled alike."""
    settings = Settings(
        providers={
            "my-api": ProviderSettings(retry=RetrySettings(max_attempts=4)),
            "my_api": ProviderSettings(retry=RetrySettings(max_attempts=5)),
        }
    )
    assert settings.for_provider("my-api").retry.max_attempts == 4
    assert settings.for_provider("my_api").retry.max_attempts == 5
    assert settings.for_provider("my.api").retry.max_attempts == 5


def test_the_main_switch_turns_every_provider_off() -> None:
    """With enabled=False no provider is enabled, whatever its entry says."""
    settings = Settings(enabled=False, providers={"s3": ProviderSettings(enabled=True)})
    assert not settings.for_provider("s3").enabled
    assert not settings.for_provider("openai").enabled


def test_operations_differ_only_where_they_say_so() -> None:
    """An operation's entry is laid over its provider's settings; unknown operations have the provider's."""
    provider = ProviderSettings(
        timeout=TimeoutSettings(attempt=5, total=20),
        operations={
            "upload": OperationSettings(timeout=TimeoutSettings(total=200), idempotent=True),
            "delete": OperationSettings(retry=RetrySettings(max_attempts=1), idempotent=False),
        },
    )
    upload, delete = provider.for_operation("upload"), provider.for_operation("delete")
    assert upload.timeout == TimeoutSettings(attempt=5, total=200)
    assert upload.retry == provider.retry
    assert delete.retry == RetrySettings(max_attempts=1)
    assert delete.timeout == provider.timeout
    assert provider.for_operation("list") is provider
    assert [provider.idempotent(name) for name in ("upload", "delete", "list")] == [True, False, None]


def test_operations_are_inherited() -> None:
    """Operations of the defaults hold for every provider, and a provider's own are laid over them."""
    settings = Settings(
        defaults=ProviderSettings(
            operations={"upload": OperationSettings(timeout=TimeoutSettings(total=200), idempotent=True)}
        ),
        providers={
            "s3": ProviderSettings(operations={"upload": OperationSettings(timeout=TimeoutSettings(attempt=9))})
        },
    )
    found = settings.for_provider("s3")
    assert found.for_operation("upload").timeout == TimeoutSettings(attempt=9, total=200)
    assert found.idempotent("upload") is True


def test_kinds_that_are_not_named_keep_their_rules() -> None:
    """Writing a rule for one kind takes the built-in rules from no other, and nothing from its own."""
    rules = RetrySettings(
        per_kind={FailureKind.TIMEOUT: RetryRule(max_attempts=1), FailureKind.DNS_ERROR: RetryRule(max_attempts=2)}
    ).per_kind
    assert rules[FailureKind.TIMEOUT] == RetryRule(max_attempts=1)
    assert rules[FailureKind.DNS_ERROR] == RetryRule(max_attempts=2, delay_factor=2.0)
    assert rules[FailureKind.CERTIFICATE_ERROR] == RetryRule(max_attempts=1)


def test_built_in_rules_hide_no_written_ones() -> None:
    """A provider that writes one rule still inherits the defaults' others, not the built-in ones."""
    settings = Settings(
        defaults=ProviderSettings(
            retry=RetrySettings(per_kind={FailureKind.DNS_ERROR: RetryRule(delay_factor=7)}),
            breaker=BreakerSettings(per_kind={FailureKind.TIMEOUT: 2}),
        ),
        providers={
            "s3": ProviderSettings(
                retry=RetrySettings(per_kind={FailureKind.TIMEOUT: RetryRule(max_attempts=1)}),
                breaker=BreakerSettings(per_kind={FailureKind.DNS_ERROR: 3}),
            )
        },
    )
    found = settings.for_provider("s3")
    assert found.retry.per_kind[FailureKind.DNS_ERROR].delay_factor == 7
    assert found.retry.per_kind[FailureKind.TIMEOUT].max_attempts == 1
    assert found.breaker.per_kind == {FailureKind.TIMEOUT: 2, FailureKind.DNS_ERROR: 3}


def test_nothing_changes() -> None:
    """Settings are frozen all the way down, mappings included."""
    with pytest.raises(ValidationError, match="frozen"):
        EXAMPLE.enabled = False  # type: ignore[misc]
    mapping: Any = EXAMPLE.providers
    rules: Any = EXAMPLE.defaults.retry.per_kind
    attempts = [
        lambda: mapping.__setitem__("x", ProviderSettings()),
        lambda: mapping.__delitem__("s3"),
        lambda: mapping.update(x=ProviderSettings()),
        lambda: mapping.pop("s3"),
        mapping.popitem,
        lambda: mapping.setdefault("x", ProviderSettings()),
        lambda: mapping.__ior__({}),
        rules.clear,
    ]
    for attempt in attempts:
        with pytest.raises(TypeError, match="settings never change"):
            attempt()


def test_the_caller_keeps_his_own_dict() -> None:
    """A dict that was passed in can change without the settings changing with it."""
    providers = {"s3": ProviderSettings()}
    settings = Settings(providers=providers)
    providers["x"] = ProviderSettings()
    assert list(settings.providers) == ["s3"]


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it)), Settings.model_copy]
)
def test_copies_are_equal(again: Any) -> None:
    """Settings can be copied, pickled, compared and used as keys."""
    other = again(EXAMPLE)
    assert other == EXAMPLE
    assert hash(other) == hash(EXAMPLE)
    assert other.for_provider("s3") == EXAMPLE.for_provider("s3")


def test_where_a_value_came_from_does_not_matter_for_equality() -> None:
    """Settings with the same values are equal, wherever the values came from; others are not."""
    read = Settings.from_environment({"RETRY_MAX_ATTEMPTS": "5"})
    made = Settings(defaults=ProviderSettings(retry=RetrySettings(max_attempts=5)))
    assert read == made
    assert hash(read) == hash(made)
    assert read != Settings()
    assert read != made.defaults


def test_repr_shows_what_differs() -> None:
    """The repr is short, names what differs, and is what one would write."""
    assert repr(EXAMPLE) == (
        "Settings(defaults=ProviderSettings(retry=RetrySettings(base_delay=0.1)), providers={'s3': "
        "ProviderSettings(breaker=BreakerSettings(timeout=5.0, ignore=(<class 'KeyError'>,)))})"
    )
    assert repr(BreakerSettings(per_kind={FailureKind.TIMEOUT: 3})) == "BreakerSettings(per_kind={'timeout': 3})"
    assert repr(RetrySettings().per_kind[FailureKind.DNS_ERROR]) == "RetryRule(delay_factor=2.0)"


def test_ignore_takes_kinds_types_and_predicates() -> None:
    """In code, anything that tells exceptions apart can be ignored, and is kept as it is."""

    def predicate(error: BaseException) -> bool:
        return True

    ignore = BreakerSettings(ignore=("Not_Found", KeyError, predicate)).ignore  # type: ignore[arg-type]
    assert ignore == (FailureKind.NOT_FOUND, KeyError, predicate)


def test_dump_is_json() -> None:
    """Settings can be written as JSON; types and predicates by their names, which only code can turn back."""
    assert '"ignore":["builtins.KeyError"]' in EXAMPLE.model_dump_json()
    settings = Settings(defaults=ProviderSettings(breaker=BreakerSettings(ignore=(FailureKind.TIMEOUT,))))
    assert Settings(**settings.model_dump(mode="json")) == settings


def test_copies_with_changes_are_checked() -> None:
    """model_copy refuses what the constructor refuses, where pydantic alone would let it pass."""
    assert RetrySettings(base_delay=2).model_copy(update={"max_attempts": 5}) == RetrySettings(
        base_delay=2, max_attempts=5
    )
    with pytest.raises(ConfigurationError, match="max_attempts = 0"):
        RetrySettings().model_copy(update={"max_attempts": 0})
    with pytest.raises(ConfigurationError, match=r"max_attempt .*did you mean 'max_attempts'"):
        RetrySettings().model_copy(update={"max_attempt": 1})


def test_refusals_are_value_errors() -> None:
    """Code that catches ValueError catches ours, and so does code that catches everything of ours."""
    for kind in (ValueError, ResilienceError):
        with pytest.raises(kind):
            RetrySettings(max_attempts=0)


def test_inside_another_model() -> None:
    """In a user's own pydantic model, mistakes keep their path and their explanation."""

    class Application(BaseModel):
        resilience: Settings = Settings()

    assert Application(resilience={"max_providers": 5}).resilience.max_providers == 5  # type: ignore[arg-type]
    tree = {"defaults": {"retry": {"max_attempts": 0}, "timeout": {"attempt": 5, "total": 1}}}
    with pytest.raises(ValidationError) as caught:
        Application.model_validate({"resilience": tree})
    assert [error["loc"] for error in caught.value.errors()] == [
        ("resilience", "defaults", "retry", "max_attempts"),
        ("resilience", "defaults", "timeout"),
    ]
    assert "attempt = 5.0 must not be more than total = 1.0: one attempt cannot outlast the whole call" in str(
        caught.value
    )
