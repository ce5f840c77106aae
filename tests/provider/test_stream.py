"""`stream`: a call whose result comes in pieces, from every shape of source."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Self

import anyio
import pytest

from resilience import (
    BreakerSettings,
    BulkheadFull,
    BulkheadSettings,
    CallTimeout,
    CircuitOpen,
    CircuitState,
    Deadline,
    FailureKind,
    HedgeSettings,
    ProviderError,
    RateLimited,
    RateLimitSettings,
    RetrySettings,
    StreamInterrupted,
    StreamSettings,
    TimeoutSettings,
    Usage,
    failure_of,
)
from resilience.events import AttemptTimedOut, CallFailed, CallRecovered

pytestmark = pytest.mark.anyio

STEADY = RetrySettings(jitter="none", base_delay=1)
NEVER_SLOW = BreakerSettings(slow_rate=None)


class Feed:
    """
    A function that opens a stream; the n-th time it follows the n-th script, and the last one again and again.

    A float in a script is a pause, an error is raised, anything else is an item.
    """

    def __init__(self, *scripts: tuple[object, ...], shape: str = "generator", open_seconds: float = 0.0) -> None:
        self.scripts = scripts
        self.shape = shape
        self.open_seconds = open_seconds
        self.calls = self.opened = self.closed = self.tidied = 0
        self.left_with: list[type[BaseException] | None] = []

    def __call__(self) -> Any:
        script = self.scripts[min(self.calls, len(self.scripts) - 1)]
        self.calls += 1
        assert self.opened == self.closed, "an earlier source is still open"
        return getattr(self, self.shape)(script)

    async def generator(self, script: tuple[object, ...]) -> AsyncIterator[object]:
        self.opened += 1
        try:
            for step in script:
                if isinstance(step, float):
                    await anyio.sleep(step)
                elif isinstance(step, type) and issubclass(step, BaseException):
                    raise step
                else:
                    yield step
        finally:
            self.closed += 1
            await anyio.sleep(0.25)
            self.tidied += 1

    def iterator(self, script: tuple[object, ...]) -> Any:
        """An iterator that is no generator."""
        return Plain(self.generator(script))

    async def openai(self, script: tuple[object, ...]) -> Any:
        """``await client.chat.completions.create(stream=True)``."""
        await anyio.sleep(self.open_seconds)
        return OpenAI(self, self.generator(script))

    def anthropic(self, script: tuple[object, ...]) -> Any:
        """``client.messages.stream(...)``."""
        return Anthropic(self, script)

    async def awaited_manager(self, script: tuple[object, ...]) -> Any:
        return Anthropic(self, script)


class Plain:
    def __init__(self, items: Any) -> None:
        self.items = items

    def __aiter__(self) -> Plain:
        return self

    async def __anext__(self) -> object:
        return await anext(self.items)

    async def aclose(self) -> None:
        await self.items.aclose()


class OpenAI(Plain):
    def __init__(self, feed: Feed, items: Any) -> None:
        super().__init__(items)
        self.feed = feed

    async def __aiter__(self) -> AsyncIterator[object]:  # type: ignore[override]
        async for item in self.items:
            yield item

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.feed.left_with.append(kind)
        await self.close()

    async def close(self) -> None:
        await self.items.aclose()


class Anthropic:
    def __init__(self, feed: Feed, script: tuple[object, ...]) -> None:
        self.feed = feed
        self.script = script

    async def __aenter__(self) -> Plain:
        await anyio.sleep(self.feed.open_seconds)
        self.stream = Plain(self.feed.generator(self.script))
        return self.stream

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.feed.left_with.append(kind)
        await self.stream.aclose()


SHAPES = ("generator", "iterator", "openai", "anthropic", "awaited_manager")
KINDS = ("generator", "iterator")  # on asyncio these two go different ways


def stream(provider: Any, func: Any, **options: Any) -> Any:
    return (provider.with_options(**options) if options else provider).stream(func)


async def all_of(provider: Any, func: Any, **options: Any) -> list[object]:
    async with stream(provider, func, **options) as items:
        return [item async for item in items]


# -- what comes out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_whole_stream(world, shape: str) -> None:
    """Every item comes once and in order; permit and source live until the block is left, and then it is a success."""
    provider, feed = world.provider(), Feed(("a", 1.0, "b", "c"), shape=shape)
    got: list[object] = []
    async with stream(provider, feed) as items:
        async for item in items:
            got.append(item)
            now = provider.snapshot()
            assert (now.in_flight, now.breaker.calls, feed.closed) == (1, 0, 0)
            assert items.count == len(got)
        assert provider.snapshot().in_flight == 1
        assert provider.snapshot().breaker.calls == 0
    now = provider.snapshot()
    assert got == ["a", "b", "c"]
    assert (now.calls, now.in_flight, now.breaker.calls, now.breaker.failed) == (1, 0, 1, 0)
    assert (feed.calls, feed.opened, feed.closed, items.count) == (1, 1, 1, 3)
    assert feed.left_with in ([], [None])


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_empty_stream(world, shape: str) -> None:
    """A source that ends at once is a success without items."""
    provider, feed = world.provider(), Feed((), shape=shape)
    assert await all_of(provider, feed) == []
    assert (feed.calls, feed.opened, feed.closed) == (1, 1, 1)
    assert provider.snapshot().breaker.calls == 1


async def test_arguments(world) -> None:
    """The function gets its arguments, whatever they are called."""

    async def count(first: int, *, limit: int, timeout: float) -> AsyncIterator[float]:
        for number in range(first, limit):
            yield number + timeout

    async with world.provider().stream(count, 1, limit=3, timeout=0.5) as items:
        assert [item async for item in items] == [1.5, 2.5]


@pytest.mark.parametrize("kind", KINDS)
async def test_with_anext(world, kind: str) -> None:
    """Items can be asked for one by one; after the last one, and after the block, there are none."""
    async with stream(world.provider(), Feed(("a", "b"), shape=kind)) as items:
        assert (await anext(items), await anext(items), await anext(items, "end")) == ("a", "b", "end")
        assert aiter(items) is items
    assert await anext(items, "end") == "end"
    assert items.count == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_after_the_block(world, kind: str) -> None:
    """What was not read in the block cannot be read afterwards."""
    async with stream(world.provider(), Feed(("a", "b"), shape=kind), commit=lambda item: item == "b") as items:
        pass
    assert await anext(items, "end") == "end"
    assert items.count == 0


async def test_entering_twice(world) -> None:
    """One stream is one block."""
    once = stream(world.provider(), Feed(("a",)))
    async with once:
        pass
    with pytest.raises(RuntimeError, match="entered once"):
        await once.__aenter__()


# -- what is no stream -------------------------------------------------------------------------------------------------


async def test_a_function_without_a_stream(world) -> None:
    """A result that is no stream is an error that says what is one, is not retried and is no evidence."""
    provider = world.provider()

    async def answer() -> int:
        return 42

    with pytest.raises(TypeError) as caught:
        await all_of(provider, answer)
    assert "answer returns, and an int is no asynchronous iterable" in str(caught.value)
    assert "For a single result write execute()" in str(caught.value)
    now = provider.snapshot()
    assert (now.calls, now.retries, now.breaker.calls, now.in_flight) == (1, 0, 0, 0)


async def test_a_context_manager_of_something_else(world) -> None:
    """So is a context manager of no stream; it is left again."""
    left: list[bool] = []

    class Connection:
        async def __aenter__(self) -> int:
            return 1

        async def __aexit__(self, *_: object) -> None:
            left.append(True)

    with pytest.raises(TypeError, match="an int is no asynchronous iterable"):
        await all_of(world.provider(), Connection)
    assert left == [True]


async def test_what_was_called_already(world) -> None:
    """A coroutine, a generator and other things that are no function are refused with the likely slip."""

    async def ask() -> None: ...

    provider, feed = world.provider(), Feed(("a",))
    with pytest.raises(TypeError, match=r"not a coroutine: write stream\(.*ask, \.\.\.\) instead of stream\(.*ask\("):
        stream(provider, ask())
    with pytest.raises(TypeError, match=r"not an async_generator: write stream\(.*generator, \.\.\.\)"):
        stream(provider, feed.generator(("a",)))
    with pytest.raises(TypeError, match=r"not a str$"):
        stream(provider, "gpt")


# -- before the commit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_failure_before_the_first_item(world, shape: str) -> None:
    """It is retried as in any call, and what was opened is closed before the next attempt."""
    provider, feed = world.provider(retry=STEADY), Feed((ConnectionResetError,), (0.5, "a", "b"), shape=shape)
    assert await all_of(provider, feed) == ["a", "b"]
    assert (feed.calls, feed.opened, feed.closed) == (2, 2, 2)
    now = provider.snapshot()
    assert (now.calls, now.retries, now.recovered, now.in_flight) == (1, 1, 1, 0)
    assert (now.breaker.calls, now.breaker.failed) == (2, 1)
    assert len(world.heard(CallRecovered)) == 1


async def test_recovery_is_known_at_the_end(world) -> None:
    """A stream that opens at its second attempt has not recovered before it is through."""
    provider, feed = world.provider(retry=STEADY), Feed((ConnectionResetError,), ("a", ConnectionResetError))
    with pytest.raises(StreamInterrupted):
        await all_of(provider, feed)
    assert (provider.snapshot().recovered, provider.snapshot().exhausted) == (0, 1)


async def test_a_failure_to_open(world) -> None:
    """When every attempt fails, the provider's own error comes out, with the usual note."""
    provider, call = world.provider(retry=STEADY), world.script(world.status(500))
    with pytest.raises(world.HttpError) as caught:
        await all_of(provider, call)
    assert caught.value.__notes__ == ["resilience: openai: gave up after 3 attempts (server_error; attempts_spent)"]
    assert call.calls == 3
    assert provider.snapshot().in_flight == 0


