"""``resilience bench``: the benchmark, which only a checkout holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

import resilience
from resilience.cli.plugins import DISTRIBUTION
from resilience.cli.screen import complain

_MISSING: Final = 2


def bench(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="What the benchmark is told, behind two dashes: -- --quick")
    ] = None,
) -> int:
    """
    Measure what a call costs, beside other libraries.

    It takes a checkout and what `nox -s bench` installs, which is the easier way. The exit code is the benchmark's.
    """
    folder = _checkout()
    if folder is None:
        complain("the benchmark is no part of the installed package: run it in a checkout, best by `nox -s bench`")
        return _MISSING
    command = [sys.executable, "-m", "benchmarks", *(arguments or [])]
    return subprocess.run(command, cwd=folder, check=False).returncode  # noqa: S603 - this very interpreter


def _checkout() -> Path | None:
    """Return the checkout that we are in, or that we were imported from."""
    here = Path.cwd()
    return next(
        (
            folder
            for folder in (here, *here.parents, Path(resilience.__path__[0]).parent)
            if (folder / "benchmarks" / "__main__.py").is_file() and _is_ours(folder / "pyproject.toml")
        ),
        None,
    )


def _is_ours(project: Path) -> bool:
    try:
        return f'name = "{DISTRIBUTION}"' in project.read_text(encoding="utf-8")
    except OSError:
        return False
