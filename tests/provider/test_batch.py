"""A batch: one function over many items, an outcome for each, and nothing left behind however it ends."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import CircuitOpen, CircuitState, ConfigurationError, Outcome, ResilientProvider
from resilience.batch import Batch, Outcomes
from resilience.testing import VirtualTimeLoop, cancelled_everywhere

pytestmark = pytest.mark.anyio


class Work:
    """What is mapped: each item says how long it takes; negative ones fail after that time."""

    def __init__(self) -> None:
        self.started: list[float] = []
        self.finished: list[float] = []
        self.running = self.most = 0

    async def __call__(self, item: float) -> float:
        self.started.append(item)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await anyio.sleep(abs(item))
        finally:
            self.running -= 1
        self.finished.append(item)
        if item < 0:
            raise KeyError(item)
        return item * 10


class Source:
    """Items, and a record of how many were taken and whether the source was closed, in the task that iterated it."""

    def __init__(self, items: Any, error: Exception | None = None) -> None:
        self.items = list(items)
        self.error = error
        self.taken = 0
        self.closed = False
        self.tasks: set[int] = set()

    def sync(self) -> Iterator[Any]:
        try:
            for item in self.items:
                self.taken += 1
                yield item
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True

    async def pages(self) -> AsyncIterator[Any]:
        try:
            for item in self.items:
                self.tasks.add(anyio.get_current_task().id)
                await anyio.lowlevel.checkpoint()
                self.taken += 1
                yield item
            if self.error is not None:
                raise self.error
        finally:
            self.tasks.add(anyio.get_current_task().id)
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.1)
            self.closed = True

    def iterate(self, kind: str) -> Any:
        return self.sync() if kind == "sync" else self.pages()


KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


@pytest.fixture
async def provider(world: Any) -> ResilientProvider:
    """A provider that never retries, so that each item is one attempt."""
    return world.provider(retry={"enabled": False}, breaker={"enabled": False}).with_options(retry=False)  # type: ignore[no-any-return]


def batch(provider: ResilientProvider, func: Any, items: Any, **options: Any) -> Batch[Any]:
    return provider.map(func, items, **options)


def values(outcomes: list[Outcome[Any]]) -> list[object]:
    return [outcome.value if outcome.ok else type(outcome.error) for outcome in outcomes]


# -- awaited -----------------------------------------------------------------------------------------------------------


@KINDS
async def test_outcomes_come_in_the_order_of_the_items(kind: str, provider: ResilientProvider) -> None:
    """However long each call takes; a call that fails is an outcome like the others."""
    work, source = Work(), Source([3, 1, -2, 5, 1])
    outcomes = await batch(provider, work, source.iterate(kind), concurrency=2)
    assert values(outcomes) == [30, 10, KeyError, 50, 10]
    assert outcomes[2].failure is not None
    assert work.most == 2
    assert source.closed


@KINDS
async def test_outcomes_come_as_calls_end(kind: str, provider: ResilientProvider) -> None:
    """With ordered=False the quick ones are first."""
    outcomes = await batch(provider, Work(), Source([3, 1, -2]).iterate(kind), ordered=False)
    assert values(outcomes) == [10, KeyError, 30]


@KINDS
async def test_no_items_no_calls(kind: str, provider: ResilientProvider) -> None:
    """An empty source gives an empty list."""
    work, source = Work(), Source([])
    assert await batch(provider, work, source.iterate(kind)) == []
    assert (work.started, source.closed) == ([], True)


@KINDS
@pytest.mark.parametrize("concurrency", [1, 3, 10, 1000])
async def test_as_many_at_a_time_as_allowed(kind: str, concurrency: int, provider: ResilientProvider) -> None:
    """No more than *concurrency* run at once, and no fewer as long as there are items."""
    work = Work()
    began = anyio.current_time()
    await batch(provider, work, Source([1] * 30).iterate(kind), concurrency=concurrency)
    assert work.most == min(concurrency, 30)
    assert anyio.current_time() - began == pytest.approx(-(-30 // concurrency), abs=0.2)


async def test_calls_go_through_the_provider(world: Any) -> None:
    """Retries, the breaker and its refusals hold for each item."""
    provider = world.provider(breaker={"failure_threshold": 3}, retry={"max_attempts": 2, "base_delay": 0.01})
    script = world.script(ConnectionResetError)

    async def send(item: int) -> object:
        return await script(item)

    outcomes = await batch(provider, send, range(10), concurrency=1)
    assert provider.breaker.state is CircuitState.OPEN
    assert script.calls == 3
    assert [outcome.rejected for outcome in outcomes] == [False] * 2 + [True] * 8
    assert isinstance(outcomes[-1].error, CircuitOpen)


async def test_options_of_a_view_hold(provider: ResilientProvider) -> None:
    """A view's timeout bounds each call."""
    outcomes = await batch(provider.with_options(timeout=2), Work(), [1, 60, 1])
    assert [outcome.ok for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].error, TimeoutError)


