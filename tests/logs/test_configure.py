"""`resilience.logging.configure`: formats, outputs, refusals, and a thread that never holds anybody up."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from datetime import datetime
from pathlib import Path

import pytest

from resilience.errors import ConfigurationError, Reason
from resilience.events import AttemptFailed, CallFailed, RetryScheduled, process_bus
from resilience.failure import Category, Failure, FailureKind
from resilience.logging import configure, correlation_id, output

SERVER_ERROR = Failure(kind=FailureKind.SERVER_ERROR, category=Category.RETRIABLE, error_type="httpx.HTTPStatusError")
RETRY = RetryScheduled(
    provider="s3", operation="upload", time=0, failure=SERVER_ERROR, attempt=2, max_attempts=3, delay=0.84
)
RETRY_LINE = "[RETRY] attempt 2/3 of upload to s3 in 0.84 s (server_error)"


def lost(text: str) -> CallFailed:
    """A call that gave up, as its `except` clause would tell it."""
    try:
        raise OSError(text)
    except OSError as error:
        return CallFailed(
            provider="s3",
            operation="upload",
            time=0,
            failure=SERVER_ERROR,
            attempts=3,
            duration=4.2,
            reason=Reason.ATTEMPTS_SPENT,
            error=error,
        )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_json_is_one_object_per_line() -> None:
    """JSON lines hold time (UTC), level, logger, message and the fields that say something; numbers stay numbers."""
    stream = io.StringIO()
    log = configure("json", output=stream)
    token = correlation_id.set("req-7")
    process_bus.emit(RETRY)
    correlation_id.reset(token)
    process_bus.emit(lost("first\nsecond"))
    log.close()
    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert datetime.fromisoformat(first.pop("time")).utcoffset() is not None
    assert first == {
        "level": "INFO",
        "logger": "resilience.retry",
        "message": RETRY_LINE,
        "component": "retry",
        "provider": "s3",
        "operation": "upload",
        "attempt": 2,
        "delay": 0.84,
        "kind": "server_error",
        "correlation_id": "req-7",
    }
    assert second["message"] == "[FAILED] upload to s3 after 3 attempts in 4.20 s (server_error, attempts spent)"
    assert second["traceback"].startswith("Traceback (most recent call last):")
    assert second["traceback"].endswith("OSError: first\nsecond")
    assert "raise OSError(text)" in second["traceback"]


def test_json_survives_infinity() -> None:
    """A number that JSON does not know is left out, so that every line parses."""
    stream = io.StringIO()
    log = configure("json", output=stream)
    logging.getLogger("resilience.gate").warning("closed", extra={"provider": "s3", "delay": float("inf")})
    log.close()
    line = json.loads(stream.getvalue(), parse_constant=pytest.fail)
    assert (line["provider"], "delay" in line) == ("s3", False)


def test_console_line() -> None:
    """A console line tells when, how bad and what, and who asked if that is known."""
    stream = io.StringIO()
    log = configure(output=stream)
    process_bus.emit(RETRY)
    token = correlation_id.set("req-7")
    process_bus.emit(RETRY)
    correlation_id.reset(token)
    log.close()
    first, second = [line.partition(" ") for line in stream.getvalue().splitlines()]
    assert datetime.fromisoformat(first[0]).utcoffset() is not None
    assert first[2] == f"INFO     {RETRY_LINE}"
    assert second[2] == f"INFO     {RETRY_LINE} correlation_id=req-7"


def test_console_shows_the_traceback_once() -> None:
    """A call that gave up is one line and one traceback."""
    stream = io.StringIO()
    log = configure(output=stream)
    process_bus.emit(lost("bucket is gone"))
    log.close()
    assert stream.getvalue().count("Traceback") == 1
    assert stream.getvalue().endswith("OSError: bucket is gone\n")


@pytest.mark.parametrize("format_", ["json", "console"])
def test_tracebacks_can_be_left_out(format_: str) -> None:
    """``tracebacks=False`` keeps the text of errors out of the output altogether."""
    stream = io.StringIO()
    log = configure(format_, output=stream, tracebacks=False)  # type: ignore[arg-type]
    process_bus.emit(lost("token=hunter2"))
    log.close()
    assert "[FAILED] upload to s3" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()
    assert "Traceback" not in stream.getvalue()


def test_a_provider_cannot_write_to_the_terminal() -> None:
    """Escape sequences and line breaks in foreign text are shown, not executed."""
    stream = io.StringIO()
    log = configure(output=stream)
    process_bus.emit(lost("\x1b[2Jgone\r\x9b"))
    logging.getLogger("resilience.call").warning("a\nb\x07")
    log.close()
    text = stream.getvalue()
    assert "OSError: \\x1b[2Jgone\\x0d\\x9b" in text
    assert "a\\nb\\x07\n" in text
    assert not set(text) & {"\x1b", "\r", "\x07", "\x9b"}


def coloured(stream: io.StringIO) -> bool:
    log = configure(output=stream)
    process_bus.emit(RETRY)
    log.close()
    return "\x1b[32mINFO    \x1b[0m" in stream.getvalue()


def test_colour_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are coloured on a terminal, and plain in a pipe, with ``NO_COLOR`` and on a dumb terminal."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert coloured(Terminal())
    assert not coloured(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not coloured(Terminal())


def test_level() -> None:
    """Lines below the level are not written; the level's name may be in lower case."""
    stream = io.StringIO()
    log = configure(level="warning", output=stream)
    process_bus.emit(RETRY)
    process_bus.emit(lost("gone"))
    log.close()
    assert "[RETRY]" not in stream.getvalue()
    assert "[FAILED]" in stream.getvalue()


