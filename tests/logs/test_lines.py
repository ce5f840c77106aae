"""The text, the level and the fields of each log line."""

from __future__ import annotations

import dataclasses
import logging

import pytest

import resilience.logging
from resilience import events
from resilience._core.states import CircuitState
from resilience.errors import Reason
from resilience.events import (
    AttemptFailed,
    AttemptOverdue,
    AttemptTimedOut,
    CallCoalesced,
    CallFailed,
    CallRecovered,
    CallWasRejected,
    CallWouldBeRejected,
    CircuitChanged,
    ConcurrencyLimitChanged,
    Event,
    FellBack,
    GateClosed,
    HedgeLaunched,
    HedgeWon,
    MemberEjected,
    MemberReturned,
    ProbeLost,
    RateLimitTightened,
    RetryScheduled,
    SettingsRefused,
    SettingsReloaded,
    ShutdownBegan,
    ShutdownEnded,
    process_bus,
)
from resilience.failure import Category, Failure, FailureKind
from resilience.logging import DEBUG_EVENTS, FIELDS, correlation_id, lines
from resilience.settings import Change

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN

SERVER_ERROR = Failure(kind=FailureKind.SERVER_ERROR, category=Category.RETRIABLE, error_type="httpx.HTTPStatusError")
WRONG_KEY = Failure(kind=FailureKind.AUTHENTICATION_ERROR, category=Category.FATAL, error_type="openai.AuthError")
BAD_REQUEST = Failure(kind=FailureKind.BAD_REQUEST, category=Category.INVALID_INPUT, error_type="ValueError")

REFUSED = Failure(kind=FailureKind.REJECTED, category=Category.FATAL, error_type="resilience.errors.CircuitOpen")


def retry(operation: str = "upload") -> RetryScheduled:
    return RetryScheduled(
        provider="s3", operation=operation, time=0, failure=SERVER_ERROR, attempt=2, max_attempts=3, delay=0.8375
    )


def change(before: CircuitState, after: CircuitState, figures: str, reason: str = "in_a_row") -> CircuitChanged:
    return CircuitChanged(
        provider="openai", time=0, before=before, after=after, reason=reason, figures=figures, retry_after=57.5
    )


def ended(*, interrupted: int = 0, unclosed: tuple[str, ...] = ()) -> ShutdownEnded:
    return ShutdownEnded(
        provider="",
        time=0,
        finished=3,
        interrupted=interrupted,
        refused=1,
        abandoned=0,
        closed=2,
        unclosed=unclosed,
        seconds=2.14,
    )


def reloaded(count: int) -> SettingsReloaded:
    changes = tuple(Change(f"providers.p{number}.retry.max_attempts", 3, 5) for number in range(count))
    return SettingsReloaded(provider="", time=0, source="app.toml", changes=changes)


def failed(failure: Failure, reason: Reason, error: BaseException | None = None, attempts: int = 3) -> CallFailed:
    return CallFailed(
        provider="s3",
        operation="upload",
        time=0,
        failure=failure,
        attempts=attempts,
        duration=4.2149,
        reason=reason,
        error=error or OSError("token=hunter2"),
    )


