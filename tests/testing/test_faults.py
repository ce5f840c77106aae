"""Faults: what a test may order, where it strikes, and what the caller notices."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Self

import anyio
import httpx
import pytest

from resilience import (
    CallTimeout,
    CircuitState,
    Delivery,
    FailureKind,
    HedgeSettings,
    ProviderRegistry,
    ProviderSettings,
    ResilientProvider,
    RetrySettings,
    Settings,
    StreamInterrupted,
    StreamSettings,
    TimeoutSettings,
    classify,
)
from resilience.testing import EventRecorder, Fault, Faults, InjectedStatus, Injection

asynchronous = pytest.mark.anyio


class Target:
    """An async function that counts how often it was reached."""

    def __init__(self) -> None:
        self.reached = 0

    async def __call__(self, value: str = "answer") -> str:
        self.reached += 1
        return value


async def count(to: int) -> AsyncGenerator[int]:
    """A stream."""
    for number in range(to):
        yield number


def registry(**settings: object) -> ProviderRegistry:
    """A registry on virtual time whose retries do not wait."""
    return ProviderRegistry(
        Settings(defaults=ProviderSettings(**{"retry": RetrySettings(base_delay=0), **settings})),
        clock=anyio.current_time,
    )


async def result(faults: Faults, target: object = None) -> object:
    """What one call through *faults* comes to."""
    try:
        return await faults.wrap(target or Target())()
    except Exception as error:
        return type(error)


# -- schedules ---------------------------------------------------------------------------------------------------


@asynchronous
async def test_the_same_seed_strikes_the_same_calls() -> None:
    """Which calls fail, and how, depends on seed and number only; another seed strikes others."""

    async def course(seed: int) -> list[Injection]:
        faults = Faults(seed=seed, error=0.2, rate_limit=0.2, latency=(0.1, 0.3))
        for _ in range(50):
            await result(faults)
        return faults.injected

    assert await course(3) == await course(3)
    assert await course(3) != await course(4)


@asynchronous
async def test_shares_are_what_they_say() -> None:
    """Over many calls each fault takes the share it was given, and the rest goes well."""
    faults = Faults(error=0.2, server_error=0.1, rate_limit=0.05, timeout=0.05)
    seen = Counter([await result(faults) for _ in range(2_000)])
    assert seen["answer"] == pytest.approx(1_200, rel=0.1)
    assert Counter(faults.kinds)["error"] == pytest.approx(400, rel=0.15)
    assert Counter(faults.kinds)["server_error"] == pytest.approx(200, rel=0.2)
    assert faults.calls == 2_000


@asynchronous
async def test_a_script_is_followed_step_by_step() -> None:
    """Each call does what its step says; after the last one nothing happens."""
    faults = Faults.script(["error", "ok", ValueError("mine"), KeyError, "rate_limit"])
    assert [await result(faults) for _ in range(7)] == [
        ConnectionResetError,
        "answer",
        ValueError,
        KeyError,
        InjectedStatus,
        "answer",
        "answer",
    ]
    assert faults.kinds == ["error", "error", "error", "rate_limit"]
    assert [injection.call for injection in faults.injected] == [0, 2, 3, 4]


@asynchronous
async def test_a_script_can_go_on() -> None:
    """After the end of a script its last step goes on for ever, or it begins anew, as asked for."""
    last = Faults.script(["ok", "error"], then="last")
    again = Faults.script(["ok", "error"], then="repeat")
    assert [await result(last) == "answer" for _ in range(5)] == [True, False, False, False, False]
    assert [await result(again) == "answer" for _ in range(5)] == [True, False, True, False, True]


@asynchronous
async def test_always_overrides_the_schedule_for_a_while() -> None:
    """Inside the block every call meets the same fault; afterwards the schedule goes on."""
    faults = Faults()
    with faults.always("server_error"), faults.always("error"):
        assert await result(faults) is ConnectionResetError
    assert await result(faults) == "answer"


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: Faults(error=5), "error=5 is no share"),
        (lambda: Faults(hang=math.nan), "hang=nan is no share"),
        (lambda: Faults(error=0.6, timeout=0.6), r"error=0\.6, timeout=0\.6: .*at most"),
        (lambda: Faults(latency=-1), "latency=-1"),
        (lambda: Faults(latency=(3, 2)), "the least comes first"),
        (lambda: Faults(latency=math.inf), "latency=inf: expected an end"),
        (lambda: Faults(cut_after=-1), "cut_after=-1"),
        (lambda: Faults(patience="5"), "patience='5'"),
        (lambda: Faults.script(["eror"]), "did you mean 'error'"),
        (lambda: Faults.script(["xyz"]), "expected one of ok, latency"),
        (lambda: Faults.script([]), "without steps"),
        (lambda: Faults.script(["ok"], then="stop"), "then='stop'"),
        (lambda: Fault("hang", retry_after=3), "means nothing to 'hang': it is for 'server_error' and 'rate_limit'"),
        (lambda: Fault("server_error", status=200), "no status of an error"),
        (lambda: Fault("cut", after=1.5), "after=1.5"),
    ],
)
def test_nonsense_is_refused(wrong: object, message: str) -> None:
    """A figure that makes no sense is refused when it is given, by its name."""
    with pytest.raises(ValueError, match=message):
        wrong()


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: Faults(raises="boom"), "raises='boom'"),
        (lambda: Fault("error", error="boom"), "error='boom'"),
        (lambda: Faults.script("error"), r"\['error'\]"),
        (lambda: Faults.script([True]), "True is no step"),
        (lambda: Faults.script([None]), "None is no step"),
        (lambda: Faults().wrap("func"), "not str"),
        (lambda: Faults().items([1]), "not list"),
        (lambda: Faults().inject(7).__enter__(), "not int"),
        (lambda: Faults().transport(7), "not int"),
    ],
)
def test_things_of_the_wrong_type_are_refused(wrong: object, message: str) -> None:
    """Something of another type is refused when it is given, with a word on what was expected."""
    with pytest.raises(TypeError, match=message):
        wrong()


# -- what a function's caller sees -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step, kind",
    [
        ("error", FailureKind.CONNECTION_ERROR),
        ("timeout", FailureKind.TIMEOUT),
        ("server_error", FailureKind.SERVER_ERROR),
        ("rate_limit", FailureKind.RATE_LIMIT),
        ("partition", FailureKind.TIMEOUT),
        ("exhausted_pool", FailureKind.TIMEOUT),
        ("lost_answer", FailureKind.CONNECTION_ERROR),
        (Fault("server_error", status=503, retry_after=2), FailureKind.OVERLOADED),
    ],
)
@asynchronous
async def test_errors_are_classified_like_real_ones(step: object, kind: FailureKind) -> None:
    """The classification takes what is injected for what it stands for, and the message says where it comes from."""
    with pytest.raises(Exception, match="injected") as caught:
        await Faults.script([step]).wrap(Target())()
    assert classify(caught.value).kind is kind


@asynchronous
async def test_rate_limits_carry_their_hint() -> None:
    """A 429 tells how long to stay away, to the millisecond, or nothing at all."""
    faults = Faults(rate_limit=1, retry_after=2.5)
    with pytest.raises(InjectedStatus) as caught:
        await faults.wrap(Target())()
    assert caught.value.headers == {"retry-after": "3", "retry-after-ms": "2500"}
    assert classify(caught.value).retry_after == 2.5
    with pytest.raises(InjectedStatus) as caught:
        await Faults(rate_limit=1, retry_after=None).wrap(Target())()
    assert caught.value.headers == {}


@asynchronous
async def test_an_exhausted_pool_is_no_evidence_against_the_provider() -> None:
    """Waiting in vain for a connection of one's own takes as long as the client's patience, and is surely unsent."""
    with pytest.raises(httpx.PoolTimeout) as caught:
        await Faults(exhausted_pool=1, patience=7).wrap(Target())()
    assert anyio.current_time() == 7
    assert classify(caught.value).delivery is Delivery.UNSENT


@asynchronous
async def test_faults_keep_calls_from_their_target_but_a_lost_answer_does_not() -> None:
    """A call that fails did not take effect, but for the one whose answer is lost."""
    target = Target()
    for step in ("error", "server_error", "timeout"):
        await result(Faults.script([step]), target)
    assert target.reached == 0
    assert await result(Faults.script(["lost_answer"]), target) is ConnectionResetError
    assert target.reached == 1


@asynchronous
async def test_latency_holds_calls_up() -> None:
    """A call takes as much longer as was asked for, also one that then fails."""
    faults = Faults.script([2.5, Fault("error", latency=4)])
    assert await result(faults) == "answer"
    assert anyio.current_time() == 2.5
    assert await result(faults) is ConnectionResetError
    assert anyio.current_time() == 6.5
    assert [(one.kind, one.latency) for one in faults.injected] == [("latency", 2.5), ("error", 4)]


@asynchronous
async def test_a_hang_lasts_until_somebody_gives_up() -> None:
    """A call that hangs ends only by being cancelled."""
    with anyio.move_on_after(3_600) as scope:
        await result(Faults(hang=1))
    assert scope.cancelled_caught


@asynchronous
async def test_own_errors_are_made_anew() -> None:
    """Each call raises an error of its own, made by what was given."""
    call = Faults(error=1, raises=lambda: OSError("mine")).wrap(Target())
    caught = []
    for _ in range(2):
        with pytest.raises(OSError, match="mine") as info:
            await call()
        caught.append(info.value)
    assert caught[0] is not caught[1]


# -- shapes ------------------------------------------------------------------------------------------------------


@asynchronous
async def test_functions_keep_their_face() -> None:
    """A wrapped coroutine function still is one, with its name and its signature."""

    async def fetch(url: str, *, retries: int = 3) -> str:
        """Fetch it."""
        return f"{url}{retries}"

    wrapped = Faults().wrap(fetch)
    assert inspect.iscoroutinefunction(wrapped)
    assert inspect.signature(wrapped) == inspect.signature(fetch)
    assert (wrapped.__name__, wrapped.__doc__) == ("fetch", "Fetch it.")
    assert await wrapped("a", retries=1) == "a1"


@asynchronous
async def test_whatever_returns_an_awaitable_can_be_wrapped() -> None:
    """A plain function that returns a coroutine works, and none is left over when the fault comes first."""
    target = Target()
    faults = Faults.script(["ok", "error"])
    call = faults.wrap(lambda: target("mine"))
    assert await call() == "mine"
    with pytest.raises(ConnectionResetError):
        await call()
    assert target.reached == 1
    assert faults.injected[0].target.endswith("<lambda>")


@asynchronous
async def test_synchronous_functions_are_an_error() -> None:
    """Faults do not go around what cannot be awaited, and say so."""
    with pytest.raises(TypeError, match=r"returned int, which cannot be awaited"):
        Faults().wrap(lambda: 7)()


@asynchronous
async def test_streams_are_cut_and_stall() -> None:
    """A stream breaks off after so many items, or comes to a halt before the next one."""
    seen: list[int] = []
    cut = Faults(cut_after=3)
    with pytest.raises(ConnectionResetError):
        async for number in cut.wrap(count)(10):
            seen.append(number)  # noqa: PERF401 - what came before the end is the point
    assert seen == [0, 1, 2]
    assert cut.kinds == ["cut"]
    stall = Faults(stall_after=2, stall_for=60)
    assert [number async for number in stall.wrap(count)(4)] == [0, 1, 2, 3]
    assert anyio.current_time() == 60
    assert stall.kinds == ["stall"]


@asynchronous
async def test_a_cut_stream_is_over() -> None:
    """After the error nothing more comes, and a stream too short to be cut, or cut at its end, tells the truth."""
    stream = Faults(cut_after=0).items(count(3))
    with pytest.raises(ConnectionResetError):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    faults = Faults(cut_after=5)
    assert [number async for number in faults.items(count(3))] == [0, 1, 2]
    assert faults.kinds == []
    with pytest.raises(ConnectionResetError):
        _ = [number async for number in Faults(cut_after=3).items(count(3))]


@asynchronous
async def test_streams_fail_like_calls_before_their_first_item() -> None:
    """An error, a latency or a lost answer of an async generator function comes with its first item."""
    for step in ("error", "lost_answer"):
        with pytest.raises(ConnectionResetError):
            await anext(Faults.script([step]).wrap(count)(3))
    assert [number async for number in Faults.script([5]).wrap(count)(2)] == [0, 1]
    assert anyio.current_time() == 5


@asynchronous
async def test_a_stream_that_a_call_returns_is_cut_too() -> None:
    """What a coroutine function returns, or a context manager gives, is cut if it is a stream, and closed as ever."""
    closed: list[str] = []

    class Stream:
        response = "the response"

        def __aiter__(self) -> AsyncGenerator[int]:
            return count(5)

        async def aclose(self) -> None:
            closed.append("closed")

    async def create() -> Stream:
        return Stream()

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Stream]:
        yield Stream()
        closed.append("left")

    returned = await Faults(cut_after=1).wrap(create)()
    assert returned.response == "the response"
    async with returned as stream:
        assert await anext(stream) == 0
        with pytest.raises(ConnectionResetError):
            await anext(stream)
    assert closed == ["closed"]
    async with Faults(cut_after=0).wrap(opened)() as stream:
        with pytest.raises(ConnectionResetError):
            await anext(stream)
    assert closed == ["closed", "left"]


@asynchronous
async def test_context_managers_fail_on_entering() -> None:
    """An async context manager that meets an error is not entered; without one nothing changes."""
    entered: list[str] = []

    class Both:
        """Can be awaited or entered, as aiohttp's requests."""

        def __await__(self):
            return Target()("awaited").__await__()

        async def __aenter__(self) -> str:
            entered.append("entered")
            return "inside"

        async def __aexit__(self, *_: object) -> None:
            entered.append("left")

    request = Faults.script(["error", "lost_answer", "ok", "ok", "error"]).wrap(Both)
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            async with request():
                raise AssertionError("inside")
    async with request() as value:
        assert value == "inside"
    assert entered == ["entered", "left"]
    assert await request() == "awaited"
    with pytest.raises(ConnectionResetError):
        await request()


