"""What is in force, and what changed between two trees of settings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import Field, SecretStr

from resilience.errors import ConfigurationError
from resilience.failure import FailureKind
from resilience.settings import (
    BreakerSettings,
    Change,
    ExperimentSettings,
    OperationSettings,
    ProviderSettings,
    RetryRule,
    RetrySettings,
    Settings,
    TimeoutSettings,
    changes,
)
from resilience.settings._changes import _AT_START, _shown, walked
from resilience.settings._tables import Table


def keys(found: Iterable[Change]) -> list[str]:
    return [change.key for change in found]


def of(**retry: Any) -> ProviderSettings:
    return ProviderSettings(retry=RetrySettings(**retry))


def test_nothing_changed() -> None:
    """Settings that say the same, however it was written, differ in nothing."""
    written = Settings(defaults=of(max_attempts=3), providers={"s3": of(max_attempts=3)})
    assert changes(Settings(), written) == ()
    assert changes(written, Settings.from_environment({"RETRY_MAX_ATTEMPTS": "3"})) == ()


def test_a_change() -> None:
    """A change names the key, what held before and what holds now, and reads well."""
    (change,) = changes(Settings(), Settings(max_providers=10))
    assert change == Change("max_providers", 1024, 10)
    assert str(change) == "max_providers: 1024 -> 10"
    with pytest.raises(dataclasses.FrozenInstanceError):
        change.after = 3


def test_everybody_concerned_is_named() -> None:
    """A change of the defaults is one of every entry that inherits it, and of no other."""
    entries = {"s3": of(base_delay=2), "openai": of(max_attempts=3)}
    before = Settings(providers=entries)
    after = Settings(defaults=of(max_attempts=5), providers=entries)
    assert keys(changes(before, after)) == ["defaults.retry.max_attempts", "providers.s3.retry.max_attempts"]


def test_where_it_is_written_does_not_matter() -> None:
    """What moves from an entry to the defaults changes for those who had it from there, and not for the entry."""
    before, after = Settings(providers={"s3": of(max_attempts=5)}), Settings(defaults=of(max_attempts=5))
    assert keys(changes(before, after)) == ["defaults.retry.max_attempts"]


@pytest.mark.parametrize("there", [0, 1])
def test_an_entry_comes_or_goes(there: int) -> None:
    """An entry that one of the two lacks is compared with what holds without it."""
    trees = [Settings(), Settings()]
    trees[there] = Settings(providers={"s3": of(max_attempts=5, base_delay=1)})
    (change,) = changes(*trees)
    assert change.key == "providers.s3.retry.max_attempts"
    assert [change.before, change.after][there] == 5


def test_a_profile_is_a_change_of_what_it_says() -> None:
    """A profile that is chosen shows as itself and as every value that it brings."""
    found = changes(Settings(), Settings(providers={"x": ProviderSettings(profile="database")}))
    assert found[0] == Change("providers.x.profile", None, "database")
    assert Change("providers.x.timeout.attempt", 30.0, 5.0) in found


def test_experiments() -> None:
    """A new experiment shows as its share, and as what is different in it."""
    experiment = ExperimentSettings(share=0.2, settings=of(max_attempts=9))
    found = changes(Settings(), Settings(experiments={"s3": experiment}))
    expected = (Change("experiments.s3.share", 0.0, 0.2), Change("experiments.s3.settings.retry.max_attempts", 3, 9))
    assert found == expected


def test_operations_show_what_is_special_about_them() -> None:
    """Of an operation only what was written for it is told: the rest is its provider's."""
    operations = {"put": OperationSettings(idempotent=True, timeout=TimeoutSettings(attempt=9))}
    before = Settings(providers={"s3": ProviderSettings(operations=operations)})
    after = Settings(defaults=of(max_attempts=5), providers={"s3": ProviderSettings()})
    assert [str(change) for change in changes(before, after)] == [
        "defaults.retry.max_attempts: 3 -> 5",
        "providers.s3.retry.max_attempts: 3 -> 5",
        "providers.s3.operations.put.timeout.attempt: 9 -> 30",
        "providers.s3.operations.put.idempotent: true -> none",
    ]


