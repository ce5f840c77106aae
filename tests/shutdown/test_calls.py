"""What a shutdown does to a call, by the state in which it finds it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import pytest

from resilience import (
    AllProvidersFailed,
    BulkheadSettings,
    CallTimeout,
    HedgeSettings,
    ProviderSettings,
    RateLimitSettings,
    Reason,
    ResilientProvider,
    RetrySettings,
    ShuttingDown,
    failure_of,
)
from resilience.events import AttemptTimedOut, CallWasRejected, HedgeLaunched, RetryScheduled
from resilience.failure import FailureKind
from resilience.process import watch_calls
from resilience.watching import End

pytestmark = pytest.mark.anyio


class RateLimitedError(Exception):
    status_code = 429
    headers = {"retry-after": "4"}  # noqa: RUF012


class UnauthorizedError(Exception):
    status_code = 401


async def _items(count: int, pause: float) -> Any:
    for number in range(count):
        await anyio.sleep(pause)
        yield number


async def _read(provider: ResilientProvider, count: int, pause: float) -> list[int]:
    async with provider.stream(_items, count, pause) as items:
        return [item async for item in items]


async def deaf(seconds: float) -> str:
    """A function that cannot be interrupted."""
    ends = anyio.current_time() + seconds
    with anyio.CancelScope(shield=True):
        while (left := ends - anyio.current_time()) > 0:
            with suppress(asyncio.CancelledError):
                await anyio.sleep(left)
    return "done"


async def _in_blocks(provider: ResilientProvider, work: Callable[[], Awaitable[object]]) -> object:
    async for attempt in provider.attempts():
        async with attempt:
            return await work()
    raise AssertionError


async def _held(provider: ResilientProvider, seconds: float) -> str:
    async with await provider.hold(anyio.sleep, 0):
        await anyio.sleep(seconds)
    return "done"


# -- new ones ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("way", ["execute", "hold", "stream", "attempts", "coalesced"])
async def test_a_new_call_is_refused(scene: Any, way: str, warm: bool) -> None:
    """However it is made: nothing is sent, and the error says why."""
    if warm:
        await scene.warm()
    await scene.shut_down()
    provider, work = scene.provider, partial(scene.work, 1)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "execute": lambda: provider.execute(work),
        "hold": lambda: _held(provider, 1),
        "stream": lambda: _read(provider, 1, 1),
        "attempts": lambda: _in_blocks(provider, work),
        "coalesced": lambda: provider.with_options(coalesce="key").execute(work),
    }
    with pytest.raises(ShuttingDown, match="s3: shutting down") as caught:
        await calls[way]()
    assert caught.value.reason is Reason.SHUTTING_DOWN
    assert caught.value.retry_after is None
    assert scene.began == []
    assert [event.reason for event in scene.events.of(CallWasRejected)] == [Reason.SHUTTING_DOWN]


async def test_a_refusal_as_a_value(scene: Any) -> None:
    """`try_execute` and `map` return the refusal; of a provider whose circuit is open, too."""
    scene.provider.breaker.open()
    await scene.shut_down()
    outcome = await scene.provider.try_execute(scene.work, 1)
    assert (outcome.rejected, outcome.reason) == (True, Reason.SHUTTING_DOWN)
    batch = await scene.provider.map(scene.work, [1, 2])
    assert [one.reason for one in batch] == [Reason.SHUTTING_DOWN] * 2


async def test_a_provider_that_was_never_used(scene: Any) -> None:
    """A name that nobody has used before the shutdown is refused as well."""
    await scene.shut_down()
    assert (await scene.registry.provider("other").try_execute(scene.work, 1)).reason is Reason.SHUTTING_DOWN


async def test_a_provider_that_is_disabled(scene: Any) -> None:
    """What resilience is switched off for is not its business: such calls are neither refused nor waited for."""
    provider = scene.use(enabled=False)
    async with scene.under_way(call=lambda: provider.execute(scene.work, 3)):
        assert (await scene.shut_down()).finished == 0
        assert await provider.execute(scene.work, 1) == "done"
    assert scene.end() == "done"


# -- those in flight ---------------------------------------------------------------------------------------------------

IN_FLIGHT: dict[str, Callable[[Any, float], Awaitable[object]]] = {
    "fast": lambda scene, seconds: scene.provider.execute(scene.work, seconds),
    "own limit": lambda scene, seconds: scene.provider.with_options(attempt_timeout=500).execute(scene.work, seconds),
    "no limit": lambda scene, seconds: scene.provider.with_options(attempt_timeout=None, timeout=None).execute(
        scene.work, seconds
    ),
    "a block": lambda scene, seconds: _in_blocks(scene.provider, partial(scene.work, seconds)),
    "coalesced": lambda scene, seconds: scene.provider.with_options(coalesce="key").execute(scene.work, seconds),
    "a stream's opening": lambda scene, seconds: _read(
        scene.provider.with_options(attempt_timeout=500, timeout=None), 1, seconds
    ),
    "nested": lambda scene, seconds: scene.provider.execute(scene.provider.execute, scene.work, seconds),
    "hedged": lambda scene, seconds: (
        scene.registry.provider("hedged").with_options(idempotent=True).execute(scene.work, seconds)
    ),
}
EACH = pytest.mark.parametrize("way", IN_FLIGHT)
LONG = {"timeout": {"attempt": 500, "total": 1000}}


def _hedge(delay: float) -> HedgeSettings:
    return HedgeSettings(enabled=True, max_extra_load=0.5, min_delay=delay, max_delay=delay, warm_up=1)


async def _scene_with_hedges(scene: Any) -> None:
    scene.use(**LONG)
    hedged = ProviderSettings(**LONG, hedge=_hedge(400), retry=RetrySettings(enabled=False))
    scene.registry.settings = scene.registry.settings.model_copy(update={"providers": {"hedged": hedged}})
    await scene.warm()


@EACH
async def test_what_is_in_flight_may_finish(scene: Any, way: str) -> None:
    """A call that needs less than the grace returns its result, and the shutdown is over in that moment."""
    await _scene_with_hedges(scene)
    async with scene.under_way(call=lambda: IN_FLIGHT[way](scene, 11)) as began:
        report = await scene.shut_down()
        assert anyio.current_time() == pytest.approx(began + 10)
    assert scene.end() in ("done", [0])
    assert (report.interrupted, report.abandoned, report.seconds) == (0, 0, pytest.approx(10))
    assert report.finished == (2 if way == "nested" else 1)
    assert report.clean


@EACH
async def test_what_needs_longer_is_interrupted(scene: Any, way: str) -> None:
    """It comes out as an error that says so: no success, no cancellation, and no evidence against the provider."""
    await _scene_with_hedges(scene)
    async with scene.under_way(call=lambda: IN_FLIGHT[way](scene, 100)) as began:
        report = await scene.shut_down()
        assert anyio.current_time() == pytest.approx(began + 20)
    error = scene.end()
    assert isinstance(error, CallTimeout)
    assert (error.scope, error.limit, error.elapsed) == ("shutdown", 20, pytest.approx(21))
    assert "shutting_down" in "".join(error.__notes__)
    failure = failure_of(error)
    assert failure is not None
    assert failure.kind is FailureKind.INTERRUPTED
    assert (report.finished, report.abandoned) == (0, 0)
    assert report.interrupted == (2 if way == "nested" else 1)
    assert not report.clean
    for provider in (scene.provider, scene.registry.provider("hedged")):
        assert provider.snapshot().breaker.failed == 0
        assert provider.snapshot().in_flight == 0
    assert {event.scope for event in scene.events.of(AttemptTimedOut)} == {"shutdown"}


async def test_a_failure_during_the_grace_is_not_retried(scene: Any) -> None:
    """The provider's own error comes out at once, and its note says why there was no other attempt."""
    await scene.warm()
    async with scene.under_way(call=lambda: scene.provider.execute(scene.work, 3, fail=True)) as began:
        report = await scene.shut_down()
    assert isinstance(scene.end(), ConnectionResetError)
    assert "gave up after 1 attempt (connection_error; shutting_down)" in scene.end().__notes__[0]
    assert scene.time() == began + 2
    assert (scene.began, report.finished, scene.events.of(RetryScheduled)) == (["3"], 1, [])


