"""How `resilience top` looks: in colours and as wide as the terminal, or in plain lines."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from resilience.cli.ask import label
from resilience.cli.board import Board, Process, Row

_STATUS: Final = {"pass": "green", "warn": "yellow", "fail": "bold red"}
_STATE: Final = {"closed": "green", "open": "bold red", "forced_open": "bold red", "disabled": "dim"}
_SHORT: Final = {"half_open": "half-open", "forced_open": "forced"}
_NARROW: Final = 100
_LONG_NAME: Final = 40
_SHORT_NAME: Final = 14
_NOTHING: Final = "-"
_PRECISE: Final = 100
_THOUSANDS: Final = 10_000


@final
@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    width: int
    right: bool = True


_STATE_COLUMN: Final = _Column("STATE", 9, right=False)
_FIGURES: Final = (
    _Column("CALLS/S", 7),
    _Column("P50", 5),
    _Column("P99", 5),
    _Column("RETRY/S", 7),
    _Column("REJ/S", 5),
    _Column("BUDGET", 6),
)


def draw(board: Board, *, width: int, height: int, now: float) -> RenderableType:
    """
    Draw *board*: who is asked, every provider with the worst on top, and what is wrong with whom.

    Args:
        board: What is known.
        width: How many columns there are.
        height: How many lines there are.
        now: Seconds since the Unix epoch.
    """
    rows = board.rows()
    several = len(board.processes) > 1
    heads = [_head(process, now) for process in board.processes.values()]
    room = max(1, height - len(heads) - 3)
    shown = rows[:room]
    parts: list[RenderableType] = [*heads, _table(shown, width=width, several=several, now=now)]
    if len(rows) > len(shown):
        parts.append(Text(f"and {len(rows) - len(shown)} more, less troubled", "dim"))
    wrong = [row for row in rows if row.status != "pass" and row.reason][: max(0, room - len(shown))]
    if wrong:
        parts += [Text(), *(_sentence(row, several=several) for row in wrong)]
    return Group(*parts)


def lines(board: Board, *, now: float) -> Iterator[Sequence[str]]:
    """Yield the same as rows of texts, for a pipe: nothing is left out to make room."""
    yield ("PROCESS", "PROVIDER", "STATUS", "STATE", *(column.title for column in _FIGURES), "LAST", "REASON")
    for row in board.rows():
        last = _last(row, now, wide=True) or _NOTHING
        yield (label(row.url), row.provider, row.status, row.state, *_figures(row), last, row.reason)


def head(process: Process, now: float) -> str:
    """Say in one line how *process* is."""
    name = label(process.url)
    if process.problem:
        since = f" since {clock(process.lost)} ({age(now - process.lost)})" if process.lost is not None else ""
        return f"{name}  no answer{since}: {process.problem.removeprefix(f'{name} does not answer: ')}"
    if process.document is None:
        return f"{name}  not asked yet"
    found = process.rows()
    worst = ", ".join(
        f"{count} {status}"
        for status in ("fail", "warn", "pass")
        if (count := sum(row.status == status for row in found))
    )
    many = "1 provider" if len(found) == 1 else f"{len(found)} providers"
    return f"{name}  pid {process.pid}  {clock(process.document.get('time', now))}  {many}: {worst or 'none yet'}"


def clock(seconds: float) -> str:
    """Return a moment as people read it from the wall."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def age(seconds: float) -> str:
    """Return how long something is past, short."""
    seconds = max(0.0, seconds)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _head(process: Process, now: float) -> Text:
    style = "bold red" if process.problem else _STATUS.get(process.status, "dim")
    return Text.assemble(("● ", style), head(process, now), no_wrap=True, overflow="ellipsis")


def _table(rows: Sequence[Row], *, width: int, several: bool, now: float) -> Table:
    narrow = width < _NARROW
    table = Table(box=None, padding=(0, 1, 0, 0), expand=True, header_style="reverse", pad_edge=False)
    longest = max((len(row.provider) for row in rows), default=_SHORT_NAME)
    table.add_column("PROVIDER", width=_SHORT_NAME if narrow else min(_LONG_NAME, max(_SHORT_NAME, longest)))
    if several:
        table.add_column("AT", width=6 if narrow else max(len(label(row.url)) for row in rows) if rows else 6)
    figures = [column for column in _FIGURES if not (narrow and several and column.title == "P50")]
    for column in (_STATE_COLUMN, *figures):
        table.add_column(column.title, width=column.width, justify="right" if column.right else "left")
    table.add_column("LAST", ratio=1)
    for column_ in table.columns:
        column_.no_wrap, column_.overflow = True, "ellipsis"
    for row in rows:
        shown = zip(_FIGURES, _figures(row), strict=True)
        cells = [Text(row.provider, _STATUS.get(row.status, ""))]
        cells += [Text(_port(row.url) if narrow else label(row.url), "dim")] if several else []
        cells += [Text(_SHORT.get(row.state, row.state), _STATE.get(row.state, "yellow"))]
        cells += [Text(text, _emphasis(column.title, row)) for column, text in shown if column in figures]
        table.add_row(*cells, Text(_last(row, now, wide=not narrow)), style="" if row.fresh else "dim")
    return table


def _port(url: str) -> str:
    """Return the end of an address, which tells processes of one machine apart."""
    name = label(url)
    return f":{name.rpartition(':')[2]}" if ":" in name else name


def _emphasis(title: str, row: Row) -> str:
    if (title == "REJ/S" and row.rejected) or (title == "BUDGET" and row.budget is not None and row.budget < 1):
        return "bold red"
    return "yellow" if title == "RETRY/S" and row.retries else ""


def _figures(row: Row) -> tuple[str, ...]:
    return (
        _rate(row.calls),
        _duration(row.p50),
        _duration(row.p99),
        _rate(row.retries),
        _rate(row.rejected),
        _NOTHING if row.budget is None else f"{row.budget:.0f}",
    )


def _last(row: Row, now: float, *, wide: bool) -> str:
    return f"{row.last}, {age(now - row.last_at)} ago" if wide and row.last and row.last_at is not None else row.last


def _sentence(row: Row, *, several: bool) -> Text:
    since = f" (since {clock(row.since)})" if row.since is not None else ""
    where = f" at {label(row.url)}" if several else ""
    return Text.assemble(
        (f"{row.provider}{where} ", _STATUS.get(row.status, "")), f"{row.reason}{since}", overflow="fold"
    )


def _rate(value: float | None) -> str:
    if value is None:
        return _NOTHING
    if value >= _THOUSANDS:
        return f"{value / 1000:.0f}k"
    return f"{value:.1f}" if value < _PRECISE else f"{value:.0f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return _NOTHING
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    return f"{seconds:.1f}s" if seconds < _PRECISE else f"{seconds:.0f}s"
