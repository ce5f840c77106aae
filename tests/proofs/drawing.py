"""Draws what the dashboard's panels show as SVG, about as Grafana would."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from stage import Series

from resilience.monitoring.panels import Kind, Panel

WIDTH, HEIGHT, GAP = 560, 270, 16
LEFT, TOP, BOTTOM, LEGEND = 62, 34, 24, 62
COLOURS = ("#3274d9", "#e0b400", "#56a64b", "#e02f44", "#8f3bb8", "#ff780a", "#1f9ea8", "#b877d9")
STATES = {
    "closed": "#56a64b", "disabled": "#3274d9", "half_open": "#e0b400", "open": "#e02f44", "forced_open": "#8f3bb8",
    "pass": "#56a64b", "warn": "#e0b400", "fail": "#e02f44",
}  # fmt: skip
INK, FAINT, BAND = "#24292e", "#d8d9da", "#fdecea"
MOST_LEGENDS = 6


@dataclass(frozen=True)
class Line:
    """One series, and what it is called."""

    name: str
    points: Sequence[tuple[float, float]]

    @classmethod
    def of(cls, series: Series, legend: str) -> Line:
        """A series, called as the panel's legend has it."""
        for key, value in series.labels.items():
            legend = legend.replace(f"{{{{{key}}}}}", value)
        name = " ".join(word for word in legend.split() if "{{" not in word)
        return cls(name or "value", [point for point in series.points if math.isfinite(point[1])])

    @property
    def highest(self) -> float:
        return max((value for _, value in self.points), default=0.0)


@dataclass(frozen=True)
class Scene:
    """From when until when, in seconds, and when things were bad."""

    start: float
    end: float
    trouble: tuple[float, float]


def picture(scene: Scene, columns: int, panels: Sequence[tuple[Panel, Sequence[Line]]]) -> str:
    """Several panels side by side."""
    rows = math.ceil(len(panels) / columns)
    width = columns * (WIDTH + GAP) + GAP
    height = rows * (HEIGHT + GAP) + GAP
    body = "".join(
        f'<g transform="translate({GAP + index % columns * (WIDTH + GAP)},{GAP + index // columns * (HEIGHT + GAP)})">'
        f"{''.join(_panel(scene, panel, lines))}</g>\n"
        for index, (panel, lines) in enumerate(panels)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="Inter, Helvetica, Arial, sans-serif" font-size="12" fill="{INK}">\n'
        f'<rect width="{width}" height="{height}" fill="#f4f5f5"/>\n{body}</svg>\n'
    )


def _panel(scene: Scene, panel: Panel, lines: Sequence[Line]) -> Iterator[str]:
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" rx="3" fill="#fff" stroke="{FAINT}"/>'
    yield _text(12, 21, panel.title, 'font-weight="600" font-size="13"')
    across = _scale(scene.start, scene.end, LEFT, WIDTH - 14)
    begin, end = map(across, scene.trouble)
    yield f'<rect x="{begin:.1f}" y="{TOP}" width="{end - begin:.1f}" height="{_floor() - TOP}" fill="{BAND}"/>'
    for at in range(0, int(scene.end) + 1, 10):
        if scene.start <= at < scene.end - 1:
            yield _text(across(at), _floor() + 15, f"{at} s", f'text-anchor="middle" font-size="10" fill="{INK}99"')
    yield from (_states if panel.kind is Kind.STATES else _lines)(panel, lines, across)


def _floor() -> float:
    return HEIGHT - BOTTOM - LEGEND


def _lines(panel: Panel, lines: Sequence[Line], across: Callable[[float], float]) -> Iterator[str]:
    busiest = sorted(lines, key=lambda line: line.highest, reverse=True)
    top = _round(busiest[0].highest if busiest else 1.0)
    up = _scale(0.0, top, _floor(), TOP + 6)
    for step in range(5):
        value = top * step / 4
        yield f'<path d="M{LEFT} {up(value):.1f}H{WIDTH - 14}" stroke="{FAINT}" stroke-width=".7"/>'
        yield _text(LEFT - 6, up(value) + 4, _written(value, panel.unit), 'text-anchor="end" font-size="10"')
    for index, line in reversed(list(enumerate(busiest))):
        path = "".join(f"{'L' if number else 'M'}{across(at):.1f} {up(value):.1f}" for number, (at, value)
                       in enumerate(line.points))  # fmt: skip
        colour = COLOURS[index % len(COLOURS)]
        yield f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6" stroke-linejoin="round"/>'
    names = [line.name for line in busiest]
    more = [f"and {len(names) - MOST_LEGENDS} more"] if len(names) > MOST_LEGENDS else []
    yield from _legend([*zip(names[:MOST_LEGENDS], COLOURS, strict=False), *((name, "none") for name in more)])


def _states(panel: Panel, lines: Sequence[Line], across: Callable[[float], float]) -> Iterator[str]:
    names = {code: str(name) for name, code in panel.codes}
    height = (_floor() - TOP - 4) / max(1, len(lines))
    seen: dict[str, str] = {}
    for index, line in enumerate(sorted(lines, key=lambda line: line.name)):
        y = TOP + 4 + index * height
        yield _text(LEFT - 6, y + height / 2 + 4, line.name, 'text-anchor="end" font-size="10"')
        for (at, code), (then, _) in zip(line.points, line.points[1:], strict=False):
            state = names[int(code)]
            seen[state.replace("_", " ")] = STATES[state]
            width = across(then) - across(at) + 0.5
            yield (f'<rect x="{across(at):.1f}" y="{y:.1f}" width="{width:.1f}" height="{height * 0.8:.1f}" '
                   f'fill="{STATES[state]}"/>')  # fmt: skip
    yield from _legend(list(seen.items()))


def _legend(entries: Sequence[tuple[str, str]]) -> Iterator[str]:
    x, y = 12.0, _floor() + 34
    for name, colour in entries:
        width = 24 + 6.5 * len(name)
        if x + width > WIDTH:
            x, y = 12.0, y + 16
        yield f'<rect x="{x}" y="{y - 8}" width="10" height="4" fill="{colour}"/>'
        yield _text(x + 14, y, name, 'font-size="11"')
        x += width


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _round(value: float) -> float:
    """The next number above that is easy to divide by four."""
    if value <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(value))
    return next(size * step for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if size * step >= value * 0.999)


def _written(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value * 100:g} %"
    if unit == "s" and 0 < value < 1:
        return f"{value * 1000:g} ms"
    return f"{value:g}{ {'s': ' s', 'reqps': ' /s'}.get(unit, '') }"
