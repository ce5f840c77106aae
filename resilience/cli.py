"""
The `resilience` command, also ``python -m resilience``.

Subcommands plug in through the entry-point group ``resilience.commands``. Each entry point names a `Command`: a
function that is given an argument parser to fill and returns the function to run.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import resilience

_GROUP: Final = "resilience.commands"
_DISTRIBUTION: Final = "resilient-providers"
_INTERRUPTED: Final = 130
_PIPE_CLOSED: Final = 141

Run: TypeAlias = Callable[[argparse.Namespace], int]
"""Runs a subcommand with its parsed arguments and returns the exit code."""


class Command(Protocol):
    """What an entry point of the group ``resilience.commands`` must name."""

    def __call__(self, parser: argparse.ArgumentParser, /) -> Run:
        """Add the arguments to *parser*, set its description, and return what runs the command."""
        ...


class _Unusable(Exception):
    """A subcommand that cannot be loaded; the text says why, and what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a subcommand.

    Args:
        arguments: What stands behind the command's name. Default: those of this process.

    Returns:
        The exit code: that of the subcommand, or 2 if the command line is wrong.
    """
    commands = {entry.name: entry for entry in metadata.entry_points(group=_GROUP)}
    parser = _parser(commands)
    options = parser.parse_args(arguments)
    if not options.command:
        parser.print_help()
        return 0
    if options.command not in commands:
        parser.error(_unknown(options.command, commands))
    try:
        return _run(commands[options.command], options.arguments)
    except _Unusable as problem:
        parser.error(str(problem))
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left; there is nobody to tell, and nothing may be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED


def _parser(commands: dict[str, metadata.EntryPoint]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resilience",
        description="Resilience for calls to other people's services.",
        epilog=f"commands: {', '.join(sorted(commands)) or 'none are installed'}",
    )
    parser.add_argument("--version", action="version", version=f"{_DISTRIBUTION} {_version()}")
    parser.add_argument("command", nargs="?", help="what to do; `resilience COMMAND --help` tells more")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _version() -> str:
    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _unknown(name: str, commands: dict[str, metadata.EntryPoint]) -> str:
    if not commands:
        return f"no commands are installed; is {_DISTRIBUTION} itself? Try: pip install {_DISTRIBUTION}"
    likely = difflib.get_close_matches(name, commands, n=1)
    hint = f" Did you mean {likely[0]!r}?" if likely else ""
    return f"there is no command {name!r}.{hint} There is: {', '.join(sorted(commands))}"


def _run(entry: metadata.EntryPoint, arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog=f"resilience {entry.name}")
    run = _load(entry)(parser)
    return run(parser.parse_args(arguments))


def _load(entry: metadata.EntryPoint) -> Command:
    if hidden := _hidden(entry):
        raise _Unusable(hidden)
    try:
        command: Command = entry.load()
    except (ImportError, AttributeError) as error:
        raise _Unusable(f"the command {entry.name!r} ({entry.value}) cannot be loaded: {error}") from error
    return command


def _hidden(entry: metadata.EntryPoint) -> str | None:
    """Tell if somebody else's package stands where ours is expected: ``providers`` is a common name."""
    if entry.dist is None or entry.dist.name != _DISTRIBUTION:
        return None
    package = entry.module.partition(".")[0]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.origin:
        return None
    found, ours = Path(spec.origin).resolve().parent, Path(resilience.__path__[0]).resolve().with_name(package)
    if found == ours:
        return None
    return (
        f"another package named {package!r}, in {found}, hides the one of {_DISTRIBUTION} in {ours}. "
        f"Rename yours, or start from a folder that does not hold it: `python -P -m resilience` "
        "leaves the current folder out"
    )