def test_debug_tells_each_attempt() -> None:
    """DEBUG, also as a number, adds the lines of single attempts."""
    stream = io.StringIO()
    log = configure(level=logging.DEBUG, output=stream)
    process_bus.emit(AttemptFailed(provider="s3", time=0, failure=SERVER_ERROR, attempt=1, duration=0.1))
    log.close()
    assert "[ATTEMPT] attempt 1 of a call to s3 failed after 0.10 s (server_error)" in stream.getvalue()


def test_stderr_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Without an output the lines go to stderr, and stderr stays open."""
    log = configure()
    process_bus.emit(RETRY)
    log.close()
    print("still open", file=sys.stderr)  # noqa: T201 - that is what is asked
    captured = capsys.readouterr()
    assert RETRY_LINE in captured.err
    assert captured.err.endswith("still open\n")
    assert captured.out == ""


def test_file_is_appended_to_and_closed(tmp_path: Path) -> None:
    """A path is opened in UTF-8 and appended to; closing closes it (an open file would be an error here)."""
    path = tmp_path / "calls.log"
    path.write_text("before\n", encoding="utf-8")
    for name in (path, str(path)):
        log = configure(output=name)
        logging.getLogger("resilience.call").info("café")
        log.close()
    before, first, second = path.read_text(encoding="utf-8").splitlines()
    assert before == "before"
    assert first.endswith("INFO     café")
    assert second.endswith("INFO     café")


def test_file_may_be_rotated(tmp_path: Path) -> None:
    """A file that was moved away is opened anew, so that log rotation needs no signal."""
    path = tmp_path / "calls.log"
    log = configure(output=path)
    process_bus.emit(RETRY)
    log.close()
    log = configure(output=path)
    path.rename(tmp_path / "calls.log.1")
    process_bus.emit(lost("gone"))
    log.close()
    assert "[RETRY]" in (tmp_path / "calls.log.1").read_text()
    assert "[FAILED]" in path.read_text()


def test_configuring_again_replaces() -> None:
    """A second output takes the place of the first, which has written everything it was given."""
    one, two = io.StringIO(), io.StringIO()
    configure(output=one)
    process_bus.emit(RETRY)
    log = configure(output=two)
    process_bus.emit(lost("gone"))
    log.close()
    assert "[RETRY]" in one.getvalue()
    assert "[FAILED]" not in one.getvalue()
    assert "[FAILED]" in two.getvalue()
    assert "[RETRY]" not in two.getvalue()


def test_a_refused_configuration_changes_nothing(tmp_path: Path) -> None:
    """A slip in a second configuration leaves the first one working, and makes no file."""
    stream = io.StringIO()
    log = configure(output=stream)
    with pytest.raises(ConfigurationError):
        configure(level="LOUD", output=tmp_path / "calls.log")
    process_bus.emit(RETRY)
    log.close()
    assert not list(tmp_path.iterdir())
    assert RETRY_LINE in stream.getvalue()


def test_closing_twice_is_harmless(caplog: pytest.LogCaptureFixture) -> None:
    """Closing ends the output and gives the lines back to the application's own handlers; twice is as good as once."""
    stream = io.StringIO()
    log = configure(output=stream)
    process_bus.emit(RETRY)
    assert not caplog.records  # not written twice meanwhile
    log.close()
    log.close()
    process_bus.emit(lost("gone"))
    assert "[FAILED]" not in stream.getvalue()
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_record_on_its_way_while_closing_is_dropped(tmp_path: Path) -> None:
    """A thread that still holds a closed output does not open its file again."""
    log = configure(output=tmp_path / "calls.log")
    log.close()
    log.handle(logging.LogRecord("resilience", logging.INFO, "", 0, "late", None, None))
    assert log._listener is None
    assert (tmp_path / "calls.log").read_text() == ""


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"format": "jsno"}, "format='jsno' is not a log format, use 'json' or 'console': did you mean 'json'?"),
        ({"format": None}, "format=None is not a log format, use 'json' or 'console'"),
        ({"level": "WARN1NG"}, "level='WARN1NG' is not a log level, use one of DEBUG, .*: did you mean 'WARNING'?"),
        ({"level": True}, "level=True is not a log level"),
        ({"level": -1}, "level=-1 is not a log level"),
        ({"level": None}, "level=None is not a log level"),
        ({"output": "stderr"}, "output='stderr' would be a file of that name: pass sys.stderr"),
        ({"output": io.BytesIO()}, "takes bytes, but logs are text: open it with mode 'a'"),
        ({"output": 3}, "output=3 is neither an open text stream nor the path of a file"),
        ({"output": "/no/such/folder/x.log"}, "there is no folder '/no/such/folder', create it first"),
        ({"output": "/"}, "output='/' cannot be opened"),
    ],
)
def test_refusals_name_the_slip(arguments: dict[str, object], text: str) -> None:
    """A wrong argument is refused at once, with what was passed and what was probably meant."""
    with pytest.raises(ConfigurationError, match=text):
        configure(**arguments)  # type: ignore[arg-type]


