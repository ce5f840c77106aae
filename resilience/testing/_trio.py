"""trio's share of virtual time: its own `MockClock`, and a watch that turns an endless wait into an error."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, final

import trio
import trio.testing

from resilience.testing.clock import DeadlockError, innermost

_IDLE_TURNS: Final = 100
"""Idle turns in a row before the question is asked at all: asking costs more than a turn."""
_GRACE: Final = 0.02
_THREAD_GRACE: Final = 5.0
"""Real seconds that sockets, or worker threads, get to wake somebody up."""
_SWITCH: Final = "_ALLOW_DETERMINISTIC_SCHEDULING"


@final
class DeadlockWatch(trio.abc.Instrument):
    """Ends a run in which nothing can happen any more. *deadlock* is then the reason."""

    def __init__(self) -> None:
        self.deadlock: DeadlockError | None = None
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
        elif self._idle_turns > _IDLE_TURNS and self.deadlock is None:
            self._judge()

    def _judge(self) -> None:
        grace = _GRACE if threading.active_count() == 1 else _THREAD_GRACE
        if time.monotonic() - self._idle_since > grace:
            state = trio.lowlevel.current_statistics()
            if state.seconds_to_next_deadline == math.inf and not state.tasks_runnable:
                self.deadlock = DeadlockError(_describe())
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
