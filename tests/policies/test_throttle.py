"""The throttle on its own: who is held back, what counts, and what it says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random

import anyio
import pytest

from resilience._core.words import Priority
from resilience.errors import ConfigurationError, Reason, Throttled
from resilience.events import CallWouldBeRejected
from resilience.policies import _forks
from resilience.policies.throttle import Throttle, ThrottleRefusal
from resilience.settings import ProviderSettings, ThrottleSettings
from resilience.testing import EventRecorder


class BusyError(Exception):
    status_code = 429


def make(**settings: object) -> Throttle:
    chosen = ThrottleSettings.model_validate({"enabled": True, **settings})
    return Throttle(
        chosen, name="s3", clock=anyio.current_time, wall_clock=lambda: 1e9 + anyio.current_time(), rng=Random(1)
    )


def overloaded(accepted: int = 20, refused: int = 79, **settings: object) -> Throttle:
    throttle = make(**settings)
    throttle.record(True, accepted)
    throttle.record(False, refused)
    return throttle


def held(throttle: Throttle, priority: Priority = Priority.DEFAULT, calls: int = 1000) -> int:
    return sum(throttle.try_admit(priority) is not None for _ in range(calls))


async def ok() -> str:
    return "fine"


async def busy() -> None:
    raise BusyError


# -- deciding ----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_share_is_held_back_while_much_is_refused() -> None:
    """The share follows the figures, and the refusal tells them."""
    throttle = overloaded()
    assert held(throttle) == pytest.approx(590, abs=50)
    refusal = next(filter(None, (throttle.try_admit() for _ in range(100))))
    assert isinstance(refusal, ThrottleRefusal)
    assert str(throttle.refused(refusal)) == (
        "s3: throttled, 79 of 99 calls in 120 s were refused as too many, 59 % are held back"
    )


@pytest.mark.anyio
async def test_the_sheddable_are_held_back_most_and_the_critical_least() -> None:
    """Twice the share, and its square."""
    throttle = overloaded(36, 63)
    shares = [held(throttle, one) / 1000 for one in (Priority.CRITICAL, Priority.DEFAULT, Priority.SHEDDABLE)]
    assert shares == pytest.approx([0.073, 0.27, 0.54], abs=0.05)


@pytest.mark.anyio
async def test_it_need_not_be_asked_while_it_holds_nothing_back() -> None:
    """`active` turns true with the figures, and false when they have improved or are out of date."""
    throttle = make(minimum_calls=10)
    assert not throttle.active
    throttle.record(False, 9)
    assert (throttle.active, held(throttle, calls=50)) == (False, 0)
    throttle.record(False)
    assert throttle.active
    throttle.record(True, 20)
    assert not throttle.active
    throttle.record(False, 100)
    assert throttle.active
    await anyio.sleep(121)
    assert throttle.try_admit() is None
    assert not throttle.active


@pytest.mark.anyio
async def test_what_is_held_back_does_not_count() -> None:
    """Holding back does not feed on itself: the figures are those of calls that were sent."""
    throttle = overloaded()
    held(throttle)
    assert throttle.snapshot().calls == 99


@pytest.mark.anyio
@pytest.mark.parametrize("settings", [{"enabled": False}, {"mode": "disabled"}])
async def test_switched_off_it_holds_nothing_back(settings: dict[str, object]) -> None:
    """Without a limit nothing is counted, and nobody is held back."""
    throttle = overloaded(0, 1000, **settings)
    assert (held(throttle), throttle.active) == (0, False)
    assert (throttle.snapshot().mode, throttle.snapshot().share[Priority.DEFAULT]) == ("disabled", 0.0)


@pytest.mark.anyio
async def test_shadow_mode_only_tells() -> None:
    """Nobody is held back; an event tells of each call that would have been."""
    throttle = overloaded(mode="shadow")
    recorder = EventRecorder()
    throttle.bus.subscribe(recorder)
    assert held(throttle) == 0
    spared = recorder.of(CallWouldBeRejected)
    assert len(spared) == pytest.approx(590, abs=50)
    assert {(event.provider, event.reason) for event in spared} == {("s3", Reason.THROTTLED)}


# -- using it ----------------------------------------------------------------------------------------------------------


async def by_call(throttle: Throttle, func: Callable[[], Awaitable[object]]) -> object:
    return await throttle.call(func)


async def by_block(throttle: Throttle, func: Callable[[], Awaitable[object]]) -> object:
    async with throttle:
        return await func()


async def by_decorator(throttle: Throttle, func: Callable[[], Awaitable[object]]) -> object:
    return await throttle(func)()


@pytest.mark.anyio
@pytest.mark.parametrize("use", [by_call, by_block, by_decorator])
async def test_every_way_counts_and_refuses(
    use: Callable[[Throttle, Callable[[], Awaitable[object]]], Awaitable[object]],
) -> None:
    """Values and errors come out and are counted; then some calls are refused without being made."""
    throttle = make(minimum_calls=10)
    for _ in range(2):
        assert await use(throttle, ok) == "fine"
    for _ in range(8):
        with pytest.raises(BusyError):
            await use(throttle, busy)
    assert repr(throttle) == "<Throttle 's3' holds back 55 %, 2/10 accepted>"
    outcomes: list[str] = []
    for _ in range(20):
        try:
            await use(throttle, ok)
        except Throttled as error:
            outcomes.append(f"held: {error.provider} {error.reason} {error.retry_after}")
        else:
            outcomes.append("sent")
    assert set(outcomes) == {"held: s3 throttled None", "sent"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    "outcome, figures",
    [
        ("200", (1, 1)),
        ("404", (1, 1)),
        ("500", (1, 1)),
        ("429", (1, 0)),
        ("503", (1, 0)),
        ("529", (1, 0)),
        ("timeout", (0, 0)),
        ("mistake", (0, 0)),
        ("cancelled", (0, 0)),
    ],
)
async def test_only_a_refusal_for_being_busy_is_not_accepted(outcome: str, figures: tuple[int, int]) -> None:
    """Other errors are answers; a timeout, a mistake of the caller's and a cancellation say nothing."""

    class StatusError(Exception):
        status_code = int(outcome) if outcome.isdigit() else 0

    async def work() -> None:
        if outcome == "cancelled":
            scope.cancel()
            await anyio.sleep(1)
        if outcome != "200":
            raise {"timeout": TimeoutError, "mistake": TypeError}.get(outcome, StatusError)

    throttle = make()
    with anyio.CancelScope() as scope, suppress(StatusError, TimeoutError, TypeError):
        await throttle.call(work)
    now = throttle.snapshot()
    assert (now.calls, now.accepted) == figures


