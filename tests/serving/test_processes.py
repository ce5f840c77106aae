"""Real processes that are told to stop in the middle of their work."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from resilience.testing import MisbehavingProvider, serve
from resilience.testing.behaviour import Action, Behaviour
from resilience.testing.provider import Reply, Ticket

pytestmark = [
    pytest.mark.real_time,
]

HANGS = 3600.0


class Store:
    """An upload store that keeps count by name: every ninth upload hangs, every seventh breaks the first time."""

    def __init__(self) -> None:
        self.provider = MisbehavingProvider()
        self.received: Counter[str] = Counter()
        self.stored: Counter[str] = Counter()
        self.busy = threading.Semaphore(0)

    def start(self) -> None:
        self.provider.start()

    def receive(self, method: str, path: str) -> Ticket:
        ticket = self.provider.receive(method, path)
        name = path.rpartition("/")[2]
        self.received[name] += 1
        self.busy.release()
        number = int(name)
        if number % 7 == 0 and self.received[name] == 1:
            return Ticket(method, path, number, ticket.time, Action(Behaviour.RESET, latency=0.01))
        return Ticket(
            method, path, number, ticket.time, Action(Behaviour.ANSWER, latency=HANGS if number % 9 == 0 else 0.02)
        )

    def answer(self, ticket: Ticket, body: bytes) -> Reply | None:
        reply = self.provider.answer(ticket, body)
        if reply is not None and reply.status == 201:
            self.stored[ticket.path.rpartition("/")[2]] += 1
        return reply


PROGRAM = textwrap.dedent(
    """
    import itertools, os, sys, anyio, httpx
    from resilience import *

    url, backend, how = sys.argv[1:]
    registry = ProviderRegistry(Settings.model_validate({
        "defaults": {
            "bulkhead": {"max_concurrent": 8, "max_queue": 99, "max_wait": 60},
            "retry": {"base_delay": 0.05, "max_attempts": 5},
            "breaker": {"enabled": False},
        },
        "shutdown": {"grace": 0.4, "cancel": 5, "close": 5},
    }))
    provider, names = registry.provider("store"), itertools.count(1)
    lines = []


    def told(*words):
        os.write(1, (" ".join(map(str, words)) + "\\n").encode())


    async def work(client):
        while not registry.stopping:
            name = next(names)
            told("began", name)
            try:
                reply = await provider.execute(client.put, f"/files/{name}", content=b"x" * 100)
                assert reply.status_code == 201
                await anyio.sleep(0)
                told("done", name)
            except ShuttingDown:
                told("refused", name)
            except CallTimeout as error:
                told("interrupted" if error.scope == "shutdown" else "failed", name)
            except httpx.TransportError:
                told("failed", name)


    async def everybody(client):
        async with anyio.create_task_group() as group:
            for _ in range(12):
                group.start_soon(work, client)


    async def beside_a_server(client):
        from resilience.serving import serving
        async with serving(registry, port=0):
            await everybody(client)


    async def alone(client):
        import signal
        async def stop():
            with anyio.open_signal_receiver(signal.SIGTERM) as signals:
                async for _ in signals:
                    told("report", await registry.shutdown())
                    return
        async with anyio.create_task_group() as group:
            group.start_soon(stop)
            group.start_soon(everybody, client)


    async def main():
        client = httpx.AsyncClient(base_url=url, timeout=None, limits=httpx.Limits(max_connections=None))
        async def close():
            await client.aclose()
            told("closed")
        registry.on_close(close)
        await {"serving": beside_a_server, "alone": alone}[how](client)
        told("report", await registry.shutdown())


    anyio.run(main, backend=backend)
    """
)


@contextmanager
def process(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python, and end it whatever happens."""
    child = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("backend, how", [("asyncio", "serving"), ("asyncio", "alone"), ("trio", "alone")])
