"""A pool shares calls out among equals, goes on when one refuses or fails, and always has somebody to ask."""

from __future__ import annotations

import gc
import logging
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import resilience.routing.pool
from resilience import (
    BreakerSettings,
    CircuitOpen,
    CircuitState,
    ConfigurationError,
    FailureKind,
    ProviderRegistry,
    ProviderSettings,
    ResilientProvider,
    RetrySettings,
    Settings,
)
from resilience._core.router import Ejection
from resilience.errors import AllProvidersFailed
from resilience.events import FellBack, MemberEjected, MemberReturned
from resilience.routing.pool import Member, ProviderPool
from resilience.testing import cancelled_everywhere

if TYPE_CHECKING:
    from conftest import World

pytestmark = pytest.mark.anyio

TOLERANT = {"failure_threshold": None, "failure_rate": None, "slow_rate": None}


class Desk:
    """What the members' calls arrive at: it does for each resource what is said, and keeps who was asked."""

    def __init__(self, seconds: float = 0.0, **ways: object) -> None:
        self.ways = ways
        self.seconds = seconds
        self.asked: list[str] = []

    async def __call__(self, resource: str, *args: Any) -> Any:
        self.asked.append(resource)
        await anyio.sleep(self.seconds)
        way = self.ways.get(resource, resource)
        if callable(way):
            raise way()
        return (way, *args) if args else way


def members(world: World, names: str, **settings: Any) -> dict[ResilientProvider, str]:
    """Providers of one registry, each with its own name as its resource."""
    registry = world.registry(**settings)
    return {registry.provider(name): name for name in names.split()}


def outlier(**rules: Any) -> Ejection:
    return Ejection(**{"interval": 10, "base": 30, "jitter": 0, "minimum_calls": 5, **rules})


# -- sharing out -------------------------------------------------------------------------------------------------------


async def test_calls_are_shared_out_by_weight(world: World) -> None:
    """Each member gets its share, evenly in time, and the function gets its resource and the arguments."""
    pool = ProviderPool(members(world, "a b"), weights={"a": 3})
    desk = Desk()
    assert await pool.execute(desk, 1, 2) == ("a", 1, 2)
    for _ in range(7):
        await pool.execute(desk)
    assert desk.asked == ["a", "a", "b", "a", "a", "a", "b", "a"]


async def test_in_order_the_first_that_can_is_asked(world: World) -> None:
    """In order, a pool asks the first while nothing is said against it, and returns to it."""
    who = members(world, "a b")
    pool = ProviderPool(who, order="ordered")
    first = next(iter(who))
    desk = Desk()
    await pool.execute(desk)
    first.breaker.open()
    await pool.execute(desk)
    first.breaker.close()
    await pool.execute(desk)
    assert desk.asked == ["a", "b", "a"]


async def test_endpoints_and_members_with_weights_make_a_pool(world: World) -> None:
    """Members may be endpoints of one provider, and a list of `Member` says the same as a mapping."""
    registry = world.registry()
    desk = Desk()
    pool = ProviderPool(
        [Member(registry.provider("s3", endpoint=name), name, weight=weight) for name, weight in (("eu", 1), ("us", 2))]
    )
    for _ in range(6):
        await pool.execute(desk)
    assert Counter(desk.asked) == {"eu": 2, "us": 4}
    assert repr(pool) == "<ProviderPool weighted: s3/eu, s3/us>"
    assert len(pool) == 2


async def test_who_would_refuse_is_not_asked(world: World) -> None:
    """Members with an open circuit or a closed gate are passed over without waiting and without a word."""
    who = members(world, "a b c")
    a, b, _ = who
    await world.trip(a)
    await b.try_execute(world.script(world.status(429, retry_after="3")))
    desk = Desk()
    before = anyio.current_time()
    pool = ProviderPool(who)
    assert [await pool.execute(desk) for _ in range(5)] == ["c"] * 5
    assert anyio.current_time() == before
    assert world.heard(FellBack) == []


# -- going on ----------------------------------------------------------------------------------------------------------


async def test_a_failure_goes_to_the_next_at_once(world: World) -> None:
    """The next try is made at another member, without a pause, and it is told."""
    pool = ProviderPool(members(world, "a b"))
    desk = Desk(a=ConnectionError)
    before = anyio.current_time()
    outcome = await pool.try_execute(desk)
    assert (outcome.ok, outcome.value, desk.asked) == (True, "b", ["a", "b"])
    assert anyio.current_time() == before
    assert [(event.provider, event.to, event.reason) for event in world.heard(FellBack)] == [
        ("a", "b", "connection_error")
    ]


