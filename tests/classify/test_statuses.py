"""Statuses, as the libraries that people call HTTP with report them."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from types import ModuleType
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest

from resilience.classify import classify
from resilience.failure import Failure, Verdict

Told = Callable[[Failure], tuple[str, str, str, str]]

RETRIED = {
    408: ("timeout", "retriable", "processed", "failure"),
    425: ("server_error", "retriable", "processed", "failure"),
    429: ("rate_limit", "transient", "processed", "ignored"),
    500: ("server_error", "retriable", "processed", "failure"),
    502: ("server_error", "retriable", "processed", "failure"),
    503: ("overloaded", "transient", "processed", "failure"),
    504: ("timeout", "retriable", "processed", "failure"),
    529: ("overloaded", "transient", "processed", "failure"),
}
FINAL = {
    400: ("bad_request", "invalid_input", "processed", "success"),
    401: ("authentication_error", "fatal", "processed", "success"),
    402: ("quota_exhausted", "fatal", "processed", "ignored"),
    403: ("permission_denied", "fatal", "processed", "success"),
    404: ("not_found", "fatal", "processed", "success"),
    405: ("bad_request", "invalid_input", "processed", "success"),
    407: ("configuration_error", "fatal", "processed", "ignored"),
    409: ("bad_request", "invalid_input", "processed", "success"),
    410: ("not_found", "fatal", "processed", "success"),
    412: ("bad_request", "invalid_input", "processed", "success"),
    413: ("bad_request", "invalid_input", "processed", "success"),
    422: ("bad_request", "invalid_input", "processed", "success"),
    451: ("permission_denied", "fatal", "processed", "success"),
    501: ("server_error", "fatal", "processed", "failure"),
    505: ("server_error", "fatal", "processed", "failure"),
    520: ("server_error", "fatal", "processed", "failure"),
}
STATUSES = RETRIED | FINAL
# Loading the world's certificates is most of the cost of a call; nothing here is encrypted.
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
both = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])


@both
@pytest.mark.parametrize("status", STATUSES)
def test_status_of_an_httpx_error(library: ModuleType, status: int, loopback: Any, told: Told) -> None:
    """raise_for_status() of either httpx is understood, status by status."""
    response = library.get(loopback.serve(loopback.reply(status)).url, verify=PLAIN)
    with pytest.raises(library.HTTPStatusError) as caught:
        response.raise_for_status()
    failure = classify(caught.value)
    assert told(failure) == STATUSES[status]
    assert (failure.status, failure.error_type) == (status, f"{library.__name__}.HTTPStatusError")


@both
@pytest.mark.parametrize("status", STATUSES)
def test_status_of_a_response(library: ModuleType, status: int, loopback: Any, told: Told) -> None:
    """A response says the same as the exception that could be made of it."""
    failure = classify(library.get(loopback.serve(loopback.reply(status)).url, verify=PLAIN))
    assert told(failure) == STATUSES[status]
    assert failure.status == status


@pytest.mark.parametrize("status", RETRIED)
@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_status_of_an_sdk_error(name: str, status: int, loopback: Any, told: Told) -> None:
    """Each retried status is understood when it comes as an exception of the openai or the anthropic SDK."""
    url = loopback.serve(loopback.reply(status, {"retry-after": "7"}, "no")).url
    message = {"role": "user", "content": "x"}
    if name == "openai":
        client: Any = openai.OpenAI(api_key="k", base_url=url, max_retries=0, http_client=httpx2.Client(verify=PLAIN))
        with client, pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="m", messages=[message])
    else:
        client = anthropic.Anthropic(api_key="k", base_url=url, max_retries=0, http_client=httpx2.Client(verify=PLAIN))
        with client, pytest.raises(anthropic.APIStatusError) as caught:  # type: ignore[assignment]
            client.messages.create(model="m", max_tokens=1, messages=[message])
    failure = classify(caught.value)
    assert told(failure) == RETRIED[status]
    assert (failure.status, failure.retry_after) == (status, 7.0)


@both
@pytest.mark.parametrize("status", [302, 304])
def test_redirect_that_nobody_followed(library: ModuleType, status: int, loopback: Any, told: Told) -> None:
    """A redirect that arrives as an error is final and speaks for the provider."""
    response = library.get(loopback.serve(loopback.reply(status)).url, verify=PLAIN)
    with pytest.raises(library.HTTPStatusError) as caught:
        response.raise_for_status()
    assert told(classify(caught.value)) == ("bad_request", "fatal", "processed", "success")


@both
def test_good_response_is_no_failure_of_the_provider(library: ModuleType, loopback: Any) -> None:
    """Asked about a response that is fine, classify finds nothing to hold against the provider or to retry."""
    for status, body in ((204, ""), (200, {"type": "server_error"})):
        failure = classify(library.get(loopback.serve(loopback.reply(status, {}, body)).url, verify=PLAIN))
        assert not failure.retryable
        assert failure.verdict is Verdict.SUCCESS
        assert failure.status == status


class TestCodes:
    """The provider's own code beside the status."""

    @both
    @pytest.mark.parametrize(
        "body",
        [
            {"error": {"message": "m", "type": "insufficient_quota", "code": "insufficient_quota"}},
            {"error": {"message": "m", "code": "billing_hard_limit_reached"}},
            {"code": "billing_not_active"},
            {"error": {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}}},
        ],
    )  # fmt: skip
    def test_spent_quota_is_no_rate_limit(self, library: ModuleType, body: object, loopback: Any, told: Told) -> None:
        """A 429 that says the money is gone is final: waiting does not help."""
        response = library.get(loopback.serve(loopback.reply(429, {}, body)).url, verify=PLAIN)
        assert told(classify(response)) == ("quota_exhausted", "fatal", "processed", "ignored")

    @both
    @pytest.mark.parametrize("code", ["SlowDown", "Throttling", "RequestLimitExceeded"])
    def test_throttling_code_in_xml(self, library: ModuleType, code: str, loopback: Any, told: Told) -> None:
        """A 503 of S3's that means "slow down" is a rate limit, not an outage."""
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>"
        failure = classify(library.get(loopback.serve(loopback.reply(503, {}, body)).url, verify=PLAIN))
        assert told(failure) == ("rate_limit", "transient", "processed", "ignored")
        assert failure.code == code

    @both
    def test_general_code_does_not_outweigh_the_status(self, library: ModuleType, loopback: Any, told: Told) -> None:
        """Openai says "invalid_request_error" with a 404: it is the 404 that counts."""
        body = {"error": {"type": "invalid_request_error", "code": None}}
        failure = classify(library.get(loopback.serve(loopback.reply(404, {}, body)).url, verify=PLAIN))
        assert told(failure) == STATUSES[404]
        assert failure.code == "invalid_request_error"

    @both
    @pytest.mark.parametrize(
        "body",
        ["", "<html>", "{", "[1]", "null", '{"error": "Something went wrong, Alice"}', "x" * 70_000, "[" * 60_000],
    )
    def test_body_that_tells_nothing(self, library: ModuleType, body: str, loopback: Any, told: Told) -> None:
        """Whatever the body of an error is, the status stands, and no sentence of it gets into the failure."""
        failure = classify(library.get(loopback.serve(loopback.reply(500, {}, body)).url, verify=PLAIN))
        assert told(failure) == RETRIED[500]
        assert failure.code is None

    def test_body_that_was_not_read_is_left_alone(self, loopback: Any, told: Told) -> None:
        """A streamed response is classified by its status; its body still belongs to the caller."""
        url = loopback.serve(loopback.reply(429, {}, {"error": {"code": "insufficient_quota"}})).url
        with httpx.stream("GET", url, verify=PLAIN) as response:
            assert told(classify(response)) == RETRIED[429]
            assert b"insufficient_quota" in response.read()


@pytest.mark.parametrize(
    "stated, status, told_by_it",
    [
        ("true", 409, ("bad_request", "retriable", "processed", "success")),
        ("true", 429, ("rate_limit", "transient", "processed", "ignored")),
        ("false", 429, ("rate_limit", "fatal", "processed", "ignored")),
        ("false", 503, ("overloaded", "fatal", "processed", "failure")),
        ("FALSE", 500, ("server_error", "fatal", "processed", "failure")),
        ("perhaps", 500, ("server_error", "retriable", "processed", "failure")),
    ],
)
def test_should_retry_header_decides(
    stated: str, status: int, told_by_it: tuple[str, ...], loopback: Any, told: Told
) -> None:
    """x-should-retry is the provider's own word on trying again; the kind and the evidence stay."""
    url = loopback.serve(loopback.reply(status, {"x-should-retry": stated})).url
    assert told(classify(httpx.get(url, verify=PLAIN))) == told_by_it
