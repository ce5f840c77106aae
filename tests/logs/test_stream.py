"""A bad day of a service, as its log shows it: every line parses, says what it must, and tells nothing it must not."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from typing import Any

import anyio
import jsonschema
import pytest

from resilience import ProviderRegistry, ResilientProvider, Settings, subscribe
from resilience.events import Event, SettingsRefused
from resilience.logging import FIELDS, configure, correlation_id

pytestmark = pytest.mark.anyio

SECRETS = ("sk-hunter2", "4111-1111-1111-1111", "https://api.example")

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["time", "level", "logger", "message", "component"],
    "additionalProperties": False,
    "properties": {
        "time": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"},
        "level": {"enum": ["DEBUG", "INFO", "WARNING", "ERROR"]},
        "logger": {"type": "string", "pattern": r"^resilience\.[a-z]+$"},
        "message": {"type": "string", "pattern": r"^\[[A-Z]+\] [^\n]+$"},
        "component": {
            "enum": ["retry", "circuit", "gate", "deadline", "call", "limits", "routing", "settings", "shutdown"]
        },
        "provider": {"type": "string", "pattern": "^[a-z0-9_./-]+$"},
        "operation": {"type": "string", "pattern": "^[a-z]+$"},
        "attempt": {"type": "integer", "minimum": 1},
        "delay": {"type": "number", "minimum": 0},
        "kind": {"type": "string", "pattern": "^[a-z_]+$"},
        "duration_ms": {"type": "number", "minimum": 0},
        "correlation_id": {"type": "string"},
        "reason": {"type": "string", "pattern": "^[a-z_]+$"},
    },
}


class Answer(Exception):
    """What a provider's SDK raises: it quotes what was sent."""

    def __init__(self, status: int, retry_after: str | None = None) -> None:
        super().__init__(f"POST {SECRETS[2]}/?key={SECRETS[0]} {{'card': '{SECRETS[1]}'}}")
        self.status_code = status
        self.headers = {} if retry_after is None else {"retry-after": retry_after}


class Service:
    """Answers as it is told: a status that is no success is raised, a number of seconds passes."""

    def __init__(self, *answers: float | Answer) -> None:
        self.answers = list(answers)

    async def __call__(self, card: str) -> str:
        await anyio.sleep(0.1)
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Answer):
            raise answer
        if isinstance(answer, float):
            await anyio.sleep(answer)
        elif answer != 200:
            raise Answer(int(answer))
        return card


TREE: dict[str, Any] = {
    "defaults": {
        "retry": {"max_attempts": 2, "base_delay": 1, "jitter": "none"},
        "breaker": {"failure_threshold": 3, "timeout": 10},
        "timeout": {"attempt": 5},
        "gate": {"max_wait": 0},
        "budget": {"enabled": False},
    },
    "providers": {
        "search": {
            "retry": {"enabled": False},
            "hedge": {"enabled": True, "warm_up": 1, "max_extra_load": 0.5, "min_delay": 1, "max_delay": 1},
        }
    },
}


async def bad_day(registry: ProviderRegistry) -> None:
    """Everything goes wrong once."""

    async def call(provider: ResilientProvider, *answers: float | Answer) -> None:
        with suppress(Exception):
            await provider.execute(Service(*answers), SECRETS[1])

    pay = registry.provider("pay").with_options(operation="charge")
    await call(pay, 500)
    await call(pay, 401)
    await call(pay, 9.0, 9.0)
    await call(pay, Answer(429, "60"))
    await call(pay)
    await anyio.sleep(61)
    await call(pay, 500, 500)
    await call(pay, 500, 500)
    await call(pay)
    await call(pay.fallback_to("mail"))  # type: ignore[arg-type]
    await anyio.sleep(11)
    await call(pay)
    await call(pay)
    search = registry.provider("search").with_options(operation="search", idempotent=True)
    await call(search)
    slow = Service(4.0, 200)
    with suppress(Exception):
        await search.execute(slow, SECRETS[1])
    models = registry.provider("models").with_options(operation="models", coalesce="all")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, models)
        tasks.start_soon(call, models)
    registry.reload(Settings.model_validate({**TREE, "max_providers": 512}), source="app.toml")
    registry.bus.emit(
        SettingsRefused(provider="", time=0, source="app.toml", problem="retry.max_attempts=0:\ntoo small")
    )
    await registry.shutdown()


async def test_every_line_parses() -> None:
    """Every line of a bad day is an object with the documented fields, with their types, and with nothing else."""
    stream, seen = io.StringIO(), list[Event]()
    token = correlation_id.set("req-7")
    log = configure("json", "DEBUG", stream, tracebacks=False)
    unsubscribe = subscribe(seen.append)
    try:
        await bad_day(ProviderRegistry(Settings.model_validate(TREE), clock=anyio.current_time))
    finally:
        unsubscribe()
        log.close()
        correlation_id.reset(token)
    text = stream.getvalue()
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        jsonschema.validate(line, SCHEMA)
    assert {line["correlation_id"] for line in lines} == {"req-7"}
    assert len(lines) == len(seen)
    assert {type(event).__name__ for event in seen} >= {
        "RetryScheduled", "CircuitChanged", "GateClosed", "AttemptTimedOut", "AttemptFailed", "CallFailed",
        "CallRecovered", "CallWasRejected", "HedgeLaunched", "HedgeWon", "FellBack", "CallCoalesced",
        "SettingsReloaded", "SettingsRefused", "ShutdownBegan", "ShutdownEnded",
    }  # fmt: skip
    assert not [secret for secret in SECRETS if secret in text]


def test_the_schema_is_the_documented_one() -> None:
    """The fields of a line are those that are documented."""
    assert set(SCHEMA["properties"]) == {"time", "level", "logger", "message", *FIELDS}
