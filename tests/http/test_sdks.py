"""The openai and the anthropic SDK, driven through the transports against a server with faults."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest

from providers.http import client, client2
from resilience import CallTimeout, CircuitOpen, CircuitState, FailureKind, RetrySettings

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_time,
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
]

ASK: Any = [{"role": "user", "content": "x"}]
ANSWERS: dict[str, Any] = {
    "openai": {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
    },
    "anthropic": {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "hi"}],
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
}
EVENTS = {
    "openai": [
        b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}\n\n',
        b"data: [DONE]\n\n",
    ],
    "anthropic": [
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n',
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    ],
}


class Sdk:
    """One SDK on one of the two libraries."""

    def __init__(self, name: str, make: Any, http: Any) -> None:
        self.name = name
        self.module: Any = openai if name == "openai" else anthropic
        self.http = http
        kind = self.module.AsyncOpenAI if name == "openai" else self.module.AsyncAnthropic
        self.client = kind(api_key="k", base_url=str(make), max_retries=0, http_client=http)

    async def ask(self, *, stream: bool = False) -> Any:
        if self.name == "openai":
            return await self.client.chat.completions.create(model="m", messages=ASK, stream=stream)
        return await self.client.messages.create(model="m", max_tokens=5, messages=ASK, stream=stream)


@pytest.fixture(params=["openai", "anthropic", "openai on httpx"])
def start(request: pytest.FixtureRequest, serve: Any, world: Any) -> Any:
    """Start a server and an SDK that calls it; completions do no harm when they are repeated."""
    name, _, library = request.param.partition(" on ")

    def started(*steps: Any, **settings: Any) -> tuple[Sdk, Any, Any]:
        named = [step(name) if getattr(step, "for_sdk", False) else step for step in steps]
        site = serve(*named)
        settings.setdefault("breaker", {"failure_threshold": 2})
        registry = world.registry(**settings)
        make: Any = client if library == "httpx" else client2
        http = make("llm", registry=registry, trust_env=False, methods={"POST"}, timeout=5.0)
        return Sdk(name, site.url, http), site, registry.provider("llm")

    return started


def for_sdk(step: Any) -> Any:
    step.for_sdk = True
    return step


@pytest.fixture
def answer(world: Any) -> Any:
    """What the SDK's provider would answer."""
    return for_sdk(lambda name: world.Site.reply(200, ANSWERS[name]))


@pytest.fixture
def streams(world: Any) -> Any:
    """What the SDK's provider would stream; *whole* or cut after the first event."""

    def make(*, whole: bool = True) -> Any:
        def step(name: str) -> Any:
            events = EVENTS[name] if whole else EVENTS[name][:1]
            kind = {"content_type": "text/event-stream"}
            return world.Site.stream(*events, then="end" if whole else "cut", **kind)

        return for_sdk(step)

    return make


async def test_an_answer(start: Any, answer: Any, world: Any) -> None:
    """An SDK works through the transport, and leaves its connection idle."""
    sdk, _, provider = start(answer)
    async with sdk.http:
        assert (await sdk.ask()).model == "m"
        assert [connection.is_idle() for connection in world.pool(sdk.http).connections] == [True]
    assert provider.breaker.snapshot().calls == 1
    assert provider.snapshot().in_flight == 0


@pytest.mark.parametrize("fault", ["rate limit", "busy", "reset"])
async def test_faults_are_absorbed(start: Any, answer: Any, world: Any, fault: str) -> None:
    """What goes by is tried again below the SDK, on one call of it."""
    steps = {
        "rate limit": world.Site.reply(429, {"error": {"code": "rate_limit_exceeded"}}, retry_after_ms="20"),
        "busy": world.Site.reply(503, {"error": {"type": "overloaded_error"}}),
        "reset": world.Site.reset,
    }
    sdk, site, provider = start(steps[fault], answer)
    async with sdk.http:
        assert (await sdk.ask()).model == "m"
    assert site.requests == 2
    assert provider.snapshot().recovered == 1
    assert {seen.headers["x-stainless-retry-count"] for seen in site.seen} == {"0"}


