"""The example for Kubernetes fits the code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from resilience import ProviderRegistry, Settings
from resilience.health import Health
from resilience.health.app import LIVE, READY

EXAMPLE = Path(__file__).parents[2] / "examples" / "kubernetes.yaml"
DEPLOYMENT: Any = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
POD = DEPLOYMENT["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
VARIABLES = {one["name"]: one["value"] for one in CONTAINER["env"]}
SETTINGS = Settings.from_environment(VARIABLES)


def port_of(probe: str) -> int:
    named = {one["name"]: one["containerPort"] for one in CONTAINER["ports"]}
    return int(named[CONTAINER[probe]["httpGet"]["port"]])


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_probes_ask_where_the_service_listens(probe: str) -> None:
    """The port is the one of the settings, and the address is not only this machine's."""
    assert port_of(probe) == SETTINGS.health.port
    assert SETTINGS.health.host == "0.0.0.0"


@pytest.mark.anyio
async def test_probes_get_what_they_ask_for(ask: Any) -> None:
    """When something critical fails, readiness says so and no process is restarted."""
    health = Health(ProviderRegistry(SETTINGS), clock=anyio.current_time)
    health.add("database", anyio.sleep_forever, critical=True)
    paths = {name: CONTAINER[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    statuses = {name: (await ask(health.app(), path)).status for name, path in paths.items()}
    assert statuses == {"startupProbe": 200, "livenessProbe": 200, "readinessProbe": 503}
    assert (paths["startupProbe"], paths["livenessProbe"], paths["readinessProbe"]) == (LIVE, LIVE, READY)


def test_there_is_time_to_shut_down() -> None:
    """SIGKILL comes after calls had their time to finish, to be cancelled and to be closed."""
    shutdown = SETTINGS.shutdown
    needed = shutdown.grace + shutdown.cancel + shutdown.close + CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert needed < POD["spec"]["terminationGracePeriodSeconds"] <= needed + 10


def test_prometheus_is_told_where_the_metrics_are() -> None:
    """By the annotations that its usual configuration looks for."""
    annotations = POD["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true"
    assert int(annotations["prometheus.io/port"]) == SETTINGS.health.port
    assert annotations["prometheus.io/path"] == SETTINGS.metrics.path


def test_the_deployment_selects_its_own_pods() -> None:
    """Otherwise the API refuses it."""
    labels, wanted = POD["metadata"]["labels"], DEPLOYMENT["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= labels.items()
