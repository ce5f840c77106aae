"""``resilience serve``: health and metrics over HTTP, of a program or alone."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Annotated, Any, Final

import typer

from resilience.cli import options
from resilience.cli.screen import complain

_MISSING: Final = 2


def serve(
    program: Annotated[
        str, typer.Argument(help="Such as shop.worker:main, an async function without arguments. Default: none.")
    ] = "",
    *,
    host: Annotated[str | None, typer.Option(help="Where to listen. Default: health.host.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="0: any that is free. Default: health.port.")
    ] = None,
    file: options.File = None,
    environment: options.Environment = None,
) -> int:
    """
    Run a program, and tell its health and metrics over HTTP.

    Every provider that it uses is told of. SIGTERM and Ctrl-C end it in good order: no new calls, those under way
    finish, the rest is cancelled. SIGHUP: settings are read anew. The exit code is 1 if that was not to be had, or if
    there is no listening at that address. Logs are written as logging.* of the settings says.
    """
    work = _found(program) if program else None
    # In this process everybody who reads settings shall find the same, those who read them anew as well.
    for name, value in (("RESILIENCE_CONFIG", file), ("RESILIENCE_ENV", environment)):
        if value is not None:
            os.environ[name] = str(value)
    try:
        import uvicorn as uvicorn

        from resilience import serving
    except ImportError as error:
        if error.name != "uvicorn":
            raise
        complain("serving needs an extra: pip install 'resilient-providers[serve]'")
        return _MISSING
    return serving.serve(work=work, host=host, port=port)


def _found(program: str) -> Callable[[], Awaitable[Any]]:
    """
    Return the function that *program* names; it is looked for from the current folder, too.

    Raises:
        typer.BadParameter: There is none.
    """
    module, _, name = program.partition(":")
    if not sys.flags.safe_path and "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = getattr(importlib.import_module(module), name or "main")
    except (ImportError, AttributeError, ValueError) as error:
        raise typer.BadParameter(f"{program} cannot be loaded: {error}") from error
    if not iscoroutinefunction(found):
        raise typer.BadParameter(f"{program} is no async function: {found!r}")
    work: Callable[[], Awaitable[Any]] = found
    return work
