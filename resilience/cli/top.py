"""``resilience top``: a live view of every provider of running processes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.live import Live

from resilience.cli import drawing, options
from resilience.cli.ask import NoAnswer, address, providers
from resilience.cli.board import Board
from resilience.cli.screen import align, complain, console, tell_json
from resilience.settings import Settings

_TIMEOUT: Final = 2.0
_GLIMPSE: Final = 1.0
_NO_ANSWER: Final = 3


def top(
    *,
    url: options.Urls = None,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one table and end; as always in a pipe.")] = False,
    json: options.AsJson = False,
) -> int:
    """
    Watch every provider of running processes.

    The most troubled come first. Calls, retries and rejections are counted per second; so --once and --json look
    twice, a second apart. Processes that go away are waited for. End it with Ctrl-C. With --once: exit code 3 if a
    process does not answer.
    """
    board = Board.of(list(dict.fromkeys(url or [address(Settings.from_environment().health)])))
    screen = console()
    if once or json or not screen.is_terminal:
        look(board)
        if any(not process.problem for process in board.processes.values()):
            time.sleep(min(interval, _GLIMPSE))
            look(board)
        return _tell(board, screen, json=json)
    return watch(board, screen, interval)


def look(board: Board, *, now: Callable[[], float] = time.time) -> None:
    """Ask every process on *board*, all at the same time."""

    def ask(url: str) -> None:
        process = board.processes[url]
        try:
            process.answered(providers(url, _TIMEOUT))
        except NoAnswer as problem:
            process.silent(str(problem), now())

    with ThreadPoolExecutor(len(board.processes)) as threads:
        list(threads.map(ask, board.processes))


def watch(board: Board, screen: Console, interval: float, *, pause: Callable[[float], None] = time.sleep) -> int:
    """Draw *board* until somebody presses Ctrl-C."""
    try:
        with Live(console=screen, screen=True, auto_refresh=False) as live:
            while True:
                look(board)
                width, height = screen.size
                live.update(drawing.draw(board, width=width, height=height, now=time.time()), refresh=True)
                pause(interval)
    except KeyboardInterrupt:
        return 0  # the usual way to leave


def _tell(board: Board, screen: Console, *, json: bool) -> int:
    now = time.time()
    lost = [process for process in board.processes.values() if process.problem]
    if json:
        tell_json(
            {
                "time": now,
                "processes": [
                    {"url": one.url, "pid": one.pid, "status": one.status or None, "problem": one.problem or None}
                    for one in board.processes.values()
                ],
                "providers": [asdict(row) for row in board.rows()],
            }
        )
    elif screen.is_terminal:
        screen.print(drawing.draw(board, width=screen.width, height=sys.maxsize, now=now))
    elif len(lost) < len(board.processes):
        align(list(drawing.lines(board, now=now)))
    for process in lost:
        complain(process.problem)
    return _NO_ANSWER if lost else 0
