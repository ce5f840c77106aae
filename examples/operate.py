"""
A service to practise on: it uploads all day to a store that is down now and then. Watch it, ask it, change it, stop it.

It needs ``pip install 'resilient-providers[cli,serve,prometheus]'``. Run it with ``python examples/operate.py``, and in
another terminal what it tells you to; ``--seconds 5`` ends it by itself.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from itertools import count

import anyio
from httpx import HTTPError

from providers.http import Client, client
from resilience import CallRejected, ProviderRegistry, Reloader, Settings, ShuttingDown, logging, telemetry
from resilience.serving import Serving, serving
from resilience.testing import MisbehavingProvider, Misbehaviour, serve

FILE = """\
[reload]
watch = true
interval = "200ms"

[shutdown]
grace = "2s"

[providers.store]
critical = true # the service is not ready while the store is down

[providers.store.retry]
base_delay = "50ms"

[providers.store.breaker]
timeout = "1s"
"""

HELP = """\
resilience top --url {url}              every provider, live
resilience explain store --url {url}    what fails, since when, why, and what is done about it
curl {url}/health                       likewise for machines; /readyz and /livez for Kubernetes
curl {url}/metrics                      for Prometheus
{file}: change it and save, or break it: the log says what is taken and what is not
kill -TERM {pid}: calls under way may finish\
"""


async def upload(http: Client, numbers: Iterator[int]) -> None:
    """Upload small files, one after the other, whatever becomes of them, until the service goes down."""
    while True:
        try:
            await http.put(f"/files/{next(numbers)}", content=b"content")
        except ShuttingDown:
            return
        except CallRejected as refused:
            await anyio.sleep(min(refused.retry_after or 0.1, 0.1))
        except HTTPError:
            pass  # the log has it
        await anyio.sleep(0.02)


async def practise(server: Serving, file: anyio.Path, seconds: float) -> None:
    """Change a setting, then break the file, as an operator might; then stop."""
    changes = [("timeout = ", "max_timeout = 60\ntimeout = "), ("timeout = ", "timeuot = "), ("", "")]
    for old, new in changes:
        with anyio.move_on_after(seconds / len(changes)):
            return await server.wait()
        await file.write_text(FILE.replace(old, new), encoding="utf-8")
    server.stop()
    return None


async def main(port: int | None, seconds: float | None) -> None:
    """Run the service until somebody stops it."""
    outages = tuple((start + 1.0, start + 3.0) for start in range(0, 86_400, 20))
    with tempfile.TemporaryDirectory() as folder, serve(MisbehavingProvider(Misbehaviour(outages=outages))) as store:
        file = anyio.Path(folder, "operate.toml")
        await file.write_text(FILE, encoding="utf-8")
        registry = ProviderRegistry(Settings.from_environment(file=file))
        async with (
            client("store", registry=registry, base_url=store, trust_env=False) as http,
            Reloader(registry, file=file, on_hangup=True),
            serving(registry, port=port) as server,
            anyio.create_task_group() as group,
        ):
            print(HELP.format(url=server.url, file=file, pid=os.getpid()), flush=True)
            numbers = count()
            for _ in range(5):
                group.start_soon(upload, http, numbers)
            if seconds is not None:
                group.start_soon(practise, server, file, seconds)
    print(f"the end: {server.report}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, help="where health and metrics are told; 0: anywhere (default: 8080)")
    parser.add_argument("--seconds", type=float, help="end after so long (default: when it is told to)")
    arguments = parser.parse_args()
    logging.configure()
    telemetry.configure("operate")
    anyio.run(main, arguments.port, arguments.seconds)