def test_rules_for_kinds() -> None:
    """A rule for a kind of failure that is new is compared with having none."""
    rules = {FailureKind.TIMEOUT: RetryRule(max_attempts=1)}
    after = Settings(
        defaults=ProviderSettings(
            retry=RetrySettings(per_kind=rules), breaker=BreakerSettings(per_kind={FailureKind.TIMEOUT: 2})
        )
    )
    assert [str(change) for change in changes(Settings(), after)] == [
        "defaults.retry.per_kind.timeout.max_attempts: none -> 1",
        "defaults.breaker.per_kind.timeout: none -> 2",
    ]


def test_functions_are_named() -> None:
    """A predicate shows as its name: no address in memory belongs into a log."""
    after = Settings(defaults=ProviderSettings(breaker=BreakerSettings(ignore=(keys, KeyError))))
    (change,) = changes(Settings(), after)
    assert str(change) == "defaults.breaker.ignore: none -> keys, KeyError"


class Account(Table):
    """A table with secrets, as an adapter may have one."""

    key: SecretStr = SecretStr("sk-1")
    token: Annotated[str, Field(json_schema_extra={"writeOnly": True})] = "sk-2"
    user: str = "me"


def test_secrets_are_masked() -> None:
    """What is a secret, by its type or by its mark in the schema, is never shown."""
    found = {".".join(path): _shown(value) for path, value in walked(Account(), ())}
    assert found == {"key": "**********", "token": "**********", "user": "me"}
    assert dict(walked(Account(), ())) != dict(walked(Account(token="sk-3"), ()))


def test_what_is_in_force() -> None:
    """Every setting is listed once, with its value and where that came from."""
    settings = Settings.from_environment({"RETRY_MAX_ATTEMPTS": "5"}, providers={"s3": {"profile": "llm"}})
    found = {key: (value, str(origin)) for key, value, origin in settings.effective()}
    assert len(found) == len(settings.effective())
    assert found["max_providers"] == (1024, "default")
    assert found["health.port"] == (8080, "default")
    assert found["defaults.retry.max_attempts"] == (5, "environment variable RETRY_MAX_ATTEMPTS")
    assert found["providers.s3.retry.max_attempts"] == found["defaults.retry.max_attempts"]
    assert found["providers.s3.timeout.attempt"] == (300.0, "profile llm")
    assert str(settings.effective()[0]) == "enabled = true (default)"
    for key, (_, origin) in found.items():
        assert str(settings.origin(key)) == origin


@pytest.mark.parametrize("name", ["s3", "my-api", "unheard-of"])
def test_what_is_in_force_for_one(name: str) -> None:
    """What holds for one provider is what its runtime gets, whether it has an entry or not."""
    settings = Settings.from_environment(
        {"RESILIENCE_PROVIDERS__MY_API__RETRY__MAX_ATTEMPTS": "7"}, providers={"s3": {"profile": "llm"}}
    )
    found = {one.key: one.value for one in settings.effective(name)}
    assert all(key.startswith(f"providers.{name}.") for key in found)
    own = settings.for_provider(name)
    assert found[f"providers.{name}.retry.max_attempts"] == own.retry.max_attempts
    assert found[f"providers.{name}.timeout.attempt"] == own.timeout.attempt


