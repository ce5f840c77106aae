"""The app: what it answers where, as ASGI has it, by hand on asyncio and trio."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from resilience import ConfigurationError, ProviderRegistry, Settings
from resilience.health import Health, HealthApp
from resilience.settings import HealthSettings, MetricsSettings
from resilience.telemetry import prometheus

pytestmark = pytest.mark.anyio

VERDICTS = ["/health", "/health/ready", "/readyz"]
LIVE = ["/health/live", "/livez"]
KNOWN = [*VERDICTS, *LIVE, "/health/providers", "/health/providers/openai"]


class SecretError(Exception):
    """An error whose text nobody may see."""


async def failing() -> None:
    raise SecretError("postgres://root:hunter2@db.internal is down")


@pytest.fixture
def health(make: Callable[..., Health]) -> Health:
    health = make()
    health.registry.provider("openai")
    return health


@pytest.mark.parametrize("path", KNOWN)
async def test_every_page_answers_in_json(ask: Any, health: Health, path: str) -> None:
    """With the media type of health, but for the list, which is data; and for no cache to keep."""
    media_type = "application/json" if path == "/health/providers" else "application/health+json"
    reply = await ask(health.app(), path)
    assert reply.status == 200
    assert reply.json["status"] == "pass"
    assert reply.headers == {
        "content-type": media_type,
        "content-length": str(len(reply.body)),
        "cache-control": "no-store",
    }


@pytest.mark.parametrize("path", KNOWN)
async def test_head_is_get_without_a_body(ask: Any, health: Health, path: str) -> None:
    """Same code, same headers."""
    app = health.app()
    get, head = await ask(app, path), await ask(app, path, "HEAD")
    assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", KNOWN)
async def test_nothing_can_be_changed(ask: Any, health: Health, path: str, method: str) -> None:
    """Other methods are answered with those that there are."""
    reply = await ask(health.app(), path, method)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
    assert "error" in reply.json


@pytest.mark.parametrize("path", ["/", "", "/healthy", "/health/readyz", "/metrics/x", "/health/live/x", "/Health"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_is_unknown_is_told_what_there_is(ask: Any, health: Health, path: str, method: str) -> None:
    """404, in JSON too."""
    reply = await ask(health.app(), path, method)
    assert (reply.status, reply.headers["content-type"]) == (404, "application/json")
    assert {*VERDICTS, *LIVE, "/metrics"} < set(reply.json["paths"])


async def test_the_answer_shows_figures_and_rules(ask: Any, make: Callable[..., Health]) -> None:
    """An operator sees which component is unwell, what counts as critical, and by which rule the whole is judged."""
    health = make(minimum_healthy=0.5)
    health.version, health.service_id = "1.2.3", "shop"
    health.registry.provider("openai").breaker.open()
    health.add("database", failing, component_id="db-1", component_type="datastore")
    health.add("cache", anyio.lowlevel.checkpoint, critical=True)
    reply = await ask(health.app(), "/health")
    document = reply.json
    assert reply.status == 503
    assert (document["status"], document["version"], document["serviceId"]) == ("fail", "1.2.3", "shop")
    assert document["output"] == "1 of 3 components healthy, more than 50 % must be"
    assert "unless more than 50 % of the components pass" in document["notes"][0]
    assert document["summary"] == {
        "total": 3,
        "healthy": 1,
        "degraded": 1,
        "failing": 1,
        "healthyShare": pytest.approx(1 / 3),
        "minimumHealthy": 0.5,
        "critical": ["cache"],
        "draining": False,
    }
    (database,) = document["checks"]["database:responseTime"]
    assert database == {
        "componentId": "db-1",
        "componentType": "datastore",
        "status": "fail",
        "observedValue": pytest.approx(0, abs=0.01),
        "observedUnit": "s",
        "critical": False,
        "output": "SecretError",
        "time": "2001-09-09T01:46:40.000Z",
        "unwellFor": pytest.approx(0, abs=0.01),
    }
    (circuit,) = document["checks"]["openai:circuit"]
    assert (circuit["status"], circuit["observedValue"]) == ("warn", "forced_open")
    assert circuit["output"] == "refuses: forced_open, by hand"


async def test_readiness_shows_only_what_is_unwell(ask: Any, health: Health) -> None:
    """Whoever looks at a log of probes finds the reason at once."""
    health.add("cache", anyio.lowlevel.checkpoint)
    health.add("database", failing)
    for path in ("/health/ready", "/readyz"):
        reply = await ask(health.app(), path)
        assert (reply.status, reply.json["status"], list(reply.json["checks"])) == (
            200,
            "warn",
            ["database:responseTime"],
        )
        assert reply.json["summary"]["total"] == 3


@pytest.mark.parametrize("path", KNOWN)
async def test_no_answer_tells_a_secret(ask: Any, health: Health, path: str) -> None:
    """No text of an error that somebody else wrote, and no stack trace; but what a check says is its own."""
    health.add("database", failing, critical=True)

    async def talking() -> str:
        return "lag is 3 s"

    health.add("replica", talking)
    app = health.app()
    body = (await ask(app, path)).body.decode()
    for secret in ("hunter2", "db.internal", "Traceback", ".py"):
        assert secret not in body
    if path == "/health":
        assert "SecretError" in body
        assert "lag is 3 s" in body


async def test_everything_answers_at_once_while_a_check_hangs(ask: Any, health: Health) -> None:
    """Within a tenth of a second, at any time and on every page; and the check that hangs is told with its age."""
    health.add("database", anyio.sleep_forever, critical=True)
    app = health.app()
    for _ in range(30):
        for path in KNOWN:
            before = anyio.current_time()
            reply = await ask(app, path)
            assert anyio.current_time() - before <= 0.1
            assert reply.status == (503 if path in VERDICTS else 200)
        await anyio.sleep(0.7)
    (database,) = (await ask(app, "/health")).json["checks"]["database:responseTime"]
    assert database["output"] == "no answer within 1 s"
    assert database["unwellFor"] == pytest.approx(20, abs=0.5)


async def test_a_thousand_requests_ask_a_check_once(ask: Any, health: Health) -> None:
    """Probes, balancers and people together cost the database one question per interval."""
    asked = []

    async def check() -> None:
        asked.append(None)
        await anyio.sleep(0.02)

    health.add("database", check, critical=True)
    app, statuses = health.app(), []

    async def probe() -> None:
        statuses.append((await ask(app, "/readyz")).status)

    async with anyio.create_task_group() as group:
        for _ in range(1000):
            group.start_soon(probe)
    assert (len(asked), statuses) == (1, [200] * 1000)


async def test_liveness_never_asks_a_check(ask: Any, health: Health) -> None:
    """A database that is down is no reason to kill the process, and neither is its end."""
    asked = []
    health.add("database", lambda: asked.append(None), critical=True)
    health.draining = True
    for path in LIVE:
        assert (await ask(health.app(), path)).status == 200
    assert asked == []


async def test_a_process_that_shuts_down_is_alive_and_not_ready(ask: Any, health: Health) -> None:
    """Balancers take it out, and nobody kills it before its calls are done."""
    app = health.app()
    assert (await ask(app, "/readyz")).status == 200
    health.draining = True
    for path in VERDICTS:
        reply = await ask(app, path)
        assert (reply.status, reply.json["output"], reply.json["summary"]["draining"]) == (503, "shutting down", True)


async def test_the_end_of_the_registry_is_noticed(ask: Any, health: Health) -> None:
    """Who shuts it down need not tell the health."""
    app = health.app()
    assert (await ask(app, "/readyz")).status == 200
    await health.registry.shutdown()
    assert (await ask(app, "/readyz")).json["output"] == "shutting down"
    assert (await ask(app, "/livez")).status == 200


@pytest.mark.parametrize(
    "path, root",
    [
        ("/internal/health/live", "/internal"),
        ("/internal/livez", "/internal"),
        ("/internal/livez/", "/internal/"),
        ("/livez", "/internal"),
        ("/health/live", "/health"),
        ("/live", "/health"),
        ("/livez/", ""),
    ],
)
async def test_it_can_be_mounted_anywhere(ask: Any, health: Health, path: str, root: str) -> None:
    """Whether the path that it is given begins with the place where it was mounted, as in ASGI now, or not."""
    reply = await ask(health.app(), path, root=root)
    assert (reply.status, reply.json) == (200, {"status": "pass"})


async def test_mounted_at_health_the_whole_is_its_root(ask: Any, health: Health) -> None:
    """``/health`` and ``/health/`` lead there."""
    for path in ("/health", "/health/", "/", ""):
        assert "summary" in (await ask(health.app(), path, root="/health")).json


# -- the rest of ASGI --------------------------------------------------------------------------------------------------


async def test_it_lives_as_long_as_the_server(health: Health) -> None:
    """From startup to shutdown the checks run by themselves, and end with it."""
    asked: list[float] = []

    async def check() -> None:
        asked.append(anyio.current_time())

    health.add("database", check)
    to_app, received = anyio.create_memory_object_stream[Any](2)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async with received, to_app, anyio.create_task_group() as group:
        group.start_soon(health.app(), {"type": "lifespan"}, received.receive, send)
        await to_app.send({"type": "lifespan.startup"})
        await anyio.sleep(25)
        assert sent == [{"type": "lifespan.startup.complete"}]
        assert asked == pytest.approx([0, 10, 20], abs=0.1)
        await to_app.send({"type": "lifespan.shutdown"})
    assert sent[1:] == [{"type": "lifespan.shutdown.complete"}]
    await anyio.sleep(30)
    assert len(asked) == 3


async def test_a_websocket_is_turned_away(health: Health) -> None:
    """Politely, as ASGI has it."""
    sent = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await health.app()({"type": "websocket", "path": "/health"}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1000}]
    with pytest.raises(ValueError, match="speaks HTTP"):
        await health.app()({"type": "gopher"}, receive, send)


# -- metrics -----------------------------------------------------------------------------------------------------------


@pytest.mark.real_time
async def test_metrics_are_there_without_any_setup(ask: Any, health: Health) -> None:
    """``name[]`` picks some, and the client's format is heeded."""
    app = health.app()
    reply = await ask(app, "/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain")
    picked = await ask(app, "/metrics", query=b"name[]=resilience_no_such_metric")
    assert len(picked.body) < len(reply.body)
    other = await ask(app, "/metrics", accept="application/openmetrics-text")
    assert other.headers["content-type"].startswith("application/openmetrics-text")


