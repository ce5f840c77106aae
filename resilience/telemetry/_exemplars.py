"""
Examples for the buckets of histograms: the last recorded call that fell into each, and its trace.

Only calls that are being traced anyway leave one, so that others pay nothing for it.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias, final

from resilience.telemetry import names
from resilience.telemetry.names import BUCKETS, Metric
from resilience.watching import observed

_MOST_NAMES: Final = 1024
_MOST_OF_A_NAME: Final = 128

_Key: TypeAlias = tuple[Metric, tuple[str, ...]]


class Example(NamedTuple):
    """One call: how long it took, when it was over (nanoseconds since the Unix epoch), and where to find it."""

    seconds: float
    time: int
    trace_id: int
    span_id: int


@final
class Examples:
    """The last example for each bucket of each series; series beyond a bound have none."""

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """Forget them all."""
        self._lock = threading.Lock()
        self._kept: dict[str, dict[_Key, dict[int, Example]]] = {}  # by provider

    def keep(
        self,
        metric: Metric,
        values: tuple[str, ...],
        seconds: float,
        *,
        trace_id: int,
        span_id: int,
        now: int | None = None,
    ) -> None:
        """
        Keep a call as the example of its bucket.

        Args:
            metric: The histogram: `names.CALL_DURATION` or `names.ATTEMPT_DURATION`.
            values: The values of its attributes: provider, operation, outcome and variant.
            seconds: How long the call took.
            trace_id: Its trace.
            span_id: Its span.
            now: When it was over, in nanoseconds since the Unix epoch. Default: now.
        """
        with self._lock:
            of_name = self._kept.get(values[0])
            if of_name is None:
                if len(self._kept) >= _MOST_NAMES:
                    return
                of_name = self._kept[values[0]] = {}
            kept = of_name.get((metric, values))
            if kept is None:
                if len(of_name) >= _MOST_OF_A_NAME:
                    return
                kept = of_name[metric, values] = {}
            moment = now if now is not None else time.time_ns()
            kept[bisect_left(BUCKETS, seconds)] = Example(seconds, moment, trace_id, span_id)

    def of(self, metric: Metric, values: tuple[str, ...]) -> list[Example]:
        """Return the examples of one series, those of the shortest calls first."""
        with self._lock:
            kept = self._kept.get(values[0], {}).get((metric, values), {})
            return [example for _, example in sorted(kept.items())]

    def forget(self, provider: str) -> None:
        """Drop the examples of *provider*."""
        with self._lock:
            self._kept.pop(provider, None)


examples: Final = Examples()
"""Those of this process."""


def leave_example(metric: Metric, attributes: Mapping[str, str], outcome: str, span: Any) -> None:
    """Keep *span*, which is over, as an example for *metric*; *attributes* are those of all spans of its operation."""
    began, ended = getattr(span, "start_time", None), getattr(span, "end_time", None)  # the SDK's, not the API's
    if not observed.metered or began is None or ended is None:
        return
    context = span.get_span_context()
    values = (
        attributes[names.PROVIDER],
        attributes.get(names.OPERATION, ""),
        outcome,
        attributes.get(names.VARIANT, ""),
    )
    examples.keep(metric, values, (ended - began) / 1e9, trace_id=context.trace_id, span_id=context.span_id, now=ended)
