"""``python -m resilience demo``: uploads to a provider that misbehaves, unprotected and protected, side by side."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

_DESCRIPTION = """
Start a real HTTP upload provider on loopback that misbehaves on purpose (slow answers, errors, resets, a rate limit
with Retry-After, a full outage), upload files to it unprotected and then through ResilientProvider.execute, check
every stored checksum, and compare. The exit code is 1 if a file that was reported as stored is missing or differs.
"""


def command(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Describe the subcommand ``demo`` to *parser* and return what runs it."""
    parser.description = _DESCRIPTION
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    parser.add_argument("--seed", type=int, default=1, help="what the provider's trouble is drawn from (default: 1)")
    parser.add_argument(
        "--duration", type=_positive, default=10.0, help="seconds of uploads in each of the two passes (default: 10)"
    )
    parser.add_argument("--rate", type=_positive, default=40.0, help="files per second (default: 40)")
    parser.add_argument(
        "--headless", action="store_true", help="plain lines of progress, even in a terminal; as always in a pipe"
    )
    return _run


def _run(options: argparse.Namespace) -> int:
    from providers.demo.run import run  # httpx is loaded only when the demo runs

    return run(
        seed=options.seed,
        duration=options.duration,
        rate=options.rate,
        json=options.json,
        headless=options.headless,
    )


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is out of range: expected more than 0")
    return value
