"""Groups and chains of errors: from the one that arrives to the one that tells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

import anyio
import pytest

from resilience.classify import classify
from resilience.failure import Failure

Told = Callable[[Failure], tuple[str, str, str, str]]

REFUSED = ("connection_error", "retriable", "unsent", "failure")
LOST = ("connection_error", "retriable", "maybe", "failure")
TIMEOUT = ("timeout", "retriable", "maybe", "failure")
UNKNOWN = ("unknown_error", "retriable", "maybe", "failure")
BUG = ("bad_request", "invalid_input", "maybe", "ignored")
CANCELLED = ("cancelled", "fatal", "maybe", "ignored")


class TestGroups:
    """Groups of errors."""

    def test_of_one(self, told: Told) -> None:
        """A group of one, however deep, is the error in it."""
        failure = classify(ExceptionGroup("a", [ExceptionGroup("b", [ConnectionRefusedError()])]))
        assert told(failure) == REFUSED
        assert failure.error_type == "ConnectionRefusedError"

    def test_of_cancellations(self, told: Told) -> None:
        """A group that holds a cancellation is on its way out, whatever else is in it."""
        assert told(classify(BaseExceptionGroup("", [asyncio.CancelledError()]))) == CANCELLED
        assert told(classify(BaseExceptionGroup("", [asyncio.CancelledError(), OSError()]))) == CANCELLED

    def test_of_the_same(self, told: Told) -> None:
        """Two refused addresses of one host are one refusal."""
        group = ExceptionGroup("", [ConnectionRefusedError(), ConnectionRefusedError()])
        assert told(classify(group)) == REFUSED

    def test_final_one_decides(self, told: Told) -> None:
        """One bug among network errors cannot be mended by trying again; the network errors are still evidence."""
        assert told(classify(ExceptionGroup("", [ConnectionResetError(), TypeError()]))) == (
            "bad_request", "invalid_input", "maybe", "failure",
        )  # fmt: skip

    def test_of_bugs(self, told: Told) -> None:
        """Several bugs are no evidence either."""
        assert told(classify(ExceptionGroup("", [TypeError(), KeyError()]))) == BUG

    def test_maybe_sent(self, told: Told) -> None:
        """If one of several may have been sent, something may have been sent."""
        assert told(classify(ExceptionGroup("", [ConnectionRefusedError(), ConnectionResetError()]))) == LOST

    def test_longest_pause(self) -> None:
        """Of several hints the longest counts."""
        errors = [Hinting(3), Hinting(8), RuntimeError()]
        assert classify(ExceptionGroup("", errors)).retry_after == 8.0

    def test_too_deep(self) -> None:
        """Groups in groups in groups end somewhere."""
        group: ExceptionGroup[Exception] = ExceptionGroup("", [OSError(), OSError()])
        for _ in range(60):
            group = ExceptionGroup("", [group, group])
        assert classify(group).retryable
        for _ in range(60):
            group = ExceptionGroup("", [group])
        assert classify(group).retryable


class Hinting(Exception):
    """A library's own error, with a hint of its own."""

    def __init__(self, retry_after: object) -> None:
        self.retry_after = retry_after


@pytest.mark.parametrize("hint, pause", [(7, 7.0), (0.5, 0.5), ("9", 9.0), (-1, None), (True, None), (None, None)])
def test_hint_of_an_unknown_error(hint: object, pause: float | None) -> None:
    """`retry_after` on an exception is a hint in seconds, whoever raised it."""
    assert classify(Hinting(hint)).retry_after == pause