async def test_standard_errors(world) -> None:
    """With ``errors="standard"`` a failure to open is a `ProviderError`; a cut stays a `StreamInterrupted`."""
    provider = world.provider(errors="standard", retry=RetrySettings(enabled=False))
    with pytest.raises(ProviderError):
        await all_of(provider, Feed((ConnectionResetError,)))
    with pytest.raises(StreamInterrupted):
        await all_of(provider, Feed(("a", ConnectionResetError)))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_commit_point_of_ones_own(world, kind: str) -> None:
    """Items that do not commit are held back: a failure after them is retried, and none of them comes twice."""
    provider = world.provider(retry=STEADY)
    feed = Feed(("think", "again", ConnectionResetError), ("think", 0.5, "say", "more"), shape=kind)
    async with stream(provider, feed, commit=lambda item: item == "say") as items:
        assert items.count == 0
        assert [item async for item in items] == ["think", "say", "more"]
    assert (feed.calls, feed.closed, items.count) == (2, 2, 3)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_end_before_the_commit(world, kind: str) -> None:
    """A stream that ends before it has committed is a success with the items it had."""
    provider, feed = world.provider(), Feed(("think", "again"), shape=kind)
    assert await all_of(provider, feed, commit=lambda item: item == "say") == ["think", "again"]
    assert (feed.calls, provider.snapshot().breaker.calls, provider.snapshot().breaker.failed) == (1, 1, 0)


