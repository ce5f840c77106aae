"""Measure, print, write, and with ``--check`` hold to the bounds."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import floor, footprint, ours, rivals, sections
from benchmarks.check import Check
from benchmarks.checks import checks
from benchmarks.measure import Case, Stopwatch
from benchmarks.report import Report
from benchmarks.sections import PARTS

ROUNDS = 200
QUICK_ROUNDS = 60
IMPORTS = 10
QUICK_IMPORTS = 4
TRIES = 3


def arguments() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=sys.modules["benchmarks"].__doc__)
    parser.add_argument("--check", action="store_true", help="fail if a bound is broken")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: enough for the check, not for a table")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/latest.json"), help="where to write it")
    only = ("ours", "rivals", *PARTS)
    parser.add_argument("--only", choices=only, help="leave everything else out (the floor stays)")
    return parser


def chosen(only: str | None) -> list[Case]:
    """Collect the cases to measure: the floor always, and both groups or the one that was named."""
    groups = {"ours": ours.cases, "rivals": rivals.cases}
    return floor.cases() + [case for name, cases in groups.items() if only in (None, name) for case in cases()]


async def timed(options: argparse.Namespace, weight: float) -> tuple[Stopwatch, list[Check]]:
    """
    Measure every case once; for a check, go on measuring while a bound is broken, at most three times as long.

    More rounds can only bring each best closer to what the code itself costs, for the floor and the rivals too. So
    a busy machine gets another chance, but code that is too slow does not.
    """
    stopwatch = Stopwatch(chosen(options.only))
    for tried in range(1, TRIES + 1):
        await stopwatch.run(QUICK_ROUNDS if options.quick else ROUNDS)
        found = checks(stopwatch.results(), weight) if options.only is None else []
        if not options.check or all(check.holds for check in found) or tried == TRIES:
            return stopwatch, found
        print("a bound is broken; measuring on, in case the machine was busy", flush=True)
    raise AssertionError("the last try returns")


def measure(options: argparse.Namespace) -> Report:
    """Measure everything, or what was asked for."""
    imports = footprint.import_time(QUICK_IMPORTS if options.quick else IMPORTS)
    # In a loop of its own: a thousand idle providers are not what a call shares its loop with.
    weight = asyncio.run(footprint.bytes_per_provider())
    stopwatch, found = asyncio.run(timed(options, weight))
    # These have loops of their own too, and hedging has one whose time is not real.
    others = dict(sections.measured(options.only, quick=options.quick, tries=TRIES if options.check else 1))
    if options.only is None:
        found += [check for section in others.values() for check in section.checks()]
    return Report(chosen(options.only), stopwatch.results(), weight, imports, others, found)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = arguments()
    options = parser.parse_args(argv)
    if options.check and options.only:
        parser.error("--check needs every case: leave --only out")
    # Some rivals log each retry. Nobody reads that here, and writing it would be measured.
    logging.disable(logging.CRITICAL)
    report = measure(options)
    print(report.table())
    report.write(options.json)
    print(f"\nwritten to {options.json}")
    broken = [check for check in report.checks if not check.holds]
    return 1 if options.check and broken else 0


if __name__ == "__main__":
    sys.exit(main())
