"""Where each value came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast, final

from resilience.settings._checks import Path
from resilience.settings._places import Place, child, entry
from resilience.settings._tables import Table
from resilience.settings._types import is_mapping


@final
@dataclass(frozen=True, slots=True)
class Origin:
    """
    Where a value came from.

    Args:
        source: ``"init"`` (arguments, in code), ``"env"``, ``"file"``, ``"profile"`` or ``"default"``.
        name: The environment variable, the file (and its overlay), or the profile. Default: empty, nothing to name.
    """

    source: Literal["init", "env", "file", "profile", "default"]
    name: str = ""

    def __str__(self) -> str:
        return {
            "init": "in code",
            "env": f"environment variable {self.name}",
            "file": f"file {self.name}",
            "profile": f"profile {self.name}",
            "default": "default",
        }[self.source]


INIT = Origin("init")
DEFAULT = Origin("default")


@final
@dataclass(frozen=True, slots=True)
class Difference:
    """
    A setting that differs from what would hold without it.

    Args:
        key: The setting, such as ``"providers.openai.retry.max_attempts"``.
        value: Its value.
        default: What would hold without it: what the defaults say, or what the operation's provider does.
        origin: Where the value came from.
    """

    key: str
    value: object
    default: object
    origin: Origin

    def __str__(self) -> str:
        return f"{self.key} = {plain(self.value)} (default {plain(self.default)}; {self.origin})"


def plain(value: object) -> str:
    """Write None, enums and lists as they are written in environment variables."""
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in cast("list[object]", value)) or "none"
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, float):
        return f"{value:.12g}"
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def written(value: object, path: Path = ()) -> Iterator[tuple[Path, object]]:
    """Walk over every single value that somebody wrote."""
    if isinstance(value, Table):
        for name in type(value).model_fields:
            if name in value.model_fields_set:
                yield from written(getattr(value, name), (*path, name))
    elif is_mapping(value):
        for name, below in value.items():
            yield from written(below, (*path, str(name)))
    else:
        yield path, value


def look_up(value: object, path: Path) -> object:
    """Return what stands at *path*; None if there is nothing."""
    for name in path:
        if is_mapping(value):
            value = entry(value, name)
        else:
            value = getattr(value, name) if isinstance(value, Table) and name in type(value).model_fields else None
    return value


def default_of(settings: Table, path: Path) -> object:
    """Return what holds at *path* if nobody wrote anything; *settings* are the default ones."""
    *above, name = path
    table = look_up(settings, tuple(above))
    if table is None:  # an entry that only exists because somebody wrote it
        place: Place | None = type(settings)
        for key in above:
            place = child(place, key) if place is not None else None
        table = place() if isinstance(place, type) else None
    return look_up(table, (name,))


def is_there(value: object, path: Path) -> bool:
    """Tell whether somebody wrote a value at *path*."""
    for name in path:
        if isinstance(value, Table) and name not in value.model_fields_set:
            return False
        if value is None:
            return False
        value = look_up(value, (name,))
    return True


def operation_and_provider(rest: Path) -> Iterator[Path]:
    """Return *rest*, a path within a provider's settings, and for one of an operation that of its provider."""
    yield rest
    if rest[:1] == ("operations",) and len(rest) > 2:  # noqa: PLR2004 - operations, its name, and something in it
        yield rest[2:]


def inherits(path: Path) -> Iterator[Path]:
    """Return where a value may have been written to hold at *path*, the nearest place first. Profiles come between."""
    match path:
        case ("experiments", name, "settings", *within):
            scopes: tuple[Path, ...] = (path[:3], ("providers", name), ("defaults",))
        case ("providers", _, *within):
            scopes = (path[:2], ("defaults",))
        case ("defaults", *within):
            scopes = (("defaults",),)
        case _:
            yield path
            return
    for rest in operation_and_provider(tuple(within)):
        yield from ((*scope, *rest) for scope in scopes)