@asynchronous
async def test_a_lost_answer_is_closed() -> None:
    """The result of a call whose answer is lost does not stay open."""
    closed: list[bool] = []

    class Response:
        async def aclose(self) -> None:
            closed.append(True)

    async def create() -> Response:
        return Response()

    with pytest.raises(ConnectionResetError):
        await Faults.script(["lost_answer"]).wrap(create)()
    assert closed == [True]


# -- inside a provider -------------------------------------------------------------------------------------------


@asynchronous
async def test_every_attempt_of_a_provider_meets_the_faults() -> None:
    """Inside the block each attempt takes its step, retries included, whatever the handle; outside none does."""
    provider = registry().provider("openai")
    target = Target()
    assert await provider.execute(target) == "answer"  # so that a fast path could be used
    with Faults.script(["error", "rate_limit", "ok", "error"]).inject(provider) as faults:
        assert await provider.with_options(operation="chat").execute(target) == "answer"
        assert faults.kinds == ["error", "rate_limit"]
        assert await provider.wrap(target)() == "answer"
        assert faults.kinds == ["error", "rate_limit", "error"]
        assert (await provider.try_execute(target)).ok
    assert await provider.execute(target) == "answer"
    assert faults.calls == 6
    assert target.reached == 5
    assert provider.snapshot().retries == 3