async def test_options_for_results(world) -> None:
    """What judges and reads results leaves streams alone: their items are the caller's."""
    provider = world.provider().with_options(accept=lambda result: False, usage=lambda result: result["usage"])
    assert await all_of(provider, Feed(("a",))) == ["a"]


async def test_a_refusal(world) -> None:
    """Where the circuit is open, nothing is opened."""
    provider, feed = world.provider(), Feed(("a",))
    provider.breaker.open()
    with pytest.raises(CircuitOpen):
        await all_of(provider, feed)
    assert feed.calls == 0


# -- after it ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_cut(world, shape: str) -> None:
    """After the commit nothing is repeated: the error comes out as `StreamInterrupted`, from the original."""
    provider, feed = world.provider(), Feed(("a", 1.0, "b", ConnectionResetError), shape=shape)
    got = []
    with pytest.raises(StreamInterrupted) as caught:
        async with stream(provider.with_options(operation="chat"), feed) as items:
            async for item in items:
                got.append(item)  # noqa: PERF401 - what came before the error counts
    error = caught.value
    assert got == ["a", "b"]
    assert (error.provider, error.operation, error.count, error.items) == ("openai", "chat", 2, ())
    assert isinstance(error.__cause__, ConnectionResetError)
    assert str(error) == "openai.chat: stream interrupted after 2 items (ConnectionResetError)"
    assert error.__cause__.__notes__ == [
        "resilience: openai: gave up after 1 attempt (connection_error; stream_committed)"
    ]
    failure = failure_of(error)
    assert failure is not None
    assert (failure.kind, failure.operation) == (FailureKind.CONNECTION_ERROR, "chat")
    now = provider.snapshot()
    assert (feed.calls, feed.closed, now.retries, now.in_flight) == (1, 1, 0, 0)
    assert (now.breaker.calls, now.breaker.failed) == (1, 1)
    assert [event.reason for event in world.heard(CallFailed)] == ["stream_committed"]
    assert feed.left_with in ([], [ConnectionResetError])


