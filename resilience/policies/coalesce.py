"""
Coalescing: identical calls that are made at the same time become one.

The first caller of a key leads: it makes the call, in its own task. Those who come while it is under way follow: they
wait, and share what it brings. Nothing is kept afterwards; this is no cache.

==============================  ===================================================================================
the leader                      its followers
==============================  ===================================================================================
returns                         get the same object
raises an `Exception`           raise an exception of their own that is like it, with the same notes and cause
is cancelled, closed, or exits  go on: the one that has waited longest leads now, and makes its own call
==============================  ===================================================================================

A follower that is cancelled just leaves. Nobody's deadline, cancellation or context variables are anybody else's.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar, cast, final

import anyio

from resilience._core.words import Reason
from resilience.errors import CallRejected, CallTimeout, ConfigurationError
from resilience.events import CallCoalesced, EventBus, process_bus
from resilience.guard import here, running_trio
from resilience.policies._forks import survives
from resilience.policies._twins import SharedError

P = ParamSpec("P")
T = TypeVar("T")

_Place: TypeAlias = tuple[object, Hashable]
"""A loop and a key: two loops never share a call, so no thread ever waits for another one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoalescerSnapshot:
    """
    One look at a coalescer. JSON-ready through `dataclasses.asdict`.

    Args:
        name: What it coalesces.
        keys: Keys with a call under way.
        followers: Calls that are waiting for another one's result.
        coalesced: Calls so far that found an identical one under way.
        handed_over: How often a leader went away and a follower took its place.
    """

    name: str
    keys: int
    followers: int
    coalesced: int
    handed_over: int


@final
class _Seat(Generic[T]):
    """Where one follower waits, and finds its share."""

    __slots__ = ("_error", "_value", "answered", "event", "leads")

    answered: bool
    event: anyio.Event
    leads: bool

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.answered = False
        self.leads = False
        self._value: T | None = None
        self._error: SharedError | None = None

    def answer(self, value: T | None, error: SharedError | None) -> None:
        """Leave the follower its share and wake it."""
        self._value, self._error, self.answered = value, error, True
        self.event.set()

    def take(self) -> T:
        """Return the shared result, or raise an error of the follower's own."""
        if self._error is None:
            return cast("T", self._value)
        # Made by whoever raises it, so that a crowd of followers is no long stop of the loop.
        error = self._error.another()
        try:
            raise error
        finally:
            del error  # it holds this frame


@final
class _Flight:
    """One call under way, and those who wait for it, in the order in which they came."""

    __slots__ = ("place", "seats")

    place: _Place
    seats: OrderedDict[_Seat[Any], None]

    def __init__(self, place: _Place) -> None:
        self.place = place
        self.seats = OrderedDict()


_leading: ContextVar[tuple[_Flight, ...]] = ContextVar("resilience_coalesce", default=())
"""The calls that the running code is itself part of: waiting for one of them would never end."""


