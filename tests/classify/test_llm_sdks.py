"""The openai and the anthropic SDK, which both sit on httpx2."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from resilience.classify import classify
from resilience.failure import Failure

Told = Callable[[Failure], tuple[str, str, str, str]]

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_time,
    pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning"),
]

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
REFUSED = ("connection_error", "retriable", "unsent", "failure")
LOST = ("connection_error", "retriable", "maybe", "failure")
CUT = ("interrupted", "retriable", "processed", "failure")
RATE_LIMIT = ("rate_limit", "transient", "processed", "ignored")
QUOTA = ("quota_exhausted", "fatal", "processed", "ignored")
OVERLOADED = ("overloaded", "transient", "processed", "failure")

OPENAI_CHUNK = (
    'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m",'
    '"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
)
ANTHROPIC_CHUNK = (
    'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant",'
    '"content":[],"model":"m","usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
)
ASK: Any = [{"role": "user", "content": "x"}]


async def ask_openai(url: str, *, stream: bool = False, timeout: float = 5.0) -> Failure:
    async with httpx2.AsyncClient(verify=PLAIN) as http:
        client = openai.AsyncOpenAI(api_key="k", base_url=url, max_retries=0, timeout=timeout, http_client=http)
        with pytest.raises(Exception) as caught:
            answer: Any = await client.chat.completions.create(model="m", messages=ASK, stream=stream)
            assert [chunk async for chunk in answer]
    return classify(caught.value)


async def ask_anthropic(url: str, *, stream: bool = False, timeout: float = 5.0) -> Failure:
    async with httpx2.AsyncClient(verify=PLAIN) as http:
        client = anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0, timeout=timeout, http_client=http)
        with pytest.raises(Exception) as caught:
            answer: Any = await client.messages.create(model="m", max_tokens=1, messages=ASK, stream=stream)
            assert [chunk async for chunk in answer]
    return classify(caught.value)


Ask = Callable[..., Awaitable[Failure]]
both = pytest.mark.parametrize("ask", [ask_openai, ask_anthropic], ids=["openai", "anthropic"])


@both
class TestNetwork:
    """The SDKs wrap what httpx2 raises; the root is read through the wrapping."""

    async def test_refused(self, ask: Ask, loopback: Any, told: Told) -> None:
        """A refused connection was not sent, and keeps the SDK's name."""
        failure = await ask(loopback.refused().url)
        assert told(failure) == REFUSED
        assert failure.error_type.endswith(".APIConnectionError")

    async def test_unknown_host(self, ask: Ask, no_such_host: str, told: Told) -> None:
        """A name that does not resolve shows through APIConnectionError."""
        assert told(await ask(f"http://{no_such_host}")) == ("dns_error", "retriable", "unsent", "failure")

    async def test_untrusted(self, ask: Ask, loopback: Any, told: Told) -> None:
        """The SDKs would retry a failed check of the certificate; it is final."""
        endpoint = loopback.serve(loopback.reply(200), tls=loopback.certificate())
        assert told(await ask(endpoint.url)) == ("certificate_error", "fatal", "unsent", "failure")

    async def test_connect_timeout(self, ask: Ask, loopback: Any, told: Told) -> None:
        """A timeout while connecting sent nothing."""
        failure = await ask(loopback.unanswered().url, timeout=0.1)
        assert told(failure) == ("timeout", "retriable", "unsent", "failure")

    async def test_read_timeout(self, ask: Ask, loopback: Any, told: Told) -> None:
        """A timeout while waiting for the answer leaves open what happened."""
        failure = await ask(loopback.serve(loopback.hang).url, timeout=0.1)
        assert told(failure) == ("timeout", "retriable", "maybe", "failure")

    async def test_reset(self, ask: Ask, loopback: Any, told: Told) -> None:
        """A reset leaves open what happened."""
        assert told(await ask(loopback.serve(loopback.reset).url)) == LOST

    async def test_cut_body(self, ask: Ask, loopback: Any, told: Told) -> None:
        """A body that ends early was answered, but not to the end."""
        assert told(await ask(loopback.serve(loopback.cut_body).url)) == CUT

    async def test_body_that_is_no_json(self, ask: Ask, loopback: Any, told: Told) -> None:
        """Half a JSON document reaches the caller as a raw JSONDecodeError."""
        url = loopback.serve(loopback.reply(200, {"content-type": "application/json"}, '{"a": ')).url
        failure = await ask(url)
        assert told(failure) == CUT
        assert failure.error_type == "json.JSONDecodeError"

    async def test_stream_cut(self, ask: Ask, loopback: Any, told: Told) -> None:
        """A stream that breaks off is an interruption, wrapped by the SDK or not."""
        chunk = OPENAI_CHUNK if ask is ask_openai else ANTHROPIC_CHUNK
        assert told(await ask(loopback.serve(loopback.events(chunk, cut=True)).url, stream=True)) == CUT

    async def test_bad_chunk(self, ask: Ask, loopback: Any, told: Told) -> None:
        """A chunk that is no JSON is an interruption."""
        bad = 'event: message_delta\ndata: {"a": \n\n'
        assert told(await ask(loopback.serve(loopback.events(bad)).url, stream=True)) == CUT