CASES: list[tuple[Event, str, str]] = [
    (retry(), "INFO", "[RETRY] attempt 2/3 of upload to s3 in 0.84 s (server_error)"),
    (
        dataclasses.replace(retry(), variant="b"),
        "INFO",
        "[RETRY] attempt 2/3 of upload to s3 (b) in 0.84 s (server_error)",
    ),
    (
        dataclasses.replace(change(CLOSED, OPEN, "5 failures in a row"), variant="b"),
        "WARNING",
        "[CIRCUIT] openai (b): closed -> open (5 failures in a row)",
    ),
    (retry(""), "INFO", "[RETRY] attempt 2/3 of a call to s3 in 0.84 s (server_error)"),
    (
        change(CLOSED, OPEN, "5 failures in a row"),
        "WARNING",
        "[CIRCUIT] openai: closed -> open (5 failures in a row)",
    ),
    (
        change(HALF_OPEN, OPEN, "a probe failed (timeout)"),
        "WARNING",
        "[CIRCUIT] openai: half_open -> open (a probe failed (timeout))",
    ),
    (change(OPEN, HALF_OPEN, "open time is over"), "INFO", "[CIRCUIT] openai: open -> half_open (open time is over)"),
    (change(HALF_OPEN, CLOSED, "", "probes_ok"), "INFO", "[CIRCUIT] openai: half_open -> closed (probes ok)"),
    (
        change(CLOSED, CircuitState.FORCED_OPEN, "by hand"),
        "WARNING",
        "[CIRCUIT] openai: closed -> forced_open (by hand)",
    ),
    (change(OPEN, CircuitState.DISABLED, "by hand"), "WARNING", "[CIRCUIT] openai: open -> disabled (by hand)"),
    (
        ProbeLost(provider="openai", time=0),
        "WARNING",
        "[CIRCUIT] openai: a probe did not come back, its slot is free again",
    ),
    (
        GateClosed(provider="openai", time=0, seconds=12, hinted=True),
        "WARNING",
        "[GATE] openai: closed for 12.0 s (asked by the provider)",
    ),
    (
        GateClosed(provider="openai", time=0, seconds=2, hinted=False),
        "WARNING",
        "[GATE] openai: closed for 2.0 s (a growing pause: the provider named no time)",
    ),
    (
        AttemptTimedOut(provider="s3", operation="upload", time=0, attempt=2, scope="attempt", limit=30, duration=30.0),
        "WARNING",
        "[TIMEOUT] attempt 2 of upload to s3 after 30.0 s (limit 30 s)",
    ),
    (
        AttemptTimedOut(provider="s3", operation="", time=0, attempt=3, scope="total", limit=120, duration=120),
        "WARNING",
        "[TIMEOUT] a call to s3 after 120.0 s in attempt 3 (limit 120 s in all)",
    ),
    (
        AttemptTimedOut(provider="s3", operation="", time=0, attempt=1, scope="shutdown", limit=20, duration=31.5),
        "WARNING",
        "[TIMEOUT] a call to s3 after 31.5 s in attempt 1, by the shutdown (grace 20 s)",
    ),
    (
        AttemptOverdue(provider="s3", operation="upload", time=0, overdue=5),
        "WARNING",
        "[OVERDUE] upload to s3 goes on 5.0 s after it was interrupted: it swallows cancellation",
    ),
    (
        AttemptFailed(provider="s3", operation="upload", time=0, failure=SERVER_ERROR, attempt=1, duration=0.12),
        "DEBUG",
        "[ATTEMPT] attempt 1 of upload to s3 failed after 0.12 s (server_error)",
    ),
    (
        failed(SERVER_ERROR, Reason.ATTEMPTS_SPENT),
        "ERROR",
        "[FAILED] upload to s3 after 3 attempts in 4.21 s (server_error, attempts spent)",
    ),
    (
        failed(SERVER_ERROR, Reason.RETRY_BUDGET_EXHAUSTED, attempts=1),
        "ERROR",
        "[FAILED] upload to s3 after 1 attempt in 4.21 s (server_error, retry budget exhausted)",
    ),
    (
        CallRecovered(provider="s3", operation="upload", time=0, attempts=2, duration=1.13),
        "INFO",
        "[RECOVERED] upload to s3 after 2 attempts in 1.13 s",
    ),
    (
        CallWasRejected(provider="s3", operation="upload", time=0, reason=Reason.CIRCUIT_OPEN, retry_after=12.44),
        "DEBUG",
        "[REJECTED] upload to s3 (circuit open), retry in 12.4 s",
    ),
    (
        CallWasRejected(provider="s3", time=0, reason=Reason.FORCED_OPEN, retry_after=None),
        "DEBUG",
        "[REJECTED] a call to s3 (forced open)",
    ),
    (
        CallWouldBeRejected(provider="s3", operation="upload", time=0, reason=Reason.CIRCUIT_OPEN),
        "DEBUG",
        "[SHADOW] upload to s3 would be rejected (circuit open)",
    ),
    (
        CallCoalesced(provider="openai", operation="models", time=0),
        "DEBUG",
        "[COALESCED] models to openai waits for an identical one",
    ),
    (
        HedgeLaunched(provider="api", operation="search", time=0, delay=0.25),
        "DEBUG",
        "[HEDGE] a second attempt of search to api after 0.25 s",
    ),
    (
        HedgeWon(provider="api", operation="search", time=0, duration=0.306),
        "DEBUG",
        "[HEDGE] the second attempt of search to api answered first, in 0.31 s",
    ),
    (
        FellBack(provider="openai", operation="chat", time=0, to="anthropic", reason="circuit_open"),
        "DEBUG",
        "[FALLBACK] chat to openai goes on with anthropic (circuit open)",
    ),
    (
        ConcurrencyLimitChanged(provider="s3", time=0, before=20, after=18, reason="latency"),
        "DEBUG",
        "[LIMIT] s3: 20 -> 18 attempts at once (latency)",
    ),
    (
        RateLimitTightened(provider="openai", time=0, window="requests/60s", remaining=12, reset=3.2),
        "INFO",
        "[LIMIT] openai: 12 left of requests/60s, full again in 3.2 s (told by the provider)",
    ),
    (
        MemberEjected(provider="eu", time=0, member="eu", seconds=30, figures="9 of 10 calls failed"),
        "WARNING",
        "[POOL] eu: left out for 30.0 s (9 of 10 calls failed)",
    ),
    (MemberReturned(provider="eu", time=0, member="eu"), "INFO", "[POOL] eu: asked again"),
    (reloaded(0), "INFO", "[SETTINGS] read anew from app.toml: nothing differs"),
    (reloaded(1), "INFO", "[SETTINGS] 1 change from app.toml: providers.p0.retry.max_attempts: 3 -> 5"),
    (
        SettingsRefused(provider="", time=0, source="app.toml", problem="retry.max_attempts=0 is too small"),
        "WARNING",
        "[SETTINGS] those from app.toml are refused, nothing changed: retry.max_attempts=0 is too small",
    ),
    (
        ShutdownBegan(provider="", time=0, grace=20, in_flight=3, waiting=1),
        "INFO",
        "[SHUTDOWN] no new calls: 3 attempts have 20 s, 1 waiting call sent away",
    ),
    (ended(), "INFO", "[SHUTDOWN] over in 2.1 s: 3 finished, 0 interrupted, 0 still running, 1 refused"),
    (
        ended(interrupted=1),
        "WARNING",
        "[SHUTDOWN] over in 2.1 s: 3 finished, 1 interrupted, 0 still running, 1 refused",
    ),
    (
        ended(unclosed=("s3", "db")),
        "WARNING",
        "[SHUTDOWN] over in 2.1 s: 3 finished, 0 interrupted, 0 still running, 1 refused; not closed: s3, db",
    ),
]