@final
class Coalescer:
    """
    Lets identical concurrent calls share one execution.

    Use it as ``await coalescer.call(key, fn, ...)``. The key says what "identical" means: it has to name everything
    that makes two calls differ, such as the arguments, and whose data it is. All sharers get the same object, so
    treat it as read-only.

    One coalescer serves every event loop and thread; calls of different loops are never shared.

    Args:
        name: What it coalesces; it stands in events and errors. Default: ``"coalescer"``.
        wall_clock: Seconds since the Unix epoch, for events. Default: `time.time`.
        bus: Where to tell events. Default: a bus of its own below the process-wide one.

    Raises:
        ConfigurationError: *name* is not a string.
    """

    __slots__ = ("__weakref__", "_coalesced", "_flights", "_handed_over", "_wall_clock", "bus", "lock", "name")

    bus: EventBus
    name: str

    def __init__(
        self,
        name: str = "coalescer",
        *,
        wall_clock: Callable[[], float] = time.time,
        bus: EventBus | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise ConfigurationError(f"a coalescer's name is a string, not {name!r}: keys go into call(key, ...)")
        self.name = name
        self.bus = bus if bus is not None else EventBus(process_bus)
        self.lock: AbstractContextManager[Any] = threading.RLock()
        self._wall_clock = wall_clock
        self.start_anew()
        survives(self)

    def start_anew(self) -> None:
        """Forget every call: in a forked child none of them exists."""
        self._flights: dict[_Place, _Flight] = {}
        self._coalesced = 0
        self._handed_over = 0

    async def call(self, key: Hashable, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Await ``func(*args, **kwargs)``, or what an identical call brings that is under way.

        Args:
            key: What makes calls identical: any hashable value but None.
            func: An async function.
            *args: Its arguments.
            **kwargs: Its keyword arguments.

        Raises:
            TypeError: *key* cannot be a key, or *func* cannot be called.
            Exception: What *func* raised, or an exception like it if an identical call raised it.
        """
        return await self.share(key, partial(func, *args, **kwargs) if callable(func) else func)

    async def share(
        self,
        key: Hashable,
        func: Callable[[], Awaitable[T]],
        *,
        patience: float = math.inf,
        operation: str = "",
        is_own: Callable[[Exception], bool] | None = None,
    ) -> T:
        """
        Like `call`, with what a composition of policies has to say besides.

        Args:
            key: What makes calls identical.
            func: Makes the call, if this one has to lead.
            patience: How long to wait for another one's result, in seconds. Default: without limit.
            operation: What is being called, for events and errors.
            is_own: Tells the errors that speak of this caller and not of the call, such as its own deadline. They are
                not shared: a follower takes over. Default: none.

        Raises:
            CallTimeout: The patience is over.
        """
        _check(key, func)
        place = (_loop_here(), key)
        flight = self._flights.get(place)
        if flight is None:
            flight = self._flights[place] = _Flight(place)
        elif flight in _leading.get():
            return await func()
        else:
            seat = _Seat[T]()
            await self._follow(flight, seat, patience, operation)
            if seat.answered:
                return seat.take()
        return await self._lead(flight, func, is_own)

    def tells_of_deadline(self, error: Exception) -> bool:
        """
        Whether *error* says that its caller's own time was over: a provider's composition hands this in as *is_own*.

        The limit of one attempt is everybody's, so an attempt that ran into it is shared.
        """
        if isinstance(error, CallTimeout):
            return error.provider == self.name and error.scope == "total"
        return (
            isinstance(error, CallRejected)
            and error.provider == self.name
            and error.reason is Reason.DEADLINE_WOULD_PASS
        )

    # -- leading ---------------------------------------------------------------------------------------------------

    async def _lead(
        self, flight: _Flight, func: Callable[[], Awaitable[T]], is_own: Callable[[Exception], bool] | None
    ) -> T:
        token = _leading.set((*_leading.get(), flight))
        try:
            result = await func()
        except BaseException as error:
            if isinstance(error, Exception) and not (is_own is not None and is_own(error)):
                self._land(flight, error=error)
            else:
                self._hand_over(flight)
            raise
        else:
            self._land(flight, result)
            return result
        finally:
            # A coroutine that the collector closes runs in somebody else's context: there is nothing to reset.
            with suppress(ValueError):
                _leading.reset(token)

    def _land(self, flight: _Flight, result: object = None, error: Exception | None = None) -> None:
        """Share the end of a call and forget its key."""
        self._forget(flight)
        if flight.seats:
            shared = SharedError(error, self.name) if error is not None else None
            while flight.seats:
                flight.seats.popitem(last=False)[0].answer(result, shared)

    def _hand_over(self, flight: _Flight) -> None:
        """Let the follower that has waited longest lead; without one forget the key."""
        while flight.seats:
            seat, _ = flight.seats.popitem(last=False)
            seat.leads = True
            if _wake(flight.place[0], seat.event):
                with self.lock:
                    self._handed_over += 1
                return
        self._forget(flight)

    def _forget(self, flight: _Flight) -> None:
        if self._flights.get(flight.place) is flight:
            del self._flights[flight.place]

    # -- following -------------------------------------------------------------------------------------------------

    async def _follow(self, flight: _Flight, seat: _Seat[Any], patience: float, operation: str) -> None:
        """Wait until *seat* has its share or leads. Whichever way this ends, nothing waits in the follower's name."""
        flight.seats[seat] = None
        with self.lock:
            self._coalesced += 1
        began = anyio.current_time()
        try:
            if self.bus.hears(CallCoalesced):
                self.bus.emit(CallCoalesced(provider=self.name, operation=operation, time=self._wall_clock()))
            with anyio.move_on_after(patience) if patience < math.inf else nullcontext() as scope:
                await seat.event.wait()
            if scope is not None and scope.cancelled_caught:
                elapsed = anyio.current_time() - began
                raise CallTimeout(self.name, operation, "total", patience, elapsed)
        except BaseException:
            flight.seats.pop(seat, None)
            if seat.leads:  # woken and cancelled at once: its turn is the next one's
                self._hand_over(flight)
            raise

    # -- looking ---------------------------------------------------------------------------------------------------

    def snapshot(self) -> CoalescerSnapshot:
        """Return the figures as they are now."""
        # A list of the values is one step that no other thread can divide.
        flights = list(self._flights.values())
        return CoalescerSnapshot(
            name=self.name,
            keys=len(flights),
            followers=sum(len(flight.seats) for flight in flights),
            coalesced=self._coalesced,
            handed_over=self._handed_over,
        )

    def __repr__(self) -> str:
        figures = self.snapshot()
        return (
            f"<Coalescer {self.name!r} {figures.keys} in flight, {figures.followers} following, "
            f"{figures.coalesced} coalesced>"
        )


def _check(key: object, func: object) -> None:
    """Refuse what cannot be a key or a call, and name the likely slip."""
    if key is None:
        raise TypeError("a coalescing key says which calls are identical, and None would mean all: is an id missing?")
    try:
        hash(key)
    except TypeError as error:
        raise TypeError(
            f"a coalescing key has to be hashable, and this {type(key).__name__} is not ({error}): "
            "make it a string or a tuple of strings and numbers"
        ) from None
    if not callable(func):
        if asyncio.iscoroutine(func):
            func.close()
        slip = "were the key and the function swapped?" if callable(key) else "pass the function and its arguments"
        raise TypeError(f"a coalesced call takes a key and an async function, not {type(func).__name__}: {slip}")


def _loop_here() -> object:
    """Return what stands for the running event loop."""
    _, loop = here()
    return loop if loop is not None else running_trio().lowlevel.current_trio_token()


def _wake(loop: Any, event: anyio.Event) -> bool:
    """Set *event* of *loop*, also from elsewhere; return whether there is anybody to wake."""
    try:
        if _loop_here() is loop:
            event.set()
            return True
    except RuntimeError:
        pass  # the collector closes coroutines in any thread, and outside of any task
    schedule = loop.call_soon_threadsafe if isinstance(loop, asyncio.AbstractEventLoop) else loop.run_sync_soon
    try:
        schedule(event.set)
    except RuntimeError:  # that loop is over, and its tasks with it
        return False
    return True
