"""Python's own errors: the standard library's, the caller's bugs, cancellations, groups and chains."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import http.client
import json
import os
import pathlib
import socket
import ssl
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from typing import Any

import anyio
import pydantic
import pytest
import trio

from resilience.classify import classify
from resilience.failure import Failure

Told = Callable[[Failure], tuple[str, str, str, str]]

REFUSED = ("connection_error", "retriable", "unsent", "failure")
LOST = ("connection_error", "retriable", "maybe", "failure")
CUT = ("interrupted", "retriable", "processed", "failure")
TIMEOUT = ("timeout", "retriable", "maybe", "failure")
UNKNOWN = ("unknown_error", "retriable", "maybe", "failure")
BUG = ("bad_request", "invalid_input", "maybe", "ignored")
CANCELLED = ("cancelled", "fatal", "maybe", "ignored")


def raised_by(action: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as caught:
        action()
    return caught.value


class TestUrllib:
    """urllib is what people have without installing anything."""

    @pytest.mark.parametrize(
        "how, expected", [("hang", TIMEOUT), ("hang_up", LOST), ("reset", LOST), ("garbage", LOST), ("cut_body", CUT)]
    )
    def test_trouble(self, how: str, expected: tuple[str, ...], loopback: Any, told: Told) -> None:
        """Errors of urllib, http.client and the socket itself come out raw."""
        url = loopback.serve(getattr(loopback, how)).url
        error = raised_by(lambda: urllib.request.urlopen(url, timeout=0.1).read())
        assert told(classify(error)) == expected

    def test_refused(self, loopback: Any, told: Told) -> None:
        """A URLError keeps the real one as its reason."""
        failure = classify(raised_by(lambda: urllib.request.urlopen(loopback.refused().url, timeout=5)))
        assert told(failure) == REFUSED
        assert failure.error_type == "urllib.URLError"

    def test_status(self, loopback: Any, told: Told) -> None:
        """An HTTPError is an answer, with its hint."""
        url = loopback.serve(loopback.reply(503, {"retry-after": "4"})).url
        error = raised_by(lambda: urllib.request.urlopen(url, timeout=5))
        failure = classify(error)
        assert isinstance(error, urllib.error.HTTPError)
        error.close()
        assert told(failure) == ("overloaded", "transient", "processed", "failure")
        assert (failure.status, failure.retry_after) == (503, 4.0)


class TestSockets:
    """Errors of the operating system, from real sockets where they can be had."""

    def test_refused(self, loopback: Any, told: Told) -> None:
        """Nobody listens: nothing was sent."""
        endpoint = loopback.refused()
        error = raised_by(lambda: socket.create_connection((endpoint.host, endpoint.port), 5))
        assert told(classify(error)) == REFUSED

    def test_unknown_host(self, overlong_host: str, told: Told) -> None:
        """The resolver's own error."""
        error = raised_by(lambda: socket.getaddrinfo(overlong_host.encode(), 80))
        assert told(classify(error)) == ("dns_error", "retriable", "unsent", "failure")

    def test_socket_file_missing(self, told: Told, tmp_path: pathlib.Path) -> None:
        """A Unix socket that is not there means that the server is down, not that a file of ours is missing."""

        def connect() -> None:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(tmp_path / "clamd.sock"))

        assert told(classify(raised_by(connect))) == REFUSED

    def test_files_of_our_own(self, told: Told, tmp_path: pathlib.Path) -> None:
        """Trouble with our own files is no evidence against a provider and is not retried."""
        missing = raised_by(lambda: open(tmp_path / "nothing"))  # noqa: SIM115, PTH123
        directory = raised_by(lambda: open(tmp_path))  # noqa: SIM115, PTH123
        assert told(classify(missing)) == ("not_found", "fatal", "maybe", "ignored")
        assert told(classify(directory)) == BUG
        assert told(classify(PermissionError(errno.EACCES, "no", "file"))) == (
            "permission_denied", "fatal", "maybe", "ignored",
        )  # fmt: skip

    @pytest.mark.parametrize(
        "error, expected",
        [
            (PermissionError("access denied"), ("permission_denied", "fatal", "processed", "success")),
            (FileExistsError("there is one"), ("bad_request", "fatal", "processed", "success")),
        ],
    )
    def test_storage_answers_in_the_clothes_of_the_system(
        self, error: OSError, expected: tuple[str, ...], told: Told
    ) -> None:
        """Storage libraries raise these classes without an errno for what a server answered."""
        assert told(classify(error)) == expected

    @pytest.mark.parametrize(
        "number, expected",
        [
            (errno.ECONNRESET, LOST),
            (errno.EPIPE, LOST),
            (errno.ENETUNREACH, LOST),
            (errno.EHOSTUNREACH, LOST),
            (errno.ETIMEDOUT, TIMEOUT),
            (errno.EMFILE, ("connection_error", "retriable", "unsent", "ignored")),
            (errno.EADDRNOTAVAIL, ("connection_error", "retriable", "unsent", "ignored")),
            (errno.ENOSPC, ("configuration_error", "fatal", "maybe", "ignored")),
            (errno.EIO, UNKNOWN),
        ],
        ids=errno.errorcode.get,
    )
    def test_errno(self, number: int, expected: tuple[str, ...], told: Told) -> None:
        """An errno tells whose machine it is that is in trouble."""
        assert told(classify(OSError(number, os.strerror(number)))) == expected

    def test_no_errno(self, told: Told) -> None:
        """An OSError that says nothing is some trouble with the connection."""
        assert told(classify(OSError("All connection attempts failed"))) == LOST
        assert told(classify(ConnectionError("gone"))) == LOST
        assert told(classify(ConnectionRefusedError("gone"))) == REFUSED

    @pytest.mark.parametrize(
        "error, expected",
        [
            (ssl.SSLCertVerificationError(1, "x"), ("certificate_error", "fatal", "unsent", "failure")),
            (ssl.SSLEOFError(8, "x"), LOST),
            (ssl.SSLError(1, "x"), LOST),
        ],
    )
    def test_tls(self, error: ssl.SSLError, expected: tuple[str, ...], told: Told) -> None:
        """Only what is about certificates or versions is final; a broken TLS connection is a broken connection."""
        assert told(classify(error)) == expected