@pytest.mark.parametrize("event, level, text", CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_line(said: pytest.LogCaptureFixture, event: Event, level: str, text: str) -> None:
    """Each event is one line, at its level, with exactly this text, and with all documented fields."""
    process_bus.emit(event)
    [record] = said.records
    assert (record.levelname, record.getMessage()) == (level, text)
    assert all(hasattr(record, field) for field in FIELDS)


@pytest.mark.parametrize("event", [case[0] for case in CASES], ids=lambda event: type(event).__name__)
def test_nothing_is_made_for_nobody(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, event: Event
) -> None:
    """A logger that is switched off gets no record and asks for no correlation id."""
    monkeypatch.setattr(lines, "trace_id", lambda: pytest.fail("nobody wants to know"))
    caplog.set_level(logging.CRITICAL, logger="resilience")
    lines.log_event(event)
    caplog.set_level(logging.NOTSET, logger="resilience")
    assert not caplog.records


def test_logger_names(said: pytest.LogCaptureFixture) -> None:
    """Each component has its own logger, so that each can be switched off alone."""
    for event, _, _ in CASES:
        process_bus.emit(event)
    tags = {(record.name, record.getMessage().partition("]")[0][1:]) for record in said.records}
    assert tags == {
        ("resilience.retry", "RETRY"),
        ("resilience.circuit", "CIRCUIT"),
        ("resilience.circuit", "SHADOW"),
        ("resilience.gate", "GATE"),
        ("resilience.deadline", "TIMEOUT"),
        ("resilience.deadline", "OVERDUE"),
        ("resilience.call", "ATTEMPT"),
        ("resilience.call", "FAILED"),
        ("resilience.call", "RECOVERED"),
        ("resilience.call", "REJECTED"),
        ("resilience.call", "COALESCED"),
        ("resilience.call", "HEDGE"),
        ("resilience.routing", "FALLBACK"),
        ("resilience.routing", "POOL"),
        ("resilience.limits", "LIMIT"),
        ("resilience.settings", "SETTINGS"),
        ("resilience.shutdown", "SHUTDOWN"),
    }


def test_every_event_has_a_line() -> None:
    """No event of ours is forgotten: each is told, and shown in this table of examples."""
    known = {value for value in vars(events).values() if isinstance(value, type) and issubclass(value, Event)}
    assert {type(event) for event, _, _ in CASES} == known - {Event}


def test_what_is_frequent_is_told_at_debug_only() -> None:
    """What a busy service would be flooded with stays below the usual level, and is only made for those who ask."""
    levels: dict[type[Event], set[str]] = {}
    for event, level, _ in CASES:
        levels.setdefault(type(event), set()).add(level)
    assert {kind for kind, seen in levels.items() if seen == {"DEBUG"}} == set(DEBUG_EVENTS)


def test_a_long_list_of_changes_is_cut(said: pytest.LogCaptureFixture) -> None:
    """A reload that changes hundreds of settings is still a line that can be read."""
    process_bus.emit(reloaded(300))
    text = said.records[0].getMessage()
    assert text.startswith("[SETTINGS] 300 changes from app.toml: providers.p0.retry.max_attempts: 3 -> 5; ")
    assert text.endswith("providers.p9.retry.max_attempts: 3 -> 5; and 290 more")


def fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name in FIELDS if (value := getattr(record, name)) is not None}