@asynchronous
async def test_faults_are_evidence_like_any_failure() -> None:
    """Enough injected failures open the circuit, and other providers notice nothing."""
    everyone = registry(retry=RetrySettings(max_attempts=1))
    sick, well = everyone.provider("sick"), everyone.provider("well")
    target = Target()
    with Faults(server_error=1).inject(sick):
        for _ in range(5):
            assert not (await sick.try_execute(target)).ok
        assert await well.execute(target) == "answer"
    assert sick.breaker.state is CircuitState.OPEN
    assert target.reached == 1


@asynchronous
async def test_a_hanging_attempt_meets_its_time_out() -> None:
    """A hang is interrupted by the attempt's own limit, and the next attempt may go well."""
    provider = registry(timeout=TimeoutSettings(attempt=30)).provider("openai")
    with Faults.script(["hang", "hang", "hang", "hang"]).inject(provider):
        with pytest.raises(CallTimeout):
            await provider.with_options(retry=False).execute(Target())
        assert anyio.current_time() == 30
        with pytest.raises(CallTimeout):
            await provider.execute(Target())


@asynchronous
async def test_a_held_stream_is_cut() -> None:
    """What `hold` gives is the stream with the fault in it."""

    async def create() -> AsyncGenerator[int]:
        return count(5)

    provider = registry().provider("openai")
    with Faults(cut_after=2).inject(provider):
        hold = await provider.hold(create)
        with pytest.raises(ConnectionResetError) as caught:
            _ = [number async for number in hold.value]
        failure = hold.end(caught.value)
    assert failure.kind is FailureKind.CONNECTION_ERROR


