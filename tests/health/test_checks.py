"""Checks: what their answers mean, when they run, and what happens when they do not come back."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

import anyio
import pytest

from resilience import ConfigurationError, ProviderRegistry, Settings
from resilience.health import Component, Health, HealthApp, Status, healths
from resilience.policies import _forks
from resilience.settings import HealthSettings
from resilience.testing import VirtualTimeLoop

pytestmark = pytest.mark.anyio

PASS, WARN, FAIL = Status


class Counting:
    """A check that counts how often it was asked."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.asked = 0
        self.at_once = 0

    async def __call__(self) -> None:
        self.asked += 1
        self.at_once += 1
        assert self.at_once == 1
        try:
            await anyio.sleep(self.seconds)
        finally:
            self.at_once -= 1


async def only(health: Health) -> Component:
    (component,) = (await health.refresh()).components
    return component


class Refused(Exception):
    pass


def raising() -> None:
    raise Refused("postgres://root:hunter2@db.internal failed")


@pytest.mark.parametrize(
    "answer, status, output",
    [
        (None, PASS, ""),
        (True, PASS, ""),
        (1, PASS, ""),
        (False, FAIL, ""),
        (0, FAIL, ""),
        (WARN, WARN, ""),
        ("fail", FAIL, ""),
        ("lag is 3 s", PASS, "lag is 3 s"),
        ((WARN, "lag is 30 s"), WARN, "lag is 30 s"),
        (("fail", "the disk is full"), FAIL, "the disk is full"),
    ],
)
async def test_what_an_answer_means(make: Callable[..., Health], answer: Any, status: Status, output: str) -> None:
    """None, a truth, a status, a text, or a status with a text."""

    async def check() -> Any:
        return answer

    health = make()
    health.add("database", check)
    component = await only(health)
    assert (component.status, component.output) == (status, output)


@pytest.mark.parametrize("answer", [object(), 1.5, ("pass",), ("fine", "text"), ([], "text"), ("warn", 3), {}])
async def test_an_answer_that_says_nothing_is_no_good_one(make: Callable[..., Health], answer: Any) -> None:
    """Whoever returns the wrong thing, such as a response, hears so instead of being well for ever."""

    async def check() -> Any:
        return answer

    health = make()
    health.add("database", check)
    component = await only(health)
    assert component.status is FAIL
    assert f"returned {type(answer).__name__}, which says nothing" in component.output


@pytest.mark.parametrize("error", [Refused("hunter2"), SystemExit("hunter2"), asyncio.CancelledError("hunter2")])
async def test_an_error_is_a_failure_of_which_the_class_is_told(
    make: Callable[..., Health], error: BaseException, anyio_backend_name: str
) -> None:
    """Whatever a check raises ends neither the loop nor the health; the text of the error stays inside."""

    async def check() -> None:
        raise error

    if anyio_backend_name == "trio" and isinstance(error, asyncio.CancelledError):
        error = KeyError("hunter2")  # nobody meets that error there
    health = make()
    health.add("database", check)
    component = await only(health)
    assert (component.status, component.output) == (FAIL, type(error).__name__)


async def test_a_check_may_be_any_callable(make: Callable[..., Health]) -> None:
    """Partial functions, objects and methods that are asynchronous run in the loop itself."""
    thread = threading.get_ident()

    async def check(expected: int) -> bool:
        return threading.get_ident() == expected

    class Database:
        async def ping(self) -> bool:
            return await check(thread)

    health = make()
    health.add("partial", partial(check, thread))
    health.add("method", Database().ping)
    health.add("object", Counting())
    assert [one.status for one in (await health.refresh()).components] == [PASS, PASS, PASS]


@pytest.mark.parametrize("requests", [1, 1000])
async def test_a_check_runs_once_per_interval(make: Callable[..., Health], requests: int) -> None:
    """However many ask at once, and however often, the database is asked once in ten seconds."""
    health, check = make(interval=10), Counting(0.01)
    health.add("database", check)
    for rounds in range(1, 4):
        reports = []
        async with anyio.create_task_group() as group:
            for _ in range(requests):
                group.start_soon(partial(_collect, health, reports))
        assert check.asked == rounds
        assert all(report.components[0].status is PASS for report in reports)
        await anyio.sleep(9.9)
        await health.refresh()
        assert check.asked == rounds
        await anyio.sleep(0.1)


async def _collect(health: Health, reports: list[Any]) -> None:
    reports.append(await health.refresh())


async def test_intervals_and_timeouts_can_be_a_checks_own(make: Callable[..., Health]) -> None:
    """What is costly is asked less often, what is slow may take longer."""
    health = make(interval=10, timeout=1)
    often, slow = Counting(), Counting(3)
    health.add("often", often, interval=1)
    health.add("slow", slow, timeout=5, interval=60)
    for _ in range(10):
        await health.refresh()
        await anyio.sleep(1)
    assert (often.asked, slow.asked) == (10, 1)
    assert [one.status for one in health.report().components] == [PASS, PASS]


