"""The JSON Schema of settings files: what it accepts loads, and it knows what does not."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from resilience.failure import FailureKind
from resilience.settings import BreakerSettings, ProviderSettings, RetryRule, RetrySettings, Settings

SCHEMA = Settings.json_schema()


def accepts(tree: object) -> bool:
    return Draft202012Validator(SCHEMA).is_valid(tree)


def test_valid_and_plain() -> None:
    """The schema is a valid one, and plain JSON."""
    Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(
            enabled=False,
            defaults=ProviderSettings(
                retry=RetrySettings(per_kind={FailureKind.TIMEOUT: RetryRule(max_attempts=2)}, jitter="none"),
                breaker=BreakerSettings(ignore=(FailureKind.NOT_FOUND,), per_kind={FailureKind.TIMEOUT: 2}),
            ),
            providers={"my-api.v1": ProviderSettings(breaker=BreakerSettings(failure_rate=None))},
        ),
    ],
)
def test_accepts_what_settings_dump(settings: Settings) -> None:
    """Settings written as JSON are a valid file, and load as the same settings."""
    tree = settings.model_dump(mode="json")
    assert accepts(tree)
    assert Settings(**tree) == settings


@pytest.mark.parametrize(
    "tree",
    [
        {"$schema": "x", "environments": {"dev": {"defaults": {"retry": {"max_attempts": 1}}}}},
        {"defaults": {"timeout": {"attempt": "500ms", "total": "none"}, "breaker": {"timeout": "2 m"}}},
        {"defaults": {"retry": {"jitter": True}, "breaker": {"window_calls": "none", "ignore": "timeout"}}},
        {"providers": {"s3": {"operations": {"PutObject": {"idempotent": "none", "timeout": {"total": 5}}}}}},
    ],
)
def test_accepts_every_way_to_write(tree: dict[str, Any], tmp_path: Any) -> None:
    """Durations with units, the word none and the schema's own name are accepted, by the schema and by the loader."""
    assert accepts(tree)
    (tmp_path / "r.json").write_text(json.dumps(tree))
    Settings.from_environment({}, file=tmp_path / "r.json")


@pytest.mark.parametrize(
    "tree",
    [
        {"enable": True},
        {"max_providers": 0},
        {"defaults": {"retry": {"max_attempts": 0}}},
        {"defaults": {"retry": {"max_attempts": True}}},
        {"defaults": {"retry": {"base_delay": "5 sec"}}},
        {"defaults": {"retry": {"base_delay": "none"}}},
        {"defaults": {"retry": {"jitter": "ful"}}},
        {"defaults": {"retry": {"per_kind": {"tiemout": {}}}}},
        {"defaults": {"breaker": {"failure_rate": 50}}},
        {"defaults": {"breaker": {"timeout": 0}}},
        {"defaults": {"breaker": {"ignore": ["KeyError"]}}},
        {"defaults": {"operations": {"x": {"timeout": None}}}},
        {"providers": {"OpenAI": {}}},
        {"environments": {"dev": {"environments": {}}}},
    ],
)
def test_refuses_what_is_refused(tree: dict[str, Any], refusal: Any, tmp_path: Any) -> None:
    """What the loader refuses one by one, the schema does not accept either."""
    assert not accepts(tree)
    (tmp_path / "r.json").write_text(json.dumps(tree))
    assert refusal({}, file=tmp_path / "r.json")


def test_describes_every_setting() -> None:
    """Editors show what each setting means."""
    tables = [SCHEMA, *(table for table in SCHEMA["$defs"].values() if table.get("properties"))]
    missing = [
        (table.get("title"), name)
        for table in tables
        for name, setting in table["properties"].items()
        if "description" not in setting and name != "$schema"
    ]
    assert missing == []


def test_without_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is installed without its source, the schema has no descriptions and is otherwise the same."""

    def none(table: object) -> str:
        raise OSError("source code not available")

    monkeypatch.setattr(inspect, "getsource", none)
    schema = Settings.json_schema()
    assert "description" not in schema["properties"]["max_providers"]
    assert schema["properties"].keys() == SCHEMA["properties"].keys()
