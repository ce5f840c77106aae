"""
What type checkers must see through the package; checked by mypy and pyright, never run.

Every ``type: ignore`` here is an error that must be reported: if it is not, the checkers complain about the comment.
"""

from __future__ import annotations

import asyncio
import functools
from typing import assert_type

from resilience import Outcome, ProviderPool, ResilientProvider


class Reply:
    """What the functions below answer."""


async def send(path: str, *, retries: int = 0) -> Reply:
    """A function with a positional and a keyword argument, as an SDK has them."""
    raise NotImplementedError


async def nothing() -> None:
    """A function that answers nothing."""


provider = ResilientProvider("typed")


async def execute_infers_the_result() -> None:
    """`execute` returns what the function returns."""
    assert_type(await provider.execute(send, "/a"), Reply)
    assert_type(await provider.execute(send, "/a", retries=3), Reply)
    assert_type(await provider.execute(lambda: send("/a")), Reply)
    assert_type(await provider.execute(functools.partial(send, "/a")), Reply)


async def execute_checks_the_arguments() -> None:
    """`execute` refuses arguments that the function would refuse."""
    await provider.execute(send)  # type: ignore[call-arg]
    await provider.execute(send, 1)  # type: ignore[arg-type]
    await provider.execute(send, "/a", tries=3)  # type: ignore[call-arg]


async def execute_makes_coroutines() -> None:
    """What `execute` returns can become a task."""
    assert_type(await asyncio.create_task(provider.execute(send, "/a")), Reply)


async def try_execute_infers_the_value() -> None:
    """An outcome knows what it holds."""
    outcome = await provider.try_execute(send, "/a")
    assert_type(outcome, Outcome[Reply])
    assert_type(outcome.unwrap(), Reply)
    assert_type(outcome.ok, bool)
    assert_type(outcome.retry_after, float | None)


async def options_keep_the_types() -> None:
    """A view with other options infers like the provider itself."""
    assert_type(await provider.with_options(timeout=5.0, operation="send").execute(send, "/a"), Reply)


@provider.wrap
async def wrapped(path: str, *, retries: int = 0) -> Reply:
    """A function with the decorator."""
    raise NotImplementedError


async def wrap_keeps_the_signature() -> None:
    """A decorated function is called and checked as it was before."""
    assert_type(await wrapped("/a", retries=1), Reply)
    await wrapped()  # type: ignore[call-arg]
    await wrapped("/a", tries=1)  # type: ignore[call-arg]
    assert_type(await provider.wrap(nothing)(), None)


async def loops_give_attempts() -> None:
    """The loop form leaves the body's own types alone."""
    reply: Reply | None = None
    async for attempt in provider.attempts():
        async with attempt:
            reply = await send("/a")
    assert_type(reply, Reply | None)


async def other(path: str) -> bytes:
    """Another provider's function."""
    raise NotImplementedError


async def fallbacks_add_their_types() -> None:
    """What may come out is what any provider's function, the value or the last function returns."""
    chain = provider.fallback_to("backup")
    assert_type(await chain.execute(send, "/a"), Reply)
    assert_type(await chain.fallback_to("third", other).execute(send, "/a"), Reply | bytes)
    assert_type(await chain.fallback_value(None).execute(send, "/a"), Reply | None)
    assert_type(await provider.fallback_to("third", other).fallback_with(str).execute(send, "/a"), Reply | bytes | str)
    assert_type((await chain.try_execute(send, "/a")).unwrap(), Reply)


async def through(client: bytes, path: str) -> Reply:
    """A function that gets its client first."""
    raise NotImplementedError


async def pools_hand_over_their_resource() -> None:
    """The function gets a member's resource first, and its other arguments are checked."""
    pool = ProviderPool({provider: b"client"})
    assert_type(await pool.execute(through, "/a"), Reply)
    await pool.execute(through)  # type: ignore[call-arg]
    await pool.execute(send, "/a")  # type: ignore[arg-type, call-arg]
