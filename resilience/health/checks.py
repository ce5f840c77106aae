"""
One check: how it is started, at most once per interval and one at a time, and what its last answer says.

A run that takes longer than its timeout counts as a failure from that moment on, whether it can be interrupted or
not. One that cannot be keeps its place until it ends: no second one is started beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, suppress
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from typing import Any, NamedTuple, TypeAlias, cast, final

from resilience.health.background import CANCELLED, Ending, Host
from resilience.health.components import Component, Status
from resilience.health.damping import Damper
from resilience.policies._forks import survives
from resilience.policies._waiter import Waiter
from resilience.settings import HealthSettings

Result: TypeAlias = "Status | str | bool | int | tuple[Status, str] | None"
CheckFunction: TypeAlias = Callable[[], "Result | Awaitable[Result]"]

_ANSWERS = "None, True or False, a Status, a text, or (Status, text)"


class Answer(NamedTuple):
    """What a check said: how it is and why, after how many seconds (None: too many), and when, since the epoch."""

    status: Status
    output: str
    seconds: float | None
    time: float


@final
class Desk:
    """
    What the checks of one `Health` share.

    Args:
        clock: A monotonic clock.
        wall: Seconds since the Unix epoch.
    """

    __slots__ = ("__weakref__", "_clock", "_seen", "forks", "lock", "wall")

    forks: int
    lock: AbstractContextManager[Any]
    wall: Callable[[], float]

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._clock = clock
        self._seen = 0.0
        self.wall = wall
        self.forks = 0
        self.lock = threading.RLock()
        survives(self)

    def now(self) -> float:
        """Return the time. Where the clock does not run, as that of a loop in a thread, the one that was seen last."""
        with suppress(RuntimeError):
            self._seen = self._clock()
        return self._seen

    def start_anew(self) -> None:
        """Nothing that the parent was running is running here."""
        self.forks += 1


@final
class Options(NamedTuple):
    """What somebody wrote about a check. None: as the settings have it."""

    critical: bool = False
    component_id: str = ""
    component_type: str = "component"
    timeout: float | None = None
    interval: float | None = None
    grace: float | None = None
    good_answers: int = 1


@final
class Run:
    """One run of a check, as long as it lasts."""

    __slots__ = ("_forks", "began", "cancel", "host", "in_loop", "over", "overdue", "timeout", "waiters")

    began: float
    cancel: Callable[[], object] | None  # threads cannot be interrupted
    host: Host
    in_loop: bool
    over: bool
    overdue: bool  # it has been counted as a failure already
    timeout: float
    waiters: list[Waiter]

    def __init__(self, began: float, timeout: float, host: Host, forks: int) -> None:
        self._forks = forks
        self.began = began
        self.timeout = timeout
        self.host = host
        self.over = False
        self.overdue = False
        self.in_loop = False
        self.cancel = None
        self.waiters = []

    def lost(self, forks: int) -> bool:
        """Whether it will never end: its loop was closed over it, or it is our parent's."""
        return self._forks != forks or (self.in_loop and self.host.gone)


