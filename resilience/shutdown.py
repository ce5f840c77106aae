"""
How a registry goes down: a cascade, each step bounded in time, and nothing lost is claimed done.

======================  ==========================================  ==============================================
step                    lasts at most                               what happens
======================  ==========================================  ==============================================
1 admission ends        no time                                     calls are refused, retries are not scheduled,
                                                                    and whoever waits is sent away
2 calls finish          *grace*                                     those in flight go on as if nothing were
3 calls are cut off     *cancel*                                    those left are interrupted: `CallTimeout` with
                                                                    scope ``"shutdown"``; what swallows even that
                                                                    is abandoned, and counted
4 adapters are closed   *close*                                     all at once; an error in one breaks no other
======================  ==========================================  ==============================================

A call within an attempt that is in flight, in the same task, is a part of it: it is admitted until step 3, but it may
not wait, and it is not retried.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final, cast, final
from weakref import ref

import anyio

from resilience._core.words import many
from resilience.admission import Pending
from resilience.closing import close_all
from resilience.events import EventBus, ShutdownBegan, ShutdownEnded
from resilience.home import Home
from resilience.lane import Lane
from resilience.life import Life
from resilience.policies._waiter import Waiter
from resilience.process import every_runtime
from resilience.runtime import ProviderRuntime
from resilience.settings import ShutdownSettings

_LOOK: Final = 0.25
"""Seconds between two looks at what nobody tells of, such as a loop that was closed over its calls."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownReport:
    """
    What has become of everything. JSON-ready through `dataclasses.asdict`.

    Attempts are counted, so a call within a call counts, and a hedged call may count twice.

    Args:
        finished: Attempts in flight that ended by themselves, with a result or with an error.
        interrupted: Attempts that had to be interrupted, and came out without a result.
        refused: Calls that were refused: none of them was sent.
        abandoned: Attempts that still run, or are held open: nobody knows what becomes of them.
        closed: Adapters that were closed.
        unclosed: Those that failed to, or took too long, by the names of their functions.
        seconds: How long all of it took.
    """

    finished: int
    interrupted: int
    refused: int
    abandoned: int
    closed: int
    unclosed: tuple[str, ...]
    seconds: float

    @property
    def clean(self) -> bool:
        """Whether everything that was in flight ended by itself, and everything could be closed."""
        return not (self.interrupted or self.abandoned or self.unclosed)

    def __str__(self) -> str:
        attempts = [(self.finished, "finished"), (self.interrupted, "interrupted"), (self.abandoned, "abandoned")]
        told = ", ".join(f"{count} {what}" for count, what in attempts)
        unclosed = f", not closed: {', '.join(self.unclosed)}" if self.unclosed else ""
        calls, adapters = many(self.refused, "call"), many(self.closed, "adapter")
        return f"attempts: {told}; {calls} refused; {adapters} closed{unclosed}; took {self.seconds:.3g} s"