async def test_any_async_iterable_will_do(provider: ResilientProvider) -> None:
    """Also one that is no generator: it is iterated and not closed."""

    class Pages:
        def __init__(self) -> None:
            self.left = 3
            self.closed = False

        def __aiter__(self) -> Pages:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return 1

        async def aclose(self) -> None:
            self.closed = True

    pages = Pages()
    assert values(await batch(provider, Work(), pages)) == [10] * 3
    assert not pages.closed


async def test_an_iterator_of_the_users_is_not_closed(provider: ResilientProvider, tmp_path: Any) -> None:
    """A file is taken from line by line and stays open: only generators are closed."""
    path = tmp_path / "items"
    path.write_text("1\n2\n")
    with path.open() as file:
        assert values(await batch(provider, lambda line: Work()(float(line)), file)) == [10.0, 20.0]
        assert not file.closed


# -- iterated ----------------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("ordered", [True, False])
async def test_outcomes_one_by_one(kind: str, ordered: bool, provider: ResilientProvider) -> None:
    """Each comes with its item's number, in order or as calls end."""
    source = Source([3, 1, -2])
    got = []
    async with batch(provider, Work(), source.iterate(kind), ordered=ordered) as outcomes:
        async for number, outcome in outcomes:
            got.append((number, outcome.ok, round(anyio.current_time())))
    began = got[0][2] - (3 if ordered else 1)
    assert [(number, ok) for number, ok, _ in got] == (
        [(0, True), (1, True), (2, False)] if ordered else [(1, True), (2, False), (0, True)]
    )
    assert [when - began for _, _, when in got] == ([3, 3, 3] if ordered else [1, 2, 3])
    assert source.closed


@KINDS
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("buffer", [0, 1, None])
async def test_a_slow_reader_slows_the_calls(
    kind: str, ordered: bool, buffer: int | None, provider: ResilientProvider
) -> None:
    """Never are more calls running, or done and not yet taken, than concurrency and buffer allow; none is forgotten."""
    work, source, concurrency = Work(), Source([1] * 40), 3
    room = concurrency + (concurrency if buffer is None else buffer)
    taken = 0
    async with batch(
        provider, work, source.iterate(kind), concurrency=concurrency, buffer=buffer, ordered=ordered
    ) as outcomes:
        async for _ in outcomes:
            taken += 1
            await anyio.sleep(7)
            assert len(work.started) == min(40, taken + room)
            assert source.taken == len(work.started)
    assert taken == 40


async def test_a_long_call_holds_up_as_many_as_there_is_room_for(provider: ResilientProvider) -> None:
    """In order, others go on while the first one takes its time, but not for ever."""
    work = Work()
    async with batch(provider, work, [100] + [1] * 50, concurrency=2, buffer=5) as outcomes:
        assert (await anext(outcomes))[0] == 0
        assert len(work.started) == 7
        assert [number async for number, _ in outcomes] == list(range(1, 51))


async def test_a_hundred_thousand_items_in_bounded_memory(provider: ResilientProvider, anyio_backend: Any) -> None:
    """A source of any length is never held: neither its items nor its outcomes."""
    alive = most = 0
    many = 100_000 if anyio_backend[0] == "asyncio" else 5_000  # trio needs its time for each call

    class Item:
        def __init__(self) -> None:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    async def echo(item: Item) -> Item:
        return item

    count = 0
    async with batch(provider, echo, (Item() for _ in range(many)), concurrency=8) as outcomes:
        async for number, _ in outcomes:
            assert number == count
            count += 1
    assert count == many
    assert most <= 8 + 8 + 10


async def test_after_the_end_there_is_nothing(provider: ResilientProvider) -> None:
    """Asking again after the last outcome ends the iteration again."""
    async with batch(provider, Work(), [1]) as outcomes:
        assert len([outcome async for outcome in outcomes]) == 1
        assert [outcome async for outcome in outcomes] == []