def test_fields_of_a_retry(said: pytest.LogCaptureFixture) -> None:
    """A retry tells its figures as fields, in seconds and unrounded, not only in its text."""
    process_bus.emit(retry())
    assert fields(said.records[0]) == {
        "component": "retry",
        "provider": "s3",
        "operation": "upload",
        "attempt": 2,
        "delay": 0.8375,
        "kind": "server_error",
    }


def test_fields_of_a_failed_call(said: pytest.LogCaptureFixture) -> None:
    """The end of a call tells how many attempts it took, how long, and why there was no other."""
    process_bus.emit(failed(SERVER_ERROR, Reason.DEADLINE_WOULD_PASS))
    assert fields(said.records[0]) == {
        "component": "call",
        "provider": "s3",
        "operation": "upload",
        "attempt": 3,
        "kind": "server_error",
        "duration_ms": 4214.9,
        "reason": "deadline_would_pass",
    }


def test_fields_of_an_opening(said: pytest.LogCaptureFixture) -> None:
    """The opening of a circuit tells for how long, and by which rule."""
    process_bus.emit(change(CLOSED, OPEN, "5 failures in a row"))
    assert fields(said.records[0]) == {
        "component": "circuit",
        "provider": "openai",
        "delay": 57.5,
        "reason": "in_a_row",
    }


@pytest.mark.parametrize(
    "reason",
    [
        Reason.ATTEMPTS_SPENT,
        Reason.RETRY_BUDGET_EXHAUSTED,
        Reason.DEADLINE_WOULD_PASS,
        Reason.HINT_BEYOND_CAP,
        Reason.CIRCUIT_OPEN,
        Reason.NOT_IDEMPOTENT,
    ],
)
def test_exhaustion_shows_the_traceback(said: pytest.LogCaptureFixture, reason: Reason) -> None:
    """Work that was lost to the provider's trouble is an ERROR with its traceback, whatever ended the retries."""
    error = OSError("bucket is gone")
    process_bus.emit(failed(SERVER_ERROR, reason, error))
    [record] = said.records
    assert record.levelname == "ERROR"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize(
    "failure, reason, level",
    [
        (WRONG_KEY, Reason.NOT_RETRYABLE, "WARNING"),
        (BAD_REQUEST, Reason.NOT_RETRYABLE, "INFO"),
        (SERVER_ERROR, Reason.ALREADY_RETRIED, "DEBUG"),
        (REFUSED, Reason.NOT_RETRYABLE, "DEBUG"),
    ],
)
def test_final_errors_show_none(said: pytest.LogCaptureFixture, failure: Failure, reason: Reason, level: str) -> None:
    """What no retry can help, and what was told already, is told without a traceback and more quietly."""
    process_bus.emit(failed(failure, reason))
    [record] = said.records
    assert (record.levelname, record.exc_info) == (level, None)


