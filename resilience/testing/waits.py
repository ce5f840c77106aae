"""Test suites that do not wait."""

from __future__ import annotations

from types import TracebackType
from typing import final

from resilience import waiting


@final
class no_waits:  # noqa: N801 - it reads as a function: `with no_waits():`
    """
    Let every wait of ours take no time while the ``with`` block runs, in the whole process.

    Nothing else changes. Delays are drawn, weighed against deadlines and told in events as ever, and a delay that
    would have passed a deadline is still not slept; what a call did not sleep is taken from its time, so its next
    attempt has as little left as it would have had. Clocks do not move: an open circuit stays open. A gate that a call
    did not wait for opens, for that call and everybody else. The tokens that a call waits for at a rate limit are
    handed out ahead of time. Waiting in line for another call to end, time-outs and hedging delays are not waits of
    this kind.

    For tests on the real clock; on virtual time waits cost nothing anyhow. Not a decorator.
    """

    __slots__ = ("_inside",)

    def __init__(self) -> None:
        self._inside = 0

    def __enter__(self) -> None:
        self._inside += 1
        waiting.skipping += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._inside:
            self._inside -= 1
            waiting.skipping -= 1