def test_no_call_is_lost_and_none_is_made_twice(backend: str, how: str) -> None:
    """
    What was reported done has arrived and was stored once; all else was reported as refused, interrupted or failed.

    Some calls finish within the grace, some hang beyond it, some stand in line, some are asleep between two attempts.
    """
    store = Store()
    with serve(store) as url, process("-c", PROGRAM, url, backend, how) as child:  # type: ignore[arg-type]
        for _ in range(60):
            assert store.busy.acquire(timeout=60)
        child.send_signal(signal.SIGTERM)
        output, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (0, "")
    fates: dict[str, list[str]] = {"began": [], "done": [], "refused": [], "interrupted": [], "failed": []}
    for line in output.splitlines():
        word, _, rest = line.partition(" ")
        if word in fates:
            fates[word].append(rest)
    began = fates.pop("began")
    told = [name for names in fates.values() for name in names]
    assert sorted(began) == sorted(told), "every call was reported, and once"
    assert len(set(told)) == len(told)
    assert {name: store.stored[name] for name in fates["done"]} == dict.fromkeys(fates["done"], 1)
    assert all(store.received[name] == 1 for name in fates["done"] if int(name) % 7)
    assert [name for name in fates["refused"] if store.received[name]] == []
    assert all(store.stored[name] <= 1 for name in told)
    assert set(store.received) <= set(told)
    assert [name for name in fates["failed"] if int(name) % 7 or store.stored[name]] == []
    assert any(int(name) % 9 == 0 for name in fates["interrupted"])
    assert len(fates["done"]) > 30
    assert fates["refused"]
    assert output.count("closed\n") == 1
    report = re.findall(r"report attempts: (\d+) finished, (\d+) interrupted, (\d+) abandoned; (\d+) call", output)[-1]
    assert [int(figure) for figure in report][1:] == [len(fates["interrupted"]), 0, len(fates["refused"])]


def where(child: subprocess.Popen[str]) -> str:
    """The address that a process says that it serves."""
    assert child.stdout is not None
    line = child.stdout.readline()
    found = re.fullmatch(rf"resilience: health and metrics of process {child.pid} on (http://\S+)\n", line)
    assert found is not None, line or child.communicate()
    return found[1]


SERVE = "import sys; from resilience.serving import serve; sys.exit(serve(port=int(sys.argv[1])))"


def test_a_server_of_its_own(tmp_path: Path) -> None:
    """It says in one line where it listens, reads its settings anew on SIGHUP, and ends well on SIGTERM."""
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"health": {"minimum_healthy": 0.5}, "logging": {"format": "json"}}))
    with process("-c", SERVE, "0", RESILIENCE_CONFIG=str(file)) as child, httpx.Client(base_url=where(child)) as client:
        assert client.get("/health").json()["summary"]["minimumHealthy"] == 0.5
        assert client.get("/metrics").status_code == 200
        file.write_text(json.dumps({"health": {"minimum_healthy": 0.7}, "logging": {"format": "json"}}))
        child.send_signal(signal.SIGHUP)
        assert any(client.get("/health").json()["summary"]["minimumHealthy"] == 0.7 for _ in range(2000))
        child.send_signal(signal.SIGTERM)
        output, errors = child.communicate(timeout=60)
    assert (child.returncode, output) == (0, "")
    lines: list[dict[str, Any]] = [json.loads(line) for line in errors.splitlines()]
    assert any("SIGTERM" in line["message"] for line in lines)
    assert {line["level"] for line in lines} == {"INFO"}


def test_a_port_that_is_taken() -> None:
    """It ends with an exit code and a line, and without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with process("-c", SERVE, str(port)) as child:
            output, errors = child.communicate(timeout=60)
    assert (child.returncode, output) == (1, "")
    assert f"127.0.0.1:{port}: Address already in use" in errors
    assert "Traceback" not in errors


IMPATIENT = textwrap.dedent(
    """
    import asyncio, sys
    from resilience import ProviderRegistry
    from resilience.serving import serving

    async def main():
        registry = ProviderRegistry()
        call = asyncio.create_task(registry.provider("s3").execute(asyncio.sleep, 3600))
        async with serving(registry, port=0) as server:
            print("ready", flush=True)
            await server.wait()
            print("stopping", flush=True)

    asyncio.run(main())
    """
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal(number: signal.Signals) -> None:
    """Whoever sends another one does not wait for the grace."""
    with process("-c", IMPATIENT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        assert child.stdout.readline() == "stopping\n"
        child.send_signal(number)
        _, errors = child.communicate(timeout=15)
    assert child.returncode == -number
    assert ("KeyboardInterrupt" in errors) is (number == signal.SIGINT)