async def test_the_last_that_is_left_makes_all_its_attempts(world: World) -> None:
    """With nobody else to go to, a member retries as its settings have it."""
    pool = ProviderPool(members(world, "a b", retry=RetrySettings(max_attempts=3, base_delay=0.1)))
    desk = Desk(a=ConnectionError, b=ConnectionError)
    with pytest.raises(AllProvidersFailed) as caught:
        await pool.execute(desk)
    assert desk.asked == ["a", "b", "b", "b"]
    assert [name for name, _ in caught.value.outcomes] == ["a", "b"]
    assert isinstance(caught.value.__cause__, ConnectionError)


async def test_members_that_would_refuse_do_not_take_the_attempts_from_the_last(world: World) -> None:
    """With the others down, the one that is up retries as its settings have it."""
    who = members(world, "a b", retry=RetrySettings(max_attempts=3, base_delay=0.1))
    list(who)[1].breaker.open()
    desk = Desk(a=ConnectionError)
    assert not (await ProviderPool(who).try_execute(desk)).ok
    assert desk.asked == ["a", "a", "a"]


async def test_a_deadline_that_has_passed_stops_the_pool(world: World) -> None:
    """A call that used up the time leaves none for the other members."""
    asked = []

    async def works_too_long(resource: str) -> None:
        asked.append(resource)
        with anyio.CancelScope(shield=True):
            await anyio.sleep(5)
        raise ConnectionError

    error: Exception | None = None
    with anyio.move_on_after(4):
        error = (await ProviderPool(members(world, "a b")).try_execute(works_too_long)).error
    assert isinstance(error, ConnectionError)
    assert asked == ["a"]


async def test_a_lone_member_is_like_its_provider(world: World) -> None:
    """One member: its own attempts, its own error."""
    pool = ProviderPool(members(world, "a", retry=RetrySettings(max_attempts=2, base_delay=0.1)))
    desk = Desk(a=ConnectionError)
    with pytest.raises(ConnectionError):
        await pool.execute(desk)
    assert desk.asked == ["a", "a"]


async def test_no_more_are_asked_than_allowed(world: World) -> None:
    """`max_members` bounds how many a call reaches; the last of them makes its attempts; refusals do not count."""
    who = members(world, "a b c d", retry=RetrySettings(max_attempts=2, base_delay=0.1))
    next(iter(who)).breaker.open()
    pool = ProviderPool(who, order="ordered", max_members=2)
    desk = Desk(b=ConnectionError, c=ConnectionError)
    assert not (await pool.try_execute(desk)).ok
    assert desk.asked == ["b", "c", "c"]


@pytest.mark.parametrize("status, asked", [(400, 1), (401, 2), (404, 1), (429, 2), (503, 2)])
async def test_what_is_no_better_elsewhere_comes_out(world: World, status: int, asked: int) -> None:
    """Trouble with a member or its key leads on; an answer to the request itself is the answer."""
    pool = ProviderPool(members(world, "a b"))
    desk = Desk(a=world.status(status))
    outcome = await pool.try_execute(desk)
    assert (len(desk.asked), outcome.ok) == (asked, asked == 2)


async def test_the_callers_own_mistake_comes_out(world: World) -> None:
    """A bug in the function is nobody's failure and is not tried elsewhere."""
    pool = ProviderPool(members(world, "a b"))
    with pytest.raises(TypeError):
        await pool.execute(Desk(a=TypeError))


async def test_on_says_what_leads_on(world: World) -> None:
    """Whoever wants another replica asked for what is not found says so, and then nothing else leads on."""
    pool = ProviderPool(members(world, "a b", retry=RetrySettings(enabled=False)), on=FailureKind.NOT_FOUND)
    assert await pool.execute(Desk(a=world.status(404))) == "b"
    desk = Desk(a=ConnectionError, b=ConnectionError)
    assert not (await pool.try_execute(desk)).ok
    assert len(desk.asked) == 1


