"""Collect settings from the environment, a file and arguments, and remember where each came from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path as FilePath
from typing import Any, cast, final

from pydantic import ValidationError

from resilience.settings import _environment as environment
from resilience.settings import _files as files
from resilience.settings._checks import Path
from resilience.settings._origins import INIT, Origin
from resilience.settings._places import Entries, Leaf, Place, child, may_be_empty, no_table, unknown
from resilience.settings._refusals import Written, explain, problem, refused
from resilience.settings._root import Settings
from resilience.settings._tables import Table
from resilience.settings._types import no_provider

# Where names of providers stand.
_NAMED = (("providers",), ("experiments",))


@final
class Collection:
    """Values by the setting they are for; the later overrules the earlier."""

    def __init__(self) -> None:
        self.found: dict[Path, Written] = {}
        self.tables: dict[Path, None] = {}
        self.problems: list[str] = []

    def add(self, value: object, origin: Origin, *, place: Place = Settings, path: Path = ()) -> None:
        """Add the tree *value*, table by table."""
        if isinstance(place, Leaf):
            self.found[path] = Written(value, value, origin)
        elif isinstance(value, Table):
            self.add({name: getattr(value, name) for name in value.model_fields_set}, origin, place=place, path=path)
        elif isinstance(value, Mapping) or (value is None and origin.source == "file" and may_be_empty(place)):
            self.tables[path] = None
            for key, below in cast("Mapping[object, object]", value or {}).items():
                self._add_key(key, below, origin, place, path)
        else:
            self.problems.append(problem(path, Written(value, value, origin), no_table(place, value)))

    def _add_key(self, key: object, value: object, origin: Origin, place: Place, path: Path) -> None:
        where = ".".join((*path, str(key)))
        if not isinstance(key, str):
            self.problems.append(f"{where} ({origin}): names are text, so write it in quotes")
            return
        name = key.lower() if isinstance(place, Entries) and place.kinds else str(key)
        below = child(place, name)
        wrong = unknown(place, name) if below is None else no_provider(name) if path in _NAMED else ""
        if below is None or wrong:
            where = ".".join(path) if isinstance(place, Entries) else where  # the text names the entry
            self.problems.append(f"{where} ({origin}): {wrong}")
        else:
            self.add(value, origin, place=below, path=(*path, name))

    def settings(self) -> Settings | None:
        """Make settings of it all; None if there are problems."""
        tree: dict[str, Any] = {}
        for path in self.tables:
            _inside(tree, path)
        for path, written in self.found.items():
            _inside(tree, path[:-1])[path[-1]] = written.value
        try:
            settings = Settings.model_validate(tree)
        except ValidationError as error:
            self.problems += explain(Settings, error, self.found)
            return None
        settings._origins = {path: written.origin for path, written in self.found.items()}
        return settings


def _inside(tree: dict[str, Any], path: Path) -> dict[str, Any]:
    for name in path:
        tree = tree.setdefault(name, {})
    return tree


def collected(
    environ: Mapping[str, str] | None,
    file: str | PathLike[str] | None,
    overlay: str | None,
    init: Mapping[str, Any],
) -> Settings:
    """Make settings of everything that says something about them."""
    everything = Collection()
    variables, everything.problems = environment.ours(os.environ if environ is None else environ)
    _add_file(everything, variables, file, overlay)
    arguments = Collection()
    arguments.add(init, INIT)
    for item in environment.read(variables, [*everything.tables, *arguments.tables]):
        if isinstance(item, str):
            everything.problems.append(item)
        else:
            everything.found[item[0]] = item[1]
    everything.found |= arguments.found
    everything.tables |= arguments.tables
    everything.problems += arguments.problems
    settings = everything.settings()
    if settings is None or everything.problems:
        raise refused("settings", everything.problems)
    return settings


def settings_file(environ: Mapping[str, str] | None = None, file: str | PathLike[str] | None = None) -> FilePath | None:
    """
    Return which file `Settings.from_environment` reads, if any.

    Args:
        environ: The environment variables. Default: those of the process.
        file: The file that it is given. Default: what ``RESILIENCE_CONFIG`` names, if anything.
    """
    named = _named(environment.ours(os.environ if environ is None else environ)[0], file)
    return FilePath(named).expanduser() if named else None


def _named(variables: Mapping[str, str], file: str | PathLike[str] | None) -> str:
    return variables.get(environment.FILE, "").strip() if file is None else os.fspath(file)


def _add_file(
    everything: Collection, variables: Mapping[str, str], file: str | PathLike[str] | None, overlay: str | None
) -> None:
    """Add what the file says, with the overlay that was chosen."""
    named = _named(variables, file)
    chosen = variables.get(environment.OVERLAY, "").strip() if overlay is None else overlay
    document = None
    try:
        if named:
            document = files.read(FilePath(named))
    except files.Unusable as error:
        by = f", named by {environment.FILE}" if file is None else ""
        everything.problems.append(f"file {named}{by}: {error}")
        return
    try:
        if chosen:
            files.check_environment(chosen, document)
    except files.Unusable as error:
        origin = Origin("env", environment.OVERLAY) if overlay is None else INIT
        everything.problems.append(problem(("environment",), Written(chosen, chosen, origin), str(error)))
    if document is not None:
        everything.problems += _problems(document, named)
        _add_document(everything, document, named, chosen)


def _add_document(to: Collection, document: files.Document, name: str, overlay: str | None) -> None:
    to.add(document.base, Origin("file", name))
    if overlay is not None and overlay in document.overlays:
        to.add(document.overlays[overlay], Origin("file", f"{name}, environments.{overlay}"))


def _problems(document: files.Document, name: str) -> list[str]:
    """Check the file with every overlay: what would break production shows on the first developer's machine."""
    problems: list[str] = []
    for overlay in (None, *document.overlays):
        alone = Collection()
        _add_document(alone, document, name, overlay)
        alone.settings()
        problems += alone.problems
    return problems
