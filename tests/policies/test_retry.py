"""`RetryHandler`: the decision, and the handler used alone."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import json
import math
import random
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from resilience import ConfigurationError, Delivery, Failure, FailureKind, RetryRule, RetrySettings, classify, subscribe
from resilience.events import CallFailed, CallRecovered, EventBus, RetryScheduled
from resilience.policies.retry import RetryDecision, RetryHandler, attempts_note
from resilience.testing import EventRecorder

EPOCH = 1_700_000_000.0
STEADY = RetrySettings(jitter="none")


def failure(error: BaseException | None = None, **facts: Any) -> Failure:
    return dataclasses.replace(classify(error if error is not None else ConnectionResetError()), **facts)


class Answer(Exception):
    def __init__(self, status: int, **headers: str) -> None:
        super().__init__(status)
        self.status_code = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


# -- the decision ----------------------------------------------------------------------------------------------------


def handler(settings: RetrySettings = STEADY, **more: Any) -> RetryHandler:
    return RetryHandler(settings, rng=random.Random(1), **more)


def reason(decision: RetryDecision) -> str | None:
    return decision.reason


def test_until_the_attempts_are_spent() -> None:
    """A failure that is worth it is followed by another attempt, up to the last one."""
    decisions = [handler().decide(failure(Answer(500)), attempt=attempt) for attempt in (1, 2, 3, 4)]
    assert decisions == [(1.0, None), (2.0, None), (0.0, "attempts_spent"), (0.0, "attempts_spent")]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 407, 409, 422, 501])
def test_what_is_not_worth_it(status: int) -> None:
    """A failure that will be the same next time is final."""
    assert handler().decide(failure(Answer(status)), attempt=1) == (0.0, "not_retryable")


def test_switched_off() -> None:
    """A handler that is switched off never says yes."""
    off = handler(RetrySettings(enabled=False))
    assert reason(off.decide(failure(), attempt=1)) == "retry_disabled"


@pytest.mark.parametrize(
    "idempotent, delivery, wanted",
    [
        (None, "processed", None),
        (True, "processed", None),
        (False, "unsent", None),
        (False, "maybe", "not_idempotent"),
        (False, "processed", "not_idempotent"),
    ],
)
def test_idempotence(idempotent: bool | None, delivery: str, wanted: str | None) -> None:
    """What must not happen twice is repeated only when it surely was not sent."""
    decision = handler().decide(failure(delivery=Delivery(delivery)), attempt=1, idempotent=idempotent)
    assert reason(decision) == wanted


def test_hints() -> None:
    """A hint sets the pause, which is never shorter; one beyond the cap is an end."""
    patient = handler(hint_cap=60.0)
    for hint in (0.001, 1.0, 59.0, 60.0):
        decision = patient.decide(failure(retry_after=hint), attempt=1)
        assert hint < decision.delay <= hint + max(0.01, min(1.0, hint / 10))
    assert reason(patient.decide(failure(retry_after=60.1), attempt=1)) == "hint_beyond_cap"


def test_a_hint_of_zero() -> None:
    """A hint of zero names no pause: the back-off holds."""
    assert handler().decide(failure(Answer(500), retry_after=0.0), attempt=2) == (2.0, None)


def test_no_pause_passes_the_deadline() -> None:
    """A pause that would reach the deadline is not begun."""
    decide = handler().decide
    assert decide(failure(Answer(500)), attempt=1, remaining=1.01) == (1.0, None)
    assert reason(decide(failure(Answer(500)), attempt=1, remaining=1.0)) == "deadline_would_pass"
    assert reason(decide(failure(Answer(500)), attempt=1, remaining=-1.0)) == "deadline_would_pass"


def test_rules_per_kind() -> None:
    """A rule changes the number of attempts or the pause of one kind, and what it leaves out stays."""
    rules = {"not_found": RetryRule(max_attempts=2), "overloaded": RetryRule(delay_factor=3.0)}
    decide = handler(RetrySettings(per_kind=rules, jitter="none")).decide
    assert decide(failure(Answer(404)), attempt=1) == (1.0, None)
    assert reason(decide(failure(Answer(404)), attempt=2)) == "attempts_spent"
    assert decide(failure(Answer(503)), attempt=2) == (6.0, None)
    assert decide(failure(), attempt=1) == (0.5, None)
    assert reason(decide(failure(), attempt=3)) == "attempts_spent"
    never = handler(RetrySettings(per_kind={"timeout": RetryRule(max_attempts=1)})).decide
    assert reason(never(failure(TimeoutError()), attempt=1)) == "attempts_spent"


def test_credentials() -> None:
    """Refused credentials get one more attempt, at once, where somebody can renew them, idempotent or not."""
    decide, refused = handler().decide, failure(Answer(401))
    assert reason(decide(refused, attempt=1)) == "not_retryable"
    assert decide(refused, attempt=1, can_refresh=True, idempotent=False) == (0.0, None)
    assert reason(decide(refused, attempt=2, can_refresh=True)) == "attempts_spent"
    asked = failure(Answer(401, x_should_retry="true"))
    assert decide(asked, attempt=1) == (1.0, None)
    assert reason(decide(asked, attempt=1, idempotent=False)) == "not_idempotent"


def test_decorrelated_pauses() -> None:
    """A pause that depends on the one before takes it from the caller: the handler remembers nothing."""
    settings = RetrySettings(jitter="decorrelated", base_delay=1.0, max_delay=1000.0)
    decide = RetryHandler(settings, rng=random.Random(3)).decide
    far = [decide(failure(Answer(500)), attempt=1, previous=100.0).delay for _ in range(100)]
    near = [decide(failure(Answer(500)), attempt=1).delay for _ in range(100)]
    assert max(far) > 250
    assert max(near) <= 3


def test_deciding_changes_nothing() -> None:
    """A decision is no retry yet: the figures stay as they are."""
    asked = handler()
    before = asked.snapshot()
    asked.decide(failure(), attempt=1)
    assert asked.snapshot() == before


def test_notes() -> None:
    """The note counts the attempts and tells kind and reason."""
    assert attempts_note(failure(), 1, "attempts_spent") == "gave up after 1 attempt (connection_error; attempts_spent)"
    assert (
        attempts_note(failure(), 2, "attempts_spent") == "gave up after 2 attempts (connection_error; attempts_spent)"
    )


@pytest.mark.parametrize("settings", [3, {"max_attempts": 3}, "3"])
def test_what_are_no_settings(settings: Any) -> None:
    """Anything but settings is refused where the handler is made."""
    with pytest.raises(ConfigurationError) as caught:
        RetryHandler(settings)
    assert str(caught.value).startswith(f"a retry handler takes RetrySettings(...), not {settings!r}")


def test_the_look_of_it() -> None:
    """Its repr and its snapshot tell what it does and what it has done."""
    fresh = RetryHandler(name="upload")
    assert repr(fresh) == "<RetryHandler 'upload' up to 3 attempts, full jitter from 1 s, 0 retries, 0 exhausted>"
    assert json.loads(json.dumps(dataclasses.asdict(fresh.snapshot()))) == {
        "name": "upload",
        "max_attempts": 3,
        "retries": 0,
        "recovered": 0,
        "exhausted": 0,
    }


# -- used alone ------------------------------------------------------------------------------------------------------


class Task:
    """An async function that fails a few times first."""

    def __init__(self, *errors: Callable[[], BaseException], value: object = "done", seconds: float = 0.0) -> None:
        self.errors = list(errors)
        self.value = value
        self.seconds = seconds
        self.times: list[float] = []
        self.given: list[Any] = []

    async def __call__(self, /, *args: Any, **kwargs: Any) -> object:
        self.times.append(anyio.current_time())
        self.given.append((args, kwargs))
        await anyio.sleep(self.seconds)
        if self.errors:
            make = self.errors.pop(0)
            raise make()
        return self.value


def alone(settings: RetrySettings = STEADY, **more: Any) -> tuple[RetryHandler, EventRecorder]:
    """A handler on virtual time, and what it tells."""
    bus, heard = EventBus(), EventRecorder()
    bus.subscribe(heard)
    more = {"name": "upload", **more}
    made = handler(settings, clock=anyio.current_time, wall_clock=lambda: EPOCH, bus=bus, **more)
    return made, heard


@pytest.mark.anyio
async def test_a_call_that_succeeds() -> None:
    """A call that succeeds is made once, with all of its arguments, and tells nothing."""
    retry, heard = alone()
    task = Task()
    assert await retry.call(task, 1, self=2, func=3, settings=4) == "done"
    assert task.given == [((1,), {"self": 2, "func": 3, "settings": 4})]
    assert len(heard) == 0


@pytest.mark.anyio
async def test_a_call_that_recovers() -> None:
    """A call that fails twice is made three times, later each time, and the caller sees nothing of it."""
    retry, heard = alone()
    task = Task(ConnectionResetError, lambda: Answer(503), seconds=0.5)
    began = anyio.current_time()
    assert await retry.call(task) == "done"
    assert [time - began for time in task.times] == pytest.approx([0, 0.5 + 0.5, 1.0 + 0.5 + 2])
    first, second, last = heard
    assert isinstance(first, RetryScheduled)
    assert (first.provider, first.time, first.attempt, first.max_attempts, first.delay) == ("upload", EPOCH, 2, 3, 0.5)
    assert (first.failure.provider, first.failure.attempts, first.failure.time) == ("upload", 1, EPOCH)
    assert isinstance(second, RetryScheduled)
    assert (second.attempt, second.delay) == (3, 2.0)
    assert isinstance(last, CallRecovered)
    assert (last.attempts, last.duration) == (3, pytest.approx(4.0))
    assert retry.snapshot().recovered == 1
    assert retry.snapshot().retries == 2


@pytest.mark.anyio
async def test_a_call_that_gives_up() -> None:
    """The last attempt's own error comes out, with a note that counts the attempts."""
    retry, heard = alone()
    errors = [Answer(500) for _ in range(3)]
    with pytest.raises(Answer) as caught:
        await retry.call(Task(*[lambda error=error: error for error in errors]))
    assert caught.value is errors[2]
    assert caught.value.__notes__ == ["resilience: upload: gave up after 3 attempts (server_error; attempts_spent)"]
    assert caught.value.__context__ is None
    last = heard.events[-1]
    assert isinstance(last, CallFailed)
    assert (last.attempts, last.reason, last.error, last.duration) == (3, "attempts_spent", errors[2], 3.0)
    assert retry.snapshot().exhausted == 1
    assert repr(retry) == "<RetryHandler 'upload' up to 3 attempts, none jitter from 1 s, 2 retries, 1 exhausted>"


