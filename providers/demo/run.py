"""The demo on real sockets and in real time."""

from __future__ import annotations

import sys

import anyio

from providers.demo import report
from providers.demo.figures import figures
from providers.demo.progress import Progress
from providers.demo.report import Pass
from providers.demo.scenario import Scenario, demo_settings, misbehaviour, play
from providers.http import Client, checked, client
from resilience import ProviderSettings
from resilience.testing import MisbehavingProvider, serve


def run(*, seed: int, duration: float, rate: float, json: bool, headless: bool) -> int:
    """
    Run both passes and print what came of them.

    Args:
        seed: What the provider's trouble is drawn from.
        duration: How long files arrive in each pass, in seconds.
        rate: How many files arrive per second.
        json: Print one JSON document instead of text.
        headless: Print plain lines of progress even in a terminal.

    Returns:
        The exit code: 1 if a file that was reported as stored is missing or differs, else 0.
    """
    scenario = Scenario(duration=duration, rate=rate, behaviour=misbehaviour(seed, duration))
    settings = demo_settings(duration)
    # With --json, stdout belongs to the document; people who watch it being made look at stderr.
    stream = sys.stderr if json else sys.stdout
    live = stream.isatty() and not headless
    stream.write(f"{report.introduction(scenario, settings)}\n\n")
    stream.flush()
    unprotected = anyio.run(on_loopback, scenario, None, Progress("unprotected", stream, live=live))
    protected = anyio.run(on_loopback, scenario, settings, Progress("protected", stream, live=live))
    if json:
        print(report.as_json(scenario, settings, unprotected, protected))
    else:
        unicode = (sys.stdout.encoding or "").lower().startswith("utf")
        print(f"\n{report.as_text(scenario, unprotected, protected, unicode=unicode)}")
    return 0 if unprotected.figures.promises_kept and protected.figures.promises_kept else 1


async def on_loopback(scenario: Scenario, settings: ProviderSettings | None, progress: Progress) -> Pass:
    """Perform one pass against a real server on loopback."""
    site = MisbehavingProvider(scenario.behaviour)
    with serve(site) as url:
        async with client(base_url=url, trust_env=False) as http:  # no proxy may stand between us and loopback
            return await perform(scenario, site, http, settings, progress)


async def perform(
    scenario: Scenario,
    site: MisbehavingProvider,
    http: Client,
    settings: ProviderSettings | None = None,
    progress: Progress | None = None,
) -> Pass:
    """
    Perform one pass, check afterwards what the provider holds, and sum up.

    Args:
        scenario: What arrives when.
        site: The provider.
        http: Reaches the provider, over a socket or in this process.
        settings: How the uploads are protected. Default: not at all.
        progress: Shows how it goes. Default: nobody.
    """
    put = checked(http.put)

    async def upload(name: str, body: bytes) -> None:
        await put(f"/files/{name}", content=body)

    await http.get("/files")  # connects once, so that the first file does not pay for it
    record = await play(scenario, site, upload, settings=settings, watch=progress)
    if progress is not None:
        progress.done(record)
    stored: dict[str, str] = (await http.get("/files")).json()
    return Pass(figures=figures(record, site.statistics(), stored), arrivals=tuple(site.arrivals))
