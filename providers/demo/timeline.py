"""A pass as a picture in characters: what the provider did, what reached it, and what the breaker did about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from providers.demo.figures import Transition
from resilience.testing import Misbehaviour


@final
@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters to draw with."""

    up: str
    down: str
    pause: str
    states: dict[str, str]
    levels: str


UNICODE: Final = Glyphs("─", "█", "▒", {"closed": "─", "open": "█", "half_open": "▒"}, " ▁▂▃▄▅▆▇█")
ASCII: Final = Glyphs("-", "#", "~", {"closed": "-", "open": "#", "half_open": "?"}, " .:-=+*%#")


def provider_line(behaviour: Misbehaviour, duration: float, width: int, glyphs: Glyphs) -> str:
    """Draw when the provider is up, down, or asks for a pause."""

    def glyph(column: int) -> str:
        begin, end = column * duration / width, (column + 1) * duration / width
        if any(start < end and begin < stop for start, stop in behaviour.outages):
            return glyphs.down
        if any(start < end and begin < stop for start, stop in behaviour.pauses):
            return glyphs.pause
        return glyphs.up

    return "".join(map(glyph, range(width)))


def load_line(arrivals: Sequence[float], duration: float, width: int, glyphs: Glyphs) -> str:
    """Draw how many requests reached the provider, in proportion to the busiest column."""
    counts = [0] * width
    for time in arrivals:
        if 0 <= time < duration:
            counts[int(time / duration * width)] += 1
    busiest, top = max(counts) or 1, len(glyphs.levels) - 1
    return "".join(glyphs.levels[-(-count * top // busiest)] for count in counts)


def circuit_line(transitions: Sequence[Transition], duration: float, width: int, glyphs: Glyphs) -> str:
    """
    Draw the breaker's state.

    A column shows the rarest thing that happened in it: half-open is over in a moment, and would not be seen.
    """
    spans = [("closed", 0.0)]
    spans += [(change.after, change.time) for change in transitions]
    ends = [start for _, start in spans[1:]] + [float("inf")]

    def glyph(column: int) -> str:
        begin, end = column * duration / width, (column + 1) * duration / width
        states = {state for (state, start), stop in zip(spans, ends, strict=True) if start < end and begin < stop}
        return glyphs.states[next(state for state in ("half_open", "open", "closed") if state in states)]

    return "".join(map(glyph, range(width)))
