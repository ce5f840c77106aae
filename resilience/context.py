"""
What a running call tells the code inside it: its idempotency key and the time it has left.

Nothing of this exists unless a call asks for it, because a context variable costs more than the rest of a call. What is
entered is over when its call is, even in tasks that were started inside it and live on: a background task must not
end with the request that started it, nor repeat its key.
"""

from __future__ import annotations

import inspect
import math
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import ParamSpec, TypeVar, final

from resilience.errors import ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")

_LONGEST_KEY = 255
_MOST_DIGITS = 99_999_999
# From the finest unit on: the first in which the value has at most eight digits loses least.
_GRPC_UNITS = (("n", 1e-9), ("u", 1e-6), ("m", 1e-3), ("S", 1.0), ("M", 60.0), ("H", 3600.0))


@final
@dataclass(frozen=True, slots=True)
class RemainingTime:
    """
    The moment at which a call ends, seen from inside it.

    Args:
        at: The moment, on *clock*.
        clock: The monotonic clock of the provider, in seconds.
    """

    at: float
    clock: Callable[[], float]

    def remaining(self) -> float:
        """Return the seconds that are left; 0 when the moment has passed."""
        return max(0.0, self.at - self.clock())

    @property
    def expired(self) -> bool:
        """Whether the moment has passed."""
        return self.clock() >= self.at

    def __repr__(self) -> str:
        left = self.remaining()
        return f"<RemainingTime {left:.3g} s left>" if left > 0 else "<RemainingTime EXPIRED>"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """
    What one call has to tell.

    Args:
        key: Its idempotency key. None: it has none of its own, and an enclosing call's holds.
        deadline: When it ends. None: it says nothing, and an enclosing call's deadline holds.
    """

    key: str | None = None
    deadline: RemainingTime | None = None


@final
class Entered:
    """A context that was entered, until it is left."""

    __slots__ = ("context", "outer", "over", "token")

    context: CallContext
    outer: Entered | None
    over: bool
    token: Token[Entered | None]

    def __init__(self, context: CallContext, outer: Entered | None) -> None:
        self.context = context
        self.outer = outer
        self.over = False


_current: ContextVar[Entered | None] = ContextVar("resilience_call", default=None)


def _innermost() -> Entered | None:
    """Return the innermost context that is not over yet."""
    entered = _current.get()
    while entered is not None and entered.over:
        entered = entered.outer
    return entered


def enter(context: CallContext) -> Entered:
    """
    Let the code from here on read *context*; what it leaves open, and an earlier deadline, come from around it.

    Returns:
        What to hand to `leave`.
    """
    outer = _innermost()
    if outer is not None:
        around = outer.context
        context = CallContext(
            key=context.key if context.key is not None else around.key,
            deadline=_earlier(context.deadline, around.deadline),
        )
    entered = Entered(context, outer)
    entered.token = _current.set(entered)
    return entered


def leave(entered: Entered) -> None:
    """End what `enter` began, for every task that can read it. Leaving twice is harmless."""
    if entered.over:
        return
    entered.over = True
    # A coroutine that the collector closes runs in somebody else's context: there is nothing to reset.
    with suppress(ValueError):
        _current.reset(entered.token)


def within(context: CallContext, func: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Return *func* so that the code inside it can read *context*."""

    # What cannot be awaited comes back as it is, so that the error arises where the caller awaits and can explain it.
    def telling(*args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        entered = enter(context)
        try:
            awaitable = func(*args, **kwargs)
        except BaseException:
            leave(entered)
            raise
        if inspect.isawaitable(awaitable):
            return _left_after(entered, awaitable)
        leave(entered)
        return awaitable

    return telling


async def _left_after(entered: Entered, awaitable: Awaitable[T]) -> T:
    try:
        return await awaitable
    finally:
        leave(entered)


def _earlier(one: RemainingTime | None, other: RemainingTime | None) -> RemainingTime | None:
    if one is None or other is None:
        return one if other is None else other
    # Not by their moments: two providers may have two clocks.
    return other if other.at - other.clock() < one.at - one.clock() else one


def idempotency_key() -> str | None:
    """
    Return the idempotency key of the call this code runs in; None if there is none.

    It is the same on each attempt of a call, so that the other side can tell a repetition from a second order. A call
    inside a call has its own if it asks for one, and reads the outer call's otherwise.
    """
    entered = _innermost()
    return entered.context.key if entered is not None else None


def deadline() -> RemainingTime | None:
    """
    Return the time that is left to the call this code runs in; None if it has no deadline, or does not tell.

    Of calls inside calls it is the earliest deadline.
    """
    entered = _innermost()
    return entered.context.deadline if entered is not None else None


# -- idempotency keys --------------------------------------------------------------------------------------------------


def make_key(wanted: bool | str) -> str | None:
    """
    Return the idempotency key of one call: the user's own text as it is, a new UUID for True, None for False.

    Once per call: each of its attempts carries the same one.
    """
    if isinstance(wanted, str):
        return wanted
    return str(uuid.uuid4()) if wanted else None


def check_key(wanted: object, what: str = "idempotency_key") -> None:
    """
    Refuse what cannot be an idempotency key.

    Args:
        wanted: True, False or a key.
        what: What the user wrote it into; it stands in the error.

    Raises:
        ConfigurationError: It is neither, or the key would not survive the way through a header.
    """
    if isinstance(wanted, bool):
        return
    expected = f"1 to {_LONGEST_KEY} printable ASCII characters, or True for a new one with each call"
    if not isinstance(wanted, str):
        raise ConfigurationError(f"{what}={wanted!r}: expected {expected}; a number goes in as str(...)")
    if not 0 < len(wanted) <= _LONGEST_KEY:
        raise ConfigurationError(f"{what}: expected {expected}, not {len(wanted)} characters")
    if not (wanted.isascii() and wanted.isprintable()):
        raise ConfigurationError(f"{what}={wanted!r}: expected {expected}")
    if wanted != wanted.strip():
        raise ConfigurationError(f"{what}={wanted!r}: a header loses the spaces around it")


# -- deadlines on the wire ---------------------------------------------------------------------------------------------


def timeout_header(seconds: float) -> str:
    """
    Return *seconds* as whole milliseconds, rounded down and never negative: the value of ``X-Request-Timeout-Ms``.

    Raises:
        ValueError: *seconds* is no finite number: without a deadline there is nothing to send.
    """
    return str(int(_finite(seconds) * 1000))


def grpc_timeout(seconds: float) -> str:
    """
    Return *seconds* as gRPC sends it, rounded down and never negative: at most eight digits and a unit.

    Raises:
        ValueError: *seconds* is no finite number: without a deadline there is nothing to send.
    """
    seconds = _finite(seconds)
    for unit, length in _GRPC_UNITS:
        # Below a second a division by the unit's length is less exact than the multiplication by its inverse.
        value = int(seconds * round(1 / length)) if length < 1 else int(seconds / length)
        if value <= _MOST_DIGITS:
            return f"{value}{unit}"
    return f"{_MOST_DIGITS}{_GRPC_UNITS[-1][0]}"


def _finite(seconds: float) -> float:
    if not math.isfinite(seconds):
        raise ValueError(f"{seconds!r} s cannot be sent: without a deadline, send no timeout at all")
    return max(0.0, seconds)
