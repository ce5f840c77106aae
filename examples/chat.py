"""
Stream answers from two LLM providers, one of which is having a bad day, and lose no question.

Run it with ``python examples/chat.py``: the providers are played, on virtual time.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import anyio

from resilience import (
    BulkheadSettings,
    FallbackChain,
    ProviderRegistry,
    ProviderSettings,
    RateLimitSettings,
    Settings,
    StreamInterrupted,
    StreamSettings,
)
from resilience.events import FellBack
from resilience.testing import EventRecorder, Fault, Faults, VirtualClock, run

SETTINGS = Settings(
    defaults=ProviderSettings(
        bulkhead=BulkheadSettings(max_concurrent=2, max_wait=30),
        rate_limit=RateLimitSettings(requests_per_minute=60),
        stream=StreamSettings(first_item=5, idle=2, keep=100),
    )
)


async def words_of(text: str) -> AsyncIterator[str]:
    """Speak slowly."""
    for word in text.split():
        await anyio.sleep(0.1)
        yield word


async def gpt(question: str) -> Any:
    """Stand for ``client.chat.completions.create(..., stream=True)``."""
    return words_of(f"gpt says that {question} is easy")


async def claude(question: str) -> Any:
    """Stand for ``client.messages.create(..., stream=True)``."""
    return words_of(f"claude says that {question} is fine")


async def answer(chain: FallbackChain[Any], question: str) -> None:
    """Print one answer; when it breaks off half-way, say so and show what there is."""
    try:
        async with chain.stream(gpt, question) as items:
            words = [word async for word in items]
    except StreamInterrupted as broken:
        words = [*broken.items, f"... ({broken})"]
    print(*words)


async def main() -> None:
    """Ask both providers six questions at once."""
    registry = ProviderRegistry(SETTINGS, clock=VirtualClock(), rng=random.Random(1))
    events = EventRecorder()
    registry.subscribe(events)
    chain = registry.provider("openai").fallback_to("anthropic", claude)
    bad_day = Faults.script(["hang", "error", Fault("cut", after=3)], then="ok")
    with bad_day.inject(registry.provider("openai")):
        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(answer, chain, f"question {number}")
    print(f"{len(events.of(FellBack))} questions went on to anthropic, {len(events.retries)} were put to openai again")


if __name__ == "__main__":
    run(main)