def test_one_exception_shows_one_traceback(said: pytest.LogCaptureFixture) -> None:
    """An error that ends the calls of two providers around it is an ERROR for each, with one traceback."""
    error = OSError("bucket is gone")
    process_bus.emit(failed(SERVER_ERROR, Reason.ATTEMPTS_SPENT, error))
    process_bus.emit(failed(SERVER_ERROR, Reason.ATTEMPTS_SPENT, error))
    assert [(record.levelname, bool(record.exc_info)) for record in said.records] == [("ERROR", True), ("ERROR", False)]


def test_an_exception_with_slots_only(said: pytest.LogCaptureFixture) -> None:
    """An exception that takes no mark is told like any other."""

    class Sealed(OSError):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    process_bus.emit(failed(SERVER_ERROR, Reason.ATTEMPTS_SPENT, Sealed()))
    assert said.records[0].exc_info is not None


def test_spent_refresh_is_an_error(said: pytest.LogCaptureFixture) -> None:
    """A key that is still refused after it was refreshed has spent its attempts: an ERROR."""
    process_bus.emit(failed(WRONG_KEY, Reason.ATTEMPTS_SPENT))
    assert said.records[0].levelname == "ERROR"


def test_no_text_of_an_error_in_a_line(said: pytest.LogCaptureFixture) -> None:
    """No message and no field holds the text of an error: it may quote a secret or a payload."""
    process_bus.emit(failed(SERVER_ERROR, Reason.ATTEMPTS_SPENT))
    [record] = said.records
    assert "hunter2" not in record.getMessage() + str(fields(record))


def test_an_open_circuit_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """10,000 refused calls at an open circuit add no line to the one that said it opened."""
    caplog.set_level(logging.DEBUG, logger="resilience")
    process_bus.emit(change(CLOSED, OPEN, "5 failures in a row"))
    refused = CallWasRejected(provider="openai", time=0, reason=Reason.CIRCUIT_OPEN, retry_after=50)
    for _ in range(10_000):
        process_bus.emit(refused)
    caplog.set_level(logging.NOTSET, logger="resilience")
    assert [record.getMessage() for record in caplog.records] == [
        "[CIRCUIT] openai: closed -> open (5 failures in a row)"
    ]


def test_refusals_are_not_even_made() -> None:
    """Installed logs do not make a refused call pay for an event; asking for DEBUG does, until it is closed."""
    assert not process_bus.hears_rejections
    output = resilience.logging.configure(level="DEBUG", output="/dev/null")
    assert process_bus.hears_rejections
    output.close()
    assert not process_bus.hears_rejections


def test_unknown_events_are_no_trouble(said: pytest.LogCaptureFixture) -> None:
    """An event that has no line is passed over."""
    lines.log_event(Event(provider="s3", time=0))
    assert not said.records


def test_correlation_id(said: pytest.LogCaptureFixture) -> None:
    """The correlation id that is set where a call was made is on its lines."""
    token = correlation_id.set("req-7")
    process_bus.emit(retry())
    correlation_id.reset(token)
    process_bus.emit(retry())
    assert [getattr(record, "correlation_id", "missing") for record in said.records] == ["req-7", None]


def test_correlation_id_falls_back_to_the_trace(
    said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a correlation id of its own a line carries the id of the current trace."""
    monkeypatch.setattr(lines, "trace_id", lines.trace_id)
    resilience.logging.install(trace_id=lambda: "4bf92f3577b34da6a3ce929d0e0e4736")
    process_bus.emit(retry())
    token = correlation_id.set("req-7")
    process_bus.emit(retry())
    correlation_id.reset(token)
    ids = [getattr(record, "correlation_id", "missing") for record in said.records]
    assert ids == ["4bf92f3577b34da6a3ce929d0e0e4736", "req-7"]


def test_installing_twice_is_one_line(said: pytest.LogCaptureFixture) -> None:
    """However often the logs are installed, an event is one line."""
    resilience.logging.install()
    resilience.logging.install()
    process_bus.emit(retry())
    assert len(said.records) == 1