@pytest.mark.anyio
@pytest.mark.parametrize("bug", [TypeError, KeyError, AssertionError, ZeroDivisionError])
async def test_bugs(bug: type[Exception]) -> None:
    """A bug of the caller's comes out at once and does not count as exhausted."""
    retry, _ = alone()
    task = Task(bug)
    with pytest.raises(bug) as caught:
        await retry.call(task)
    assert len(task.times) == 1
    assert caught.value.__notes__ == ["resilience: upload: gave up after 1 attempt (bad_request; not_retryable)"]
    assert retry.snapshot().exhausted == 0


@pytest.mark.anyio
async def test_the_attempts_that_a_kind_really_gets() -> None:
    """An event tells the number of attempts that the failure's kind has."""
    rules = {"server_error": RetryRule(max_attempts=5, delay_factor=0.1)}
    retry, heard = alone(RetrySettings(per_kind=rules, jitter="none"))
    assert await retry.call(Task(*[lambda: Answer(500)] * 4)) == "done"
    assert [(event.attempt, event.max_attempts) for event in heard.retries] == [(2, 5), (3, 5), (4, 5), (5, 5)]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_what_is_no_error(kind: type[BaseException]) -> None:
    """What is no `Exception` is not touched."""
    retry, heard = alone()
    with pytest.raises(kind) as caught:
        await retry.call(Task(kind))
    assert not hasattr(caught.value, "__notes__")
    assert len(heard) == 0


