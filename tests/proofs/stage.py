"""A real Prometheus that watches a real program."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from script import END

from resilience.monitoring import alerts

HERE = Path(__file__).parent
WINDOW = "10s"
"""What stands for Grafana's rate interval."""
FASTER = 30
"""Alerts are given so many times less time than they have in earnest: five minutes are ten seconds here."""
ALL = {"$__rate_interval": WINDOW, "$job": ".*", "$provider": ".*"}
"""What Grafana puts in the place of its variables."""

SECONDS = {"s": 1, "m": 60, "h": 3600}


def filled(query: str) -> str:
    """A query as Grafana sends it."""
    for variable, value in ALL.items():
        query = query.replace(variable, value)
    return query


def faster(text: str) -> str:
    """A rule with its times shortened."""
    return re.sub(r"\b(\d+)([smh])\b", lambda found: f"{int(found[1]) * SECONDS[found[2]] // FASTER}s", text)


@dataclass(frozen=True)
class Series:
    """One series of an answer: its labels, and its values by time."""

    labels: dict[str, str]
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Watched:
    """
    What Prometheus has seen.

    Args:
        client: Asks it.
        began: When the program's script began, in seconds since the Unix epoch.
        log: Where it writes its own complaints.
    """

    client: httpx.Client
    began: float
    log: Path

    def at(self, query: str, seconds: float) -> dict[tuple[tuple[str, str], ...], float]:
        """What a query answers for a moment of the script, by labels."""
        found = self._asked("query", query=filled(query), time=self.began + seconds)
        return {tuple(sorted(one["metric"].items())): float(one["value"][1]) for one in found}

    def over(self, query: str, start: float = 4.0, end: float = END, step: float = 1.0) -> list[Series]:
        """What a query answers for a part of the script; times are those of the script."""
        found = self._asked(
            "query_range", query=filled(query), start=self.began + start, end=self.began + end, step=step
        )
        return [
            Series(one["metric"], tuple((float(at) - self.began, float(value)) for at, value in one["values"]))
            for one in found
        ]

    def values_of(self, label: str, metric: str) -> set[str]:
        """Which values a label of a metric has had."""
        answer = self.client.get(f"/api/v1/label/{label}/values", params={"match[]": metric})
        return set(answer.raise_for_status().json()["data"])

    def _asked(self, kind: str, **arguments: Any) -> list[dict[str, Any]]:
        answer = self.client.post(f"/api/v1/{kind}", data=arguments)
        assert answer.status_code == 200, f"{arguments['query']}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def until(ready: Callable[[], bool], what: str) -> None:
    for _ in range(300):
        try:
            if ready():
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"{what} is not ready after 30 s")


@contextmanager
def running(*command: str, log: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program, and end it."""
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)
        assert process.stdout
        process.stdout.close()


def configured(folder: Path, port: int) -> Path:
    """Write what Prometheus watches, and the rules that it evaluates."""
    rules = json.loads(faster(json.dumps(alerts())))
    (folder / "rules.yml").write_text(json.dumps(rules), encoding="utf-8")  # JSON is YAML
    scraped = {"job_name": "shop", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [scraped],
    }
    path = folder / "prometheus.yml"
    path.write_text(json.dumps(configuration), encoding="utf-8")
    return path


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """Let Prometheus watch the program from the beginning of its script to the end."""
    port, own = free_port(), free_port()
    log = folder / "prometheus.log"
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{own}", trust_env=False) as client,
        running(
            "prometheus", f"--config.file={configured(folder, port)}", f"--web.listen-address=127.0.0.1:{own}",
            f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn", log=log,
        ),
        running(sys.executable, "-P", str(HERE / "program.py"), str(port), log=folder / "program.log") as program,
    ):  # fmt: skip
        assert program.stdout
        began = program.stdout.readline()
        assert began, (folder / "program.log").read_text()
        until(lambda: client.get("/-/ready").is_success, "Prometheus")
        time.sleep(max(0.0, float(began) + END - time.time()))
        assert program.poll() is None, (folder / "program.log").read_text()
        yield Watched(client, float(began), log)
