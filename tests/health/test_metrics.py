"""The status of each component as a metric."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import anyio
import pytest

from resilience import ProviderRegistry, Settings
from resilience.health import Component, Health, Report, Status, healths
from resilience.health import health as module
from resilience.health.components import aggregate
from resilience.health.metrics import readings
from resilience.settings import HealthSettings
from resilience.telemetry import names
from resilience.telemetry._collect import collector


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """Other tests' objects may still be there."""
    before = healths()
    module._healths.clear()
    yield
    for one in before:
        module._healths.add(one)


@pytest.mark.anyio
async def test_each_status_is_a_series() -> None:
    """1 for the one that a component has and 0 for the others, from the first moment, without asking a check."""
    asked = []

    async def check() -> None:
        asked.append(None)

    health = Health(ProviderRegistry(Settings(), clock=anyio.current_time), clock=anyio.current_time)
    health.registry.provider("openai").breaker.open()
    health.add("database", check, critical=True)

    def told() -> dict[str, str]:
        found = collector.numbers(names.HEALTH_STATUS)
        assert set(found) == {(name, status.value) for name in ("openai", "database") for status in Status}
        assert set(found.values()) <= {0.0, 1.0}
        return {name: status for (name, status), number in found.items() if number}

    assert told() == {"openai": "warn", "database": "fail"}
    assert asked == []
    await health.refresh()
    assert told() == {"openai": "warn", "database": "pass"}


@pytest.mark.anyio
async def test_news_that_does_not_count_yet_is_no_alarm() -> None:
    """What is damped in the answers is damped here, too."""
    settings = HealthSettings(grace=30)
    registry = ProviderRegistry(Settings(), clock=anyio.current_time)
    health = Health(registry, settings=settings, clock=anyio.current_time)
    registry.provider("openai").breaker.open()
    assert collector.numbers(names.HEALTH_STATUS)[("openai", "pass")] == 1
    await anyio.sleep(30)
    assert collector.numbers(names.HEALTH_STATUS)[("openai", "warn")] == 1
    assert not health.draining


def test_a_clock_that_runs_in_its_loop_only_hides_nothing_else() -> None:
    """Metrics are collected from any thread."""

    async def make() -> Health:
        health = Health(ProviderRegistry(Settings(), clock=anyio.current_time), clock=anyio.current_time)
        health.registry.provider("openai")
        return health

    other = Health(ProviderRegistry(Settings()))
    other.registry.provider("s3")
    in_loop = anyio.run(make)
    with pytest.raises(RuntimeError):
        in_loop.report()
    assert {name for name, _ in collector.numbers(names.HEALTH_STATUS)} == {"s3"}


def test_the_number_of_series_is_bounded() -> None:
    """However many names somebody makes up."""

    def report(start: int) -> Report:
        components = tuple(
            Component(name=f"c{number}", kind="check", status=Status.WARN, observed=Status.WARN, critical=False)
            for number in range(start, start + 50_000)
        )
        return aggregate(components, minimum_healthy=None, draining=False, time=0)

    found: dict[Any, float] = dict(readings([partial(report, 0), partial(report, 50_000)]))
    assert len(found) == 3 * (1024 + 1)
    assert found[(names.OTHER, "warn")] == 1
    assert found[("c1023", "warn")] == 1