async def test_a_request_waits_for_what_has_just_begun_and_no_longer(make: Callable[..., Health]) -> None:
    """What answers at once is in the answer; what hangs holds it up for a few milliseconds, and only the first ones."""
    health = make()
    health.add("quick", Counting(0.01))
    before = anyio.current_time()
    assert (await health.refresh()).status is PASS
    assert anyio.current_time() - before == pytest.approx(0.01)
    health.add("hanging", anyio.sleep_forever)
    before = anyio.current_time()
    assert (await health.refresh()).status is WARN
    assert anyio.current_time() - before <= 0.1
    before = anyio.current_time()
    assert (await health.refresh()).status is WARN
    assert anyio.current_time() == before


async def test_a_check_that_hangs_is_a_failure_after_its_timeout(make: Callable[..., Health]) -> None:
    """It is interrupted, told with the reason, and asked again after the interval."""
    health, ended = make(interval=10, timeout=1), []

    async def hanging() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(anyio.current_time())

    health.add("database", hanging, critical=True)
    first = await only(health)
    assert (first.status, first.known, first.time) == (FAIL, False, None)
    assert first.output.startswith("no answer yet; has been running for 0.0 s")
    await anyio.sleep(2)
    second = health.report().components[0]
    assert (second.status, second.known, second.output) == (FAIL, True, "no answer within 1 s")
    assert second.bad_for == pytest.approx(1.03)
    assert second.time == pytest.approx(1e9 - second.bad_for)
    await anyio.sleep(10)
    await health.refresh()
    await anyio.sleep(2)
    assert ended == pytest.approx([1, 13.03], abs=0.1)


async def test_the_last_answer_stands_while_the_next_one_is_awaited(make: Callable[..., Health]) -> None:
    """A check that takes a while does not make its component flicker."""
    health = make(interval=10, timeout=5)
    health.add("database", Counting(2))
    await health.refresh()
    await anyio.sleep(11)
    component = await only(health)
    assert (component.status, component.value) == (PASS, pytest.approx(2))


async def test_a_check_that_cannot_be_interrupted_is_not_started_twice(make: Callable[..., Health]) -> None:
    """It counts as a failure, with its age, and keeps its place until it ends; nobody spins meanwhile."""
    health, release = make(interval=10, timeout=1), anyio.Event()
    begun: list[float] = []

    async def stubborn() -> None:
        begun.append(anyio.current_time())
        with anyio.CancelScope(shield=True):
            while not release.is_set():
                with suppress(anyio.get_cancelled_exc_class()):
                    await release.wait()

    health.add("database", stubborn)
    for _ in range(5):
        component = await only(health)
        await anyio.sleep(10)
    assert len(begun) == 1
    assert component.status is FAIL
    assert component.output == "no answer within 1 s; has been running for 40.0 s"
    release.set()
    await anyio.sleep(0.1)
    assert (await only(health)).status is PASS
    assert len(begun) == 2


async def test_a_check_does_not_see_the_request_that_started_it(make: Callable[..., Health]) -> None:
    """Its calls do not end up in the trace, or under the user, of whoever happened to ask."""
    user: ContextVar[str] = ContextVar("user", default="nobody")

    async def check() -> str:
        return user.get()

    health = make()
    health.add("database", check)
    user.set("alice")
    assert (await only(health)).output == "nobody"


# -- lifetimes ---------------------------------------------------------------------------------------------------------


def tasks(backend: str) -> set[str]:
    """The names of all tasks."""
    if backend == "asyncio":
        return {repr(task.get_coro()) for task in asyncio.all_tasks()}
    import trio

    found, left = set(), [trio.lowlevel.current_root_task()]
    while left:
        task = left.pop()
        found.add(repr(task))
        left += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


async def test_a_lifespan_keeps_checks_fresh_and_leaves_nothing_behind(
    make: Callable[..., Health], anyio_backend_name: str
) -> None:
    """They run at their intervals though nobody asks; at the end what is under way is interrupted."""
    before = tasks(anyio_backend_name)
    health, check, ended = make(interval=10, timeout=5), Counting(), []

    async def slow() -> Status:
        try:
            await anyio.sleep(4)
        finally:
            ended.append(anyio.current_time())
        return WARN

    health.add("database", check)
    health.add("slow", slow)
    async with health.lifespan() as same:
        assert same is health
        await anyio.sleep(41)
        assert check.asked == 5
    assert len(ended) == 5
    assert tasks(anyio_backend_name) == before
    assert health.report().components[1].status is WARN  # the run that was interrupted says nothing


