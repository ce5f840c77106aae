"""Subcommands, ours and those of other packages: found by entry point, and loaded only when they run."""

from __future__ import annotations

import ast
import difflib
import importlib.util
from collections.abc import Callable, Mapping
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final, TypeAlias

import typer

import resilience

GROUP: Final = "resilience.commands"
DISTRIBUTION: Final = "resilient-providers"

Command: TypeAlias = Callable[..., int | None] | typer.Typer
"""What an entry point of the group ``resilience.commands`` names."""

_MODULES: Final = {
    "alerts": "monitoring",
    "bench": "bench",
    "check": "check",
    "dashboards": "monitoring",
    "explain": "explain",
    "schema": "show",
    "serve": "serve",
    "show": "show",
    "top": "top",
}
BUILT_IN: Final = {
    name: metadata.EntryPoint(name, f"resilience.cli.{module}:{name}", GROUP) for name, module in _MODULES.items()
}


class Unusable(Exception):
    """A subcommand that cannot be loaded; the text says why, and what to do."""


def commands() -> Mapping[str, metadata.EntryPoint]:
    """Return every subcommand by its name. Nobody can put theirs in place of ours."""
    return {entry.name: entry for entry in metadata.entry_points(group=GROUP)} | BUILT_IN


def find(name: str) -> metadata.EntryPoint:
    """
    Return the subcommand *name*.

    Raises:
        Unusable: There is none; the text names the nearest.
    """
    entry = BUILT_IN.get(name) or commands().get(name)
    if entry is None:
        raise Unusable(_unknown(name, commands()))
    return entry


def load(entry: metadata.EntryPoint) -> Command:
    """
    Import the subcommand *entry*.

    Raises:
        Unusable: That fails, or it is no command.
    """
    if hidden := _hidden(entry):
        raise Unusable(hidden)
    try:
        command: Command = entry.load()
    except Exception as error:  # a broken package of somebody else's may raise anything
        raise Unusable(f"the command {entry.name!r} ({entry.value}) cannot be loaded: {error}") from error
    if not callable(command):
        raise Unusable(f"the command {entry.name!r} ({entry.value}) is no function and no typer.Typer: {command!r}")
    return command


def summary(entry: metadata.EntryPoint) -> str:
    """Return the first sentence of what *entry* says about itself, read from its source: nothing is imported."""
    try:
        tree = ast.parse(_source(entry.module).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return f"({entry.value})"
    named = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == entry.attr)
    text = next((ast.get_docstring(node) for node in named), None) or ast.get_docstring(tree)
    return " ".join((text or "").split("\n\n")[0].split()) or f"({entry.value})"


def _source(module: str) -> Path:
    """Return the file of *module*. Its parents are looked up, not imported."""
    places, name, origin = None, "", module
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, places)
        if spec is None or spec.origin is None:
            raise OSError(module)
        places, origin = spec.submodule_search_locations, spec.origin
    return Path(origin)


def _unknown(name: str, known: Mapping[str, metadata.EntryPoint]) -> str:
    likely = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {likely[0]!r}?" if likely else ""
    if known.keys() <= BUILT_IN.keys():  # `demo` is a plug-in that comes with us
        hint += f" {DISTRIBUTION} itself is not installed, so there are no plug-ins: pip install {DISTRIBUTION}."
    return f"there is no command {name!r}.{hint} There is: {', '.join(sorted(known))}"


def _hidden(entry: metadata.EntryPoint) -> str | None:
    """Tell if somebody else's package stands where ours is expected: ``providers`` is a common name."""
    if entry.dist is None or entry.dist.name != DISTRIBUTION:
        return None
    package = entry.module.partition(".")[0]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.origin:
        return None
    found, ours = Path(spec.origin).resolve().parent, Path(resilience.__path__[0]).resolve().with_name(package)
    if found == ours:
        return None
    return (
        f"another package named {package!r}, in {found}, hides the one of {DISTRIBUTION} in {ours}. "
        f"Rename yours, or start from a folder that does not hold it: `python -P -m resilience` "
        "leaves the current folder out"
    )
