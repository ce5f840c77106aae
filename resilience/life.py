"""Whether the calls of a registry are admitted, and what has become of those under way since no more are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeAlias, final

Interrupt: TypeAlias = Callable[[float], object]
"""Interrupts what is held open, from any thread, and is told how many seconds of grace were not enough."""


@final
class Life:
    """
    The life of one registry, which all its runtimes share.

    Attributes:
        finished: Attempts that have ended by themselves since it is stopping.
        interrupted: Attempts that have ended because they were interrupted.
        interrupting: Whether what is left is being interrupted.
        refused: Calls that were refused.
        stopping: Whether no call is admitted any more.
        wake: Called whenever an attempt or a wait has ended.
    """

    __slots__ = ("_lock", "finished", "interrupted", "interrupting", "refused", "stopping", "wake")

    finished: int
    interrupted: int
    interrupting: bool
    refused: int
    stopping: bool
    wake: Callable[[], object] | None

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """Admit calls: at the beginning, and in a forked child, which its parent's shutdown does not concern."""
        # Reentrant: the collector may end an abandoned attempt in the middle of this.
        self._lock = threading.RLock()
        self.stopping = False
        self.interrupting = False
        self.finished = self.interrupted = self.refused = 0
        self.wake = None

    def attempt_ended(self, *, well: bool) -> None:
        """Count an attempt that ended while no more are admitted; *well*: with a result."""
        with self._lock:
            if well or not self.interrupting:
                self.finished += 1
            else:
                self.interrupted += 1
        self.stir()

    def call_refused(self) -> None:
        """Count a call that was refused."""
        with self._lock:
            self.refused += 1

    def stir(self) -> None:
        """Let whoever shuts it down look again."""
        if self.wake is not None:
            self.wake()
