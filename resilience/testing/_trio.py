"""trio's share of virtual time: its own `MockClock`, and a watch that turns an endless wait into an error."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Final, ParamSpec, TypeVar, final

import trio
import trio.testing

from resilience.testing.clock import DeadlockError, innermost

_P = ParamSpec("_P")
_T = TypeVar("_T")

_IDLE_TURNS: Final = 100
"""Idle turns in a row before the question is asked at all: asking costs more than a turn."""
_GRACE: Final = 0.02
_THREAD_GRACE: Final = 5.0
"""Real seconds that sockets, or worker threads, get to wake somebody up."""
_SWITCH: Final = "_ALLOW_DETERMINISTIC_SCHEDULING"


@final
class DeadlockWatch(trio.abc.Instrument):
    """Ends what can never end by itself. *deadlock* is then the reason."""

    def __init__(self) -> None:
        self.deadlock: DeadlockError | None = None
        self._scope: trio.CancelScope | None = None
        self._idle_turns = 0
        self._idle_since = 0.0

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 (trio's signature)
        """Somebody can go on, so there is no deadlock."""
        self._idle_turns = 0

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 (trio's signature)
        """Count the turns in which nothing came."""
        self._idle_turns += 1
        if self._idle_turns == _IDLE_TURNS:
            self._idle_since = time.monotonic()
        elif self._idle_turns > _IDLE_TURNS:
            self._judge()

    async def guard(self, func: Callable[_P, Awaitable[_T]], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """
        Await ``func(*args, **kwargs)``, and end it alone, not the whole run, if it deadlocks.

        Raises:
            DeadlockError: It did.
        """
        try:
            with trio.CancelScope() as self._scope:
                return await func(*args, **kwargs)
        except BaseException as error:
            if self.deadlock is not None:
                raise self.deadlock from error
            raise
        finally:
            self._scope = None
        raise self.deadlock or AssertionError("nobody else cancels this scope")

    def _judge(self) -> None:
        grace = _GRACE if threading.active_count() == 1 else _THREAD_GRACE
        if time.monotonic() - self._idle_since > grace:
            state = trio.lowlevel.current_statistics()
            if state.seconds_to_next_deadline == math.inf and not state.tasks_runnable:
                self._end()

    def _end(self) -> None:
        self._idle_turns = 0
        self.deadlock = DeadlockError(_describe())
        if self._scope is not None and not self._scope.cancel_called:
            self._scope.cancel()
        else:
            trio.lowlevel.spawn_system_task(_fail, self.deadlock, name="deadlock")


async def _fail(error: DeadlockError) -> None:
    raise error


def options() -> dict[str, object]:
    """Fresh options for one `trio.run` on virtual time."""
    return {"clock": trio.testing.MockClock(autojump_threshold=0), "instruments": [DeadlockWatch()]}


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Let trio, which shuffles its tasks on purpose, shuffle them in the same way each time, where it can be told."""
    import trio._core._run as scheduler

    generator = getattr(scheduler, "_r", None)
    before = getattr(scheduler, _SWITCH, None)
    if before is None or not isinstance(generator, random.Random):
        yield
        return
    setattr(scheduler, _SWITCH, True)
    generator.seed(seed)
    try:
        yield
    finally:
        setattr(scheduler, _SWITCH, before)


def _describe() -> str:
    root = trio.lowlevel.current_root_task()
    tasks = [] if root is None else [root]
    waiting: list[str] = []
    while tasks:
        task = tasks.pop()
        tasks += (child for nursery in task.child_nurseries for child in nursery.child_tasks)
        if not task.child_nurseries and not task.name.startswith("<"):
            waiting.append(f"{task.name} at {innermost(task.iter_await_frames())}")
    problem = "nothing is ready and no timer is set; these tasks wait:"
    return "\n  ".join([f"deadlock at virtual time {trio.current_time():.6g} s: {problem}", *sorted(waiting)])