@asynchronous
async def test_blocks_can_be_nested_and_end_in_any_order() -> None:
    """Two sets of faults strike the same attempts; each ends with its own block, whichever is left first."""
    provider = registry(retry=RetrySettings(max_attempts=1)).provider("openai")
    slow, broken = Faults(latency=2), Faults(error=1)
    first, second = slow.inject(provider), broken.inject(provider)
    first.__enter__()
    second.__enter__()
    assert not (await provider.try_execute(Target())).ok
    first.__exit__(None, None, None)
    assert not (await provider.try_execute(Target())).ok
    second.__exit__(None, None, None)
    assert (await provider.try_execute(Target())).ok
    assert (slow.calls, broken.calls) == (1, 2)


@asynchronous
async def test_an_endpoint_is_a_provider_of_its_own() -> None:
    """Faults of an endpoint do not strike its provider."""
    everyone = registry(retry=RetrySettings(max_attempts=1))
    with Faults(error=1).inject(everyone.provider("s3", endpoint="eu")):
        assert await everyone.provider("s3").execute(Target()) == "answer"
        assert not (await everyone.provider("s3", endpoint="eu").try_execute(Target())).ok


@asynchronous
async def test_a_name_means_the_default_registry() -> None:
    """A provider of the process's default registry can be named."""
    with Faults(error=1).inject("faults-by-name") as faults:
        outcome = await ResilientProvider("faults-by-name").with_options(retry=False).try_execute(Target())
    assert not outcome.ok
    assert faults.calls == 1


