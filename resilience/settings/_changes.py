"""What is in force, and what differs between two trees of settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, final

from resilience.settings._checks import Path
from resilience.settings._layers import laid, layers, origin
from resilience.settings._models import OperationSettings, ProviderSettings, RetryRule, with_operation
from resilience.settings._origins import Origin, plain, written
from resilience.settings._places import entry
from resilience.settings._tables import Table
from resilience.settings._types import is_mapping

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from resilience.settings._root import Settings

MASK: Final = "**********"

# What a process does once, when it starts, it does not do again because a setting has changed.
_AT_START: Final = (
    *("health.host", "health.port", "metrics.aliases", "metrics.directory", "metrics.interval"),
    *("logging.format", "logging.level"),
)


@final
@dataclass(frozen=True, slots=True)
class Change:
    """
    A setting that has another value than before. Secrets are masked.

    Args:
        key: The setting, such as ``"providers.openai.retry.max_attempts"``.
        before: Its value before.
        after: Its value now.
    """

    key: str
    before: object
    after: object

    def __str__(self) -> str:
        later = " (when the process starts anew)" if self.key in _AT_START else ""
        return f"{self.key}: {plain(self.before)} -> {plain(self.after)}{later}"


@final
class Effective(NamedTuple):
    """A *value* that is in force at *key*, and where it came from. Secrets are masked."""

    key: str
    value: object
    origin: Origin

    def __str__(self) -> str:
        return f"{self.key} = {plain(self.value)} ({self.origin})"


@final
@dataclass(frozen=True, slots=True)
class _Names:
    """The entries that are looked at, whether a tree has them or not."""

    providers: Iterable[str]
    experiments: Iterable[str]
    operations: Mapping[str, Iterable[Path]]  # what was written for one, by provider


def changes(before: Settings, after: Settings) -> tuple[Change, ...]:
    """
    Return every setting that holds another value in *after* than in *before*, by its key.

    What counts is what is in force: a value that moves from an entry to the defaults is no change, and one in the
    defaults is a change of every entry that inherits it. Entries that only one of them has are compared with what
    holds, in the other, for a provider without one.
    """
    names = _names(before, after)
    old, new = _leaves(before, names), _leaves(after, names)
    found = ((path, _at(path, old), _at(path, new)) for path in dict.fromkeys((*old, *new)))
    return tuple(Change(".".join(path), _shown(was), _shown(is_)) for path, was, is_ in found if was != is_)


def effective(settings: Settings, provider: str | None) -> list[Effective]:
    """Return every value that is in force, or those for one *provider*, and where it came from."""
    if provider is None:
        found = _leaves(settings, _names(settings))
    else:
        scope = ("providers", provider)
        found = dict(_of_scope(settings, scope, _special([settings], scope)))
    return [Effective(".".join(path), _shown(value), origin(settings, path)) for path, value in found.items()]


def _names(*trees: Settings) -> _Names:
    """Return the names of all entries in *trees*."""
    providers = list(dict.fromkeys(name for tree in trees for name in tree.providers))
    experiments = list(dict.fromkeys(name for tree in trees for name in tree.experiments))
    scopes = {"": ("defaults",), **{name: ("experiments", name, "settings") for name in (*providers, *experiments)}}
    operations = {name: _special(trees, scope) for name, scope in scopes.items()}
    return _Names(providers, experiments, operations)


def _special(trees: Iterable[Settings], scope: Path) -> list[Path]:
    """Return what was written for operations in *scope*, as paths from their names."""
    tables = [layer.table.operations for tree in trees for layer in layers(tree, scope)]
    return list(dict.fromkeys(path for table in tables for path, _ in written(table)))


def _leaves(settings: Settings, names: _Names) -> dict[Path, object]:
    """Return every single value of *settings* that is in force."""
    found: dict[Path, object] = {}
    for key in type(settings).model_fields:
        match key:
            case "defaults":
                found |= _of_scope(settings, (key,), names.operations[""])
            case "providers":
                for name in names.providers:
                    found |= _of_scope(settings, (key, name), names.operations[name])
            case "experiments":
                for name in names.experiments:
                    experiment = entry(settings.experiments, name)
                    found[key, name, "share"] = experiment.share if experiment is not None else 0.0
                    found |= _of_scope(settings, (key, name, "settings"), names.operations[name])
            case _:
                found |= walked(getattr(settings, key), (key,))
    return found


def _at(path: Path, leaves: Mapping[Path, object]) -> object:
    """Return what stands at *path*; where there is no rule for a kind of failure, that is what an empty one says."""
    return leaves[path] if path in leaves else getattr(RetryRule(), path[-1], None) if "per_kind" in path else None


def _of_scope(settings: Settings, scope: Path, special: Iterable[Path]) -> Iterator[tuple[Path, object]]:
    """Find what is in force for *scope*, and what is *special* about its operations."""
    found = laid(settings, scope)
    for key in ProviderSettings.model_fields:
        if key != "operations":
            yield from walked(getattr(found, key), (*scope, key))
    for name, *rest in special:
        own = entry(found.operations, name) or OperationSettings()
        inside = {("idempotent",): own.idempotent, **dict(walked(with_operation(found, own), ()))}
        yield (*scope, "operations", name, *rest), _at(tuple(rest), inside)


def walked(value: object, path: Path, field: FieldInfo | None = None) -> Iterator[tuple[Path, object]]:
    """Walk over every single value in a table; what a field keeps secret comes as a secret."""
    if isinstance(value, Table):
        for name, below in type(value).model_fields.items():
            yield from walked(getattr(value, name), (*path, name), below)
    elif is_mapping(value) and value:
        for name, below in value.items():
            yield from walked(below, (*path, str(name)), field)
    elif not is_mapping(value):
        marks: object = field.json_schema_extra if field is not None else None
        yield path, _secret(value) if is_mapping(marks) and marks.get("writeOnly") else value


def _secret(value: object) -> object:
    from pydantic import SecretStr

    return SecretStr(str(value))


def _shown(value: object) -> object:
    # By what it can do: importing the types takes as long as all the rest of the settings.
    return MASK if hasattr(value, "get_secret_value") else value
