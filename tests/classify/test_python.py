"""Python's own errors: the standard library's, the caller's bugs, and cancellations."""

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
