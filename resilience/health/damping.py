"""
Damping: what keeps a component that flaps from being reported, again and again, as gone and back.

A *spell* of bad news begins with the first bad answer, and ends with the last of so many good answers in a row. It
counts once it has lasted for the grace period. There are two of them: one of answers that are worse than ``pass``,
and one of ``fail``; so a component that wavers between ``warn`` and ``fail`` is reported as ``warn`` in the meantime.
"""

from __future__ import annotations

from typing import final

from resilience.health.components import BADNESS, Status


@final
class Spell:
    """One spell of answers that are at least so bad, if there is one at present."""

    __slots__ = ("_good", "_level", "since")

    since: float | None

    def __init__(self, level: Status) -> None:
        self._level = BADNESS[level]
        self._good = 0
        self.since = None

    def see(self, status: Status, at: float, good_answers: int) -> None:
        """Take note of an answer."""
        if BADNESS[status] >= self._level:
            self._good = 0
            if self.since is None:
                self.since = at
        elif self.since is not None:
            self._good += 1
            if self._good >= good_answers:
                self._good, self.since = 0, None

    def counts(self, now: float, grace: float) -> bool:
        """Whether it has lasted long enough."""
        return self.since is not None and now >= self.since + grace


@final
class Damper:
    """
    How one component is, as it counts.

    Args:
        good_answers: So many good answers in a row end bad news.
    """

    __slots__ = ("_failing", "_good_answers", "_unwell")

    def __init__(self, good_answers: int = 1) -> None:
        self._good_answers = good_answers
        self._unwell = Spell(Status.WARN)
        self._failing = Spell(Status.FAIL)

    def see(self, status: Status, at: float) -> None:
        """Take note of an answer given at *at*."""
        self._unwell.see(status, at, self._good_answers)
        self._failing.see(status, at, self._good_answers)

    def status(self, now: float, grace: float) -> Status:
        """Return what counts at *now*."""
        if self._failing.counts(now, grace):
            return Status.FAIL
        return Status.WARN if self._unwell.counts(now, grace) else Status.PASS

    def bad_for(self, now: float) -> float | None:
        """Return for how long there has been bad news, whether it counts or not; None if there is none."""
        return None if self._unwell.since is None else max(0.0, now - self._unwell.since)
