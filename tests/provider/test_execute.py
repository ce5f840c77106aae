"""`execute`: what comes back, what is tried again, what comes out in the end."""

from __future__ import annotations

import gc
import logging
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import (
    CallTimeout,
    Category,
    Delivery,
    Failure,
    FailureKind,
    ProviderError,
    ProviderRegistry,
    ProviderSettings,
    RetrySettings,
    Settings,
    failure_of,
)
from resilience.errors import CircuitOpen, ResilienceError
from resilience.events import CircuitChanged
from resilience.testing import EventRecorder

pytestmark = pytest.mark.anyio

STEADY = RetrySettings(jitter="none")

# A handle's first call looks closer, the others take the fast path: what is guaranteed holds for both.
WARM = pytest.mark.parametrize("warm", [False, True], ids=["first", "later"])


# -- results ---------------------------------------------------------------------------------------------------------


async def add(left: int, right: int = 0) -> int:
    await anyio.sleep(0.01)
    return left + right


class Adder:
    async def add(self, left: int, right: int = 0) -> int:
        return left + right

    @classmethod
    async def add_for_all(cls, left: int, right: int = 0) -> int:
        return left + right

    @staticmethod
    async def add_for_none(left: int, right: int = 0) -> int:
        return left + right

    async def __call__(self, left: int, right: int = 0) -> int:
        return left + right


class Sum:
    """An awaitable that is no coroutine."""

    def __init__(self, left: int, right: int = 0) -> None:
        self.value = left + right

    def __await__(self) -> Generator[Any, None, int]:
        yield from anyio.lowlevel.checkpoint().__await__()
        return self.value


CALLABLES: dict[str, Callable[..., Awaitable[int]]] = {
    "function": add,
    "lambda": lambda left, right=0: add(left, right),
    "partial": partial(add),
    "method": Adder().add,
    "class method": Adder.add_for_all,
    "static method": Adder.add_for_none,
    "callable object": Adder(),
    "class of awaitables": Sum,
}


@pytest.mark.parametrize("func", CALLABLES.values(), ids=CALLABLES)
async def test_anything_that_returns_an_awaitable(world, func: Callable[..., Awaitable[int]]) -> None:
    """Anything that returns an awaitable when called can be executed, the first time and every time."""
    provider = world.provider()
    for _ in range(3):
        assert await provider.execute(func, 40, right=2) == 42
    assert await provider.execute(partial(func, 40, 2)) == 42


@pytest.mark.parametrize("value", [None, False, 0, "", [], NotImplemented, ...])
async def test_every_value_is_a_result(world, value: object) -> None:
    """A returned value is a result, however empty, and never a failure."""
    call = world.script(value)
    assert await world.provider().execute(call) is value
    assert call.calls == 1


async def test_an_exception_that_is_returned_is_a_value(world) -> None:
    """An exception that the function returns instead of raising is an ordinary value."""
    error = ConnectionResetError()

    async def fetch() -> Exception:
        return error

    assert await world.provider().execute(fetch) is error


async def test_no_keyword_is_taken(world) -> None:
    """Every positional and keyword argument reaches the function, on each attempt, whatever its name."""
    names = "self func args kwargs timeout attempt_timeout deadline operation idempotent retry refresh name endpoint"
    given: dict[str, Any] = {name: object() for name in names.split()}
    call = world.script(ConnectionResetError, "done")
    await world.provider().execute(call, 1, 2, **given)
    await world.provider().try_execute(call, 1, 2, **given)
    assert call.given == [((1, 2), given)] * 3


async def test_concurrent_calls_keep_their_results(world) -> None:
    """A hundred calls at once each get their own result."""
    provider, results = world.provider(), {}

    async def one(number: int) -> None:
        results[number] = await provider.execute(add, number, number)

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(one, number)
    assert results == {number: 2 * number for number in range(100)}
    assert provider.snapshot().calls == 100


# -- what is tried again ---------------------------------------------------------------------------------------------