@pytest.mark.parametrize("kind", KINDS)
async def test_the_last_items_are_kept(world, kind: str) -> None:
    """With ``keep`` the error has the last items, and no more of them than that."""
    provider = world.provider(stream=StreamSettings(keep=2))
    with pytest.raises(StreamInterrupted) as caught:
        await all_of(provider, Feed(("a", "b", "c", ConnectionResetError), shape=kind))
    assert (caught.value.count, caught.value.items) == (3, ("b", "c"))


@pytest.mark.parametrize("kind", KINDS)
async def test_streams_that_are_cut_open_the_circuit(world, kind: str) -> None:
    """Each began well and each was cut: after five in a row nobody is sent there any more."""
    provider, feed = world.provider(), Feed(("a", ConnectionResetError), shape=kind)
    for _ in range(5):
        with pytest.raises(StreamInterrupted):
            await all_of(provider, feed)
    assert provider.breaker.state is CircuitState.OPEN
    with pytest.raises(CircuitOpen):
        await all_of(provider, feed)
    assert feed.calls == 5


@pytest.mark.parametrize("kind", KINDS)
async def test_a_hint_in_a_cut(world, kind: str) -> None:
    """A provider that asks for a pause in the middle of a stream is obeyed."""

    class Overloaded(Exception):
        status_code = 529
        headers = {"retry-after": "30"}  # noqa: RUF012

    provider = world.provider()
    with pytest.raises(StreamInterrupted):
        await all_of(provider, Feed(("a", Overloaded), shape=kind))
    assert provider.snapshot().gate_closed_for == pytest.approx(30, abs=0.3)


# -- completeness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_complete_stream(world, kind: str) -> None:
    """Where the user knows how a stream ends, one that ends so is a success."""
    provider = world.provider()
    assert await all_of(provider, Feed(("a", "end"), shape=kind), complete=lambda item: item == "end") == ["a", "end"]
    assert provider.snapshot().breaker.failed == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_without_its_end(world, kind: str) -> None:
    """One that ends cleanly without it is interrupted: the code after the loop does not run."""
    provider, feed = world.provider(), Feed(("a", "b"), shape=kind)
    with pytest.raises(StreamInterrupted) as caught:
        async with stream(provider, feed, complete=lambda item: item == "end") as items:
            async for _ in items:
                pass
            raise AssertionError("not reached")
    failure = failure_of(caught.value)
    assert failure is not None
    assert (caught.value.count, caught.value.items, failure.kind) == (2, (), FailureKind.INTERRUPTED)
    assert (feed.calls, feed.closed, provider.snapshot().breaker.failed) == (1, 1, 1)


async def test_a_stream_without_its_end_before_the_commit(world) -> None:
    """Before the commit it is tried again."""
    provider, feed = world.provider(retry=STEADY), Feed((), ("think",), ("think", "end"))
    options = {"commit": lambda item: item == "say", "complete": lambda item: item == "end"}
    assert await all_of(provider, feed, **options) == ["think", "end"]
    assert (feed.calls, feed.closed) == (3, 3)


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["openai", "anthropic"])
async def test_connect(world, shape: str) -> None:
    """A stream that does not open in time is an attempt that failed, with its own scope."""
    provider = world.provider(stream=StreamSettings(connect=2), retry=RetrySettings(enabled=False))
    feed = Feed(("a",), shape=shape, open_seconds=3)
    with pytest.raises(CallTimeout) as caught:
        await all_of(provider, feed)
    assert (caught.value.scope, caught.value.limit, caught.value.elapsed) == ("connect", 2, pytest.approx(2))
    assert (provider.snapshot().timeouts, provider.snapshot().breaker.failed) == (1, 1)
    assert [event.scope for event in world.heard(AttemptTimedOut)] == ["connect"]
    assert str(caught.value) == "openai: opening the stream timed out after 2 s (limit 2 s)"


