"""What a bulkhead says about itself, what it says when it refuses, and what its settings mean."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from resilience._core.limit import AimdLimit, Limit, VegasLimit, within
from resilience._core.words import Reason
from resilience.failure import FailureKind
from resilience.settings import BulkheadSettings

NO_LIMIT = sys.maxsize
"""The limit of a bulkhead that has none."""

DROPS = frozenset({FailureKind.TIMEOUT, FailureKind.RATE_LIMIT, FailureKind.OVERLOADED})
"""The kinds of failure that tell an adaptive limit to fall."""


class BulkheadRefusal(NamedTuple):
    """Why no place was given, in figures; its text is made only when somebody reads it."""

    reason: Reason
    in_use: int
    limit: int
    waiting: int
    size: int
    waited: float = 0.0

    def __str__(self) -> str:
        waited = f"waited {self.waited:.3g} s, " if self.reason is Reason.BULKHEAD_TIMEOUT else ""
        shed = "others matter more, " if self.reason is Reason.SHED else ""
        line = f"{self.waiting} of {self.size} waiting" if self.size else "nobody may wait"
        return f"{waited}{shed}{self.in_use} of {self.limit} places taken, {line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkheadSnapshot:
    """
    One look at a bulkhead. JSON-ready through `dataclasses.asdict`.

    Args:
        name: The bulkhead's name.
        mode: ``"enforce"``, ``"shadow"`` or ``"disabled"``.
        limit: How many attempts may run at once, at present; None without a limit.
        in_use: How many do.
        waiting: How many wait for a place (in shadow mode: would wait).
        max_queue: How many may wait.
        by_priority: How many of each priority wait.
        overloaded: Whether the line has not been empty for a while.
        adaptive: The adaptive limit before it is rounded down; None if it is fixed.
    """

    name: str
    mode: str
    limit: int | None
    in_use: int
    waiting: int
    max_queue: int
    by_priority: Mapping[str, int]
    overloaded: bool
    adaptive: float | None


def fixed_limit(settings: BulkheadSettings) -> int:
    """Return the limit that *settings* begin with."""
    if not settings.limits:
        return NO_LIMIT
    highest = settings.max_concurrent if settings.max_concurrent is not None else NO_LIMIT
    return highest if settings.adaptive == "off" else min(settings.initial_limit, settings.max_limit, highest)


def adaptive_limit(settings: BulkheadSettings, rng: random.Random, present: Limit | None = None) -> Limit | None:
    """Return the limit that adapts itself, if *settings* ask for one; it goes on from where *present* is."""
    if not settings.limits or settings.adaptive == "off":
        return None
    highest = min(settings.max_limit, settings.max_concurrent or NO_LIMIT)
    lowest = min(settings.min_limit, highest)
    if isinstance(present, AimdLimit if settings.adaptive == "aimd" else VegasLimit):
        present.adopt(lowest, highest)
        return present
    initial = within(settings.initial_limit if present is None else present.limit, lowest, highest)
    if settings.adaptive == "aimd":
        return AimdLimit(initial, lowest, highest, -math.inf)
    return VegasLimit(initial, lowest, highest, -math.inf, rng)