async def test_outcomes_are_taken_by_one_task(provider: ResilientProvider) -> None:
    """A second reader is told so."""
    async with batch(provider, Work(), [5]) as outcomes, anyio.create_task_group() as tasks:
        tasks.start_soon(anext, outcomes)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="taken by one task"):
            await anext(outcomes)


async def test_rejections_in_a_row_let_others_run(provider: ResilientProvider) -> None:
    """Calls that never wait do not keep the loop to themselves."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async def at_once(item: int) -> int:
        return item

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        await batch(provider, at_once, range(5000))
        tasks.cancel_scope.cancel()
    assert turns >= 5


# -- errors ------------------------------------------------------------------------------------------------------------


@KINDS
async def test_fail_fast_raises_the_first_error(kind: str, provider: ResilientProvider) -> None:
    """And cancels the calls under way; nothing is started any more."""
    work, source = Work(), Source([5, -2, 3, 50] + [1] * 100)
    with pytest.raises(KeyError, match="-2"):
        await batch(provider, work, source.iterate(kind), concurrency=4, fail_fast=True)
    assert (work.started, work.finished, work.running) == ([5, -2, 3, 50], [-2], 0)
    assert source.closed


@KINDS
async def test_fail_fast_while_iterating(kind: str, provider: ResilientProvider) -> None:
    """The error comes out of the iteration, and never interrupts the body's own work."""
    work, source, got = Work(), Source([1, -2, 50, 50]), []
    with pytest.raises(KeyError, match="-2"):
        async with batch(provider, work, source.iterate(kind), fail_fast=True) as outcomes:
            async for number, _ in outcomes:
                await anyio.sleep(10)
                got.append(number)
    assert (got, work.running, source.closed) == ([0], 0, True)


async def test_fail_fast_raises_the_first_error_only(provider: ResilientProvider) -> None:
    """A call that cannot be interrupted and fails later changes nothing."""

    async def stubborn(seconds: int) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(seconds)
        raise KeyError(seconds)

    with pytest.raises(KeyError, match=r"^1"):
        await batch(provider, stubborn, [2, 1], fail_fast=True)


async def test_fail_fast_counts_refusals(world: Any) -> None:
    """A call that was refused has not succeeded either."""
    provider = world.provider()
    provider.breaker.open()
    with pytest.raises(CircuitOpen):
        await batch(provider, Work(), [1, 1], fail_fast=True)


@KINDS
async def test_an_error_of_the_source_comes_after_what_was_started(kind: str, provider: ResilientProvider) -> None:
    """What had been sent is finished and handed out; then the source's own error is raised."""
    work, source, got = Work(), Source([1, 2], LookupError("page 3")), []
    with pytest.raises(LookupError, match="page 3"):
        async with batch(provider, work, source.iterate(kind)) as outcomes:
            async for number, outcome in outcomes:
                got.append((number, outcome.value))
    assert got == [(0, 10), (1, 20)]
    work, source = Work(), Source([1, 2], LookupError("page 3"))
    with pytest.raises(LookupError, match="page 3"):
        await batch(provider, work, source.iterate(kind))
    assert work.finished == [1, 2]


@KINDS
async def test_an_error_in_the_body_comes_out_as_itself(kind: str, provider: ResilientProvider) -> None:
    """Not as a group of errors; the calls under way are cancelled and the source is closed."""
    work, source = Work(), Source([1] + [50] * 20)
    with pytest.raises(LookupError, match="mine"):
        async with batch(provider, work, source.iterate(kind)) as outcomes:
            async for _ in outcomes:
                raise LookupError("mine")
    assert (work.running, source.closed) == (0, True)


@KINDS
async def test_leaving_early_leaves_nothing(kind: str, provider: ResilientProvider) -> None:
    """By `break`, or without having taken anything."""
    for take in (0, 1):
        work, source = Work(), Source([1] + [50] * 20)
        async with batch(provider, work, source.iterate(kind), concurrency=3) as outcomes:
            for _ in range(take):
                await anext(outcomes)
        assert work.running == 0
        assert source.closed or not source.taken
        assert source.taken <= 6 + take
        assert len(source.tasks) <= 1, "a generator was closed in another task than the one that iterated it"


@KINDS
async def test_a_source_that_was_begun_before_is_closed_too(kind: str, provider: ResilientProvider) -> None:
    """Somebody has looked at its first item; the batch is left before it has asked for the next."""
    source = Source([1, 2, 3])
    items = source.iterate(kind)
    await anext(items) if kind == "async" else next(items)
    async with batch(provider, Work(), items):
        pass
    assert source.closed