@pytest.mark.parametrize(
    "error",
    [
        TypeError(), AttributeError(), NameError(), UnboundLocalError(), AssertionError(), KeyError("k"), IndexError(),
        NotImplementedError(), ImportError(), ModuleNotFoundError(), ZeroDivisionError(), OverflowError(),
        ValueError("plain"), UnicodeDecodeError("ascii", b"", 0, 1, "r"), RecursionError(), MemoryError(),
        SyntaxError(), StopIteration(), StopAsyncIteration(), BufferError(), DeprecationWarning(),
        asyncio.InvalidStateError(), anyio.ClosedResourceError(), trio.BusyResourceError(),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_bugs_of_the_caller(error: Exception, told: Told) -> None:
    """A mistake in the caller's own code is not retried, and says nothing about the provider."""
    assert told(classify(error)) == BUG


def test_bug_by_inheritance(told: Told) -> None:
    """A user's own TypeError is a bug too; a library's ValueError can be anything."""

    class WrongShape(TypeError):
        pass

    class OddReply(ValueError):
        pass

    assert told(classify(WrongShape())) == BUG
    assert told(classify(OddReply())) == UNKNOWN


def test_validation_is_no_evidence(told: Told) -> None:
    """Data that does not fit a model will not fit it the next time either."""
    assert told(classify(raised_by(lambda: pydantic.TypeAdapter(int).validate_python("x")))) == BUG


@pytest.mark.parametrize("error", [RuntimeError("boom"), Exception(), type("OddError", (Exception,), {})()])
def test_unknown_errors(error: Exception, told: Told) -> None:
    """What nobody knows is retried and is evidence: a service that fails in unheard-of ways is failing."""
    assert told(classify(error)) == UNKNOWN


@pytest.mark.parametrize(
    "error, expected",
    [
        (TimeoutError(), TIMEOUT),
        (trio.TooSlowError(), TIMEOUT),
        (anyio.BrokenResourceError(), LOST),
        (anyio.EndOfStream(), LOST),
        (trio.BrokenResourceError(), LOST),
        (anyio.IncompleteRead(), ("interrupted", "retriable", "maybe", "failure")),
        (asyncio.IncompleteReadError(b"", 1), ("interrupted", "retriable", "maybe", "failure")),
        (http.client.IncompleteRead(b""), CUT),
        (http.client.RemoteDisconnected(), LOST),
        (json.JSONDecodeError("m", "d", 0), CUT),
        (zlib.error(), CUT),
        (concurrent.futures.CancelledError(), CANCELLED),
    ],
    ids=lambda case: type(case).__name__ if isinstance(case, BaseException) else "",
)
def test_standard_library(error: Exception, expected: tuple[str, ...], told: Told) -> None:
    """Classes of the standard library, of anyio and of trio."""
    assert told(classify(error)) == expected


@pytest.mark.anyio
async def test_our_scopes(told: Told) -> None:
    """A scope of anyio's that expires is a timeout, although its chain ends in a cancellation."""
    with pytest.raises(TimeoutError) as caught:
        with anyio.fail_after(0.01):
            await anyio.sleep_forever()
    assert told(classify(caught.value)) == TIMEOUT


@pytest.mark.anyio
async def test_cancellation(told: Told) -> None:
    """A cancellation is the caller's business on either backend."""
    kinds: list[Failure] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as error:
            kinds.append(classify(error))
            raise
    assert [told(failure) for failure in kinds] == [CANCELLED]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(503), GeneratorExit(), asyncio.CancelledError()])
def test_ways_to_leave(error: BaseException, told: Told) -> None:
    """Nothing that is meant to end a program or a task is retried or counted."""
    assert told(classify(error)) == CANCELLED


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
    """What looks like a status and is none."""

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
