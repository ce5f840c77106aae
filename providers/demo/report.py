"""The demo's results as text, side by side, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, cast, final

from providers.demo.figures import Figures
from providers.demo.scenario import Scenario
from providers.demo.timeline import ASCII, UNICODE, Glyphs, circuit_line, load_line, provider_line
from resilience import ProviderSettings

_LABEL: Final = 38
_COLUMN: Final = 14
_PICTURE: Final = 60
_TITLES: Final = ("unprotected", "protected")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One pass as it is reported: its figures, and when each request reached the provider."""

    figures: Figures
    arrivals: Sequence[float]


def as_json(scenario: Scenario, settings: ProviderSettings, unprotected: Pass, protected: Pass) -> str:
    """Return everything as one JSON document."""
    document = {
        "scenario": asdict(scenario),
        "settings": dict(changed(settings)),
        "unprotected": asdict(unprotected.figures),
        "protected": asdict(protected.figures),
        "promises_kept": unprotected.figures.promises_kept and protected.figures.promises_kept,
    }
    return json.dumps(document, indent=2)


def as_text(scenario: Scenario, unprotected: Pass, protected: Pass, *, unicode: bool) -> str:
    """Return the comparison, the picture and the transitions."""
    parts = [
        _table(unprotected, protected),
        _picture(scenario, unprotected, protected, UNICODE if unicode else ASCII),
        _transitions(protected.figures),
        _verdict(unprotected.figures, protected.figures),
    ]
    return "\n\n".join(parts)


def changed(settings: ProviderSettings) -> Iterator[tuple[str, object]]:
    """Yield each setting that differs from its default, as a dotted name and its value."""
    defaults = _defaults()
    yield from ((name, value) for name, value in _flat("", settings.model_dump()) if value != defaults[name])


def introduction(scenario: Scenario, settings: ProviderSettings) -> str:
    """Say what is going to happen, to whom, and under which settings."""
    behaviour = scenario.behaviour
    outages = ", ".join(f"{begin:g} s to {end:g} s" for begin, end in behaviour.outages)
    pauses = ", ".join(f"{begin:g} s to {end:g} s" for begin, end in behaviour.pauses)
    where = f"to an HTTP server on loopback (seed {behaviour.seed})"
    slow = f"{behaviour.tail:.1%} take {behaviour.tail_factor:g} times as long"
    lines = [
        f"{scenario.files} files in {scenario.duration:g} s, twice, {where}:",
        f"  answers in {behaviour.latency * 1000:g} ms (median), {slow}",
        f"  {behaviour.errors:.1%} answered with status 500, {behaviour.resets:.1%} connections reset",
        f"  down from {outages}; status 429 with Retry-After from {pauses}",
        "settings that differ from the defaults:",
    ]
    defaults = _defaults()
    lines += [f"  {name} = {value} (default: {defaults[name]})" for name, value in changed(settings)] or ["  none"]
    return "\n".join(lines)


def _defaults() -> dict[str, object]:
    return dict(_flat("", ProviderSettings().model_dump()))


def _flat(prefix: str, tree: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}{name}.", cast("dict[str, object]", value))
        else:
            yield f"{prefix}{name}", value


def _table(unprotected: Pass, protected: Pass) -> str:
    lines = [f"{'':{_LABEL}}{_TITLES[0]:>{_COLUMN}}{_TITLES[1]:>{_COLUMN}}"]
    rows = zip(_rows(unprotected.figures), _rows(protected.figures), strict=True)
    lines += [f"{label:{_LABEL}}{left:>{_COLUMN}}{right:>{_COLUMN}}" for (label, left), (_, right) in rows]
    return "\n".join(lines)


def _rows(figures: Figures) -> list[tuple[str, str]]:
    return [
        ("files stored", f"{figures.success_rate:.1%}"),
        ("  of those that came outside the outage", f"{figures.success_rate_outside:.1%}"),
        ("given up after an error", str(sum(figures.errors.values()))),
        ("reported as stored, but missing", str(figures.missing)),
        ("stored, but not what was sent", str(figures.corrupted)),
        ("requests that reached the provider", str(figures.requests)),
        ("  during the outage", str(figures.requests_in_outage)),
        ("refused instead, to come back later", str(figures.refusals)),
        ("retries per file", f"{figures.retries_per_call:.3f}"),
        ("time until stored, p50", _seconds(figures.p50)),
        ("time until stored, p99", _seconds(figures.p99)),
        ("added to calls without trouble", _seconds(figures.added_seconds)),
        ("  compared with the provider's time", "-" if figures.added_share is None else f"{figures.added_share:.2%}"),
        ("end of outage to first success", _seconds(figures.recovery)),
        ("circuit opened without an outage", str(figures.false_opens)),
    ]


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.3g} ms"


def _picture(scenario: Scenario, unprotected: Pass, protected: Pass, glyphs: Glyphs) -> str:
    duration = max([scenario.duration, *unprotected.arrivals, *protected.arrivals]) * 1.001
    rows = [
        ("provider", provider_line(scenario.behaviour, duration, _PICTURE, glyphs)),
        (f"load, {_TITLES[0]}", load_line(unprotected.arrivals, duration, _PICTURE, glyphs)),
        (f"load, {_TITLES[1]}", load_line(protected.arrivals, duration, _PICTURE, glyphs)),
        ("circuit", circuit_line(protected.figures.transitions, duration, _PICTURE, glyphs)),
    ]
    lines = [f"{label:18}{line}" for label, line in rows]
    lines.append(f"{'':18}0 s{f'{duration:.1f} s':>{_PICTURE - 3}}")
    states = glyphs.states
    lines.append(
        f"{'':18}provider: {glyphs.down} down, {glyphs.pause} asks for a pause; "
        f"circuit: {states['open']} open, {states['half_open']} probing"
    )
    return "\n".join(lines)


def _transitions(figures: Figures) -> str:
    lines = [
        f"  {change.time:7.3f} s  {change.before} -> {change.after} ({change.figures})"
        for change in figures.transitions
    ]
    return "\n".join(["the circuit's transitions:", *(lines or ["  none"])])


def _verdict(unprotected: Figures, protected: Figures) -> str:
    if not (unprotected.promises_kept and protected.promises_kept):
        return "BROKEN PROMISE: a file that was reported as stored is missing, or differs from what was sent"
    return "every file that was reported as stored is there, with the checksum of what was sent"
