"""`with_options`: the same provider on other terms."""

from __future__ import annotations

import math
from typing import Any

import anyio
import pytest

from resilience import CallTimeout, ConfigurationError, Deadline, RetrySettings, Usage, failure_of
from resilience.provider import ResilientProvider

pytestmark = pytest.mark.anyio

STEADY = RetrySettings(jitter="none")


async def elapsed(provider: ResilientProvider) -> tuple[float, CallTimeout]:
    """How long a call that hangs is waited for, and what it ends with."""
    began = anyio.current_time()
    with pytest.raises(CallTimeout) as caught:
        await provider.execute(anyio.sleep, math.inf)
    return anyio.current_time() - began, caught.value


# -- views -----------------------------------------------------------------------------------------------------------


async def test_a_view_shares_all_state(world) -> None:
    """A view is the same provider: breaker, gate, budget, figures and listeners."""
    provider = world.provider()
    view = provider.with_options(operation="upload", retry=False)
    await view.execute(world.script("fine"))
    await world.trip(view)
    assert provider.breaker is view.breaker
    assert provider.breaker.state == "open"
    assert provider.snapshot() == view.snapshot()
    assert (await provider.try_execute(world.script("never"))).rejected
    assert provider.name == view.name == "openai"


async def test_the_provider_stays_as_it_is(world) -> None:
    """Making a view changes nothing for others."""
    provider = world.provider()
    provider.with_options(retry=False, timeout=1, idempotent=False, operation="upload")
    call = world.script(ConnectionResetError)
    outcome = await provider.try_execute(call)
    assert (call.calls, outcome.failure.operation) == (3, "")


async def test_views_of_views(world) -> None:
    """A view of a view keeps what is not given anew."""
    view = world.provider().with_options(operation="upload", retry=False, timeout=5)
    view = view.with_options(timeout=3)
    call = world.script(ConnectionResetError)
    with pytest.raises(ConnectionResetError) as caught:
        await view.execute(call)
    assert (call.calls, failure_of(caught.value).operation) == (1, "upload")
    assert (await elapsed(view))[0] == pytest.approx(3)
    view = view.with_options(retry=True, operation="")
    outcome = await view.try_execute(call)
    assert (call.calls, outcome.failure.operation) == (4, "")


async def test_a_view_without_options(world) -> None:
    """A view that changes nothing behaves like the provider."""
    view = world.provider().with_options()
    call = world.script(ConnectionResetError, "stored")
    assert await view.execute(call) == "stored"
    assert (await elapsed(view.with_options(retry=False)))[0] == pytest.approx(30)


async def test_a_view_is_kept_for_long(world) -> None:
    """A view can be made once and used for ever, also by many tasks at once."""
    provider, done = world.provider(), world.script("done", seconds=0.1)
    view = provider.with_options(operation="upload", timeout=1)
    for _ in range(3):
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(view.execute, done)
    assert (done.calls, provider.snapshot().calls, provider.snapshot().in_flight) == (30, 30, 0)


# -- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, scope, limit, lasts",
    [
        ({}, "attempt", 30, 30 + 1 + 30 + 2 + 30),
        ({"attempt_timeout": 4}, "attempt", 4, 4 + 1 + 4 + 2 + 4),
        ({"attempt_timeout": 4, "retry": False}, "attempt", 4, 4),
        ({"timeout": 10}, "total", 10, 10),
        ({"timeout": 10, "attempt_timeout": 4}, "attempt", 4, 4 + 1 + 4),  # two more seconds would leave one too few
        ({"timeout": 12, "attempt_timeout": 4}, "total", 1, 12),
        ({"timeout": 3, "attempt_timeout": 20}, "total", 3, 3),
        ({"attempt_timeout": 500, "retry": False}, "total", 500, 500),
        ({"attempt_timeout": None, "retry": False}, "total", 120, 120),
        ({"timeout": None, "retry": False}, "attempt", 30, 30),
    ],
)
async def test_limits(world, options: dict[str, Any], scope: str, limit: float, lasts: float) -> None:
    """A limit that is given counts in place of the settings' one; the other one stays, None is none at all."""
    if options == {"attempt_timeout": None, "retry": False}:
        options = {**options, "timeout": 120}
    provider = world.provider(retry=STEADY, breaker={"mode": "disabled"}).with_options(**options)
    seconds, error = await elapsed(provider)
    assert seconds == pytest.approx(lasts)
    assert (error.scope, error.limit) == (scope, pytest.approx(limit))


