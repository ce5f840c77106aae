"""
The output of `configure`: records are handed to a thread that formats and writes them.

The thread starts with the first record, and ends before a fork: a child inherits no thread, but it would inherit the
locks that a thread holds. Parent and child start their own with their next record.
"""

from __future__ import annotations

import copy
import difflib
import io
import logging
import os
import sys
from collections.abc import Callable
from logging.handlers import QueueHandler, QueueListener, WatchedFileHandler
from pathlib import Path
from queue import SimpleQueue
from traceback import TracebackException
from typing import TextIO, final
from weakref import WeakSet

from resilience.errors import ConfigurationError
from resilience.events import process_bus
from resilience.logging.formats import TRACE, ConsoleFormatter, JsonFormatter, wants_colour
from resilience.logging.lines import DEBUG_EVENTS, log_event

_MAX_WAITING = 10_000
_FORMATS = ("json", "console")

_live: WeakSet[LogOutput] = WeakSet()


@final
class LogOutput(QueueHandler):
    """Where the log lines go, as long as it is not closed."""

    def __init__(self, target: logging.Handler, *, tracebacks: bool) -> None:
        self._waiting: SimpleQueue[logging.LogRecord] = SimpleQueue()
        super().__init__(self._waiting)
        self._target = target
        self._tracebacks = tracebacks
        self._listener: QueueListener | None = None
        self._dropped = 0
        self._restore: tuple[logging.Logger, int, bool] | None = None
        self._unsubscribe: Callable[[], None] = _nothing

    def attach(self, logger: logging.Logger, level: int) -> None:
        """Take over what *logger* says from *level* on."""
        self._restore = (logger, logger.level, logger.propagate)
        if level <= logging.DEBUG:
            self._unsubscribe = process_bus.subscribe(log_event, *DEBUG_EVENTS)
        logger.addHandler(self)
        logger.setLevel(level)
        logger.propagate = False
        _live.add(self)

    def close(self) -> None:
        """Write what is waiting, put the logger back as it was, and close a file; a stream stays open."""
        self.acquire()
        restore, self._restore = self._restore, None
        self.release()
        if restore is not None:
            self._unsubscribe()
            logger, level, propagate = restore
            logger.removeHandler(self)
            logger.setLevel(level)
            logger.propagate = propagate
            _live.discard(self)
            self._finish()
            self._target.close()
        super().close()

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """
        Return a copy of *record* that keeps no argument and no frame alive.

        The source lines of a traceback are read from disk when it is written, by the thread that writes.
        """
        ready = copy.copy(record)
        ready.msg, ready.args = record.getMessage(), None
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and self._tracebacks:
            ready.__dict__[TRACE] = TracebackException.from_exception(error, lookup_lines=False, compact=True)
        ready.exc_info = ready.exc_text = None
        return ready

    def enqueue(self, record: logging.LogRecord) -> None:
        """Hand *record* over to the thread that writes; never waits. The handler's lock is held."""
        if self._restore is None:
            return  # closed while the record was on its way
        if self._waiting.qsize() >= _MAX_WAITING:
            self._dropped += 1
            return
        if self._listener is None and not self._start():
            self._target.handle(record)
            return
        self._tell_dropped()
        self._waiting.put(record)

    def _start(self) -> bool:
        listener = QueueListener(self._waiting, self._target)
        try:
            listener.start()
        except RuntimeError:  # the interpreter is ending and starts no threads any more
            return False
        self._listener = listener
        _finish_with_process(self)
        return True

    def _tell_dropped(self) -> None:
        if self._dropped:
            text = f"{self._dropped} log lines were dropped: the output is too slow"
            self._dropped = 0
            self._waiting.put(logging.LogRecord("resilience", logging.WARNING, __file__, 0, text, None, None))

    def _finish(self) -> None:
        """Wait until everything is written."""
        if self._listener is not None:
            self._tell_dropped()
            self._listener.stop()
            self._listener = None


def _nothing() -> None:
    pass


def open_output(
    format_: str, level: int | str, output: TextIO | str | os.PathLike[str], *, tracebacks: bool
) -> LogOutput:
    """Check what the user wants, and put an output in the place of the former one."""
    if format_ not in _FORMATS:
        raise ConfigurationError(f"format={format_!r} is not a log format, use 'json' or 'console'" + _meant(format_))
    number = _level(level)
    target = _target(output)
    target.setFormatter(JsonFormatter() if format_ == "json" else ConsoleFormatter(colour=wants_colour(target.stream)))
    logger = logging.getLogger("resilience")
    for former in [handler for handler in logger.handlers if isinstance(handler, LogOutput)]:
        former.close()
    opened = LogOutput(target, tracebacks=tracebacks)
    opened.attach(logger, number)
    return opened


def _meant(word: object, known: tuple[str, ...] = _FORMATS) -> str:
    close = difflib.get_close_matches(str(word).lower(), [one.lower() for one in known], n=1)
    return f": did you mean {next(one for one in known if one.lower() == close[0])!r}?" if close else ""


def _level(level: int | str) -> int:
    names = logging.getLevelNamesMapping()
    if isinstance(level, str) and level.upper() in names:
        return names[level.upper()]
    if isinstance(level, int) and not isinstance(level, bool) and level >= 0:
        return level
    known = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    usual = ", ".join(known)
    raise ConfigurationError(f"level={level!r} is not a log level, use one of {usual}" + _meant(level, known))


def _target(output: TextIO | str | os.PathLike[str]) -> logging.StreamHandler[TextIO] | WatchedFileHandler:
    if isinstance(output, (str, os.PathLike)):
        return _file(output)
    if isinstance(output, (io.RawIOBase, io.BufferedIOBase)):
        raise ConfigurationError(f"output={output!r} takes bytes, but logs are text: open it with mode 'a', not 'ab'")
    if not callable(getattr(output, "write", None)):
        raise ConfigurationError(f"output={output!r} is neither an open text stream nor the path of a file")
    return logging.StreamHandler(output)


def _file(path: str | os.PathLike[str]) -> WatchedFileHandler:
    if path in ("stderr", "stdout", "-", ""):
        raise ConfigurationError(f"output={path!r} would be a file of that name: pass sys.stderr or sys.stdout itself")
    try:
        return WatchedFileHandler(path, encoding="utf-8")
    except OSError as error:
        folder = Path(path).parent
        slip = "" if folder.is_dir() else f": there is no folder {str(folder)!r}, create it first"
        raise ConfigurationError(f"output={os.fspath(path)!r} cannot be opened ({error.strerror}){slip}") from error


# -- processes ---------------------------------------------------------------------------------------------------------

_held: list[LogOutput] = []


def _before_fork() -> None:
    for output in list(_live):
        output.acquire()  # so that nobody starts the thread again before the fork
        output._finish()
        _held.append(output)


def _after_in_parent() -> None:
    while _held:
        _held.pop().release()


def _after_in_child() -> None:
    _held.clear()  # logging itself has made the locks of all handlers anew


def _finish_with_process(output: LogOutput) -> None:
    """Write the last lines of a child of multiprocessing too: it ends without the usual exit handlers."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, output._finish, exitpriority=0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
