"""``resilience check``: find out whether a settings file is any good."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resilience.cli.doubts import doubts
from resilience.cli.options import AsJson
from resilience.cli.screen import listed, say, table, tell_json
from resilience.cli.show import jsonable
from resilience.errors import ConfigurationError
from resilience.settings import Settings
from resilience.settings._origins import plain


def check(
    file: Annotated[Path, typer.Argument(help="A .toml, .yaml, .yml or .json file.")],
    *,
    environment: Annotated[
        str, typer.Option("--environment", "-e", help="Lay this overlay of the file over the rest.")
    ] = "",
    json: AsJson = False,
) -> int:
    """
    Check a settings file.

    Every problem is told with its key, value, place and the likely slip; if there is one, the exit code is 1. If
    there is none, warnings name what has no effect, and a table shows what differs from the defaults. Environment
    variables play no part: the file stands for itself, with every overlay in it.
    """
    try:
        settings = Settings.from_environment({}, file=file, environment=environment or None)
    except ConfigurationError as error:
        return _refused(file, _problems(error), json=json)
    warnings, differences = doubts(settings), settings.differences()
    if json:
        listed = [
            {"key": one.key, "value": jsonable(one.value), "default": jsonable(one.default), "origin": str(one.origin)}
            for one in differences
        ]
        tell_json({"file": str(file), "valid": True, "problems": [], "warnings": warnings, "differences": listed})
        return 0
    laid = f" with the overlay {environment}" if environment else ""
    say(f"{file}{laid} is valid", "bold green")
    for warning in warnings:
        say(f"warning: {warning}", "yellow")
    if differences:
        rows = [(one.key, plain(one.value), plain(one.default), str(one.origin)) for one in differences]
        table(("key", "value", "default", "origin"), rows, ("cyan", "bold", "", "dim"))
    else:
        say("nothing differs from the defaults")
    return 0


def _refused(file: Path, problems: list[str], *, json: bool) -> int:
    if json:
        tell_json({"file": str(file), "valid": False, "problems": problems, "warnings": [], "differences": []})
        return 1
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    say(f"{file} is refused: {count}", "bold red")
    listed(problems)
    return 1


def _problems(error: ConfigurationError) -> list[str]:
    """Return the single problems in what was refused."""
    head, *listed = str(error).split("\n  - ")
    return listed or [head.partition(" refused: ")[2] or head]