async def test_its_own_limit_comes_first(scene: Any) -> None:
    """An attempt whose own time is over during the grace fails as ever: that is the provider's fault."""
    provider = await scene.warm(scene.use(timeout={"attempt": 5}))
    async with scene.under_way(call=lambda: provider.execute(scene.work, 100)):
        await scene.shut_down()
    assert scene.end().scope == "attempt"
    assert provider.snapshot().breaker.failed == 1


async def test_its_own_limit_came_first(scene: Any) -> None:
    """An attempt that is cleaning up after its own limit when the grace ends has run into that limit."""
    provider = await scene.warm(scene.use(timeout={"attempt": 20}))

    async def slow_to_leave() -> None:
        try:
            await anyio.sleep(100)
        finally:
            await deaf(3)

    async with scene.under_way(call=lambda: provider.execute(slow_to_leave)):
        report = await scene.shut_down()
    assert (scene.end().scope, scene.end().limit) == ("attempt", 20)
    assert report.abandoned == 0


async def test_a_result_that_comes_all_the_same(scene: Any) -> None:
    """An attempt that answers its interruption with a result has finished, and nothing of it stays behind."""
    await scene.warm()
    async with scene.under_way(call=lambda: scene.provider.execute(deaf, 23)) as began:
        report = await scene.shut_down()
        assert anyio.current_time() == pytest.approx(began + 22)
    assert scene.end() == "done"
    assert (report.finished, report.interrupted) == (1, 0)


