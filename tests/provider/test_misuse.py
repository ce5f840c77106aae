"""Slips in what is handed to `execute`, and what is said about them."""

from __future__ import annotations

import asyncio
import copy
import functools
import pickle
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from resilience import ConfigurationError, ProviderRegistry, ProviderSettings, ResilientProvider, Settings

SLOW = "resilience: openai: gave up after 1 attempt (bad_request; not_retryable)"


async def fetch(url: str) -> str:
    return url


async def await_reply(number: int) -> int:
    return number


def read(path: str = "") -> bytes:
    return b"content"


def read_or_wait(path: str) -> Any:
    raise TypeError("object bytes can't be used in 'await' expression")


async def pages() -> AsyncIterator[int]:
    yield 1


async def misuse(world, *given: Any, **kwargs: Any) -> TypeError:
    """The error that a call ends with, the first time and the second, which goes another way."""
    provider = world.provider()
    errors = []
    for _ in range(2):
        with pytest.raises(TypeError) as caught:
            await provider.execute(*given, **kwargs)
        errors.append(caught.value)
    assert str(errors[0]) == str(errors[1])
    assert provider.snapshot().breaker.calls == provider.snapshot().in_flight == 0
    return errors[1]


class Reader:
    def read(self) -> bytes:
        return b"content"

    def __call__(self) -> bytes:
        return b"content"


SYNCHRONOUS = {
    "read": read,
    "Reader.read": Reader().read,
    "Reader": Reader(),
    "partial": functools.partial(read, "a"),
    "str": str,
    "pages": pages,
}


@pytest.mark.anyio
@pytest.mark.parametrize("name, func", SYNCHRONOUS.items(), ids=SYNCHRONOUS)
async def test_a_synchronous_function(world, name: str, func: Any) -> None:
    """A synchronous function is answered with the call that runs it in a thread."""
    assert str(await misuse(world, func)) == (
        f"execute() awaits what {name} returns, and that cannot be awaited. If {name} is a synchronous function, "
        f"write execute(anyio.to_thread.run_sync, {name}, ...)"
    )


@pytest.mark.anyio
@pytest.mark.real_time
async def test_the_call_that_is_shown_works(world) -> None:
    """What the message about synchronous functions says can be done."""
    assert await world.provider().execute(anyio.to_thread.run_sync, read, "a") == b"content"


@pytest.mark.anyio
async def test_a_coroutine(world) -> None:
    """A coroutine is answered with the call to write; it is closed, so nobody is warned that it was never awaited."""
    for _ in range(2):
        coroutine = fetch("a")
        with pytest.raises(TypeError) as caught:
            await world.provider().execute(coroutine)
        assert str(caught.value) == (
            "execute() takes a function and its arguments, not a coroutine: "
            "write execute(fetch, ...) instead of execute(fetch(...))"
        )
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await coroutine


@pytest.mark.anyio
@pytest.mark.parametrize("thing", [None, 5, "fetch", [fetch], object()], ids=["none", "5", "name", "list", "object"])
async def test_what_cannot_be_called(world, thing: object) -> None:
    """Anything else that cannot be called is named."""
    kind = type(thing).__name__
    assert str(await misuse(world, thing, "a")) == f"execute() takes an async function and its arguments, not {kind}"


@pytest.mark.anyio
@pytest.mark.parametrize("given", [(), ("a", "b")])
async def test_wrong_arguments(world, given: tuple[str, ...]) -> None:
    """Wrong arguments are reported in Python's own words, whatever the function is called."""
    for func in (fetch, await_reply):
        with pytest.raises(TypeError) as plain:
            func(*given)
        error = await misuse(world, func, *given)
        assert str(error) == str(plain.value)
        assert error.__notes__ == [SLOW]


@pytest.mark.anyio
async def test_an_unknown_keyword(world) -> None:
    """A keyword that looks like an option of ours is the function's, so it is the function that refuses it."""
    assert str(await misuse(world, await_reply, 1, timeout=5)) == (
        "await_reply() got an unexpected keyword argument 'timeout'"
    )


@pytest.mark.anyio
async def test_type_errors_from_inside(world) -> None:
    """A `TypeError` from inside the function is left alone, even if it speaks of awaiting."""

    async def confused() -> None:
        await read()

    with pytest.raises(TypeError) as plain:
        await confused()
    assert str(await misuse(world, confused)) == str(plain.value)
    error = await misuse(world, read_or_wait, "a")
    assert str(error) == "object bytes can't be used in 'await' expression"
    assert error.__notes__ == [SLOW]


def test_a_task() -> None:
    """A task that was made already is no function either, and is left to run."""

    async def use() -> None:
        task = asyncio.ensure_future(fetch("a"))
        with pytest.raises(TypeError) as caught:
            await ProviderRegistry().provider("openai").execute(task)
        assert str(caught.value) == "execute() takes an async function and its arguments, not Task"
        assert await task == "a"

    asyncio.run(use())


def outside(step: Any) -> str:
    """What is said when a call is driven where no event loop runs."""
    with pytest.raises(RuntimeError) as caught:
        step.send(None)
    return str(caught.value)


def test_outside_of_any_event_loop() -> None:
    """Outside of an event loop, and of any task, a call says what it needs; its function is not called."""
    called = []
    provider = ProviderRegistry(Settings()).provider("openai")

    def note() -> None:
        called.append(1)

    text = "a provider's calls are awaited in an asyncio or trio task, and none is running here"
    assert outside(provider.execute(note)) == text
    assert outside(provider.wrap(fetch)("a")) == text

    async def use() -> None:
        assert await provider.execute(fetch, "a") == "a"
        assert await provider.execute(fetch, "a") == "a"
        failed = []

        def callback() -> None:
            failed.append(outside(provider.execute(note)))

        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(0)
        assert failed == [text]

    asyncio.run(use())
    assert outside(provider.execute(note)) == text  # on what was the fast path before
    assert called == []
    assert provider.snapshot().in_flight == 0


def test_switched_off_outside_of_any_event_loop() -> None:
    """Switched off, `execute` is a plain await, which needs no event loop of any kind."""
    settings = Settings(providers={"openai": ProviderSettings(enabled=False)})
    step = ProviderRegistry(settings).provider("openai").execute(fetch, "a")
    with pytest.raises(StopIteration) as caught:
        step.send(None)
    assert caught.value.value == "a"


@pytest.mark.parametrize("wrong", [Settings(), "openai", 7])
def test_something_else_for_a_registry(wrong: Any) -> None:
    """What is no registry is refused at once, with the way to make one."""
    with pytest.raises(ConfigurationError, match=r"takes a ProviderRegistry, not \w+: .*ProviderRegistry\(settings\)"):
        ResilientProvider("openai", registry=wrong)


@pytest.mark.parametrize("send", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_handle_stays_in_its_process(send: Any) -> None:
    """A handle is not sent or copied: the refusal says what to send instead."""
    with pytest.raises(TypeError, match="send its name"):
        send(ResilientProvider("openai", registry=ProviderRegistry()))