@pytest.mark.anyio
async def test_an_enclosing_deadline() -> None:
    """A pause that would pass the deadline of an enclosing scope is not slept: the error comes out at once."""
    retry, _ = alone(RetrySettings(jitter="none", base_delay=10.0))
    began = anyio.current_time()
    with pytest.raises(Answer) as caught, anyio.fail_after(5):
        await retry.call(Task(lambda: Answer(500)))
    assert anyio.current_time() == began
    assert caught.value.__notes__ == ["resilience: upload: gave up after 1 attempt (server_error; deadline_would_pass)"]
    with anyio.fail_after(11):
        assert await retry.call(Task(lambda: Answer(500))) == "done"


@pytest.mark.anyio
async def test_a_cancellation_in_a_pause() -> None:
    """A call that is cancelled in its pause ends there."""
    retry, _ = alone(RetrySettings(jitter="none", base_delay=10.0))
    task = Task(lambda: Answer(500))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(retry.call, task)
        await anyio.sleep(5)
        tasks.cancel_scope.cancel()
    assert len(task.times) == 1


@pytest.mark.anyio
async def test_as_a_decorator() -> None:
    """As a decorator it keeps the function's looks, and each call is retried by itself."""
    retry, _ = alone()
    calls: list[str] = []

    @retry
    async def upload(name: str, *, retries: int = 0) -> str:
        """Upload a file."""
        calls.append(name)
        if calls.count(name) <= retries:
            raise ConnectionResetError
        return name

    assert (upload.__name__, upload.__doc__) == ("upload", "Upload a file.")
    assert str(inspect.signature(upload)) == "(name: 'str', *, retries: 'int' = 0) -> 'str'"
    assert [await upload("a"), await upload("b", retries=2)] == ["a", "b"]
    assert calls == ["a", "b", "b", "b"]