async def test_without_a_lifespan_nothing_is_left_behind_either(
    make: Callable[..., Health], anyio_backend_name: str
) -> None:
    """A run ends by itself, at its timeout at the latest; none follows unless somebody asks."""
    before = tasks(anyio_backend_name)
    health = make(interval=1, timeout=1)
    health.add("database", anyio.sleep_forever)
    await health.refresh()
    assert tasks(anyio_backend_name) > before
    await anyio.sleep(1)
    assert tasks(anyio_backend_name) == before


async def test_a_lifespan_that_was_just_begun_leaves_nothing_behind(
    make: Callable[..., Health], anyio_backend_name: str
) -> None:
    """Whatever has not even had its first turn."""
    before = tasks(anyio_backend_name)
    health = make()
    health.add("database", anyio.sleep_forever)
    async with health.lifespan():
        pass
    assert tasks(anyio_backend_name) == before
    async with health.lifespan():
        await health.refresh()
    assert tasks(anyio_backend_name) == before


async def test_a_lifespan_that_fails_says_so(
    make: Callable[..., Health], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks run when somebody asks all the same."""
    health = make()
    health.add("database", Counting())
    async with health.lifespan():
        with monkeypatch.context() as broken:
            broken.setattr("resilience.health.health.look_at", None)
            health.registry.provider("openai")
            await anyio.sleep(30)
        assert "only when somebody asks" in caplog.text
        assert (await health.refresh()).status is PASS


async def test_an_error_leaves_a_lifespan_as_it_is(make: Callable[..., Health]) -> None:
    """It is no group of errors, and the checks end nevertheless."""
    health = make()
    health.add("database", anyio.sleep_forever)
    with pytest.raises(Refused):
        async with health.lifespan():
            await anyio.sleep(0.1)
            raise Refused


async def test_a_check_that_is_removed_is_gone(make: Callable[..., Health]) -> None:
    """Its run is interrupted, and its name is free again."""
    health, ended = make(timeout=1000, interval=1000), anyio.Event()

    async def hanging() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    health.add("database", hanging)
    await health.refresh()
    health.remove("database")
    before = anyio.current_time()
    await ended.wait()
    assert anyio.current_time() == before
    assert health.report().components == ()
    health.add("database", hanging)
    with pytest.raises(KeyError):
        health.remove("cache")


def test_a_loop_that_was_closed_over_a_run_blocks_nobody() -> None:
    """In the next loop the check runs again."""
    asked = []

    async def hanging() -> None:
        asked.append(None)
        await anyio.sleep_forever()

    now = [0.0]
    health = Health(ProviderRegistry(Settings()), clock=lambda: now[0])
    health.add("database", hanging)
    loop = VirtualTimeLoop()
    loop.set_exception_handler(lambda *_: None)  # it complains of the task, and rightly so
    loop.run_until_complete(health.refresh())
    loop.close()
    gc.collect()
    now[0] = 100
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(health.refresh())
    assert len(asked) == 2


async def test_a_forked_worker_runs_its_own_checks(make: Callable[..., Health]) -> None:
    """What its parent was running when it forked is no run of the worker's."""
    asked = []

    async def hanging() -> None:
        asked.append(None)
        await anyio.sleep(100)

    health = make(timeout=1000, interval=1000)
    health.add("database", hanging, interval=10)
    await health.refresh()
    await anyio.sleep(20)
    await health.refresh()
    assert len(asked) == 1
    _forks.start_anew()
    await health.refresh()
    assert len(asked) == 2
    health.remove("database")


def test_there_is_a_list_of_them() -> None:
    """Metrics find every `Health` of the process, and keep none alive."""
    health = Health(ProviderRegistry(Settings()))
    assert health in healths()
    name = id(health)
    del health
    gc.collect()
    assert name not in map(id, healths())


# -- threads -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def threaded(clock: list[float]) -> Iterator[Health]:
    return Health(ProviderRegistry(Settings()), settings=HealthSettings(timeout=1), clock=lambda: clock[0])


async def known(health: Health) -> Component:
    """Ask until a check has answered."""
    with anyio.fail_after(30):
        while not (component := await only(health)).known:
            pass
    return component


@pytest.mark.real_time
async def test_a_function_that_blocks_runs_in_a_thread(threaded: Health) -> None:
    """The loop goes on meanwhile, and the thread does not keep the process alive."""
    seen: list[threading.Thread] = []

    def check() -> str:
        seen.append(threading.current_thread())
        return "fine"

    threaded.add("disk", check)
    assert (await known(threaded)).output == "fine"
    assert seen[0] is not threading.current_thread()
    assert seen[0].daemon


@pytest.mark.real_time
async def test_a_thread_answers_under_a_clock_of_the_loop() -> None:
    """`anyio.current_time`, which tests use, is no clock in a thread."""
    health = Health(ProviderRegistry(Settings()), clock=anyio.current_time)
    health.add("disk", lambda: "fine")
    assert (await known(health)).output == "fine"
    assert (await only(health)).status is PASS


@pytest.mark.real_time
async def test_a_function_that_hangs_is_started_once(threaded: Health, clock: list[float]) -> None:
    """However long it hangs there is one thread; when it ends at last, the check is itself again."""
    release, asked = threading.Event(), []

    def hanging() -> None:
        asked.append(threading.current_thread())
        release.wait(30)

    threaded.add("disk", hanging)
    assert not (await only(threaded)).known
    for clock[0] in (20, 40, 60):
        component = await only(threaded)
    assert component.output == "no answer within 1 s; has been running for 60.0 s"
    assert len(asked) == 1
    release.set()
    asked[0].join(30)
    clock[0] = 80
    with anyio.fail_after(30):
        while (await only(threaded)).status is not PASS:
            pass


@pytest.mark.real_time
async def test_a_lambda_may_be_asynchronous(threaded: Health, clock: list[float]) -> None:
    """It is found out at its first run, and awaited in the loop from then on."""
    made, awaited = [], []

    async def check() -> str:
        awaited.append(threading.current_thread())
        return "fine"

    threaded.add("database", lambda: made.append(threading.current_thread()) or check())
    assert (await known(threaded)).output == "fine"
    clock[0] = 20
    await threaded.refresh()
    here = threading.current_thread()
    assert awaited == [here, here]
    assert made[0] is not here
    assert made[1] is here


@pytest.mark.real_time
async def test_an_error_in_a_thread_is_a_failure(threaded: Health, capsys: pytest.CaptureFixture[str]) -> None:
    """Of which the class is told, and nothing is printed."""
    threaded.add("database", raising)
    component = await known(threaded)
    assert (component.status, component.output) == (FAIL, "Refused")
    assert capsys.readouterr().err == ""


@pytest.mark.real_time
async def test_a_thread_that_cannot_be_started_is_a_failure(threaded: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has too many of them still answers."""

    def start(_: object) -> None:
        raise RuntimeError("can't start new thread")

    threaded.add("disk", lambda: None)
    monkeypatch.setattr(threading.Thread, "start", start)
    component = await only(threaded)
    monkeypatch.undo()
    assert (component.status, component.output) == (FAIL, "RuntimeError")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_thread_that_outlives_its_loop_does_no_harm(threaded: Health, clock: list[float], backend: str) -> None:
    """What it has made, and nobody can await any more, is dropped; the next loop asks again."""
    release, threads, asked = threading.Event(), [], []

    async def check() -> None:
        asked.append(None)

    def late() -> Any:
        threads.append(threading.current_thread())
        release.wait(30)
        return check()

    threaded.add("database", late)
    anyio.run(threaded.refresh, backend=backend)
    release.set()
    threads[0].join(30)
    assert not threaded.report().components[0].known
    clock[0] = 20
    anyio.run(known, threaded, backend=backend)
    assert len(asked) == 1


# -- input -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, told",
    [
        ({"name": ""}, "text without ':'"),
        ({"name": "a:b"}, "text without ':'"),
        ({"check": 3}, "function without arguments"),
        ({"timeout": 0}, "timeout is seconds above 0"),
        ({"interval": float("inf")}, "interval is seconds above 0"),
        ({"grace": -1}, "grace is seconds from 0"),
        ({"good_answers": 0}, "good_answers is a count"),
    ],
)
def test_a_check_that_makes_no_sense_is_refused(given: dict[str, Any], told: str) -> None:
    """With what was passed and what was expected."""
    health = Health(ProviderRegistry(Settings()))
    with pytest.raises(ConfigurationError, match=told):
        health.add(**{"name": "database", "check": raising, **given})


def test_a_name_is_taken_once() -> None:
    """Two checks of one name could not be told apart."""
    health = Health(ProviderRegistry(Settings()))
    health.add("database", raising)
    with pytest.raises(ConfigurationError, match="already"):
        health.add("database", raising)


def test_a_health_of_something_else_is_refused() -> None:
    """Settings in the place of a registry, or of part of them, are a slip that is named."""
    with pytest.raises(ConfigurationError, match="ProviderRegistry"):
        Health(Settings())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"Settings hold them as \.health"):
        Health(settings=Settings())  # type: ignore[arg-type]


def test_it_says_how_it_is() -> None:
    """In one line, for a debugger."""
    health = Health(ProviderRegistry(Settings()))
    health.registry.provider("openai")
    assert repr(health) == "<Health pass: 1 of 1 components healthy>"
    assert isinstance(health.app(), HealthApp)