@asynchronous
async def test_listeners_hear_of_injected_failures() -> None:
    """Events tell of injected faults as of real ones."""
    everyone = registry()
    events = EventRecorder()
    everyone.subscribe(events)
    provider = everyone.provider("openai")
    with Faults.script(["error"]).inject(provider):
        await provider.execute(Target())
    assert events.kinds == ["AttemptFailed", "RetryScheduled", "CallRecovered"]


@asynchronous
async def test_the_record_reads_well() -> None:
    """The repr sums up, and a bad status names itself."""
    faults = Faults.script(["error", "ok", "error", "rate_limit"])
    assert repr(faults) == "<Faults [0 calls, injected: none]>"
    for _ in range(3):
        await result(faults)
    with pytest.raises(InjectedStatus, match="status 429: injected into call 3"):
        await faults.wrap(Target())()
    assert repr(faults) == "<Faults [4 calls, injected: error: 2, rate_limit: 1]>"


@asynchronous
async def test_a_stream_of_a_provider_meets_the_faults() -> None:
    """A stream that fails, or is cut, before its first item is opened anew; one that is cut later is interrupted."""
    provider = registry().provider("openai")
    items: list[int] = []
    faults = Faults.script(["error", Fault("cut", after=0), Fault("cut", after=2)])
    with faults.inject(provider), pytest.raises(StreamInterrupted):
        async with provider.stream(count, 5) as stream:
            async for item in stream:
                items.append(item)  # noqa: PERF401 - what came before the end is the point
    assert items == [0, 1]
    assert faults.kinds == ["error", "cut", "cut"]


