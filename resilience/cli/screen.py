"""How a command answers: with colours and tables for people, in plain lines for a pipe, as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text


def console(*, error: bool = False) -> Console:
    """Return what draws on stdout, or on stderr: as a terminal can show it, and without colours in a pipe."""
    return Console(highlight=False, stderr=error)


def say(text: str, style: str = "", *, error: bool = False) -> None:
    """Write a line; it is wrapped by terminals only."""
    out = console(error=error)
    out.print(Text(text, style), soft_wrap=not out.is_terminal)


def complain(text: str) -> None:
    """Write on stderr what keeps a command from doing its work."""
    say(f"resilience: {text}", "red", error=True)


def tell_json(document: object) -> None:
    """Write *document*, and nothing else."""
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = ()) -> None:
    """Write a table: folded to fit for people, each row one line in a pipe."""
    out = console()
    if not out.is_terminal:
        align([[column.upper() for column in columns], *rows])
        return
    drawn = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column, style in zip(columns, [*styles, *[""] * len(columns)], strict=False):
        drawn.add_column(column, style=style, overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    out.print(drawn)


def listed(sentences: Iterable[str]) -> None:
    """Write each of *sentences* a little to the right; what is folded in a terminal stays there."""
    out = console()
    for sentence in sentences:
        if out.is_terminal:
            out.print(Padding(Text(sentence), (0, 0, 0, 2)))
        else:
            say(f"  {sentence}")


def write(text: str, output: Path | None) -> None:
    """
    Write *text* to the file *output*, or to stdout, which ``-`` is as well.

    Raises:
        typer.BadParameter: The file cannot be written.
    """
    if output is None or str(output) == "-":
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{output} cannot be written: {error.strerror}") from error


def align(rows: Sequence[Sequence[str]]) -> None:
    """Write each of *rows* on one line, with its cells below those of the others."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")
