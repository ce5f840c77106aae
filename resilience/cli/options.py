"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from resilience.settings import Settings
from resilience.settings._types import no_provider

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Output: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Write to this file. Default: to stdout, as with -.", dir_okay=False, allow_dash=True
    ),
]
File: TypeAlias = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="The settings file. Default: the one that RESILIENCE_CONFIG names, if any."),
]
Environment: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--environment",
        "-e",
        help="Which overlay of the file to lay over the rest. Default: what RESILIENCE_ENV names.",
    ),
]

Url: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--url",
        "-u",
        help="The health address of a process, such as http://127.0.0.1:8080. "
        "Default: health.host, health.port and health.path of the settings.",
    ),
]
Urls: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--url",
        "-u",
        help="The health address of a process, such as http://127.0.0.1:8080; may be repeated. "
        "Default: health.host, health.port and health.path of the settings.",
    ),
]


def named(name: str) -> str:
    """
    Return *name*, which may have an endpoint behind a slash.

    Raises:
        typer.BadParameter: It is no name of a provider.
    """
    if name and (wrong := no_provider(name.partition("/")[0])):
        raise typer.BadParameter(wrong)
    return name


def provider_names() -> list[str]:
    """Return the providers that the settings name, for completion."""
    try:
        return sorted(Settings.from_environment().providers)
    except ValueError:  # refused settings have no names
        return []