RETRY = st.fixed_dictionaries(
    {},
    optional={
        "max_attempts": st.integers(1, 4),
        "jitter": st.sampled_from(["full", "none"]),
        "per_kind": st.dictionaries(
            st.sampled_from(["timeout", "dns_error"]),
            st.fixed_dictionaries({}, optional={"max_attempts": st.integers(1, 3), "delay_factor": st.just(2.0)}),
        ),
    },
)
OPERATION = st.fixed_dictionaries({}, optional={"retry": RETRY, "idempotent": st.booleans()})
PROVIDER = st.fixed_dictionaries(
    {},
    optional={
        "retry": RETRY,
        "profile": st.sampled_from(["llm", "webhook", "upload", None]),
        "breaker": st.fixed_dictionaries({}, optional={"timeout": st.sampled_from([30, 60])}),
        "operations": st.dictionaries(st.sampled_from(["upload", "x"]), OPERATION, max_size=2),
    },
)
NAMES = st.sampled_from(["s3", "openai", "my_api"])
TREES = st.fixed_dictionaries(
    {},
    optional={
        "max_providers": st.integers(1, 3),
        "defaults": PROVIDER,
        "providers": st.dictionaries(NAMES, PROVIDER, max_size=2),
        "experiments": st.dictionaries(
            NAMES, st.fixed_dictionaries({"settings": PROVIDER}, optional={"share": st.floats(0, 1)}), max_size=1
        ),
    },
)


@given(TREES, TREES)
@hypothesis_settings(max_examples=75)
def test_changes_lead_from_the_one_to_the_other(one: dict[str, Any], other: dict[str, Any]) -> None:
    """What was in force before, with the changes made, is what is in force after; and every change is one."""
    before, after = Settings.model_validate(one), Settings.model_validate(other)
    found = changes(before, after)
    names = {*before.providers, *after.providers}
    start, end = (
        {key: value for of in (None, *names) for key, value, _ in tree.effective(of)} for tree in (before, after)
    )
    changed = start | {change.key: change.after for change in found}
    assert all(change.before != change.after for change in found)
    assert all(start.get(change.key, change.before) == change.before for change in found)
    # What only the one has: rules for kinds, operations, experiments. What there is not holds nothing.
    assert {key: changed[key] for key in end if key in changed} == {key: end[key] for key in end if key in changed}
    assert all(key in changed for key in end if not {"per_kind", "operations", "experiments"} & set(key.split(".")))
    assert changes(before, before) == ()
    backwards = {change.key: (change.after, change.before) for change in changes(after, before)}
    assert backwards == {change.key: (change.before, change.after) for change in found}


@given(TREES, TREES)
@hypothesis_settings(max_examples=50)
def test_equal_for_every_provider_or_told(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Without a change under its key nothing is different for a provider, an experiment or an operation."""
    before, after = Settings.model_validate(one), Settings.model_validate(other)
    told = [change.key for change in changes(before, after)]
    for name in {*before.providers, *after.providers}:
        own = [tree.for_provider(name).model_dump(exclude={"operations"}) for tree in (before, after)]
        for table in own:  # a rule for a kind that says nothing is none
            rules = table["retry"]["per_kind"].items()
            table["retry"]["per_kind"] = {kind: rule for kind, rule in rules if rule != RetryRule().model_dump()}
        inside = [key for key in told if key.startswith(f"providers.{name}.") and ".operations." not in key]
        assert (_as_text(own[0]) != _as_text(own[1])) == bool(inside)


def test_what_makes_no_sense_is_no_settings() -> None:
    """There are no settings to compare with that were not validated as a whole."""
    with pytest.raises(ConfigurationError):
        Settings.from_environment({}, max_providers=0, defaults={"retry": {"max_attempts": 5}})


def _as_text(table: dict[str, Any]) -> str:
    return json.dumps(table, default=str, sort_keys=True)


def test_what_holds_from_the_next_start_on_is_told_as_such() -> None:
    """Nobody looks for a server at a port that it will only listen on when it is started again."""
    before, after = (
        Settings(),
        Settings.from_environment({}, health={"port": 8081, "grace": 5}, logging={"level": "DEBUG"}),
    )
    assert [str(change) for change in changes(before, after)] == [
        "health.port: 8080 -> 8081 (when the process starts anew)",
        "health.grace: 0 -> 5",
        "logging.level: INFO -> DEBUG (when the process starts anew)",
    ]
    keys = {key for key, *_ in before.effective()}
    assert set(_AT_START) <= keys
