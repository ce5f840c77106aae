"""Where in the tree of settings a key can stand, and what an unknown key was probably meant to be."""

from __future__ import annotations

import collections.abc
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType
from typing import Annotated, TypeAlias, TypeVar, get_args, get_origin

from resilience.failure import FailureKind
from resilience.settings._checks import Path
from resilience.settings._tables import Table
from resilience.settings._types import is_mapping, nearest

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A single value; *nullable*: "none" is one of its values."""

    nullable: bool


@dataclass(frozen=True, slots=True)
class Entries:
    """A table whose keys are names that users choose (of providers, of operations), or failure kinds."""

    item: Place
    kinds: bool


Place: TypeAlias = "type[Table] | Entries | Leaf"

# Names that other libraries, or other services of the same users, have for our settings.
_SLIPS = {
    "max_retries": "max_attempts counts the first attempt too: n retries are max_attempts = n + 1",
    "retries": "max_attempts counts the first attempt too: n retries are max_attempts = n + 1",
    "attempts": "did you mean 'max_attempts'?",
    "backoff": "did you mean 'base_delay'?",
    "initial_delay": "did you mean 'base_delay'?",
    "multiplier": "did you mean 'exponential_base'?",
    "circuit_breaker": "did you mean 'breaker'?",
    "recovery_timeout": "did you mean 'timeout'?",
    "reset_timeout": "did you mean 'timeout'?",
    "open_for": "did you mean 'timeout'?",
    "timeouts": "did you mean 'timeout'?",
    "min_calls": "did you mean 'minimum_calls'?",
}


@cache
def fields(table: type[Table]) -> Mapping[str, Place]:
    """Return what can stand in *table*."""
    return {name: _place(field.annotation) for name, field in table.model_fields.items()}


def _place(annotation: object) -> Place:
    if get_origin(annotation) is Annotated:
        return _place(get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return annotation
    if get_origin(annotation) is collections.abc.Mapping:
        key, item = get_args(annotation)
        return Entries(_place(item), kinds=get_args(key)[:1] == (FailureKind,))
    return Leaf(nullable=NoneType in get_args(annotation))


def child(place: Place, key: str) -> Place | None:
    """Return what *key* is in *place*, or None if it can be nothing there."""
    if isinstance(place, Entries):
        return place.item if key and (not place.kinds or key.lower() in _KINDS) else None
    return None if isinstance(place, Leaf) else fields(place).get(key)


_KINDS = frozenset(FailureKind)


def resolve(place: Place, parts: Path, known: object = None) -> Path | None:
    """
    Read a dotted key, split into *parts*: names that users choose may hold dots themselves.

    *known* is what really stands there: among several ways to read a key, one that leads to it is preferred.
    """
    if not parts:
        return () if isinstance(place, Leaf) else None
    readings: list[tuple[str, Path, object]] = []
    for end in range(1, len(parts) + 1 if isinstance(place, Entries) else 2):
        name = ".".join(parts[:end])
        below = child(place, name)
        there = _there(known, name)
        rest = None if below is None else resolve(below, parts[end:], there)
        if rest is not None:
            readings.append((name, rest, there))
    readings.sort(key=lambda reading: reading[2] is None)
    return next(((name, *rest) for name, rest, _ in readings), None)


def _there(known: object, name: str) -> object:
    return entry(known, name) if is_mapping(known) else getattr(known, name, None)


def unknown(place: Place, key: str) -> str:
    """Say that *key* means nothing in *place*, and what it was probably meant to be."""
    if isinstance(place, Leaf):
        return "unknown setting: what it stands under is a single value"
    if isinstance(place, Entries):
        return f"{key!r} is no failure kind{nearest(key, FailureKind)}"
    here = fields(place)
    deeper = [name for name, below in here.items() if isinstance(below, type) and key in fields(below)]
    if deeper:
        return f"unknown setting; did you mean '{deeper[0]}.{key}'?"
    if key in _SLIPS and any(f"'{name}'" in _SLIPS[key] or f"{name} " in _SLIPS[key] for name in here):
        return f"unknown setting; {_SLIPS[key]}"
    return f"unknown setting{nearest(key, here)}"


def unknown_in(place: Place, parts: Path) -> str:
    """Say why the key with these *parts* is no setting."""
    for key in parts:
        below = child(place, key)
        if below is None:
            return unknown(place, key)
        place = below
    return "not a single setting but a table of them" + (
        f": {', '.join(fields(place))}" if isinstance(place, type) else ""
    )


def folded(name: str) -> str:
    """Spell a name as an environment variable can: lower case, with underscores for dots and dashes."""
    return name.lower().replace("-", "_").replace(".", "_")


def entry(entries: Mapping[str, V], name: str) -> V | None:
    """Find *name*, or its spelling in environment variables: an entry ``my_api`` serves ``my-api`` too."""
    found = entries.get(name)
    return found if found is not None or not entries else entries.get(folded(name))