class Stuck(io.StringIO):
    """An output that takes its time: it writes when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.asked = threading.Event()

    def write(self, text: str, /) -> int:
        self.asked.set()
        assert self.go.wait(60)
        return super().write(text)


def test_a_stuck_output_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the output is stuck, logging returns; what does not fit is dropped and counted."""
    monkeypatch.setattr(output, "_MAX_WAITING", 100)
    stream = Stuck()
    log = configure(output=stream)
    process_bus.emit(RETRY)
    assert stream.asked.wait(60)  # the writer is inside write() now
    for _ in range(250):
        process_bus.emit(RETRY)
    stream.go.set()
    log.close()
    written = stream.getvalue().splitlines()
    assert len(written) == 1 + 100 + 1
    assert written[-1].endswith("WARNING  150 log lines were dropped: the output is too slow")


def test_dropped_lines_are_told_where_they_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the output keeps up again, the number of dropped lines stands before the next line."""
    monkeypatch.setattr(output, "_MAX_WAITING", 1)
    stream = Stuck()
    log = configure(output=stream)
    process_bus.emit(RETRY)
    assert stream.asked.wait(60)
    process_bus.emit(RETRY)
    process_bus.emit(RETRY)  # one too many
    monkeypatch.setattr(output, "_MAX_WAITING", 100)
    process_bus.emit(lost("gone"))
    stream.go.set()
    log.close()
    words = [line.split()[2] for line in stream.getvalue().splitlines() if line[:2] == "20"]
    assert words == ["[RETRY]", "[RETRY]", "1", "[FAILED]"]


def test_tracebacks_are_written_by_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source lines of a traceback are read by the thread that writes, not by the one that logs."""
    readers: list[str] = []
    real = output.TracebackException.format

    def format_(self: object, **options: object) -> object:
        readers.append(threading.current_thread().name)
        return real(self, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(output.TracebackException, "format", format_)
    log = configure(output=io.StringIO())
    process_bus.emit(lost("gone"))
    log.close()
    assert readers
    assert threading.current_thread().name not in readers


def test_no_frame_is_kept_alive() -> None:
    """A line that waits to be written holds neither the error nor the frames of its traceback."""
    stream = Stuck()
    log = configure(output=stream)
    process_bus.emit(RETRY)
    assert stream.asked.wait(60)
    process_bus.emit(event := lost("gone"))
    waiting = log._waiting.get_nowait()
    log._waiting.put(waiting)
    stream.go.set()
    log.close()
    assert waiting.exc_info is None
    assert waiting.args is None
    assert event.error not in vars(waiting).values()


def test_without_a_thread_it_writes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the interpreter ends no thread can be started: the line is written nevertheless."""

    def start(self: output.QueueListener) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(output.QueueListener, "start", start)
    stream = io.StringIO()
    log = configure(output=stream)
    process_bus.emit(RETRY)
    assert RETRY_LINE in stream.getvalue()
    log.close()