async def test_a_source_that_fails_to_close_is_logged(
    provider: ResilientProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error does not replace what the batch brought."""

    def stubborn() -> Iterator[int]:
        try:
            yield from itertools.repeat(1)
        finally:
            raise LookupError("cannot close")

    async def stubborn_pages() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            raise LookupError("cannot close")

    for items in (stubborn(), stubborn_pages()):
        async with batch(provider, Work(), items) as outcomes:
            await anext(outcomes)
    assert [record.message for record in caplog.records] == ["the source of a batch failed to close"] * 2


async def test_a_source_that_hangs_while_closing_is_left_after_a_while(provider: ResilientProvider) -> None:
    """Leaving takes ten seconds at most."""

    async def hanging() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await anyio.sleep_forever()

    async with batch(provider, Work(), hanging()) as outcomes:
        await anext(outcomes)
        left = anyio.current_time()
    assert anyio.current_time() - left == pytest.approx(10)


# -- progress ----------------------------------------------------------------------------------------------------------


async def test_progress_is_told_after_each_call(provider: ResilientProvider) -> None:
    """How many are done, of how many where that is known, and how this one ended."""
    told: list[object] = []

    def progress(done: int, total: int | None, outcome: Outcome[Any]) -> None:
        told.append((done, total, outcome.value if outcome.ok else "failed"))

    await batch(provider, Work(), [3, -1, 2], progress=progress)
    assert told == [(1, 3, "failed"), (2, 3, 20), (3, 3, 30)]
    told.clear()
    await batch(provider, Work(), iter([1]), progress=progress)
    assert told == [(1, None, 10)]


async def test_progress_that_fails_is_harmless(provider: ResilientProvider, caplog: pytest.LogCaptureFixture) -> None:
    """Its error is logged, and the batch goes on."""

    def progress(*_: object) -> None:
        raise ZeroDivisionError

    assert values(await batch(provider, Work(), [1, 1], progress=progress)) == [10, 10]
    assert [record.message for record in caplog.records] == ["a progress callback failed"] * 2
    assert caplog.records[0].levelno == logging.ERROR


# -- slips -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["await", "iterate"])
async def test_a_synchronous_function_is_found_at_the_first_item(kind: str, provider: ResilientProvider) -> None:
    """Not after a hundred thousand useless calls; the error says what to write."""
    seen = []

    def upload(item: int) -> str:
        seen.append(item)
        return "done"

    with pytest.raises(TypeError, match=r"upload returns, and str cannot.*partial\(anyio.to_thread.run_sync, .*upload"):
        if kind == "await":
            await batch(provider, upload, range(100_000))
        else:
            async with batch(provider, upload, range(100_000)) as outcomes:
                await anext(outcomes)
    assert seen == [0]


async def test_what_returns_an_awaitable_is_a_function(provider: ResilientProvider) -> None:
    """Lambdas, partials and objects that can be called."""
    work = Work()
    for func in (work, lambda item: work(item), partial(work)):  # noqa: PLW0108 - a lambda is what is meant
        assert values(await batch(provider, func, [1])) == [10]


async def generator(item: int) -> AsyncIterator[int]:
    yield item


@pytest.mark.parametrize(
    "func, items, options, error, complaint",
    [
        (Work(), "text", {}, TypeError, r"this is one str: write \[item\]"),
        (Work(), b"text", {}, TypeError, r"this is one bytes: write \[item\]"),
        (Work(), 5, {}, TypeError, "not int"),
        (Work(), list, {}, TypeError, r"not type: were they called for\? write items\(\)"),
        (5, [1], {}, TypeError, "an async function of one item first, not int"),
        (generator, [1], {}, TypeError, "generator is a generator"),
        (Work(), [1], {"concurrency": 0}, ConfigurationError, r"map\(concurrency=0\): expected a whole number, 1 or"),
        (Work(), [1], {"concurrency": True}, ConfigurationError, "concurrency=True"),
        (Work(), [1], {"concurrency": 2.5}, ConfigurationError, "concurrency=2.5"),
        (Work(), [1], {"buffer": -1}, ConfigurationError, r"map\(buffer=-1\): expected a whole number, 0 or"),
        (Work(), [1], {"progress": 5}, TypeError, r"a function of \(done, total, outcome\), not int"),
        (Work(), [1], {"progress": Work.__call__}, TypeError, "a synchronous"),
    ],
)
async def test_slips_are_refused_at_once(
    provider: ResilientProvider, *, func: Any, items: Any, options: Any, error: type[Exception], complaint: str
) -> None:
    """Before anything is called: what was given, what was expected, and the likely slip."""
    with pytest.raises(error, match=complaint):
        batch(provider, func, items, **options)


async def test_coroutines_in_place_of_functions_or_items_are_refused(provider: ResilientProvider) -> None:
    """They are closed, so that no warning follows the error."""
    with pytest.raises(TypeError, match=r"not a coroutine: write map\(.*__call__, items\)"):
        batch(provider, Work()(1), [1])
    with pytest.raises(TypeError, match="await it first"):
        batch(provider, Work(), Work()(1))


async def test_a_batch_is_used_once(provider: ResilientProvider) -> None:
    """Its source would be empty the second time."""
    one = batch(provider, Work(), [1])
    await one
    with pytest.raises(RuntimeError, match="used once"):
        await one
    with pytest.raises(RuntimeError, match="used once"):
        async with one:
            pass


async def test_a_batch_is_no_iterator_itself(provider: ResilientProvider) -> None:
    """Without `async with` nobody would end its calls: the error says what to write."""
    one = batch(provider, Work(), [1])
    with pytest.raises(TypeError, match=r"write `async with provider\.map"):
        async for _ in one:
            pass
    await one


async def test_a_forgotten_batch_warns(provider: ResilientProvider) -> None:
    """As a coroutine does that was never awaited."""
    with pytest.warns(RuntimeWarning, match="never awaited"):
        batch(provider, Work(), [1])


# -- isolation ---------------------------------------------------------------------------------------------------------

MARK: contextvars.ContextVar[int] = contextvars.ContextVar("mark", default=0)


class Odd:
    """Compares to nothing."""

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    __hash__ = None  # type: ignore[assignment]


async def test_a_call_finds_nothing_of_the_call_before(provider: ResilientProvider) -> None:
    """Context variables that a call leaves behind are gone in the next one; the caller's own are there."""
    odd: contextvars.ContextVar[object] = contextvars.ContextVar("odd")
    odd.set(Odd())
    MARK.set(7)
    seen = []

    async def leave_a_mark(item: int) -> None:
        seen.append(MARK.get())
        await anyio.lowlevel.checkpoint()
        if item % 2:
            MARK.set(item)
        if item % 3 == 0:
            odd.set(Odd())

    await batch(provider, leave_a_mark, range(1, 50), concurrency=4)
    assert seen == [7] * 49
    assert MARK.get() == 7


async def test_workers_that_are_replaced_are_as_many_as_before(provider: ResilientProvider) -> None:
    """Concurrency is what was asked for, whatever calls leave behind."""
    work = Work()

    async def leave_a_mark(item: int) -> None:
        MARK.set(item)
        if item >= 10:  # the first ones leave before all workers are there
            await work(1)

    began = anyio.current_time()
    await batch(provider, leave_a_mark, range(50), concurrency=4)
    assert work.most == 4
    assert anyio.current_time() - began == pytest.approx(10)


def on_asyncio(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main())


def alone(func: Any, items: Any, **options: Any) -> Batch[Any]:
    """A batch without a provider around its calls."""

    async def execute(func: Any, item: Any, /) -> Outcome[Any]:
        try:
            return Outcome(await func(item))
        except Exception as error:
            return Outcome(None, error)

    return Batch(execute, func, items, **options)


def test_a_call_that_waited_for_something_cancelled_is_an_outcome() -> None:
    """Nobody has cancelled the call itself, so it is no reason to lose it, or the others."""

    async def main() -> list[Outcome[Any]]:
        async def wait(item: int) -> int:
            if item == 1:
                future = asyncio.get_running_loop().create_future()
                future.cancel()
                await future
            return item

        return await alone(wait, range(3))

    first, second, third = on_asyncio(main)
    assert (first.value, third.value) == (0, 2)
    assert isinstance(second.error, RuntimeError)
    assert str(second.error) == "batch: the call of item 1 waited for something that was cancelled"
    assert isinstance(second.error.__cause__, asyncio.CancelledError)


@pytest.mark.parametrize("way", ["await", "iterate"])
def test_a_call_that_cancels_its_own_task_is_not_lost_in_silence(way: str) -> None:
    """The batch says that outcomes are missing."""

    async def main() -> None:
        async def suicide(item: int) -> None:
            if item == 1:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            await asyncio.sleep(1)

        one = alone(suicide, range(3))
        with pytest.raises(RuntimeError, match="of the calls of a batch cancelled the tasks they ran in"):
            if way == "await":
                await one
            else:
                async with one as outcomes:
                    async for _ in outcomes:
                        pass

    on_asyncio(main)


def test_a_source_that_waited_for_something_cancelled_is_an_error() -> None:
    """A source that breaks off must not look like one that has ended."""

    async def broken() -> AsyncIterator[int]:
        yield 1
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def main() -> None:
        with pytest.raises(RuntimeError, match="the source of a batch waited for something that was cancelled"):
            await alone(Work(), broken())

    on_asyncio(main)


class Exit(BaseException):
    """Not an error of a call."""


async def test_an_exit_ends_the_batch(provider: ResilientProvider) -> None:
    """A `BaseException` that is no `Exception` comes out, and nothing goes on."""
    work, source = Work(), Source([1, 50, 50])

    async def leave(item: int) -> None:
        await work(item)
        raise Exit

    with pytest.raises(BaseExceptionGroup) as caught:
        async with batch(provider, leave, source.sync()) as outcomes:
            async for _ in outcomes:
                pass
    assert caught.group_contains(Exit)
    assert (work.running, source.closed) == (0, True)


# -- cancellation ------------------------------------------------------------------------------------------------------


async def test_an_outer_deadline_ends_everything(provider: ResilientProvider) -> None:
    """However the batch is used, and whatever it is waiting for."""
    for use in (awaited, iterated, read_slowly):
        for kind in ("sync", "async"):
            work, source = Work(), Source([1, 5, 1, 50, 1, 50] * 5)
            with anyio.move_on_after(4) as scope:
                await use(batch(provider, work, source.iterate(kind), concurrency=3))
            assert scope.cancelled_caught
            assert (work.running, source.closed) == (0, True)


async def awaited(one: Batch[Any]) -> None:
    await one


async def iterated(one: Batch[Any]) -> None:
    async with one as outcomes:
        async for _ in outcomes:
            pass


async def read_slowly(one: Batch[Any]) -> None:
    async with one as outcomes:
        async for _ in outcomes:
            await anyio.sleep(3)


async def left_early(one: Batch[Any]) -> None:
    async with one as outcomes:
        await anext(outcomes)


async def failing_fast(one: Batch[Any]) -> None:
    one._terms = one._terms._replace(fail_fast=True, items=one._terms.items)
    with suppress(KeyError):
        await iterated(one)


def tasks() -> int:
    """How many tasks there are."""
    if asyncio._get_running_loop() is not None:
        return len(asyncio.all_tasks())
    import trio

    return trio.lowlevel.current_statistics().tasks_living


USES = [awaited, iterated, read_slowly, left_early, failing_fast]


@KINDS
@pytest.mark.parametrize("use", USES)
async def test_a_batch_cancelled_anywhere_leaves_nothing(kind: str, use: Any, world: Any) -> None:
    """No task, no permit, no generator that was begun and not closed, wherever its caller is cancelled."""
    before = tasks()
    for ending in cancelled_everywhere():
        registry = world.registry(retry={"enabled": False})
        provider, work, source = registry.provider("s3"), Work(), Source([1, 2, -3, 4, 1, 1])
        await ending(lambda: use(batch(provider, work, source.iterate(kind), concurrency=2)))  # noqa: B023
        assert work.running == 0, ending
        assert source.closed or not source.taken, ending
        assert registry.runtime("s3").in_flight == 0, ending
        assert len(source.tasks) <= 1, ending
        assert tasks() == before, ending


# -- garbage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", [awaited, iterated])  # a cancelled anyio group leaves garbage of its own
@KINDS
def test_no_garbage_is_left(kind: str, use: Any, garbage_of: Any) -> None:
    """However a batch ends, its outcomes, errors and frames are freed at once."""

    async def way() -> None:
        for source in (Source([1, -2, 3]), Source([]), Source([1], LookupError())):
            with suppress(LookupError, StopAsyncIteration):
                await use(alone(Work(), source.iterate(kind), concurrency=2))
            source.error = None

    assert on_asyncio(lambda: garbage_of(way)) == []


def test_outcomes_have_a_name_to_annotate_with() -> None:
    """`Outcomes` is what a batch gives when it is entered."""
    assert Outcomes.__aiter__ is not None