@WARM
async def test_a_failure_that_passes(world, warm: bool) -> None:
    """A call whose first two attempts fail returns what the third one returned."""
    provider = await world.warm(world.provider(), warm=warm)
    call = world.script(ConnectionResetError, world.status(503), "stored")
    assert await provider.execute(call, "body", key="k") == "stored"
    assert call.given == [(("body",), {"key": "k"})] * 3
    assert provider.snapshot().calls == 1 + warm


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 529])
async def test_statuses_that_are_tried_again(world, status: int) -> None:
    """These statuses may be different next time, so they get all three attempts."""
    call = world.script(world.status(status))
    with pytest.raises(world.HttpError):
        await world.provider().execute(call)
    assert call.calls == 3


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 409, 410, 413, 422, 501, 505])
async def test_statuses_that_are_final(world, status: int) -> None:
    """These statuses will be the same next time, so the first answer is the last."""
    call = world.script(world.status(status))
    with pytest.raises(world.HttpError):
        await world.provider().execute(call)
    assert call.calls == 1


async def test_unknown_errors_get_the_benefit_of_the_doubt(world) -> None:
    """An exception that nobody knows is tried again, and is evidence against the provider."""

    class StrangeError(Exception):
        pass

    call, provider = world.script(StrangeError), world.provider()
    with pytest.raises(StrangeError) as caught:
        await provider.execute(call)
    assert call.calls == 3
    assert provider.snapshot().breaker.failures_in_a_row == 3
    assert failure_of(caught.value).kind is FailureKind.UNKNOWN_ERROR


BUGS = [
    TypeError, AttributeError, NameError, UnboundLocalError, AssertionError, NotImplementedError, ImportError,
    RecursionError, KeyError, IndexError, ValueError, ZeroDivisionError, StopAsyncIteration, DeprecationWarning,
]  # fmt: skip


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize("errors", ["native", "standard"])
async def test_bugs_of_the_caller(world, bug: type[Exception], errors: str) -> None:
    """An error in the caller's own code passes through as it is: not tried again, not evidence, never replaced."""
    call, provider = world.script(lambda: bug("in your code")), world.provider(errors=errors)
    for _ in range(30):
        with pytest.raises(bug) as caught:
            await provider.execute(call)
        assert caught.value is call.raised[-1]
    now = provider.snapshot()
    assert call.calls == 30
    assert (now.breaker.state, now.breaker.failures_in_a_row, now.breaker.calls) == ("closed", 0, 0)


async def test_rules_decide_first(world) -> None:
    """A provider's own rule decides about an error before the built-in ones, for this provider alone."""

    class PrinterOnFire(Exception):
        pass

    def busy(error: object) -> FailureKind | None:
        return FailureKind.BAD_REQUEST if isinstance(error, PrinterOnFire) else None

    registry = world.registry()
    printer, other = registry.provider("printer"), registry.provider("other")
    printer.add_rule(busy)
    for provider, attempts in ((printer, 1), (registry.provider("printer"), 1), (other, 3)):
        call = world.script(PrinterOnFire)
        await provider.try_execute(call)
        assert call.calls == attempts
    with pytest.raises(TypeError) as caught:
        printer.add_rule("busy")
    assert str(caught.value) == "a rule is a function from an error to a Failure, a FailureKind or None, not 'busy'"


async def test_a_rule_that_fails_is_passed_over(world, caplog: pytest.LogCaptureFixture) -> None:
    """A rule that raises, or answers nonsense, is logged; the error is classified as if the rule were not there."""
    provider, call = world.provider(), world.script(ConnectionResetError)
    provider.add_rule(lambda error: 1 / 0)
    provider.add_rule(lambda error: "busy")
    outcome = await provider.try_execute(call)
    assert outcome.failure.kind is FailureKind.CONNECTION_ERROR
    assert call.calls == 3
    assert "a rule failed" in caplog.text


# -- what comes out --------------------------------------------------------------------------------------------------


@WARM
@pytest.mark.parametrize("attempts", [1, 3])
async def test_the_providers_own_error_comes_out(world, warm: bool, attempts: int) -> None:
    """The error of the last attempt comes out: the very instance, with no trace of the attempts before it."""
    provider, call = world.provider(retry={"max_attempts": attempts}), world.script(world.status(500))
    await world.warm(provider, warm=warm)
    with pytest.raises(world.HttpError) as caught:
        await provider.execute(call)
    error = caught.value
    assert error is call.raised[attempts - 1]
    assert type(error) is world.HttpError
    assert str(error) == "secret answer with status 500"
    assert error.__cause__ is None
    assert error.__context__ is None
    assert caught.traceback[-1].name == "__call__"