@pytest.mark.anyio
async def test_a_call_counts_when_it_has_ended() -> None:
    """Calls under way are not taken for refused ones."""
    throttle = make()
    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(throttle.call, anyio.sleep, 60)
        await anyio.sleep(30)
        assert (throttle.snapshot().calls, throttle.active) == (0, False)
    assert throttle.snapshot().calls == 50


@pytest.mark.anyio
async def test_a_snapshot_is_json_ready() -> None:
    """Figures as plain values."""
    snapshot = overloaded(minimum_calls=1000).snapshot()
    assert json.loads(json.dumps(dataclasses.asdict(snapshot))) == {
        "name": "s3",
        "mode": "enforce",
        "calls": 99,
        "accepted": 20,
        "share": {"critical": 0.0, "default": 0.0, "sheddable": 0.0},
    }


def test_wrong_arguments_are_named() -> None:
    """The settings of a whole provider, or a name that is none, are refused with the likely slip."""
    with pytest.raises(ConfigurationError, match=r"hold them as \.throttle"):
        Throttle(ProviderSettings())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="name is a string"):
        Throttle(name=3)  # type: ignore[arg-type]


def test_a_throttle_made_without_settings_is_at_work() -> None:
    """Whoever makes one wants it."""
    throttle = Throttle(rng=Random(1))
    throttle.record(False, 100)
    assert held(throttle) == pytest.approx(900, abs=50)


def test_a_fork_starts_anew() -> None:
    """What the parent saw is no evidence in the child, and a lock that a thread of it held is not held there."""
    throttle = Throttle()
    throttle.record(False, 100)
    before = throttle.lock
    _forks.start_anew()
    assert (throttle.active, throttle.snapshot().calls) == (False, 0)
    assert throttle.lock is not before
