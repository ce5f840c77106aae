"""
Make docs/pictures/top.svg: what `resilience top` shows of a real process with providers that misbehave.

``python docs/pictures/top.py`` starts such a process (``--service``; it ends with its input), watches it over HTTP as
anybody would, and draws what a terminal of 80 columns shows as soon as there is enough to see.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from resilience import BreakerSettings, ProviderRegistry, ProviderSettings, ResilientProvider, Settings
from resilience.events import CircuitChanged
from resilience.testing import MisbehavingProvider, Misbehaviour, serve

if TYPE_CHECKING:
    from resilience.cli.board import Board

PICTURE = Path(__file__).with_name("top.svg")
PROVIDERS = {
    "openai": Misbehaviour(seed=1, latency=0.2, errors=0.05, outages=((1.0, 600.0),)),
    "s3": Misbehaviour(seed=2, latency=0.03, tail=0.02),
    "webhooks": Misbehaviour(seed=3, latency=0.02, pauses=((1.5, 90.0),)),
    "embeddings": Misbehaviour(seed=4, latency=0.05, errors=0.08),
}
CRITICAL = ("openai",)
PER_SECOND = 25.0
WIDTH, HEIGHT = 80, 14
FONTS = "ui-monospace, Menlo, Consolas, DejaVu Sans Mono"
LONGEST = 60.0


async def service() -> None:
    """Call every provider over and over, and tell on a free port of loopback how they are."""
    import uvicorn

    from resilience.health import Health
    from resilience.telemetry import instrument

    instrument()  # which counts how long calls take, too
    own = {name: ProviderSettings(critical=name in CRITICAL) for name in PROVIDERS}
    registry = ProviderRegistry(Settings(defaults=ProviderSettings(breaker=BreakerSettings(timeout=30)), providers=own))
    app = Health(registry).app()
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    with ExitStack() as sites, socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        registry.subscribe(lambda event: print(event.provider, event.after, flush=True), CircuitChanged)
        urls = {name: sites.enter_context(serve(MisbehavingProvider(how))) for name, how in PROVIDERS.items()}
        async with AsyncExitStack() as clients, anyio.create_task_group() as group:
            for name, url in urls.items():
                group.start_soon(traffic, registry.provider(name), url, clients)
            await server.serve([listener])
            group.cancel_scope.cancel()


def end_with_input() -> None:
    """End this process when its input does, so that it does not outlive the one that started it, however that ended."""
    while os.read(0, 1024):
        pass
    os._exit(0)


async def traffic(provider: ResilientProvider, url: str, clients: AsyncExitStack) -> None:
    """Make a call now and then, and never mind how it ends."""
    from providers.http import checked, client

    http = await clients.enter_async_context(client(base_url=url, trust_env=False))
    put = checked(http.put)

    async def upload(number: int) -> None:
        await provider.try_execute(put, f"/files/{number}", content=b"something")

    async with anyio.create_task_group() as group:
        for number in itertools.count():
            group.start_soon(upload, number)
            await anyio.sleep(1 / PER_SECOND)


def draw(path: Path) -> None:
    """Watch the service until something is wrong with half of it, and draw that."""
    from rich.console import Console

    from resilience.cli import drawing
    from resilience.cli.board import Board
    from resilience.cli.top import look

    command = [sys.executable, __file__, "--service"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - it was asked for
            board = Board.of([f"http://127.0.0.1:{int(process.stdout.readline())}"])
            began = time.monotonic()
            while not worth_it(board) and time.monotonic() < began + LONGEST:
                time.sleep(0.5)
                look(board)
        finally:
            process.terminate()
    screen = Console(record=True, width=WIDTH, height=HEIGHT, file=io.StringIO(), force_terminal=True)
    screen.print(drawing.draw(board, width=WIDTH, height=HEIGHT, now=time.time()))
    path.write_text(without_downloads(screen.export_svg(title="resilience top")), encoding="utf-8")


def without_downloads(svg: str) -> str:
    """Draw with a font of the reader's machine: pages show pictures that may not load any."""
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code", FONTS)


def worth_it(board: Board) -> bool:
    """Tell whether there is enough to see: a circuit is open, a gate is closed, and all the rates are known."""
    rows = board.rows()
    return {"open", "gated"} <= {row.state for row in rows} and all(row.calls is not None for row in rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--service", action="store_true")
    parser.add_argument("--output", type=Path, default=PICTURE)
    options = parser.parse_args()
    if options.service:
        threading.Thread(target=end_with_input, daemon=True).start()
        anyio.run(service)
    else:
        draw(options.output)