async def test_what_must_be_done_once_is_not_done_twice(world: World) -> None:
    """After a failure that may have done the work no other member is asked."""
    who = members(world, "a b")
    pool = ProviderPool({provider.with_options(idempotent=False): name for provider, name in who.items()})
    desk = Desk(a=ConnectionResetError, b=ConnectionRefusedError)
    assert not (await pool.try_execute(desk)).ok
    assert desk.asked == ["a"]
    desk.asked.clear()
    assert not (await pool.try_execute(desk)).ok  # refused at the door of "b": nothing was done, so "a" is asked
    assert desk.asked == ["b", "a"]


async def test_among_endpoints_of_one_provider_going_on_is_a_retry(world: World) -> None:
    """It is paid for from the provider's budget: a pool is no way around it."""
    registry = world.registry(
        retry=RetrySettings(enabled=False), budget={"ratio": 0, "floor_per_second": 1e-9, "floor_burst": 2}
    )
    pool = ProviderPool({registry.provider("s3", endpoint=name): name for name in "abcdef"})
    desk = Desk(**dict.fromkeys("abcdef", ConnectionError))
    assert not (await pool.try_execute(desk)).ok
    assert len(desk.asked) == 3


async def test_nobody_stands_in_line_while_another_member_is_free(world: World) -> None:
    """A member at its limit is passed over at once; when all are, the call stands in line; the bound still holds."""
    pool = ProviderPool(members(world, "a b", bulkhead={"max_concurrent": 1}), order="ordered")
    desk = Desk(1)
    began = anyio.current_time()
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(pool.execute, desk)
            await anyio.sleep(0.1)
    assert desk.asked == ["a", "b", "a"]
    assert anyio.current_time() - began == pytest.approx(2)


async def test_who_is_at_its_limit_is_not_waited_for_beyond_the_bound(world: World) -> None:
    """When as many were asked as may be, the line of another one is no place to wait."""
    who = members(world, "a b", bulkhead={"max_concurrent": 1}, retry=RetrySettings(enabled=False))
    pool = ProviderPool(who, order="ordered", max_members=1)
    desk = Desk(1, b=ConnectionError)
    async with anyio.create_task_group() as group:
        group.start_soon(pool.execute, desk)
        await anyio.sleep(0.1)
        assert not (await pool.try_execute(desk)).ok
    assert desk.asked == ["a", "b"]


async def test_who_was_passed_over_is_not_waited_for_beyond_the_bound(world: World) -> None:
    """When as many were asked as may be, nobody else is waited for."""
    who = members(world, "a b")
    await next(iter(who)).try_execute(world.script(world.status(429, retry_after="3")))
    desk = Desk(b=ConnectionError)
    assert not (await ProviderPool(who, max_members=1).try_execute(desk)).ok
    assert set(desk.asked) == {"b"}


# -- nobody is well ----------------------------------------------------------------------------------------------------


async def test_when_all_gates_are_closed_the_first_to_open_is_waited_for(world: World) -> None:
    """Nobody is free, so the call waits as it would for a lone provider, for the shortest time."""
    who = members(world, "a b c", retry=RetrySettings(enabled=False))
    for provider, seconds in zip(who, ("4", "2", "3"), strict=True):
        await provider.try_execute(world.script(world.status(429, retry_after=seconds)))
    desk = Desk()
    before = anyio.current_time()
    assert await ProviderPool(who).execute(desk) == "b"
    assert 2 <= anyio.current_time() - before < 2.5
    await next(iter(who)).try_execute(world.script(world.status(429, retry_after="2")))
    other = world.provider("x")
    other.breaker.open()
    with pytest.raises(AllProvidersFailed) as caught:  # waited for in vain, it has the last word
        await ProviderPool(dict(list(who.items())[:1]) | {other: "x"}).execute(Desk(a=TimeoutError))
    assert caught.value.outcomes[-1][0] == "a"
    assert isinstance(caught.value.__cause__, TimeoutError)


async def test_a_hint_is_waited_out_when_nobody_else_is_left(world: World) -> None:
    """All keys limited within one call: the soonest is asked again after its pause."""
    registry = world.registry()
    pool = ProviderPool(
        {
            registry.provider(name): world.script(world.status(429, retry_after=seconds), name)
            for name, seconds in (("a", "4"), ("b", "2"))
        }
    )
    before = anyio.current_time()

    async def ask(key: Callable[[], Any]) -> Any:
        return await key()

    assert await pool.execute(ask) == "b"
    assert 2 <= anyio.current_time() - before < 2.5


