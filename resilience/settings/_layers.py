"""
Which tables make up what holds for a provider, and in which order.

From the lowest: the built-in defaults, `Settings.defaults`, the provider's own entry, its experiment. A profile lies
right below the table that names it, so whoever names one keeps the last word in the same table, and what is said for
one provider (its profile included) wins over what is said for all. Only one profile holds: the one that was named
nearest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, TypeVar, final

from resilience.settings._checks import Path
from resilience.settings._models import ProviderSettings
from resilience.settings._origins import DEFAULT, INIT, Origin, default_of, is_there, look_up, operation_and_provider
from resilience.settings._places import spelled
from resilience.settings._profiles import profile
from resilience.settings._tables import merged

if TYPE_CHECKING:
    from resilience.settings._root import Settings

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True)
class Layer:
    """One *table*, and where it was written; a profile has an *origin* for all of it instead."""

    table: ProviderSettings
    path: Path = ()
    origin: Origin | None = None


def layers(settings: Settings, scope: Path) -> list[Layer]:
    """
    Return the tables that hold for *scope*, the nearest first.

    *scope* is the path to a `ProviderSettings`, whether there is one or not: ``("defaults",)``,
    ``("providers", name)`` or ``("experiments", name, "settings")``.
    """
    found: list[Layer] = []
    named = False
    for path, table in _written(settings, scope):
        found.append(Layer(table, path))
        if not named and "profile" in table.model_fields_set:
            named = True
            if table.profile is not None:
                found.append(Layer(profile(table.profile).settings, origin=Origin("profile", table.profile)))
    return found


def _written(settings: Settings, scope: Path) -> Iterator[tuple[Path, ProviderSettings]]:
    if scope[0] == "experiments" and (name := spelled(settings.experiments, scope[1])) is not None:
        yield ("experiments", name, "settings"), settings.experiments[name].settings
    if scope[0] != "defaults" and (name := spelled(settings.providers, scope[1])) is not None:
        yield ("providers", name), settings.providers[name]
    yield ("defaults",), settings.defaults


def laid(settings: Settings, scope: Path) -> ProviderSettings:
    """Return what comes out when the tables that hold for *scope* are laid over one another."""
    return reduce(merged, (layer.table for layer in reversed(layers(settings, scope))))


def scope_of(path: Path) -> tuple[Path, Path]:
    """Part *path* into the scope it lies in, empty if none, and the rest."""
    length = {"defaults": 1, "providers": 2}.get(path[0], 0)
    length = 3 if path[0] == "experiments" and path[2:3] == ("settings",) else length
    return path[:length], path[length:]


def origin(settings: Settings, path: Path) -> Origin:
    """Return where the value that is in force at *path* came from."""
    return next((found for _, found in _standing(settings, path)), DEFAULT)


def inherited(settings: Settings, path: Path) -> object:
    """Return what would hold at *path* if nobody had written there."""
    standing = (value for value, _ in _standing(settings, path, below=path))
    return next(standing, default_of(type(settings)(), _last(path)))


def _last(path: Path) -> Path:
    """Return the place whose built-in default holds at *path*."""
    scope, rest = scope_of(path)
    return ("defaults", *list(operation_and_provider(rest))[-1]) if scope else path


def _standing(settings: Settings, path: Path, *, below: Path = ()) -> Iterator[tuple[object, Origin]]:
    """Find every value that somebody wrote for *path*, the nearest first, without what stands at *below* itself."""
    scope, rest = scope_of(path)
    if not scope:
        if path != below and is_there(settings, path):
            yield look_up(settings, path), settings._origins.get(path, INIT)
        return
    tables = layers(settings, scope)
    for way in operation_and_provider(rest):
        for layer in tables:
            place = (*layer.path, *way)
            if is_there(layer.table, way) and place != below:
                yield look_up(layer.table, way), layer.origin or settings._origins.get(place, INIT)
