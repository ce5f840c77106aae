"""
The `resilience` command, also ``python -m resilience``.

Subcommands plug in through the entry-point group ``resilience.commands``. Each entry point names a function, from
whose signature Typer makes the arguments, or a ``typer.Typer`` with commands of its own. What the function returns is
the exit code; None is 0. It takes the extra ``cli``; without it the command says so.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]

_MISSING = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a subcommand.

    Args:
        arguments: What stands behind the command's name. Default: those of this process.

    Returns:
        The exit code: 0 all is well, 1 the answer is bad news, 2 the command line is wrong or something is not
        installed, 3 no running process answers, 130 interrupted, 141 whoever read the output has left.
    """
    try:
        from resilience.cli.app import run
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.stderr.write("resilience: the command needs typer and rich: pip install 'resilient-providers[cli]'\n")
        return _MISSING
    return run(arguments)
