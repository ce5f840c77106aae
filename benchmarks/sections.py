"""What is measured in a way of its own, beside the cases that share the stopwatch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final

from benchmarks import crowd, hedging, streams, telemetry, transport
from benchmarks.check import Check


class Section(Protocol):
    """What one of them found out."""

    def rows(self) -> list[str]:
        """Return it as lines of a table."""
        ...

    def document(self) -> Mapping[str, object]:
        """Return the figures for the report's file."""
        ...

    def checks(self) -> Sequence[Check]:
        """Compare it with its bounds."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Part:
    """
    One way of measuring.

    Args:
        measure: Measures as thoroughly as the number says; runs event loops of its own.
        thorough: The number for a table.
        quick: The number that is enough for a check.
        steady: Whether it finds the same each time, so that measuring again is of no use. Default: no.
    """

    measure: Callable[[int], Section]
    thorough: int
    quick: int
    steady: bool = False


PARTS: Final[Mapping[str, Part]] = {
    "streams": Part(streams.measure, streams.ROUNDS, streams.ROUNDS // 4),
    "transport": Part(transport.measure, transport.PAIRS, transport.QUICK_PAIRS),
    "hedging": Part(hedging.measure, hedging.CALLS, hedging.CALLS, steady=True),
    "telemetry": Part(telemetry.measure, telemetry.ROUNDS, telemetry.QUICK_ROUNDS),
    "crowd": Part(crowd.measure, crowd.ROUNDS, crowd.QUICK_ROUNDS),
}


def measured(only: str | None, *, quick: bool, tries: int) -> Iterator[tuple[str, Section]]:
    """
    Measure every section, or the one that was named, if it is one.

    Args:
        only: The name of what is to be measured; None: everything.
        quick: Whether to measure no more than a check needs.
        tries: How often to measure while a bound is broken, each time for longer.
    """
    for name, part in PARTS.items():
        if only in (None, name):
            yield name, _measured(part, part.quick if quick else part.thorough, 1 if part.steady else tries)


def _measured(part: Part, effort: int, tries: int) -> Section:
    for tried in range(1, tries + 1):
        found = part.measure(effort * tried)
        if tried == tries or all(check.holds for check in found.checks()):
            return found
        print("a bound is broken; measuring again and for longer, in case the machine was busy", flush=True)
    raise AssertionError("the last try returns")
