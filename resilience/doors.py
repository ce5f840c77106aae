"""
How the lanes of a provider stand: open to the fast path, shut, or with somebody at the door who decides.

A lane's passage is what a call under way compares itself with; its door is the same, or None where `Lane.admit` has a
word in who enters: a limit, or whoever follows calls and wants those that are being recorded to look closer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from resilience._core.states import Period
from resilience.fast_limits import Admit
from resilience.lane import Lane
from resilience.lanes import Lanes
from resilience.limits import Limits
from resilience.watching import Watcher, observed


def set_doors(
    lanes: Lanes,
    passage: Period | None,
    *,
    turn_at: float,
    limits: Limits | None,
    watcher: Watcher | None,
    always: bool,
) -> None:
    """
    Tell every lane how it stands. Called under the lock.

    Args:
        lanes: The provider's lanes.
        passage: The present closed period; None: every call has to look closer.
        turn_at: When the next window border is.
        limits: The provider's limits, if it has any.
        watcher: Who follows calls, if anybody does.
        always: Whether it follows all of them, recorded or not.
    """
    admit: Admit | None = None
    if limits is not None:
        admit = limits.admit
        passage = passage if len(lanes) == 1 and limits.quick else None
    if watcher is not None:
        admit = _nobody if always else partial(_unless, watcher.recording, admit or _passes)
    for lane in lanes.values():
        lane.passage = passage if not lane.retired else None
        lane.door = lane.passage if admit is None else None
        if admit is not None:
            lane.admit = admit
        lane.turn_at = turn_at
        lane.metered = observed.metered


def _passes(lane: Lane, _now: float) -> Period | None:
    """Admit everybody, as the open door does."""
    return lane.passage


def _nobody(_lane: Lane, _now: float) -> None:
    """Let every call look closer."""


def _unless(recording: Callable[[], bool], admit: Admit, lane: Lane, now: float) -> Period | None:
    """Let calls that are being recorded look closer, and leave the others to *admit*."""
    return None if recording() else admit(lane, now)