@asynchronous
async def test_a_stream_that_hangs_meets_the_limit_of_its_phase() -> None:
    """A hang before the first item is interrupted by the limit for that, a stall after it by the idle limit."""
    provider = registry(stream=StreamSettings(first_item=3, idle=7), retry=RetrySettings(max_attempts=1)).provider(
        "openai"
    )
    with Faults.script(["hang", Fault("stall", after=1)]).inject(provider):
        with pytest.raises(CallTimeout) as caught:
            async with provider.stream(count, 5):
                raise AssertionError("open")
        assert (caught.value.scope, anyio.current_time()) == ("first_item", 3)
        with pytest.raises(StreamInterrupted):
            async with provider.stream(count, 5) as stream:
                _ = [item async for item in stream]
    assert anyio.current_time() == 10


@asynchronous
async def test_a_provider_that_is_switched_off_meets_them_too() -> None:
    """Without any protection of ours the faults still strike, once a call."""
    provider = registry(enabled=False).provider("openai")
    target = Target()
    with Faults.script(["error", "error", "ok"]).inject(provider):
        assert not (await provider.try_execute(target)).ok
        with pytest.raises(ConnectionResetError):
            await provider.hold(target)
        assert await provider.execute(target) == "answer"
    assert target.reached == 1


@asynchronous
async def test_each_of_two_hedged_attempts_has_its_own_turn() -> None:
    """An attempt that hangs is overtaken by the second one, which meets the next step."""
    hedge = HedgeSettings(enabled=True, max_delay=2, max_extra_load=0.5, warm_up=1)
    provider = (
        registry(hedge=hedge, retry=RetrySettings(enabled=False)).provider("openai").with_options(idempotent=True)
    )
    for _ in range(20):
        assert await provider.execute(Target()) == "answer"
    with Faults.script(["hang", "ok"]).inject(provider) as faults:
        assert await provider.execute(Target()) == "answer"
    assert faults.calls == 2


@asynchronous
async def test_calls_can_be_tasks() -> None:
    """Whatever is wrapped can be started as a task, and cancelled there."""
    target, ended = Target(), []
    faults = Faults.script([2, "hang"])
    call = faults.wrap(target)

    async def caller() -> None:
        try:
            await call()
        finally:
            ended.append(anyio.current_time())

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.sleep(1)
        group.start_soon(call)
        group.start_soon(caller)
        await anyio.sleep(2)
        group.cancel_scope.cancel()
    assert target.reached == 2
    assert ended == [1]


@asynchronous
async def test_a_stream_that_is_a_context_manager_stays_one() -> None:
    """The stream's own entering and leaving take place, with the error that ended it."""
    steps: list[object] = []

    class Stream:
        async def __aenter__(self) -> Self:
            steps.append("entered")
            return self

        async def __aexit__(self, kind: object, error: object, _: object) -> bool:
            steps.append(kind)
            return True

        def __aiter__(self) -> AsyncGenerator[int]:
            return count(3)

    async def create() -> Stream:
        return Stream()

    async with await Faults(cut_after=1).wrap(create)() as stream:
        _ = [number async for number in stream]
    assert steps == ["entered", ConnectionResetError]