async def test_what_swallows_its_interruption_is_abandoned(scene: Any) -> None:
    """It is waited for as long as was said, then left and counted; later calls of it are refused."""
    await scene.warm()
    async with scene.under_way(call=lambda: scene.provider.execute(deaf, 100)) as began:
        report = await scene.shut_down(cancel=3)
        assert anyio.current_time() == pytest.approx(began + 23)
        assert (report.abandoned, report.interrupted, report.finished) == (1, 0, 0)
        assert "1 abandoned" in str(report)
    assert scene.end() == "done"


async def test_the_callers_own_cancellation_stays_one(scene: Any) -> None:
    """Whose task is cancelled in the moment in which the shutdown interrupts him gets no `CallTimeout`."""
    await scene.warm()

    async def call() -> None:
        with anyio.CancelScope(deadline=anyio.current_time() + 21) as scope:
            await scene.note("inner", lambda: scene.provider.execute(scene.work, 100))
        assert scope.cancelled_caught

    async with scene.under_way(call=call):
        await scene.shut_down()
    error = scene.end("inner")
    assert isinstance(error, anyio.get_cancelled_exc_class() | CallTimeout)
    assert scene.end() is None or isinstance(error, CallTimeout)


async def test_a_caller_who_leaves_during_the_grace(scene: Any) -> None:
    """A cancellation of the caller's is his, also while the registry goes down."""
    await scene.warm()

    async def call() -> str:
        with anyio.move_on_after(5):
            await scene.provider.execute(scene.work, 100)
        return "left"

    async with scene.under_way(call=call) as began:
        report = await scene.shut_down()
    assert (scene.end(), scene.time()) == ("left", began + 4)
    assert (report.finished, report.interrupted) == (1, 0)


