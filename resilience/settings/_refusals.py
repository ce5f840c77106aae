"""Say what is wrong with settings: the key, the value, where it came from, and the likely slip."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from resilience.errors import ConfigurationError
from resilience.settings._checks import Contradiction, Path
from resilience.settings._origins import DEFAULT, INIT, Origin, inherits, written
from resilience.settings._places import Entries, Leaf, Place, child, no_table, unknown
from resilience.settings._tables import Table
from resilience.settings._types import YEAR, likely

_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Written:
    """A value that was written: *raw*, as it was read, where, and what people get wrong about it (*note*)."""

    raw: object
    value: object
    origin: Origin
    note: str = ""


def refusal(model: type[Table], error: ValidationError, data: Mapping[str, Any]) -> ConfigurationError:
    """Translate what pydantic found in the arguments *data* into the one error that users see."""
    found = {path: Written(value, value, INIT) for path, value in written(data)}
    return refused(model.__name__, explain(model, error, found))


def refused(what: str, problems: list[str]) -> ConfigurationError:
    """Put all *problems* into one error."""
    lines = list(dict.fromkeys(problems))
    if len(lines) == 1:
        return ConfigurationError(f"{what} refused: {lines[0]}")
    return ConfigurationError(f"{what} refused, {len(lines)} problems:" + "".join(f"\n  - {line}" for line in lines))


def problem(path: Path, value: Written, text: str) -> str:
    """Describe one refused value."""
    note = f"; {value.note}" if value.note else ""
    return f"{'.'.join(path)} = {shown(value.raw)} ({value.origin}): {text}{note}"


def shown(value: object) -> str:
    """Show a value, but never more than somebody needs to recognise it."""
    match value:
        case None:
            return "none"
        case Table():
            return f"{type(value).__name__}(...)"
        case Mapping():
            return "{...}"
        case bool() | float():
            return repr(value)
        case int():
            return repr(value) if value.bit_length() < 2 * _LONGEST else "a huge number"
        case str():
            return repr(str(value)) if len(value) <= _LONGEST else f"{str(value[:_LONGEST])!r}..."
        case _:
            return f"<{type(value).__name__}>"


def explain(model: type[Table], error: ValidationError, found: Mapping[Path, Written]) -> list[str]:
    """Describe everything that pydantic found; *found* says where the values came from."""
    lines: list[str] = []
    for detail in error.errors(include_url=False):
        path = tuple(str(part) for part in detail["loc"])
        if detail["type"] == "contradiction":
            lines += [_contradiction(path, item, found) for item in detail.get("ctx", {})["found"]]
        else:
            lines.append(_one(model, path, dict(detail), found))
    return lines


def _contradiction(at: Path, item: Contradiction, found: Mapping[Path, Written]) -> str:
    path, other = (*at, *item.path), (*at, *item.other)
    here = found.get(path) or Written(item.value, item.value, INIT)
    stood = _standing(other, found)
    origin = stood.origin if stood else INIT if item.other_written else DEFAULT
    value = shown(stood.raw if stood else item.other_value)
    return problem(path, here, f"{item.relation} {'.'.join(other)} = {value} ({origin}): {item.reason}")


def _standing(path: Path, found: Mapping[Path, Written]) -> Written | None:
    """Return what was written for *path*, there, above it or in a profile."""
    from resilience.settings._profiles import from_profile

    for place in inherits(path):
        if place in found:
            return found[place]
        for end in range(len(place)):
            if (named := found.get((*place[:end], "profile"))) and (value := from_profile(named.value, place[end:])):
                return Written(value, value, Origin("profile", str(named.value)))
    return None


def _one(model: type[Table], path: Path, detail: dict[str, Any], found: Mapping[Path, Written]) -> str:
    place: Place | None = model
    for end, name in enumerate(path):
        below = child(place, name) if place is not None else None
        if below is None and (isinstance(place, Leaf) or name == "[key]"):
            path = path[:end]  # an item of a list, or the name of an entry: the setting is what holds it
            break
        if below is None:
            key = path[:end] if isinstance(place, Entries) else path
            return f"{'.'.join(key)} (in code): {unknown(place or model, name)}"
        place = below
    if detail["loc"][-1:] == ("[key]",):
        origin = next((item.origin for at, item in found.items() if at[: len(path)] == path), INIT)
        return f"{'.'.join(path[:-1])} ({origin}): {_expected(detail)}"
    here = found.get(path) or Written(detail["input"], detail["input"], INIT)
    if len(path) < len(detail["loc"]) and not isinstance(here.raw, str):
        here = replace(here, raw=detail["input"])
    text = (
        no_table(place, here.raw)
        if isinstance(place, type)
        else _expected(detail) + _slip(path, here.raw, detail, place)
    )
    return problem(path, here, text)


_LIMITS = {
    "greater_than_equal": ("must be at least", "ge"),
    "greater_than": ("must be more than", "gt"),
    "less_than_equal": ("must be at most", "le"),
    "less_than": ("must be less than", "lt"),
}
_TEXTS = {
    "string_too_short": "must not be empty",
    "finite_number": "must be a finite number",
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be text",
    "mapping": "must be a table of settings",
    "dict": "must be a table of settings",
    "tuple": "must be a list",
}


def _expected(detail: dict[str, Any]) -> str:
    """Say what was expected in place of a value."""
    kind, context = str(detail["type"]), detail.get("ctx", {})
    if kind == "resilience":
        return str(context["text"])
    if kind in _LIMITS:
        text, limit = _LIMITS[kind]
        return f"{text} {'366 days' if context[limit] == YEAR else f'{context[limit]:.12g}'}"
    if kind in ("literal_error", "enum"):
        choices = re.findall(r"'(\w+)'", str(context["expected"]))
        return f"must be one of {', '.join(choices)}" + likely(str(detail["input"]), choices)
    return _TEXTS.get(kind) or _TEXTS.get(kind.split("_", maxsplit=1)[0]) or str(detail["msg"])


def _slip(path: Path, raw: object, detail: dict[str, Any], place: Place | None) -> str:
    """Guess what was meant."""
    kind, context = detail["type"], detail.get("ctx", {})
    nullable = isinstance(place, Leaf) and place.nullable
    if raw is None or (isinstance(raw, str) and raw.strip().lower() == "none"):
        return "; it cannot be none"
    if kind == "less_than_equal" and context["le"] == 1:
        return "; it is a share, not a percentage: 50 % is 0.5"
    if kind == "less_than_equal" and context["le"] == YEAR:
        return "; durations are in seconds, and milliseconds are written 500ms" + (
            "; no limit is none" if nullable else ""
        )
    if kind in ("greater_than", "greater_than_equal") and path[-1] == "max_attempts":
        return "; the first attempt counts, so 1 means no retry"
    if nullable and kind in ("greater_than", "greater_than_equal", "finite_number"):
        return "; write none for no limit" if "timeout" in path[:-1] else "; write none to do without it"
    return ""