async def test_when_all_circuits_are_open_each_says_so(world: World) -> None:
    """The error lists every member's own refusal, and no time passes."""
    who = members(world, "a b")
    for provider in who:
        await world.trip(provider)
    with pytest.raises(AllProvidersFailed) as caught:
        await ProviderPool(who).execute(Desk())
    assert [(name, type(error)) for name, error in caught.value.outcomes] == [("a", CircuitOpen), ("b", CircuitOpen)]


async def test_one_that_is_left_out_is_asked_when_the_others_cannot(world: World) -> None:
    """Ejection gives way when nobody better is there: a pool fails open."""
    who = members(world, "a b", breaker=TOLERANT, retry=RetrySettings(enabled=False))
    pool = ProviderPool(who, ejection=outlier())
    desk = Desk(a=ConnectionError)
    for _ in range(20):
        await pool.execute(desk)
    await anyio.sleep(11)
    desk.asked.clear()
    assert await pool.execute(desk) == await pool.execute(desk) == "b"
    assert desk.asked == ["b", "b"]
    list(who)[1].breaker.open()
    assert await pool.execute(healthy := Desk()) == "a"
    assert healthy.asked == ["a"]


# -- outliers ----------------------------------------------------------------------------------------------------------


async def test_a_member_that_does_much_worse_is_left_out_for_a_while(world: World) -> None:
    """A revoked key is no evidence for the circuit, yet costs every call an attempt: the pool notices and tells."""
    who = members(world, "a b", breaker=TOLERANT)
    pool = ProviderPool(who, ejection=outlier())
    desk = Desk(a=world.status(401))
    for _ in range(20):
        assert await pool.execute(desk) == "b"
    await anyio.sleep(11)
    desk.asked.clear()
    for _ in range(4):
        assert await pool.execute(desk) == "b"
    assert desk.asked == ["b"] * 4
    (event,) = world.heard(MemberEjected)
    assert (event.provider, event.member, event.seconds) == ("a", "a", 30)
    assert "10 of 10 calls failed" in event.figures
    assert pool.snapshot().members[0].ejected_for == pytest.approx(30)
    await anyio.sleep(31)
    assert await pool.execute(desk) == "b"
    assert "a" in desk.asked
    assert [event.member for event in world.heard(MemberReturned)] == ["a"]


async def test_refusals_and_rate_limits_are_no_evidence(world: World) -> None:
    """What we refused ourselves, and what the gate takes care of, ejects nobody."""
    who = members(world, "a b")
    pool = ProviderPool(who, ejection=outlier(), order="ordered")
    await pool.try_execute(Desk(a=world.status(429), b=world.status(404)))
    next(iter(who)).breaker.open()
    for _ in range(20):
        await pool.try_execute(Desk(b=world.status(400)))
    look = pool.snapshot()
    assert [(one.calls, one.failed) for one in look.members] == [(0, 0), (21, 0)]


async def test_a_key_without_quota_is_evidence(world: World) -> None:
    """No circuit opens for it, yet it is of no use: the pool leaves it out."""
    who = members(world, "a b")
    next(iter(who)).add_rule(lambda error: FailureKind.QUOTA_EXHAUSTED)
    pool = ProviderPool(who, ejection=outlier())
    for _ in range(20):
        await pool.execute(Desk(a=OSError))
    assert pool.snapshot().members[0].failed == 10


async def test_without_ejection_nobody_is_left_out(world: World) -> None:
    """`ejection=None` leaves everything to the circuits."""
    pool = ProviderPool(members(world, "a b", breaker=TOLERANT), ejection=None)
    desk = Desk(a=world.status(401))
    for _ in range(20):
        await pool.execute(desk)
        await anyio.sleep(1)
    assert desk.asked.count("a") == 10
    assert world.heard(MemberEjected) == []
    assert pool.snapshot().members[0].ejected_for == 0


async def test_a_snapshot_shows_each_member(world: World) -> None:
    """Figures for dashboards, ready for JSON."""
    who = members(world, "a b")
    a, b = who
    pool = ProviderPool(who, weights={"b": 2.5})
    for _ in range(7):
        await pool.execute(Desk())
    await world.trip(a)
    await b.try_execute(world.script(world.status(429, retry_after="9")))
    look = asdict(pool.snapshot())
    assert look["order"] == "weighted"
    assert look["members"][0] == {
        "member": "a", "weight": 1.0, "chosen": 2, "calls": 2, "failed": 0, "ejected_for": 0.0,
        "state": CircuitState.OPEN, "gate_closed_for": 0.0,
    }  # fmt: skip
    assert (look["members"][1]["chosen"], look["members"][1]["gate_closed_for"]) == (5, pytest.approx(9))