NOTES = [
    (ConnectionResetError, "resilience: openai: gave up after 3 attempts (connection_error; attempts_spent)"),
    (TimeoutError, "resilience: openai: gave up after 3 attempts (timeout; attempts_spent)"),
    (500, "resilience: openai: gave up after 3 attempts (server_error; attempts_spent)"),
    (404, "resilience: openai: gave up after 1 attempt (not_found; not_retryable)"),
    (401, "resilience: openai: gave up after 1 attempt (authentication_error; not_retryable)"),
    (KeyError, "resilience: openai: gave up after 1 attempt (bad_request; not_retryable)"),
]


@pytest.mark.parametrize("step, note", NOTES)
async def test_notes(world, step: type[Exception] | int, note: str) -> None:
    """A note on the error counts the attempts and says why there was no other."""
    call = world.script(world.status(step) if isinstance(step, int) else step)
    outcome = await world.provider().try_execute(call)
    assert outcome.error.__notes__ == [note]


async def test_notes_do_not_pile_up(world) -> None:
    """One stored instance that is raised by call after call keeps its own notes and one of ours, the latest."""
    stored = ConnectionResetError()
    stored.add_note("raised by the test")
    call, provider = world.script(lambda: stored), world.provider(breaker={"mode": "disabled"})
    for attempts in (3, 2, 1):
        await provider.with_options(retry=RetrySettings(max_attempts=attempts)).try_execute(call)
    assert len(stored.__notes__) == 2
    assert stored.__notes__[0] == "raised by the test"
    assert stored.__notes__[1].startswith("resilience: openai: gave up after 1 attempt (")


@WARM
async def test_failure_of_tells_the_facts(world, warm: bool) -> None:
    """`failure_of` gives the facts of an error that came out: what, whose, when, after how many attempts."""
    provider = await world.warm(world.provider().with_options(operation="upload"), warm=warm)
    with pytest.raises(world.HttpError) as caught:
        await provider.execute(world.script(world.status(503, retry_after="0.5")))
    assert failure_of(caught.value) == Failure(
        kind=FailureKind.OVERLOADED,
        category=Category.TRANSIENT,
        error_type=failure_of(caught.value).error_type,
        delivery=Delivery.PROCESSED,
        status=503,
        retry_after=0.5,
        provider="openai",
        operation="upload",
        attempts=3,
        time=world.EPOCH,
    )
    assert failure_of(caught.value).error_type.endswith("HttpError")
    assert failure_of(ConnectionResetError()) is None


@WARM
async def test_standard_errors(world, warm: bool) -> None:
    """With ``errors="standard"`` one type of error stands for every provider's, from the original."""
    provider, call = world.provider(errors="standard"), world.script(world.status(500))
    await world.warm(provider, warm=warm)
    with pytest.raises(ProviderError) as caught:
        await provider.with_options(operation="upload").execute(call)
    error = caught.value
    assert error.__cause__ is call.raised[2]
    assert error.failure == failure_of(error) == failure_of(error.__cause__)
    assert str(error) == f"openai.upload: server_error after 3 attempts ({error.failure.error_type}, status 500)"
    with pytest.raises(ProviderError) as caught:
        await provider.execute(world.script(FileNotFoundError))
    assert str(caught.value) == "openai: not_found after 1 attempt (FileNotFoundError)"


async def test_standard_errors_when_the_circuit_opens_meanwhile(world) -> None:
    """The standard error also stands for the last error of a call whose next attempt is refused."""
    provider, call = world.provider(errors="standard", retry=STEADY), world.script(world.status(500))

    async def open_later() -> None:
        await anyio.sleep(0.5)
        provider.breaker.open()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(open_later)
        with pytest.raises(ProviderError) as caught:
            await provider.execute(call)
    assert caught.value.__cause__ is call.raised[0]
    assert str(caught.value).startswith("openai: server_error after 1 attempt (")