class TestChains:
    """From the error that arrives to the one that tells."""

    @staticmethod
    def wrapped(outer: Exception, inner: BaseException, *, cause: bool) -> Exception:
        try:
            try:
                raise inner
            except BaseException as error:
                if cause:
                    raise outer from error
                raise outer  # noqa: B904 (that is the case)
        except type(outer) as error:
            return error

    def test_cause(self, told: Told) -> None:
        """An unknown error says what its cause says."""
        assert told(classify(self.wrapped(RuntimeError(), ConnectionRefusedError(), cause=True))) == REFUSED

    def test_context_of_an_unknown_error(self, told: Told) -> None:
        """Without `from`, what was being handled may have nothing to do with it: never claim that nothing was sent."""
        assert told(classify(self.wrapped(RuntimeError(), ConnectionRefusedError(), cause=False))) == LOST

    def test_context_that_is_an_answer(self, told: Told) -> None:
        """An error raised while an answer was handled is that answer, `from` or not."""

        class Busy(Exception):
            status_code = 503

        for cause in (True, False):
            failure = classify(self.wrapped(RuntimeError(), Busy(), cause=cause))
            assert told(failure) == ("overloaded", "transient", "processed", "failure")
            assert failure.error_type == "RuntimeError"

    def test_bug_while_handling_trouble(self, told: Told) -> None:
        """A bug in an except clause is a bug; a deliberate `raise ... from` is what it is from."""
        assert told(classify(self.wrapped(NameError(), ConnectionRefusedError(), cause=False))) == BUG
        assert told(classify(self.wrapped(ValueError(), ConnectionRefusedError(), cause=True))) == REFUSED

    def test_bug_further_inside(self, told: Told) -> None:
        """A KeyError that some unknown error stands for does not make it the caller's."""
        assert told(classify(self.wrapped(RuntimeError(), KeyError(), cause=True))) == UNKNOWN

    def test_cancellation_further_inside(self, told: Told) -> None:
        """A cancellation at the end of a chain is no cancellation."""
        assert told(classify(self.wrapped(TimeoutError(), asyncio.CancelledError(), cause=True))) == TIMEOUT
        assert told(classify(self.wrapped(RuntimeError(), asyncio.CancelledError(), cause=True))) == UNKNOWN

    def test_unrelated_answer_behind_a_network_error(self, told: Told) -> None:
        """The 404 that the program was just handling says nothing about the connection that broke then."""

        class NotFound(Exception):
            status_code = 404

        assert told(classify(self.wrapped(anyio.BrokenResourceError(), NotFound(), cause=False))) == LOST

    def test_cycle(self, told: Told) -> None:
        """A chain that bites its tail ends."""
        first, second = RuntimeError(), RuntimeError()
        first.__cause__, second.__cause__ = second, first
        assert told(classify(first)) == UNKNOWN

    def test_long_chain(self, told: Told) -> None:
        """A chain without end is given up."""
        error: Exception = ConnectionRefusedError()
        for _ in range(5000):
            outer = RuntimeError()
            outer.__cause__ = error
            error = outer
        assert told(classify(error)) == UNKNOWN


class TestForeignNumbers:
    """What looks like a status, and is one or none."""

    @pytest.mark.parametrize(
        "attributes, expected",
        [
            ({"code": 400}, ("bad_request", "invalid_input", "processed", "success")),
            ({"code": 503}, ("overloaded", "transient", "processed", "failure")),
            ({"code": HTTPStatus.PERMANENT_REDIRECT}, ("bad_request", "fatal", "processed", "success")),
            ({"status": 429}, ("rate_limit", "transient", "processed", "ignored")),
        ],
    )
    def test_believed(self, attributes: dict[str, object], expected: tuple[str, ...], told: Told) -> None:
        """An integer that an HTTP library would keep there is the status."""
        assert told(classify(type("OddError", (Exception,), attributes)())) == expected

    @pytest.mark.parametrize(
        "attributes", [{"code": 241}, {"code": 1006}, {"status_code": True}, {"status": 7}, {"code": "503"}]
    )
    def test_ignored(self, attributes: dict[str, object], told: Told) -> None:
        """Error numbers of databases and protocols are no HTTP status."""
        failure = classify(type("OddError", (Exception,), attributes)())
        assert told(failure) == UNKNOWN
        assert failure.status is None

    def test_sentence_is_no_code(self) -> None:
        """Free text never gets into a failure: it could hold anything."""
        error = type("OddError", (Exception,), {"status_code": 500, "code": "user alice@example.org is blocked"})()
        assert classify(error).code is None