async def test_no_limit_at_all(world) -> None:
    """None in both places: a call may take as long as it likes."""
    view = world.provider().with_options(timeout=None, attempt_timeout=None)
    assert await view.execute(world.script("at last", seconds=1e5)) == "at last"


async def test_unset_is_not_none(world) -> None:
    """An option that is not given is as the settings have it; None is no limit."""
    provider = world.provider(timeout={"attempt": 5.0, "total": 8.0}, retry={"enabled": False})
    assert (await elapsed(provider.with_options(operation="upload")))[0] == pytest.approx(5)
    assert (await elapsed(provider.with_options(timeout=3).with_options(operation="upload")))[0] == pytest.approx(3)
    assert (await elapsed(provider.with_options(timeout=3).with_options(timeout=None)))[0] == pytest.approx(5)
    late = provider.with_options(attempt_timeout=None, timeout=None)
    assert await late.execute(world.script("late", seconds=9)) == "late"


async def test_a_deadline(world) -> None:
    """A deadline is a moment: what was spent of it elsewhere is gone."""
    provider = world.provider(retry=STEADY, breaker={"mode": "disabled"})
    deadline = Deadline(10, clock=anyio.current_time)
    view = provider.with_options(deadline=deadline)
    await anyio.sleep(6)
    seconds, error = await elapsed(view)
    assert (seconds, error.scope, error.limit) == (pytest.approx(4), "total", pytest.approx(4))
    outcome = await view.try_execute(world.script("never"))
    assert (outcome.rejected, outcome.reason) == (True, "deadline_would_pass")
    assert str(outcome.error) == "openai: deadline has passed, it passed 0 s ago"
    assert await view.with_options(deadline=None).execute(world.script("fine")) == "fine"


# -- operations ------------------------------------------------------------------------------------------------------


async def test_settings_of_operations(world) -> None:
    """An operation has its own limits and retries where the settings give it some; the rest is the provider's."""
    operations = {
        "slow": {"timeout": {"attempt": 100.0}, "retry": {"max_attempts": 1}},
        "eager": {"retry": {"base_delay": 0.1}},
    }
    provider = world.provider(operations=operations, retry=STEADY, breaker={"mode": "disabled"})
    assert (await elapsed(provider.with_options(operation="slow")))[0] == pytest.approx(100)
    for operation, pauses in (("eager", [0.1, 0.2]), ("slow", []), ("unknown", [1, 2]), ("", [1, 2])):
        call = world.script(world.status(500))
        outcome = await provider.with_options(operation=operation).try_execute(call)
        assert call.pauses == pytest.approx(pauses)
        assert outcome.failure.operation == operation


async def test_a_view_overrules_its_operation(world) -> None:
    """What a view is given counts before what the settings say about its operation."""
    operations = {"slow": {"timeout": {"attempt": 100.0}, "retry": {"max_attempts": 1}}}
    provider = world.provider(operations=operations, retry=STEADY, breaker={"mode": "disabled"})
    view = provider.with_options(operation="slow", attempt_timeout=7)
    assert (await elapsed(view))[0] == pytest.approx(7)
    call = world.script(world.status(500))
    await provider.with_options(operation="slow", retry=RetrySettings(max_attempts=2)).try_execute(call)
    assert call.calls == 2