# -- those who wait ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [False, True])
async def test_asleep_in_back_off(scene: Any, warm: bool) -> None:
    """Whoever sleeps before a retry wakes up and gets the last error; what the retry cost is given back."""
    if warm:
        await scene.warm()
    left = scene.provider.snapshot().retries_available
    async with scene.under_way(call=lambda: scene.provider.execute(scene.work, 0, fail=True)) as began:
        report = await scene.shut_down()
        assert anyio.current_time() == began
    assert isinstance(scene.end(), ConnectionResetError)
    assert "gave up after 1 attempt (connection_error; shutting_down)" in scene.end().__notes__[0]
    assert scene.time() == began
    assert scene.began == ["0"]
    assert (report.finished, report.refused) == (0, 0)
    assert scene.provider.snapshot().retries_available >= left


async def test_renewing_credentials(scene: Any) -> None:
    """A hook that renews credentials is interrupted, and the refusal it was for comes out."""
    cancelled = []

    async def refresh() -> None:
        try:
            await anyio.sleep(50)
        except anyio.get_cancelled_exc_class():
            cancelled.append(True)
            raise

    async def refused() -> None:
        raise UnauthorizedError

    async with scene.under_way(call=lambda: scene.provider.with_options(refresh=refresh).execute(refused)) as began:
        await scene.shut_down()
    assert isinstance(scene.end(), UnauthorizedError)
    assert (scene.time(), cancelled) == (began, [True])


async def test_at_the_gate(scene: Any) -> None:
    """Whoever waits at a closed gate is refused at once."""

    async def limited() -> None:
        raise RateLimitedError

    await scene.provider.with_options(retry=False).try_execute(limited)
    async with scene.under_way(call=lambda: scene.provider.execute(scene.work, 1)) as began:
        assert scene.provider.snapshot().waiting == 1
        report = await scene.shut_down()
    assert isinstance(scene.end(), ShuttingDown)
    assert (scene.time(), scene.began, report.refused) == (began, [], 1)
    assert scene.provider.snapshot().waiting == 0


LINES = {
    "bulkhead": {"bulkhead": BulkheadSettings(max_concurrent=1, max_queue=5, max_wait=60)},
    "rate limit": {"rate_limit": RateLimitSettings(requests_per_minute=1, burst=1, max_wait=500), **LONG},
    "tokens": {"rate_limit": RateLimitSettings(tokens_per_minute=1, token_estimate=1, max_wait=500), **LONG},
}


@pytest.mark.parametrize("line", LINES)
async def test_in_a_line(scene: Any, line: str) -> None:
    """Whoever stands in line is refused at once, and who has a place finishes."""
    provider = scene.use(**LINES[line])
    calls = {name: lambda: provider.execute(scene.work, 5) for name in ("one", "another", "a third")}
    async with scene.under_way(**calls) as began:
        assert provider.snapshot().waiting == 2
        report = await scene.shut_down()
    ends = [scene.ends[name] for name in calls]  # in which order they came is the loop's business
    assert ("done", began + 4) in ends
    assert sum(isinstance(end, ShuttingDown) and time == began for end, time in ends) == 2
    assert (report.finished, report.refused, scene.began) == (1, 2, ["5"])
    assert provider.snapshot().waiting == 0


async def test_a_place_that_gets_free_goes_to_nobody(scene: Any) -> None:
    """A caller who is given a place in the very step in which the shutdown begins does not leave any more."""
    provider = scene.use(bulkhead=BulkheadSettings(max_concurrent=1, max_queue=5, max_wait=60))
    calls = {name: lambda: provider.execute(scene.work, 3) for name in ("one", "another")}
    async with scene.under_way(**calls):
        await anyio.sleep(2)
        await scene.shut_down()
    done = [scene.end(name) for name in calls].count("done")
    assert done == len(scene.began)
    assert done + scene.report.refused == 2