@final
class Shutdown:
    """
    The shutdown of one registry. Made with it, and begun at most once.

    Args:
        life: Its life.
        bus: Where to tell events.
        wall_clock: Seconds since the Unix epoch.

    Attributes:
        report: What became of everything, once it is over.
    """

    __slots__ = ("_bus", "_closed", "_closers", "_followers", "_leading", "_life", "_unclosed", "_wall_clock", "report")

    report: ShutdownReport | None

    def __init__(self, life: Life, bus: EventBus, wall_clock: Callable[[], float]) -> None:
        self._life = life
        self._bus = bus
        self._wall_clock = wall_clock
        self._closers: dict[object, Callable[[], Awaitable[object]]] = {}
        self.start_anew()

    def start_anew(self) -> None:
        """Forget that it ever began: in a forked child it has not."""
        self._leading = threading.Lock()  # held by the task that does it, in whatever thread
        self._followers: list[Waiter] = []
        self._closed = 0
        self._unclosed: tuple[str, ...] = ()
        self.report = None

    def on_close(self, close: Callable[[], Awaitable[object]]) -> Callable[[], None]:
        """
        Let *close* be awaited at the end. Returns a function that takes it back.

        Raises:
            RuntimeError: The end has come already.
            TypeError: *close* cannot be called.
        """
        if not callable(close):
            raise TypeError(f"on_close() takes an async function, such as client.aclose, not {close!r}")
        if self.report is not None:
            raise RuntimeError(
                "the registry is shut down already, so nobody would await this: close it where it is made"
            )
        key = object()
        self._closers[key] = close

        def take_back() -> None:
            self._closers.pop(key, None)

        return take_back

    async def run(self, terms: ShutdownSettings) -> ShutdownReport:
        """Shut down, or wait until somebody else has who began before; what *terms* he has holds for all."""
        while self.report is None:
            if not self._leading.acquire(blocking=False):
                await self._follow()
                continue
            try:
                self.report = self.report or await self._lead(terms)
            finally:  # cancelled: who comes next goes on
                self._life.wake = None
                self._leading.release()
                self._tell_followers()
        return self.report

    async def _follow(self) -> None:
        waiter = Waiter()
        self._followers.append(waiter)
        try:
            await waiter.wait(_LOOK)
        finally:
            with suppress(ValueError):
                self._followers.remove(waiter)

    def _tell_followers(self) -> None:
        for waiter in self._followers[:]:
            waiter.wake()

    # -- the cascade -----------------------------------------------------------------------------------------------

    async def _lead(self, terms: ShutdownSettings) -> ShutdownReport:
        began = anyio.current_time()
        asked = self._stop_admitting(terms)
        if not await self._until_quiet(terms.grace, asked):
            self._cut_off(terms.grace)
            await self._until_quiet(terms.cancel, asked)
        abandoned = self._in_flight()
        await self._close(terms.close)
        report = ShutdownReport(
            finished=self._life.finished,
            interrupted=self._life.interrupted,
            refused=self._life.refused,
            abandoned=abandoned,
            closed=self._closed,
            unclosed=self._unclosed,
            seconds=anyio.current_time() - began,
        )
        self._bus.emit(ShutdownEnded(provider="", time=self._wall_clock(), **asdict(report)))
        return report

    def _stop_admitting(self, terms: ShutdownSettings) -> set[Home]:
        """Refuse calls from now on. Returns the loops that have yet to confirm that none has slipped through."""
        life = self._life
        began, life.stopping = not life.stopping, True
        asked: set[Home] = set()
        waiting: list[Pending] = []
        for runtime in self._runtimes():
            with runtime.common.lock:
                runtime.refresh()
            tickets = cast("list[ref[Pending]]", list(runtime.waiting))
            waiting += [one for ticket in tickets if (one := ticket()) is not None]
        if began:
            event = ShutdownBegan(
                provider="",
                time=self._wall_clock(),
                grace=terms.grace,
                in_flight=self._in_flight(),
                waiting=len(waiting),
            )
            self._bus.emit(event)
        for one in waiting:
            one.send_away()
        for home in self._homes():
            if not home.is_here and home.answers:
                asked.add(home)
                if not home.do_soon(partial(self._confirmed, asked, home)):
                    asked.discard(home)
        return asked

    def _confirmed(self, asked: set[Home], home: Home) -> None:
        asked.discard(home)
        self._life.stir()

    async def _until_quiet(self, seconds: float, asked: set[Home]) -> bool:
        """Wait until nothing is in flight and nobody waits, for *seconds* at most. Returns whether it is so."""
        ends = anyio.current_time() + seconds
        while True:
            waiter = Waiter()
            self._life.wake = waiter.wake  # before we look: nothing that ends after that is missed
            if not (asked or self._in_flight() or any(runtime.waiting for runtime in self._runtimes())):
                return True
            left = ends - anyio.current_time()
            if left <= 0:
                return False
            await waiter.wait(min(left, _LOOK))

    def _cut_off(self, grace: float) -> None:
        """Interrupt what is in flight, each attempt on its own loop."""
        self._life.interrupting = True
        for runtime in self._runtimes():
            for lane in runtime.lanes.values():
                _home_of(lane).do(partial(lane.cut_off, grace))
            for interrupt in list(runtime.held.values()):
                if interrupt is not None:
                    interrupt(grace)

    async def _close(self, seconds: float) -> None:
        closers = list(self._closers.values())
        self._closers.clear()
        closed, unclosed = await close_all(closers, seconds)
        self._closed += closed
        self._unclosed += unclosed

    # -- looking ---------------------------------------------------------------------------------------------------

    def _runtimes(self) -> list[ProviderRuntime]:
        """Return all of this registry, those it has forgotten but that have calls under way among them."""
        return [runtime for runtime in every_runtime() if runtime.life is self._life]

    def _homes(self) -> list[Home]:
        """Return the loops on which calls were made, each once."""
        lanes = {lane.loop if lane.loop is not None else lane.thread: lane for lane in self._lanes()}
        return [_home_of(lane) for lane in lanes.values()]

    def _lanes(self) -> list[Lane]:
        """Return all lanes whose tasks can go on."""
        lanes = [lane for runtime in self._runtimes() for lane in runtime.lanes.values()]
        return [lane for lane in lanes if lane.loop is None or not lane.loop.is_closed()]

    def _in_flight(self) -> int:
        """How many attempts are running or held open."""
        held = sum(len(runtime.held) for runtime in self._runtimes())
        return held + sum(lane.in_flight() for lane in self._lanes())


def _home_of(lane: Lane) -> Home:
    """Say how other threads reach *lane*."""
    home: Home | None = lane.home
    return home if home is not None else Home(lane.loop)
