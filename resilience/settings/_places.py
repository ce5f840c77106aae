"""Where in the tree of settings a key can stand, and what an unknown key was probably meant to be."""

from __future__ import annotations

import collections.abc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType
from typing import TypeAlias, TypeVar, get_args, get_origin

from resilience.failure import FailureKind
from resilience.settings._checks import Path
from resilience.settings._tables import Table
from resilience.settings._types import nearest

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
    "max_retries": "max_attempts",
    "retries": "max_attempts",
    "attempts": "max_attempts",
    "backoff": "base_delay",
    "initial_delay": "base_delay",
    "multiplier": "exponential_base",
    "circuit_breaker": "breaker",
    "recovery_timeout": "timeout",
    "reset_timeout": "timeout",
    "open_for": "timeout",
    "timeouts": "timeout",
    "min_calls": "minimum_calls",
}
_RETRIES = ("max_retries", "retries")


@cache
def fields(table: type[Table]) -> Mapping[str, Place]:
    """Return what can stand in *table*."""
    return {name: _place(field.annotation) for name, field in table.model_fields.items()}


def _place(annotation: object) -> Place:
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


def readings(place: Place, parts: Path) -> Iterator[Path]:
    """
    Read a dotted key, split into *parts*, as the path to a single setting.

    There may be several ways to read it, as names that users choose may hold dots themselves.
    """
    if not parts:
        yield from [()] if isinstance(place, Leaf) else ()
        return
    for end in range(1, len(parts) + 1 if isinstance(place, Entries) else 2):
        name = ".".join(parts[:end])
        below = child(place, name)
        if below is not None:
            yield from ((name, *rest) for rest in readings(below, parts[end:]))


def unknown(place: Place, key: str) -> str:
    """Say that *key* means nothing in *place*, and what it was probably meant to be."""
    if isinstance(place, Leaf):
        return "unknown setting: what it stands under is a single value"
    if isinstance(place, Entries):
        return f"{key!r} is no failure kind{nearest(key, FailureKind)}"
    here = fields(place)
    meant = _SLIPS.get(key, key)
    deeper = [f"{name}.{meant}" for name, below in here.items() if isinstance(below, type) and meant in fields(below)]
    if meant in here or deeper:
        note = " It counts the first attempt too: n retries are n + 1 attempts" if key in _RETRIES else ""
        return f"unknown setting; did you mean {(meant if meant in here else deeper[0])!r}?{note}"
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


def may_be_empty(place: Place) -> bool:
    """
    Tell whether nothing at all may stand for a table, as YAML writes an entry that says nothing yet.

    For a single policy nothing could also mean: no such policy, no limit. Then it is refused.
    """
    return isinstance(place, Entries) or (isinstance(place, type) and not _means_something(place))


def _means_something(table: type[Table]) -> bool:
    return all(
        isinstance(below, Leaf) or (isinstance(below, Entries) and below.kinds) for below in fields(table).values()
    )


def no_table(place: Place, value: object) -> str:
    """Say that *place* is a table of settings, and how to say what None could have meant."""
    if value is not None or not isinstance(place, type):
        return "must be a table of settings"
    if "enabled" in fields(place):
        return "must be a table of settings; to switch it off, write enabled = false in it"
    nullable = [f"{name} = none" for name, below in fields(place).items() if isinstance(below, Leaf) and below.nullable]
    return "must be a table of settings" + (f"; for no limit, write {' and '.join(nullable)} in it" if nullable else "")


def folded(name: str) -> str:
    """Spell a name as an environment variable can: lower case, with underscores for dots and dashes."""
    return name.lower().replace("-", "_").replace(".", "_")


def entry(entries: Mapping[str, V], name: str) -> V | None:
    """Find *name*, or its spelling in environment variables: an entry ``my_api`` serves ``my-api`` too."""
    found = entries.get(name)
    return found if found is not None or not entries else entries.get(folded(name))


def spelled(entries: Mapping[str, object], name: str) -> str | None:
    """Return how the entry that `entry` finds is spelled; None if there is none."""
    return next((each for each in (name, folded(name)) if each in entries), None)