async def test_the_callers_cancellation_in_a_line(scene: Any) -> None:
    """Who is cancelled by himself and sent away in one step is cancelled, and no trace of him stays in the line."""
    provider = scene.use(bulkhead=BulkheadSettings(max_concurrent=1, max_queue=5, max_wait=60))
    scope = anyio.CancelScope()

    async def leaves() -> str:
        await anyio.sleep(0.5)
        with scope:
            await provider.execute(scene.work, 1)
        return "left"

    async with scene.under_way(first=lambda: provider.execute(scene.work, 5), second=leaves):
        scope.cancel()
        await scene.shut_down()
    assert (scene.end("first"), scene.end("second")) == ("done", "left")
    assert provider.snapshot().waiting == 0


# -- two at once -------------------------------------------------------------------------------------------------------


def _hedging(scene: Any, delay: float) -> ResilientProvider:
    provider: ResilientProvider = scene.use(
        **LONG,
        hedge=_hedge(delay),
        retry=RetrySettings(enabled=False),
    )
    return provider.with_options(idempotent=True)


async def test_no_hedge_begins(scene: Any) -> None:
    """A call that would be hedged later goes on alone."""
    provider = _hedging(scene, 5)
    async with scene.under_way(call=lambda: provider.execute(scene.work, 10)):
        report = await scene.shut_down()
    assert scene.end() == "done"
    assert (scene.events.of(HedgeLaunched), report.finished) == ([], 1)


async def test_both_of_a_hedged_call_may_finish(scene: Any) -> None:
    """A second attempt that is under way decides the call as ever."""
    provider = _hedging(scene, 2)
    for _ in range(60):  # the hedge's budget is a share of the calls
        await provider.execute(scene.work, 0)
    scene.began.clear()
    seconds = iter([100, 5])
    async with scene.under_way(after=3, call=lambda: provider.execute(lambda: scene.work(next(seconds)))):
        assert len(scene.events.of(HedgeLaunched)) == 1
        report = await scene.shut_down()
    assert scene.end() == "done"
    assert (report.finished, report.interrupted) == (2, 0)


async def test_the_first_of_a_hedged_call_fails(scene: Any) -> None:
    """No second attempt begins in its place: its error comes out, and says why."""
    provider = _hedging(scene, 50)
    async with scene.under_way(call=lambda: provider.execute(scene.work, 3, fail=True)):
        await scene.shut_down()
    assert isinstance(scene.end(), ConnectionResetError)
    assert "shutting_down" in scene.end().__notes__[0]
    assert scene.began == ["3"]


# -- calls in calls ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("inner", ["s3", "other"])
async def test_a_call_within_an_attempt_is_a_part_of_it(scene: Any, inner: str, warm: bool) -> None:
    """An attempt that is in flight may still make calls in its own task: else it could not finish."""
    if warm:
        await scene.warm()

    async def outer() -> object:
        await anyio.sleep(3)
        return await scene.registry.provider(inner).execute(scene.work, 2)

    async with scene.under_way(call=lambda: scene.provider.execute(outer)):
        report = await scene.shut_down()
    assert scene.end() == "done"
    assert (report.finished, report.refused) == (2, 0)


async def test_a_call_within_an_attempt_waits_for_nothing(scene: Any) -> None:
    """It is refused if it had to wait, and not tried again if it fails."""

    async def limited() -> None:
        raise RateLimitedError

    async def outer() -> list[object]:
        await anyio.sleep(3)
        failed = await scene.registry.provider("fails").try_execute(scene.work, 0, fail=True)
        gated = scene.registry.provider("gated")
        await gated.with_options(retry=False).try_execute(limited)
        return [failed.error, (await gated.try_execute(scene.work, 0)).reason]

    async with scene.under_way(call=lambda: scene.provider.execute(outer)) as began:
        await scene.shut_down()
    error, reason = scene.end()
    assert isinstance(error, ConnectionResetError)
    assert reason is Reason.SHUTTING_DOWN
    assert scene.time() == began + 2


