"""obstore tells everything in its text, or by its class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

from resilience.classify import classify
from resilience.failure import Failure

Told = Callable[[Failure], tuple[str, str, str, str]]

REFUSED = ("connection_error", "retriable", "unsent", "failure")
LOST = ("connection_error", "retriable", "maybe", "failure")
CUT = ("interrupted", "retriable", "processed", "failure")
UNTRUSTED = ("certificate_error", "fatal", "unsent", "failure")
UNKNOWN_HOST = ("dns_error", "retriable", "unsent", "failure")
READ_TIMEOUT = ("timeout", "retriable", "maybe", "failure")
RATE_LIMIT = ("rate_limit", "transient", "processed", "ignored")
OVERLOADED = ("overloaded", "transient", "processed", "failure")
NOT_FOUND = ("not_found", "fatal", "processed", "success")
DENIED = ("permission_denied", "fatal", "processed", "success")
BAD_REQUEST = ("bad_request", "invalid_input", "processed", "success")
SERVER = ("server_error", "retriable", "processed", "failure")


def failure_of(action: Callable[[], object]) -> Failure:
    with pytest.raises(Exception) as caught:
        action()
    return classify(caught.value)


def xml(code: str) -> str:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>m</Message></Error>"


def open_store(url: str, **options: Any) -> S3Store:
    client = {"allow_http": True, "timeout": "200ms", "connect_timeout": "200ms", **options}
    retries: Any = {"max_retries": 0}
    keys = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
    return S3Store("bbb", endpoint=url, client_options=client, retry_config=retries, **keys)


class TestObstore:
    """obstore tells everything in its text, or by its class."""

    @staticmethod
    def get(url: str) -> Failure:
        return failure_of(lambda: obstore.get(open_store(url), "k").bytes())

    @pytest.mark.parametrize(
        "status, code, expected",
        [
            (400, "RequestTimeout", ("timeout", "retriable", "processed", "failure")),
            (400, "InvalidArgument", BAD_REQUEST),
            (401, "Unauthorized", ("authentication_error", "fatal", "processed", "success")),
            (403, "AccessDenied", DENIED),
            (409, "Conflict", BAD_REQUEST),
            (412, "PreconditionFailed", BAD_REQUEST),
            (429, "Slower", RATE_LIMIT),
            (500, "InternalError", SERVER),
            (503, "SlowDown", RATE_LIMIT),
            (503, "ServiceUnavailable", OVERLOADED),
        ],
    )
    def test_status(self, status: int, code: str, expected: tuple[str, ...], loopback: Any, told: Told) -> None:
        """The status and the code are read out of the text."""
        failure = self.get(loopback.serve(loopback.reply(status, {}, xml(code))).url)
        assert told(failure) == expected
        assert (failure.status, failure.code) == (status, code)

    def test_missing(self, loopback: Any, told: Told) -> None:
        """A missing object is a FileNotFoundError, but the provider's answer and no local file."""
        failure = self.get(loopback.serve(loopback.reply(404, {}, xml("NoSuchKey"))).url)
        assert told(failure) == NOT_FOUND
        assert failure.error_type == "FileNotFoundError"

    def test_not_modified(self, loopback: Any, told: Told) -> None:
        """A 304 is an answer."""
        failure = self.get(loopback.serve(loopback.reply(304)).url)
        assert told(failure) == ("bad_request", "fatal", "processed", "success")

    def test_refused(self, loopback: Any, told: Told) -> None:
        """A refused connection sent nothing."""
        assert told(self.get(loopback.refused().url)) == REFUSED

    def test_unknown_host(self, overlong_host: str, told: Told) -> None:
        """A name that does not resolve is told apart."""
        assert told(self.get(f"http://{overlong_host}")) == UNKNOWN_HOST

    def test_untrusted(self, loopback: Any, told: Told) -> None:
        """A certificate of nobody we trust is final."""
        assert told(self.get(loopback.serve(loopback.reply(200), tls=loopback.certificate()).url)) == UNTRUSTED

    def test_timeout(self, loopback: Any, told: Told) -> None:
        """Its text does not say what timed out, so the request may have been sent."""
        assert told(self.get(loopback.serve(loopback.hang).url)) == READ_TIMEOUT

    @pytest.mark.parametrize("how", ["reset", "hang_up", "garbage"])
    def test_lost(self, how: str, loopback: Any, told: Told) -> None:
        """A connection that breaks leaves open what happened."""
        assert told(self.get(loopback.serve(getattr(loopback, how)).url)) == LOST

    def test_cut_body(self, loopback: Any, told: Told) -> None:
        """A body that ends early was answered, but not to the end."""
        assert told(self.get(loopback.serve(loopback.cut_body).url)) == CUT

    def test_wrong_region(self, loopback: Any, told: Told) -> None:
        """A redirect without a target means that the bucket lives elsewhere."""
        failure = self.get(loopback.serve(loopback.reply(302)).url)
        assert told(failure) == ("configuration_error", "fatal", "processed", "ignored")

    def test_reply_it_does_not_understand(self, loopback: Any, told: Told) -> None:
        """What nothing explains stays unknown."""
        url = loopback.serve(loopback.reply(200)).url
        failure = failure_of(lambda: obstore.put(open_store(url), "k", b"x"))
        assert told(failure) == ("unknown_error", "retriable", "maybe", "failure")

    def test_unknown_setting(self, told: Told) -> None:
        """A setting that does not exist is a mistake in the settings."""
        nonsense: Any = {"nonsense": 1}
        failure = failure_of(lambda: S3Store("bbb", **nonsense))
        assert told(failure) == ("configuration_error", "fatal", "unsent", "ignored")