@pytest.mark.parametrize("shape", SHAPES)
async def test_first_item(world, shape: str) -> None:
    """So is one that opens and then says nothing; it is closed before the next attempt."""
    provider = world.provider(stream=StreamSettings(first_item=2), retry=STEADY)
    feed = Feed((3.0, "late"), ("a",), shape=shape)
    began = anyio.current_time()
    assert await all_of(provider, feed) == ["a"]
    assert anyio.current_time() - began == pytest.approx(2 + 1 + 0.25, abs=0.25)
    assert [event.scope for event in world.heard(AttemptTimedOut)] == ["first_item"]


async def test_the_limits_of_opening_are_apart(world) -> None:
    """Each is the attempt timeout unless it is set, and one does not shorten the other."""
    provider, feed = world.provider(), Feed((29.0, "a"), shape="openai", open_seconds=29)
    assert await all_of(provider, feed) == ["a"]
    with pytest.raises(CallTimeout) as caught:
        await all_of(provider.with_options(attempt_timeout=5, retry=False), feed)
    assert (caught.value.scope, caught.value.limit) == ("connect", 5)


@pytest.mark.parametrize("kind", KINDS)
async def test_idle(world, kind: str) -> None:
    """A source that falls silent is interrupted, and only then."""
    provider, feed = world.provider(stream=StreamSettings(idle=2)), Feed(("a", 1.9, "b", 1000.0, "c"), shape=kind)
    got, began = [], anyio.current_time()
    with pytest.raises(StreamInterrupted) as caught:
        async with stream(provider, feed) as items:
            async for item in items:
                got.append((item, anyio.current_time() - began))  # noqa: PERF401
    cause = caught.value.__cause__
    assert [item for item, _ in got] == ["a", "b"]
    assert isinstance(cause, CallTimeout)
    assert (cause.scope, cause.limit, caught.value.count) == ("idle", 2, 2)
    assert 2 <= anyio.current_time() - began - got[-1][1] <= 2.2 + 0.25
    now = provider.snapshot()
    assert (now.timeouts, now.breaker.failed, now.in_flight, feed.calls, feed.closed) == (1, 1, 0, 1, 1)
    failure = failure_of(caught.value)
    assert failure is not None
    assert failure.kind is FailureKind.TIMEOUT


@pytest.mark.parametrize("kind", KINDS)
async def test_the_consumer_may_take_its_time(world, kind: str) -> None:
    """What the body does between items is nobody's idleness."""
    provider, feed = world.provider(stream=StreamSettings(idle=2)), Feed(("a", 0.5, "b", 0.5, "c"), shape=kind)
    got = []
    async with stream(provider, feed) as items:
        async for item in items:
            got.append(item)
            await anyio.sleep(1000)
    assert got == ["a", "b", "c"]
    assert (provider.snapshot().breaker.slow, provider.breaker.state) == (0, CircuitState.CLOSED)


@pytest.mark.parametrize("kind", KINDS)
async def test_total_while_waiting(world, kind: str) -> None:
    """The whole stream has a limit of its own, counted from its beginning."""
    provider, feed = world.provider(stream=StreamSettings(total=10)), Feed((4.0, "a", 4.0, "b", 4.0, "c"), shape=kind)
    began = anyio.current_time()
    with pytest.raises(StreamInterrupted) as caught:
        await all_of(provider, feed)
    cause = caught.value.__cause__
    assert isinstance(cause, CallTimeout)
    assert (cause.scope, cause.limit, caught.value.count) == ("total", 10, 2)
    assert cause.elapsed == pytest.approx(10, rel=0.05)
    assert anyio.current_time() - began == pytest.approx(10.25, rel=0.05)
    assert provider.snapshot().breaker.failed == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_total_while_the_consumer_works(world, kind: str) -> None:
    """It does not interrupt the body: the next request fails, even if there are items enough."""
    provider, feed = world.provider(stream=StreamSettings(total=10)), Feed(tuple("abcdef"), shape=kind)
    worked = 0
    with pytest.raises(StreamInterrupted) as caught:
        async with stream(provider, feed) as items:
            async for _ in items:
                await anyio.sleep(6)
                worked += 1
    assert isinstance(caught.value.__cause__, CallTimeout)
    assert (worked, caught.value.count) == (2, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["timeout", "deadline"])
