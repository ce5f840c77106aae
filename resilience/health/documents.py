"""
What health looks like in JSON.

The answers to probes have the fields of the health format of draft-inadarei-api-health-check: ``status``, ``checks``
and so on. JSON knows neither infinity nor NaN, so such a number becomes null; what is not data becomes the name of
its class, for its text might hold anything.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import TypeAlias, cast

from resilience.health.components import BADNESS, Component, Report, Status, rules
from resilience.health.health import Health
from resilience.health.providers import name_of
from resilience.report import take_snapshot
from resilience.runtime import ProviderRuntime

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"


def encoded(value: object) -> Json:
    """Return *value* as JSON can say it."""
    if isinstance(value, Enum):
        return encoded(value.value)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encoded(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value).items()
        return {key if isinstance(key, str) else str(encoded(key)): encoded(item) for key, item in pairs}
    if isinstance(value, list | tuple | set | frozenset):
        return [encoded(item) for item in cast("Iterable[object]", value)]
    return type(value).__name__


def dumped(document: Json) -> bytes:
    """Return *document* as it is sent."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def live(health: Health) -> Json:
    """Return what liveness says: that somebody is there to answer."""
    return {"status": Status.PASS.value, **_identity(health)}


def whole(health: Health, report: Report, *, everything: bool) -> Json:
    """Return how the whole is, with *everything* or only with the components that are unwell."""
    shown = [one for one in report.components if everything or one.status is not Status.PASS]
    output: dict[str, Json] = {"output": report.reason} if report.reason else {}
    return {
        "status": report.status.value,
        **_identity(health),
        **output,
        "notes": list(rules(report.minimum_healthy)),
        "summary": _summary(report),
        "checks": {_key(one): [_entry(one)] for one in shown},
    }


def providers(health: Health) -> Json:
    """Return every provider with its figures."""
    report = health.report()
    found = _providers(health, report)
    entries: dict[str, Json] = {name: _provider(one, runtime) for name, one, runtime in found}
    worst = max((one.status for _, one, _ in found), key=BADNESS.__getitem__, default=Status.PASS)
    return {"status": worst.value, "time": report.time, "pid": os.getpid(), "providers": entries}


def provider(health: Health, name: str) -> dict[str, Json] | None:
    """Return one provider with its figures; None if nobody knows it."""
    found = _providers(health, health.report())
    return next((_provider(one, runtime) for known, one, runtime in found if known == name), None)


def _providers(health: Health, report: Report) -> list[tuple[str, Component, ProviderRuntime]]:
    """Return every provider that the report tells of, and what is still there."""
    runtimes = {name_of(runtime): runtime for runtime in tuple(health.registry.runtimes.values())}
    told = [one for one in report.components if one.kind == "provider" and one.name in runtimes]
    return [(one.name, one, runtimes[one.name]) for one in told]


def _provider(component: Component, runtime: ProviderRuntime) -> dict[str, Json]:
    snapshot = encoded(take_snapshot(runtime))
    unwell: dict[str, Json] = {} if component.bad_for is None else {"unwellFor": component.bad_for}
    return {"status": component.status.value, "reason": component.output, **unwell, "snapshot": snapshot}


def _identity(health: Health) -> dict[str, Json]:
    told = {"version": health.version, "serviceId": health.service_id}
    return {key: value for key, value in told.items() if value}


def _summary(report: Report) -> Json:
    critical = [one.name for one in report.components if one.critical]
    return {
        "total": report.total,
        "healthy": report.healthy,
        "degraded": report.degraded,
        "failing": report.failing,
        "healthyShare": report.healthy_share,
        "minimumHealthy": report.minimum_healthy,
        "critical": [*critical],
        "draining": report.draining,
    }


def _key(component: Component) -> str:
    return f"{component.name}:circuit" if component.kind == "provider" else f"{component.name}:responseTime"


def _entry(component: Component) -> Json:
    told: dict[str, Json] = {
        "componentId": component.component_id or None,
        "componentType": component.component_type,
        "status": component.status.value,
        "observedStatus": component.observed.value if component.observed is not component.status else None,
        "observedValue": component.value,
        "observedUnit": "s" if isinstance(component.value, float) else None,
        "critical": component.critical,
        "output": component.output if component.status is not Status.PASS or component.kind == "check" else None,
        "time": _moment(component.time),
        "unwellFor": component.bad_for,
    }
    return {key: value for key, value in told.items() if value is not None and value != ""}


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