async def test_a_pool_of_providers_that_are_switched_off_works(world: World) -> None:
    """Without policies of its own a provider is always ready."""
    pool = ProviderPool(members(world, "a b", enabled=False))
    assert await pool.execute(Desk(a=ConnectionError)) == "b"


# -- cancellation, memory, forks ---------------------------------------------------------------------------------------


async def test_a_cancellation_propagates_from_every_point(world: World) -> None:
    """Wherever it strikes, it comes out; nothing is held, and it is nobody's failure."""
    for ending in cancelled_everywhere():
        who = members(world, "a b c")
        c = list(who)[2]
        await c.try_execute(world.script(world.status(429, retry_after="2")))
        pool = ProviderPool(who, ejection=outlier())
        desk = Desk(1, a=ConnectionError, b=world.status(401))
        answers: list[object] = []

        async def act(pool: Any = pool, desk: Any = desk, answers: Any = answers) -> None:
            answers.append(await pool.execute(desk))

        reached = await ending(act)
        assert ending.came_out is reached, ending
        assert answers == ([] if reached else ["c"]), ending
        assert [provider.snapshot().in_flight for provider in who] == [0, 0, 0], ending
        assert sum(one.failed for one in pool.snapshot().members) <= min(ending.suspension - 1, 2), ending
    assert ending.suspension > 3


async def test_nothing_is_left_for_the_collector() -> None:
    """However a call ends, no reference cycle is left."""
    settings = Settings(
        defaults=ProviderSettings(breaker=BreakerSettings(**TOLERANT), retry=RetrySettings(enabled=False))
    )
    registry = ProviderRegistry(settings, clock=anyio.current_time)  # one that nobody records
    pool = ProviderPool({registry.provider(name): name for name in "ab"})
    left: list[weakref.ref[BaseException]] = []

    class Refused(ConnectionError):
        pass

    async def refuse(name: str) -> None:
        error = Refused()
        left.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    async def ends() -> None:
        with suppress(AllProvidersFailed):
            await pool.execute(refuse)
        await pool.try_execute(refuse)

    logging.disable(logging.CRITICAL)  # a log that is captured keeps each error's traceback
    gc.disable()
    try:
        await ends()
        assert len(left) == 4
        assert [ref() for ref in left] == [None] * 4
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)


async def test_a_forked_child_starts_anew(world: World) -> None:
    """In the child no lock stays locked and nobody is left out."""
    pool = ProviderPool(members(world, "a b", breaker=TOLERANT), ejection=outlier())
    desk = Desk(a=world.status(401))
    for _ in range(20):
        await pool.execute(desk)
    await anyio.sleep(11)
    await pool.execute(desk)
    pool._lock.acquire()
    resilience.routing.pool._start_anew_after_fork()
    assert [one.ejected_for for one in pool.snapshot().members] == [0, 0]
    assert {await pool.execute(Desk()) for _ in range(2)} == {"a", "b"}
    bare = ProviderPool(members(world, "a b"), ejection=None)
    lock = bare._lock
    resilience.routing.pool._start_anew_after_fork()
    assert bare._lock is not lock


async def test_slips_are_told_where_they_are_made(world: World) -> None:
    """What makes no sense is refused when the pool is built, with the likely slip."""
    who = members(world, "a b")
    a, _ = who
    for wrong, said in (
        (lambda: ProviderPool({}), "at least one member"),
        (lambda: ProviderPool([a]), "no member"),  # type: ignore[list-item]
        (lambda: ProviderPool({"a": 1}), "no member"),  # type: ignore[dict-item]
        (lambda: ProviderPool([Member(a, 1), Member(a, 2)]), "member twice"),
        (lambda: ProviderPool(who, weights={"c": 1}), "weights name 'c'"),
        (lambda: ProviderPool(who, weights={"a": 0}), "positive"),
        (lambda: ProviderPool(who, weights={"a": "3"}), "ProviderPool"),  # type: ignore[dict-item]
        (lambda: ProviderPool(who, order="random"), "'weighted' or 'ordered'"),  # type: ignore[arg-type]
        (lambda: ProviderPool(who, max_members=0), "max_members=0"),
        (lambda: ProviderPool(who, on="timeout"), "on='timeout'"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigurationError, match=said):
            wrong()