async def test_our_own_errors_are_standard_already(world) -> None:
    """Refusals and timeouts of ours stay what they are with ``errors="standard"``."""
    provider = world.provider(errors="standard", timeout={"attempt": 1.0}, retry=STEADY)
    with pytest.raises(CallTimeout):
        await provider.execute(anyio.sleep, 60)
    provider.breaker.open()
    with pytest.raises(CircuitOpen):
        await provider.execute(world.script("never"))


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int = 7


class JealousError(Exception):
    """Fights every attribute from outside."""

    def __setattr__(self, name: str, value: object) -> None:
        raise RuntimeError("hands off")


class HollowError(Exception):
    """Looks up what it does not have in a place that it does not have either, as urllib's HTTPError did."""

    def __getattr__(self, name: str) -> Any:
        return self.__dict__["file"]


class GenerousError(Exception):
    """Has every attribute anybody asks for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__") and "resilience" not in name:
            raise AttributeError(name)
        return 5


class OddlyNotedError(Exception):
    """Keeps something of its own under the name of the notes."""

    def __init__(self) -> None:
        self.__notes__ = ("mine",)


@pytest.mark.parametrize("kind", [FrozenError, JealousError, HollowError, GenerousError, OddlyNotedError])
async def test_errors_that_fight_being_touched(world, kind: type[Exception]) -> None:
    """An exception that cannot be written on, or answers strangely, comes out as itself all the same."""
    call, provider = world.script(kind), world.provider()
    with pytest.raises(kind) as caught:
        await provider.execute(call)
    assert caught.value is call.raised[2]
    assert failure_of(caught.value).attempts == 3
    assert provider.snapshot().in_flight == 0


class Stop(BaseException):
    pass


@pytest.mark.parametrize("kind", [Stop, KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_what_is_no_error_passes_at_once(world, kind: type[BaseException]) -> None:
    """What is no `Exception` is nobody's failure: no retry, no note, no evidence, and nothing is left in flight."""
    call, provider = world.script(kind), world.provider()
    for _ in range(10):  # the first one looks closer, the others are on the fast path
        with pytest.raises(kind) as caught:
            await provider.execute(call)
        assert caught.value is call.raised[-1]
        assert not hasattr(caught.value, "__notes__")
        assert failure_of(caught.value) is None
    now = provider.snapshot()
    assert call.calls == 10
    assert (now.in_flight, now.breaker.failures_in_a_row, now.retries, now.calls) == (0, 0, 0, 10)


# -- whose state it is -----------------------------------------------------------------------------------------------


async def test_handles_of_one_name_share_everything(world) -> None:
    """Any number of handles of one name in one registry are one provider."""
    registry = world.registry()
    await world.trip(registry.provider("openai"))
    with pytest.raises(CircuitOpen):
        await registry.provider("openai").execute(world.script("never"))
    assert registry.provider("openai").snapshot() == registry.provider("openai").snapshot()


async def test_two_names_share_nothing(world) -> None:
    """A provider whose circuit is open and whose gate is closed is no trouble to any other."""
    registry = world.registry()
    sick, well = registry.provider("sick"), registry.provider("well")
    await sick.with_options(retry=False).try_execute(world.script(world.status(429, retry_after="100")))
    sick.breaker.open()
    began = anyio.current_time()
    assert await well.execute(world.script("fine")) == "fine"
    assert anyio.current_time() == began
    now = well.snapshot()
    assert (now.calls, now.rejected, now.gate_closed_for, now.breaker.state) == (1, 0, 0.0, "closed")


async def test_two_registries_share_nothing(world) -> None:
    """The same name in two registries is two providers."""
    one, other = world.provider(), world.provider()
    await world.trip(one)
    assert await other.execute(world.script("fine")) == "fine"


