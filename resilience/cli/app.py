"""The command line: `Commands` finds what is asked for, and `run` sees to the exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any, Final, final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from resilience.cli import plugins
from resilience.errors import ConfigurationError

_BAD_NEWS: Final = 1
_INTERRUPTED: Final = 130
_PIPE_CLOSED: Final = 141
_EPILOG: Final = (
    "Exit codes: 0 all is well; 1 the answer is bad news; 2 the command line is wrong, or something is not installed; "
    "3 no running process answers; 130 interrupted; 141 whoever read the output has left."
)


def run(arguments: Sequence[str] | None) -> int:
    """Run a subcommand and return the exit code."""
    try:
        _application().main(args=arguments, prog_name="resilience")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    else:
        code = 0
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_left()
    return code


@final
class Commands(TyperGroup):
    """All subcommands. What is only listed is not imported."""

    # Typer has changed from where it takes its contexts and commands, hence `Any`.
    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return the names, in order."""
        return sorted(plugins.commands())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Return what help and completion need to know about a command."""
        entry = plugins.commands().get(cmd_name)
        return None if entry is None else TyperCommand(cmd_name, help=plugins.summary(entry))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that stands at the beginning of *args*, and what follows."""
        name, *rest = args
        try:
            return name, self._made(plugins.load(plugins.find(name)), name), rest
        except plugins.Unusable as problem:
            if ctx.resilient_parsing:
                return None, None, rest
            return ctx.fail(str(problem))

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what it returns is the exit code."""
        try:
            code = super().invoke(ctx)
        except ConfigurationError as error:  # whatever a command does first is to read the settings
            typer.echo(f"resilience: {error}", err=True)
            code = _BAD_NEWS
        except KeyboardInterrupt:
            code = _INTERRUPTED
        except BrokenPipeError:
            code = _reader_left()
        raise typer.Exit(code or 0)

    def _made(self, command: plugins.Command, name: str) -> Any:
        """Make a command of what an entry point names."""
        if isinstance(command, typer.Typer):
            command.rich_markup_mode = self.rich_markup_mode
            app = command
        else:
            app = typer.Typer(add_completion=False, rich_markup_mode=self.rich_markup_mode)
            app.command(name)(command)
        return get_command(app)


def _application() -> Any:
    """Return everything, drawn with boxes for people and without them for pipes."""
    people = sys.stdout.isatty() and sys.stderr.isatty()
    app = typer.Typer(
        cls=Commands,
        epilog=_EPILOG,
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich" if people else None,
    )
    app.callback()(_callback)
    return get_command(app)


def _tell_version(wanted: bool) -> None:
    if wanted:
        try:
            version = metadata.version(plugins.DISTRIBUTION)
        except metadata.PackageNotFoundError:
            version = "(not installed)"
        typer.echo(f"{plugins.DISTRIBUTION} {version}")
        raise typer.Exit


def _callback(
    ctx: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", help="Tell the version.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """Resilience for calls to other people's services: see what happens, check what is written, run what there is."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def _reader_left() -> int:
    """Whoever read our output has left; there is nobody to tell, and nothing may be flushed at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _PIPE_CLOSED
