"""``resilience show`` and ``resilience schema``: which settings hold, where each came from, and which there are."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterator, Mapping
from typing import Annotated, cast

import typer

from resilience.cli import options
from resilience.cli.screen import say, table, tell_json, write
from resilience.settings import Origin, Settings
from resilience.settings._origins import plain, written
from resilience.settings._places import entry
from resilience.settings._tables import Table
from resilience.settings._types import likely


def show(
    provider: Annotated[
        str,
        typer.Argument(
            help="Whose settings. Default: the general ones.",
            callback=options.named,
            autocompletion=options.provider_names,
        ),
    ] = "",
    *,
    file: options.File = None,
    environment: options.Environment = None,
    changed: Annotated[bool, typer.Option("--changed", help="Leave out what holds by default.")] = False,
    json: options.AsJson = False,
) -> None:
    """
    Show the settings in force, and where each came from.

    They are those that a process started here and now would have: of the environment variables, the file and the
    defaults. Without a provider: the general ones, and what single providers do differently. With one: all of its.
    """
    settings = Settings.from_environment(file=file, environment=environment)
    if provider and entry(settings.providers, provider) is None:
        meant = likely(provider, settings.providers)
        say(f"{provider} has no settings of its own; these hold for every provider{meant}", "yellow", error=True)
    found = [
        (key, value, origin)
        for key, value in (of_provider(settings, provider) if provider else _general(settings))
        if (origin := settings.origin(key)).source != "default" or not changed
    ]
    if json:
        tell_json([{"key": key, "value": jsonable(value), "origin": _origin(origin)} for key, value, origin in found])
    else:
        rows = [(key, plain(value), str(origin)) for key, value, origin in found]
        table(("key", "value", "origin"), rows, ("cyan", "bold", "dim"))


def schema(*, output: options.Output = None) -> None:
    """
    Print the JSON Schema of a settings file.

    For editors, which check and complete a file that names it under "$schema".
    """
    write(json_format.dumps(Settings.json_schema(), indent=2) + "\n", output)


def of_provider(settings: Settings, name: str) -> Iterator[tuple[str, object]]:
    """Yield every setting that holds for the provider *name*."""
    yield from _leaves(settings.for_provider(name), f"providers.{name}")


def jsonable(value: object) -> object:
    """Return *value* as JSON can hold it; anything special as its text, which never tells a secret."""
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in cast("list[object]", value)]
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in cast("Mapping[object, object]", value).items()}
    return value if value is None or isinstance(value, bool | int | float | str) else plain(value)


def _general(settings: Settings) -> Iterator[tuple[str, object]]:
    """Yield what holds in general, and what is written about single providers."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Mapping):
            yield from ((".".join(path), leaf) for path, leaf in written(cast("object", value), (name,)))
        else:
            yield from _leaves(value, name)


def _leaves(value: object, at: str) -> Iterator[tuple[str, object]]:
    """Yield every single value in a table; of an entry for an operation only what is written in it."""
    if isinstance(value, Table):
        for name in type(value).model_fields:
            yield from _leaves(getattr(value, name), f"{at}.{name}")
    elif isinstance(value, Mapping):
        for key, below in cast("Mapping[object, object]", value).items():
            yield from ((".".join(path), leaf) for path, leaf in written(below, (at, str(key))))
    else:
        yield at, value


def _origin(origin: Origin) -> dict[str, str]:
    return {"source": origin.source, "name": origin.name, "text": str(origin)}