# -- switched off ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["variable", "settings", "provider"])
async def test_switched_off(world, how: str) -> None:
    """Switched off, a call is a plain await: one attempt, no note, no breaker, no gate, no limit, no state."""
    settings = {
        "variable": lambda: Settings.from_environment({"RESILIENCE_ENABLED": "false"}),
        "settings": lambda: Settings(enabled=False),
        "provider": lambda: Settings(providers={"openai": ProviderSettings(enabled=False)}),
    }[how]()
    registry = ProviderRegistry(settings, clock=anyio.current_time, wall_clock=lambda: world.EPOCH)
    heard = EventRecorder()
    registry.subscribe(heard, *world.QUIET)
    provider, fresh = registry.provider("openai"), registry.provider("openai").snapshot()
    call = world.script(world.status(429, retry_after="60"))
    for _ in range(20):
        with pytest.raises(world.HttpError) as caught:
            await provider.with_options(timeout=0.001).execute(call)
        assert caught.value is call.raised[-1]
        assert not hasattr(caught.value, "__notes__")
        assert failure_of(caught.value) is None
    assert await provider.execute(add, 1, 1) == 2
    assert await provider.with_options(attempt_timeout=0.001).execute(add, 1, 1) == 2
    provider.breaker.open()
    assert await provider.execute(add, 1, 1) == 2
    assert (await provider.try_execute(add, 1, 1)).unwrap() == 2
    sick = world.provider()
    await world.trip(sick)
    provider.breaker.restore(sick.snapshot().breaker)
    assert provider.breaker.state == "open"
    assert await provider.execute(add, 1, 1) == 2
    assert (await provider.try_execute(add, 1, 1)).unwrap() == 2
    provider.breaker.reset()
    assert call.calls == 20
    assert provider.snapshot() == fresh
    assert [event for event in heard if not isinstance(event, CircuitChanged)] == []


async def test_switched_off_for_one(world) -> None:
    """A provider that is switched off leaves the others protected."""
    settings = Settings(providers={"openai": ProviderSettings(enabled=False)})
    other = ProviderRegistry(settings, clock=anyio.current_time).provider("other")
    call = world.script(ConnectionResetError, "stored")
    assert await other.execute(call) == "stored"


# -- what stays behind -----------------------------------------------------------------------------------------------


class Gone(ConnectionError):
    pass


async def fail() -> None:
    await anyio.lowlevel.checkpoint()
    raise Gone


async def run_block(provider: Any) -> None:
    async for attempt in provider.attempts():
        async with attempt:
            await fail()


async def run_block_that_hangs(provider: Any) -> None:
    async for attempt in provider.attempts():
        async with attempt:
            await anyio.sleep(60)


async def leave_block(provider: Any) -> None:
    async for attempt in provider.attempts():
        async with attempt:
            await fail()
        break


async def open_meanwhile(provider: Any) -> None:
    async def open_later() -> None:
        await anyio.sleep(0.5)
        provider.breaker.open()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(open_later)
        await provider.try_execute(fail)
    await provider.execute(fail)


async def open_circuit(provider: Any) -> None:
    for _ in range(5):
        await provider.try_execute(fail)
    assert provider.breaker.state == "open"
    await provider.execute(fail)


WAYS: dict[str, Callable[[Any], Awaitable[object]]] = {
    "retried": lambda provider: provider.execute(fail),
    "timeout": lambda provider: provider.execute(anyio.sleep, 60),
    "timeout of its own": lambda provider: provider.with_options(attempt_timeout=1).execute(anyio.sleep, 60),
    "nested": lambda provider: provider.execute(provider.execute, fail),
    "outcome": lambda provider: provider.try_execute(fail),
    "block": run_block,
    "block that hangs": run_block_that_hangs,
    "block that is left": leave_block,
    "refused by hand": open_meanwhile,
    "refused": open_circuit,
}


@WARM
@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("errors", ["native", "standard"])
@pytest.mark.parametrize("way", WAYS)
async def test_errors_are_freed_at_once(world, way: str, warm: bool, errors: str, attempts: int) -> None:
    """An error is free as soon as its caller is done with it: no cycle holds it and the frames that it went through."""
    retry = RetrySettings(jitter="none", max_attempts=attempts)
    provider = world.provider(timeout={"attempt": 5.0}, errors=errors, retry=retry)
    await world.warm(provider, warm=warm)
    logging.disable(logging.CRITICAL)  # a log line that is kept keeps its error
    gc.disable()
    gc.freeze()  # what was there before is not looked at
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        with suppress(Exception):
            await WAYS[way](provider)
        world.events.clear()
        gc.collect()
        left = [thing for thing in gc.garbage if isinstance(thing, Gone | ResilienceError)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()
        logging.disable(logging.NOTSET)
    assert left == []