async def test_the_last_fault_is_the_sdks_own(start: Any, world: Any) -> None:
    """The SDK judges the last response by itself, with its body."""
    busy = world.Site.reply(503, {"error": {"message": "busy now", "type": "overloaded_error"}})
    sdk, site, provider = start(busy, breaker={"failure_threshold": 3})
    async with sdk.http:
        with pytest.raises(sdk.module.InternalServerError, match="busy now") as caught:
            await sdk.ask()
    assert caught.value.status_code == 503
    assert caught.value.response.extensions["resilience"].attempts == 3
    assert site.requests == 3
    assert provider.breaker.state is CircuitState.OPEN


@pytest.mark.parametrize("fault", ["busy", "reset"])
async def test_attempts_do_not_multiply(start: Any, world: Any, fault: str) -> None:
    """A call of the SDK inside `execute` of the same provider is tried three times, not nine, and told once."""
    busy = world.Site.reply(503, {"error": {"message": "busy now", "type": "overloaded_error"}})
    sdk, site, provider = start(busy if fault == "busy" else world.Site.reset, breaker={"failure_threshold": 20})
    async with sdk.http:
        with pytest.raises(sdk.module.APIError):
            await provider.execute(sdk.ask)
    assert site.requests == 3
    assert provider.breaker.snapshot().failures_in_a_row == 3


async def test_a_slow_first_byte(start: Any, world: Any) -> None:
    """Our timeout is the SDK's timeout, and says which it was."""
    sdk, _, provider = start(world.Site.hang, timeout={"attempt": 0.05}, retry=RetrySettings(enabled=False))
    async with sdk.http:
        with pytest.raises(sdk.module.APITimeoutError) as caught:
            await sdk.ask()
    assert isinstance(caught.value.__cause__, CallTimeout)
    assert provider.snapshot().timeouts == 1


async def test_an_open_circuit(start: Any, answer: Any) -> None:
    """Our refusal is the SDK's connection error, and its cause tells when to come back."""
    sdk, site, provider = start(answer)
    provider.breaker.open()
    async with sdk.http:
        with pytest.raises(sdk.module.APIConnectionError) as caught:
            await sdk.ask()
    assert isinstance(caught.value.__cause__, CircuitOpen)
    assert site.requests == 0


async def test_a_stream(start: Any, streams: Any, world: Any) -> None:
    """A stream holds its permit to its end."""
    sdk, _, provider = start(world.Site.reply(503), streams())
    async with sdk.http:
        stream = await sdk.ask(stream=True)
        assert provider.snapshot().in_flight == 1
        assert [event async for event in stream]
        assert provider.snapshot().in_flight == 0
        assert provider.snapshot().recovered == 1
        assert [connection.is_idle() for connection in world.pool(sdk.http).connections] == [True]


async def test_a_stream_that_is_cut(start: Any, streams: Any) -> None:
    """A cut is evidence, reaches the reader, and is not repeated behind the reader's back."""
    sdk, site, provider = start(streams(whole=False), breaker={"failure_threshold": 1})
    seen = []
    async with sdk.http:
        with pytest.raises((httpx.RemoteProtocolError, httpx2.RemoteProtocolError, sdk.module.APIConnectionError)):
            async for event in await sdk.ask(stream=True):
                seen.append(event)  # noqa: PERF401 - a comprehension would lose what came before the cut
    assert len(seen) == 1
    assert site.requests == 1
    assert provider.breaker.state is CircuitState.OPEN


async def test_a_stream_that_is_left(start: Any, world: Any) -> None:
    """Whoever leaves a stream early holds nothing any more."""
    events = for_sdk(lambda name: world.Site.stream(EVENTS[name][0], then="hang", content_type="text/event-stream"))
    sdk, _, provider = start(events)
    async with sdk.http:
        async with await sdk.ask(stream=True) as stream:
            async for _ in stream:
                break
        assert provider.snapshot().in_flight == 0
        assert not world.pool(sdk.http).connections
    assert provider.breaker.snapshot().calls == 0


async def test_credentials_that_are_refused(start: Any, world: Any) -> None:
    """A refusal that trying again cannot mend is told at once, and is no evidence."""
    sdk, site, provider = start(world.Site.reply(401, {"error": {"message": "who are you"}}))
    async with sdk.http:
        with pytest.raises(sdk.module.AuthenticationError, match="who are you") as caught:
            await sdk.ask()
    assert caught.value.response.extensions["resilience"].kind is FailureKind.AUTHENTICATION_ERROR
    assert site.requests == 1
    assert provider.breaker.snapshot().failed == 0