@pytest.mark.parametrize(
    "error, expected, code",
    [
        ('{"type":"server_error","code":null}', ("server_error", "retriable", "processed", "failure"), "server_error"),
        ('{"type":"tokens","code":"rate_limit_exceeded"}', RATE_LIMIT, "rate_limit_exceeded"),
        ('{"type":"insufficient_quota","code":"insufficient_quota"}', QUOTA, "insufficient_quota"),
        ('{"type":"new_kind_of_error"}', ("server_error", "retriable", "processed", "failure"), "new_kind_of_error"),
        (
            '{"type":"invalid_request_error","code":"context_length_exceeded"}',
            ("bad_request", "invalid_input", "processed", "success"),
            "context_length_exceeded",
        ),
    ],
)
async def test_openai_error_inside_a_stream(
    error: str, expected: tuple[str, ...], code: str, loopback: Any, told: Told
) -> None:
    """An error object inside a stream has no status; its code or its type tells."""
    url = loopback.serve(loopback.events(OPENAI_CHUNK, f'data: {{"error":{error}}}\n\n')).url
    failure = await ask_openai(url, stream=True)
    assert told(failure) == expected
    assert (failure.status, failure.code, failure.error_type) == (None, code, "openai.APIError")


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("overloaded_error", OVERLOADED),
        ("rate_limit_error", RATE_LIMIT),
        ("api_error", ("server_error", "retriable", "processed", "failure")),
        ("timeout_error", ("timeout", "retriable", "processed", "failure")),
        ("billing_error", QUOTA),
        ("authentication_error", ("authentication_error", "fatal", "processed", "success")),
        ("permission_error", ("permission_denied", "fatal", "processed", "success")),
        ("not_found_error", ("not_found", "fatal", "processed", "success")),
        ("invalid_request_error", ("bad_request", "invalid_input", "processed", "success")),
        ("new_kind_of_error", ("server_error", "retriable", "processed", "failure")),
    ],
)
async def test_anthropic_error_event(kind: str, expected: tuple[str, ...], loopback: Any, told: Told) -> None:
    """An error event arrives with status 200; its type tells."""
    event = f'event: error\ndata: {{"type":"error","error":{{"type":"{kind}","message":"m"}}}}\n\n'
    failure = await ask_anthropic(loopback.serve(loopback.events(ANTHROPIC_CHUNK, event)).url, stream=True)
    assert told(failure) == expected
    assert (failure.status, failure.code) == (200, kind)


async def test_openai_quota(loopback: Any, told: Told) -> None:
    """Openai's 429 for an empty account is no rate limit."""
    body = {"error": {"message": "m", "type": "insufficient_quota", "code": "insufficient_quota"}}
    failure = await ask_openai(loopback.serve(loopback.reply(429, {}, body)).url)
    assert told(failure) == QUOTA
    assert failure.code == "insufficient_quota"


@pytest.mark.parametrize(
    "code, expected",
    [
        ("enforced_spend_limit_reached", QUOTA),
        ("contract_spend_limit_reached", QUOTA),
        ("ramp_limit_exceeded", RATE_LIMIT),
    ],
)  # fmt: skip
async def test_anthropic_spend_limit(code: str, expected: tuple[str, ...], loopback: Any, told: Told) -> None:
    """Anthropic's 429 says in error.details whether waiting helps."""
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": "m", "details": {"error_code": code}}}
    failure = await ask_anthropic(loopback.serve(loopback.reply(429, {}, body)).url)
    assert told(failure) == expected
    assert failure.code == code


async def test_anthropic_overload_before_the_stream(loopback: Any, told: Told) -> None:
    """An overload that comes with status 500 is told from a server that fails."""
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "m"}}
    assert told(await ask_anthropic(loopback.serve(loopback.reply(500, {}, body)).url)) == OVERLOADED


async def test_no_api_key(monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    """An SDK that was not set up is a mistake in the settings."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_ADMIN_KEY", raising=False)
    with pytest.raises(openai.OpenAIError) as caught:
        openai.AsyncOpenAI()
    assert told(classify(caught.value)) == ("configuration_error", "fatal", "unsent", "ignored")