async def test_a_call_within_an_attempt_that_is_asleep(scene: Any) -> None:
    """It comes out of its back-off with its last error, and the attempt around it goes on."""
    inner = scene.registry.provider("other")

    async def outer() -> object:
        outcome = await inner.try_execute(scene.work, 0, fail=True)
        await anyio.sleep(3)
        return outcome.error

    async with scene.under_way(call=lambda: scene.provider.execute(outer)) as began:
        report = await scene.shut_down()
    assert isinstance(scene.end(), ConnectionResetError)
    assert (scene.time(), scene.began) == (began + 3, ["0"])
    assert (report.finished, report.refused) == (1, 0)


async def test_a_call_within_an_attempt_after_the_grace(scene: Any) -> None:
    """An attempt that is being interrupted makes no call any more."""

    async def outer() -> object:
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await scene.note("inner", lambda: scene.registry.provider("other").execute(scene.work, 1))

    async with scene.under_way(call=lambda: scene.provider.execute(outer)):
        await scene.shut_down()
    assert isinstance(scene.end("inner"), ShuttingDown)


async def test_followers_share_what_comes(scene: Any) -> None:
    """Those who wait for an identical call get its result, or each an error of its own that says the same."""
    provider = scene.provider.with_options(coalesce="key")
    calls = {name: lambda: provider.execute(scene.work, 100) for name in ("leader", "follower")}
    async with scene.under_way(**calls):
        await scene.shut_down()
    assert [scene.end(name).scope for name in calls] == ["shutdown", "shutdown"]
    assert scene.end("leader") is not scene.end("follower")


# -- several providers, and those who look -----------------------------------------------------------------------------


async def test_other_providers_are_no_way_out(scene: Any) -> None:
    """A chain whose provider fails during the grace is refused by the next: the error tells of both."""
    chain = scene.provider.with_options(retry=False).fallback_to(scene.registry.provider("other"))
    async with scene.under_way(call=lambda: chain.execute(scene.work, 3, fail=True)):
        report = await scene.shut_down()
    error = scene.end()
    assert isinstance(error, AllProvidersFailed)
    assert isinstance(error.__cause__, ConnectionResetError)
    assert [(name, type(said)) for name, said in error.outcomes] == [
        ("s3", ConnectionResetError),
        ("other", ShuttingDown),
    ]
    assert (report.finished, report.refused, scene.began) == (1, 1, ["3"])
    with pytest.raises(AllProvidersFailed, match="s3: shutting down; other: shutting down"):
        await chain.execute(scene.work, 1)


class _Follower:
    """Follows every call, and notes how it ended."""

    def __init__(self) -> None:
        self.ends: list[End] = []

    def recording(self) -> bool:
        return True

    def call(self, *_: object, **__: object) -> _Follower:
        return self

    def attempt(self, _: int) -> _Follower:
        return self

    def enter(self) -> None: ...

    def leave(self) -> None: ...

    def ended(self, end: End, **_: object) -> None:
        self.ends.append(end)


@pytest.mark.parametrize("seconds", [11, 100])
async def test_a_call_that_is_followed(scene: Any, seconds: float) -> None:
    """Tracing changes nothing: it may finish, or it is interrupted, and its end is told once for it and its attempt."""
    await scene.warm(scene.use(**LONG))
    follower = _Follower()
    watch_calls(follower)
    try:
        async with scene.under_way(call=lambda: scene.provider.execute(scene.work, seconds)):
            report = await scene.shut_down()
        with pytest.raises(ShuttingDown):
            await scene.provider.execute(scene.work, 1)
    finally:
        watch_calls(None)
    if seconds == 11:
        assert (scene.end(), report.finished, report.interrupted) == ("done", 1, 0)
        assert follower.ends == [End.SUCCESS, End.SUCCESS, End.REJECTED]
    else:
        assert (scene.end().scope, report.finished, report.interrupted) == ("shutdown", 0, 1)
        assert follower.ends == [End.FAILURE, End.FAILURE, End.REJECTED]
