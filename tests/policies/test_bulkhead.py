"""The bulkhead on its own: places, the line, priorities, adaptive limits and shadow mode."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import anyio
import anyio.lowlevel
import pytest

from resilience._core.words import Priority
from resilience.errors import BulkheadFull, CallRejected, ConfigurationError, Reason
from resilience.events import CallWouldBeRejected, ConcurrencyLimitChanged, Event
from resilience.policies import _forks
from resilience.policies.bulkhead import Bulkhead, BulkheadRefusal, BulkheadSnapshot, Place
from resilience.settings import BulkheadSettings, ProviderSettings
from resilience.testing import EventRecorder

CRITICAL, DEFAULT, SHEDDABLE = Priority.CRITICAL, Priority.DEFAULT, Priority.SHEDDABLE


def make(
    max_concurrent: int | None = 2,
    *,
    elsewhere: Callable[[], int] | None = None,
    crowded: Callable[[], None] | None = None,
    **settings: object,
) -> Bulkhead:
    chosen = BulkheadSettings.model_validate({"max_concurrent": max_concurrent, "max_queue": 4, **settings})
    hooks = {"elsewhere": elsewhere} if elsewhere is not None else {}
    return Bulkhead(
        chosen,
        name="s3",
        clock=anyio.current_time,
        wall_clock=lambda: 1e9 + anyio.current_time(),
        **hooks,  # type: ignore[arg-type]
        **({"crowded": crowded} if crowded is not None else {}),
    )


def placed(bulkhead: Bulkhead, priority: Priority = DEFAULT) -> Place:
    place = bulkhead.try_acquire(priority=priority)
    assert isinstance(place, Place)
    return place


@contextmanager
def recording(bulkhead: Bulkhead) -> Iterator[EventRecorder]:
    recorder = EventRecorder()
    unsubscribe = bulkhead.bus.subscribe(recorder)
    yield recorder
    unsubscribe()


class Crowd:
    """Tasks that want a place, hold it until told to leave, and note who got one when, or why not."""

    def __init__(self, bulkhead: Bulkhead, group: anyio.abc.TaskGroup) -> None:
        self.bulkhead = bulkhead
        self.group = group
        self.order: list[str] = []
        self.refused: dict[str, BulkheadFull] = {}
        self.done: dict[str, anyio.Event] = {}
        self.scopes: dict[str, anyio.CancelScope] = {}

    async def join(self, *names: str, priority: Priority = DEFAULT, max_wait: float | None = None) -> None:
        for name in names:
            self.done[name] = anyio.Event()
            self.group.start_soon(self._live, name, priority, max_wait)
            await settle()

    async def _live(self, name: str, priority: Priority, max_wait: float | None) -> None:
        with anyio.CancelScope() as self.scopes[name]:
            try:
                place = await self.bulkhead.acquire(priority=priority, max_wait=max_wait)
            except BulkheadFull as error:
                self.refused[name] = error
                return
            self.order.append(name)
            with place:
                await self.done[name].wait()

    async def leave(self, *names: str) -> None:
        for name in names:
            self.done[name].set()
            await settle()


async def settle() -> None:
    for _ in range(6):
        await anyio.lowlevel.checkpoint()


async def ok(value: str = "fine") -> str:
    await anyio.sleep(1)
    return value


# -- places ------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_no_more_run_than_may() -> None:
    """Of a hundred calls at most two run at any moment, and all of them get their turn."""
    bulkhead = make(2, max_queue=100, max_wait=1000)
    running, most, finished = 0, 0, 0
    began = anyio.current_time()

    async def work() -> None:
        nonlocal running, most, finished
        running += 1
        most = max(most, running)
        await anyio.sleep(1)
        running -= 1
        finished += 1

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(bulkhead.call, work)
    assert (most, finished) == (2, 100)
    assert (bulkhead.granted, bulkhead.waiting) == (0, 0)
    assert anyio.current_time() - began == pytest.approx(50)


@pytest.mark.anyio
async def test_who_asks_without_waiting_is_told_why_not() -> None:
    """`try_acquire` returns a place or, when none is free, the reason with its figures; it never waits."""
    bulkhead = make(2)
    first, second = placed(bulkhead), placed(bulkhead)
    refusal = bulkhead.try_acquire()
    assert isinstance(refusal, BulkheadRefusal)
    assert refusal.reason is Reason.BULKHEAD_FULL
    assert str(bulkhead.refused(refusal)) == "s3: bulkhead full, 2 of 2 places taken, 0 of 4 waiting"
    first.leave()
    third = placed(bulkhead)
    for place in (second, third):
        place.leave()
    assert bulkhead.granted == 0


@pytest.mark.anyio
async def test_leaving_twice_frees_one_place() -> None:
    """A place is left once, however often it is said."""
    bulkhead = make(2)
    first, second = placed(bulkhead), placed(bulkhead)
    with first:
        first.leave()
    first.leave()
    assert bulkhead.granted == 1
    second.leave()


@pytest.mark.anyio
async def test_without_a_limit_places_are_counted_only() -> None:
    """The default settings limit nothing, and the number of running attempts is still known."""
    bulkhead = Bulkhead()
    places = [placed(bulkhead) for _ in range(500)]
    assert bulkhead.in_use == 500
    assert bulkhead.snapshot().limit is None
    assert repr(bulkhead) == "<Bulkhead 'bulkhead' 500 in use, no limit, 0 waiting>"
    for place in places:
        place.leave()


@pytest.mark.anyio
async def test_a_disabled_bulkhead_limits_nothing() -> None:
    """mode="disabled" admits everybody, an adaptive limit included."""
    bulkhead = make(1, mode="disabled", adaptive="aimd")
    places = [placed(bulkhead) for _ in range(9)]
    bulkhead.saw(9.0, drops=100)
    assert [place.leave() for place in places] == [None] * 9
    assert bulkhead.snapshot().adaptive is None


# -- three ways to use it ----------------------------------------------------------------------------------------------


async def by_call(bulkhead: Bulkhead, func: Callable[[], Awaitable[object]]) -> object:
    return await bulkhead.call(func)


async def by_block(bulkhead: Bulkhead, func: Callable[[], Awaitable[object]]) -> object:
    async with bulkhead:
        return await func()


async def by_decorator(bulkhead: Bulkhead, func: Callable[[], Awaitable[object]]) -> object:
    return await bulkhead(func)()


async def by_place(bulkhead: Bulkhead, func: Callable[[], Awaitable[object]]) -> object:
    with await bulkhead.acquire():
        return await func()


@pytest.mark.anyio
@pytest.mark.parametrize("use", [by_call, by_block, by_decorator, by_place])
async def test_every_way_takes_a_place_and_gives_it_back(
    use: Callable[[Bulkhead, Callable[[], Awaitable[object]]], Awaitable[object]],
) -> None:
    """Values and errors come out, one place is taken meanwhile, and none is afterwards."""
    bulkhead = make(1)

    async def fail() -> None:
        assert bulkhead.in_use == 1
        raise ConnectionError

    assert await use(bulkhead, ok) == "fine"
    with pytest.raises(ConnectionError):
        await use(bulkhead, fail)
    assert bulkhead.in_use == 0


@pytest.mark.anyio
async def test_blocks_nest_within_a_task() -> None:
    """One task may hold two places by nested blocks, and a block is left by the task that entered it."""
    bulkhead = make(2)
    async with bulkhead:
        async with bulkhead:
            assert bulkhead.in_use == 2
        assert bulkhead.in_use == 1
    with pytest.raises(RuntimeError, match="another task"):
        await bulkhead.__aexit__(None, None, None)


@pytest.mark.anyio
async def test_only_a_function_is_decorated() -> None:
    """A coroutine in place of a function is told apart at once."""
    with pytest.raises(TypeError, match="a bulkhead decorates an async function, not str"):
        make()("s3")  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_wrong_arguments_are_named() -> None:
    """The settings of a whole provider, or a name that is none, are refused with the likely slip."""
    with pytest.raises(ConfigurationError, match=r"hold them as \.bulkhead"):
        Bulkhead(ProviderSettings())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="name is a string"):
        Bulkhead(name=3)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_a_priority_may_be_its_word_and_no_other_word() -> None:
    """Text such as "critical" is as good as the member; a word that is none is named, whether there is room or not."""
    bulkhead = make(1)
    for _ in range(2):
        for word in ("vip", None):
            with pytest.raises(ValueError, match=r"expected one of critical, default, sheddable"):
                bulkhead.try_acquire(priority=word)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="priority"):
                await bulkhead.acquire(priority=word)  # type: ignore[arg-type]
        place = bulkhead.try_acquire(priority="critical")  # type: ignore[arg-type]
    assert isinstance(place, BulkheadRefusal)
    assert bulkhead.granted == 1


# -- the line ----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_those_who_wait_are_served_in_their_order() -> None:
    """First come, first served, and the critical before them."""
    bulkhead = make(1, max_queue=9)
    async with anyio.create_task_group() as group:
        crowd = Crowd(bulkhead, group)
        await crowd.join("a", "b", "c")
        await crowd.join("low", priority=SHEDDABLE)
        await crowd.join("vip", priority=CRITICAL)
        assert bulkhead.snapshot().by_priority == {"critical": 1, "default": 2, "sheddable": 1}
        await crowd.leave("a", "vip", "b", "c", "low")
    assert crowd.order == ["a", "vip", "b", "c", "low"]


@pytest.mark.anyio
async def test_a_newcomer_does_not_overtake() -> None:
    """A place that gets free belongs to the next in line at once, before anybody else can ask."""
    bulkhead = make(1)
    async with anyio.create_task_group() as group:
        crowd = Crowd(bulkhead, group)
        place = placed(bulkhead)
        await crowd.join("a")
        place.leave()
        assert isinstance(bulkhead.try_acquire(), BulkheadRefusal)
        assert isinstance(bulkhead.try_acquire(priority=CRITICAL), BulkheadRefusal)
        await settle()
        assert crowd.order == ["a"]
        await crowd.leave("a")


@pytest.mark.anyio
async def test_the_newest_is_served_first_while_the_line_does_not_empty() -> None:
    """With order="adaptive_lifo" the line turns round once it has been busy for 100 ms."""
    bulkhead = make(1, max_queue=9, order="adaptive_lifo")
    async with anyio.create_task_group() as group:
        crowd = Crowd(bulkhead, group)
        await crowd.join(*"abcd")
        await crowd.leave("a")
        await anyio.sleep(0.2)
        assert bulkhead.snapshot().overloaded
        await crowd.leave("b", "d", "c")
    assert crowd.order == ["a", "b", "d", "c"]


@pytest.mark.anyio
async def test_a_full_line_refuses_at_once() -> None:
    """Who finds the line full is refused without a wait, with figures."""
    bulkhead = make(1, max_queue=2)
    async with anyio.create_task_group() as group:
        crowd = Crowd(bulkhead, group)
        await crowd.join("a", "b", "c", "d")
        error = crowd.refused["d"]
        assert (error.reason, error.provider, error.retry_after) == (Reason.BULKHEAD_FULL, "s3", None)
        assert str(error) == "s3: bulkhead full, 1 of 1 places taken, 2 of 2 waiting"
        await crowd.leave("a", "b", "c")


@pytest.mark.anyio
async def test_nobody_waits_where_there_is_no_line() -> None:
    """max_queue=0, and a wait of 0 seconds, refuse at once."""
    bulkhead = make(1, max_queue=0)
    with placed(bulkhead), pytest.raises(BulkheadFull, match="1 of 1 places taken, nobody may wait"):
        await bulkhead.acquire()
    bulkhead = make(1)
    with placed(bulkhead), pytest.raises(CallRejected) as caught:
        await bulkhead.acquire(max_wait=0)
    assert caught.value.reason is Reason.BULKHEAD_FULL
    assert bulkhead.waiting == 0


@pytest.mark.anyio
@pytest.mark.parametrize("given", [None, 3.0])
async def test_a_wait_ends(given: float | None) -> None:
    """After max_wait seconds, of the settings or of the call, a waiter is refused and leaves the line."""
    bulkhead = make(1, max_wait=7)
    began = anyio.current_time()
    with placed(bulkhead):
        with pytest.raises(BulkheadFull) as caught:
            await bulkhead.acquire(max_wait=given)
        waited = given or 7
        assert anyio.current_time() - began == pytest.approx(waited)
        assert caught.value.reason is Reason.BULKHEAD_TIMEOUT
        assert f"waited {waited:g} s, 1 of 1 places taken" in str(caught.value)
        assert bulkhead.waiting == 0
    assert bulkhead.granted == 0


@pytest.mark.anyio
async def test_the_sheddable_wait_only_in_an_emptier_half() -> None:
    """A sheddable call is refused once half of the line is taken; others still wait."""
    bulkhead = make(1, max_queue=4)
    async with anyio.create_task_group() as group:
        crowd = Crowd(bulkhead, group)
        await crowd.join("a", "b", "c")
        await crowd.join("low", priority=SHEDDABLE)
        assert crowd.refused["low"].reason is Reason.SHED
        assert str(crowd.refused["low"]) == (
            "s3: bulkhead full, others matter more, 1 of 1 places taken, 2 of 4 waiting"
        )
        refusal = bulkhead.try_acquire(priority=SHEDDABLE)
        assert isinstance(refusal, BulkheadRefusal)
        assert refusal.reason is Reason.SHED
        await crowd.join("d")
        await crowd.leave("a", "b", "c", "d")


@pytest.mark.anyio
async def test_who_matters_more_displaces_who_matters_less() -> None:
    """In a full line the newest of the lowest priority is refused for a critical call."""
    bulkhead = make(1, max_queue=3)
    async with anyio.create_task_group() as group:
        crowd = Crowd(bulkhead, group)
        await crowd.join("a")
        await crowd.join("low", priority=SHEDDABLE)
        await crowd.join("b", "c", "d")
        assert crowd.refused["low"].reason is Reason.SHED
        await crowd.join("vip", priority=CRITICAL)
        assert crowd.refused["d"].reason is Reason.SHED
        await crowd.leave("a", "vip", "b", "c")
    assert crowd.order == ["a", "vip", "b", "c"]


# -- beside a provider that counts for itself --------------------------------------------------------------------------


@pytest.mark.anyio
async def test_places_that_are_counted_elsewhere_count() -> None:
    """`elsewhere` adds to the places in use, and `freed` hands on what got free there."""
    others = 2
    bulkhead = make(2, elsewhere=lambda: others)
    async with anyio.create_task_group() as group:
        crowd = Crowd(bulkhead, group)
        await crowd.join("a", "b", "c")
        assert (crowd.order, bulkhead.in_use, bulkhead.granted) == ([], 2, 0)
        others = 1
        bulkhead.freed()
        await settle()
        assert crowd.order == ["a"]
        others = 0
        bulkhead.freed()
        await settle()
        assert crowd.order == ["a", "b"]
        await crowd.leave("a", "b", "c")


@pytest.mark.anyio
async def test_what_got_free_elsewhere_is_for_those_who_wait() -> None:
    """Before `freed` was called, too, only somebody who comes before all who wait may take it."""
    others = 1
    bulkhead = make(1, elsewhere=lambda: others)
    async with anyio.create_task_group() as group:
        crowd = Crowd(bulkhead, group)
        await crowd.join("a")
        others = 0
        assert isinstance(bulkhead.try_acquire(), BulkheadRefusal)
        assert isinstance(bulkhead.try_acquire(priority=SHEDDABLE), BulkheadRefusal)
        placed(bulkhead, CRITICAL).leave()
        await settle()
        assert crowd.order == ["a"]
        await crowd.leave("a")


@pytest.mark.anyio
async def test_what_gets_free_before_anybody_knows_of_a_waiter_is_not_lost() -> None:
    """A place freed elsewhere while the first waiter lines up, without a word, is still given to it."""
    others = 1

    def shut() -> None:
        nonlocal others
        others = 0  # the last call elsewhere ended just before it could see that somebody waits

    bulkhead = make(1, elsewhere=lambda: others, crowded=shut)
    with await bulkhead.acquire():
        assert bulkhead.granted == 1
    assert bulkhead.waiting == 0


@pytest.mark.anyio
async def test_others_hear_when_somebody_begins_to_wait_and_when_nobody_does() -> None:
    """`crowded` is called when the line gets its first waiter and when it loses its last, however that leaves."""
    lengths: list[int] = []
    bulkhead = make(1, crowded=lambda: lengths.append(bulkhead.waiting))
    async with anyio.create_task_group() as group:
        crowd = Crowd(bulkhead, group)
        await crowd.join("a", "b", "c")
        assert lengths == [1]
        await crowd.leave("a")
        crowd.scopes["c"].cancel()
        await settle()
        assert lengths == [1, 0]
        await crowd.join("d", max_wait=2)
        await anyio.sleep(3)
        assert lengths == [1, 0, 1, 0]
        await crowd.leave("b")


# -- adaptive limits ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def aimd() -> Bulkhead:
    return make(None, adaptive="aimd", initial_limit=10, max_limit=12, min_limit=5, max_wait=1e6)


@pytest.mark.anyio
async def test_a_limit_that_grows_lets_waiters_in(aimd: Bulkhead) -> None:
    """Successes raise the limit, an event tells of it, and who waits gets the new place at once."""
    async with anyio.create_task_group() as group:
        crowd = Crowd(aimd, group)
        await crowd.join(*"abcdefghijk")
        assert (aimd.limit, aimd.waiting) == (10, 1)
        with recording(aimd) as recorder:
            aimd.saw(1.0, successes=20)
        await settle()
        assert (aimd.limit, aimd.waiting, aimd.in_use) == (11, 0, 11)
        assert changes(recorder) == [(10, 11, "room")]
        group.cancel_scope.cancel()
    assert aimd.in_use == 0


@pytest.mark.anyio
async def test_a_limit_that_falls_takes_no_place_away(aimd: Bulkhead) -> None:
    """Who has a place keeps it; until enough have left nobody else gets in."""
    places = [placed(aimd) for _ in range(10)]
    with recording(aimd) as recorder:
        aimd.saw(1.0, drops=10)
    assert changes(recorder) == [(10, 9, "drops")]
    places.pop().leave()
    assert isinstance(aimd.try_acquire(), BulkheadRefusal)
    places.pop().leave()
    with placed(aimd):
        pass
    for second in range(2, 50):
        aimd.saw(float(second), drops=10)
    assert aimd.limit == 5
    for place in places:
        place.leave()


def changes(recorder: EventRecorder) -> list[tuple[int, int, str]]:
    return [(event.before, event.after, event.reason) for event in recorder.of(ConcurrencyLimitChanged)]


@pytest.mark.anyio
@pytest.mark.parametrize("outcome", ["success", "busy", "slow", "no", "broken", "cancelled"])
async def test_calls_teach_the_limit(aimd: Bulkhead, outcome: str) -> None:
    """Answers raise the limit, refusals for being busy and timeouts lower it, all else leaves it alone."""

    class StatusError(Exception):
        status_code = {"busy": 429, "no": 404, "broken": 500}.get(outcome, 0)

    async def work() -> None:
        await anyio.sleep(1)
        if outcome == "slow":
            raise TimeoutError
        if outcome == "cancelled":
            scopes.pop().cancel()
            await anyio.sleep(1)
        if outcome != "success":
            raise StatusError

    async def one() -> None:
        try:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await aimd.call(work)
        except (StatusError, TimeoutError):
            pass

    scopes: list[anyio.CancelScope] = []
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(one)
    assert aimd.limit == {"success": 10, "no": 10, "busy": 9, "slow": 9}.get(outcome, 10)
    limit = aimd.snapshot().adaptive
    assert limit is not None
    assert (limit > 10) is (outcome in ("success", "no"))
    assert (limit < 10) is (outcome in ("busy", "slow"))


@pytest.mark.anyio
@pytest.mark.parametrize("latency, expected", [("attempt", 40), ("first_item", 20)])
async def test_vegas_learns_from_calls_only_if_it_may(latency: str, expected: int) -> None:
    """Calls give Vegas their latency, unless it is to look at the first items of streams."""
    bulkhead = make(None, adaptive="vegas", latency=latency, max_queue=100)
    for _ in range(4):
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(bulkhead.call, ok)
    assert bulkhead.limit >= expected if latency == "attempt" else bulkhead.limit == expected


@pytest.mark.anyio
async def test_an_adaptive_limit_ends_at_max_concurrent() -> None:
    """What the user wrote as the most is the most, even if the limit would start above."""
    bulkhead = make(3, adaptive="aimd")
    assert bulkhead.limit == 3
    bulkhead.saw(9.0, successes=10_000, in_flight=100)
    assert bulkhead.limit == 3


@pytest.mark.anyio
async def test_a_fixed_limit_learns_nothing() -> None:
    """Without an adaptive limit reports are for nothing."""
    bulkhead = make(3)
    bulkhead.saw(9.0, drops=100)
    assert bulkhead.limit == 3


# -- shadow mode -------------------------------------------------------------------------------------------------------


def would_be(recorder: EventRecorder) -> list[Reason]:
    return [event.reason for event in recorder.of(CallWouldBeRejected)]


@pytest.mark.anyio
async def test_shadow_mode_neither_waits_nor_refuses() -> None:
    """Everybody gets in at once; a full line would have refused the last, and an event says so."""
    bulkhead = make(1, max_queue=2, mode="shadow")
    began = anyio.current_time()
    with recording(bulkhead) as recorder:
        places = [await bulkhead.acquire() for _ in range(4)]
    assert anyio.current_time() == began
    assert would_be(recorder) == [Reason.BULKHEAD_FULL]
    assert (bulkhead.in_use, bulkhead.waiting) == (4, 2)
    for place in places:
        place.leave()
        place.leave()
    assert (bulkhead.in_use, bulkhead.waiting, bulkhead.granted) == (0, 0, 0)


@pytest.mark.anyio
async def test_shadow_mode_tells_whose_wait_would_have_ended() -> None:
    """A call that would have waited for too long is told once, and who would have got a place in time is not."""
    bulkhead = make(1, max_queue=4, max_wait=5, mode="shadow")
    with recording(bulkhead) as recorder:
        first, second, third = placed(bulkhead), placed(bulkhead), placed(bulkhead)
        await anyio.sleep(3)
        first.leave()  # the second would have got its place now
        await anyio.sleep(3)
        assert would_be(recorder) == []
        second.leave()  # and the third had given up a second ago
        third.leave()
        assert would_be(recorder) == [Reason.BULKHEAD_TIMEOUT]
    assert (bulkhead.in_use, bulkhead.waiting, bulkhead.granted) == (0, 0, 0)


@pytest.mark.anyio
async def test_shadow_mode_tells_of_a_call_that_ended_after_its_wait_would_have() -> None:
    """A call that was done before a place got free is told all the same if it would have given up by then."""
    bulkhead = make(1, max_queue=4, max_wait=5, mode="shadow")
    with recording(bulkhead) as recorder, placed(bulkhead):
        early, late = placed(bulkhead), placed(bulkhead)
        await anyio.sleep(4)
        early.leave()
        await anyio.sleep(2)
        late.leave()
        assert would_be(recorder) == [Reason.BULKHEAD_TIMEOUT]


@pytest.mark.anyio
async def test_shadow_mode_tells_who_would_have_been_displaced() -> None:
    """Priorities count on paper as they would in earnest."""
    bulkhead = make(1, max_queue=2, mode="shadow")
    with recording(bulkhead) as recorder:
        places = [placed(bulkhead, priority) for priority in (DEFAULT, SHEDDABLE, DEFAULT, CRITICAL, SHEDDABLE)]
    assert would_be(recorder) == [Reason.SHED, Reason.SHED]
    for place in places:
        place.leave()
    assert (bulkhead.in_use, bulkhead.waiting, bulkhead.granted) == (0, 0, 0)


@pytest.mark.anyio
async def test_shadow_mode_leaves_in_any_order() -> None:
    """Whoever leaves first, in the end nobody is counted and the line is empty."""
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        bulkhead = make(2, max_queue=2, mode="shadow", max_wait=2)
        places = [placed(bulkhead) for _ in range(5)]
        for number in order:
            await anyio.sleep(0.7)
            places[number].leave()
        assert (bulkhead.in_use, bulkhead.waiting, bulkhead.granted) == (0, 0, 0)


@pytest.mark.anyio
async def test_listeners_may_ask_the_bulkhead() -> None:
    """Events come after the lock was left: a listener may read, and take a place."""
    bulkhead = Bulkhead(BulkheadSettings(max_concurrent=1, max_queue=0, mode="shadow"))
    seen: list[BulkheadSnapshot] = []

    def listener(event: Event) -> None:
        answers: list[BulkheadSnapshot] = []
        thread = threading.Thread(target=lambda: answers.append(bulkhead.snapshot()))
        thread.start()
        thread.join(5)
        seen.extend(answers)

    bulkhead.bus.subscribe(listener)
    with placed(bulkhead), placed(bulkhead):
        assert [snapshot.in_use for snapshot in seen] == [2]


@pytest.mark.anyio
async def test_an_outlook_takes_nothing() -> None:
    """It says why a call would be refused, and not that it would wait."""
    bulkhead = make(1, max_queue=2)
    assert bulkhead.outlook() is None
    async with anyio.create_task_group() as group:
        crowd = Crowd(bulkhead, group)
        await crowd.join("a", "b")
        assert bulkhead.outlook() is None
        shed = bulkhead.outlook(priority=SHEDDABLE)
        assert shed is not None
        assert shed.reason is Reason.SHED
        await crowd.join("c")
        full = bulkhead.outlook()
        assert full is not None
        assert str(full) == "1 of 1 places taken, 2 of 2 waiting"
        assert bulkhead.outlook(priority=CRITICAL) is None  # it would displace somebody
        await crowd.leave("a", "b", "c")
    assert bulkhead.outlook() is None
    shadow = make(1, max_queue=0, mode="shadow")
    with placed(shadow), placed(shadow):
        assert shadow.outlook() is None


# -- looking at it -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_snapshot_is_json_ready() -> None:
    """Figures as plain values."""
    bulkhead = make(2, adaptive="aimd")
    with placed(bulkhead):
        snapshot = bulkhead.snapshot()
    assert json.loads(json.dumps(dataclasses.asdict(snapshot))) == {
        "name": "s3",
        "mode": "enforce",
        "limit": 2,
        "in_use": 1,
        "waiting": 0,
        "max_queue": 4,
        "by_priority": {"critical": 0, "default": 0, "sheddable": 0},
        "overloaded": False,
        "adaptive": 2.0,
    }
    assert repr(bulkhead) == "<Bulkhead 's3' 0/2 in use, 0 waiting>"


@pytest.mark.anyio
async def test_a_fork_starts_anew() -> None:
    """What was taken before it does not count after it, and leaving it late frees nothing."""
    bulkhead = make(2)
    before = placed(bulkhead)
    bulkhead.start_anew()
    with placed(bulkhead), placed(bulkhead):
        before.leave()
        assert isinstance(bulkhead.try_acquire(), BulkheadRefusal)
    assert bulkhead.granted == 0


FORKS = """
import os, sys, threading
from resilience.policies import bulkhead as policy
from resilience.policies.bulkhead import Bulkhead, Place
from resilience.settings import BulkheadSettings

bulkhead = Bulkhead(BulkheadSettings(max_concurrent=1))
place = bulkhead.try_acquire()
held, done = threading.Event(), threading.Event()

def hold():
    with bulkhead.lock:
        held.set()
        done.wait(30)

threading.Thread(target=hold).start()
held.wait(30)
if not (child := os.fork()):
    os._exit(0 if isinstance(bulkhead.try_acquire(), Place) else 1)
done.set()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or bulkhead.granted - 1)
"""


def test_a_forked_child_has_all_places() -> None:
    """A bulkhead of its own is reset in a child, even if another thread held its lock at that moment."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKS], check=True, timeout=60)
    bulkhead = Bulkhead(BulkheadSettings(max_concurrent=1))
    placed(bulkhead)
    _forks.start_anew()
    assert bulkhead.granted == 0