async def test_the_callers_own_limit(world, kind: str, way: str) -> None:
    """What the caller gave the call bounds the whole stream; that it was too short says nothing about the provider."""
    provider, feed = world.provider(), Feed(("a", 2.0, "b", 2.0, "c", 2.0, "d"), shape=kind)
    limit = {"timeout": 5} if way == "timeout" else {"deadline": Deadline(5, clock=anyio.current_time)}
    with pytest.raises(StreamInterrupted) as caught:
        await all_of(provider.with_options(**limit), feed)
    assert isinstance(caught.value.__cause__, CallTimeout)
    assert (caught.value.__cause__.scope, caught.value.count) == ("total", 3)
    now = provider.snapshot()
    assert (now.breaker.calls, now.breaker.failed, now.in_flight) == (0, 0, 0)


async def test_total_before_the_commit(world) -> None:
    """It bounds the opening as well, retries included."""
    provider = world.provider(stream=StreamSettings(total=3), retry=STEADY)
    with pytest.raises(ConnectionResetError):  # a second attempt could not even begin
        await all_of(provider, Feed((2.6, ConnectionResetError)))
    began = anyio.current_time()
    with pytest.raises(CallTimeout) as caught:
        await all_of(provider, Feed((1.0, ConnectionResetError), (5.0, "a")))
    assert caught.value.scope == "total"
    assert anyio.current_time() - began == pytest.approx(3, abs=0.3)


@pytest.mark.parametrize("kind", KINDS)
async def test_no_limits(world, kind: str) -> None:
    """Without any limit nothing is interrupted."""
    provider = world.provider(timeout=TimeoutSettings(attempt=None, total=None), stream=StreamSettings(idle=None))
    assert await all_of(provider, Feed((5000.0, "a", 5000.0, "b"), shape=kind)) == ["a", "b"]
    assert (provider.snapshot().breaker.slow, provider.snapshot().breaker.calls) == (0, 1)


