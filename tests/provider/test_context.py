"""What code inside a call can read about the call: its idempotency key and the time it has left."""

from __future__ import annotations

import contextvars
import dataclasses
import math
import uuid

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience import ConfigurationError
from resilience.context import (
    CallContext,
    RemainingTime,
    check_key,
    deadline,
    enter,
    grpc_timeout,
    idempotency_key,
    leave,
    make_key,
    timeout_header,
    within,
)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


# -- entering and leaving ----------------------------------------------------------------------------------------------


def test_outside_a_call_there_is_nothing() -> None:
    """Code that runs outside of any call reads None."""
    assert idempotency_key() is None
    assert deadline() is None


def test_a_call_tells_what_it_was_given_and_nothing_afterwards() -> None:
    """Key and deadline can be read between enter and leave, and are gone after it."""
    clock, before = Clock(), contextvars.copy_context()
    entered = enter(CallContext(key="k", deadline=RemainingTime(130.0, clock)))
    left = deadline()
    assert idempotency_key() == "k"
    assert left is not None
    assert (left.at, left.remaining(), left.expired) == (130.0, 30.0, False)
    leave(entered)
    assert (idempotency_key(), deadline()) == (None, None)
    assert contextvars.copy_context() == before, "something stays behind in the caller's context"


def test_leaving_twice_changes_nothing() -> None:
    """The second leave of one context does not touch what holds by then."""
    first = enter(CallContext(key="first"))
    leave(first)
    second = enter(CallContext(key="second"))
    leave(first)
    assert idempotency_key() == "second"
    leave(second)


def test_a_nested_call_has_its_own_key() -> None:
    """Inside, the inner key holds; outside again, the outer one."""
    outer = enter(CallContext(key="outer"))
    inner = enter(CallContext(key="inner"))
    assert idempotency_key() == "inner"
    leave(inner)
    assert idempotency_key() == "outer"
    leave(outer)


def test_a_nested_call_without_a_key_reads_the_outer_one() -> None:
    """What an inner call leaves open comes from around it."""
    clock = Clock()
    outer = enter(CallContext(key="outer", deadline=RemainingTime(110.0, clock)))
    inner = enter(CallContext())
    left = deadline()
    assert idempotency_key() == "outer"
    assert left is not None
    assert left.remaining() == 10
    leave(inner)
    leave(outer)


@pytest.mark.parametrize("outer_seconds, inner_seconds", [(5, 20), (20, 5)])
def test_of_nested_deadlines_the_earlier_one_holds(outer_seconds: float, inner_seconds: float) -> None:
    """Also between two providers whose clocks have nothing to do with each other."""
    ours, theirs = Clock(1000.0), Clock(3.0)
    outer = enter(CallContext(deadline=RemainingTime(1000.0 + outer_seconds, ours)))
    inner = enter(CallContext(deadline=RemainingTime(3.0 + inner_seconds, theirs)))
    left = deadline()
    assert left is not None
    assert left.remaining() == 5
    leave(inner)
    left = deadline()
    assert left is not None
    assert left.remaining() == outer_seconds
    leave(outer)


def test_a_deadline_that_has_passed_leaves_nothing() -> None:
    """The time left never becomes negative, and the text says that it is over."""
    clock = Clock()
    left = RemainingTime(101.5, clock)
    assert repr(left) == "<RemainingTime 1.5 s left>"
    clock.now = 150.0
    assert (left.remaining(), left.expired) == (0.0, True)
    assert repr(left) == "<RemainingTime EXPIRED>"


