"""Streams of the real openai and anthropic SDKs, over a transport that needs no network."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anthropic
import anyio
import anyio.lowlevel
import httpx2
import openai
import pytest

from resilience import CallTimeout, FailureKind, RetrySettings, StreamInterrupted, StreamSettings, failure_of

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_time,  # the clients ask a thread for the name of the platform, and virtual time waits for none
    # When a stream is closed early, the SDKs leave generators of their own, further inside, to the collector.
    pytest.mark.filterwarnings("ignore:Async generator '(openai|anthropic|http):ResourceWarning"),
]

ASK: Any = [{"role": "user", "content": "x"}]
QUICK = RetrySettings(base_delay=0.001)


def openai_event(text: str) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


MESSAGE = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "content": [],
    "model": "m",
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
OPENAI = [*(f"data: {json.dumps(openai_event(text))}\n\n" for text in ("he", "llo")), "data: [DONE]\n\n"]
ANTHROPIC = [
    f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
    for event in (
        {"type": "message_start", "message": MESSAGE},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_stop"},
    )
]


class Server(httpx2.AsyncByteStream):
    """Answers with what its next step says: a status, or a stream that is cut or falls silent, or a whole one."""

    def __init__(self, *steps: object) -> None:
        self.steps = list(steps)
        self.lines: list[str] = []
        self.ending: object = None
        self.open = 0

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        assert self.open == 0, "the connection of an earlier attempt is still in use"
        self.ending = self.steps.pop(0)
        if isinstance(self.ending, int):
            return httpx2.Response(self.ending, json={"error": {"message": "x"}})
        self.open += 1
        lines = ANTHROPIC if "anthropic" in request.url.host else OPENAI
        self.lines = lines if self.ending == "whole" else lines[:-1]
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for line in self.lines:
            await anyio.lowlevel.checkpoint()
            yield line.encode()
        if self.ending == "cut":
            raise httpx2.RemoteProtocolError("peer closed connection without sending complete message body")
        if self.ending == "silent":
            await anyio.sleep_forever()

    async def aclose(self) -> None:
        self.open -= 1
        await anyio.lowlevel.checkpoint()


def opener(sdk: str, server: Server) -> tuple[Callable[..., Any], dict[str, Any]]:
    """What is handed to `stream`, and its arguments."""
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(server.answer))
    if sdk == "openai":
        client = openai.AsyncOpenAI(api_key="k", http_client=http, max_retries=0)
        return client.chat.completions.create, {"model": "m", "messages": ASK, "stream": True}
    messages = anthropic.AsyncAnthropic(api_key="k", http_client=http, max_retries=0).messages
    asked: dict[str, Any] = {"model": "m", "messages": ASK, "max_tokens": 9}
    return (messages.stream, asked) if sdk == "anthropic" else (messages.create, {**asked, "stream": True})


SDKS = pytest.mark.parametrize("sdk", ["openai", "anthropic", "anthropic create"])


@SDKS
async def test_retried_and_whole(world, sdk: str) -> None:
    """A stream that is refused at first is opened again, read to its end and closed."""
    provider, server = world.provider(retry=QUICK), Server(500, "whole")
    func, asked = opener(sdk, server)
    async with provider.stream(func, **asked) as items:
        assert len([item async for item in items]) >= 2
        assert provider.snapshot().in_flight == 1
    now = provider.snapshot()
    assert (server.steps, server.open, now.in_flight, now.recovered) == ([], 0, 0, 1)


@SDKS
async def test_cut(world, sdk: str) -> None:
    """One that is cut is interrupted, and is not asked for again."""
    provider, server = world.provider(retry=QUICK), Server("cut", "whole")
    func, asked = opener(sdk, server)
    with pytest.raises(StreamInterrupted) as caught:
        async with provider.stream(func, **asked) as items:
            assert [item async for item in items]
    failure = failure_of(caught.value)
    assert failure is not None
    assert failure.kind is FailureKind.INTERRUPTED
    assert (server.steps, server.open, provider.snapshot().breaker.failed) == (["whole"], 0, 1)


@SDKS
async def test_silent(world, sdk: str) -> None:
    """One that falls silent is interrupted by its idle limit, whatever the client's own timeouts are."""
    provider, server = world.provider(stream=StreamSettings(idle=0.05)), Server("silent")
    func, asked = opener(sdk, server)
    with pytest.raises(StreamInterrupted) as caught:
        async with provider.stream(func, **asked) as items:
            assert [item async for item in items]
    assert isinstance(caught.value.__cause__, CallTimeout)
    assert (caught.value.__cause__.scope, server.open, provider.snapshot().in_flight) == ("idle", 0, 0)


@SDKS
async def test_left_early(world, sdk: str) -> None:
    """One that is left early gives its connection back."""
    provider, server = world.provider(), Server("silent")
    func, asked = opener(sdk, server)
    async with provider.stream(func, **asked) as items:
        await anext(items)
    assert (server.open, provider.snapshot().in_flight, provider.snapshot().breaker.calls) == (0, 0, 0)