# -- slow --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_long_is_not_slow(world, kind: str) -> None:
    """A stream that takes long and keeps coming is not slow."""
    provider, feed = world.provider(), Feed(("a", *([10.0, "b"] * 20)), shape=kind)
    assert len(await all_of(provider, feed)) == 21
    assert (provider.snapshot().breaker.calls, provider.snapshot().breaker.slow) == (1, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("script", [(16.0, "a"), ("a", 17.0, "b")], ids=["first item", "gap"])
async def test_slow(world, kind: str, script: tuple[object, ...]) -> None:
    """One that takes half a limit to its first item, or between two of them, is."""
    provider = world.provider()
    await all_of(provider, Feed(script, shape=kind))
    assert (provider.snapshot().breaker.calls, provider.snapshot().breaker.slow) == (1, 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_slow_by_the_idle_limit(world, kind: str) -> None:
    """Where items are not to be long in coming, half of what they may take is slow."""
    provider = world.provider(stream=StreamSettings(idle=4))
    await all_of(provider, Feed(("a", 2.5, "b"), shape=kind))
    assert provider.snapshot().breaker.slow == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_slow_by_a_line_of_ones_own(world, kind: str) -> None:
    """``breaker.slow_after`` draws the line for both."""
    provider = world.provider(breaker=BreakerSettings(slow_after=1))
    await all_of(provider, Feed(("a", 1.2, "b"), shape=kind))
    assert provider.snapshot().breaker.slow == 1


# -- leaving early -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
async def test_break(world, shape: str) -> None:
    """A consumer that has enough says nothing about the provider; the source is closed."""
    provider, feed = world.provider(), Feed(("a", "b", "c"), shape=shape)
    async with stream(provider, feed) as items:
        async for item in items:
            if item == "b":
                break
    now = provider.snapshot()
    assert (now.calls, now.in_flight, now.breaker.calls, feed.closed, items.count) == (1, 0, 0, 1, 2)
    assert feed.left_with in ([], [None])


@pytest.mark.parametrize("kind", KINDS)
async def test_return(world, kind: str) -> None:
    """Nor does one that returns from within."""
    provider, feed = world.provider(), Feed(("a", "b"), shape=kind)

    async def first() -> object:
        async with stream(provider, feed) as items:
            async for item in items:
                return item
        raise AssertionError("not reached")

    assert await first() == "a"
    assert (provider.snapshot().breaker.calls, provider.snapshot().in_flight, feed.closed) == (0, 0, 1)


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_error_of_the_consumer(world, shape: str) -> None:
    """Its own error comes out unchanged, is no evidence, and is what a context manager is left with."""
    provider, feed, mine = world.provider(), Feed(("a", "b"), shape=shape), RuntimeError("mine")
    with pytest.raises(RuntimeError) as caught:
        async with stream(provider, feed) as items:
            async for _ in items:
                raise mine
    assert caught.value is mine
    assert (provider.snapshot().breaker.calls, provider.snapshot().in_flight, feed.closed) == (0, 0, 1)
    assert feed.left_with in ([], [RuntimeError])


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_of_the_consumer_after_the_end(world, kind: str) -> None:
    """If the stream was through by then, it was a success."""
    provider = world.provider()
    with pytest.raises(RuntimeError, match="mine"):
        async with stream(provider, Feed(("a",), shape=kind)) as items:
            async for _ in items:
                pass
            raise RuntimeError("mine")
    assert (provider.snapshot().breaker.calls, provider.snapshot().breaker.failed) == (1, 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_that_the_consumer_translates(world, kind: str) -> None:
    """The consumer's own error comes out; the source's, which it stands for, is still what the provider did."""
    provider = world.provider()
    with pytest.raises(LookupError):
        async with stream(provider, Feed(("a", ConnectionResetError), shape=kind)) as items:
            try:
                async for _ in items:
                    pass
            except ConnectionResetError as error:
                raise LookupError from error
    assert provider.snapshot().breaker.failed == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_that_the_consumer_packs(world, kind: str) -> None:
    """It may also stand in a group."""
    provider, cut = world.provider(), []
    with pytest.raises(ExceptionGroup, match="mine"):
        async with stream(provider, Feed(("a", ConnectionResetError), shape=kind)) as items:
            try:
                async for _ in items:
                    pass
            except ConnectionResetError as error:
                cut.append(error)
            raise ExceptionGroup("mine", cut)
    assert provider.snapshot().breaker.failed == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wait, slow", [(5.0, 0), (20.0, 1)])
async def test_a_consumer_that_is_cancelled(world, kind: str, wait: float, slow: int) -> None:
    """It is ignored; slow if nothing had come for a long time. The source is closed all the same."""
    provider, feed = world.provider(), Feed(("a", 29.0, "b"), shape=kind)
    with anyio.move_on_after(wait) as scope:
        await all_of(provider, feed)
    assert scope.cancelled_caught
    now = provider.snapshot()
    assert (now.breaker.failed, now.breaker.slow, now.in_flight, feed.closed) == (0, slow, 0, 1)


async def refused(provider: Any) -> None:
    with pytest.raises(CircuitOpen):
        await all_of(provider, Feed(("never",)))


# -- probes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_probe_that_goes_on(world, kind: str) -> None:
    """A stream that is a probe keeps its place for as long as items come, and decides when it is through."""
    provider = world.provider(breaker=BreakerSettings(success_threshold=1, jitter=0))
    await world.trip(provider)
    await anyio.sleep(61)
    async with stream(provider, Feed(("a", *([10.0, "b"] * 30)), shape=kind)) as items:
        async for _ in items:
            assert provider.breaker.state is CircuitState.HALF_OPEN
            assert provider.snapshot().breaker.probes == 1
            async with anyio.create_task_group() as others:
                others.start_soon(refused, provider)
    assert provider.breaker.state is CircuitState.CLOSED


async def test_a_probe_that_takes_long_to_begin(world) -> None:
    """Its first item is a sign of life as any other."""
    provider = world.provider(breaker=BreakerSettings(success_threshold=1, jitter=0, slow_rate=None))
    await world.trip(provider)
    await anyio.sleep(61)
    async with stream(provider, Feed((29.0, "a", 10.0, "b"), shape="openai", open_seconds=29)) as items:
        await anyio.sleep(5)  # more than a lease since it left
        async with anyio.create_task_group() as others:
            others.start_soon(refused, provider)
        assert [item async for item in items] == ["a", "b"]
    assert provider.breaker.state is CircuitState.CLOSED


@pytest.mark.parametrize("kind", KINDS)
async def test_a_probe_that_is_cut(world, kind: str) -> None:
    """One that begins well and is cut opens the circuit again."""
    provider = world.provider(breaker=BreakerSettings(success_threshold=1, jitter=0))
    await world.trip(provider)
    await anyio.sleep(61)
    with pytest.raises(StreamInterrupted):
        await all_of(provider, Feed(("a", 1.0, ConnectionResetError), shape=kind))
    assert provider.breaker.state is CircuitState.OPEN


@pytest.mark.parametrize("kind", KINDS)
async def test_a_probe_that_is_left(world, kind: str) -> None:
    """One that is left early decides nothing and frees its place."""
    provider = world.provider(breaker=BreakerSettings(success_threshold=1, jitter=0))
    await world.trip(provider)
    await anyio.sleep(61)
    async with stream(provider, Feed(("a", "b"), shape=kind)) as items:
        await anext(items)
    assert (provider.breaker.state, provider.snapshot().breaker.probes) == (CircuitState.HALF_OPEN, 0)


# -- what a stream holds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_place_in_the_bulkhead(world, kind: str) -> None:
    """A stream keeps its place until its block is left."""
    provider = world.provider(bulkhead=BulkheadSettings(max_concurrent=1, max_wait=1))

    async def crowded_out() -> None:
        with pytest.raises(BulkheadFull):
            await all_of(provider, Feed(("never",)))

    async with stream(provider, Feed(("a", 5.0, "b"), shape=kind)) as items:
        async for _ in items:
            async with anyio.create_task_group() as others:
                others.start_soon(crowded_out)
    assert await all_of(provider, Feed(("b",), shape=kind)) == ["b"]


@pytest.mark.parametrize("kind", KINDS)
async def test_settling_tokens(world, kind: str) -> None:
    """What was reserved for a stream is settled with what it really used."""
    provider = world.provider(rate_limit=RateLimitSettings(tokens_per_minute=100, max_wait=0))
    greedy = provider.with_options(reserve=Usage(tokens=80))
    async with stream(greedy, Feed(("a", "b"), shape=kind)) as items:
        assert [item async for item in items] == ["a", "b"]
        with pytest.raises(RateLimited):
            await greedy.execute(world.script("too much"))
        items.settle(Usage(tokens=10))
        assert await greedy.execute(world.script("fits")) == "fits"


async def test_a_hedged_stream(world) -> None:
    """A stream whose first item is late gets a second attempt beside it; the one that loses is closed."""
    hedge = HedgeSettings(enabled=True, warm_up=1, max_extra_load=0.1)
    provider = world.provider(hedge=hedge, stream=StreamSettings(idle=None)).with_options(idempotent=True)
    for _ in range(30):
        assert await all_of(provider, Feed((0.1, "a"))) == ["a"]
    feeds = [Feed((20.0, "late")), Feed((0.1, "a", 1.0, "b"))]
    left = iter(feeds)
    began = anyio.current_time()
    async with stream(provider, lambda: next(left)()) as items:  # noqa: PLW0108 - another one each time
        assert [item async for item in items] == ["a", "b"]
        assert provider.snapshot().in_flight == 1
    assert anyio.current_time() - began < 3
    assert [(feed.opened, feed.closed) for feed in feeds] == [(1, 1), (1, 1)]
    assert provider.snapshot().in_flight == 0


# -- switched off ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_switched_off(world, kind: str) -> None:
    """Switched off, it is a plain iteration: no retry, no limit, and errors as they are; but closed in the end."""
    provider, feed = world.provider(enabled=False), Feed(("a", 1000.0, "b", ConnectionResetError), shape=kind)
    got = []
    with pytest.raises(ConnectionResetError) as caught:
        async with stream(provider, feed) as items:
            async for item in items:
                got.append(item)  # noqa: PERF401
    assert got == ["a", "b"]
    assert not hasattr(caught.value, "__notes__")
    assert (feed.calls, feed.closed, provider.snapshot().calls) == (1, 1, 0)