def test_contexts_are_values() -> None:
    """A context cannot be changed after it was made."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        CallContext().key = "other"  # type: ignore[misc]


def test_calls_left_in_the_wrong_order_leave_nothing() -> None:
    """Blocks may be left in any order: at the end there is nothing."""
    outer = enter(CallContext(key="outer"))
    inner = enter(CallContext(key="inner"))
    leave(outer)
    leave(inner)
    assert idempotency_key() is None


def test_a_call_that_is_closed_elsewhere_is_over() -> None:
    """A coroutine that the collector closes runs in another context: its call is over all the same."""
    context = contextvars.copy_context()
    entered = context.run(enter, CallContext(key="abandoned"))
    leave(entered)
    assert context.run(idempotency_key) is None


@pytest.mark.anyio
async def test_a_background_task_does_not_outlive_its_call_as_part_of_it() -> None:
    """A task that was started inside a call reads the call while it lasts, and what is around it afterwards."""
    seen: list[str | None] = []
    over = anyio.Event()

    async def background() -> None:
        seen.append(idempotency_key())
        await over.wait()
        seen.append(idempotency_key())

    async with anyio.create_task_group() as tasks:
        outer = enter(CallContext(key="outer"))
        inner = enter(CallContext(key="inner"))
        tasks.start_soon(background)
        await anyio.wait_all_tasks_blocked()
        leave(inner)
        over.set()
        await anyio.wait_all_tasks_blocked()
        leave(outer)
    assert seen == ["inner", "outer"]


@pytest.mark.anyio
async def test_a_function_within_a_context_reads_it_on_each_call() -> None:
    """However it ends; whoever awaits it reads nothing before and afterwards."""
    seen: list[str | None] = []

    async def send(name: str, *, fail: bool = False) -> str:
        seen.append(idempotency_key())
        await anyio.lowlevel.checkpoint()
        seen.append(idempotency_key())
        if fail:
            raise KeyError(name)
        return name

    told = within(CallContext(key="k"), send)
    assert await told("a") == "a"
    assert idempotency_key() is None
    with pytest.raises(KeyError, match="b"):
        await told("b", fail=True)
    assert idempotency_key() is None
    with anyio.CancelScope() as scope:
        scope.cancel()
        await told("c")
    assert scope.cancelled_caught
    assert idempotency_key() is None
    assert seen == ["k"] * 5


def test_a_slip_within_a_context_stays_one() -> None:
    """What a synchronous function returns comes back as it is, what it raises is raised, and the context is over."""
    assert within(CallContext(key="k"), idempotency_key)() == "k"  # type: ignore[arg-type]
    assert idempotency_key() is None
    with pytest.raises(ZeroDivisionError):
        within(CallContext(key="k"), lambda: 1 / 0)()  # type: ignore[arg-type, return-value]
    assert idempotency_key() is None


@pytest.mark.anyio
async def test_concurrent_calls_do_not_see_each_other() -> None:
    """Each task reads its own."""
    seen: dict[str, str | None] = {}

    async def call(key: str) -> None:
        entered = enter(CallContext(key=key))
        await anyio.sleep(1)
        seen[key] = idempotency_key()
        leave(entered)

    async with anyio.create_task_group() as tasks:
        for key in "abc":
            tasks.start_soon(call, key)
    assert seen == {"a": "a", "b": "b", "c": "c"}


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_key_is_made_once_per_call_or_taken_as_it_is() -> None:
    """True makes a new UUID each time, a text is used unchanged, False makes none."""
    first, second = make_key(True), make_key(True)
    assert first is not None
    assert first != second
    assert uuid.UUID(first).version == 4
    assert make_key("order-17") == "order-17"
    assert make_key(False) is None


@pytest.mark.parametrize("wanted", [True, False, "x", "a key with spaces: ~!", "k" * 255, str(uuid.UUID(int=4))])
def test_good_keys_are_accepted(wanted: object) -> None:
    """Anything that survives a header."""
    check_key(wanted)


@pytest.mark.parametrize(
    "wanted, complaint",
    [
        ("", "not 0 characters"),
        ("k" * 256, "not 256 characters"),
        ("tab\there", "printable ASCII"),
        ("line\r\nInjected: yes", "printable ASCII"),
        ("naïve", "printable ASCII"),
        (" padded", "loses the spaces"),
        (17, r"a number goes in as str\(\.\.\.\)"),
        (None, "printable ASCII"),
        (b"bytes", "printable ASCII"),
    ],
)
def test_what_would_not_survive_a_header_is_refused(wanted: object, complaint: str) -> None:
    """With the option's name, what was given, and what was expected."""
    with pytest.raises(ConfigurationError, match=rf"^with_options\(idempotency_key\).*{complaint}"):
        check_key(wanted, "with_options(idempotency_key)")


# -- on the wire -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seconds, expected",
    [(1.5, "1500"), (12.3456, "12345"), (0.3, "300"), (0.0009, "0"), (0.0, "0"), (-3.0, "0"), (30, "30000")],
)
def test_milliseconds_for_http(seconds: float, expected: str) -> None:
    """Whole milliseconds, rounded down, never negative."""
    assert timeout_header(seconds) == expected


@pytest.mark.parametrize(
    "seconds, expected",
    [
        (0.0, "0n"),
        (-1.0, "0n"),
        (1e-9, "1n"),
        (0.05, "50000000n"),
        (0.1, "100000u"),
        (1.5, "1500000u"),
        (30, "30000000u"),
        (99.999999, "99999999u"),
        (100, "100000m"),
        (123.4567, "123456m"),
        (99_999.999, "99999999m"),
        (100_000, "100000S"),
        (100_000_000, "1666666M"),
        (6_000_000_000, "1666666H"),
        (1e15, "99999999H"),
    ],
)
def test_timeouts_for_grpc(seconds: float, expected: str) -> None:
    """At most eight digits, in the finest unit that has room, rounded down, never negative."""
    assert grpc_timeout(seconds) == expected


@pytest.mark.parametrize("to_wire", [timeout_header, grpc_timeout])
@pytest.mark.parametrize("seconds", [math.inf, math.nan, -math.inf])
def test_no_deadline_is_no_header(to_wire: object, seconds: float) -> None:
    """What is no time cannot be sent by mistake."""
    with pytest.raises(ValueError, match="send no timeout at all"):
        to_wire(seconds)  # type: ignore[operator]


UNITS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "S": 1.0, "M": 60.0, "H": 3600.0}


@settings(max_examples=100)
@given(st.floats(min_value=-10, max_value=1e11))
def test_the_other_side_never_waits_longer(seconds: float) -> None:
    """What is sent never exceeds what is left, and loses less than a thousandth of it where the unit is finer."""
    sent = int(timeout_header(seconds)) / 1000
    assert 0 <= sent <= max(0.0, seconds) * (1 + 1e-12)
    text = grpc_timeout(seconds)
    digits, unit = text[:-1], UNITS[text[-1]]
    assert digits.isascii()
    assert digits.isdigit()
    assert len(digits) <= 8
    value = int(digits) * unit
    assert 0 <= value <= max(0.0, seconds) * (1 + 1e-12)
    assert seconds - value <= max(unit, seconds * 1e-3)