@final
class Check:
    """
    One check.

    Args:
        name: What it is about.
        func: Asks. Asynchronous, or not: then it runs in a thread.
        options: What somebody wrote about it.
        desk: What it shares with others.
    """

    __slots__ = ("_asynchronous", "_damper", "_desk", "_func", "_started", "answer", "name", "options", "run")

    answer: Answer | None
    name: str
    options: Options
    run: Run | None

    def __init__(self, name: str, func: CheckFunction, options: Options, desk: Desk) -> None:
        self.name = name
        self.options = options
        self._func = func
        self._desk = desk
        call = getattr(func, "__call__", None)  # noqa: B004 - it is looked at, not asked for
        self._asynchronous = iscoroutinefunction(func) or iscoroutinefunction(call)
        self._damper = Damper(options.good_answers)
        self._started: float | None = None
        self.answer = None
        self.run = None

    # -- running ---------------------------------------------------------------------------------------------------

    def due_in(self, settings: HealthSettings, now: float) -> float:
        """Return in how many seconds it may be run again."""
        interval = settings.interval if self.options.interval is None else self.options.interval
        return 0.0 if self._started is None else max(0.0, self._started + interval - now)

    def start_if_due(self, settings: HealthSettings, now: float, host: Host) -> None:
        """Start a run beside the caller, unless it is too early or one is under way. Called under the lock."""
        self._forget_lost()
        if self.run is not None or self.due_in(settings, now):
            return
        timeout = settings.timeout if self.options.timeout is None else self.options.timeout
        run = self.run = Run(now, timeout, host, self._desk.forks)
        self._started = now
        if self._asynchronous:
            run.in_loop = True
            run.cancel = host.start(self._ask, timeout, partial(self._ended, run))
        else:
            self._start_thread(run)

    def _forget_lost(self) -> None:
        if self.run is not None and self.run.lost(self._desk.forks):
            self.run = None

    async def _ask(self) -> object:
        return await cast("Callable[[], Awaitable[object]]", self._func)()

    def _start_thread(self, run: Run) -> None:
        # Daemons: the process can end while a check hangs.
        thread = threading.Thread(target=self._ask_in_thread, args=(run,), name=f"health-{self.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # there are too many threads
            self._ended(run, Ending(error=error))

    def _ask_in_thread(self, run: Run) -> None:
        try:
            result = self._func()
        except BaseException as error:  # there is nobody above us but the interpreter
            self._ended(run, Ending(error=error))
            return
        if isawaitable(result):
            self._hand_over(run, result)
        else:
            self._ended(run, Ending(result))

    def _hand_over(self, run: Run, result: Awaitable[object]) -> None:
        """It was asynchronous after all, as a lambda may be: from now on we know."""
        self._asynchronous = run.in_loop = True
        if not run.host.post(partial(self._await, run, result)):
            if isinstance(result, Coroutine):
                result.close()
            self._ended(run, CANCELLED)

    def _await(self, run: Run, result: Awaitable[object]) -> None:
        async def finish() -> object:
            return await result

        run.cancel = run.host.start(finish, run.timeout, partial(self._ended, run))

    def _ended(self, run: Run, ending: Ending) -> None:
        """Take note of how a run ended, in the loop or in its thread."""
        with self._desk.lock:
            waiters, run.waiters, run.over = run.waiters, [], True
            if self.run is run:
                if not ending.cancelled:
                    self._count(run, ending, self._desk.now())
                self.run = None
        for waiter in waiters:
            waiter.wake()

    def _count(self, run: Run, ending: Ending, now: float) -> None:
        if ending.expired or now > run.began + run.timeout:
            self._overdue(run)
        else:
            self._take(*_judged(ending), now, now - run.began)

    def _overdue(self, run: Run) -> None:
        if not run.overdue:
            run.overdue = True
            self._take(Status.FAIL, f"no answer within {run.timeout:g} s", run.began + run.timeout, None)

    def _take(self, status: Status, output: str, at: float, seconds: float | None) -> None:
        self._damper.see(status, at)
        since = self._desk.now() - at
        self.answer = Answer(status, output, seconds, self._desk.wall() - since)

    # -- telling ---------------------------------------------------------------------------------------------------

    def look(self, settings: HealthSettings, now: float) -> Component:
        """Return how it is. Called under the lock."""
        self._forget_lost()
        run = self.run
        if run is not None and now > run.began + run.timeout:
            self._overdue(run)
        grace = settings.grace if self.options.grace is None else self.options.grace
        answer, critical = self.answer, self.options.critical
        unknown = Status.FAIL if critical else Status.WARN
        return Component(
            name=self.name,
            kind="check",
            status=unknown if answer is None else self._damper.status(now, grace),
            observed=unknown if answer is None else answer.status,
            critical=critical,
            known=answer is not None,
            output=self._output(now, grace),
            component_id=self.options.component_id,
            component_type=self.options.component_type,
            value=None if answer is None else answer.seconds,
            time=None if answer is None else answer.time,
            bad_for=self._damper.bad_for(now),
        )

    def _output(self, now: float, grace: float) -> str:
        run, answer = self.run, self.answer
        said = [answer.output] if answer is not None and answer.output else []
        if answer is None:
            said.append("no answer yet")
        if run is not None and (run.overdue or answer is None):
            said.append(f"has been running for {now - run.began:.1f} s")
        bad_for = self._damper.bad_for(now)
        if bad_for is not None and bad_for < grace:
            said.append(f"unwell for {bad_for:.1f} s, which counts from {grace:g} s on")
        return "; ".join(said)


def _judged(ending: Ending) -> tuple[Status, str]:
    """Return what an answer means. The text of a foreign error may hold anything, so only its class is told."""
    if ending.error is not None:
        return Status.FAIL, type(ending.error).__name__
    value = ending.value
    kind = type(value).__name__
    if isinstance(value, Status):
        return value, ""
    if isinstance(value, str):
        return (Status(value), "") if value in _STATUSES else (Status.PASS, value)
    if value is None or isinstance(value, int):
        return (Status.PASS if value is None or value else Status.FAIL), ""
    if isinstance(value, tuple):
        pair = cast("tuple[object, ...]", value)
        told, output = pair if len(pair) == 2 else (None, None)  # noqa: PLR2004 - a pair
        if isinstance(told, str) and told in _STATUSES and isinstance(output, str):
            return Status(told), output
    return Status.FAIL, f"the check returned {kind}, which says nothing: return {_ANSWERS}"


_STATUSES = frozenset(map(str, Status))