async def test_without_the_extra_metrics_say_what_to_install(
    ask: Any, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    """501, and a line that can be pasted."""
    monkeypatch.setitem(sys.modules, "resilience.telemetry.prometheus", None)
    reply = await ask(health.app(), "/metrics")
    assert (reply.status, reply.headers["content-type"]) == (501, "text/plain; charset=utf-8")
    assert b"pip install 'resilient-providers[prometheus]'" in reply.body


async def test_metrics_have_a_path_and_can_be_left_out(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the settings have it, or as whoever mounts the app says."""
    monkeypatch.setitem(sys.modules, "resilience.telemetry.prometheus", None)
    for metrics, given, path, expected in [
        (MetricsSettings(path="/prom"), None, "/prom", 501),
        (MetricsSettings(path="/prom/"), None, "/prom", 501),
        (MetricsSettings(path="/prom"), None, "/metrics", 404),
        (MetricsSettings(enabled=False), None, "/metrics", 404),
        (MetricsSettings(enabled=False), True, "/metrics", 501),
        (MetricsSettings(), False, "/metrics", 404),
    ]:
        health = Health(ProviderRegistry(Settings(metrics=metrics)), settings=HealthSettings())
        assert (await ask(HealthApp(health, metrics=given), path)).status == expected


async def test_a_worker_joins_the_others_when_it_begins(tmp_path: Path) -> None:
    """It does not have to be asked for metrics itself before the others can tell what it has counted."""
    metrics = MetricsSettings(directory=str(tmp_path / "metrics"))
    health = Health(ProviderRegistry(Settings(metrics=metrics)))
    prometheus.stop()
    try:
        async with health.lifespan():
            assert [path.suffix for path in (tmp_path / "metrics").iterdir()] == [".lock"]
    finally:
        prometheus.stop()


@pytest.mark.real_time
async def test_metrics_are_as_the_registry_has_them(ask: Any) -> None:
    """Settings that were given in code hold for the page, too."""
    registry = ProviderRegistry(Settings(metrics=MetricsSettings(aliases=True)))
    registry.provider("aliased")
    prometheus.stop()
    try:
        reply = await ask(Health(registry).app(), "/metrics")
        assert b'circuitbreaker_state{name="aliased"} 0.0' in reply.body
    finally:
        prometheus.stop()


@pytest.mark.real_time
async def test_a_directory_that_is_none(ask: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A program does not start with it; one that is only asked says so in its log, and answers probes as ever."""
    (tmp_path / "file").write_text("")
    metrics = MetricsSettings(directory=str(tmp_path / "file"))
    health = Health(ProviderRegistry(Settings(metrics=metrics)))
    prometheus.stop()
    with pytest.raises(ConfigurationError, match=r"metrics.directory"):
        async with health.lifespan():
            raise AssertionError("it has started")
    app = health.app()
    reply = await ask(app, "/metrics")
    assert (reply.status, reply.body) == (500, b"metrics are set up wrongly; the log says how\n")
    assert "metrics.directory: " in caplog.text
    assert (await ask(app, "/livez")).status == 200


@pytest.mark.parametrize(
    "path, whole, below",
    [
        ("/internal/status", "/internal/status", "/internal/status"),
        ("/status/", "/status", "/status"),
        ("/", "/", ""),
    ],
)
async def test_health_has_a_path_of_its_own(
    ask: Any, make: Callable[..., Health], path: str, whole: str, below: str
) -> None:
    """As the settings have it; Kubernetes' own addresses and metrics stay where they are."""
    health = make(path=path)
    health.registry.provider("openai")
    app = health.app()
    assert "summary" in (await ask(app, whole)).json
    for page in ("/live", "/ready", "/providers", "/providers/openai"):
        assert (await ask(app, below + page)).json["status"] == "pass"
    for page in ("/livez", "/readyz", "/metrics"):
        assert (await ask(app, page)).status != 404
    assert (await ask(app, below + "/providers/nobody")).json["providers"] == f"{below}/providers"
    reply = await ask(app, "/health")
    assert reply.status == 404
    assert {whole, f"{below}/live", f"{below}/providers/{{name}}", "/livez", "/metrics"} < {*reply.json["paths"]}


# -- the documentation -------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "health.md").read_text(encoding="utf-8")


async def test_the_documentation_names_every_address(ask: Any, health: Health) -> None:
    """The table of addresses is that of the code: what a 404 lists, and nothing else."""
    rows = re.findall(r"^\| (`/.*?) \|", PAGE, flags=re.MULTILINE)
    told = {path for row in rows for path in re.findall(r"`(/[^`]*)`", row)}
    assert told == set((await ask(health.app(), "/nothing")).json["paths"])


async def test_the_documentation_shows_an_answer_as_it_is(ask: Any, make: Callable[..., Health]) -> None:
    """Every field of the example is one that a real answer has, in the same order."""
    (example,) = (json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    health = make()
    health.version, health.service_id = example["version"], example["serviceId"]
    health.registry.provider("openai").breaker.open()
    health.registry.provider("s3")
    health.add("database", anyio.lowlevel.checkpoint, critical=True, component_type="datastore")
    answer = (await ask(health.app(), "/health")).json
    assert list(answer) == list(example)
    assert list(answer["summary"]) == list(example["summary"])
    assert (answer["status"], answer["output"], answer["notes"][0]) == (
        example["status"],
        example["output"],
        example["notes"][0],
    )
    for name, (shown,) in example["checks"].items():
        (entry,) = answer["checks"][name]
        assert list(entry) == list(shown)
