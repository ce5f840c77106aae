"""How a record looks on the way out: an object for machines, a line for people."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable
from datetime import UTC, datetime
from traceback import TracebackException
from typing import final

from resilience.logging.lines import FIELDS

TRACE = "resilience_trace"
"""The attribute of a record that holds its traceback on the way from the thread that logged to the one that writes."""

# A provider writes part of these texts: an escape sequence in them must not reach somebody's terminal.
_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}
_ONE_LINE = {**_ESCAPED, ord("\n"): "\\n"}

_COLOURS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}


@final
class JsonFormatter(logging.Formatter):
    """One JSON object per line; fields that say nothing are left out."""

    def format(self, record: logging.LogRecord) -> str:
        """Return *record* as one line."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in FIELDS:
            value = getattr(record, name, None)
            # JSON knows no infinity, and a line that does not parse is lost.
            if value is not None and not (isinstance(value, float) and not math.isfinite(value)):
                line[name] = value
        if traceback := _traceback(record):
            line["traceback"] = traceback
        return json.dumps(line, default=str)


@final
class ConsoleFormatter(logging.Formatter):
    """A line for people: when, how bad, what; and the correlation id, if there is one."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return *record* as one line, and the lines of its traceback."""
        level = record.levelname
        shown = f"{level:<8}"
        if self._colour and level in _COLOURS:
            shown = f"\x1b[{_COLOURS[level]}m{shown}\x1b[0m"
        line = f"{_time(record)} {shown} {record.getMessage().translate(_ONE_LINE)}"
        if correlation := getattr(record, "correlation_id", None):
            line += f" correlation_id={str(correlation).translate(_ONE_LINE)}"
        if traceback := _traceback(record):
            line += f"\n{traceback.translate(_ESCAPED)}"
        return line


def wants_colour(stream: object) -> bool:
    """Whether *stream* is a terminal whose user did not ask for plain text."""
    isatty: Callable[[], bool] | None = getattr(stream, "isatty", None)
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return isatty is not None and isatty() and not plain


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(record: logging.LogRecord) -> str:
    trace = getattr(record, TRACE, None)
    return "".join(trace.format()).rstrip("\n") if isinstance(trace, TracebackException) else ""