async def test_operations_on_the_fast_path(world) -> None:
    """Calls of one operation share its limit however many run, beside calls of another with another limit."""
    operations = {"slow": {"timeout": {"attempt": 50.0, "total": 60.0}}}
    provider = world.provider(operations=operations, retry={"enabled": False}, breaker={"slow_rate": None})
    slow, ended = provider.with_options(operation="slow"), {}
    for view in (provider, slow):
        await view.execute(world.script("first"))

    async def one(name: str, view: ResilientProvider) -> None:
        ended[name] = (await elapsed(view))[0]

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(one, f"plain {number}", provider)
            tasks.start_soon(one, f"slow {number}", slow)
    assert {name: round(seconds, 3) for name, seconds in ended.items()} == {
        **{f"plain {number}": 30 for number in range(3)},
        **{f"slow {number}": 50 for number in range(3)},
    }


# -- refusals --------------------------------------------------------------------------------------------------------

SECONDS = "expected a positive, finite number of seconds; None means no limit"
RETRY = "expected RetrySettings(...), False or True; a number of attempts is RetrySettings(max_attempts=n)"
DEADLINE = "expected a Deadline; a number of seconds goes into timeout=, or write Deadline(seconds)"
HOOK = "expected an async function without arguments; was the function called already?"
NUMBER = "a finite number that is not negative"
ITEM = "expected a function that takes an item of a stream; was the function called already?"
RESULT = "expected a function that takes a result; was the function called already?"


@pytest.mark.parametrize(
    "options, text",
    [
        ({"timeout": 0}, f"with_options(timeout=0): {SECONDS}"),
        ({"timeout": -1.5}, f"with_options(timeout=-1.5): {SECONDS}"),
        ({"timeout": math.nan}, f"with_options(timeout=nan): {SECONDS}"),
        ({"timeout": math.inf}, f"with_options(timeout=inf): {SECONDS}"),
        ({"timeout": "30s"}, f"with_options(timeout='30s'): {SECONDS}"),
        ({"timeout": True}, f"with_options(timeout=True): {SECONDS}"),
        ({"attempt_timeout": 0}, f"with_options(attempt_timeout=0): {SECONDS}"),
        ({"deadline": 5}, f"with_options(deadline=5): {DEADLINE}"),
        ({"operation": None}, "with_options(operation=None): expected a name"),
        ({"operation": 3}, "with_options(operation=3): expected a name"),
        ({"idempotent": "yes"}, "with_options(idempotent='yes'): expected True, False or None"),
        ({"retry": 5}, f"with_options(retry=5): {RETRY}"),
        ({"retry": None}, f"with_options(retry=None): {RETRY}"),
        ({"refresh": "token"}, f"with_options(refresh='token'): {HOOK}"),
        ({"priority": "high"}, "with_options(priority='high'): expected one of 'critical', 'default', 'sheddable'"),
        ({"reserve": 500}, "with_options(reserve=500): expected Usage(tokens=..., cost=...)"),
        (
            {"reserve": Usage(tokens=-1)},
            f"with_options(reserve=Usage(tokens=-1, cost=None)): expected tokens to be {NUMBER}",
        ),
        ({"usage": 3}, f"with_options(usage=3): {RESULT}"),
        ({"accept": True}, f"with_options(accept=True): {RESULT}"),
        ({"coalesce": 3}, "with_options(coalesce=3): expected a text that is the same for calls that are the same"),
        ({"propagate": "yes"}, "with_options(propagate='yes'): expected True or False"),
        (
            {"commit": "first"},
            f"with_options(commit='first'): {ITEM}",
        ),
    ],
)
async def test_nonsense_is_refused(world, options: dict[str, Any], text: str) -> None:
    """A value that makes no sense is refused where it is written, with what was expected and the likely slip."""
    with pytest.raises(ConfigurationError) as caught:
        world.provider().with_options(**options)
    assert str(caught.value) == text
    assert isinstance(caught.value, ValueError)


async def test_an_option_that_is_none(world) -> None:
    """A misspelt option is refused, with the one that was probably meant; so is one that only we may give."""
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'timout'; did you mean 'timeout'\?"):
        world.provider().with_options(timout=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'may_wait'"):
        world.provider().with_options(may_wait=False)


async def test_the_functions_own_options_are_not_ours(world) -> None:
    """Options are given by name only, so a function handed to `with_options` by mistake is refused."""
    with pytest.raises(TypeError):
        world.provider().with_options(anyio.sleep)
