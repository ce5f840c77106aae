"""``python -m resilience demo``: uploads to a provider that misbehaves, unprotected and protected, side by side."""

from __future__ import annotations

import math
from typing import Annotated

import typer


def _positive(value: float) -> float:
    if not 0 < value < math.inf:
        raise typer.BadParameter(f"{value} is out of range: expected more than 0")
    return value


def command(
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
    seed: Annotated[int, typer.Option(help="What the provider's trouble is drawn from.")] = 1,
    duration: Annotated[
        float, typer.Option(help="Seconds of uploads in each of the two passes.", callback=_positive)
    ] = 10.0,
    rate: Annotated[float, typer.Option(help="Files per second.", callback=_positive)] = 40.0,
    headless: Annotated[
        bool, typer.Option("--headless", help="Plain lines of progress, even in a terminal; as always in a pipe.")
    ] = False,
) -> int:
    """
    Upload to a misbehaving provider, and compare.

    Start a real HTTP upload provider on loopback that misbehaves on purpose (slow answers, errors, resets, a rate
    limit with Retry-After, a full outage), upload files to it unprotected and then through ResilientProvider.execute,
    check every stored checksum, and compare. The exit code is 1 if a file that was reported as stored is missing or
    differs.
    """
    from providers.demo.run import run  # httpx is loaded only when the demo runs

    return run(seed=seed, duration=duration, rate=rate, json=json, headless=headless)
