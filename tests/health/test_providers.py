"""Providers tell of themselves: what counts as unwell, what fails readiness, and their figures as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from enum import StrEnum
from typing import Any

import anyio
import pytest

from resilience import (
    BreakerSettings,
    CostSettings,
    Failure,
    FailureKind,
    ProviderRegistry,
    ProviderSettings,
    ResilientProvider,
    Settings,
    Usage,
)
from resilience.health import Component, Health, Status
from resilience.health.documents import dumped, encoded
from resilience.settings import ExperimentSettings, HealthSettings

pytestmark = pytest.mark.anyio

PASS, WARN, FAIL = Status


def health_of(health: HealthSettings | None = None, **settings: Any) -> tuple[Health, ResilientProvider]:
    defaults = ProviderSettings(**settings)
    everything = Settings(defaults=defaults, health=health or HealthSettings())
    registry = ProviderRegistry(everything, clock=anyio.current_time, wall_clock=lambda: 1e9)
    return Health(registry, clock=anyio.current_time), registry.provider("openai")


def the(health: Health) -> Component:
    (component,) = health.report().components
    return component


async def down() -> None:
    raise ConnectionRefusedError("http://key:hunter2@provider/")


async def fine() -> None:
    pass


async def break_it(provider: ResilientProvider) -> None:
    for _ in range(5):
        with pytest.raises(ConnectionRefusedError):
            await provider.with_options(retry=False).execute(down)


@pytest.mark.parametrize("critical", [False, True])
async def test_an_open_circuit_is_a_warning_or_a_failure(critical: bool) -> None:
    """It takes nobody out of service unless the provider is marked critical; the reason is told, with figures."""
    health, provider = health_of(critical=critical)
    assert the(health).status is PASS
    await break_it(provider)
    component = the(health)
    assert component.status is (FAIL if critical else WARN)
    assert component.value == "open"
    assert component.output.startswith("refuses: circuit_open, 5 failures in a row")
    assert health.report().ready is not critical


async def test_a_critical_provider_lets_traffic_back_in_to_be_probed() -> None:
    """
    When the open time is over the process is ready again.

    Nobody else would ever find out whether the provider is back: without requests there are no probes.
    """
    health, provider = health_of(critical=True)
    await break_it(provider)
    assert not health.report().ready
    await anyio.sleep(60)
    assert (the(health).status, health.report().ready) == (WARN, True)
    await provider.execute(fine)
    assert (the(health).status, the(health).value) == (WARN, "half_open")
    await provider.execute(fine)
    assert the(health).status is PASS


async def test_a_closed_gate_is_a_warning() -> None:
    """The provider asked for a pause: it is not well, and not down."""
    health, provider = health_of(critical=True)
    provider._current().obey(
        Failure(kind=FailureKind.RATE_LIMIT, category="transient", error_type="", retry_after=30),  # type: ignore[arg-type]
        anyio.current_time(),
    )
    assert (the(health).status, the(health).value) == (WARN, "closed")
    await anyio.sleep(30)
    assert the(health).status is PASS


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"breaker": BreakerSettings(mode="forced_open")}, WARN),
        ({"breaker": BreakerSettings(mode="forced_open"), "critical": True}, FAIL),
        ({"breaker": BreakerSettings(mode="disabled"), "critical": True}, PASS),
        ({"breaker": BreakerSettings(mode="forced_open"), "critical": True, "enabled": False}, PASS),
    ],
)
async def test_settings_decide_how_a_provider_counts(settings: dict[str, Any], expected: Status) -> None:
    """A circuit that is held open by hand refuses calls, one that is switched off never does."""
    health, _ = health_of(**settings)
    assert the(health).status is expected


async def test_a_breaker_in_shadow_mode_is_a_warning_at_most() -> None:
    """It lets every call through."""
    health, provider = health_of(critical=True, breaker=BreakerSettings(mode="shadow"))
    await break_it(provider)
    assert the(health).status is WARN


async def test_a_provider_whose_money_is_spent_is_a_warning() -> None:
    """It lets nobody through, maybe for hours."""
    health, provider = health_of(cost=CostSettings(limit=1, window=3600))
    await provider.with_options(reserve=Usage(cost=1)).execute(fine)
    assert (the(health).status, the(health).value) == (WARN, "closed")
    assert the(health).output.startswith("refuses: cost_budget_exhausted")
    await anyio.sleep(7200)
    assert the(health).status is PASS


async def test_the_ratio_rule_counts_providers() -> None:
    """503 when not more than half of them are healthy is one setting."""
    health, provider = health_of(HealthSettings(minimum_healthy=0.5))
    others = [health.registry.provider(name) for name in ("s3", "gcs")]
    provider.breaker.open()
    assert (health.report().status, health.report().ready) == (WARN, True)
    others[0].breaker.open()
    report = health.report()
    assert (report.status, report.reason) == (FAIL, "1 of 3 components healthy, more than 50 % must be")


async def test_a_grace_period_holds_for_providers() -> None:
    """A circuit that opens for a moment takes nobody out of service."""
    health, provider = health_of(HealthSettings(grace=30), critical=True)
    provider.breaker.open()
    assert (the(health).status, the(health).observed) == (PASS, FAIL)
    await anyio.sleep(29)
    assert the(health).status is PASS
    await anyio.sleep(1)
    assert the(health).status is FAIL
    provider.breaker.close()
    assert the(health).status is PASS


async def test_the_other_arm_of_an_experiment_is_told_apart(ask: Any) -> None:
    """A share of the calls may be refused there: that is a warning, also where the provider is critical."""
    experiment = ExperimentSettings(share=0.5, settings=ProviderSettings(breaker=BreakerSettings(timeout=5)))
    settings = Settings(defaults=ProviderSettings(critical=True), experiments={"openai": experiment})
    registry = ProviderRegistry(settings, clock=anyio.current_time)
    health = Health(registry, clock=anyio.current_time)
    registry.provider("openai")
    usual, other = registry.runtimes.values()
    assert [one.name for one in health.report().components] == ["openai", "openai~b"]
    other.breaker.open()
    assert (health.report().status, health.report().ready) == (WARN, True)
    assert (await ask(health.app(), "/health/providers/openai~b")).json["snapshot"]["variant"] == "b"
    assert (await ask(health.app(), "/health/providers/openai")).json["status"] == "pass"
    usual.breaker.open()
    assert not health.report().ready


# -- as JSON -----------------------------------------------------------------------------------------------------------


async def test_the_list_has_every_provider_with_its_figures(ask: Any) -> None:
    """Also endpoints, whose names hold a slash; it is data, so its code is always 200."""
    health, provider = health_of(critical=True)
    endpoint = health.registry.provider("openai", endpoint="eu")
    await break_it(endpoint)
    await provider.execute(fine)
    reply = await ask(health.app(), "/health/providers")
    assert reply.status == 200
    assert (reply.json["status"], reply.json["pid"]) == ("fail", os.getpid())
    assert list(reply.json["providers"]) == ["openai", "openai/eu"]
    entry = reply.json["providers"]["openai/eu"]
    assert entry["status"] == "fail"
    assert entry["reason"] == endpoint.explain().text
    assert entry["snapshot"] == json.loads(json.dumps(dataclasses.asdict(endpoint.snapshot())))
    assert entry["snapshot"]["breaker"]["state"] == "open"
    assert entry["unwellFor"] >= 0
    assert "unwellFor" not in reply.json["providers"]["openai"]
    assert b"hunter2" not in reply.body


@pytest.mark.parametrize("name, status", [("openai", 200), ("openai/eu", 503), ("nobody", 404), ("openai/us", 404)])
async def test_one_provider_can_be_asked_for(ask: Any, name: str, status: int) -> None:
    """With its own code; asking for one that nobody knows makes none."""
    health, _ = health_of(critical=True)
    health.registry.provider("openai", endpoint="eu").breaker.open()
    app = health.app()
    everything = (await ask(app, "/health/providers")).json["providers"]
    reply = await ask(app, f"/health/providers/{name}")
    assert reply.status == status
    assert len(health.registry) == 2
    if status != 404:
        assert reply.json["status"] == everything[name]["status"]
        assert reply.json["snapshot"]["provider"] == name


def test_everything_can_be_said_in_json() -> None:
    """Infinity, NaN, enums, keys that are no texts, sets; what is no data shows its class, never its text."""

    class Colour(StrEnum):
        RED = "red"

    @dataclasses.dataclass
    class Thing:
        a: object
        b: object

    value = Thing(
        {Colour.RED: (1, math.inf, -math.inf, math.nan), 7: None}, [Colour.RED, {True}, ValueError("hunter2")]
    )
    assert json.loads(dumped(encoded(value))) == {
        "a": {"red": [1, None, None, None], "7": None},
        "b": ["red", [True], "ValueError"],
    }


async def test_an_outage_has_begun_before_anybody_looks(ask: Any) -> None:
    """It lasts from the first opening on, however many probes have failed; then it is over, and another one is new."""
    began = anyio.current_time()

    def wall() -> float:
        return 1e9 + anyio.current_time() - began

    settings = Settings.model_validate({"defaults": {"retry": {"enabled": False}, "breaker": {"jitter": 0}}})
    registry = ProviderRegistry(settings, clock=anyio.current_time, wall_clock=wall)
    provider, app = registry.provider("openai"), Health(registry, clock=anyio.current_time, wall_clock=wall).app()
    await break_it(provider)
    for _ in range(3):
        await anyio.sleep(61)
        with pytest.raises(ConnectionRefusedError):
            await provider.execute(down)
    entry = (await ask(app, "/health/providers/openai")).json
    assert entry["unwellFor"] == pytest.approx(183, abs=1)
    assert wall() - entry["snapshot"]["breaker"]["since"] == pytest.approx(0, abs=1)
    provider.breaker.close()
    assert "unwellFor" not in (await ask(app, "/health/providers/openai")).json
    await break_it(provider)
    await anyio.sleep(7)
    assert (await ask(app, "/health/providers/openai")).json["unwellFor"] == pytest.approx(7, abs=1)