@pytest.mark.anyio
async def test_concurrent_calls_share_no_back_off() -> None:
    """Concurrent calls through one handler have their pauses from their own attempts."""
    settings = RetrySettings(jitter="decorrelated", max_attempts=6, max_delay=1000.0)
    retry, _ = alone(settings)
    tasks = [Task(*[lambda: Answer(500)] * 5) for _ in range(20)]
    async with anyio.create_task_group() as group:
        for task in tasks:
            group.start_soon(retry.call, task)
            await anyio.sleep(3)
    for task in tasks:
        previous = 0.0
        for earlier, later in zip(task.times, task.times[1:], strict=False):
            assert 1 - 1e-6 <= later - earlier <= 3 * max(1.0, previous) + 1e-6
            previous = later - earlier


@pytest.mark.anyio
async def test_by_default_the_process_hears_it() -> None:
    """Without a bus of its own it tells the listeners of the process; all its defaults work."""
    heard = EventRecorder()
    end = subscribe(heard, RetryScheduled, CallRecovered)
    try:
        retry = RetryHandler()
        assert await retry.call(Task(lambda: ConnectionRefusedError(errno.ECONNREFUSED, "no"))) == "done"
    finally:
        end()
    assert [type(event) for event in heard] == [RetryScheduled, CallRecovered]
    assert heard.retries[0].provider == "call"
    assert 0 <= heard.retries[0].delay <= 0.5
    assert heard.retries[0].failure.kind is FailureKind.CONNECTION_ERROR


@pytest.mark.anyio
async def test_a_hint_is_slept() -> None:
    """A hint is waited for."""
    retry, _ = alone()
    task = Task(lambda: Answer(429, retry_after="30"))
    await retry.call(task)
    assert 30 < task.times[1] - task.times[0] <= 31


def test_no_deadline_is_infinitely_far() -> None:
    """Without a deadline any pause fits."""
    settings = RetrySettings(jitter="none", base_delay=1e6, max_delay=1e6)
    assert handler(settings).decide(failure(Answer(500)), attempt=1, remaining=math.inf) == (1e6, None)
